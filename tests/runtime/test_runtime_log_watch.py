"""Time until unread records and dead letters are removed (S23)."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from attributary.consumers.runtime import metrics
from attributary.consumers.runtime.log_watch import LagReport, TopicsWatch
from attributary.consumers.runtime.records import Record
from attributary.consumers.runtime.settings import KafkaSettings
from attributary.consumers.runtime.topic_ids import TopicIds
from tests.runtime.collector import collector_topics

DAY = 86_400


class Consumer:
    """Two partitions: position and end."""

    def __init__(self) -> None:
        self.places = {0: (10, 10), 1: (10, 10)}

    def assignment(self) -> list[int]:
        return list(self.places)

    def position(self, numbers: list[int]) -> list[TopicPartition]:
        return [TopicPartition("t", number, self.places[number][0]) for number in numbers]

    def get_watermark_offsets(self, place: TopicPartition, *, cached: bool) -> tuple[int, int]:
        assert cached
        return 0, self.places[place.partition][1]


def record(partition: int, seconds_ago: float) -> Record:
    return Record("t", partition, 9, b"k", b"v", int(1_000 * (time.time() - seconds_ago)))


@pytest.mark.parametrize(
    ("ends", "expected"),
    [((10, 10), 0), ((500, 10), 7 * DAY), ((500, 500), 7 * DAY), ((10, 500), 2 * DAY), ((15, 10), 0)],
)
def test_the_oldest_unread_record_is_as_old_as_the_last_that_was_read(ends: tuple[int, int], expected: float) -> None:
    consumer: Any = Consumer()
    lag = LagReport("s", ["t"], consumer)
    consumer.places = {0: (10, ends[0]), 1: (10, ends[1])}
    lag.committed([record(0, 7 * DAY), record(1, 2 * DAY)])
    lag.turn()
    assert math.isclose(lag.unread_seconds("t"), expected, abs_tol=120)
    assert metrics.consumer_lag.labels("s", "t")._value.get() == sum(end - 10 for end in ends)


def test_a_partition_that_was_given_away_counts_no_more() -> None:
    consumer: Any = Consumer()
    lag = LagReport("s", ["t"], consumer)
    consumer.places = {0: (10, 500)}
    lag.committed([record(0, 7 * DAY)])
    lag.forget([("t", 0)])
    lag.turn()
    assert lag.unread_seconds("t") == 0


@pytest.mark.kafka
def test_what_the_topics_say_is_shown(kafka_bootstrap: str) -> None:
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap, "log_level": 0})
    with collector_topics(kafka_bootstrap, "watch") as prefix:
        letters, compacted = f"{prefix}-letters", f"{prefix}-compacted"
        new = [
            NewTopic(letters, 2, 1, config={"retention.ms": str(14 * DAY * 1_000)}),
            NewTopic(compacted, 1, 1, config={"cleanup.policy": "compact"}),
        ]
        for future in admin.create_topics(new).values():
            future.result(120)
        producer = Producer({"bootstrap.servers": kafka_bootstrap, "log_level": 0})
        for days in (13, 12, 3, 0):
            producer.produce(letters, b"v", b"k", timestamp=int(1_000 * (time.time() - days * DAY)))
        assert producer.flush(120) == 0

        kafka = KafkaSettings(KAFKA_BOOTSTRAP_SERVERS=kafka_bootstrap)
        topics = [f"{prefix}-in", compacted]
        watch = TopicsWatch(TopicIds(kafka), "watch", topics, [letters], lambda _topic: 5 * DAY)
        watch.ask()
        metric = {
            (sample.name, sample.labels["topic"]): sample.value
            for family in (metrics.retention_seconds, metrics.retention_left, metrics.letters_near_end)
            for collected in family.collect()
            for sample in collected.samples
            if sample.labels["stage"] == "watch"
        }
        assert metric == {
            ("attribution_retention_seconds", topics[0]): 7 * DAY,
            ("attribution_retention_left_seconds", topics[0]): 2 * DAY,
            ("attribution_dlq_near_end_records", letters): 2,
        }
        for deletion in admin.delete_topics([letters, compacted]).values():
            deletion.result(120)
