"""Which columns of a file a record is read from, and in what order.

Invariant: a column is read into the field that the plan names, else into the field that has its name; never into two by
itself. Whole maps come before their parts, so that a part is added to the map and wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from attributary.producers.importer import cells
from attributary.producers.importer.fields import FieldReaders
from attributary.producers.importer.plan import EXTRA_FIELDS, ImportPlan, MissingColumnError, PlanError, schema_types
from attributary.producers.importer.rows import Row


class Step(NamedTuple):
    """One cell on its way into a field."""

    name: str
    columns: tuple[str, ...]  # the first one that is not empty counts
    outer: str
    inner: str
    read: cells.Reader
    empty: frozenset[str] = frozenset()  # texts that say nothing

    def find(self, row: Row) -> tuple[str, Any]:
        """Return the column that says something in a row, and its cell; the cell is None where none does."""
        for column in self.columns:
            found = cell(row.cells, column)
            if not cells.is_missing(found) and not (isinstance(found, str) and found in self.empty):
                return column, found
        return self.columns[0], None


def steps(plan: ImportPlan, columns: Sequence[str] | None) -> list[Step]:
    """Return how the fields of a record are read.

    Args:
        plan: which column becomes which field.
        columns: the columns of the file, when it names them all at its start.

    Raises:
        PlanError: the plan names a column that the file does not have.
    """
    readers = FieldReaders(plan)
    return [
        Step(name, found, *parts(name), _prepared(plan, name, readers.reader(name)), plan.empty)
        for name, found in _sources(plan, columns).items()
    ]


def _prepared(plan: ImportPlan, name: str, read: cells.Reader) -> cells.Reader:
    """Return a reader that first cuts off the prefix of the plan, and lowers the case where it says so."""
    prefix = plan.prefixes.get(name)
    lower = name in plan.lowercase
    if prefix is None and not lower:
        return read

    def prepare(given: Any) -> Any:
        if isinstance(given, str):
            given = given.removeprefix(prefix or "").strip()
            given = given.lower() if lower else given
        return read(given)

    return prepare


def constants(plan: ImportPlan) -> list[tuple[str, str, Any]]:
    """Return outer name, inner name and value of each constant.

    Raises:
        PlanError: its field cannot be that.
    """
    readers = FieldReaders(plan)
    return [(*parts(name), _constant(name, text, readers.reader(name))) for name, text in plan.constants.items()]


def require(columns: Sequence[str] | None, needed: Iterable[str]) -> None:
    """Refuse columns that a file with a header does not have.

    Raises:
        PlanError: names the first of them, and what there is.
    """
    if columns is None:
        return
    there = set(columns)
    missing = sorted(name for name in needed if name not in there and name.partition(".")[0] not in there)
    if missing:
        raise MissingColumnError(missing[0], columns)


def parts(name: str) -> tuple[str, str]:
    """Return a field's name and that of the part of it: ``click_ids`` and ``gclid``; the part may be empty."""
    outer, _, inner = name.partition(".")
    return outer, inner


def cell(row: Mapping[str, Any], column: str) -> Any:
    """Return a cell; a column with dots is a path into the objects of JSON and Avro."""
    if column in row:
        return row[column]
    if "." not in column:
        return None
    found: Any = row
    for name in column.split("."):
        if isinstance(found, list):
            found = _of_pairs(found, name)
        elif isinstance(found, Mapping):
            found = found.get(name)
        else:
            return None
    return found


def _of_pairs(pairs: list[Any], name: str) -> Any:
    """Return a value of a list of keys and values, as GA4's export has them: the one value that is not null."""
    found = next((pair.get("value") for pair in pairs if isinstance(pair, Mapping) and pair.get("key") == name), None)
    if isinstance(found, Mapping):
        return next((value for value in found.values() if value is not None), None)
    return found


def _sources(plan: ImportPlan, columns: Sequence[str] | None) -> dict[str, tuple[str, ...]]:
    """Return the columns of every field: what the plan says, and columns that have the name of a field."""
    named = {name: (given,) if isinstance(given, str) else given for name, given in plan.columns.items()}
    mapped = {column for given in named.values() for column in given}
    require(columns, mapped)
    types = schema_types(plan.kind)
    sources = dict(named)
    for name in () if plan.only_mapped else (*types, *EXTRA_FIELDS[plan.kind]):
        if name not in sources and name not in mapped and (columns is None or name in columns):
            sources[name] = (name,)
    for column in () if plan.only_mapped else columns or ():  # dotted columns name parts of maps by themselves
        outer, dot, inner = column.partition(".")
        if dot and inner and column not in mapped and isinstance(types.get(outer), dict):
            sources.setdefault(column, (column,))
    return dict(sorted(sources.items(), key=lambda entry: "." in entry[0]))


def _constant(name: str, text: str, read: cells.Reader) -> Any:
    try:
        return read(text)
    except ValueError as error:
        raise PlanError(f"constant {name}: {error}") from None
