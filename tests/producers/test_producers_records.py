"""The dataclasses mirror the schemas, and refuse what cannot be kept exactly."""

from __future__ import annotations

import dataclasses
import json
import uuid
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attributary.schemas
from attributary.producers import (
    Conversion,
    IdentityLink,
    InvalidRecord,
    Item,
    Spend,
    SpendLine,
    Touchpoint,
    UserData,
)
from attributary.producers.money import minor_digits
from attributary.producers.money import to_micros as money_to_micros
from attributary.producers.records import new_event_id
from attributary.producers.times import to_micros, to_rfc3339
from attributary.schemas.codec import Codec

NOON = datetime(2024, 6, 1, 12, tzinfo=UTC)
NOON_MICROS = 1_717_243_200_000_000


def schema_fields(name: str, inner: str | None = None) -> dict[str, dict[str, Any]]:
    schema = json.loads((Path(attributary.schemas.__file__).parent / f"{name}.avsc").read_text("utf-8"))
    fields = {field["name"]: field for field in schema["fields"]}
    if inner in {"items", "rows"}:
        fields = {field["name"]: field for field in fields[inner]["type"]["items"]["fields"]}
    if inner == "user_data":
        fields = {field["name"]: field for field in fields["user_data"]["type"][1]["fields"]}
    return fields


@pytest.mark.parametrize(
    ("record", "fields"),
    [
        (Touchpoint, schema_fields("touchpoint")),
        (Conversion, schema_fields("conversion")),
        (IdentityLink, schema_fields("identity_link")),
        (Spend, schema_fields("spend")),
        (SpendLine, schema_fields("spend", "rows")),
        (Item, schema_fields("conversion", "items")),
        (UserData, schema_fields("conversion", "user_data")),
    ],
)
def test_every_field_of_the_schema_is_there_with_its_default(record: Any, fields: dict[str, dict[str, Any]]) -> None:
    ours = {field.name: field for field in dataclasses.fields(record)}
    assert ours.keys() == fields.keys()
    for name, theirs in fields.items():
        mine = ours[name]
        if name == "tenant_id":
            assert mine.default == ""
        elif name == "event_id":
            assert mine.default_factory is new_event_id
        elif "default" not in theirs:
            assert mine.default is dataclasses.MISSING
            assert mine.default_factory is dataclasses.MISSING
        else:
            default = mine.default
            if default is dataclasses.MISSING:
                assert mine.default_factory is not dataclasses.MISSING
                default = mine.default_factory()
            assert (list(default) if isinstance(default, tuple) else default) == theirs["default"]


def test_records_survive_the_wire() -> None:
    codec = Codec()
    conversion = Conversion.purchase(
        value=Decimal("19.99"),
        currency="EUR",
        tenant_id="acme",
        occurred_at=NOON,
        user_id="u1",
        items=[Item(item_id="sku", quantity=2, price_micros=9_995_000)],
        user_data=UserData(meta_hashes={"em": ["0" * 64]}),
        data_processing_options=["LDU"],
    )
    record = conversion.to_record()
    assert codec.decode("conversion", codec.encode("conversion", record)) == record
    link = IdentityLink(tenant_id="acme", anonymous_id="a", user_id="u", linked_at=NOON).to_record()
    assert codec.decode("identity_link", codec.encode("identity_link", link)) == link
    touchpoint = Touchpoint(tenant_id="acme", occurred_at=NOON, platform="meta", channel="paid_social").to_record()
    assert codec.decode("touchpoint", codec.encode("touchpoint", touchpoint)) == touchpoint


