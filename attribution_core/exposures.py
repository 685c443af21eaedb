"""Time under exposure and conversions in it: the additive counts of the time-aware model.

The history of a person is cut wherever a touch happens or grows older than an age bound. In each piece the number of
touches of every channel and age class is constant: its *exposure*. Pieces with equal exposure are added up, in whole
microseconds and whole conversions.

Invariant: counts are sums over journeys, so parts may be counted apart and added, and a journey that went on is
retracted and added again. A journey that is still open counts with the time it was watched: no outcome is invented.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attributary.attribution_core.journeys import ChannelIndex, Ints, JourneyBatch, JourneyError

MICROS_PER_DAY = 86_400_000_000
# A touch matters most on its day, and no longer than the default lookback window.
AGE_BOUNDS: tuple[int, ...] = (MICROS_PER_DAY, 7 * MICROS_PER_DAY, 30 * MICROS_PER_DAY)
MAX_REPEATS = 5  # more touches of one class than this say nothing new, and keep the exponent within bounds
SCHEMA_VERSION = 1
_KIND = "attributary.exposure-counts"
_CELLS = 1 << 22

Rows = NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Pieces:
    """The pieces of the histories of a batch, with their journeys.

    Attributes:
        exposures: int8[R, K * A], distinct exposures; column ``channel * A + age class``.
        exposure: int64[p], the row of each piece.
        journey: int64[p], its journey.
        micros: int64[p], its length, microseconds.
        at_end: int64[n], the row that held when the journey ended; -1 for a journey without touches.
    """

    exposures: Rows
    exposure: Ints
    journey: Ints
    micros: Ints
    at_end: Ints


@dataclass(frozen=True, eq=False)
class ExposureCounts:
    """Watched time and conversions by exposure.

    Attributes:
        index: the channels.
        bounds: upper ends of the age classes, microseconds, ascending.
        exposures: int8[R, K * A], distinct, in lexicographic order.
        micros: int64[R], time watched under the exposure.
        conversions: int64[R], conversions that happened under it.
    """

    index: ChannelIndex
    bounds: tuple[int, ...]
    exposures: Rows
    micros: Ints
    conversions: Ints

    @classmethod
    def fit(
        cls, batch: JourneyBatch, converted: Ints, watched_until: Ints, bounds: Sequence[int] = AGE_BOUNDS
    ) -> "ExposureCounts":
        """Count single journeys.

        Args:
            batch: journeys.
            converted: int64[n], 1 where the journey ended in a conversion, else 0.
            watched_until: int64[n], when watching ended: the conversion, or as far as the data reach; microseconds UTC.
            bounds: of the age classes, microseconds.
        """
        found = pieces(batch, watched_until, bounds)
        micros = np.zeros(found.exposures.shape[0], dtype=np.int64)
        np.add.at(micros, found.exposure, found.micros)
        conversions = np.zeros_like(micros)
        ended = found.at_end >= 0
        np.add.at(conversions, found.at_end[ended], converted[ended])
        return _merged(cls(batch.index, tuple(bounds), found.exposures, micros, conversions), None)

    @classmethod
    def observe(
        cls,
        people: JourneyBatch,
        conversions: JourneyBatch,
        since: int,
        until: int,
        bounds: Sequence[int] = AGE_BOUNDS,
    ) -> "ExposureCounts":
        """Count people who are watched from `since`, or their first touch, to `until`, and may convert repeatedly.

        Args:
            people: all touches of each person.
            conversions: the touches before each conversion, in the same index; those without touches are not counted.
            since: begin of watching, microseconds UTC.
            until: end of watching, whether somebody converted or not.
            bounds: of the age classes, microseconds.
        """
        none = np.zeros(len(people), dtype=np.int64)
        watched = cls.fit(people, none, np.full(len(people), until, dtype=np.int64), bounds)
        before = cls.fit(people, none, np.full(len(people), since, dtype=np.int64), bounds)
        found = pieces(conversions, conversions.converted_at, bounds)
        ended = np.bincount(found.at_end[found.at_end >= 0], minlength=found.exposures.shape[0]).astype(np.int64)
        events = cls(people.index, tuple(bounds), found.exposures, np.zeros_like(ended), ended)
        return watched.subtract(before).add(events)

    def conversions_with(self) -> Ints:
        """Return the conversions under an exposure to each channel, int64[K]."""
        exposed = self.exposures.reshape(len(self.exposures), len(self.index), len(self.bounds)).any(axis=2)
        found: Ints = self.conversions @ exposed.astype(np.int64)
        return found

    def add(self, other: "ExposureCounts") -> "ExposureCounts":
        """Return the counts of both; associative and commutative."""
        return _merged(self, other)

    def subtract(self, other: "ExposureCounts") -> "ExposureCounts":
        """Return the counts without those of the other.

        Raises:
            JourneyError: when the other holds what was never added.
        """
        left = _merged(
            self, ExposureCounts(other.index, other.bounds, other.exposures, -other.micros, -other.conversions)
        )
        if bool((left.micros < 0).any() or (left.conversions < 0).any()):
            raise JourneyError("exposures: more was retracted than had been added")
        return left

    def to_document(self) -> dict[str, Any]:
        """Return a JSON-able document: the same counts give the same document."""
        return {
            "kind": _KIND,
            "schema": SCHEMA_VERSION,
            "channels": list(self.index.names),
            "bounds": list(self.bounds),
            "exposures": self.exposures.tolist(),
            "micros": self.micros.tolist(),
            "conversions": self.conversions.tolist(),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "ExposureCounts":
        """Read what `to_document` wrote.

        Raises:
            JourneyError: when the document is of another kind or schema version, or damaged.
        """
        if document.get("kind") != _KIND or document.get("schema") != SCHEMA_VERSION:
            raise JourneyError(f"exposures: expected {_KIND} of schema {SCHEMA_VERSION}")
        try:
            index = ChannelIndex.of(document["channels"])
            bounds = tuple(int(bound) for bound in document["bounds"])
            rows = np.array(document["exposures"], dtype=np.int8).reshape(-1, len(index) * len(bounds))
            micros, conversions = (np.array(document[part], dtype=np.int64) for part in ("micros", "conversions"))
        except (KeyError, TypeError, OverflowError, ValueError) as error:
            raise JourneyError(f"exposures: damaged document ({error})") from error
        if not len(rows) == micros.size == conversions.size or list(index.names) != document["channels"]:
            raise JourneyError("exposures: damaged document (lengths or order)")
        return cls(index, bounds, rows, micros, conversions)


def pieces(batch: JourneyBatch, watched_until: Ints, bounds: Sequence[int] = AGE_BOUNDS) -> Pieces:
    """Cut the histories of a batch into pieces of constant exposure, some journeys at a time."""
    if watched_until.size != len(batch):
        raise JourneyError("watched_until: must have one entry per journey")
    columns = len(batch.index) * len(bounds)
    if len(batch) == 0:
        none = np.zeros(0, dtype=np.int64)
        return Pieces(np.zeros((0, columns), dtype=np.int8), none, none, none, none)
    cuts = np.maximum(batch.lengths, 1) * (len(bounds) + 1) * max(columns, 1)
    groups = np.cumsum(cuts) // _CELLS
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    parts = [
        _pieces(batch.slice(low, high), watched_until[low:high], bounds)
        for low, high in zip(starts.tolist(), [*starts[1:].tolist(), len(batch)], strict=True)
    ]
    stacked = np.concatenate([part.exposures for part in parts])
    exposures, places = distinct_rows(stacked)
    shift = np.cumsum([0, *(part.exposures.shape[0] for part in parts)])
    at_end = []
    for part, low in zip(parts, shift.tolist(), strict=False):
        held = part.at_end.copy()
        held[held >= 0] = places[held[held >= 0] + low]
        at_end.append(held)
    return Pieces(
        exposures,
        np.concatenate([places[part.exposure + low] for part, low in zip(parts, shift, strict=False)]),
        np.concatenate([part.journey + low for part, low in zip(parts, starts, strict=True)]),
        np.concatenate([part.micros for part in parts]),
        np.concatenate(at_end),
    )


def distinct_rows(rows: Rows) -> tuple[Rows, Ints]:
    """Return the distinct rows in lexicographic order, and the place of each row among them."""
    if rows.shape[0] == 0 or rows.shape[1] == 0:
        return rows[: min(rows.shape[0], 1)], np.zeros(rows.shape[0], dtype=np.int64)
    keys = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.shape[1])))[:, 0]
    _, first, places = np.unique(keys, return_index=True, return_inverse=True)
    return rows[first], places.astype(np.int64)


def _pieces(batch: JourneyBatch, watched_until: Ints, bounds: Sequence[int]) -> Pieces:
    ages = len(bounds)
    touches = batch.channels.size
    columns = len(batch.index) * ages
    # A touch enters age class a at its time plus the bound before, and leaves the class before at the same moment.
    shifts = np.array([0, *bounds], dtype=np.int64)
    moments = (batch.times[:, None] + shifts).ravel()
    journeys = np.repeat(batch.journey_of_touch, ages + 1)
    ages_entered = np.tile(np.arange(ages + 1), touches)
    channel = np.repeat(batch.channels.astype(np.int64), ages + 1)
    # At one moment all changes are one; conversions at the moment of a touch see the touch.
    order = np.lexsort((moments, journeys))
    moments, journeys, ages_entered, channel = (part[order] for part in (moments, journeys, ages_entered, channel))
    changes = np.zeros((moments.size, columns), dtype=np.int16)
    place = np.arange(moments.size)
    enters, leaves = ages_entered < ages, ages_entered > 0
    changes[place[enters], (channel * ages + ages_entered)[enters]] += 1
    changes[place[leaves], (channel * ages + ages_entered - 1)[leaves]] -= 1
    # Every journey ends with all its touches grown out, so the running sum starts at 0 in the next one.
    running = np.cumsum(changes, axis=0, dtype=np.int16)
    np.minimum(running, MAX_REPEATS, out=running)
    until = watched_until[journeys]
    following = np.append(moments[1:], 0)
    final = np.append(journeys[1:] != journeys[:-1], True) if moments.size else np.zeros(0, dtype=np.bool_)
    following[final] = np.iinfo(np.int64).max
    length = np.minimum(following, until) - moments
    exposures, rows = distinct_rows(running.astype(np.int8))
    holds = (moments <= until) & (following > until)
    at_end = np.full(len(batch), -1, dtype=np.int64)
    at_end[journeys[holds]] = rows[holds]
    kept = length > 0
    return Pieces(exposures, rows[kept], journeys[kept], length[kept], at_end)


def _merged(one: ExposureCounts, two: ExposureCounts | None) -> ExposureCounts:
    parts = [one] if two is None else [one, two]
    if len({part.bounds for part in parts}) > 1:
        raise JourneyError("exposures: age bounds differ")
    index = ChannelIndex.of(name for part in parts for name in part.index.names)
    ages = len(one.bounds)
    wide = []
    for part in parts:
        rows = np.zeros((part.exposures.shape[0], len(index), ages), dtype=np.int8)
        rows[:, part.index.translation(index)] = part.exposures.reshape(len(part.exposures), len(part.index), ages)
        wide.append(rows.reshape(len(part.exposures), len(index) * ages))
    exposures, places = distinct_rows(np.concatenate(wide))
    micros = np.zeros(exposures.shape[0], dtype=np.int64)
    conversions = np.zeros_like(micros)
    np.add.at(micros, places, np.concatenate([part.micros for part in parts]))
    np.add.at(conversions, places, np.concatenate([part.conversions for part in parts]))
    kept = (micros != 0) | (conversions != 0)
    return ExposureCounts(index, one.bounds, exposures[kept], micros[kept], conversions[kept])
