"""The files of an export: a folder a day, and a manifest that is written last.

Invariants: a reader that goes by ``manifest.json`` sees a whole export, the old one or the new one: files have new
names, the manifest is replaced by a rename, and only then the files of the old one are removed. A day with the same
content keeps its file and its name, so that a copy of the folder takes only the days that changed; a day that lost its
rows is named as removed. A folder that holds
something else is left alone. Amounts are exact: decimal(38, 6) in Parquet, decimal text in CSV.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol, Self

from attributary.cli.tables import csv_cell

MANIFEST = "manifest.json"
_FORMAT = "attributary-export-1"
_VALUES = ("net_value", "value")
_PART = re.compile(r"day=\d{4}-\d\d-\d\d/part-[0-9a-f]{8}\.(parquet|csv)|\.manifest\.json\.[0-9a-f]{8}")


class ForeignFolderError(ValueError):
    """The folder holds something that no export wrote."""


class MissingExtraError(ValueError):
    """A library is missing; the text names the extra."""


class _Writer(Protocol):
    def write(self, rows: Sequence[Sequence[Any]]) -> None: ...

    def close(self) -> None: ...


class ExportFiles:
    """Writes an export into a folder.

    Args:
        folder: new, empty, or one of an earlier export.
        form: parquet or csv.
        about: what the manifest says of the export.

    Raises:
        ForeignFolderError: the folder holds something else.
        MissingExtraError: parquet without pyarrow.
    """

    def __init__(self, folder: Path, form: str, about: Mapping[str, Any]) -> None:
        self._folder, self._form, self._about = folder, form, about
        if form == "parquet":
            _arrow()
        self._old = _files_of(folder)
        self._before = _hashes(folder)
        self._kept: set[Path] = set()
        self._id = secrets.token_hex(4)
        self._columns: list[tuple[str, str]] = []
        self._files: list[dict[str, Any]] = []
        self._sums: dict[str, Decimal] = {}
        self._day = ""
        self._path = folder
        self._writer: _Writer | None = None
        self._is_finished = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Remove what was written when the export did not finish."""
        if self._is_finished:
            return
        if self._writer is not None:
            self._writer.close()
        for file in self._files:
            if self._folder / file["path"] not in self._kept:
                _remove(self._folder / file["path"])

    def begin(self, columns: Sequence[tuple[str, str]]) -> None:
        """Set the columns: name, and type as Postgres calls it."""
        self._columns = list(columns)

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Write rows in the order of days; the first cell is the day, YYYY-MM-DD."""
        start = 0
        for place in range(1, len(rows) + 1):
            if place == len(rows) or rows[place][0] != rows[start][0]:
                self._write(str(rows[start][0]), [row[1:] for row in rows[start:place]])
                start = place

    def finish(self) -> dict[str, Any]:
        """Close the last file, replace the manifest, and remove the files of the one before. Return the manifest."""
        self._end_file()
        paths = {file["path"] for file in self._files}
        manifest = {
            "format": _FORMAT,
            **self._about,
            "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "columns": [{"name": name, "type": kind} for name, kind in self._columns],
            "rows": sum(file["rows"] for file in self._files),
            "sums": {key: str(value) for key, value in sorted(self._sums.items())},
            "files": self._files,
            "new_files": sorted(paths - self._before.keys()),
            "removed_files": sorted(self._before.keys() - paths),
        }
        self._folder.mkdir(parents=True, exist_ok=True)
        new = self._folder / f".{MANIFEST}.{self._id}"
        new.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        new.replace(self._folder / MANIFEST)
        self._is_finished = True
        for path in self._old:
            if path not in self._kept:
                _remove(path)
        return manifest

    def _write(self, day: str, rows: Sequence[Sequence[Any]]) -> None:
        if day != self._day or self._writer is None:
            self._end_file()
            self._day = day
            self._path = self._folder / f"day={day}" / f"part-{self._id}.{self._form}"
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = (_ParquetWriter if self._form == "parquet" else _CsvWriter)(self._path, self._columns)
            self._files.append({"path": self._path.relative_to(self._folder).as_posix(), "rows": 0})
        self._writer.write(rows)
        self._files[-1]["rows"] += len(rows)
        self._add(rows)

    def _end_file(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            with self._path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            self._files[-1]["sha256"] = digest
            self._keep(digest)

    def _keep(self, digest: str) -> None:
        """Take the file of the export before in place of a new one with the same content, if it is still whole."""
        day = self._path.parent
        for name, before in self._before.items():
            old = self._folder / name
            if before == digest and old.parent == day and old.suffix == self._path.suffix and _is_whole(old, digest):
                self._path.unlink()
                self._path = old
                self._kept.add(old)
                self._files[-1]["path"] = name
                return

    def _add(self, rows: Sequence[Sequence[Any]]) -> None:
        """Add to the sums of value by currency; of credit by model, dimension and currency."""
        value_sums(self._columns, rows, self._sums)


def value_sums(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[Any]], sums: dict[str, Decimal]) -> None:
    """Add values of rows to sums, by model, dimension and currency as far as the columns have them."""
    names = [name for name, _ in columns]
    value = next((names.index(name) for name in _VALUES if name in names), None)
    if value is None:
        return
    places = [names.index(name) for name in ("model", "dimension", "currency") if name in names]
    for row in rows:
        key = "|".join(str(row[place]) for place in places)
        sums[key] = sums.get(key, Decimal()) + row[value]


def _files_of(folder: Path) -> list[Path]:
    """Return the files of former exports in a folder, also of one that was killed.

    Raises:
        ForeignFolderError: there is something else in it.
    """
    there = [path for path in folder.rglob("*") if not path.is_dir()] if folder.exists() else []
    found = [path for path in there if _PART.fullmatch(path.relative_to(folder).as_posix())]
    manifest = folder / MANIFEST
    if set(there) - {*found, manifest} or (manifest in there and not _is_ours(manifest)):
        raise ForeignFolderError(f"{folder} holds something that no export wrote; name another folder")
    return found


def _hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that the manifest of an earlier export names, by path."""
    manifest = folder / MANIFEST
    if not manifest.exists() or not _is_ours(manifest):
        return {}
    files = json.loads(manifest.read_text("utf-8")).get("files", [])
    return {file["path"]: file["sha256"] for file in files if _PART.fullmatch(file["path"])}