def test_times() -> None:
    assert to_micros(NOON) == NOON_MICROS
    assert to_micros(NOON.astimezone(timezone(timedelta(hours=5, minutes=45)))) == NOON_MICROS
    assert to_micros(NOON + timedelta(microseconds=1)) == NOON_MICROS + 1
    assert to_rfc3339(NOON_MICROS + 1) == "2024-06-01T12:00:00.000001+00:00"
    touchpoint = Touchpoint(occurred_at=NOON, platform="meta", channel="paid_social")
    assert touchpoint.occurred_at == NOON_MICROS
    with pytest.raises(InvalidRecord, match=r"touchpoint\.occurred_at: needs a time zone") as caught:
        Touchpoint(occurred_at=NOON.replace(tzinfo=None), platform="meta", channel="paid_social", event_id="e1")
    assert (caught.value.field, caught.value.event_id) == ("occurred_at", "e1")
    with pytest.raises(InvalidRecord, match="linked_at"):
        IdentityLink(anonymous_id="a", user_id="u", linked_at=1.5)  # type: ignore[arg-type]
    with pytest.raises(InvalidRecord):
        Touchpoint(occurred_at=True, platform="meta", channel="paid_social")


@given(st.datetimes(timezones=st.timezones()))
@settings(max_examples=100)
def test_times_are_exact(moment: datetime) -> None:
    back = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=to_micros(moment))
    assert back == moment.astimezone(UTC)


def test_money() -> None:
    purchase = Conversion.purchase(value=Decimal("19.99"), currency="EUR", occurred_at=NOON, user_id="u")
    assert (purchase.value_micros, purchase.conversion_type) == (19_990_000, "purchase")
    assert money_to_micros(500, "JPY") == 500_000_000
    assert money_to_micros(Decimal("1.234"), "KWD") == 1_234_000
    assert money_to_micros(Decimal("19.990000"), "EUR") == 19_990_000
    refund = Conversion.refund(of="order-1", value=Decimal(5), currency="EUR", occurred_at=NOON, user_id="u")
    assert (refund.kind, refund.conversion_id, refund.value_micros) == ("refund", "order-1", 5_000_000)


@pytest.mark.parametrize(
    ("value", "currency", "rule"),
    [
        (19.99, "EUR", "float cannot hold money"),
        (True, "EUR", "Decimal or int"),
        ("19.99", "EUR", "Decimal or int"),
        (Decimal("19.999"), "EUR", "whole number of minor units"),
        (Decimal("0.5"), "JPY", "whole number of minor units"),
        (Decimal("NaN"), "EUR", "finite"),
        (Decimal("Infinity"), "EUR", "finite"),
        (Decimal("1e999999"), "EUR", r"below 10\^12"),
        (Decimal(1), "eur", "ISO 4217"),
        (Decimal(1), "XXX", "ISO 4217"),
    ],
)
def test_money_that_cannot_be_kept_is_refused(value: Any, currency: str, rule: str) -> None:
    with pytest.raises(InvalidRecord, match=rule) as caught:
        Conversion.purchase(value=value, currency=currency, occurred_at=NOON, user_id="u", event_id="order-7")
    assert caught.value.field == "value"
    assert "19.99" not in str(caught.value).replace('Decimal("19.99")', "")


@given(st.integers(-(10**13), 10**13), st.sampled_from(["EUR", "JPY", "KWD", "CLF"]))
@settings(max_examples=100)
def test_money_is_exact(minor_units: int, currency: str) -> None:
    value = Decimal(minor_units).scaleb(-minor_digits(currency))
    if abs(value) < 10**12:
        assert Decimal(money_to_micros(value, currency)) / 1_000_000 == value


def test_event_ids_are_version_7_and_rise() -> None:
    ids = [new_event_id() for _ in range(1000)]
    assert len(set(ids)) == len(ids)
    parsed = [uuid.UUID(text) for text in ids]
    assert {(one.version, one.variant) for one in parsed} == {(7, uuid.RFC_4122)}
    assert [one.int >> 80 for one in parsed] == sorted(one.int >> 80 for one in parsed)


def test_user_data_is_not_in_the_repr() -> None:
    data = UserData(email="jo@example.org")
    assert repr(data) == "UserData(given=['email'])"
    conversion = Conversion(occurred_at=NOON, conversion_type="lead", user_data=data)
    assert "example.org" not in repr(conversion)
