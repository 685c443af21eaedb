"""A row of a file becomes a record, under a plan.

Invariant: the record depends on the row, its line and the plan only, so the same file gives the same records with the
same event ids. A file that names no event ids gets them from the row's content, its line and the kind of record: two
equal rows of one file are two events, the same row of the same file imported twice is one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from attributary.producers.errors import InvalidRecord
from attributary.producers.importer import cells
from attributary.producers.importer.fields import FieldReaders
from attributary.producers.importer.plan import EXTRA_FIELDS, ImportPlan, PlanError, schema_types
from attributary.producers.importer.rows import Row
from attributary.producers.landing import UTM_FIELDS, is_robot, parse_landing, touchpoint_from_landing
from attributary.producers.money import to_micros as money_to_micros
from attributary.schemas.schema_catalog import defaults

_FINGERPRINT_BYTES = 16
_NO_CURRENCY = "XXX"


class RowRefused(ValueError):
    """The row cannot become a record; ``field`` and ``rule`` hold nothing of the row."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.rule = rule


class NoTouchpoint(Exception):  # no error: the row is right, and says that a visit went on
    """The row is a page view inside a visit: the referrer is an own domain, or a payment or sign-in page."""


class _Step(NamedTuple):
    """One cell on its way into a field."""

    name: str
    column: str
    outer: str
    inner: str
    read: cells.Reader


class RowMapper:
    """Turns the rows of one file into records.

    Args:
        plan: which column becomes which field, and how.
        columns: the columns of the file, when it names them all at its start.

    Raises:
        PlanError: the plan names a column that the file does not have, or a constant that its field cannot be.
    """

    def __init__(self, plan: ImportPlan, columns: Sequence[str] | None = None) -> None:
        self._plan = plan
        self._columns = columns
        self._defaults = dict(defaults(plan.kind))
        readers = FieldReaders(plan)
        sources = _sources(plan, columns)
        self._steps = [_Step(name, column, *_parts(name), readers.reader(name)) for name, column in sources.items()]
        self._constants = [
            (*_parts(name), _constant(name, text, readers.reader(name))) for name, text in plan.constants.items()
        ]

    def unused_columns(self) -> list[str]:
        """Return the columns of the file from which nothing is taken."""
        return sorted(set(self._columns or ()) - {step.column for step in self._steps})

    @property
    def names_event_ids(self) -> bool:
        """Whether the file says the event ids itself."""
        return any(step.name == "event_id" for step in self._steps)

    @property
    def reads_referrers(self) -> bool:
        """Whether channels are read from landing pages and referrers."""
        names = {step.name for step in self._steps}
        return self._plan.kind == "touchpoint" and {"landing_url", "referrer"} <= names and "channel" not in names

    def record(self, row: Row) -> dict[str, Any]:
        """Return the record of a row.

        Raises:
            RowRefused: names the field and the rule.
            NoTouchpoint: the row is a page view inside a visit.
        """
        if row.fault is not None:
            raise RowRefused("(row)", row.fault)
        given: dict[str, Any] = {}
        for name, column, outer, inner, read in self._steps:
            cell = _cell(row.cells, column)
            if cells.is_missing(cell):
                continue
            try:
                value = read(cell)
            except ValueError as error:
                raise RowRefused(name, str(error)) from None
            _put(given, outer, inner, value)
        for outer, inner, value in self._constants:
            if (inner not in given.get(outer, ())) if inner else (outer not in given):
                _put(given, outer, inner, value)
        if self._plan.kind == "touchpoint":
            _read_landing(given, self._plan.own_domains)
        elif "value" in given:
            given["value_micros"] = _value_micros(given)
        if "event_id" not in given:
            given["event_id"] = row_event_id(self._plan.kind, row)
        return {**self._defaults, **given}


def row_event_id(kind: str, row: Row) -> str:
    """Return the event id of a row that has none: 128 bits of BLAKE2b over kind, line and content."""
    content = json.dumps([kind, row.line, row.cells], sort_keys=True, default=str)
    return "import-" + hashlib.blake2b(content.encode(), digest_size=_FINGERPRINT_BYTES).hexdigest()


def _sources(plan: ImportPlan, columns: Sequence[str] | None) -> dict[str, str]:
    """Return the column of every field: what the plan says, and columns that have the name of a field."""
    mapped = set(plan.columns.values())
    if columns is not None and (missing := sorted(_first_names(mapped, columns) - set(columns))):
        raise PlanError(f"column {missing[0]}: the file has no such column; it has {', '.join(columns)}")
    types = schema_types(plan.kind)
    sources = dict(plan.columns)
    for name in (*types, *EXTRA_FIELDS[plan.kind]):
        if name not in sources and name not in mapped and (columns is None or name in columns):
            sources[name] = name
    for column in columns or ():  # dotted columns name parts of maps by themselves
        outer, dot, inner = column.partition(".")
        if dot and inner and column not in mapped and isinstance(types.get(outer), dict):
            sources.setdefault(column, column)
    # Whole maps first, then their parts, so that a part is added to the map and wins.
    return dict(sorted(sources.items(), key=lambda entry: "." in entry[0]))


def _first_names(mapped: set[str], columns: Sequence[str]) -> set[str]:
    """Return the columns that must exist; a path into a record (Avro) needs its first name only."""
    return {name if name in columns else name.partition(".")[0] for name in mapped}


def _parts(name: str) -> tuple[str, str]:
    outer, _, inner = name.partition(".")
    return outer, inner


def _constant(name: str, text: str, read: cells.Reader) -> Any:
    try:
        return read(text)
    except ValueError as error:
        raise PlanError(f"constant {name}: {error}") from None


def _cell(row: Mapping[str, Any], column: str) -> Any:
    """Return a cell; a column with dots is a path into the objects of JSON and Avro."""
    if column in row:
        return row[column]
    if "." not in column:
        return None
    found: Any = row
    for name in column.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(name)
    return found


def _put(given: dict[str, Any], outer: str, inner: str, value: Any) -> None:
    if inner:
        given.setdefault(outer, {})[inner] = value
    else:
        given[outer] = value


def _value_micros(given: dict[str, Any]) -> int:
    """Take the value in units out and return it in micros."""
    value, currency = given.pop("value"), given.get("currency", _NO_CURRENCY)
    if "value_micros" in given:
        raise RowRefused("value", "must not be given beside value_micros")
    if currency == _NO_CURRENCY:
        raise RowRefused(
            "currency", "must be set beside a value, by a column or for all rows (--constant currency=EUR)"
        )
    try:
        return money_to_micros(value, currency)
    except ValueError as error:
        raise RowRefused("value", str(error)) from None


def _read_landing(given: dict[str, Any], own_domains: tuple[str, ...]) -> None:
    """Fill in what the landing page says where the file does not say it itself."""
    user_agent = given.pop("user_agent", None)
    url = given.get("landing_url")
    if url is None:
        if user_agent:
            given.setdefault("is_bot", is_robot(user_agent))
        return
    occurred_at = given.get("occurred_at")
    landing = parse_landing(url, given.get("referrer"), user_agent, own_domains)
    if landing.is_internal and "channel" not in given:
        raise NoTouchpoint
    try:
        touch = touchpoint_from_landing(landing, occurred_at=0 if occurred_at is None else occurred_at)
    except InvalidRecord as error:
        raise RowRefused(error.field, error.rule) from None
    for name in ("platform", "channel", "interaction", "is_bot", "campaign_id", *UTM_FIELDS):
        found = getattr(touch, name)
        if found is not None:
            given.setdefault(name, found)
    given["click_ids"] = {**touch.click_ids, **given.get("click_ids", {})}
