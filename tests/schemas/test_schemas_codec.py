from __future__ import annotations

import json
import struct
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.schemas.codec import (
    CONFLUENT,
    MAX_BYTES,
    SINGLE_OBJECT,
    Codec,
    DecodeError,
    EncodeError,
    RegistryUnavailableError,
)
from attributary.schemas.refused_ids import RefusedIds
from attributary.schemas.samples import sample
from attributary.schemas.schema_catalog import NAMES, UnsafeSchemaError, current_schemas, runtime_form

TOUCHPOINT: dict[str, Any] = {
    "tenant_id": "acme",
    "event_id": "e-1",
    "anonymous_id": "device-1",
    "occurred_at": 1_764_000_000_123_456,
    "platform": "google",
    "channel": "paid_search",
    "click_ids": {"gclid": "AbC"},
    "engagement_seconds": 1.5,
    "consent": {"ad_storage": True},
}
JOB = {"tenant_id": "acme", "job_id": "j", "kind": "train", "parameters": {}, "submitted_at": 1}


class Shelf:
    """A registry in memory."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)
        self.away = False
        self.asked = 0

    def schema(self, schema_id: int) -> str:
        self._answer()
        return self.texts[schema_id]

    def schema_id(self, name: str, schema: str) -> int:
        self._answer()
        if schema not in self.texts:
            raise LookupError(name)
        return self.texts.index(schema)

    def _answer(self) -> None:
        self.asked += 1
        if self.away:
            raise RegistryUnavailableError("the schema registry does not answer")


def source(name: str) -> dict[str, Any]:
    copied: dict[str, Any] = json.loads(json.dumps(current_schemas()[name].source))
    return copied


def test_single_object_framing_round_trips_with_defaults_and_plain_times() -> None:
    codec = Codec()
    value = codec.encode("touchpoint", TOUCHPOINT)
    assert value[:10] == SINGLE_OBJECT + current_schemas()["touchpoint"].crc64
    record = codec.decode("touchpoint", value)
    assert {key: record[key] for key in TOUCHPOINT} == TOUCHPOINT
    assert record["user_id"] is None
    assert record["interaction"] == "click"
    assert record["is_bot"] is False
    assert record["properties"] == {}
    assert codec.encode("touchpoint", record) == value


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("branch", [0, 1])
def test_every_record_round_trips(name: str, branch: int) -> None:
    codec = Codec()
    record = sample(current_schemas()[name].source, branch)
    assert codec.decode(name, codec.encode(name, record)) == record


@settings(max_examples=50, deadline=None)
@given(
    st.fixed_dictionaries(
        {key: st.just(value) for key, value in TOUCHPOINT.items()}
        | {
            "user_id": st.none() | st.text(),
            "occurred_at": st.integers(-(2**63), 2**63 - 1),
            "properties": st.dictionaries(st.text(), st.text()),
            "engagement_seconds": st.none() | st.floats(allow_nan=False),
        }
    )
)
def test_any_record_of_the_schema_round_trips(record: dict[str, Any]) -> None:
    codec = Codec()
    decoded = codec.decode("touchpoint", codec.encode("touchpoint", record))
    assert {key: decoded[key] for key in record} == record


def test_confluent_framing_round_trips_and_asks_once() -> None:
    shelf = Shelf("{}", json.dumps(source("touchpoint")))
    codec = Codec(shelf)
    value = codec.encode("touchpoint", TOUCHPOINT)
    assert value[:5] == CONFLUENT + (1).to_bytes(4, "big")
    for _ in range(3):
        assert codec.decode("touchpoint", value)["event_id"] == "e-1"
        codec.encode("touchpoint", TOUCHPOINT)
    assert shelf.asked == 2
    assert value[5:] == Codec().encode("touchpoint", TOUCHPOINT)[10:]


def test_one_codec_reads_both_framings() -> None:
    codec = Codec(Shelf(json.dumps(source("touchpoint"))))
    assert codec.decode("touchpoint", Codec().encode("touchpoint", TOUCHPOINT)) == codec.decode(
        "touchpoint", codec.encode("touchpoint", TOUCHPOINT)
    )


def test_a_newer_writer_is_projected_on_the_bundled_schema() -> None:
    newer = source("touchpoint")
    newer["fields"].insert(0, {"name": "weather", "type": "string", "default": ""})
    newer["fields"] = [field for field in newer["fields"] if field["name"] != "device"]
    body = Codec().encode("touchpoint", TOUCHPOINT)[10:]
    # device is the null just before engagement_seconds; its byte is dropped and the new field's is put first.
    at = body.index(struct.pack("<d", 1.5)) - 2
    record = Codec(Shelf(json.dumps(newer))).decode(
        "touchpoint", CONFLUENT + bytes(4) + b"\x08rain" + body[:at] + body[at + 1 :]
    )
    assert record == Codec().decode("touchpoint", Codec().encode("touchpoint", TOUCHPOINT))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda value: value[:-1], "the touchpoint record ends too early"),
        (lambda value: value + b"\0", "bytes are left over after the touchpoint record"),
        (lambda value: value.replace(b"acme", b"ac\xff\xfe"), "a text of the touchpoint record is not UTF-8"),
        (lambda value: value[:10] + b"\xff" * 11, "the bytes are not a touchpoint record"),
        (lambda value: value[:10] + b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", "ends too early"),
        (lambda value: value[:2] + bytes(range(8)) + value[10:], "unknown schema fingerprint 0001020304050607"),
        (lambda _: b"", "neither Avro single-object encoding (C3 01) nor Confluent wire format (00)"),
        (lambda _: b'{"tenant_id": "acme"}', "neither Avro single-object encoding"),
        (lambda _: SINGLE_OBJECT, "neither Avro single-object encoding"),
        (lambda _: b"\0\0\0\0\x2a", "schema id 42: no schema registry is set up"),
        (lambda _: Codec().encode("job", JOB), "the value is a job record, expected touchpoint"),
        (lambda _: bytes(MAX_BYTES + 1), "the value is longer than 1048576 bytes"),
        (lambda _: None, "the record has no value"),
    ],
)
def test_broken_bytes_are_named(change: Any, rule: str) -> None:
    value = Codec().encode("touchpoint", TOUCHPOINT)
    with pytest.raises(DecodeError) as caught:
        Codec().decode("touchpoint", change(value))
    assert rule in caught.value.rule
    assert str(caught.value) == caught.value.rule


def test_the_text_of_a_broken_record_holds_no_value() -> None:
    value = Codec().encode("touchpoint", TOUCHPOINT | {"anonymous_id": "secret-person"})
    with pytest.raises(DecodeError) as caught:
        Codec().decode("touchpoint", value.replace(b"secret-person", b"secret-perso\xff"))
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("not json", "schema id 0 cannot be used"),
        ("[" * 100_000, "schema id 0 cannot be used"),
        ("7", "schema id 0 cannot be used"),
        ('{"type": "record"}', "schema id 0 cannot be used"),
        ('"no.such.Type"', "schema id 0 cannot be used"),
        ('"string"', "schema id 0 does not describe a touchpoint record"),
        (json.dumps(source("job")), "schema id 0 does not describe a touchpoint record"),
        ('{"type": "record", "name": "R", "fields": [{"name": "r", "type": ["null", "R"]}]}', "cannot be used"),
        ('{"type": "array", "items": "null"}', "cannot be used"),
        (
            '{"type": "record", "name": "attributary.v1.Touchpoint", "fields": [{"name": "event_id", "type": "int"}]}',
            "the writer's schema cannot be read as the touchpoint record of this version",
        ),
    ],
)
def test_a_schema_of_the_registry_that_does_not_fit_is_named(text: str, rule: str) -> None:
    with pytest.raises(DecodeError, match=rule.replace("(", r"\(")):
        Codec(Shelf(text)).decode("touchpoint", bytes(8))


def test_an_unknown_schema_id_is_the_records_fault_and_a_silent_registry_is_not() -> None:
    shelf, seconds = Shelf(), [0.0]
    codec = Codec(shelf, refused=RefusedIds(lambda: seconds[0]))
    with pytest.raises(DecodeError, match="unknown schema id 7"):
        codec.decode("touchpoint", b"\0\0\0\0\x07abc")
    with pytest.raises(EncodeError, match="the touchpoint schema is not registered"):
        codec.encode("touchpoint", TOUCHPOINT)
    shelf.away = True
    with pytest.raises(DecodeError, match="unknown schema id 7"):  # remembered
        codec.decode("touchpoint", b"\0\0\0\0\x07abc")
    seconds[0] = 60.0
    with pytest.raises(RegistryUnavailableError):
        codec.decode("touchpoint", b"\0\0\0\0\x07abc")
    with pytest.raises(RegistryUnavailableError):
        codec.encode("touchpoint", TOUCHPOINT)
    shelf.away = False
    shelf.texts.append(json.dumps(source("touchpoint")))
    assert codec.encode("touchpoint", TOUCHPOINT)[:1] == CONFLUENT


@pytest.mark.parametrize(
    ("record", "rule"),
    [
        ([], "touchpoint: must be a mapping of fields"),
        ({}, "tenant_id: must be set"),
        (TOUCHPOINT | {"chanel": "x"}, "chanel: the touchpoint record has no such field"),
        (TOUCHPOINT | {"platform": 7}, "platform: is not of the type that the touchpoint schema says"),
        (TOUCHPOINT | {"user_id": "\ud800"}, "user_id: is not of the type"),
        (TOUCHPOINT | {"occurred_at": "today"}, "occurred_at: is not of the type"),
        (TOUCHPOINT | {"occurred_at": datetime(2026, 1, 1, tzinfo=UTC)}, "occurred_at: is not of the type"),
        (TOUCHPOINT | {"properties": {"a": "x" * MAX_BYTES}}, "takes more than 1048576 bytes"),
    ],
)
def test_a_record_that_does_not_fit_is_named(record: Any, rule: str) -> None:
    with pytest.raises(EncodeError) as caught:
        Codec().encode("touchpoint", record)
    assert rule in caught.value.rule


def test_an_unknown_name_is_a_bug() -> None:
    with pytest.raises(KeyError):
        Codec().encode("weather", {})
    with pytest.raises(KeyError):
        Codec().decode("weather", b"")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": {"type": "record", "name": "Nothing", "fields": []}},
        {"type": "map", "values": {"type": "array", "items": "null"}},
        {"type": "array", "items": {"type": "fixed", "name": "Zero", "size": 0}},
        {"type": {"type": "array", "items": "null"}},
    ],
)
def test_a_schema_that_lets_few_bytes_take_all_memory_is_refused(schema: Any) -> None:
    with pytest.raises(UnsafeSchemaError):
        runtime_form(schema)
