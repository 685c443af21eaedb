"""The quick way of touchpoints against the long one: the same message, or the same field and rule."""

from __future__ import annotations

import enum
import math
import os
import random
import time
from datetime import UTC, datetime
from io import BytesIO
from types import MappingProxyType
from typing import Any

import pytest
from fastavro import schemaless_writer
from hypothesis import given
from hypothesis import strategies as st

from attributary.attribution_core.domain.identity_rules import IdentityRules
from attributary.producers import AttributaryProducer, InvalidRecord, MemoryTransport, ProducerConfig, Touchpoint
from attributary.producers import touchpoint_sealer as sealer
from attributary.producers.simulator import SimulatorConfig, Volume, simulate
from attributary.producers.times import rfc3339_bytes, to_rfc3339
from attributary.producers.transport import Message
from attributary.schemas.codec import Codec, RegistryUnavailableError
from attributary.schemas.limits import AHEAD_MICROS, EARLIEST_MICROS
from attributary.schemas.schema_catalog import current_schemas
from attributary.schemas.topics import TOUCHPOINTS

NOON = 1_717_243_200_000_000
MUTANTS = int(os.environ.get("SEALER_MUTANTS", "12000"))
SEED = 20_261_201


class Word(enum.StrEnum):
    META = "meta"


class Text(str):
    __slots__ = ()


VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 1.0, -0.0, 0.5, math.nan, math.inf, NOON, EARLIEST_MICROS, EARLIEST_MICROS - 1, 2**63,
    10**400, "", " ", "x", "X", "DE", "de", "De", "click", Word.META, Text("meta"), "null", "anonymous", " padded ",
    "12345.0", "kiosk", "test", "e\u0301", "half \ud800", "a\0b", "x" * 100, "x" * 101, "x" * 200, "x" * 201, "é" * 150,
    "x" * 500, "x" * 501, "x" * 1_023, "x" * 1_024, "é" * 600, "x" * 4_096, "x" * 4_097, b"meta", bytearray(b"meta"),
    [], ["x"], ("x",), {}, {"a": "b"}, {"a": 1}, {"a": True}, {"a": False}, {"a": 1.0}, {"a": None}, {1: "x"}, {"": ""},
    {"a\0": "b"}, {"a": "b\0"}, {"a\0": True}, {"x" * 201: "b"}, {"x" * 201: True}, {"a": "x" * 4_097},
    {"é" * 200: "b"},
    {f"k{n}": "v" for n in range(63)}, {f"k{n}": "v" for n in range(64)}, {f"k{n}": True for n in range(101)},
    {f"k{n}": "v" for n in range(101)}, MappingProxyType({"a": "b"}), MappingProxyType({"a": True}),
)  # fmt: skip


def opened(**config: Any) -> AttributaryProducer:
    """A producer with its quick way open: it has sealed a touchpoint."""
    found = AttributaryProducer(ProducerConfig(**({"source": "test"} | config)), transport=MemoryTransport())
    first = Touchpoint(tenant_id="t", anonymous_id="a1", occurred_at=NOON, platform="x", channel="x")
    found.seal("touchpoint", first.to_record())
    return found


def verdict(seal: Any, record: Any, traceparent: str | None = None) -> Message | tuple[str, str, str | None]:
    try:
        found = seal("touchpoint", record, traceparent=traceparent)
    except InvalidRecord as error:
        return error.field, error.rule, error.event_id
    assert isinstance(found, Message)
    return found


def drawn(count: int) -> list[dict[str, Any]]:
    traffic = simulate(SimulatorConfig(now_micros=NOON, seed=SEED, volume=Volume(touchpoints=count, conversions=5)))
    defaults = {
        field["name"]: field["default"]
        for field in current_schemas()["touchpoint"].source["fields"]
        if "default" in field
    }
    return [{**defaults, **event.record} for event in traffic if event.topic == TOUCHPOINTS]


def test_the_sealer_knows_every_field_of_the_schema_in_its_order() -> None:
    assert tuple(field["name"] for field in current_schemas()["touchpoint"].source["fields"]) == sealer.FIELDS


