"""How the columns of a file become the fields of a record.

Invariant: a plan that could be built names fields that exist, each at most once; whether the columns exist is checked
against the file before its first row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from attributary.producers.importer.cells import TIME_UNITS
from attributary.producers.importer.conditions import Condition, parse_condition
from attributary.producers.records import RecordName
from attributary.producers.sites import own_domain
from attributary.schemas.schema_catalog import current_schemas
from attributary.schemas.yaml_file import YamlFileError, read_yaml

EXTRA_FIELDS: Mapping[RecordName, tuple[str, ...]] = {
    "touchpoint": ("user_agent",),
    "conversion": ("value",),
    "identity_link": (),
}
"""Not in the schema: ``value`` is money in units; ``user_agent`` of a touchpoint only says whether it is a robot."""

_DOCUMENT = frozenset(
    {
        "map", "constant", "time_format", "timezone", "decimal_comma", "kind", "tenant", "region", "own_domains",
        "group_by", "sum_values", "items_total", "where", "refunded", "refunded_at", "refunded_when", "thousands",
        "assumed_thousands", "item_lists", "item_parts", "event_id_of", "prefixes", "lowercase", "empty",
        "only_mapped", "preset", "delimiter", "encoding", "skip_lines",
    }
)  # fmt: skip
LINE_TOTAL = "line_total"
_THOUSANDS = (",", ".", "'", "_", "space", " ")


class PlanError(ValueError):
    """The mapping cannot be used; the text says why."""


class MissingColumnError(PlanError):
    """The file lacks a column that the plan names.

    Attributes:
        column: its name.
    """

    def __init__(self, column: str, columns: Sequence[str]) -> None:
        super().__init__(f"column {column}: the file has no such column; it has {listed(columns)}")
        self.column = column


_LISTED, _SHOWN = 30, 50


def listed(columns: Sequence[str]) -> str:
    """Return names of columns as a message shows them: so many, and each so long."""
    more = [f"... ({len(columns):,} columns)"] * (len(columns) > _LISTED)
    return ", ".join([*(name[:_SHOWN] for name in columns[:_LISTED]), *more])


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportPlan:
    """How to read the rows of a file.

    Attributes:
        kind: touchpoint, conversion or identity_link.
        columns: our field -> their column, or columns of which the first that is not empty counts. Fields inside maps
            and records have dots: ``click_ids.gclid``, ``items.price``. Columns with the name of a field need no entry.
        constants: our field -> text, for every row in which the file has no value.
        time_format: ``iso``; ``s``, ``ms`` or ``us`` since 1970; a pattern of strptime; or several of iso and patterns.
        timezone: of times that name none; without it they are refused.
        decimal_comma: amounts are written 19,99.
        own_domains: domains that are yours beside that of the landing page; views that come from them are internal.
        group_by: column of the order number: adjacent rows with one number are one conversion. See ``orders``.
        sum_values: the value of an order is the sum over its rows; otherwise one row states it, or all say the same.
        where: conditions of the rows that count; the others are left out.
        refunded: column of what was refunded so far; the order is then restated. See ``refunds``.
        refunded_at: column of the time of the refund.
        refunded_when: conditions under which an order without an amount in ``refunded`` was refunded as a whole.
        thousands: separator of thousands in amounts: a comma, a point, an apostrophe or a blank.
        assumed_thousands: the same, as a preset has it: amounts that could mean something else are refused.
        only_mapped: columns with the name of a field are read only where ``columns`` says so.
        item_lists: columns (or patterns) of which each holds lines of the order. See ``item_lists``.
        item_parts: our field of an item -> their names for it in those lists; ``line_total`` is the price of a line.
        event_id_of: columns from which the event id is made where the file names none; otherwise the whole row.
        prefixes: our field -> text that is cut off in front of its cells.
        lowercase: fields read in small letters.
        empty: texts that say nothing, such as ``(not set)``.
        items_total: columns that together are what the items of an order cost; an order that differs is remarked.
    """

    kind: RecordName
    columns: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    time_format: str | tuple[str, ...] = "iso"
    timezone: ZoneInfo | None = None
    decimal_comma: bool = False
    own_domains: tuple[str, ...] = ()
    group_by: str | None = None
    sum_values: bool = False
    items_total: tuple[str, ...] = ()
    where: tuple[Condition, ...] = ()
    refunded: str | None = None
    refunded_at: str | None = None
    refunded_when: tuple[Condition, ...] = ()
    thousands: str | None = None
    assumed_thousands: str | None = None
    only_mapped: bool = False
    item_lists: tuple[str, ...] = ()
    item_parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    event_id_of: tuple[str, ...] = ()
    prefixes: Mapping[str, str] = field(default_factory=dict)
    lowercase: tuple[str, ...] = ()
    empty: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        try:
            for domain in self.own_domains:
                own_domain(domain)
        except ValueError as error:
            raise PlanError(str(error)) from None
        for name in (*self.columns, *self.constants):
            check_field(self.kind, name)
        self._check_orders()
        self._check_amounts()
        formats = (self.time_format,) if isinstance(self.time_format, str) else self.time_format
        known = {"iso"} if len(formats) > 1 else {"iso", *TIME_UNITS}
        if not formats or not all(each in known or _is_pattern(each) for each in formats):
            raise PlanError("time format: must be iso, s, ms, us, or a pattern such as %d.%m.%Y %H:%M:%S")

    def _check_orders(self) -> None:
        for name in self.item_parts:
            if name not in {*item_parts(), LINE_TOTAL}:
                known = ", ".join((*item_parts(), LINE_TOTAL))
                raise PlanError(f"item_parts: an item has no part {name}; it has {known}")
        if self.kind != "conversion" and (self.group_by or self.items_total or self.item_lists):
            raise PlanError("group_by: only conversions have several rows an order (--kind conversion)")
        if self.kind != "conversion" and (self.refunded or self.refunded_when):
            raise PlanError("refunded: only conversions have refunds (--kind conversion)")
        if self.sum_values and not self.group_by:
            raise PlanError("sum_values: needs the column of the order number (--group-by)")

    def _check_amounts(self) -> None:
        if self.thousands is not None and self.thousands not in _THOUSANDS:
            raise PlanError("thousands: must be one of , . ' _ space")
        if self.thousands == ("," if self.decimal_comma else "."):
            raise PlanError(f"thousands: {self.thousands} is the decimal mark (--decimal-comma changes it)")


def _is_pattern(text: str) -> bool:
    """Tell whether a text is a pattern that ``strptime`` takes."""
    try:
        datetime.strptime("", text)  # noqa: DTZ007 - only the pattern is of interest
    except ValueError as error:
        return "%" in text and "bad directive" not in str(error) and "stray" not in str(error)
    return False


def schema_types(kind: str) -> dict[str, Any]:
    """Return the Avro type of every field, without ``null``."""
    types = {}
    for each in current_schemas()[kind].runtime["fields"]:
        avro = each["type"]
        types[each["name"]] = next(branch for branch in avro if branch != "null") if isinstance(avro, list) else avro
    return types


def item_parts() -> tuple[str, ...]:
    """Return what a column may say of one line of an order."""
    fields = schema_types("conversion")["items"]["items"]["fields"]
    return (*(each["name"] for each in fields if each["name"] != "properties"), "price")


def check_field(kind: RecordName, name: str) -> None:
    """Refuse a field that records of this kind do not have.

    Raises:
        PlanError: names the field, and what there is.
    """
    types = schema_types(kind)
    outer, dot, inner = name.partition(".")
    if outer in EXTRA_FIELDS[kind] and not dot:
        return
    if outer not in types:
        known = ", ".join(sorted([*types, *EXTRA_FIELDS[kind]]))
        raise PlanError(f"{name}: a {kind} has no such field; it has {known}")
    avro = types[outer]
    if not dot:
        return
    shape = avro.get("type") if isinstance(avro, dict) else avro
    if shape == "map" and inner:
        return
    if shape == "record" and inner in {each["name"] for each in avro["fields"]}:
        return
    if outer == "items" and inner in item_parts():
        return
    raise PlanError(f"{name}: {outer} has no part {inner or '(empty)'}")


def parse_pairs(option: str, pairs: Iterable[str]) -> dict[str, str]:
    """Return ``name=text`` pairs as a mapping.

    Raises:
        PlanError: a pair has no ``=``, or a name comes twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip():
            raise PlanError(f"{option} {pair}: expected our_field=their_column")
        if name.strip() in found:
            raise PlanError(f"{option} {name.strip()}: given twice")
        found[name.strip()] = text
    return found


