"""The loop's backlog: partitions that are paused are read on, and nobody waits for a partition that will not move."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from attributary.consumers.runtime.alignment import PAUSE_ABOVE
from attributary.consumers.runtime.backlog import Backlog
from attributary.consumers.runtime.records import Record

if TYPE_CHECKING:
    from confluent_kafka import TopicPartition

LINKS, TOUCHES = ("identities", 0), ("touchpoints", 0)


class StubConsumer:
    """Knows the ends of partitions, and which are paused."""

    def __init__(self) -> None:
        self.ends = {LINKS: 1_000_000, TOUCHES: 1_000_000}
        self.paused: set[tuple[str, int]] = set()

    def get_watermark_offsets(self, place: TopicPartition, *, cached: bool) -> tuple[int, int]:
        assert cached
        return 0, self.ends[place.topic, place.partition]

    def pause(self, places: list[TopicPartition]) -> None:
        self.paused |= {(place.topic, place.partition) for place in places}

    def resume(self, places: list[TopicPartition]) -> None:
        self.paused -= {(place.topic, place.partition) for place in places}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def consumer() -> StubConsumer:
    return StubConsumer()


def backlog_of(consumer: Any, *, is_aligned: bool = True) -> Backlog:
    found = Backlog(consumer, 50_000, is_aligned=is_aligned)
    found.start_at({LINKS: 0, TOUCHES: 0})
    return found


def records(place: tuple[str, int], first: int, count: int) -> list[Record]:
    return [Record(*place, offset, None, b"", 1_000 + offset) for offset in range(first, first + count)]


def test_without_a_backlog_nothing_is_held(consumer: StubConsumer) -> None:
    assert len(backlog_of(consumer).through(records(TOUCHES, 0, 10), is_full=False)) == 10
    assert len(backlog_of(consumer, is_aligned=False).through(records(TOUCHES, 0, 10), is_full=True)) == 10


@pytest.mark.usefixtures("clock")
def test_what_is_far_ahead_is_paused_and_read_on_when_the_other_has_come_as_far(consumer: StubConsumer) -> None:
    backlog = backlog_of(consumer)
    assert backlog.through(records(TOUCHES, 0, PAUSE_ABOVE + 1), is_full=True) == []
    assert consumer.paused == {TOUCHES}
    released = backlog.through(records(LINKS, 0, PAUSE_ABOVE + 1), is_full=True)
    assert len(released) == 2 * (PAUSE_ABOVE + 1)
    assert consumer.paused == set()


@pytest.mark.usefixtures("clock")
def test_a_rewind_reads_everything_on(consumer: StubConsumer) -> None:
    backlog = backlog_of(consumer)
    backlog.through(records(TOUCHES, 0, PAUSE_ABOVE + 1), is_full=True)
    backlog.clear()
    assert consumer.paused == set()
    assert backlog.through([], is_full=False) == []


@pytest.mark.usefixtures("clock")
def test_what_was_given_away_is_not_resumed(consumer: StubConsumer) -> None:
    backlog = backlog_of(consumer)
    backlog.through(records(TOUCHES, 0, PAUSE_ABOVE + 1), is_full=True)
    backlog.forget([TOUCHES])
    backlog.clear()
    assert consumer.paused == {TOUCHES}  # it is not ours to resume


def test_nobody_waits_long_for_a_partition_that_ends_with_a_transaction_marker(
    consumer: StubConsumer, clock: list[float]
) -> None:
    consumer.ends[LINKS] = 2  # one record, one marker that no consumer ever sees
    backlog = backlog_of(consumer)
    assert len(backlog.through(records(LINKS, 0, 1) + records(TOUCHES, 0, 1), is_full=True)) == 2
    waiting = backlog.through(records(TOUCHES, 1, 10), is_full=True)
    for step in range(1, 30):  # steady traffic, never a full batch again
        clock[0] += 0.1
        waiting += backlog.through(records(TOUCHES, 1 + 10 * step, 10), is_full=False)
    assert [record.offset for record in waiting] == list(range(1, 301))
