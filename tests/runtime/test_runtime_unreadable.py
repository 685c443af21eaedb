"""A batch that cannot be unpacked holds its partition only; an operator may skip it, with a note (S5)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer

from attributary.consumers.runtime import metrics
from attributary.consumers.runtime.errors import ConfigError
from attributary.consumers.runtime.settings import KafkaSettings
from attributary.consumers.runtime.topic_reader import read_topic
from attributary.consumers.runtime.unreadable import NamedBatch, named_batches
from tests.runtime.collector import Collector, collector_loop, collector_topics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from attributary.consumers.runtime.records import Outcome, Record

BOMB = 3  # records of the batch, at offsets 5, 6, 7
MEGABYTES = 60


@pytest.fixture
def bomb(kafka_bootstrap: str) -> Iterator[tuple[KafkaSettings, str]]:
    """A topic of two partitions; in the first, behind five records, a batch of kilobytes that unpacks to 180 MB."""
    with collector_topics(kafka_bootstrap, "bomb", partitions=2) as prefix:
        topic = f"{prefix}-in"
        fill(kafka_bootstrap, topic, 0, [b"a%d" % number for number in range(5)])
        packed = {"message.max.bytes": 250_000_000, "batch.size": 250_000_000, "compression.type": "zstd",
                  "linger.ms": 2_000, "batch.num.messages": 10, "queue.buffering.max.kbytes": 500_000}  # fmt: skip
        fill(kafka_bootstrap, topic, 0, [bytes(MEGABYTES << 20)] * BOMB, **packed)
        fill(kafka_bootstrap, topic, 0, [b"b%d" % number for number in range(4)])
        fill(kafka_bootstrap, topic, 1, [b"c%d" % number for number in range(3)])
        yield KafkaSettings(KAFKA_BOOTSTRAP_SERVERS=kafka_bootstrap), prefix


def fill(bootstrap: str, topic: str, partition: int, values: list[bytes], **config: object) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0, **config})
    for value in values:
        producer.produce(topic, value, b"k", partition=partition)
    assert producer.flush(120) == 0


class KafkaOnly(Collector):
    """A collector that starts where Kafka says."""

    def stored_positions(self, partitions: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], int]:  # noqa: ARG002
        return {}

    def handle(self, batch: Sequence[Record]) -> Outcome:
        outcome = super().handle(batch)
        if set(self.values) >= set(self.awaited) and self.loop is not None:
            self.loop.stop()
        return outcome

    awaited: tuple[bytes, ...] = ()


def read(kafka: KafkaSettings, prefix: str, awaited: list[bytes], **process: str) -> list[bytes]:
    stage, loop = collector_loop(kafka, prefix, enough=10**6, **process)
    stage.__class__ = KafkaOnly
    stage.awaited = tuple(awaited)  # type: ignore[attr-defined]
    loop.run()
    return sorted(value or b"" for value in stage.values)


FIRST = [b"a%d" % number for number in range(5)] + [b"c%d" % number for number in range(3)]
BEHIND = [b"b%d" % number for number in range(4)]


@pytest.mark.kafka
@pytest.mark.parametrize("named", ["{topic}[0]@5", "other[0]@5, {topic}[0]@5-7"])
def test_the_other_partition_goes_on_and_the_batch_is_skipped_with_a_note(
    bomb: tuple[KafkaSettings, str], named: str
) -> None:
    kafka, prefix = bomb
    counted = metrics.unreadable_batches.labels("collector", f"{prefix}-in")._value
    assert read(kafka, prefix, FIRST) == FIRST
    fill(kafka.bootstrap_servers, f"{prefix}-in", 1, [b"d"])
    assert read(kafka, prefix, [b"d"]) == [b"d"]  # held, and the other partition is read
    assert counted.get() > 0  # the fault fired
    fired = counted.get()

    skipped = read(kafka, prefix, BEHIND, ATTRIBUTION_SKIP_BATCHES=named.format(topic=f"{prefix}-in"))
    assert skipped == BEHIND
    assert (counted.get() > fired) == ("-7" not in named)  # with both ends it was not even fetched
    (letter,) = read_topic(kafka, f"{prefix}-in.{prefix}.dlq", until_end=True)
    headers = dict(letter.headers)
    assert (letter.value, headers["__connect.errors.stage"]) == (None, b"read")
    assert headers["__connect.errors.offset"] == b"5"
    assert b"offsets 5 to 7 cannot be unpacked and were skipped" in headers["__connect.errors.exception.message"]
    assert metrics.partitions_held.labels("collector")._value.get() == 0

    fill(kafka.bootstrap_servers, f"{prefix}-in", 0, [b"e"])
    assert read(kafka, prefix, [b"e"]) == [b"e"]  # without the setting: the offset behind is committed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("a.b[0]@5", (NamedBatch("a.b", 0, 5, None),)),
        (" a[1]@5-7 , b[2]@0,", (NamedBatch("a", 1, 5, 7), NamedBatch("b", 2, 0, None))),
    ],
)
def test_batches_are_named(text: str, expected: tuple[NamedBatch, ...]) -> None:
    assert named_batches(text) == expected


@pytest.mark.parametrize("text", ["a", "a[0]", "a[0]@", "a[0]@7-5", "a[-1]@5", "a[0]@5;b[0]@5", "a[0]@5-", "[0]@5"])
def test_what_names_no_batch_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="ATTRIBUTION_SKIP_BATCHES"):
        named_batches(text)
