"""Which of several tests can be claimed together.

Invariant: the more tests, the stronger each claim must be. `benjamini_hochberg` bounds the expected share of false
claims among all claims, `holm` the probability of any false claim at all, whatever else is true.
"""

from __future__ import annotations

from math import erfc, sqrt

import numpy as np

from attributary.attribution_core.domain.journeys import Flags, Floats

FALSE_DISCOVERY_RATE = 0.10
FALSE_CLAIM_RATE = 0.05


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


def holm(p_values: Floats, rate: float = FALSE_CLAIM_RATE) -> Flags:
    """Tell which of the hypotheses are rejected with at most this probability of any false rejection (Holm 1979)."""
    tests = p_values.size
    order = np.argsort(p_values, kind="stable")
    failed = np.flatnonzero(p_values[order] > rate / np.arange(tests, 0, -1))
    rejected = np.zeros(tests, dtype=np.bool_)
    rejected[order[: int(failed[0]) if failed.size else tests]] = True
    return rejected
