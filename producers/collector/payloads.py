"""The JSON of a request: one record, a list, or ``{"events": [...]}``, split first and typed record by record.

Contract: ``split`` cuts a body into the bytes of its records without reading them, so one bad record does not spoil its
neighbours. ``read_touchpoint`` and the like turn the bytes of one record into a typed structure, or raise ``Rejected``
with field and rule; no text holds a value. Amounts of money are read exactly as they are written (``amount``), never as
floats.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from attributary.producers.collector.answers import Refusal
from attributary.schemas.limits import URL_CHARACTERS

Body = TypeVar("Body", bound="RecordBody")
_PLACE = re.compile(r"^(?P<rule>.*?)(?: - at `\$(?P<path>.*)`)?$", re.DOTALL)
_NAMED = re.compile(r"^Object (?P<what>missing required field|contains unknown field) `(?P<field>.*)`$", re.DOTALL)
_EXPECTED = re.compile(r"^Expected `(?P<types>[^`]*)`(?:, got `[^`]*`)?$")
NULL = Raw(b"null")
_AMOUNT = re.compile(rb"-?[0-9]{1,15}(?:\.[0-9]{1,20})?")
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,60}")
_WORDS = {
    "str": "a text", "int": "a whole number", "float": "a number", "bool": "true or false", "null": "null",
    "decimal": "an exact number", "object": "an object", "array": "a list",
}  # fmt: skip


class Rejected(Exception):
    """One record breaks a rule.

    Args:
        field: the field.
        rule: what it must be; never the value.
        event_id: the record's id where it is known.
    """

    def __init__(self, field: str, rule: str, event_id: str | None = None) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.rule = rule
        self.event_id = event_id


class RecordBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """What every record may name. Times: RFC 3339 with a zone, or whole microseconds since 1970."""

    type: str | None = None
    event_id: str | None = None
    user_id: str | None = None
    anonymous_id: str | None = None
    occurred_at: str | int | None = None
    sent_at: str | int | None = None
    user_agent: str | None = None


class TouchpointBody(RecordBody, kw_only=True):
    """Fields as in schemas/touchpoint.avsc; channel and platform may be left to ``landing_url``."""

    platform: str | None = None
    channel: str | None = None
    interaction: str | None = None
    campaign_id: str | None = None
    campaign_name: str | None = None
    ad_set_id: str | None = None
    ad_set_name: str | None = None
    ad_id: str | None = None
    ad_name: str | None = None
    utm_source: str | None = None
    utm_medium: str | None = None
    utm_campaign: str | None = None
    utm_term: str | None = None
    utm_content: str | None = None
    click_ids: dict[str, str] | None = None
    landing_url: str | None = None
    referrer: str | None = None
    country: str | None = None
    device: str | None = None
    engagement_seconds: float | None = None
    is_bot: bool | None = None
    properties: dict[str, str] | None = None
    consent: dict[str, bool] | None = None


class IdentityBody(RecordBody, kw_only=True):
    """Fields as in schemas/identity_link.avsc; ``occurred_at`` stands for a missing ``linked_at``."""

    linked_at: str | int | None = None
    source: str | None = None
    consent: dict[str, bool] | None = None


class ItemBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """One line of an order; ``price`` is that of one piece, in units of the currency."""

    item_id: str
    item_name: str | None = None
    item_category: str | None = None
    item_brand: str | None = None
    item_variant: str | None = None
    quantity: float = 1.0
    price: Raw = NULL
    price_micros: int | None = None
    properties: dict[str, str] | None = None


class UserDataBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """Data by which a destination recognises a person; the plain fields are hashed before they leave."""

    email: str | list[str] | None = None
    phone: str | list[str] | None = None
    first_name: str | None = None
    last_name: str | None = None
    date_of_birth: str | None = None
    gender: str | None = None
    street: str | None = None
    city: str | None = None
    region: str | None = None
    postal_code: str | None = None
    country: str | None = None
    external_id: str | list[str] | None = None
    meta_hashes: dict[str, list[str]] = msgspec.field(default_factory=dict)
    google_hashes: dict[str, list[str]] = msgspec.field(default_factory=dict)


class ConversionBody(RecordBody, kw_only=True):
    """Fields as in schemas/conversion.avsc; ``value`` is in units of the currency, ``value_micros`` in millionths."""

    conversion_id: str | None = None
    kind: str = "conversion"
    conversion_type: str | None = None
    value: Raw = NULL
    value_micros: int | None = None
    currency: str | None = None
    order_id: str | None = None
    items: list[ItemBody] | None = None
    properties: dict[str, str] | None = None
    user_data: UserDataBody | None = None
    action_source: str = "website"
    event_source_url: str | None = None
    referrer: str | None = None
    client_ip_address: str | None = None
    client_user_agent: str | None = None
    click_ids: dict[str, str] | None = None
    ga_client_id: str | None = None
    ga_app_instance_id: str | None = None
    ga_session_id: str | None = None
    engagement_time_msec: int | None = None
    consent: dict[str, bool] | None = None
    opt_out: bool = False
    data_processing_options: list[str] | None = None
    data_processing_country: int | None = None
    data_processing_state: int | None = None


class _Envelope(Struct):
    events: list[Raw] | UnsetType = UNSET
    conversions: list[Raw] | UnsetType = UNSET
    sent_at: str | int | None = None


class _Kind(Struct):
    type: str | None = None


_list_of_records = msgspec.json.Decoder(list[Raw]).decode
_envelope = msgspec.json.Decoder(_Envelope).decode
_kind = msgspec.json.Decoder(_Kind).decode
_BLANKS = b" \t\r\n"


class Batch(Struct):
    """The records of one body: their bytes, when the client sent them, and whether they came as one alone."""

    records: list[bytes]
    sent_at: str | int | None
    is_single: bool


def split(body: bytes, max_records: int) -> Batch:
    """Return the bytes of each record of a body.

    Args:
        body: the body, UTF-8.
        max_records: most records.

    Raises:
        Refusal: 400 for what is no JSON or holds no record, 413 for too many.
    """
    try:
        if body.lstrip(_BLANKS)[:1] == b"[":
            batch = Batch([bytes(raw) for raw in _list_of_records(body)], None, is_single=False)
        else:
            envelope = _envelope(body)
            lists = [part for part in (envelope.events, envelope.conversions) if part is not UNSET]
            if len(lists) > 1:
                raise Refusal(400, "The body must hold events or conversions, not both.")
            raws = [bytes(raw) for raw in lists[0]] if lists else [body]
            batch = Batch(raws, envelope.sent_at, is_single=not lists)
    except RecursionError:
        raise Refusal(400, "The body is nested too deeply.") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Refusal(400, "The body must be JSON in UTF-8: a record, or a list of records.") from None
    if not batch.records:
        raise Refusal(400, "The body holds no record.")
    if len(batch.records) > max_records:
        raise Refusal(413, f"The limit is {max_records} records a request.", more={"limit_records": max_records})
    return batch


def kind_of(raw: bytes) -> str | None:
    """Return what a record says about its kind, None when it says nothing.

    Raises:
        Rejected: it is no object.
    """
    found: _Kind = _read(_kind, raw)
    return found.type


def _reader(cls: type[Body]) -> Callable[[bytes], Body]:
    decode = msgspec.json.Decoder(cls).decode

    def read(raw: bytes) -> Body:
        body: Body = _read(decode, raw)
        if len(raw) > URL_CHARACTERS:
            _check_lengths(body)
        return body

    return read


def _check_lengths(body: RecordBody) -> None:
    """Refuse texts that no rule allows before anything walks them: a landing of 250 kB would take half a second."""
    for field in body.__struct_fields__:
        value = getattr(body, field)
        if isinstance(value, str) and len(value) > URL_CHARACTERS:
            raise Rejected(field, f"must have {URL_CHARACTERS} characters at most")


def _read(decode: Callable[[bytes], Any], raw: bytes) -> Any:
    try:
        return decode(raw)
    except msgspec.ValidationError as error:
        raise Rejected(*_field_and_rule(str(error))) from None
    except RecursionError:
        raise Rejected("record", "must not be nested so deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError, ArithmeticError, ValueError):
        raise Rejected("record", "must be valid JSON in UTF-8") from None


read_touchpoint = _reader(TouchpointBody)
read_identity = _reader(IdentityBody)
read_conversion = _reader(ConversionBody)


def amount(field: str, raw: Raw) -> Decimal | None:
    """Return an amount of money, exactly as it is written: a JSON number, or a text of digits with a decimal point.

    Raises:
        Rejected: it is written in any other way (an exponent, a comma, a grouping).
    """
    text = bytes(raw)
    if text == b"null":
        return None
    if text[:1] == text[-1:] == b'"':
        text = text[1:-1]
    if not _AMOUNT.fullmatch(text):
        raise Rejected(field, 'must be written like 19.99 or "19.99", with 15 digits before the point at most')
    return Decimal(text.decode())


def _field_and_rule(text: str) -> tuple[str, str]:
    """Return field and rule of msgspec's message, of which only names of fields and types are taken over."""
    found = _PLACE.match(text)
    path = ((found and found["path"]) or "").lstrip(".")
    inner = re.sub(r"\[[^\]]*\]", "", path)
    rule = found["rule"] if found else text
    if named := _NAMED.match(rule):
        what = "must be set" if named["what"].startswith("missing") else "is no field of this record"
        outer = f"{inner}." if inner else ""
        name = named["field"] if _FIELD.fullmatch(named["field"]) else "(a field's name)"
        return f"{outer}{name}", what
    field = inner if _FIELD.fullmatch(inner) else "record"
    if expected := _EXPECTED.match(rule):
        words = [_WORDS.get(each.strip(), "of its type") for each in expected["types"].split("|")]
        shown = [word for word in words if word != "null"] or words
        return field, f"must be {' or '.join(dict.fromkeys(shown))}"
    return field, "must fit its type"
