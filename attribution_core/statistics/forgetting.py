"""Exponential forgetting: counts in which a journey of one half-life ago weighs half.

The weight is ``2^(-age / half-life)`` against the newest period, in whole numbers of 2^-20. Estimates are free of the
scale of the weights. How much is known is the effective number of journeys ``n_eff = (sum w)^2 / sum w^2``: before
anything is drawn from a posterior the counts are scaled to it.

Invariant: exact integer states are kept per period and weighed by whole numbers, so the order of the periods, and how
one is cut into parts, change no bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attributary.attribution_core.statistics.state import JourneyState


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