def parse_timezone(name: str | None) -> ZoneInfo | None:
    """Return a time zone of the IANA database, for example Europe/Berlin.

    Raises:
        PlanError: there is no such zone.
    """
    if not name:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise PlanError(f"timezone {name}: must be a name such as Europe/Berlin or UTC") from None


def read_mapping_file(path: Path) -> dict[str, Any]:
    """Return a mapping file: YAML with ``map``, ``constant``, ``time_format``, ``timezone``, ``kind``, ...

    Raises:
        PlanError: it cannot be read or says something else.
    """
    try:
        document = read_yaml(path)
    except YamlFileError as error:
        raise PlanError(f"{path.name or path}: {error}") from None
    document = {} if document is None else document
    if not isinstance(document, dict):
        raise PlanError(f"{path.name}: must be a mapping of {', '.join(sorted(_DOCUMENT))}")
    if unknown := sorted(str(key) for key in document.keys() - _DOCUMENT):
        raise PlanError(f"{path.name}: {unknown[0]} is not known; expected {', '.join(sorted(_DOCUMENT))}")
    for part in ("map", "constant"):
        entries = document.setdefault(part, {})
        if not isinstance(entries, dict) or not all(_is_entry(part, value) for value in entries.values()):
            raise PlanError(f"{path.name}: {part} must hold our_field: text")
        document[part] = {str(key): _as_text(value) for key, value in entries.items()}
    return document


