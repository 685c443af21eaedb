"""The set of channels of each journey, counts by set, and the overflow of a bounded table of sets.

Simplified Shapley values and support counts rest on these sets. The number of journeys with exactly one set is needed
for pairs of channels alone. Everything else (Shapley values and their errors, support, totals) follows from one sum per
size of the set, and one per size and channel. `SetOverflow` keeps these sums, so they stay exact.

Invariants: the set of a journey does not depend on the order or the repeats of its touches. Kept sets and overflow
together are the counts of all journeys. Which sets are kept depends on the counts of *all* journeys, so a bounded state
can be neither added to nor taken from: bound last, keep the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from attributary.attribution_core.domain.journeys import Floats, Ints, JourneyBatch
from attributary.attribution_core.domain.limits import whole_number

_MASK_BITS = 63
_CELLS = 1 << 22  # bounds the working memory of a journey x channel table to some tens of megabytes


@dataclass(frozen=True, eq=False)
class DistinctSets:
    """The distinct sets of channels of a batch.

    Attributes:
        members: ascending channel codes of each set.
        set_of_journey: int64[n], the place of each journey's set in `members`.
    """

    members: list[tuple[int, ...]]
    set_of_journey: Ints


def distinct_sets(batch: JourneyBatch) -> DistinctSets:
    """Find the distinct sets of channels of a batch."""
    if len(batch.index) <= _MASK_BITS:
        return _by_masks(batch)
    return _by_bytes(batch)


def channels_of_journeys(batch: JourneyBatch) -> tuple[Ints, Ints]:
    """Return the pairs of journey and channel that occur, each once, in order: two arrays int64[p]."""
    channels = len(batch.index)
    step = max(_CELLS // max(channels, 1), 1)
    parts = [np.zeros(0, dtype=np.int64)]
    for start in range(0, len(batch), step):
        stop = min(start + step, len(batch))
        low, high = int(batch.offsets[start]), int(batch.offsets[stop])
        table = np.zeros((stop - start) * channels, dtype=np.bool_)
        table[(batch.journey_of_touch[low:high] - start) * channels + batch.channels[low:high]] = True
        parts.append(np.flatnonzero(table) + start * channels)
    journey, channel = np.divmod(np.concatenate(parts), max(channels, 1))
    return journey, channel


def set_shares(batch: JourneyBatch) -> Floats:
    """Return the per-journey simplified Shapley credit of each touch, float64[m].

    Each distinct channel of a journey gets ``1 / number of distinct channels``, split equally over its touches (Zhao,
    Mahboobi, Bagheri 2018, arXiv 1804.05327: the exact Shapley value of "all channels of the journey were needed").
    """
    channels = len(batch.index)
    if channels == 0:
        return np.zeros(0, dtype=np.float64)
    shares = np.empty(batch.channels.size, dtype=np.float64)
    step = max(_CELLS // channels, 1)
    for start in range(0, len(batch), step):
        stop = min(start + step, len(batch))
        low, high = int(batch.offsets[start]), int(batch.offsets[stop])
        cells = (batch.journey_of_touch[low:high] - start) * channels + batch.channels[low:high]
        repeats = np.bincount(cells, minlength=(stop - start) * channels)
        distinct = np.count_nonzero(repeats.reshape(stop - start, channels), axis=1)
        shares[low:high] = 1.0 / (repeats[cells] * np.repeat(distinct, batch.lengths[start:stop]))
    return shares


def _by_masks(batch: JourneyBatch) -> DistinctSets:
    masks = np.zeros(len(batch), dtype=np.int64)
    filled = np.flatnonzero(batch.lengths)
    if filled.size:
        bits = np.int64(1) << batch.channels.astype(np.int64)
        masks[filled] = np.bitwise_or.reduceat(bits, batch.offsets[filled])
    distinct, places = np.unique(masks, return_inverse=True)
    members = [_bits_of(int(mask)) for mask in distinct]
    return DistinctSets(members, places.astype(np.int64))


def _bits_of(mask: int) -> tuple[int, ...]:
    codes = []
    while mask:
        lowest = mask & -mask
        codes.append(lowest.bit_length() - 1)
        mask ^= lowest
    return tuple(codes)


def _by_bytes(batch: JourneyBatch) -> DistinctSets:
    """Do as `_by_masks` does, for more channels than a mask has bits: through packed rows, some at a time."""
    channels = len(batch.index)
    step = max(_CELLS // channels, 1)
    known: dict[bytes, int] = {}
    places = np.empty(len(batch), dtype=np.int64)
    for start in range(0, len(batch), step):
        stop = min(start + step, len(batch))
        low, high = int(batch.offsets[start]), int(batch.offsets[stop])
        table = np.zeros((stop - start, channels), dtype=np.bool_)
        table[batch.journey_of_touch[low:high] - start, batch.channels[low:high]] = True
        packed = np.packbits(table, axis=1)
        rows = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1])))[:, 0]
        distinct, inverse = np.unique(rows, return_inverse=True)
        numbers = [known.setdefault(row.tobytes(), len(known)) for row in distinct]
        places[start:stop] = np.array(numbers, dtype=np.int64)[inverse]
    members = [
        tuple(np.flatnonzero(np.unpackbits(np.frombuffer(row, dtype=np.uint8), count=channels)).tolist())
        for row in known
    ]
    return DistinctSets(members, places)


Entry = tuple[int, int, int]  # conversions, nulls, value in micros
SetCounts = dict[tuple[str, ...], Entry]
SET_LIMIT = 50_000
"""Sets that a stored state keeps: some two megabytes of JSON."""


@dataclass(frozen=True)
class SetOverflow:
    """Sums over the sets that are not kept one by one.

    Attributes:
        sets: how many they are.
        by_size: number of channels of the set to sums over all sets of that size.
        by_channel: number of channels and name to sums over the sets of that size with that channel.
    """

    sets: int = 0
    by_size: Mapping[int, Entry] = field(default_factory=dict)
    by_channel: Mapping[tuple[int, str], Entry] = field(default_factory=dict)

    @classmethod
    def of(cls, rare: Iterable[tuple[tuple[str, ...], Entry]]) -> SetOverflow:
        """Sum up sets with their counts."""
        number = 0
        by_size: dict[int, Entry] = {}
        by_channel: dict[tuple[int, str], Entry] = {}
        for names, entry in rare:
            number += 1
            size = len(names)
            by_size[size] = _sum(by_size.get(size, (0, 0, 0)), entry)
            for name in names:
                by_channel[size, name] = _sum(by_channel.get((size, name), (0, 0, 0)), entry)
        return cls(number, by_size, by_channel)

    def total(self, part: int) -> int:
        """Return all conversions (part 0), journeys without (1) or value (2) of them."""
        return sum(entry[part] for entry in self.by_size.values())

    def to_document(self, codes: Mapping[str, int]) -> dict[str, Any]:
        """Return a JSON-able document, with channels by their codes."""
        by_channel = sorted((size, codes[name], *entry) for (size, name), entry in self.by_channel.items())
        return {
            "sets": self.sets,
            "by_size": [[size, *self.by_size[size]] for size in sorted(self.by_size)],
            "by_channel": [list(row) for row in by_channel],
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any], names: tuple[str, ...]) -> SetOverflow:
        """Read what `to_document` wrote.

        Raises:
            ValueError: when it is damaged, and other errors of reading plain values; the text names the place.
        """
        by_size: dict[int, Entry] = {}
        for size, *counts in document["by_size"]:
            place = f"others.by_size of {size!r}"
            if whole_number(size, place, 0) in by_size:
                raise ValueError(f"{place}: twice")
            by_size[size] = entry_of(counts, place)
        by_channel: dict[tuple[int, str], Entry] = {}
        sums: dict[int, Entry] = {}
        for size, code, *counts in document["by_channel"]:
            place = f"others.by_channel of {size!r}, {code!r}"
            if not 0 <= whole_number(code, place) < len(names):
                raise ValueError(f"{place}: no channel has this code")
            if (whole_number(size, place, 1), names[code]) in by_channel:
                raise ValueError(f"{place}: twice")
            by_channel[size, names[code]] = entry = entry_of(counts, place)
            sums[size] = _sum(sums.get(size, (0, 0, 0)), entry)
        # a set of three channels is counted with each of them
        wanted = {size: (size * entry[0], size * entry[1], size * entry[2]) for size, entry in by_size.items() if size}
        if sums != wanted:
            raise ValueError("others: by_size and by_channel differ")
        return cls(whole_number(document["sets"], "others.sets", 1), by_size, by_channel)


def split(sets: SetCounts, limit: int) -> tuple[SetCounts, SetOverflow]:
    """Keep the `limit` most frequent sets, of equally frequent ones the first by name; sum up the others.

    Journeys without any touch are always kept: they have no channel.
    """
    if len(sets) <= limit:
        return sets, SetOverflow()
    ordered = sorted(sets, key=lambda names: (len(names) > 0, -sets[names][0] - sets[names][1], names))
    kept = {names: sets[names] for names in ordered[:limit]}
    return kept, SetOverflow.of((names, sets[names]) for names in ordered[limit:])


def _sum(one: Entry, other: Entry) -> Entry:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]


def entry_of(counts: list[Any], place: str) -> Entry:
    """Read conversions, nulls and value of a document.

    Raises:
        ValueError: when they are no three whole numbers, or a count is negative.
    """
    if len(counts) != 3:  # an Entry
        raise ValueError(f"{place}: conversions, nulls and value are needed")
    return whole_number(counts[0], place, 0), whole_number(counts[1], place, 0), whole_number(counts[2], place)
