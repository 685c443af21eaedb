"""Records are held back only while there is a backlog, and never for good."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from attributary.consumers.runtime.records import Record
from attributary.consumers.runtime.reorder_buffer import OrderedReader

if TYPE_CHECKING:
    import pytest


class _Consumer:
    """Says that every partition has a hundred records, and remembers what was paused."""

    def __init__(self) -> None:
        self.paused: list[tuple[str, int]] = []
        self.resumed: list[tuple[str, int]] = []

    def get_watermark_offsets(self, _place: Any, *, cached: bool) -> tuple[int, int]:
        assert cached
        return 0, 100

    def pause(self, places: list[Any]) -> None:
        self.paused += [(place.topic, place.partition) for place in places]

    def resume(self, places: list[Any]) -> None:
        self.resumed += [(place.topic, place.partition) for place in places]


def backlog(consumer: _Consumer, *, is_ordered: bool = True) -> OrderedReader:
    made = OrderedReader(consumer, 100_000, is_ordered=is_ordered)  # type: ignore[arg-type]  # a stub of what it uses
    made.start_at({("a", 0): 0, ("b", 0): 0})
    return made


def record(topic: str, offset: int, timestamp_ms: int) -> Record:
    return Record(topic, 0, offset, None, b"", timestamp_ms)


def test_without_a_backlog_everything_passes_at_once() -> None:
    order = backlog(_Consumer())
    assert len(order.through([record("a", 0, 9_000), record("b", 0, 1_000)], is_full=False)) == 2


def test_in_a_backlog_the_one_ahead_is_held_back() -> None:
    order = backlog(_Consumer())
    released = order.through([record("a", 0, 9_000), record("b", 0, 1_000)], is_full=True)
    assert [r.topic for r in released] == ["b"]


def test_a_partition_that_ends_in_a_marker_holds_nobody_back_for_good() -> None:
    order = backlog(_Consumer())  # its ends are never reached
    order.through([record("b", 0, 1_000)], is_full=True)
    held = [order.through([record("a", n, 9_000 + n)], is_full=False) for n in range(3)]
    assert [len(released) for released in held] == [1, 0, 3]  # first the one behind
    assert len(order.through([record("a", 3, 9_999)], is_full=False)) == 1


def test_an_idle_read_releases_everything() -> None:
    order = backlog(_Consumer())
    order.through([record("a", 0, 9_000), record("b", 0, 1_000)], is_full=True)
    assert [r.topic for r in order.through([], is_full=False)] == ["a"]


def test_one_topic_needs_no_order() -> None:
    order = backlog(_Consumer(), is_ordered=False)
    assert len(order.through([record("a", 0, 9_000), record("a", 1, 9_001)], is_full=True)) == 2


def test_what_was_paused_is_resumed_when_the_loop_rewinds() -> None:
    consumer = _Consumer()
    order = backlog(consumer)
    order.through([record("a", n, 9_000) for n in range(5_000)], is_full=True)
    assert consumer.paused == [("a", 0)]
    order.clear()
    assert consumer.resumed == [("a", 0)]
    assert order.through([], is_full=False) == []


def test_a_partition_that_stands_still_is_not_waited_for_but_slow_processing_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    order = backlog(_Consumer())
    assert len(order.through([record("a", 0, 9_000), record("b", 0, 1_000)], is_full=True)) == 1
    now[0] += 7.0  # a slow batch
    assert order.through([record("a", 1, 9_001)], is_full=True) == []
    now[0] += 0.9
    assert order.through([record("a", 2, 9_002)], is_full=True) == []
    now[0] += 0.2  # b's broker is down, perhaps; a's backlog goes on
    assert len(order.through([record("a", 3, 9_003)], is_full=True)) == 4
    assert order.through([record("a", 4, 9_004)], is_full=True) == []
