"""Several tests at once: which hypotheses are rejected, and which shares of channels changed between two periods.

Invariant: the more tests, the stronger the evidence each one needs. `benjamini_hochberg` bounds the expected share of
false rejections among all rejections (false discovery rate), `holm` the probability of any false rejection (familywise
error rate). `drift` reports changes at the false discovery rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import erfc, sqrt

import numpy as np

from attributary.attribution_core.domain.journeys import Flags, Floats

FALSE_DISCOVERY_RATE = 0.10
FAMILYWISE_ERROR_RATE = 0.05


def two_sided(change: float, error: float) -> float:
    """Return the p-value of "no change" for a normal estimate with its standard error; 1 where either is unknown."""
    if not (np.isfinite(change) and np.isfinite(error)):
        return 1.0
    if error == 0:
        return 1.0 if change == 0 else 0.0
    return erfc(abs(change) / error / sqrt(2))


def benjamini_hochberg(p_values: Floats, rate: float = FALSE_DISCOVERY_RATE) -> Flags:
    """Tell which of the hypotheses are rejected at a false discovery rate (Benjamini, Hochberg 1995)."""
    tests = p_values.size
    order = np.argsort(p_values, kind="stable")
    passed = np.flatnonzero(p_values[order] <= rate * np.arange(1, tests + 1) / max(tests, 1))
    rejected = np.zeros(tests, dtype=np.bool_)
    if passed.size:
        rejected[order[: int(passed[-1]) + 1]] = True
    return rejected


def holm(p_values: Floats, rate: float = FAMILYWISE_ERROR_RATE) -> Flags:
    """Tell which of the hypotheses are rejected with at most this probability of any false rejection (Holm 1979)."""
    tests = p_values.size
    order = np.argsort(p_values, kind="stable")
    failed = np.flatnonzero(p_values[order] > rate / np.arange(tests, 0, -1))
    rejected = np.zeros(tests, dtype=np.bool_)
    rejected[order[: int(failed[0]) if failed.size else tests]] = True
    return rejected


@dataclass(frozen=True, eq=False)
class Drift:
    """Changes of shares from one period to the next.

    Attributes:
        change: float64[K], share now - share before.
        error: float64[K], standard error of the change.
        p_value: float64[K], two-sided; 1 where the error is unknown.
        changed: bool[K], changes that pass the test at the false discovery rate.
    """

    change: Floats
    error: Floats
    p_value: Floats
    changed: Flags


def drift(now: Floats, now_error: Floats, before: Floats, before_error: Floats) -> Drift:
    """Compare the shares of two periods of different journeys.

    Args:
        now: float64[K], shares of the later period.
        now_error: float64[K], their standard errors; NaN where unknown, and then nothing has changed.
        before: float64[K], shares of the earlier period.
        before_error: float64[K], their standard errors.
    """
    change = now - before
    error: Floats = np.sqrt(now_error**2 + before_error**2)
    p_value = np.array([two_sided(float(c), float(e)) for c, e in zip(change, error, strict=True)], dtype=np.float64)
    return Drift(change, error, p_value, benjamini_hochberg(p_value))
