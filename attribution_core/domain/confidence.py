"""The confidence level of every interval, and its quantiles.

Invariant: intervals of draws lie between `TAILS`, those of a normal error are `NORMAL_QUANTILE` of it to either side.
Both have the level `CONFIDENCE_LEVEL`, so intervals of different numbers may be read side by side.
"""

from __future__ import annotations

CONFIDENCE_LEVEL = 0.9
TAILS = (0.05, 0.95)
NORMAL_QUANTILE = 1.6448536269514722  # of the upper tail: P(X <= it) = 0.95 for a standard normal X
