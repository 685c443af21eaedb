"""Unknown ids of a schema registry are remembered: look-ups do not grow with the records (S19)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from attributary.schemas.codec import Codec, DecodeError
from attributary.schemas.refused_ids import MAX_IDS, SECONDS, RefusedIds
from attributary.schemas.schema_catalog import UnsafeSchemaError, current_schemas, refuse_unsafe

TOUCHPOINT = {
    "tenant_id": "acme", "event_id": "t-1", "anonymous_id": "d-1", "channel": "email", "platform": "x",
    "occurred_at": 1, "interaction": "click",
}  # fmt: skip


class CountingRegistry:
    """Knows some ids, and counts the questions."""

    def __init__(self, texts: dict[int, str]) -> None:
        self.texts = texts
        self.asked: list[int] = []

    def schema(self, schema_id: int) -> str:
        self.asked.append(schema_id)
        return self.texts[schema_id]

    def schema_id(self, name: str, schema: str) -> int:
        raise LookupError(name, schema)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def refusals(codec: Codec, ids: list[int], name: str = "touchpoint") -> list[str]:
    said = []
    for schema_id in ids:
        with pytest.raises(DecodeError) as caught:
            codec.decode(name, b"\0" + schema_id.to_bytes(4, "big") + b"abc")
        said.append(caught.value.rule)
    return said


SCHEMA = json.dumps(current_schemas()["touchpoint"].source)
OTHER = json.dumps(current_schemas()["job"].source)
LOOP = '{"type": "record", "name": "a", "fields": [{"name": "b", "type": ["null", "a"]}]}'


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ({}, "unknown schema id 7"),
        ({7: OTHER}, "schema id 7 does not describe a touchpoint record"),
        ({7: LOOP}, "schema id 7 cannot be used"),
        ({7: "{"}, "schema id 7 cannot be used"),
    ],
)
def test_5000_records_with_one_bad_id_ask_once(texts: dict[int, str], reason: str) -> None:
    registry, clock = CountingRegistry(texts), Clock()
    codec = Codec(registry, refused=RefusedIds(clock))
    said = refusals(codec, [7] * 5_000)
    assert registry.asked == [7]
    assert len(set(said)) == 1
    assert reason in said[0]
    clock.now = SECONDS
    refusals(codec, [7] * 10)
    assert registry.asked == [7, 7]


def test_an_id_that_the_registry_learnt_is_read_when_the_time_is_over() -> None:
    registry, clock = CountingRegistry({}), Clock()
    codec = Codec(registry, refused=RefusedIds(clock))
    value = b"\0\0\0\0\x07" + Codec().encode("touchpoint", TOUCHPOINT)[10:]
    refusals(codec, [7])
    registry.texts[7] = SCHEMA
    clock.now = SECONDS
    assert codec.decode("touchpoint", value)["event_id"] == TOUCHPOINT["event_id"]


def test_5000_records_with_ids_made_up_ask_a_few_times_and_known_ids_are_read() -> None:
    registry, clock = CountingRegistry({7: SCHEMA}), Clock()
    codec = Codec(registry, refused=RefusedIds(clock))
    value = b"\0\0\0\0\x07" + Codec().encode("touchpoint", TOUCHPOINT)[10:]
    codec.decode("touchpoint", value)
    said = refusals(codec, list(range(100, 5_100)))
    assert len(registry.asked) == 1 + MAX_IDS
    assert "was not looked up" in said[-1]
    assert codec.decode("touchpoint", value)["event_id"] == TOUCHPOINT["event_id"]
    clock.now = SECONDS
    assert "unknown schema id 9999" in refusals(codec, [9_999])[0]


def test_an_id_is_refused_for_the_kind_of_record_that_it_does_not_describe() -> None:
    registry = CountingRegistry({7: SCHEMA})
    codec = Codec(registry)
    refusals(codec, [7], "job")
    value = b"\0\0\0\0\x07" + Codec().encode("touchpoint", TOUCHPOINT)[10:]
    assert codec.decode("touchpoint", value)["event_id"] == TOUCHPOINT["event_id"]


def test_a_schema_that_names_records_in_records_is_not_safe() -> None:
    inner: Any = {"type": "record", "name": "n0", "fields": [{"name": "f", "type": "null"}]}
    for level in range(1, 5):
        names = [{"name": f"f{each}", "type": f"n{level - 1}"} for each in range(1, 10)]
        inner = {"type": "record", "name": f"n{level}", "fields": [{"name": "f0", "type": inner}, *names]}
    with pytest.raises(UnsafeSchemaError, match="more than 10000 parts"):
        refuse_unsafe(inner)
    for schema in current_schemas().values():
        refuse_unsafe(schema.source)
