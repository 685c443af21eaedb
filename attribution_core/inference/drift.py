"""Has a channel's share changed? Tests between two periods, with control of false alarms over all channels.

Invariant: the share of false alarms among the reported changes is expected to stay at or below the rate, however many
channels there are (`claims.benjamini_hochberg`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attributary.attribution_core.domain.journeys import Flags, Floats
from attributary.attribution_core.inference.multiple_testing import benjamini_hochberg, two_sided


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
