"""What every figure is measured on: the same seeded traffic, encoded once, in the pipeline's own input topics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from confluent_kafka import Producer

from attributary.producers.simulator import Disorder, SimulatorConfig, Traffic, Volume, simulate
from attributary.schemas.codec import Codec
from attributary.schemas.topics import CONVERSIONS, IDENTITIES, TOUCHPOINTS
from tests.fixtures.topics import PARTITIONS, recreate_topics

if TYPE_CHECKING:
    from collections.abc import Iterable

TOUCHPOINT_COUNT = 200_000
CONVERSION_COUNT = 10_000
SEED = 7
NAMES = {TOUCHPOINTS: "touchpoint", CONVERSIONS: "conversion", IDENTITIES: "identity_link"}
INPUTS = tuple(NAMES)

# As the publishing client produces; the bare baseline of the publish figure uses it, too.
BARE_PRODUCER = {
    "acks": "all",
    "enable.idempotence": True,
    "partitioner": "murmur2_random",
    "linger.ms": 20,
    "batch.size": 262_144,
    "compression.type": "lz4",
    "queue.buffering.max.messages": 1_000_000,
    "log_level": 3,  # a new broker loads its coordinator for a moment, which is no news
}


class Message(NamedTuple):
    """A record as bytes."""

    topic: str
    key: bytes
    value: bytes


def draw(scale: float, *, seed: int = SEED) -> Traffic:
    """200,000 touchpoints and 10,000 conversions times `scale`: 5 % twice, 5 % late, shuffled within an hour."""
    return simulate(
        SimulatorConfig(
            now_micros=time.time_ns() // 1_000,
            seed=seed,
            volume=Volume(
                touchpoints=max(100, round(TOUCHPOINT_COUNT * scale)),
                conversions=max(5, round(CONVERSION_COUNT * scale)),
                tenants=2,
            ),
            disorder=Disorder(duplicates=0.05, late=0.05, shuffle_seconds=3_600.0),
        )
    )


def encode(traffic: Traffic) -> list[Message]:
    """All arrivals as bytes, in order."""
    codec = Codec()
    return [Message(event.topic, event.key, codec.encode(NAMES[event.topic], event.record)) for event in traffic]


def load(bootstrap: str, messages: Iterable[Message]) -> int:
    """Publish everything to empty topics and wait for it; returns how many."""
    recreate_topics(bootstrap, partitions=PARTITIONS)
    return produce(bootstrap, messages)


def produce(bootstrap: str, messages: Iterable[Message]) -> int:
    """Publish everything and wait for it; returns how many.

    Waiting every thousand records leaves the log as a live stream would have: its topics and partitions in step, where
    one burst would append a megabyte of each partition at once.
    """
    producer = Producer({"bootstrap.servers": bootstrap, **BARE_PRODUCER})
    count = 0
    for count, (topic, key, value) in enumerate(messages, start=1):
        producer.produce(topic, value, key)
        if count % 1_000 == 0:
            producer.flush(120)
    left = producer.flush(120)
    producer.close()
    if left:
        raise RuntimeError(f"{left} records were not acknowledged")
    return count
