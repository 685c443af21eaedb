"""Rule models: fixed ways to share a conversion among the touches of its journey.

Invariant: credits are not negative and sum to 1 over every journey with touches; they depend on the journey alone.
A rule has no estimand: it is a convention, not an estimate, so it has no interval and its confidence is None.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from attributary.attribution_core.domain.journeys import Floats, Ints, JourneyBatch
from attributary.attribution_core.domain.segments import segment_maxima

SECONDS_PER_DAY = 86_400
_MICROS = 1_000_000.0


@dataclass(frozen=True, slots=True)
class RuleSettings:
    """Parameters of the rules that have any.

    Attributes:
        first_weight: position-based share of the first touch.
        middle_weight: position-based share of all touches between, split equally.
        last_weight: position-based share of the last touch.
        half_life_seconds: time-decay: a touch this much earlier weighs half.
    """

    first_weight: float = 0.4
    middle_weight: float = 0.2
    last_weight: float = 0.4
    half_life_seconds: float = 7.0 * SECONDS_PER_DAY

    def __post_init__(self) -> None:
        weights = (self.first_weight, self.middle_weight, self.last_weight)
        if not all(0 <= weight <= 1 for weight in weights) or abs(sum(weights) - 1) > 1e-9:
            raise ValueError("position-based weights: must be from 0 to 1 and sum to 1")
        if not self.half_life_seconds > 0:
            raise ValueError("half_life_seconds: must be positive")


def first(batch: JourneyBatch) -> Floats:
    """Return all credit for the first touch, float64[m]."""
    return _whole(batch, batch.offsets[:-1][batch.lengths > 0])


def last(batch: JourneyBatch) -> Floats:
    """Return all credit for the last touch, float64[m]."""
    return _whole(batch, batch.offsets[1:][batch.lengths > 0] - 1)


def last_non_direct(batch: JourneyBatch) -> Floats:
    """Return all credit for the last touch that is not direct, or for the last one when all are direct; float64[m]."""
    places = np.where(batch.direct, np.int64(-1), np.arange(batch.channels.size, dtype=np.int64))
    chosen = segment_maxima(places, batch.offsets, empty=-1)
    chosen = np.where(chosen < 0, batch.offsets[1:] - 1, chosen)
    return _whole(batch, chosen[batch.lengths > 0])


def linear(batch: JourneyBatch) -> Floats:
    """Return equal credit for every touch of a journey, 1 / n each; float64[m]."""
    return np.repeat(1.0 / np.maximum(batch.lengths, 1), batch.lengths)


def position_based(batch: JourneyBatch, settings: RuleSettings | None = None) -> Floats:
    """Return fixed shares for the first touch, the last touch, and all between (40/20/40 by default); float64[m].

    One touch gets everything. Two touches share in the proportion of the end weights (50/50 by default), equally when
    both end weights are 0.
    """
    chosen = settings or RuleSettings()
    lengths = batch.lengths
    ends = chosen.first_weight + chosen.last_weight
    opening = np.where(lengths > 2, chosen.first_weight, chosen.first_weight / ends if ends > 0 else 0.5)
    closing = np.where(lengths > 2, chosen.last_weight, chosen.last_weight / ends if ends > 0 else 0.5)
    closing[lengths == 1] = 1.0  # it is written after the opening share, which for a single touch is the same place
    shares = np.repeat(chosen.middle_weight / np.maximum(lengths - 2, 1), lengths)
    filled = lengths > 0
    shares[batch.offsets[:-1][filled]] = opening[filled]
    shares[batch.offsets[1:][filled] - 1] = closing[filled]
    return shares


def time_decay(batch: JourneyBatch, settings: RuleSettings | None = None) -> Floats:
    """Return weights ``2^(-age / half-life)``, normalised over the journey; float64[m].

    Ages are taken against the last touch instead of the conversion: normalising cancels the difference, and the
    largest weight is then 1, so no half-life, however short, gives 0/0.
    """
    chosen = settings or RuleSettings()
    filled = batch.lengths > 0
    newest = np.zeros(len(batch), dtype=np.int64)
    newest[filled] = batch.times[batch.offsets[1:][filled] - 1]
    ages = np.repeat(newest, batch.lengths) - batch.times
    with np.errstate(over="ignore"):  # an age of infinitely many half-lives weighs nothing, which is right
        weights = np.exp2(ages / (-_MICROS * chosen.half_life_seconds))
    return weights / np.repeat(batch.sums(weights), batch.lengths)


RULES: dict[str, Callable[[JourneyBatch, RuleSettings], Floats]] = {
    "first": lambda batch, _: first(batch),
    "last": lambda batch, _: last(batch),
    "last_non_direct": lambda batch, _: last_non_direct(batch),
    "linear": lambda batch, _: linear(batch),
    "position_based": position_based,
    "time_decay": time_decay,
}


def _whole(batch: JourneyBatch, winners: Ints) -> Floats:
    """Return credit 1 for the given touches, 0 for all others."""
    shares = np.zeros(batch.channels.size, dtype=np.float64)
    shares[winners] = 1.0
    return shares
