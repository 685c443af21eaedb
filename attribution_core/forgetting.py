"""Exponential forgetting: counts in which a journey of one half-life ago weighs half.

Weights are ``2^((time - origin) / half-life)`` against a fixed origin, so adding is all there is to do; the origin
moves when exponents grow large, by a power of two, which is exact. Estimates are free of the scale of the weights. How
much is known is the effective number of journeys ``n_eff = (sum w)^2 / sum w^2``: before anything is drawn from a
posterior the counts are scaled to it.

Invariant: merging equals fitting both; up to float rounding, for weights are no integers. Where bit-equality over
partitions matters, keep integer states per period and weigh those by whole numbers (`forget`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attributary.attribution_core.journeys import Floats
from attributary.attribution_core.markov import Chain
from attributary.attribution_core.state import JourneyState

_REBASE_AT = 500  # exponent; float64 ends at 1023


@dataclass(frozen=True, slots=True)
class Forgetting:
    """How fast to forget.

    Attributes:
        half_life_micros: microseconds after which a journey weighs half.
    """

    half_life_micros: int

    def __post_init__(self) -> None:
        if self.half_life_micros <= 0:
            raise ValueError("half_life_micros: must be positive")

    def weight(self, time_micros: int, now_micros: int) -> float:
        """Return the weight of a journey that ended at a time, as seen from now."""
        return float(np.exp2((time_micros - now_micros) / self.half_life_micros))


@dataclass(frozen=True, slots=True)
class PeriodState:
    """Exact counts of the journeys that ended in one period.

    Attributes:
        middle_micros: the middle of the period, microseconds since 1970-01-01 UTC: its journeys are all that old.
        state: their counts.
    """

    middle_micros: int
    state: JourneyState


@dataclass(frozen=True, eq=False)
class ForgettingState:
    """Counts under forgetting as whole numbers, so that everything that reads a `JourneyState` can read them.

    A journey of the newest period counts `UNIT`, an older one less, to the nearest whole number: the sums are exact in
    whatever order and partition. Values are weighted, too, but in micros. Estimates are free of the unit; whatever
    speaks of how much is known multiplies counts by `journeys_per_count`.

    Attributes:
        state: the counts.
        origin_micros: the middle of the newest period, where journeys weigh 1; microseconds since 1970-01-01 UTC.
        journeys: how many there are, whatever they weigh.
        weight: sum of the weights.
        n_eff: effective number of journeys.
    """

    state: JourneyState
    origin_micros: int
    journeys: int
    weight: float
    n_eff: float

    @property
    def journeys_per_count(self) -> float:
        """Effective journeys that one count of the state stands for."""
        return self.n_eff / (self.weight * UNIT) if self.weight > 0 else 1.0


UNIT_BITS = 20
UNIT = 1 << UNIT_BITS
"""What a journey of the newest period counts; one of more than 21 half-lives ago counts nothing."""


def forget(periods: Sequence[PeriodState], forgetting: Forgetting) -> ForgettingState:
    """Add up the periods, each with the weight of its age against the newest.

    Args:
        periods: exact counts per period, in any order; several may be of one period.
        forgetting: half-life.

    Raises:
        StateLimitError: when the weighted counts do not fit into 64 bits.
    """
    origin = max((period.middle_micros for period in periods), default=0)
    weights = [round(UNIT * forgetting.weight(period.middle_micros, origin)) for period in periods]
    counted = [period.state.conversions + period.state.nulls for period in periods]
    whole = sum(weight * number for weight, number in zip(weights, counted, strict=True))
    squares = sum(weight * weight * number for weight, number in zip(weights, counted, strict=True))
    states = [period.state for period in periods]
    return ForgettingState(
        JourneyState.weighted_sum(zip(weights, states, strict=True), value_shift=UNIT_BITS),
        origin,
        sum(counted),
        whole / UNIT,
        whole * whole / squares if squares else 0.0,
    )


@dataclass(frozen=True, eq=False)
class WeightedCounts:
    """Counts of a chain of first order under forgetting.

    Attributes:
        names: channels, sorted.
        steps: float64[K, K].
        opens: float64[K].
        ends: float64[3, K]: conversions, nulls, value in micros, by last channel.
        n_eff: effective number of journeys.
        weight: sum of the weights.
    """

    names: tuple[str, ...]
    steps: Floats
    opens: Floats
    ends: Floats
    n_eff: float
    weight: float

    def chain(self) -> Chain:
        """Estimate the chain of conversions."""
        out = self.steps.sum(axis=1) + self.ends[0] + self.ends[1]
        safe = np.where(out > 0, out, 1.0)
        return Chain(self.opens / (float(self.opens.sum()) or 1.0), self.steps / safe[:, None], self.ends[0] / safe)

    def scaled(self) -> "WeightedCounts":
        """Return the counts scaled to the effective number of journeys: what a posterior may be drawn from."""
        factor = self.n_eff / self.weight if self.weight > 0 else 0.0
        return WeightedCounts(
            self.names, self.steps * factor, self.opens * factor, self.ends * factor, self.n_eff, self.n_eff
        )


def weigh(periods: Sequence[PeriodState], forgetting: Forgetting, now_micros: int) -> WeightedCounts:
    """Add up the periods, each with the weight of its age.

    The order of the periods does not matter: they are sorted by time first.

    Args:
        periods: exact counts per period; the shorter the periods, the finer the forgetting.
        forgetting: half-life.
        now_micros: as seen from when; data, not a clock.
    """
    names = tuple(sorted({name for period in periods for name in period.state.index.names}))
    size = len(names)
    code = {name: place for place, name in enumerate(names)}
    steps, opens, ends = np.zeros((size, size)), np.zeros(size), np.zeros((3, size))
    weight_sum = square_sum = 0.0
    for period in sorted(periods, key=lambda each: each.middle_micros):
        weight = forgetting.weight(period.middle_micros, now_micros)
        places = np.array([code[name] for name in period.state.index.names], dtype=np.int64)
        chain = period.state.chain
        steps[np.ix_(places, places)] += weight * chain.steps
        opens[places] += weight * chain.opens
        for row, counts in enumerate((chain.conversions, chain.nulls, chain.value_micros)):
            ends[row, places] += weight * counts
        journeys = float(chain.opens.sum())
        weight_sum += weight * journeys
        square_sum += weight * weight * journeys
    return WeightedCounts(names, steps, opens, ends, weight_sum**2 / square_sum if square_sum > 0 else 0.0, weight_sum)


@dataclass(frozen=True, slots=True)
class EffectiveCount:
    """Sums of weights and of their squares, against a movable origin: ``n_eff`` of a stream.

    Attributes:
        origin_micros: where weights are 1; microseconds since 1970-01-01 UTC.
        weight: sum of the weights.
        squares: sum of their squares.
    """

    origin_micros: int
    weight: float = 0.0
    squares: float = 0.0

    @property
    def n_eff(self) -> float:
        """The effective number of journeys; 0 without any."""
        return self.weight**2 / self.squares if self.squares > 0 else 0.0

    def add(self, time_micros: int, journeys: int, forgetting: Forgetting) -> "EffectiveCount":
        """Count journeys that ended at a time; negative numbers retract."""
        found = self
        halvings, rest = divmod(time_micros - self.origin_micros, forgetting.half_life_micros)
        if halvings > _REBASE_AT:
            # a whole number of half-lives: scaling by a power of two loses nothing
            origin = self.origin_micros + halvings * forgetting.half_life_micros
            scale = float(np.exp2(float(-halvings)))
            found = EffectiveCount(origin, self.weight * scale, self.squares * scale * scale)
            halvings = 0
        weight = float(np.exp2(halvings + rest / forgetting.half_life_micros))
        return EffectiveCount(
            found.origin_micros, found.weight + weight * journeys, found.squares + weight * weight * journeys
        )
