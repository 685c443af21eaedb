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

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from attributary.attribution_core.exposures import AGE_BOUNDS, MICROS_PER_DAY, ExposureCounts, Pieces, Rows, pieces
from attributary.attribution_core.journeys import Floats, Ints, JourneyBatch
from attributary.attribution_core.population import Weights

_PRIOR_PRECISION = 1 / 9  # a rate ratio beyond e^6 either way is implausible
_MAX_STEPS = 100
_TOLERANCE = 1e-9


class FitError(ArithmeticError):
    """The model could not be fitted."""


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


def fit(exposures: Rows, days: Floats, conversions: Floats, channels: int) -> PoissonFit:
    """Fit the rates by Newton's method with halved steps; the log posterior is concave, so there is one maximum.

    Args:
        exposures: int8[R, K * A].
        days: float64[R], time watched.
        conversions: float64[R].
        channels: K.

    Raises:
        FitError: when no time was watched or nothing converted.
    """
    theta, covariance = _maximum(exposures, days, conversions)
    errors = np.sqrt(np.diag(covariance))
    return PoissonFit(float(theta[0]), theta[1:].reshape(channels, -1), errors[1:].reshape(channels, -1))


def fit_raising(counts: ExposureCounts, *, draws: int, seed: int) -> tuple[Floats, Floats]:
    """Fit rates that no touch lowers, and draw from their uncertainty.

    Effects that come out negative are fixed at 0 and the others fitted again, until none is negative; one that was
    fixed stays so. Draws are normal around the estimate (Laplace), those below 0 count as 0, as the estimate does.

    Args:
        counts: additive counts.
        draws: how many.
        seed: of the draws.

    Returns:
        float64[K, A], log rate ratios, and float64[draws, K, A].

    Raises:
        FitError: as for `fit`.
    """
    days, conversions = counts.micros / MICROS_PER_DAY, counts.conversions.astype(np.float64)
    shape = len(counts.index), len(counts.bounds)
    kept = np.arange(shape[0] * shape[1])
    start: Floats | None = None
    while True:
        theta, covariance = _maximum(counts.exposures[:, kept], days, conversions, start)
        raising = theta[1:] >= 0
        if bool(raising.all()):
            break
        kept, start = kept[raising], np.append(theta[:1], theta[1:][raising])
    noise = np.random.default_rng(seed).standard_normal((draws, theta.size)) @ np.linalg.cholesky(covariance).T
    beta, drawn = np.zeros(shape[0] * shape[1]), np.zeros((draws, shape[0] * shape[1]))
    beta[kept], drawn[:, kept] = theta[1:], np.maximum(theta[1:] + noise[:, 1:], 0.0)
    return beta.reshape(shape), drawn.reshape(draws, *shape)


@dataclass(frozen=True, eq=False)
class _Likelihood:
    """The log posterior of intercept and effects. Exposures are nearly empty: only what is there is ever touched.

    Attributes:
        days: float64[R].
        conversions: float64[R].
        penalty: float64[P + 1], precision of the prior, the intercept first.
        rows: int64[e], the row of each entry of the design.
        columns: int64[e], its effect.
        values: float64[e], its number of touches.
        pair_rows: int64[q], the row of each pair of entries of one row, each with itself and those after it.
        pair_cells: int64[q], ``first * P + second`` of its effects.
        pair_values: float64[q], the product.
    """

    days: Floats
    conversions: Floats
    penalty: Floats
    rows: Ints
    columns: Ints
    values: Floats
    pair_rows: Ints
    pair_cells: Ints
    pair_values: Floats

    @classmethod
    def of(cls, exposures: Rows, days: Floats, conversions: Floats) -> "_Likelihood":
        size = exposures.shape[1]
        rows, columns = np.nonzero(exposures)
        values = exposures[rows, columns].astype(np.float64)
        places = np.arange(rows.size)
        later = np.cumsum(np.bincount(rows, minlength=days.size))[rows] - places
        first = np.repeat(places, later)
        second = first + np.arange(first.size) - np.repeat(np.cumsum(later) - later, later)
        penalty = np.full(size + 1, _PRIOR_PRECISION)
        penalty[0] = 0.0
        return cls(
            days, conversions, penalty, rows, columns, values,
            rows[first], columns[first] * size + columns[second], values[first] * values[second],
        )  # fmt: skip

    def logs(self, at: Floats) -> Floats:
        """Return the log rate of each row."""
        found: Floats = at[0] + np.bincount(self.rows, self.values * at[1:][self.columns], self.days.size)
        return found

    def value(self, at: Floats) -> float:
        logs = self.logs(at)
        with np.errstate(over="ignore"):
            return float(self.conversions @ logs - self.days @ np.exp(logs) - 0.5 * self.penalty @ at**2)

    def slopes(self, at: Floats) -> tuple[Floats, Floats]:
        """Return the gradient and the negative curvature."""
        size = self.penalty.size - 1
        expected = self.days * np.exp(self.logs(at))
        left = self.conversions - expected
        gradient = -self.penalty * at
        gradient[0] += left.sum()
        gradient[1:] += np.bincount(self.columns, self.values * left[self.rows], size)
        curvature = np.diag(self.penalty)
        curvature[0, 0] += expected.sum()
        curvature[0, 1:] = curvature[1:, 0] = np.bincount(self.columns, self.values * expected[self.rows], size)
        upper = np.bincount(self.pair_cells, self.pair_values * expected[self.pair_rows], size * size)
        upper = upper.reshape(size, size)
        curvature[1:, 1:] += upper + np.triu(upper, 1).T
        return gradient, curvature


