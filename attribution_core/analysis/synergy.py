"""Do journeys with two channels convert more often than the journeys with one of them make expect?

Two channels are *independent* if to fail to convert with both is to fail with each: ``q11 q00 = q10 q01``, where
``q`` is the share without conversion of the journeys with both, one or neither of them, *all else equal*. All else is
the set of the other channels: the four rates are compared only among journeys with the same other channels, as
Mantel and Haenszel (1959) do, and summed up over these sets. So two channels that both occur in long journeys are not
taken for a synergy.

Invariant: journeys with neither channel and no other one are compared only if the table holds such journeys without a
conversion. Else it holds journeys with touches only, and a comparison with "no touch at all" would be one with the
journeys that are missing: independent channels would look as a synergy, the surer the more data there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from attributary.attribution_core.domain.journeys import Floats, Ints, JourneyBatch, Outcomes
from attributary.attribution_core.statistics.sets import distinct_sets

_CELLS = 1 << 18  # sets x pairs at a time
_BOTH, _FIRST, _SECOND, _NEITHER = range(4)


@dataclass(frozen=True, eq=False)
class Synergies:
    """The pairs of channels that can be compared.

    Attributes:
        pairs: int64[P, 2], ascending codes.
        difference: float64[P], conversion rate with both less the one that independence gives.
        error: float64[P], its standard error.
        journeys: int64[P], journeys with both that were compared.
        usual_conversions: float64[P], what these would have at the rate of all compared journeys. A limit on it, unlike
            one on their own conversions, does not select pairs that have many conversions by chance.
    """

    pairs: Ints
    difference: Floats
    error: Floats
    journeys: Ints
    usual_conversions: Floats


def synergies(batch: JourneyBatch, outcomes: Outcomes) -> Synergies:
    """Compare all pairs of channels that occur together.

    Per set of other channels ``U = w (q10 q01 - q11 q00)`` has the expectation 0 under independence, however few
    journeys there are, since the four rates are of different journeys; ``w = 1 / (1/n11 + 1/n10 + 1/n01 + 1/n00)``.
    The difference is ``sum U / sum w q00``, its variance that of products of independent shares.
    """
    table = _SetTable(batch, outcomes)
    sums = _Sums(len(batch.index))
    for comparison in table.comparisons():
        sums.count(comparison)
    for comparison in table.comparisons():
        sums.compare(comparison)
    return sums.result()


@dataclass(frozen=True, eq=False)
class _Comparison:
    """Some pairs of channels, each with some set of other ones.

    Attributes:
        first: int64[m], code of the one channel.
        second: int64[m], of the other.
        journeys: float64[4, m], with both, the first, the second, neither; none is 0.
        conversions: float64[4, m], of them.
    """

    first: Ints
    second: Ints
    journeys: Floats
    conversions: Floats


class _SetTable:
    """Journeys and conversions by set of channels, with a way from each set to the one without some channel."""

    def __init__(self, batch: JourneyBatch, outcomes: Outcomes) -> None:
        found = distinct_sets(batch)
        numbers = (outcomes.conversions + outcomes.nulls).astype(np.float64)
        journeys, conversions = (
            np.bincount(found.set_of_journey, part, len(found.members)).astype(np.float64)
            for part in (numbers, outcomes.conversions)
        )
        sizes = np.array([len(codes) for codes in found.members], dtype=np.int64)
        # journeys without touches count only if those without a conversion were counted, too
        kept = np.flatnonzero((journeys > 0) & ((sizes > 0) | (journeys > conversions)))
        # A set is known by the sum of its channels' 64 random bits: two sets share it once in 10^19.
        bits = np.random.Generator(np.random.PCG64(0)).integers(0, 2**64, len(batch.index), dtype=np.uint64)
        keys = np.array([bits[list(found.members[place])].sum(dtype=np.uint64) for place in kept], dtype=np.uint64)
        order = np.argsort(keys)
        self._bits, self._keys, kept = bits, keys[order], kept[order]
        self._members = [found.members[place] for place in kept.tolist()]
        self._sizes = sizes[kept]
        self._journeys: Floats = journeys[kept]
        self._conversions: Floats = conversions[kept]

    def comparisons(self) -> Iterator[_Comparison]:
        """Give every pair of each set once, some at a time, where journeys of all four kinds exist."""
        for size in np.unique(self._sizes[self._sizes > 1]).tolist():
            one, other = np.triu_indices(size, 1)
            of_size = np.flatnonzero(self._sizes == size)
            step = max(_CELLS // one.size, 1)
            for low in range(0, of_size.size, step):
                rows = of_size[low : low + step]
                codes = np.array([self._members[place] for place in rows.tolist()], dtype=np.int64)
                places, first, second = np.repeat(rows, one.size), codes[:, one].ravel(), codes[:, other].ravel()
                alone = self._without(places, second), self._without(places, first)
                four = np.stack((places, *alone, self._without(places, first, second)))
                usable = (four >= 0).all(axis=0)
                four = four[:, usable]
                yield _Comparison(first[usable], second[usable], self._journeys[four], self._conversions[four])

    def _without(self, places: Ints, *left_out: Ints) -> Ints:
        """Return the places of the sets without these channels; -1 where no journey has just that set."""
        keys = self._keys[places]
        for codes in left_out:
            keys = keys - self._bits[codes]
        found = np.minimum(np.searchsorted(self._keys, keys), self._keys.size - 1)
        return np.where(self._keys[found] == keys, found, -1)


class _Sums:
    """Sums over the sets of other channels, by pair of channels."""

    def __init__(self, channels: int) -> None:
        self._channels = channels
        self._journeys, self._conversions = np.zeros((2, 4, channels * channels), dtype=np.float64)
        self._excess, self._scale, self._variance = np.zeros((3, channels * channels), dtype=np.float64)

    def count(self, found: _Comparison) -> None:
        """Add up journeys and conversions."""
        for kind in range(4):
            self._journeys[kind] += self._by_pair(found, found.journeys[kind])
            self._conversions[kind] += self._by_pair(found, found.conversions[kind])

    def compare(self, found: _Comparison) -> None:
        """Add up the comparisons, when all are counted."""
        n = found.journeys
        failing = 1 - found.conversions / n
        weight = 1 / (1 / n).sum(axis=0)
        cells = found.first * self._channels + found.second
        pooled = ((self._conversions + 0.5) / (self._journeys + 1))[:, cells]
        # One journey at the pooled rate is added, so that what never happened has a variance; the second factor makes
        # up for what the estimate of a rate from the same few journeys takes away.
        rate = (found.conversions + pooled) / (n + 1)
        error = rate * (1 - rate) / (1 - n / (n + 1) ** 2) / n
        spread = sum(
            failing[one] ** 2 * error[other] + failing[other] ** 2 * error[one] - error[one] * error[other]
            for one, other in ((_BOTH, _NEITHER), (_FIRST, _SECOND))
        )
        excess = failing[_FIRST] * failing[_SECOND] - failing[_BOTH] * failing[_NEITHER]
        self._excess += self._by_pair(found, weight * excess)
        self._scale += self._by_pair(found, weight * failing[_NEITHER])
        self._variance += self._by_pair(found, weight**2 * spread)

    def result(self) -> Synergies:
        """Return the pairs with their difference and its error."""
        cells = np.flatnonzero((self._scale > 0) & (self._variance > 0))
        pairs = np.stack(np.divmod(cells, max(self._channels, 1)), axis=1)
        difference, error = self._excess[cells], np.sqrt(self._variance[cells])
        both = self._journeys[_BOTH, cells]
        usual = both * self._conversions[:, cells].sum(axis=0) / self._journeys[:, cells].sum(axis=0)
        scale = self._scale[cells]
        return Synergies(pairs, difference / scale, error / scale, np.rint(both).astype(np.int64), usual)

    def _by_pair(self, found: _Comparison, terms: Floats) -> Floats:
        cells = found.first * self._channels + found.second
        return np.bincount(cells, terms, self._channels**2).astype(np.float64)
