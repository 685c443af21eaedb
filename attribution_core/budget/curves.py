"""Response curves of total sales: f(x) = b x / (k + x), from experiments that changed spend.

Invariants: a curve comes from experiments at two or more changes of spend, and says nothing outside the range that they
tested. One change gives one number, the return of that change, and no curve. Spend that followed demand gives neither:
its slope is several times the true one. Effects may be negative; they count like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

DESIGNS = ("geo", "person", "switchback", "holdout", "randomised")
"""How spend was varied: in each of them by chance, not by demand."""

_GRID = 240  # of k, on the log scale
_SPAN = (0.05, 20.0)  # of k, in units of the largest tested spend
_MIN_CHANGES = 2
_MIN_LEVELS = 3


class NoCurveError(ValueError):
    """Experiments do not make a curve; the text says why, and what would."""


@dataclass(frozen=True, slots=True)
class SpendTest:
    """What an experiment measured.

    Attributes:
        channel: of the spend.
        spend_from: spend of the arm that is compared with, per period.
        spend_to: spend of the other arm, per the same period.
        effect: total value of the second arm less that of the first, per the same period.
        standard_error: of the effect.
        design: one of ``DESIGNS``.
    """

    channel: str
    spend_from: float
    spend_to: float
    effect: float
    standard_error: float
    design: str


class Curve(NamedTuple):
    """A response curve f(x) = b x / (k + x), known with an error.

    Attributes:
        channel: of the spend.
        b: what no spend reaches: the ceiling, value per period.
        k: spend at half of it.
        error_b: standard error of log b.
        error_k: standard error of log k.
        low: smallest spend that was tested.
        high: largest one.
    """

    channel: str
    b: float
    k: float
    error_b: float
    error_k: float
    low: float
    high: float

    def value(self, spend: Any) -> Any:
        """Return the response to spend, of numbers or an array."""
        return self.b * spend / (self.k + spend)

    def slope(self, spend: float) -> float:
        """Return what the next unit of spend brings: mROAS."""
        return self.b * self.k / (self.k + spend) ** 2


def fit_curve(tests: Sequence[SpendTest], draws: int = 200, seed: int = 0) -> Curve:
    """Return the curve of one channel: weighted least squares on the measured differences.

    Args:
        tests: of one channel.
        draws: how many times the effects are drawn anew, within their errors, for the errors of b and k.
        seed: of the draws.

    Raises:
        NoCurveError: too few changes of spend, or a response that does not rise.
    """
    channel = tests[0].channel if tests else ""
    for each in tests:
        if each.design not in DESIGNS:
            raise NoCurveError(
                f"{channel}: the design '{each.design}' is no experiment: spend must have been varied by chance "
                f"({', '.join(DESIGNS)}); spend that follows demand shows several times the true return"
            )
    changes = {(each.spend_from, each.spend_to) for each in tests}
    levels = {level for change in changes for level in change}
    if len(changes) < _MIN_CHANGES or len(levels) < _MIN_LEVELS:
        raise NoCurveError(
            f"{channel}: one change of spend gives the return of that change and no curve; "
            f"{_MIN_LEVELS} levels of spend in {_MIN_CHANGES} changes are needed"
        )
    start = np.array([each.spend_from for each in tests])
    end = np.array([each.spend_to for each in tests])
    effect = np.array([each.effect for each in tests])
    error = np.array([each.standard_error for each in tests])
    high = max(levels)
    grid = np.geomspace(_SPAN[0] * high, _SPAN[1] * high, _GRID)
    # With k given, b is linear: the best b and its misfit for each k of the grid at once.
    shape = (end / (grid[:, None] + end) - start / (grid[:, None] + start)) / error
    noise = np.random.default_rng(seed).standard_normal((draws, effect.size))
    drawn = np.vstack([effect, effect + noise * error]) / error
    b = drawn @ shape.T / (shape**2).sum(axis=1)
    misfit = (drawn**2).sum(axis=1)[:, None] - b**2 * (shape**2).sum(axis=1)
    best = np.argmin(np.where(b > 0.0, misfit, np.inf), axis=1)
    rows = np.arange(best.size)
    found_b, found_k = b[rows, best], grid[best]
    rising = found_b > 0.0
    if not rising[0] or rising.mean() < 0.9:
        raise NoCurveError(f"{channel}: the experiments do not show that more spend brings more; no curve is drawn")
    logs = np.log(found_b[1:][rising[1:]]), np.log(found_k[1:][rising[1:]])
    return Curve(
        channel, float(found_b[0]), float(found_k[0]), float(logs[0].std()), float(logs[1].std()), min(levels), high
    )
