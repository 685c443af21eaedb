"""An export as an Iceberg table with a catalogue of its own: a SQLite file beside the data.

Invariants: an export is one commit, so a reader sees the old one or the new one. A day with the same content keeps its
files; a day that changed is replaced, one that lost its rows is deleted. After the commit the snapshots before it are
expired and their files removed: what was erased in the store is in no file of the table. A folder that holds something
else, or the table of another tenant or view, is left alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

from attributary.cli.export_files import ForeignFolderError, MissingExtraError, arrow_schema, value_sums

CATALOG = "catalog.db"
NAMESPACE, DAY = "attributary", "export_day"
_DAYS, _TENANT, _FROM = "attributary.days", "attributary.tenant", "attributary.period"


class IcebergExport:
    """Writes an export into an Iceberg table.

    Args:
        folder: new, empty, or one of an earlier export.
        about: dataset and tenant of the export, its period.

    Raises:
        ForeignFolderError: the folder holds something else.
        MissingExtraError: pyiceberg is missing.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        self._iceberg()
        self._folder, self._about = folder.absolute(), about
        self._name = f"{NAMESPACE}.{about['dataset']}"
        if folder.exists() and any(folder.iterdir()) and not (folder / CATALOG).exists():
            raise ForeignFolderError(f"{folder} holds something that no export wrote; name another folder")
        self._open = ExitStack()
        self._columns: list[tuple[str, str]] = []
        self._days: dict[str, str] = {}
        self._changed: list[str] = []
        self._before: dict[str, str] = {}
        self._rows, self._sums = 0, dict[str, Decimal]()
        self._day, self._pending = "", list[Sequence[Any]]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failed: object) -> None:
        """Leave the table as it was when the export did not finish; files of the attempt go with the next export."""
        self._open.pop_all() if failed[0] is not None else self._open.close()

    def begin(self, columns: Sequence[tuple[str, str]]) -> None:
        """Set the columns, and open or make the table: name, and type as Postgres calls it.

        Raises:
            ForeignFolderError: the table is of another tenant.
        """
        import pyarrow as pa
        from pyiceberg.catalog.sql import SqlCatalog

        self._columns = list(columns)
        self._folder.mkdir(parents=True, exist_ok=True)
        catalog = SqlCatalog(
            "attributary", uri=f"sqlite:///{self._folder / CATALOG}", warehouse=f"file://{self._folder}"
        )
        catalog.create_namespace_if_not_exists(NAMESPACE)
        plain = arrow_schema(columns)
        self._schema = pa.schema([pa.field(DAY, pa.date32()), *plain])
        if catalog.table_exists(self._name):
            table = catalog.load_table(self._name)
            tenant = table.properties.get(_TENANT)
            if tenant != self._about["tenant"]:
                raise ForeignFolderError(f"{self._folder} has the table of another tenant; name another folder")
            with table.update_schema() as update:
                update.union_by_name(self._schema)
        else:
            table = catalog.create_table(
                self._name, schema=self._schema, properties={_TENANT: self._about["tenant"], _DAYS: "{}"}
            )
            with table.update_spec() as spec:
                spec.add_identity(DAY)
        self._catalog, self._table = catalog, catalog.load_table(self._name)
        self._before = json.loads(self._table.properties.get(_DAYS, "{}"))
        self._transaction = self._table.transaction()

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Write rows in the order of days; the first cell is the day, YYYY-MM-DD. A day is held in memory."""
        for row in rows:
            if row[0] != self._day:
                self._end_day()
                self._day = str(row[0])
            self._pending.append(row[1:])

    def finish(self) -> dict[str, Any]:
        """Commit, expire what was before, remove its files. Return rows, files, new and removed days, sums."""
        self._end_day()
        gone = sorted(self._before.keys() - self._days.keys())
        for day in gone:
            self._transaction.delete(f"{DAY} = '{day}'")
        if self._changed or gone:
            self._transaction.set_properties(
                {
                    _DAYS: json.dumps(self._days, sort_keys=True),
                    _FROM: json.dumps({"from": self._about["from"], "to": self._about["to"]}),
                }
            )
            self._transaction.commit_transaction()
        self._drop_history()
        return {
            "rows": self._rows, "files": sorted(self._days), "new_files": self._changed, "removed_files": gone,
            "sums": {key: str(value) for key, value in sorted(self._sums.items())},
        }  # fmt: skip

    def _end_day(self) -> None:
        if not self._day:
            return
        rows, self._pending = self._pending, []
        digest = hashlib.sha256()
        digest.update(json.dumps(self._columns).encode())
        for row in rows:
            digest.update(repr(tuple(row)).encode("utf-8", "surrogatepass"))
        self._days[self._day] = digest.hexdigest()
        self._rows += len(rows)
        value_sums(self._columns, rows, self._sums)
        if self._before.get(self._day) != self._days[self._day]:
            self._changed.append(self._day)
            table = self._arrow(rows)
            if self._day in self._before:
                self._transaction.overwrite(table, overwrite_filter=f"{DAY} = '{self._day}'")
            else:
                self._transaction.append(table)

    def _arrow(self, rows: Sequence[Sequence[Any]]) -> Any:
        import pyarrow as pa

        day = date.fromisoformat(self._day)
        cells = [[day] * len(rows), *zip(*rows, strict=True)]
        columns = [pa.array(list(column), kind) for column, kind in zip(cells, self._schema.types, strict=True)]
        return pa.Table.from_arrays(columns, schema=self._schema)

    def _drop_history(self) -> None:
        """Expire all snapshots but the newest, and remove every file that it does not name."""
        table = self._catalog.load_table(self._name)
        newest = table.current_snapshot()
        if newest is None:
            return
        old = [each.snapshot_id for each in table.metadata.snapshots if each.snapshot_id != newest.snapshot_id]
        if old:
            table.maintenance.expire_snapshots().by_ids(old).commit()
            table = self._catalog.load_table(self._name)
        named = {table.metadata_location, newest.manifest_list}
        for manifest in newest.manifests(table.io):
            named.add(manifest.manifest_path)
            named |= {entry.data_file.file_path for entry in manifest.fetch_manifest_entry(table.io)}
        for path in (self._folder / NAMESPACE / str(self._about["dataset"])).rglob("*"):
            if path.is_file() and f"file://{path}" not in named:
                path.unlink()

    @staticmethod
    def _iceberg() -> None:
        try:
            import pyiceberg.catalog.sql  # noqa: F401 - only whether it is there
        except ImportError as error:
            raise MissingExtraError("Iceberg needs pyiceberg: install attributary[iceberg]") from error
