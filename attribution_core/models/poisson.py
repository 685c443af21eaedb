"""The time-aware model: conversions as an inhomogeneous Poisson process, credited by backwards elimination.

A person's rate of conversion is ``exp(alpha + sum over touches of beta[channel, age class])``: touches raise (or lower)
it for as long as their age has a class. It is fitted to the counts of `exposures` by maximum a posteriori with a weak
normal prior on ``beta``, and so takes journeys that are still open for what they are: watched time without a
conversion yet (Shender et al., arXiv 2009.08432, JDS 10.6339/23-JDS1101).

Backwards elimination: remove the last touch, then the one before, and so on. Touch ``m`` is credited with
``rate(1..m) - rate(1..m-1)`` over ``rate(all)``; what is left, ``exp(alpha) / rate(all)``, is the baseline and is given
to nobody. Invariant: credits and baseline of a journey sum to 1; credits are signed and never clipped.

Assumptions: rates multiply; age matters in classes; watching begins with the first touch, so the baseline is the rate
of people who once had a touch, long after it. The rate ratios are associations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np

from attributary.attribution_core.domain.journeys import Floats, Ints, JourneyBatch
from attributary.attribution_core.domain.lookback import MICROS_PER_DAY
from attributary.attribution_core.models.channel_totals import LastAnswer, Weights
from attributary.attribution_core.statistics.exposures import ExposureCounts
from attributary.attribution_core.statistics.histories import AGE_BOUNDS, Pieces, cells_at_end, pieces, repeated
from attributary.attribution_core.statistics.likelihood import Design, FitError, maximum

_SLOPE = 1e-6  # of the log posterior, per conversion: a steeper one is worth letting an effect in again


@dataclass(frozen=True, eq=False)
class PoissonFit:
    """Estimates.

    Attributes:
        alpha: log of the rate per day without any touch.
        beta: float64[K, A], log rate ratio of a touch of the channel in the age class.
        beta_error: float64[K, A], standard error.
    """

    alpha: float
    beta: Floats
    beta_error: Floats


def fit(design: Design, days: Floats, conversions: Floats, ages: int) -> PoissonFit:
    """Fit the rates.

    Args:
        design: R exposures; its effects are channels x ages.
        days: float64[R], time watched.
        conversions: float64[R].
        ages: A, how many age classes.

    Raises:
        FitError: when no time was watched, nothing converted, or the fit does not settle.
    """
    theta, covariance = maximum(design, days, conversions)
    errors = np.sqrt(np.diag(covariance))
    return PoissonFit(float(theta[0]), theta[1:].reshape(-1, ages), errors[1:].reshape(-1, ages))


def fit_counts(counts: ExposureCounts) -> PoissonFit:
    """Fit the rates to additive counts; raises as `fit` does."""
    return fit(_design(counts), counts.days, counts.conversions.astype(np.float64), len(counts.bounds))


def fit_raising(
    counts: ExposureCounts, *, draws: int, seed: int, start: PoissonFit | None = None
) -> tuple[Floats, Floats]:
    """Fit rates that no touch lowers, and draw from the uncertainty of the free fit.

    Effects that come out negative are fixed at 0 and the others fitted again, until none is negative; one that would
    raise the posterior by being positive is let in again, once. Draws are normal around the free estimate (Laplace)
    and signed: an effect that is fixed at 0 is not known to be 0.

    Args:
        counts: additive counts.
        draws: how many.
        seed: of the draws.
        start: what `fit_counts` found, if it is there: saves finding it again.

    Returns:
        float64[K, A], log rate ratios, not negative, and float64[draws, K, A].

    Raises:
        FitError: as for `fit`.
    """
    days, conversions, design = counts.days, counts.conversions.astype(np.float64), _design(counts)
    shape = len(counts.index), len(counts.bounds)
    theta = None if start is None else np.append(start.alpha, start.beta.ravel())
    theta, covariance = maximum(design, days, conversions, theta)
    noise = np.random.default_rng(seed).standard_normal((draws, theta.size)) @ np.linalg.cholesky(covariance).T
    drawn = (theta[1:] + noise[:, 1:]).reshape(draws, *shape)
    design = _design(counts)  # without the pairs of all effects, which are no longer needed
    kept, again = theta[1:] >= 0, np.zeros(design.effects, dtype=np.bool_)
    while True:
        effects = np.flatnonzero(kept)
        found, _ = maximum(design.only(kept), days, conversions, np.append(theta[:1], np.maximum(theta[1:][kept], 0)))
        theta = np.zeros_like(theta)
        theta[0], theta[1 + effects] = found[0], found[1:]
        if bool((found[1:] < 0).any()):
            kept[effects[found[1:] < 0]] = False
            continue
        slopes = design.sums(conversions - days * np.exp(design.logs(theta)))
        better = ~kept & ~again & (slopes > _SLOPE * conversions.sum())
        if not bool(better.any()):
            return theta[1:].reshape(shape), drawn
        kept |= better
        again |= better


def _design(counts: ExposureCounts) -> Design:
    return Design.of(counts.exposures, len(counts.index) * len(counts.bounds))


def eliminate_backwards(
    batch: JourneyBatch, fitted: PoissonFit, bounds: tuple[int, ...] = AGE_BOUNDS
) -> tuple[Floats, Floats]:
    """Return the signed credit of each touch, float64[m], and the baseline of each journey, float64[n].

    The batch's channels must be those of the fit, in the same order.
    """
    cells = cells_at_end(batch, batch.channels, bounds)
    table = np.column_stack((fitted.beta, np.zeros(fitted.beta.shape[0])))  # grown out: no effect
    logs = np.where(repeated(batch, cells), 0.0, table.ravel()[cells])
    running = np.cumsum(logs)
    before = np.concatenate((np.zeros(1), running))[batch.offsets[:-1]]
    after = running - np.repeat(before, batch.lengths)
    whole = batch.sums(logs)
    # relative to the rate of all touches: exp(partial sum - whole sum), which cannot overflow where it matters
    upto = np.exp(after - np.repeat(whole, batch.lengths))
    previous = np.exp(after - logs - np.repeat(whole, batch.lengths))
    return upto - previous, np.where(batch.lengths > 0, np.exp(-whole), 1.0)


@dataclass(frozen=True, eq=False)
class PoissonTotals:
    """The time-aware model as an estimator of `population`: the baseline's part is given to nobody.

    Attributes:
        batch: single journeys with real times.
        watched_until: int64[n], the conversion, or as far as the data reach; microseconds UTC.
    """

    batch: JourneyBatch
    watched_until: Ints
    name: str = "poisson"
    _last: LastAnswer[PoissonFit] = field(default_factory=LastAnswer, repr=False)

    @cached_property
    def _pieces(self) -> Pieces:
        return pieces(self.batch, self.watched_until)

    @cached_property
    def _design(self) -> Design:
        return Design.of(self._pieces.exposures, len(self.batch.index) * len(AGE_BOUNDS))

    def fitted(self, weights: Weights) -> PoissonFit:
        """Fit the rates to weighted journeys; the last fit is kept."""
        return self._last.of(weights, self._fitted)

    def _fitted(self, weights: Weights) -> PoissonFit:
        found = self._pieces
        rows = len(found.exposures)
        whole = weights.conversions + weights.nulls
        lengths = (found.until - found.since) / MICROS_PER_DAY
        days = np.bincount(found.exposure, whole[found.journey] * lengths, rows)
        ended = found.at_end >= 0
        conversions = np.bincount(found.at_end[ended], weights.conversions[ended], rows)
        return fit(self._design, days.astype(np.float64), conversions.astype(np.float64), len(AGE_BOUNDS))

    def conversions_at_a_touch(self, weights: Weights) -> float:
        """Return the conversions at the very moment of a touch, which the fit does not see under that exposure."""
        batch = self.batch
        filled = batch.lengths > 0
        last = batch.times[batch.offsets[1:][filled] - 1]
        return float(weights.conversions[filled][last == batch.converted_at[filled]].sum())

    def totals(self, weights: Weights) -> Floats:
        """Add up the credits of converted journeys, float64[2, K]; signed, NaN when nothing can be fitted."""
        channels = len(self.batch.index)
        try:
            credits_, _ = eliminate_backwards(self.batch, self.fitted(weights))
        except FitError:
            return np.full((2, channels), np.nan)
        journey = self.batch.journey_of_touch
        return np.stack(
            [
                np.bincount(self.batch.channels, credits_ * worth[journey], channels)
                for worth in (weights.conversions, weights.values)
            ]
        ).astype(np.float64)

    def details(self, weights: Weights) -> dict[str, Floats]:
        """Return the rate ratio of a touch in each age class, float64[K] each; NaN when nothing can be fitted."""
        try:
            ratios = np.exp(self.fitted(weights).beta)
        except FitError:
            ratios = np.full((len(self.batch.index), len(AGE_BOUNDS)), np.nan)
        starts = [0, *(bound // MICROS_PER_DAY for bound in AGE_BOUNDS)]
        return {f"rate_ratio_{low}_{high}_days": ratios[:, place] for place, (low, high) in enumerate(pairwise(starts))}
