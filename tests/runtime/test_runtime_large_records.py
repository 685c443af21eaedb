"""A poisonous record of the largest size that a broker takes becomes a dead letter, bytes and all, and goes back."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer

from attributary.consumers.runtime.errors import Fatal
from attributary.consumers.runtime.health import Heartbeat
from attributary.consumers.runtime.loop import ConsumerLoop
from attributary.consumers.runtime.records import DeadLetter, Outcome, Record
from attributary.consumers.runtime.redrive import letter_of, redrive
from attributary.consumers.runtime.settings import KafkaSettings, ProcessSettings
from attributary.consumers.runtime.topic_reader import read_topic
from attributary.schemas.topics import COMMANDS, TOUCHPOINTS, dead_letter_topic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

GROUP = "attribution.stitcher"
# Java's max.request.size, and the default max.message.bytes of a topic, is 1 MiB and a little; the batch needs some.
LARGEST = 1_048_000


class Refusing:
    """A stage that gives every record up, and stops its loop."""

    name = "stitcher"
    group = GROUP
    topics = (TOUCHPOINTS,)
    output_topics = (COMMANDS,)
    max_records = 10
    loop: ConsumerLoop

    def handle(self, batch: Sequence[Record]) -> Outcome:
        self.loop.stop()
        return Outcome(dead_letters=[DeadLetter(record, "decode", None, "not ours") for record in batch])

    def stored_positions(self, partitions: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], int]:
        return dict.fromkeys(partitions, 0)

    def is_ready(self) -> bool:
        return True

    def close(self) -> None: ...


def test_the_largest_record_becomes_a_dead_letter_and_can_be_sent_again(fresh_topics: str) -> None:
    value = bytes(range(256)) * (LARGEST // 256)
    producer = Producer({"bootstrap.servers": fresh_topics, "message.max.bytes": 2_000_000, "log_level": 0})
    producer.produce(TOUCHPOINTS, value, b"k", headers=[("own", b"1")])
    assert producer.flush(120) == 0
    kafka = KafkaSettings(KAFKA_BOOTSTRAP_SERVERS=fresh_topics)
    stage = Refusing()
    stage.loop = ConsumerLoop(stage, kafka, ProcessSettings(), Heartbeat(stage.is_ready))
    stage.loop.run()
    (letter,) = read_topic(kafka, dead_letter_topic(TOUCHPOINTS, GROUP), until_end=True)
    assert letter.value == value
    assert dict(letter.headers)["own"] == b"1"
    assert redrive(kafka, [letter_of(letter)], lambda _letter: None) == 1
    first, again = read_topic(kafka, TOUCHPOINTS, until_end=True)
    assert first.value == again.value == value


def test_s4_a_record_too_large_for_its_dead_letter_goes_with_head_length_and_hash(fresh_topics: str) -> None:
    value = bytes(50_000_000)  # compresses to kilobytes, so the broker takes it
    producer = Producer(
        {
            "bootstrap.servers": fresh_topics,
            "message.max.bytes": 100_000_000,
            "compression.type": "zstd",
            "log_level": 0,
        }
    )
    producer.produce(TOUCHPOINTS, value, b"acme|k", headers=[("own", b"1")])
    assert producer.flush(120) == 0
    kafka = KafkaSettings(KAFKA_BOOTSTRAP_SERVERS=fresh_topics)
    stage = Refusing()
    stage.loop = ConsumerLoop(stage, kafka, ProcessSettings(), Heartbeat(stage.is_ready))
    stage.loop.run()
    (letter,) = read_topic(kafka, dead_letter_topic(TOUCHPOINTS, GROUP), until_end=True)
    headers = dict(letter.headers)
    assert letter.value == value[:65_536]
    assert letter.key == b"acme|k"
    assert headers["own"] == b"1"
    assert headers["attribution-cut-bytes"] == b"50000000"
    assert headers["attribution-cut-sha256"].decode() == hashlib.sha256(value).hexdigest()
    with pytest.raises(Fatal, match="holds the beginning of its record only"):
        redrive(kafka, [letter_of(letter)], lambda _letter: None)
