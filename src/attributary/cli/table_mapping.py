"""Tables with names, separators and forms of their own become the table that `attributary analyze` reads.

Contract: the options are those of `attributary produce`. ``map`` gives our column the name of theirs; besides the names
of `analyze` (path, user, time, ...) those of the pipeline count (user_id, anonymous_id, occurred_at), so that one
mapping file serves both. Without options a table is read as it is. Times without a zone are UTC unless one is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from attributary.cli.table_files import FileColumns
    from attributary.producers.importer.conditions import Condition
    from attributary.producers.importer.plan import ImportPlan

COLUMNS = (
    "path", "total_conversions", "total_conversion_value", "total_null", "user", "time", "channel", "conversion",
    "value", "event_id",
)  # fmt: skip
_PIPELINE = {"user_id": "user", "anonymous_id": "user", "occurred_at": "time"}
_AMOUNTS = ("total_conversions", "total_conversion_value", "total_null", "value")


@dataclass(frozen=True, slots=True)
class TableMapping:
    """How a table is read.

    Attributes:
        columns: our column -> theirs; the first that is there and not empty counts.
        constants: our column -> text where a row has no value.
        delimiter: between the cells of CSV; None: comma.
        encoding: of CSV; None: UTF-8.
        skip_lines: lines above the header to leave out.
        where: conditions of the rows that count.
        forms: how times and amounts are written; None: as `analyze` reads them by itself.
        unused: parts of a mapping file that have no place in a table of journeys.
    """

    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    delimiter: str | None = None
    encoding: str | None = None
    skip_lines: int = 0
    where: tuple[Condition, ...] = ()
    forms: ImportPlan | None = None
    unused: tuple[str, ...] = ()

    @property
    def is_of_text(self) -> bool:
        """Whether something is said that only a text file has."""
        return bool(self.delimiter or self.encoding or self.skip_lines)


def table_mapping(options: Mapping[str, Any]) -> TableMapping:
    """Return the mapping of options and of the mapping file that they name.

    Raises:
        ValueError: they cannot be used; the text says why.
    """
    from attributary.producers.importer.conditions import parse_condition
    from attributary.producers.importer.header import delimiter_of
    from attributary.producers.importer.plan import ImportPlan, PlanError, parse_pairs, parse_timezone
    from attributary.producers.importer.plan import read_mapping_file as read

    given = options.get("mapping")
    written = read(Path(given)) if given else {}
    part = {name: options.get(name) or written.get(name) for name in _PARTS}
    columns, unused = _named({**written.get("map", {}), **parse_pairs("--map", options.get("map") or ())}, given)
    constants, more = _named(
        {**written.get("constant", {}), **parse_pairs("--constant", options.get("constant") or ())}, given
    )
    where = [*(written.get("where") or ()), *(options.get("where") or ())]
    forms = None
    if any(part[name] for name in ("time_format", "timezone", "decimal_comma", "thousands")):
        pattern = part["time_format"] or "iso"
        forms = ImportPlan(
            kind="conversion",
            time_format=tuple(map(str, pattern)) if isinstance(pattern, list) else str(pattern),
            timezone=parse_timezone(part["timezone"]) or ZoneInfo("UTC"),
            decimal_comma=part["decimal_comma"] is True,
            thousands=part["thousands"],
        )
    skip_lines = part["skip_lines"] or 0
    if not isinstance(skip_lines, int) or skip_lines < 0:
        raise PlanError("skip_lines: must be a number of lines")
    return TableMapping(
        columns={name: (theirs,) if isinstance(theirs, str) else tuple(theirs) for name, theirs in columns.items()},
        constants={name: str(text) for name, text in constants.items()},
        delimiter=delimiter_of(part["delimiter"]),
        encoding=part["encoding"],
        skip_lines=skip_lines,
        where=tuple(map(parse_condition, where)),
        forms=forms,
        unused=tuple(sorted({*unused, *more})),
    )


_PARTS = ("time_format", "timezone", "decimal_comma", "thousands", "delimiter", "encoding", "skip_lines")


def _named(entries: Mapping[str, Any], is_of_file: Any) -> tuple[dict[str, Any], list[str]]:
    """Return entries by the names of analyze, and the names that have no place there.

    Raises:
        PlanError: the command line names a column that analyze does not have.
    """
    from attributary.producers.importer.plan import PlanError

    found: dict[str, Any] = {}
    unused = []
    for name, value in entries.items():
        ours = _PIPELINE.get(name, name)
        if ours in COLUMNS:
            found.setdefault(ours, value)  # user_id stands before anonymous_id
        elif is_of_file:
            unused.append(name)
        else:
            raise PlanError(f"{name}: analyze has no such column; it has {', '.join(COLUMNS)}")
    return found, unused


def mapped(table: FileColumns, mapping: TableMapping) -> FileColumns:
    """Return a table under a mapping.

    Raises:
        TableError: a column is missing, or a cell cannot be read; the text names the row.
    """
    from attributary.attribution_core.tables.cells import TableError
    from attributary.cli.table_files import FileColumns
    from attributary.producers.importer.conditions import holds

    columns, lines = table.columns, table.lines
    needed = [theirs for names in mapping.columns.values() for theirs in names]
    needed += [condition.column for condition in mapping.where]
    for name in needed:
        if name not in columns:
            raise TableError(f"column {name}: the file has no such column; there are {', '.join(columns)}")
    if mapping.where:
        rows = len(next(iter(columns.values()), []))
        kept = [
            row
            for row in range(rows)
            if holds(mapping.where, lambda name, row=row: columns[name][row])  # type: ignore[misc]
        ]
        columns = {name: [cells[row] for row in kept] for name, cells in columns.items()}
        lines = None if lines is None else [lines[row] for row in kept]
    taken = {theirs for names in mapping.columns.values() for theirs in names}
    found = {name: cells for name, cells in columns.items() if name not in taken and name not in mapping.columns}
    for ours, names in mapping.columns.items():
        found[ours] = _first([columns[name] for name in names])
    rows = len(next(iter(found.values()), []))
    for ours, text in mapping.constants.items():
        found[ours] = [text if _is_empty(cell) else cell for cell in found.get(ours, [None] * rows)]
    if mapping.forms is not None:
        _read_forms(found, mapping.forms)
    return FileColumns(found, lines)


def _first(columns: list[list[Any]]) -> list[Any]:
    if len(columns) == 1:
        return columns[0]
    return [next((cell for cell in row if not _is_empty(cell)), row[0]) for row in zip(*columns, strict=True)]


def _is_empty(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _read_forms(columns: dict[str, list[Any]], forms: ImportPlan) -> None:
    """Read times and amounts in the forms that the options name, in the place of the file's texts."""
    from datetime import UTC, datetime, timedelta

    from attributary.attribution_core.tables.cells import TableError, quoted
    from attributary.producers.importer.amounts import amount_reader
    from attributary.producers.importer.cells import instant_reader

    read_time, read_amount = instant_reader(forms), amount_reader(forms)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)

    def time_of(cell: Any) -> datetime:
        return epoch + timedelta(microseconds=read_time(cell))

    def amount_of(cell: Any) -> str:
        return format(read_amount(cell), "f")

    readers: dict[str, Callable[[Any], Any]] = {"time": time_of, **dict.fromkeys(_AMOUNTS, amount_of)}
    for name, read in readers.items():
        cells = columns.get(name)
        if cells is None:
            continue
        found = []
        for row, cell in enumerate(cells, start=1):
            try:
                found.append(cell if _is_empty(cell) else read(cell))
            except (ValueError, OverflowError) as error:
                raise TableError(f"{name}: {quoted(cell)} {error}", row=row) from error
        columns[name] = found
