"""Has a channel's share changed? Tests between two periods, with control of false alarms over all channels.

Invariant: the share of false alarms among the reported changes is expected to stay at or below the rate, however many
channels there are (Benjamini, Hochberg 1995).
"""

from dataclasses import dataclass
from math import erfc, sqrt

import numpy as np

from attributary.attribution_core.journeys import Flags, Floats

FALSE_DISCOVERY_RATE = 0.10


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
    p_value = np.array([_two_sided(float(c), float(e)) for c, e in zip(change, error, strict=True)], dtype=np.float64)
    return Drift(change, error, p_value, benjamini_hochberg(p_value))


def benjamini_hochberg(p_values: Floats, rate: float = FALSE_DISCOVERY_RATE) -> Flags:
    """Tell which hypotheses are rejected, so that few of the rejected ones are expected to be true.

    The ordered p-values are compared with ``rate k / K``; all up to the last that passes are rejected (Benjamini,
    Hochberg 1995, JRSS B 57(1)).

    Args:
        p_values: float64[K].
        rate: expected share of true hypotheses among the rejected ones, at most.

    Returns:
        bool[K].
    """
    tests = p_values.size
    order = np.argsort(p_values, kind="stable")
    passed = np.flatnonzero(p_values[order] <= rate * np.arange(1, tests + 1) / max(tests, 1))
    rejected = np.zeros(tests, dtype=np.bool_)
    if passed.size:
        rejected[order[: int(passed[-1]) + 1]] = True
    return rejected


def _two_sided(change: float, error: float) -> float:
    if not (np.isfinite(change) and np.isfinite(error)):
        return 1.0
    if error == 0:
        return 1.0 if change == 0 else 0.0
    return erfc(abs(change) / error / sqrt(2))