def _maximum(exposures: Rows, days: Floats, conversions: Floats, start: Floats | None = None) -> tuple[Floats, Floats]:
    """Return the maximum of the log posterior, the intercept first, and the inverse of its curvature there."""
    if not days.sum() > 0 or not conversions.sum() > 0:
        raise FitError("poisson: no conversions, or no time watched")
    if start is None:
        theta = np.zeros(exposures.shape[1] + 1)
        theta[0] = np.log(conversions.sum() / days.sum())
    else:
        theta = start
    likelihood = _Likelihood.of(exposures, days, conversions)
    value = likelihood.value(theta)
    for _ in range(_MAX_STEPS):
        gradient, curvature = likelihood.slopes(theta)
        step = np.linalg.solve(curvature, gradient)
        while True:
            renewed = likelihood.value(theta + step)
            if np.isfinite(renewed) and renewed >= value - 1e-12 * abs(value):
                break
            step = 0.5 * step
            if float(np.abs(step).max()) < _TOLERANCE:
                break
        theta, value = theta + step, renewed
        if float(np.abs(step).max()) < _TOLERANCE:
            break
    else:
        raise FitError("poisson: the fit did not settle")
    covariance = np.linalg.inv(likelihood.slopes(theta)[1])
    return theta, 0.5 * (covariance + covariance.T)


def fit_counts(counts: ExposureCounts) -> PoissonFit:
    """Fit the rates to additive counts."""
    days = counts.micros / MICROS_PER_DAY
    return fit(counts.exposures, days, counts.conversions.astype(np.float64), len(counts.index))


def eliminate_backwards(
    batch: JourneyBatch, fitted: PoissonFit, bounds: tuple[int, ...] = AGE_BOUNDS
) -> tuple[Floats, Floats]:
    """Return the signed credit of each touch, float64[m], and the baseline of each journey, float64[n].

    The batch's channels must be those of the fit, in the same order.
    """
    ages = np.repeat(batch.converted_at, batch.lengths) - batch.times
    classes = np.searchsorted(np.array(bounds, dtype=np.int64), ages, side="right")
    table = np.column_stack((fitted.beta, np.zeros(fitted.beta.shape[0])))  # grown out: no effect
    logs = table[batch.channels, classes]
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

    @cached_property
    def _pieces(self) -> Pieces:
        return pieces(self.batch, self.watched_until)

    def fitted(self, weights: Weights) -> PoissonFit:
        """Fit the rates to weighted journeys."""
        found = self._pieces
        rows = found.exposures.shape[0]
        whole = weights.conversions + weights.nulls
        days = np.bincount(found.exposure, whole[found.journey] * (found.micros / MICROS_PER_DAY), rows)
        ended = found.at_end >= 0
        conversions = np.bincount(found.at_end[ended], weights.conversions[ended], rows)
        return fit(found.exposures, days.astype(np.float64), conversions.astype(np.float64), len(self.batch.index))

    def totals(self, weights: Weights) -> Floats:
        """Add up the credits of the converted journeys; NaN when nothing can be fitted."""
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
        """Return the rate ratio of a touch in each age class."""
        try:
            ratios = np.exp(self.fitted(weights).beta)
        except FitError:
            ratios = np.full((len(self.batch.index), len(AGE_BOUNDS)), np.nan)
        starts = [0, *(bound // MICROS_PER_DAY for bound in AGE_BOUNDS)]
        return {f"rate_ratio_{low}_{high}_days": ratios[:, place] for place, (low, high) in enumerate(pairwise(starts))}
