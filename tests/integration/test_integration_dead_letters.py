"""What can never be processed: where it goes, with what, and what happens to its neighbours."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.admin import AdminClient

from attributary.schemas.samples import sample
from attributary.schemas.schema_catalog import current_schemas
from attributary.schemas.topics import CONVERSIONS, IDENTITIES, TOUCHPOINTS, dead_letter_topic
from tests.expected_results import NAMES, codec
from tests.factories.traffic import publish, traffic
from tests.observed_state import DeadLetterSeen, read_dead_letters

if TYPE_CHECKING:
    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

YEAR = 365 * 86_400_000_000


def record(topic: str, **fields: Any) -> dict[str, Any]:
    now = time.time_ns() // 1_000 - 3_600_000_000
    made: dict[str, Any] = sample(current_schemas()[NAMES[topic]].source, 1)
    made |= {"tenant_id": "acme", "event_id": "e-1", "anonymous_id": "device-1"}
    made |= {"linked_at": now, "user_id": "u-1"} if topic == IDENTITIES else {"occurred_at": now}
    if topic == CONVERSIONS:
        made |= {"kind": "conversion", "conversion_type": "purchase", "currency": "EUR", "value_micros": 10_000_000}
        made |= {"action_source": "website", "client_ip_address": None, "user_data": None}
        made |= {"data_processing_options": [], "data_processing_country": None, "data_processing_state": None}
    if topic == TOUCHPOINTS:
        made |= {"platform": "meta", "channel": "paid_social", "interaction": "click", "country": "DE"}
    return made | fields


def encoded(topic: str, **fields: Any) -> bytes:
    return codec().encode(NAMES[topic], record(topic, **fields))


def poison() -> dict[str, tuple[str, bytes | None, str, str | None]]:
    """What is wrong: topic, bytes, stage that finds it, field."""
    good = encoded(TOUCHPOINTS)
    now = time.time_ns() // 1_000
    return {
        "truncated Avro": (TOUCHPOINTS, good[:-7], "decode", None),
        "bytes behind the record": (TOUCHPOINTS, good + b"\x00", "decode", None),
        "unknown framing": (TOUCHPOINTS, b'{"tenant_id": "acme"}', "decode", None),
        "unknown fingerprint": (TOUCHPOINTS, b"\xc3\x01" + b"\x07" * 8 + good[10:], "decode", None),
        "unknown schema id": (TOUCHPOINTS, b"\x00\x00\x00\x00\x63" + good[10:], "decode", None),
        "no value": (CONVERSIONS, None, "decode", None),
        "another type of record": (TOUCHPOINTS, encoded(IDENTITIES), "decode", None),
        "NUL in text": (TOUCHPOINTS, encoded(TOUCHPOINTS, event_id="nul", campaign_name="a\0b"), "validate",
                        "campaign_name"),
        "NUL in an id": (CONVERSIONS, encoded(CONVERSIONS, event_id="n\0l"), "validate", "event_id"),
        "a time before there was a web shop": (TOUCHPOINTS, encoded(TOUCHPOINTS, occurred_at=now - 60 * YEAR),
                                               "validate", "occurred_at"),
        "a time in the far future": (CONVERSIONS, encoded(CONVERSIONS, occurred_at=now + 3 * YEAR), "validate",
                                     "occurred_at"),
        "a negative value": (CONVERSIONS, encoded(CONVERSIONS, value_micros=-1), "validate", "value_micros"),
        "a generic id": (IDENTITIES, encoded(IDENTITIES, user_id="null"), "validate", "user_id"),
        "a tenant that is none": (TOUCHPOINTS, encoded(TOUCHPOINTS, tenant_id="Acme Inc"), "validate", "tenant_id"),
    }  # fmt: skip


def test_a_malformed_record_is_a_dead_letter_and_its_neighbours_are_processed(
    pipeline: PipelineUnderTest, publisher: Publisher
) -> None:
    events = traffic(600, 60, seed=5)
    bad = poison()
    step = len(events) // len(bad)
    for number, (what, (topic, value, _, _)) in enumerate(bad.items()):
        publish(publisher, events[number * step : (number + 1) * step])
        publisher.send_bytes(topic, value, what.encode())
    publish(publisher, events[len(bad) * step :])
    pipeline.start("stitcher", "attributor", "auditor")
    findings = pipeline.check(publisher.acknowledged)
    assert findings.refused == len(bad)
    found = {(letter.key or b"").decode(): letter for letter in read_dead_letters(pipeline.bootstrap)}
    assert found.keys() == bad.keys()
    for what, (topic, value, stage, field) in bad.items():
        _explains(what, found[what], topic, value, stage, field)


def _explains(
    what: str, letter: DeadLetterSeen, topic: str, value: bytes | None, stage: str, field: str | None
) -> None:
    assert letter.value == value, what
    assert letter.place[0] == topic, what
    assert letter.headers["__connect.errors.stage"].decode() == stage, (what, letter.reason)
    assert letter.headers["attribution-field"].decode() == (field or ""), (what, letter.reason)
    assert len(letter.reason) > 10, what
    assert letter.headers["attribution-attempts"] == b"1"
    if field is not None:
        assert field in letter.reason, what


def test_a_batch_that_is_mostly_poison_stops_the_stitcher_before_its_first_write(
    pipeline: PipelineUnderTest, publisher: Publisher
) -> None:
    for number in range(200):
        publisher.send_bytes(TOUCHPOINTS, encoded(TOUCHPOINTS, event_id=f"e-{number}"), b"k", 0)
        publisher.send_bytes(TOUCHPOINTS, b"rubbish", b"k", 0)
        publisher.send_bytes(TOUCHPOINTS, b"rubbish", b"k", 0)
    publisher.flush()
    pipeline.start("stitcher")
    code, log = pipeline.ended("stitcher")
    assert code == 70
    assert "ATTRIBUTION_MAX_POISON_SHARE" in log
    assert pipeline.events() == 0
    assert read_dead_letters(pipeline.bootstrap) == []
    pipeline.start("stitcher", "attributor", "auditor", ATTRIBUTION_MAX_POISON_SHARE="0.9")
    assert pipeline.check(publisher.acknowledged).refused == 400


def test_the_stitcher_does_not_start_without_its_dead_letter_topic(
    pipeline: PipelineUnderTest, publisher: Publisher
) -> None:
    missing = dead_letter_topic(CONVERSIONS, "attribution.stitcher")
    admin = AdminClient({"bootstrap.servers": pipeline.bootstrap, "log_level": 0})
    admin.delete_topics([missing])[missing].result(120)
    publish(publisher, traffic(20, 2, seed=6))
    pipeline.start("stitcher")
    code, log = pipeline.ended("stitcher")
    assert code == 78
    assert missing in log
    assert "topics apply" in log
    assert pipeline.events() == 0
