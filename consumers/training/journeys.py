"""From timelines of people to finished journeys: pure.

A touchpoint of a person is in one of four places (touchpoints of robots are never read):

- *in converted journeys*: it counts for a conversion under the policy that the conversion pins, exactly as the
  attributor credits it. It is in the journey of every conversion that it counts for. A conversion without any is a
  converted journey without touches.
- *passed over*: it counts for none, but the person converted within the inactivity time after it: it came too late, or
  the policy gives its channel or interaction a shorter window. It says nothing about people without a conversion.
- *in a journey without conversion*: it is in neither of the first two. Such touches of a person, in the order of time,
  are cut where a conversion lies between two of them or where one came more than the inactivity time after the other;
  each piece is a journey.
- *open*: its piece is the person's last, the person is not closed, and is not known to have been silent for longer than
  the inactivity time: the journey may still convert.

Invariant: the journeys are a function of the timelines and the rules alone; cutting the timelines into chunks of whole
people in another way gives the same journeys. Work and memory are bounded per person: a person with more than
`MAX_PERSON_PAIRS` pairs is left out, and counted.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter

import numpy as np

from attributary.attribution_core.domain.journeys import ChannelIndex, Flags, Ints, JourneyBatch
from attributary.attribution_core.domain.lookback import LookbackPolicy
from attributary.consumers.store.models.timelines import TimelineRow

from .name_limits import NameLimit

MAX_PERSON_PAIRS = 100_000
"""Pairs of a conversion and a touch in its longest window, of one person: with more the person is left out."""
_MAX_PAIRS = 2_000_000  # conversions x touches of the people of a part, unless it is one person


class UnknownPolicyError(LookupError):
    """A conversion pins a lookback policy that is not stored."""


@dataclass(frozen=True, slots=True)
class FinishRules:
    """When a journey is finished, and which of them to take.

    Attributes:
        policies: lookback policies by version; every conversion's must be there.
        inactivity_micros: silence after which a journey without conversion is over, microseconds.
        since: take journeys that end at or after it, microseconds UTC; None: from the beginning.
        until: take journeys that end before it, microseconds UTC; None: to the end.
        conversion_types: take converted journeys of these types; the others are as if they had not happened. None: all.
    """

    policies: Mapping[str, LookbackPolicy]
    inactivity_micros: int
    since: int | None = None
    until: int | None = None
    conversion_types: frozenset[str] | None = None

    def takes(self, ends: Ints) -> Flags:
        """Tell which journeys end inside the window."""
        taken = np.ones(ends.size, dtype=np.bool_)
        if self.since is not None:
            taken &= ends >= self.since
        if self.until is not None:
            taken &= ends < self.until
        return taken


@dataclass(frozen=True, eq=False)
class FinishedJourneys:
    """The finished journeys of some people.

    Attributes:
        converted: journeys that ended in a conversion, which ends them.
        conversions: the conversion of each.
        touches: the touchpoint behind each touch of `converted`.
        nulls: journeys without conversion; the last touch ends them.
        null_touches: the touchpoint behind each touch of `nulls`.
        open_rows: touches of journeys that are not finished.
        passed_over_rows: touches that count for no conversion although one followed.
        people: number of people.
        left_out: of these, people with too many pairs of conversions and touches: none of their journeys is here.
    """

    converted: JourneyBatch
    conversions: Sequence[TimelineRow]
    touches: Sequence[TimelineRow]
    nulls: JourneyBatch
    null_touches: Sequence[TimelineRow]
    open_rows: Sequence[TimelineRow]
    passed_over_rows: Sequence[TimelineRow]
    people: int
    left_out: int = 0

    @property
    def open_touches(self) -> int:
        """Number of touches of journeys that are not finished."""
        return len(self.open_rows)

    @property
    def passed_over(self) -> int:
        """Number of touches that count for no conversion although one followed."""
        return len(self.passed_over_rows)


@dataclass(frozen=True, eq=False)
class _Touches:
    """The touchpoints of a chunk as arrays, by person, then time, then event id."""

    rows: Sequence[TimelineRow]
    times: Ints
    person: Ints
    channels: np.ndarray[tuple[int], np.dtype[np.int32]]
    index: ChannelIndex

    def batch(self, places: Ints, starts: Ints, ends_at: Ints) -> JourneyBatch:
        """Return the journeys of the touches at `places`; journey ``j`` begins at ``starts[j]`` of them."""
        channels = self.channels[places]
        return JourneyBatch(
            offsets=np.append(starts, places.size).astype(np.int64),
            channels=channels,
            times=self.times[places],
            converted_at=ends_at,
            direct=self.index.direct(channels),
            index=self.index,
        )


@dataclass(frozen=True, eq=False)
class _Reach:
    """For each conversion, places of the person's touches.

    Attributes:
        low: first touch in the longest window before it.
        warned: first touch within the inactivity time before it.
        high: first touch after it.
    """

    low: Ints
    warned: Ints
    high: Ints


def parts_of_people(rows: Sequence[TimelineRow], max_pairs: int = _MAX_PAIRS) -> Iterator[Sequence[TimelineRow]]:
    """Split the timelines of whole people into parts of bounded work.

    Args:
        rows: a chunk of `stream_timelines`.
        max_pairs: a part has at most so many conversions times touches, summed over people, or one person.
    """
    start, stop, pairs = 0, 0, 0
    for _, timeline in groupby(rows, attrgetter("journey_key")):
        is_conversion = [row.is_conversion for row in timeline]
        conversions = sum(is_conversion)
        more = conversions * (len(is_conversion) - conversions)
        if pairs + more > max_pairs and stop > start:
            yield rows[start:stop]
            start, pairs = stop, 0
        pairs += more
        stop += len(is_conversion)
    if stop > start:
        yield rows[start:stop] if start else rows


def pooled(batch: JourneyBatch, limit: NameLimit) -> JourneyBatch:
    """Return journeys with the channels beyond a limit as "(other)"; direct stays direct."""
    if limit.kept is None:
        return batch
    names = limit.names(batch.index.names)
    index = ChannelIndex.of(names)
    return replace(batch, channels=index.encode(names)[batch.channels], index=index)


def finished_journeys(rows: Sequence[TimelineRow], rules: FinishRules) -> FinishedJourneys:
    """Cut the timelines of whole people into finished journeys.

    Args:
        rows: as `stream_timelines` yields them.
        rules: what counts and when a journey is over.

    Raises:
        UnknownPolicyError: a conversion pins a policy that the rules do not have.
    """
    person_of = {key: number for number, key in enumerate(dict.fromkeys(row.journey_key for row in rows))}
    touches = _touches([row for row in rows if not row.is_conversion], person_of)
    wanted = rules.conversion_types
    conversions = [row for row in rows if row.is_conversion and (wanted is None or row.kind in wanted)]
    reach = _reach(touches, conversions, person_of, rules)
    if crowded := _crowded(conversions, reach):
        found = finished_journeys([row for row in rows if row.journey_key not in crowded], rules)
        return replace(found, people=len(person_of), left_out=len(crowded))
    conversion_of, place_of = _counting_pairs(touches, conversions, reach, rules)
    nulls, null_places, open_places, passed_over = _nulls(touches, reach, place_of, rules)

    ends = np.fromiter((row.at for row in conversions), np.int64, len(conversions))
    taken = rules.takes(ends)
    kept = taken[conversion_of]
    counts = np.bincount(conversion_of[kept], minlength=len(conversions))[taken]
    starts = (np.cumsum(counts) - counts).astype(np.int64)
    places = place_of[kept]
    return FinishedJourneys(
        converted=touches.batch(places, starts, ends[taken]),
        conversions=[row for row, take in zip(conversions, taken.tolist(), strict=True) if take],
        touches=[touches.rows[place] for place in places.tolist()],
        nulls=nulls,
        null_touches=[touches.rows[place] for place in null_places.tolist()],
        open_rows=[touches.rows[place] for place in open_places.tolist()],
        passed_over_rows=[touches.rows[place] for place in passed_over.tolist()],
        people=len(person_of),
    )


def _touches(rows: Sequence[TimelineRow], person_of: Mapping[str, int]) -> _Touches:
    names = [row.kind for row in rows]
    index = ChannelIndex.of(names)
    return _Touches(
        rows,
        np.fromiter((row.at for row in rows), np.int64, len(rows)),
        np.fromiter((person_of[row.journey_key] for row in rows), np.int64, len(rows)),
        index.encode(names),
        index,
    )


def _reach(
    touches: _Touches, conversions: Sequence[TimelineRow], person_of: Mapping[str, int], rules: FinishRules
) -> _Reach:
    bounds = np.searchsorted(touches.person, np.arange(len(person_of) + 1)).tolist()
    times = touches.times.tolist()
    places = np.empty((3, len(conversions)), dtype=np.int64)
    for number, row in enumerate(conversions):
        policy = rules.policies.get(row.detail)
        if policy is None:
            raise UnknownPolicyError(f"lookback policy {row.detail} is pinned by a conversion and not stored")
        person = person_of[row.journey_key]
        start, stop = bounds[person], bounds[person + 1]
        high = bisect_right(times, row.at, start, stop)
        places[0, number] = bisect_left(times, row.at - policy.longest_window_micros, start, high)
        places[1, number] = bisect_left(times, row.at - rules.inactivity_micros, start, high)
        places[2, number] = high
    return _Reach(places[0], places[1], places[2])


def _crowded(conversions: Sequence[TimelineRow], reach: _Reach) -> set[str]:
    """Return the journey keys of people with too many pairs."""
    lengths = reach.high - reach.low
    if int(lengths.sum()) <= MAX_PERSON_PAIRS:
        return set()
    pairs: Counter[str] = Counter()
    for row, number in zip(conversions, lengths.tolist(), strict=True):
        pairs[row.journey_key] += number
    return {key for key, number in pairs.items() if number > MAX_PERSON_PAIRS}


def _counting_pairs(
    touches: _Touches, conversions: Sequence[TimelineRow], reach: _Reach, rules: FinishRules
) -> tuple[Ints, Ints]:
    """Return (conversion, place of the touch) for every touch that counts, by conversion, then time."""
    lengths = reach.high - reach.low
    conversion_of = np.repeat(np.arange(len(conversions), dtype=np.int64), lengths)
    place_of = np.arange(conversion_of.size, dtype=np.int64)
    place_of += np.repeat(reach.low - (np.cumsum(lengths) - lengths), lengths)
    converted_at = np.fromiter((row.at for row in conversions), np.int64, len(conversions))
    arrived_at = np.fromiter((row.received_at for row in conversions), np.int64, len(conversions))
    received_at = np.fromiter((row.received_at for row in touches.rows), np.int64, len(touches.rows))
    ages = converted_at[conversion_of] - touches.times[place_of]
    delays = received_at[place_of] - arrived_at[conversion_of]

    # Windows depend on a few kinds of touches and conversions only: resolve each combination once.
    touch_kinds, touch_kind = _kinds([(row.kind, row.detail) for row in touches.rows])
    conversion_kinds, conversion_kind = _kinds([(row.detail, row.kind) for row in conversions])
    counts = np.zeros(conversion_of.size, dtype=np.bool_)
    no_robot = np.zeros(1, dtype=np.bool_)
    kind_of = conversion_kind[conversion_of]
    order = np.argsort(kind_of, kind="stable")
    bounds = np.searchsorted(kind_of[order], np.arange(len(conversion_kinds) + 1)).tolist()
    for (version, conversion_type), low, high in zip(conversion_kinds, bounds[:-1], bounds[1:], strict=True):
        policy, pairs = rules.policies[version], order[low:high]
        met, of_pair = np.unique(touch_kind[place_of[pairs]], return_inverse=True)
        kinds = [touch_kinds[kind] for kind in met.tolist()]
        windows = np.array(
            [policy.window_micros(channel, conversion_type, how) for channel, how in kinds], dtype=np.int64
        )
        counts[pairs] = policy.counts_many(ages[pairs], windows[of_pair], delays[pairs], no_robot)
    return conversion_of[counts], place_of[counts]


def _kinds(pairs: Sequence[tuple[str, str]]) -> tuple[list[tuple[str, str]], Ints]:
    """Return the distinct pairs and the place of each pair among them."""
    known: dict[tuple[str, str], int] = {}
    codes = np.fromiter((known.setdefault(pair, len(known)) for pair in pairs), np.int64, len(pairs))
    return list(known), codes


def _nulls(
    touches: _Touches, reach: _Reach, counted: Ints, rules: FinishRules
) -> tuple[JourneyBatch, Ints, Ints, Ints]:
    """Return the journeys without conversion, and the places of touches in them, in open ones, and passed over."""
    size = touches.times.size
    counts = np.zeros(size, dtype=np.bool_)
    counts[counted] = True
    edges = np.zeros(size + 1, dtype=np.int64)
    np.add.at(edges, reach.warned, 1)
    np.add.at(edges, reach.high, -1)
    converts_soon = np.cumsum(edges[:-1]) > 0
    before = np.cumsum(np.bincount(reach.high, minlength=size + 1)[:size])  # conversions before each touch
    places = np.flatnonzero(~counts & ~converts_soon).astype(np.int64)
    passed_over = np.flatnonzero(~counts & converts_soon).astype(np.int64)
    if not places.size:
        return touches.batch(places, np.zeros(0, np.int64), np.zeros(0, np.int64)), places, places, passed_over

    times, person = touches.times[places], touches.person[places]
    cuts = np.diff(person) != 0
    cuts |= np.diff(before[places]) != 0
    cuts |= np.diff(times) > rules.inactivity_micros
    starts = np.concatenate(([0], np.flatnonzero(cuts) + 1)).astype(np.int64)
    stops = np.append(starts[1:], places.size)
    last = places[stops - 1]
    known_until = np.fromiter((touches.rows[place].known_until for place in last.tolist()), np.int64, last.size)
    is_closed = np.fromiter((touches.rows[place].is_closed for place in last.tolist()), np.bool_, last.size)
    finished = is_closed | (known_until - touches.times[last] > rules.inactivity_micros)
    lengths = stops - starts
    open_places = places[np.repeat(~finished, lengths)]
    taken = finished & rules.takes(touches.times[last])
    kept = places[np.repeat(taken, lengths)]
    lengths = lengths[taken]
    journeys = touches.batch(kept, (np.cumsum(lengths) - lengths).astype(np.int64), touches.times[last[taken]])
    return journeys, kept, open_places, passed_over