def _is_whole(path: Path, digest: str) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == digest
    except OSError:
        return False


def _is_ours(manifest: Path) -> bool:
    try:
        found = json.loads(manifest.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("format") == _FORMAT


def _remove(path: Path) -> None:
    """Remove a file, and the folders above it as far as they are empty, two at most: the day's and the export's."""
    path.unlink(missing_ok=True)
    for folder in list(path.parents)[:2]:
        if not folder.is_dir() or any(folder.iterdir()):
            return
        folder.rmdir()


class _CsvWriter:
    def __init__(self, path: Path, columns: Sequence[tuple[str, str]]) -> None:
        self._file = path.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow([name for name, _ in columns])

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        self._writer.writerows([_text(value) for value in row] for row in rows)

    def close(self) -> None:
        self._file.close()


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return csv_cell(value) if isinstance(value, str) else str(value)


class _ParquetWriter:
    def __init__(self, path: Path, columns: Sequence[tuple[str, str]]) -> None:
        self._pa, parquet = _arrow()
        self._schema = arrow_schema(columns)
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd")

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        by_column = zip(zip(*rows, strict=True), self._schema.types, strict=True)
        columns = [self._pa.array(cells, kind) for cells, kind in by_column]
        self._writer.write_batch(self._pa.record_batch(columns, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


def arrow_schema(columns: Sequence[tuple[str, str]]) -> Any:
    """Return the columns as Arrow has them: name, and type as Postgres calls it."""
    pa, _ = _arrow()
    kinds = {
        "timestamptz": pa.timestamp("us", tz="UTC"), "numeric": pa.decimal128(38, 6), "int8": pa.int64(),
        "int4": pa.int32(), "float8": pa.float64(), "bool": pa.bool_(),
    }  # fmt: skip
    return pa.schema([(name, kinds.get(kind, pa.string())) for name, kind in columns])


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("Parquet needs pyarrow: install attributary[parquet], or use --format csv") from error
    return pa, parquet
