"""The rare sets of channels of a state, summed up, so that the table of sets has a bound.

How many journeys had just this set of channels is needed for pairs of channels alone. All else that a state says of
sets (simplified Shapley values and their errors, how many conversions a channel is in, all totals) follows from one sum
per size of the set, and one per size and channel: these are kept, so it stays exact.

Invariant: kept sets and others together are the counts of all journeys. Which sets are kept depends on the counts of
*all* journeys, so a bounded state is an end: it can be neither added to nor taken from (bound last, keep the whole).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from attributary.attribution_core.domain.limits import whole_number

Entry = tuple[int, int, int]  # conversions, nulls, value in micros
SetCounts = dict[tuple[str, ...], Entry]
SET_LIMIT = 50_000
"""Sets that a stored state keeps: some two megabytes of JSON."""


@dataclass(frozen=True)
class OtherSets:
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
    def of(cls, rare: Iterable[tuple[tuple[str, ...], Entry]]) -> OtherSets:
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
    def from_document(cls, document: Mapping[str, Any], names: tuple[str, ...]) -> OtherSets:
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


def split(sets: SetCounts, limit: int) -> tuple[SetCounts, OtherSets]:
    """Keep the `limit` most frequent sets, of equally frequent ones those whose names come first; sum up the others.

    Journeys without any touch are always kept: they have no channel.
    """
    if len(sets) <= limit:
        return sets, OtherSets()
    ordered = sorted(sets, key=lambda names: (len(names) > 0, -sets[names][0] - sets[names][1], names))
    kept = {names: sets[names] for names in ordered[:limit]}
    return kept, OtherSets.of((names, sets[names]) for names in ordered[limit:])


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
