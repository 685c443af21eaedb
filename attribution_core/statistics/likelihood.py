"""The log posterior of log-linear rates over exposures, and its one maximum.

Under exposure ``x`` with ``t`` days watched the number of conversions is Poisson with mean
``t exp(alpha + x . beta)``; ``beta`` has a normal prior around 0. The log posterior is concave.

Invariant: what is computed depends on the filled cells alone, in time and in memory; a table of exposures x effects is
never written out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from attributary.attribution_core.domain.journeys import Flags, Floats
from attributary.attribution_core.statistics.exposure_rows import Exposures

IMPLAUSIBLE_LOG_RATIO = 6.0
"""Log of a rate ratio that the prior takes for implausible either way: two of its standard deviations."""
_PRIOR_PRECISION = 4 / IMPLAUSIBLE_LOG_RATIO**2
_MAX_STEPS = 100
_TOLERANCE = 1e-9
_PAIRS = 1 << 20  # of entries at a time

Small = NDArray[np.int32]


class FitError(ArithmeticError):
    """The model could not be fitted."""


@dataclass(frozen=True, eq=False)
class Design:
    """Which effects act under which exposure.

    Attributes:
        exposures: R, how many.
        effects: P, how many; the intercept is not among them.
        rows: int32[e], the exposure of each entry, ascending.
        columns: int32[e], its effect.
        values: float64[e], its number of touches.
    """

    exposures: int
    effects: int
    rows: Small
    columns: Small
    values: Floats

    @classmethod
    def of(cls, exposures: Exposures, effects: int) -> Design:
        """Build the design of all effects; cell ``c`` of an exposure is effect ``c``."""
        rows, columns = exposures.rows.astype(np.int32), exposures.cells.astype(np.int32)
        return cls(len(exposures), effects, rows, columns, exposures.touches.astype(np.float64))

    def only(self, kept: Flags) -> Design:
        """Return the design with the chosen effects, bool[P]; the others are fixed at none."""
        chosen = kept[self.columns]
        rows = self.rows[chosen]
        columns = (np.cumsum(kept) - 1).astype(np.int32)[self.columns[chosen]]
        return Design(self.exposures, int(kept.sum()), rows, columns, self.values[chosen])

    @cached_property
    def pairs(self) -> Small:
        """Entries of one exposure, each with itself and with those after it, in the order of rows: int32[2, q]."""
        return _pairs(self.rows, self.exposures)

    def logs(self, theta: Floats) -> Floats:
        """Return the log rate under each exposure, float64[R]; `theta` is float64[P + 1], the intercept first."""
        found: Floats = theta[0] + np.bincount(self.rows, self.values * theta[1:][self.columns], self.exposures)
        return found

    def sums(self, by_exposure: Floats) -> Floats:
        """Return, for each effect, the sum of its touches times a number per exposure, float64[P]."""
        found: Floats = np.bincount(self.columns, self.values * by_exposure[self.rows], self.effects).astype(np.float64)
        return found

    def products(self, by_exposure: Floats) -> Floats:
        """Return, for each two effects, the sum of the product of their touches times a number per exposure.

        float64[P, P], symmetric.
        """
        size = self.effects
        upper = np.zeros(size * size, dtype=np.float64)
        for low in range(0, self.pairs.shape[1], _PAIRS):
            first, second = self.pairs[:, low : low + _PAIRS]
            cells = self.columns[first].astype(np.int64) * size + self.columns[second]
            weights = self.values[first] * self.values[second] * by_exposure[self.rows[first]]
            upper += np.bincount(cells, weights, size * size)
        table = upper.reshape(size, size)
        found: Floats = table + np.triu(table, 1).T
        return found


def _pairs(rows: Small, exposures: int) -> Small:
    places = np.arange(rows.size, dtype=np.int64)
    later = np.cumsum(np.bincount(rows, minlength=exposures))[rows] - places
    ends = np.cumsum(later)
    pairs = np.empty((2, int(ends[-1]) if ends.size else 0), dtype=np.int32)
    pairs[0] = np.repeat(places.astype(np.int32), later)
    # The pairs of an entry begin with itself: how far the place of a pair is ahead of its second entry is constant.
    pairs[1] = np.arange(pairs.shape[1], dtype=np.int32)
    pairs[1] -= np.repeat((ends - later - places).astype(np.int32), later)
    return pairs


def maximum(design: Design, days: Floats, conversions: Floats, start: Floats | None = None) -> tuple[Floats, Floats]:
    """Find the maximum of the log posterior by Newton's method with halved steps.

    Args:
        design: R exposures, P effects.
        days: float64[R], time watched.
        conversions: float64[R].
        start: float64[P + 1], where to begin; None: the common rate and no effects.

    Returns:
        float64[P + 1], the intercept first, and the covariance there, float64[P + 1, P + 1] (Laplace: the inverse of
        the curvature).

    Raises:
        FitError: no time was watched, nothing converted, or the fit does not settle.
    """
    if not days.sum() > 0 or not conversions.sum() > 0:
        raise FitError("poisson: no conversions, or no time watched")
    if start is None:
        theta = np.zeros(design.effects + 1)
        theta[0] = np.log(conversions.sum() / days.sum())
    else:
        theta = start
    penalty = np.full(theta.size, _PRIOR_PRECISION)
    penalty[0] = 0.0

    def value(at: Floats) -> float:
        logs = design.logs(at)
        with np.errstate(over="ignore"):
            return float(conversions @ logs - days @ np.exp(logs) - 0.5 * penalty @ at**2)

    def curvature(at: Floats) -> tuple[Floats, Floats]:
        """Return the expected conversions and the negative curvature."""
        expected = days * np.exp(design.logs(at))
        table = np.diag(penalty)
        table[0, 0] += expected.sum()
        table[0, 1:] = table[1:, 0] = design.sums(expected)
        table[1:, 1:] += design.products(expected)
        return expected, table

    reached = value(theta)
    for _ in range(_MAX_STEPS):
        expected, table = curvature(theta)
        left = conversions - expected
        gradient = np.append(left.sum(), design.sums(left)) - penalty * theta
        step = np.linalg.solve(table, gradient)
        while True:
            renewed = value(theta + step)
            if np.isfinite(renewed) and renewed >= reached - 1e-12 * abs(reached):
                break
            step = 0.5 * step
            if float(np.abs(step).max()) < _TOLERANCE:
                break
        theta, reached = theta + step, renewed
        if float(np.abs(step).max()) < _TOLERANCE:
            break
    else:
        raise FitError("poisson: the fit did not settle")
    covariance = np.linalg.inv(curvature(theta)[1])
    return theta, 0.5 * (covariance + covariance.T)