def _is_entry(part: str, value: Any) -> bool:
    if part == "map" and isinstance(value, list):
        return bool(value) and all(isinstance(each, str) for each in value)
    return isinstance(value, str | int | float)


def plan_from(document: Mapping[str, Any], command_line: Mapping[str, Any]) -> ImportPlan:
    """Return the plan of a mapping file and a command line, which wins.

    Args:
        document: from ``read_mapping_file``, or empty.
        command_line: the same parts; ``map`` and ``constant`` as lists of ``name=text``; None or empty: not given.

    Raises:
        PlanError: the parts are no plan.
    """
    part = {name: command_line.get(name) or document.get(name) for name in _DOCUMENT - {"map", "constant"}}
    kind = next((name for name in EXTRA_FIELDS if name == (part["kind"] or "touchpoint")), None)
    if kind is None:
        raise PlanError(f"kind: must be one of {', '.join(EXTRA_FIELDS)}")
    return ImportPlan(
        kind=kind,
        columns=document.get("map", {}) | parse_pairs("--map", command_line.get("map") or ()),
        constants=document.get("constant", {}) | parse_pairs("--constant", command_line.get("constant") or ()),
        time_format=_formats(part["time_format"]),
        timezone=parse_timezone(part["timezone"]),
        own_domains=_texts("own_domains", part["own_domains"], "host names"),
        where=_conditions(part["where"]),
        refunded_when=_conditions(part["refunded_when"]),
        group_by=_text(part["group_by"]),
        refunded=_text(part["refunded"]),
        refunded_at=_text(part["refunded_at"]),
        thousands=_text(part["thousands"]),
        assumed_thousands=_text(part["assumed_thousands"]),
        item_lists=_texts("item_lists", part["item_lists"], "columns"),
        item_parts={name: _texts("item_parts", names, "names") for name, names in (part["item_parts"] or {}).items()},
        event_id_of=_texts("event_id_of", part["event_id_of"], "columns"),
        prefixes=part["prefixes"] or {},
        lowercase=_texts("lowercase", part["lowercase"], "fields"),
        empty=frozenset(_texts("empty", part["empty"], "texts")),
        items_total=_texts("items_total", part["items_total"], "columns"),
        sum_values=part["sum_values"] is True,
        only_mapped=part["only_mapped"] is True,
        decimal_comma=part["decimal_comma"] is True,
    )


def _formats(given: Any) -> str | tuple[str, ...]:
    return tuple(map(str, given)) if isinstance(given, list) else str(given or "iso")


def _text(given: Any) -> str | None:
    return None if given is None else str(given)


def _conditions(given: Any) -> tuple[Condition, ...]:
    try:
        return tuple(map(parse_condition, _texts("where", given, "COLUMN=VALUE")))
    except ValueError as error:
        raise PlanError(str(error)) from None


def _texts(name: str, given: Any, what: str) -> tuple[str, ...]:
    texts = [given] if isinstance(given, str) else list(given or ())
    if not all(isinstance(text, str) for text in texts):
        raise PlanError(f"{name}: must be a list of {what}")
    return tuple(texts)


def _as_text(value: str | float | bool | list[str]) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
