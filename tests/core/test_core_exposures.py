"""Exposures in compressed rows, and histories cut into pieces, against readings of their definition by hand."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.attribution_core.domain.journeys import ChannelIndex, Ints, JourneyBatch, JourneyError
from attributary.attribution_core.statistics.exposure_rows import (
    MAX_REPEATS,
    Exposures,
    distinct_rows,
    sorted_words,
    words_of,
)
from attributary.attribution_core.statistics.exposures import SECONDS_PER_DAY, ExposureCounts
from attributary.attribution_core.statistics.histories import AGE_BOUNDS, pieces
from attributary.attribution_core.statistics.likelihood import Design

ROWS = st.lists(st.dictionaries(st.integers(0, 2_000), st.integers(1, MAX_REPEATS), max_size=9), max_size=30)


def compressed(rows: list[dict[int, int]]) -> tuple[Ints, Ints]:
    owners = np.array([place for place, row in enumerate(rows) for _ in row], dtype=np.int64)
    cells = np.array([cell for row in rows for cell in row], dtype=np.int64)
    touches = np.array([number for row in rows for number in row.values()], dtype=np.int64)
    return sorted_words(owners, words_of(cells, touches), len(rows))


def written_out(exposures: Exposures) -> list[dict[int, int]]:
    found: list[dict[int, int]] = [{} for _ in range(len(exposures))]
    for row, cell, number in zip(
        exposures.rows.tolist(), exposures.cells.tolist(), exposures.touches.tolist(), strict=True
    ):
        found[row][cell] = number
    return found


@given(ROWS)
def test_distinct_rows_are_those_of_a_dictionary_in_order(rows: list[dict[int, int]]) -> None:
    exposures, places = distinct_rows(*compressed(rows))
    found = written_out(exposures)
    assert [found[place] for place in places] == rows
    keys = [(len(row), tuple(sorted(row.items()))) for row in found]
    assert keys == sorted(set(keys))
    again = Exposures.checked(
        exposures.lengths.tolist(), exposures.cells.tolist(), exposures.touches.tolist(), columns=2_001
    )
    assert written_out(again) == found


@pytest.mark.parametrize(
    ("lengths", "cells", "touches"),
    [
        ([1], [5], [1]),  # no such cell
        ([1], [-1], [1]),
        ([2], [0], [1]),  # lengths do not fit
        ([-1, 2], [0], [1]),
        ([1], [0], [0]),  # nothing, or too much, in a cell
        ([1], [0], [MAX_REPEATS + 1]),
        ([2], [1, 0], [1, 1]),  # cells fall
        ([2], [1, 1], [1, 1]),
        ([1, 1], [0, 0], [1, 1]),  # the same row twice
        ([1, 1], [1, 0], [1, 1]),  # rows fall
        ([1, 0], [1], [1]),
    ],
)
def test_rows_that_break_the_invariant_are_refused(lengths: list[int], cells: list[int], touches: list[int]) -> None:
    with pytest.raises(JourneyError, match="exposures: "):
        Exposures.checked(lengths, cells, touches, columns=5)


JOURNEYS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 40), st.just(""), st.sampled_from("abcd")), max_size=14), st.integers(-30, 60)
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=150, deadline=None)
@given(JOURNEYS, st.sampled_from([(7,), (1, 7, 30), (10, 11)]))
def test_every_moment_of_a_history_is_in_the_piece_with_its_exposure(
    journeys: list[tuple[list[tuple[int, str, str]], int]], bounds: tuple[int, ...]
) -> None:
    ends = [max((touch[0] for touch in touches), default=0) for touches, _ in journeys]
    batch = JourneyBatch.of([touches for touches, _ in journeys], ends)
    until = np.array([end + more for end, (_, more) in zip(ends, journeys, strict=True)], dtype=np.int64)
    found = pieces(batch, until, bounds)
    rows = written_out(found.exposures)

    def exposure(touches: list[tuple[int, str, str]], moment: int) -> dict[int, int]:
        """Of the time from this moment to the next."""
        held: dict[int, int] = {}
        for when, _, channel in touches:
            age = int(np.searchsorted(bounds, moment - when, side="right"))
            if when <= moment and age < len(bounds):
                cell = batch.index.code(channel) * len(bounds) + age
                held[cell] = min(held.get(cell, 0) + 1, MAX_REPEATS)
        return held

    assert (found.until > found.since).all()
    for journey, (touches, _) in enumerate(journeys):
        mine = np.flatnonzero(found.journey == journey)
        held = {
            moment: rows[found.exposure[piece]]
            for piece in mine
            for moment in range(found.since[piece], found.until[piece])
        }
        first = min((touch[0] for touch in touches), default=int(until[journey]))
        assert sum(found.until[mine] - found.since[mine]) == len(held)  # nothing is covered twice
        assert held == {moment: exposure(touches, moment) for moment in range(first, int(until[journey]))}
        if touches and until[journey] > first:
            assert rows[found.at_end[journey]] == exposure(touches, int(until[journey]) - 1)
        else:
            assert found.at_end[journey] == -1


def test_time_that_microseconds_could_not_hold_adds_up() -> None:
    index = ChannelIndex.of(["a"])
    century = np.array([36_525 * SECONDS_PER_DAY])
    counts = ExposureCounts(index, AGE_BOUNDS, Exposures.checked([0], [], [], 3), century, np.array([1]))
    for _ in range(20):  # 100 million person-years
        counts = counts.add(counts)
    assert counts.days.tolist() == [36_525 * 2**20]
    assert int(counts.seconds[0]) * 1_000_000 > 2**63  # in microseconds


def test_memory_goes_by_filled_cells_not_by_channels() -> None:
    """300 channels, 20,000 journeys: written out, the distinct rows alone would be 225 MB, the pieces 360 MB."""
    generator, channels, journeys = np.random.default_rng(4), 300, 20_000
    lengths = generator.geometric(0.2, journeys)
    owner = np.repeat(np.arange(journeys), lengths)
    times = generator.integers(0, 40 * AGE_BOUNDS[0], owner.size)
    index = ChannelIndex.of(f"c{code:03d}" for code in range(channels))
    until = np.full(journeys, 40 * AGE_BOUNDS[0])
    batch = JourneyBatch(
        offsets=np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        channels=generator.integers(0, channels, owner.size).astype(np.int32),
        times=times[np.lexsort((times, owner))],
        converted_at=until,
        direct=np.zeros(owner.size, dtype=np.bool_),
        index=index,
    )
    tracemalloc.start()
    try:
        counts = ExposureCounts.fit(batch, (generator.random(journeys) < 0.1).astype(np.int64), until)
        Design.of(counts.exposures, channels * len(AGE_BOUNDS))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(counts.exposures) > 200_000
    assert peak < 220_000_000


def test_conversions_or_time_that_were_not_counted_cannot_be_retracted() -> None:
    batch = JourneyBatch.of([[(0, "", "a")]], [5_000_000])
    still_open, converted, longer = (
        ExposureCounts.fit(batch, np.array([flag]), np.array([seconds * 1_000_000]))
        for flag, seconds in ((0, 5), (1, 5), (0, 9))
    )
    for wrong in (converted, longer):
        with pytest.raises(JourneyError, match="retracted"):
            still_open.subtract(wrong)