@pytest.mark.parametrize("rules", [IdentityRules(), IdentityRules({"tenant-1": ["kiosk"]}, {"*": ["test"]})])
@pytest.mark.parametrize("default_tenant", ["", "acme", "No Tenant"])
def test_both_ways_say_the_same_of_mutated_records(rules: IdentityRules, default_tenant: str) -> None:
    chance = random.Random(SEED)
    producer = opened(identities=rules, default_tenant=default_tenant)
    records = drawn(400)
    quick = refused = 0
    for _ in range(MUTANTS // 6):
        record = dict(chance.choice(records))
        for _ in range(chance.choice((0, 1, 1, 2))):
            name = chance.choice(sealer.FIELDS)
            match chance.randrange(12):
                case 0:
                    del record[name]
                    break
                case 1:
                    record["other"] = 1
                case _:
                    record[name] = chance.choice(VALUES)
        expected = verdict(producer._seal_any, record, None)
        assert verdict(producer.seal, record) == expected, record
        refused += not isinstance(expected, Message)
        try:
            quick += producer._envelope.seal_touchpoint(sealer.values_of_mapping(record)) is not None
        except KeyError:
            continue
    assert quick > MUTANTS // 6 * 0.3
    assert refused > MUTANTS // 6 * 0.1


@pytest.mark.parametrize("name", sealer.FIELDS)
def test_both_ways_say_the_same_of_every_field_at_its_limits(name: str) -> None:
    producer = opened()
    good = drawn(50)[0]
    for value in (*VALUES, *reversed(VALUES)):  # twice: the second time some are known
        record = {**good, name: value}
        assert verdict(producer.seal, record) == verdict(producer._seal_any, record, None), value


def test_the_time_may_run_ahead_a_day_and_no_more() -> None:
    producer = opened()
    good, now = drawn(50)[0], time.time_ns() // 1_000
    assert isinstance(verdict(producer.seal, {**good, "occurred_at": now + AHEAD_MICROS}), Message)
    late = {**good, "occurred_at": now + AHEAD_MICROS + 60_000_000}
    field, _, _ = verdict(producer.seal, late)  # type: ignore[misc]  # a refusal, no message
    assert field == "occurred_at"


def test_ordinary_touchpoints_take_the_quick_way_and_their_bytes_are_those_of_fastavro() -> None:
    producer = opened()
    records = drawn(500)
    for record in records:
        message = producer._envelope.seal_touchpoint(sealer.values_of_mapping(record))
        assert message is not None, record
        out = BytesIO()
        schemaless_writer(out, current_schemas()["touchpoint"].runtime, record)
        assert message.value[10:] == out.getvalue()
        assert Codec().decode("touchpoint", message.value) == record


def test_an_object_and_its_mapping_give_one_message() -> None:
    transport = MemoryTransport()
    producer = AttributaryProducer(ProducerConfig(source="test", default_tenant="acme"), transport=transport)
    for number in range(3):
        touchpoint = Touchpoint(
            event_id=f"e{number}", occurred_at=datetime(2024, 6, 1, 12, tzinfo=UTC), anonymous_id=" a1 ",
            platform="meta", channel="paid_social", click_ids={"fbclid": "f1"}, consent={"ad_storage": True},
            engagement_seconds=1.5,
        )  # fmt: skip
        producer.publish(touchpoint, traceparent="00-1-2-01")
        producer.publish_mapping("touchpoint", touchpoint.to_record(), traceparent="00-1-2-01")
    producer.close()
    objects, mappings = transport.messages[::2], transport.messages[1::2]
    assert objects == mappings
    assert {message.key for message in objects} == {b"acme|a1"}
    assert [name for name, _ in objects[-1].headers][-3:] == ["ce_id", "ce_time", "traceparent"]
    assert objects[1].headers[:4] == objects[2].headers[:4]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealer, "_MOST_PEOPLE", 50)
    known = sealer._Known(b"", "", IdentityRules())
    for number in range(500):
        tenant = f"t{number % 3}"
        _, people = known.tenants.get(tenant) or known.tenant(tenant)
        known.person(f"person-{number}", tenant, people)
        known.ad(("meta", "paid", "click", f"c{number}", *[None] * 10))
        assert sum(len(others) for _, others in known.tenants.values()) <= 50
    for number in range(10_000):
        known.name(f"n{number}")
        known.name(f"{number}" * 200 if number < 10 else f"m{number}")
    assert len(known.names) <= 4_096


def test_a_registry_that_is_away_is_asked_before_the_quick_way_is_taken() -> None:
    class Away:
        def schema(self, _schema_id: int) -> str:
            raise AssertionError

        def schema_id(self, _name: str, _schema: str) -> int:
            raise RegistryUnavailableError

    producer = AttributaryProducer(ProducerConfig(source="test", codec=Codec(Away())), transport=MemoryTransport())
    good = drawn(50)[0]
    with pytest.raises(RegistryUnavailableError):
        producer.publish_mapping("touchpoint", good)
    with pytest.raises(InvalidRecord):
        producer.publish_mapping("touchpoint", {**good, "platform": "Meta"})


def test_a_codec_with_a_shorter_limit_is_obeyed() -> None:
    producer = opened(codec=Codec(max_bytes=300))
    with pytest.raises(InvalidRecord, match="300 bytes"):
        producer.seal("touchpoint", {**drawn(50)[0], "landing_url": "x" * 400})


@given(st.integers(min_value=-2_000_000_000_000_000, max_value=4_200_000_000_000_000))
def test_times_are_written_alike(micros: int) -> None:
    for each in (micros, micros // 1_000_000 * 1_000_000):
        assert rfc3339_bytes(each) == to_rfc3339(each).encode()
