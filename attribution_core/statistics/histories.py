"""Histories cut into pieces of constant exposure.

The history of a person is cut wherever a touch happens or grows older than an age bound: in each piece the number of
touches of every channel and age class is constant.

Invariant: the pieces of a journey cover the time from its first touch to the end of watching once, without gaps. A
piece depends on its journey alone, never on how the batch is cut for the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attributary.attribution_core.domain.journeys import Codes, Flags, Ints, JourneyBatch, JourneyError
from attributary.attribution_core.domain.lookback import MICROS_PER_DAY
from attributary.attribution_core.statistics.exposure_rows import (
    MAX_REPEATS,
    Exposures,
    distinct_rows,
    sorted_words,
    words_of,
)

# A touch matters most on its day, and no longer than the default lookback window.
AGE_BOUNDS: tuple[int, ...] = (MICROS_PER_DAY, 7 * MICROS_PER_DAY, 30 * MICROS_PER_DAY)
_ENTRIES = 1 << 20  # filled cells of pieces at a time: tens of megabytes of working memory


@dataclass(frozen=True, eq=False)
class Pieces:
    """The pieces of the histories of a batch.

    Attributes:
        exposures: the distinct ones.
        exposure: int64[p], the row of each piece among them.
        journey: int64[p], its journey.
        since: int64[p], its begin, microseconds UTC.
        until: int64[p], its end, microseconds UTC; later than its begin.
        at_end: int64[n], the row that held up to the moment when watching the journey ended; -1 where no touch came
            before that.
    """

    exposures: Exposures
    exposure: Ints
    journey: Ints
    since: Ints
    until: Ints
    at_end: Ints


def pieces(batch: JourneyBatch, watched_until: Ints, bounds: Sequence[int] = AGE_BOUNDS) -> Pieces:
    """Cut the histories of a batch into pieces of constant exposure, some journeys at a time.

    Args:
        batch: n journeys.
        watched_until: int64[n], when watching ended, microseconds UTC. A conversion at the very moment of a touch does
            not see it: under that exposure no time was watched, and any rate would do.
        bounds: upper ends of the age classes, microseconds, ascending.

    Raises:
        JourneyError: not one entry of `watched_until` per journey.
    """
    if watched_until.size != len(batch):
        raise JourneyError("watched_until: must have one entry per journey")
    if len(batch) == 0:
        none = np.zeros(0, dtype=np.int64)
        return Pieces(Exposures.none(), none, none, none, none, none)
    # A journey has at most this many pieces, and each of its touches is in one cell at a time.
    most = (len(bounds) + 1) * batch.lengths
    groups = np.cumsum(most * np.minimum(batch.lengths, len(batch.index) * len(bounds)) + 1) // _ENTRIES
    starts = np.flatnonzero(np.diff(groups, prepend=-1)).tolist()
    parts = [
        _pieces(batch.slice(low, high), watched_until[low:high], bounds)
        for low, high in zip(starts, [*starts[1:], len(batch)], strict=True)
    ]
    if len(parts) == 1:
        return parts[0]
    exposures, places = distinct_rows(*stacked([(part.exposures.offsets, part.exposures.words) for part in parts]))
    shifts = np.cumsum([0, *(len(part.exposures) for part in parts)]).tolist()
    at_end = [np.where(part.at_end < 0, -1, part.at_end + low) for part, low in zip(parts, shifts, strict=False)]
    last = np.concatenate(at_end)
    return Pieces(
        exposures,
        places[np.concatenate([part.exposure + low for part, low in zip(parts, shifts, strict=False)])],
        np.concatenate([part.journey + low for part, low in zip(parts, starts, strict=True)]),
        np.concatenate([part.since for part in parts]),
        np.concatenate([part.until for part in parts]),
        np.where(last < 0, -1, places[last]) if places.size else last,
    )


def cells_at_end(batch: JourneyBatch, channels: Codes | Ints, bounds: Sequence[int]) -> Ints:
    """Return the channel and age class of each touch at the end of its journey, int64[m].

    ``channel * (A + 1) + age class``; the last of the A + 1 classes is that of touches that have grown out.

    Args:
        batch: m touches.
        channels: of the touches, in the codes of the caller.
        bounds: upper ends of the age classes, microseconds, ascending.
    """
    ages = np.repeat(batch.converted_at, batch.lengths) - batch.times
    classes = np.searchsorted(np.array(bounds, dtype=np.int64), ages, side="right")
    return channels.astype(np.int64) * (len(bounds) + 1) + classes


def repeated(batch: JourneyBatch, cells: Ints) -> Flags:
    """Tell which touches are the sixth or later of one channel and age class in their journey: they say nothing new."""
    repeated = np.zeros(cells.size, dtype=np.bool_)
    if int(batch.lengths.max(initial=0)) <= MAX_REPEATS:
        return repeated
    order = np.lexsort((cells, batch.journey_of_touch))  # stable: in the order of time
    journeys, sorted_cells = batch.journey_of_touch[order], cells[order]
    fresh = np.ones(cells.size, dtype=np.bool_)
    fresh[1:] = (journeys[1:] != journeys[:-1]) | (sorted_cells[1:] != sorted_cells[:-1])
    starts = np.flatnonzero(fresh)
    ranks = np.arange(cells.size) - np.repeat(starts, np.diff(np.append(starts, cells.size)))
    repeated[order] = ranks >= MAX_REPEATS
    return repeated


def stacked(parts: Sequence[tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
    """Put compressed rows, offsets and words, below each other."""
    lengths = np.concatenate([np.diff(offsets) for offsets, _ in parts])
    return np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(lengths))), np.concatenate(
        [words for _, words in parts]
    )


def _pieces(batch: JourneyBatch, watched_until: Ints, bounds: Sequence[int]) -> Pieces:
    ages = len(bounds)
    # A touch enters age class a at its time plus the bound before, and leaves the class before at the same moment.
    moments = (batch.times[:, None] + np.array([0, *bounds], dtype=np.int64)).ravel()
    journeys = np.repeat(batch.journey_of_touch, ages + 1)
    order = np.lexsort((moments, journeys))
    since, journey = moments[order], journeys[order]
    # At one moment all changes are one: a cut is a distinct moment of a journey.
    fresh = np.ones(since.size, dtype=np.bool_)
    fresh[1:] = (since[1:] != since[:-1]) | (journey[1:] != journey[:-1])
    cut_of = np.empty(since.size, dtype=np.int64)
    cut_of[order] = np.cumsum(fresh) - 1
    since, journey = since[fresh], journey[fresh]
    until = np.append(since[1:], 0)
    until[np.append(journey[1:] != journey[:-1], np.ones(min(until.size, 1), dtype=np.bool_))] = np.iinfo(np.int64).max
    watched = watched_until[journey]
    holds = (since < watched) & (until >= watched)
    until = np.minimum(until, watched)
    kept = until > since
    offsets, words = _held(batch, cut_of.reshape(-1, ages + 1), kept)
    exposures, rows = distinct_rows(offsets, words)
    at_end = np.full(len(batch), -1, dtype=np.int64)
    at_end[journey[holds]] = rows[holds[kept]]
    return Pieces(exposures, rows, journey[kept], since[kept], until[kept], at_end)


def _held(batch: JourneyBatch, cuts: Ints, kept: Flags) -> tuple[Ints, Ints]:
    """Return what is held in each kept piece: offsets and words of compressed rows.

    Args:
        batch: m touches.
        cuts: int64[m, A + 1], the cut at which each touch enters each age class, and behind them where it grows out.
        kept: bool[c], the cuts at which a piece begins that is of use.
    """
    ages = cuts.shape[1] - 1
    cells = (batch.channels.astype(np.int64)[:, None] * ages + np.arange(ages)).ravel()
    journeys = np.repeat(batch.journey_of_touch, ages)
    changes = np.repeat(np.array([1, -1], dtype=np.int64), cells.size)
    at = np.concatenate((cuts[:, :-1].ravel(), cuts[:, 1:].ravel()))
    cells, journeys = np.tile(cells, 2), np.tile(journeys, 2)
    order = np.lexsort((at, cells, journeys))
    at, cells = at[order], cells[order]
    # Every cell of a journey ends with all its touches grown out, so the running sum starts at 0 in the next one.
    touches = np.minimum(np.cumsum(changes[order]), MAX_REPEATS)
    before: Ints = np.concatenate(([0], np.cumsum(kept, dtype=np.int64))).astype(
        np.int64
    )  # kept pieces before each cut
    begin, end = before[at], before[np.append(at[1:], at[-1:])]
    some = np.flatnonzero((touches > 0) & (end > begin))
    begin, numbers = begin[some], (end - begin)[some]
    first = np.cumsum(numbers) - numbers
    rows = np.repeat(begin - first, numbers) + np.arange(int(numbers.sum()))
    return sorted_words(rows, np.repeat(words_of(cells[some], touches[some]), numbers), int(before[-1]))
