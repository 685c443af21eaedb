"""A backlog is read in the order of log time; nothing is lost, doubled or reordered inside a partition."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from attributary.consumers.runtime.records import Record
from attributary.consumers.runtime.reorder_buffer import PAUSE_ABOVE, ReorderBuffer

SMALL, LARGE = ("conversions", 0), ("touchpoints", 0)


def record(place: tuple[str, int], offset: int, timestamp_ms: int) -> Record:
    return Record(*place, offset, None, b"", timestamp_ms)


def test_a_partition_that_is_ahead_waits_for_the_one_behind() -> None:
    alignment = ReorderBuffer(100)
    alignment.start_at({SMALL: 0, LARGE: 0})
    alignment.offer([record(SMALL, n, n * 1_000) for n in range(10)])
    alignment.offer([record(LARGE, n, n * 1_000) for n in range(3)])
    released = alignment.release({SMALL: 10, LARGE: 50}.__getitem__)
    assert sorted((r.topic, r.offset) for r in released) == [
        *(("conversions", n) for n in range(3)),
        *(("touchpoints", n) for n in range(3)),
    ]
    assert len(alignment) == 7


def test_what_is_released_at_once_comes_in_the_order_of_log_time_over_all_topics() -> None:
    alignment = ReorderBuffer(100)
    alignment.start_at({SMALL: 0, LARGE: 0})
    alignment.offer([record(SMALL, n, n * 1_000) for n in range(4)])
    alignment.offer([record(LARGE, n, n * 300) for n in range(8)])
    released = alignment.release({SMALL: 4, LARGE: 8}.__getitem__)
    assert [r.timestamp_ms for r in released] == sorted(r.timestamp_ms for r in released)
    assert released[0].topic != released[1].topic  # one batch of the first half would hold both


def test_a_clock_that_goes_back_does_not_reorder_its_partition() -> None:
    alignment = ReorderBuffer(100)
    alignment.start_at({SMALL: 0, LARGE: 0})
    alignment.offer([record(SMALL, 0, 5_000), record(SMALL, 1, 1_000), record(LARGE, 0, 3_000)])
    assert [(r.topic, r.offset) for r in alignment.release_all()] == [
        ("touchpoints", 0), ("conversions", 0), ("conversions", 1),
    ]  # fmt: skip


def test_a_partition_that_was_read_to_its_end_holds_nobody_back() -> None:
    alignment = ReorderBuffer(100)
    alignment.start_at({SMALL: 0, LARGE: 0})
    alignment.offer([record(SMALL, 0, 5_000), record(LARGE, 0, 1_000)])
    assert len(alignment.release({SMALL: 1, LARGE: 1}.__getitem__)) == 2


def test_a_partition_without_its_first_record_holds_everybody_back_until_too_much_is_held() -> None:
    alignment = ReorderBuffer(4)
    alignment.start_at({SMALL: 0, LARGE: 0})
    alignment.offer([record(SMALL, n, n * 1_000) for n in range(4)])
    assert alignment.release({SMALL: 9, LARGE: 9}.__getitem__) == []
    alignment.offer([record(SMALL, n, n * 1_000) for n in range(4, 6)])
    assert [r.offset for r in alignment.release({SMALL: 9, LARGE: 9}.__getitem__)] == [0, 1]


def test_what_is_given_away_is_forgotten() -> None:
    alignment = ReorderBuffer(100)
    alignment.start_at({SMALL: 0, LARGE: 0})
    alignment.offer([record(SMALL, 0, 1), record(LARGE, 0, 1)])
    alignment.forget([SMALL])
    assert [r.topic for r in alignment.release_all()] == ["touchpoints"]


def test_a_partition_with_much_held_is_paused_and_read_on_later() -> None:
    alignment = ReorderBuffer(10**6)
    alignment.start_at({SMALL: 0, LARGE: 0})
    alignment.offer([record(SMALL, n, n) for n in range(PAUSE_ABOVE + 1)])
    assert alignment.to_pause() == [SMALL]
    assert alignment.to_resume([SMALL]) == []
    alignment.release_all()
    assert alignment.to_resume([SMALL]) == [SMALL]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2_000)), max_size=60),
    st.integers(1, 20),
    st.integers(0, 30),
)
def test_every_record_comes_out_once_and_in_its_partitions_order(
    arrivals: list[tuple[int, int]], portion: int, max_held: int
) -> None:
    alignment = ReorderBuffer(max_held)
    alignment.start_at({("t", partition): 0 for partition in range(4)})
    offsets: dict[int, int] = defaultdict(int)
    clocks: dict[int, int] = defaultdict(int)
    records = []
    for partition, later in arrivals:
        clocks[partition] += later
        records.append(record(("t", partition), offsets[partition], clocks[partition]))
        offsets[partition] += 1
    out: list[Record] = []
    for start in range(0, len(records), portion):
        alignment.offer(records[start : start + portion])
        out += alignment.release(lambda place: offsets[place[1]])
        assert len(alignment) <= max_held
    out += alignment.release_all()
    assert sorted((r.partition, r.offset) for r in out) == sorted((r.partition, r.offset) for r in records)
    for partition in range(4):
        mine = [r.offset for r in out if r.partition == partition]
        assert mine == sorted(mine)
