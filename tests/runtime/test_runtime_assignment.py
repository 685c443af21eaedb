"""Where a partition starts: the smaller of what Postgres and Kafka hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from attributary.consumers.runtime.errors import ConfigError, Fatal
from attributary.consumers.runtime.offsets import starting_offsets

if TYPE_CHECKING:
    from collections.abc import Mapping

TOPIC = "attribution.touchpoints.v1"


@dataclass
class BrokerStub:
    """A consumer that answers from a table: partition -> (low, high, committed)."""

    logs: Mapping[int, tuple[int, int, int | None]]
    error: KafkaError | None = None
    commits: list[tuple[int, int]] = field(default_factory=list)

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        assert timeout > 0
        found = []
        for place in partitions:
            committed = self.logs[place.partition][2]
            found.append(Committed(place.partition, -1001 if committed is None else committed, self.error))
        return found  # type: ignore[return-value]

    def get_watermark_offsets(self, place: TopicPartition, timeout: float) -> tuple[int, int]:
        assert timeout > 0
        return self.logs[place.partition][:2]

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
        assert not asynchronous
        self.commits += [(place.partition, place.offset) for place in offsets]


@dataclass
class Committed:
    partition: int
    offset: int
    error: KafkaError | None
    topic: str = TOPIC
    metadata: str = ""


def start(broker: BrokerStub, stored: dict[int, int] | None = None, first_start: str | None = None) -> dict[int, int]:
    places = [TopicPartition(TOPIC, partition) for partition in broker.logs]
    ours = {(TOPIC, partition): offset for partition, offset in (stored or {}).items()}
    consumer: Any = broker
    return {place.partition: place.offset for place in starting_offsets(consumer, places, ours, first_start)}


@pytest.mark.parametrize(
    ("committed", "stored", "begins"),
    [
        (10, None, 10),
        (None, 10, 10),
        (10, 7, 7),  # Kafka's transaction went through, Postgres lost it
        (7, 10, 7),  # Postgres committed, Kafka's transaction did not
        (0, 10, 0),
        (100, 100, 100),  # at the end of the log
    ],
)
def test_the_smaller_one_counts(committed: int | None, stored: int | None, begins: int) -> None:
    broker = BrokerStub({0: (0, 100, committed)})
    assert start(broker, {} if stored is None else {0: stored}) == {0: begins}
    assert broker.commits == []


def test_a_group_without_any_offset_must_be_told_where_to_begin() -> None:
    with pytest.raises(ConfigError, match="ATTRIBUTION_FIRST_START: must be set") as caught:
        start(BrokerStub({0: (5, 100, 8), 1: (5, 100, None)}))
    assert f"{TOPIC}[1]" in str(caught.value)


@pytest.mark.parametrize(("first_start", "begins"), [("earliest", 5), ("latest", 100)])
def test_the_first_start_is_committed_before_the_first_record_is_read(first_start: str, begins: int) -> None:
    broker = BrokerStub({0: (5, 100, None), 1: (5, 100, 60)})
    assert start(broker, first_start=first_start) == {0: begins, 1: 60}
    assert broker.commits == [(0, begins)]


def test_a_store_ahead_of_the_log_stops_and_says_what_to_do() -> None:
    with pytest.raises(Fatal, match="Postgres has read up to 101, but the log ends at 100") as caught:
        start(BrokerStub({0: (0, 100, 50)}), {0: 101})
    assert "attributary positions forget" in str(caught.value)
    assert not isinstance(caught.value, ConfigError)


def test_records_that_were_removed_unread_stop_the_start_and_say_what_to_do() -> None:
    with pytest.raises(Fatal, match="the next record to read is 30, but the log begins at 40") as caught:
        start(BrokerStub({0: (40, 100, 30)}))
    assert "retention" in str(caught.value)


def test_an_answer_that_is_an_error_is_not_taken_for_no_offset() -> None:
    broker = BrokerStub({0: (0, 100, None)}, KafkaError(KafkaError.UNSTABLE_OFFSET_COMMIT))
    with pytest.raises(KafkaException):
        start(broker, first_start="latest")
    assert broker.commits == []


def test_no_partition_asks_nobody() -> None:
    assert start(BrokerStub({})) == {}
