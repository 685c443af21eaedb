"""One contract for every transport: in memory, librdkafka's mock cluster, a real broker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from confluent_kafka import Consumer, TopicPartition

from attributary.local.mock_broker import mock_broker
from attributary.producers import (
    AttributaryProducer,
    Conversion,
    IdentityLink,
    MemoryTransport,
    ProducerConfig,
    Touchpoint,
)
from attributary.producers.kafka import KafkaTransport
from attributary.producers.transport import Message, Transport
from attributary.schemas.codec import Codec
from attributary.schemas.topics import CONVERSIONS, IDENTITIES, TOUCHPOINTS

NOON = 1_717_243_200_000_000
PATIENCE_SECONDS = 180.0


class Venue(NamedTuple):
    """A transport, and how to read what it carried."""

    transport: Transport
    read: Callable[[str], list[Message]]


def read_topic(bootstrap: str, topic: str) -> list[Message]:
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "test", "enable.auto.commit": False, "log_level": 0}
    )
    found = []
    try:
        partitions = consumer.list_topics(topic, timeout=PATIENCE_SECONDS).topics[topic].partitions
        ends = {}
        for partition in partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=PATIENCE_SECONDS)
            if high > low:
                ends[partition] = high
        consumer.assign([TopicPartition(topic, partition, 0) for partition in ends])
        deadline = time.monotonic() + PATIENCE_SECONDS
        while ends and time.monotonic() < deadline:
            for message in filter(None, [consumer.poll(1.0)]):
                assert message.error() is None
                key, value = message.key(), message.value()
                assert isinstance(key, bytes)
                assert isinstance(value, bytes)
                found.append(Message(topic, key, value, list(message.headers() or [])))  # type: ignore[arg-type]
                partition, offset = message.partition(), message.offset()
                assert partition is not None
                assert offset is not None
                if offset + 1 >= ends[partition]:
                    del ends[partition]
    finally:
        consumer.close()
    return found


@pytest.fixture
def memory_venue() -> Venue:
    transport = MemoryTransport()
    return Venue(transport, lambda topic: [message for message in transport.messages if message.topic == topic])


@pytest.fixture
def mock_venue() -> Iterator[Venue]:
    with mock_broker() as bootstrap:
        yield Venue(KafkaTransport(bootstrap, {"log_level": 0}), lambda topic: read_topic(bootstrap, topic))


@pytest.fixture
def real_venue(fresh_topics: str) -> Venue:
    return Venue(KafkaTransport(fresh_topics, {}), lambda topic: read_topic(fresh_topics, topic))


@pytest.fixture(params=["memory", "mock", pytest.param("real", marks=pytest.mark.kafka)])
def venue(request: pytest.FixtureRequest) -> Venue:
    found: Venue = request.getfixturevalue(f"{request.param}_venue")
    return found


def opened(venue: Venue) -> AttributaryProducer:
    return AttributaryProducer(ProducerConfig(source="shop", default_tenant="acme"), transport=venue.transport)


def touchpoint(number: int) -> Touchpoint:
    return Touchpoint(
        event_id=f"t{number}", anonymous_id=f"a{number % 7}", occurred_at=NOON + number, platform="x", channel="display"
    )


def test_every_kind_of_record_arrives_with_key_and_headers(venue: Venue) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with opened(venue) as producer:
        producer.publish_touchpoint(touchpoint(1), traceparent=trace)
        producer.publish_conversion(
            Conversion(event_id="c1", user_id="u1", occurred_at=NOON, conversion_type="lead", tenant_id="other")
        )
        producer.publish_identity_link(IdentityLink(event_id="l1", anonymous_id="a1", user_id="u1", linked_at=NOON))
    assert producer.counters == (3, 3, 0)
    (touch,) = venue.read(TOUCHPOINTS)
    (conversion,) = venue.read(CONVERSIONS)
    (link,) = venue.read(IDENTITIES)
    assert (touch.key, conversion.key, link.key) == (b"acme|a1", b"other|u1", b"acme|a1")
    assert dict(touch.headers) == {
        "content-type": b"application/avro",
        "ce_specversion": b"1.0",
        "ce_type": b"attributary.touchpoint.v1",
        "ce_source": b"shop",
        "ce_id": b"t1",
        "ce_time": b"2024-06-01T12:00:00.000001+00:00",
        "traceparent": trace.encode(),
    }
    assert "traceparent" not in dict(conversion.headers)
    assert Codec().decode("touchpoint", touch.value)["event_id"] == "t1"
    assert Codec().decode("conversion", conversion.value)["tenant_id"] == "other"


def test_many_records_arrive_once_and_in_the_order_of_their_key(venue: Venue) -> None:
    with opened(venue) as producer:
        for number in range(2000):
            producer.publish(touchpoint(number))
    assert producer.counters == (2000, 2000, 0)
    records = [Codec().decode("touchpoint", message.value) for message in venue.read(TOUCHPOINTS)]
    assert sorted(record["occurred_at"] - NOON for record in records) == list(range(2000))
    for person in {record["anonymous_id"] for record in records}:
        times = [record["occurred_at"] for record in records if record["anonymous_id"] == person]
        assert times == sorted(times)


def test_outcomes_come_to_the_callback_once_each(venue: Venue) -> None:
    outcomes: list[tuple[str, str | None]] = []
    with AttributaryProducer(
        ProducerConfig(default_tenant="acme"),
        transport=venue.transport,
        on_delivery=lambda event_id, reason: outcomes.append((event_id, reason)),
    ) as producer:
        for number in range(100):
            producer.publish(touchpoint(number))
        producer.flush()
        assert len(outcomes) == 100
    assert sorted(outcomes) == sorted((f"t{number}", None) for number in range(100))


def test_threads_may_share_a_producer(venue: Venue) -> None:
    with opened(venue) as producer:

        def publish(start: int) -> None:
            for number in range(start, start + 200):
                producer.publish(touchpoint(number))

        threads = [threading.Thread(target=publish, args=(start,)) for start in (0, 200, 400)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert producer.counters == (600, 600, 0)
    assert len({dict(message.headers)["ce_id"] for message in venue.read(TOUCHPOINTS)}) == 600


def test_a_closed_producer_says_so(venue: Venue) -> None:
    producer = opened(venue)
    producer.close()
    producer.close()
    with pytest.raises(RuntimeError, match="closed"):
        producer.publish(touchpoint(1))
