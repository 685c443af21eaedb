"""JSON of any other sender, under a mapping file: which type of delivery becomes which record.

The file (YAML) names the path of the type and, for each type, a mapping as imports of files have it
(docs/how-to/publish.md): ``kind``, ``map`` from our field to a path in the body, ``constant``, ``time_format``,
``timezone``. ``minor_units: true`` says that the value is a whole number of cents (ISO 4217).

Ids: ``event_id`` by the mapping, else the delivery's id from its signed header, else a hash of the body. All three are
the same in every retry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

from attributary.producers.importer.plan import ImportPlan, PlanError, parse_timezone
from attributary.producers.importer.row_mapper import NoTouchpoint, RowMapper, RowRefused
from attributary.producers.importer.rows import Row
from attributary.producers.money import minor_digits
from attributary.producers.records import RecordName
from attributary.schemas.yaml_file import YamlFileError, read_yaml

from .outcome import LeftOut, WebhookRecord
from .payload import Skipped, Unmapped, currency_of, micros_of, text_of, whole_of
from .source import SourceError, WebhookSource

ANY = "*"
_ENTRY = frozenset({"when", "kind", "map", "constant", "time_format", "timezone", "minor_units"})
_FILE = frozenset({"type", "records", "test"})
_TRUE = (True, "true", 1)


class _Entry(NamedTuple):
    """One kind of record, and the types of delivery that it is made of."""

    when: frozenset[str]
    kind: RecordName
    mapper: RowMapper
    minor_value: str  # path of a value in minor units; empty: the mapper reads the value
    names_event_ids: bool


class SignedJsonMapping:
    """A mapping file, read and checked.

    Args:
        document: what the file says.
        name: of the file, for errors.

    Raises:
        SourceError: it says something else; the text names the place.
    """

    def __init__(self, document: Any, name: str) -> None:
        if not isinstance(document, Mapping) or not isinstance(document.get("records"), list):
            raise SourceError(f"{name}: must have `records`, a list of mappings")
        if unknown := sorted(str(key) for key in document.keys() - _FILE):
            raise SourceError(f"{name}: {unknown[0]} is not known; expected {', '.join(sorted(_FILE))}")
        self._type = str(document.get("type", ""))
        self._test = str(document.get("test", ""))
        self._entries = [_entry(each, f"{name}: records[{place}]") for place, each in enumerate(document["records"])]
        if not self._type and any(ANY not in entry.when for entry in self._entries):
            raise SourceError(f"{name}: type must be a path when a record says `when`")

    def records(
        self, body: Mapping[str, Any], delivery_id: str, source: WebhookSource
    ) -> tuple[list[WebhookRecord], list[LeftOut]]:
        """Return the records of one delivery, and what could not be read.

        Raises:
            Skipped: no mapping is for this type, or it is test data.
        """
        if self._test and _at(body, self._test) in _TRUE:
            raise Skipped("test_data")
        kind = text_of(_at(body, self._type)) if self._type else None
        entries = [entry for entry in self._entries if ANY in entry.when or kind in entry.when]
        if not entries:
            raise Skipped("other_type")
        records, left_out = [], []
        for place, entry in enumerate(entries):
            try:
                fields = _fields(entry, body, source)
            except NoTouchpoint:
                left_out.append(LeftOut(entry.kind, "internal_visit"))
            except RowRefused as error:
                left_out.append(LeftOut(entry.kind, "unmapped", error.field, error.rule))
            except Unmapped as error:
                left_out.append(LeftOut(entry.kind, "unmapped", error.field, error.rule))
            else:
                if not entry.names_event_ids:
                    fields["event_id"] = f"{delivery_id}-{place + 1}" if len(entries) > 1 else delivery_id
                records.append(WebhookRecord(entry.kind, _with_person(fields, entry.kind)))
        return records, left_out


def read_mapping(path: Path) -> SignedJsonMapping:
    """Read a mapping file.

    Raises:
        SourceError: it cannot be read, or says something else.
    """
    try:
        document = read_yaml(path)
    except YamlFileError as error:
        raise SourceError(f"{path.name or path}: {error}") from None
    return SignedJsonMapping(document, path.name)


def delivery_name(source: WebhookSource, body: bytes, headers: Mapping[str, str]) -> str:
    """Return what stands for the event id of a delivery that names none: the signed id, else a hash of the body."""
    if source.provider == "standard" and (signed := headers.get("webhook-id") or headers.get("svix-id")):
        return f"{source.name}-{text_of(signed, 150)}"
    return f"{source.name}-{hashlib.blake2b(body, digest_size=16).hexdigest()}"


def _entry(given: Any, place: str) -> _Entry:
    if not isinstance(given, Mapping):
        raise SourceError(f"{place}: must be a mapping of {', '.join(sorted(_ENTRY))}")
    if unknown := sorted(str(key) for key in given.keys() - _ENTRY):
        raise SourceError(f"{place}: {unknown[0]} is not known; expected {', '.join(sorted(_ENTRY))}")
    kind = given.get("kind")
    if kind not in get_args(RecordName):
        raise SourceError(f"{place}: kind must be one of {', '.join(get_args(RecordName))}")
    columns, constants = dict(given.get("map") or {}), dict(given.get("constant") or {})
    minor_value = str(columns.pop("value", "")) if given.get("minor_units") is True else ""
    try:
        plan = ImportPlan(
            kind=cast("RecordName", kind),
            columns={str(key): str(path) for key, path in columns.items()},
            constants={str(key): str(text) for key, text in constants.items()},
            time_format=str(given.get("time_format", "iso")),
            timezone=parse_timezone(given.get("timezone")),
        )
        mapper = RowMapper(plan)
    except PlanError as error:
        raise SourceError(f"{place}: {error}") from None
    when = given.get("when", ANY)
    types = frozenset(map(str, when)) if isinstance(when, list) else frozenset({str(when)})
    return _Entry(types, cast("RecordName", kind), mapper, minor_value, "event_id" in plan.columns)


def _fields(entry: _Entry, body: Mapping[str, Any], source: WebhookSource) -> dict[str, Any]:
    fields = entry.mapper.record(Row(1, body))
    if entry.minor_value and (given := _at(body, entry.minor_value)) is not None:
        currency = currency_of(fields.get("currency"))
        try:
            units = Decimal(whole_of(given, "value")).scaleb(-minor_digits(currency))
        except ValueError as error:
            raise Unmapped("currency", str(error)) from None
        fields["currency"], fields["value_micros"] = currency, micros_of(units, currency, "value")
    if source.consent is not None and "consent" in fields:
        fields["consent"] = fields["consent"] or dict(source.consent)
    return fields | {"tenant_id": source.tenant_id}


def _with_person(fields: dict[str, Any], kind: str) -> dict[str, Any]:
    """Let a conversion without a person stand for itself, so that a refund need not repeat the buyer."""
    if kind == "conversion" and fields.get("user_id") is None and fields.get("anonymous_id") is None:
        fields["anonymous_id"] = fields.get("conversion_id") or fields["event_id"]
    return fields


def _at(body: Mapping[str, Any], path: str) -> Any:
    """Return what stands at a path with dots; None when nothing does."""
    found: Any = body
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found
