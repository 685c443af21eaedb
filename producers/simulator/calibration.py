"""Statistics of PathData, the reference data set of path-based attribution, as constants.

Source: `pathdata.csv` as shipped in the MIT-licensed package `mta` 0.0.9 (10,000 distinct paths over 12 channels,
19,785 conversions, 68,602 journeys without one). Only the sums below were taken from it; each journey counts once. The
data set has no times and its channels have made-up names: times, names and causal effects are the simulator's own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Journeys by number of touches: position 0 holds those with one touch.
_JOURNEYS_BY_LENGTH = (
    15857, 10808, 28151, 6162, 4826, 11421, 2491, 1923, 1253, 853, 725, 682, 460, 420, 318, 257, 210, 171, 161, 165,
    102, 75, 96, 84, 24, 56, 66, 25, 32, 31, 27, 15, 24, 10, 33, 22, 0, 11, 3, 6, 0, 3, 140, 8, 4, 22, 0, 4, 3, 7, 0, 3,
    4, 7, 32, 0, 36, 3, 0, 15, 0, 0, 4, 0, 0, 7, 0, 3, 0, 0, 16, 3, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3,
)  # fmt: skip

# Share of all touches by channel, commonest first: alpha, iota, eta, beta, theta, lambda, epsilon, zeta, kappa, gamma,
# delta, mi.
CHANNEL_SHARES = (
    0.42187, 0.20138, 0.11471, 0.10845, 0.06037, 0.05255, 0.01644, 0.01152, 0.00783, 0.00473, 0.00011, 0.00004,
)  # fmt: skip

# Share of neighbouring touches that are of one channel.
REPEAT_SHARE = 0.588

# Converting journeys among all.
CONVERSION_RATE = 19_785 / 88_387

# Value of a conversion: mean, and standard deviation of the logarithm over paths with exactly one conversion.
MEAN_VALUE = 74_802.97 / 19_785
LOG_VALUE_DEVIATION = 0.752


def length_probabilities() -> NDArray[np.float64]:
    """Probability of 1, 2, 3, ... touches in a journey."""
    counts: NDArray[np.float64] = np.array(_JOURNEYS_BY_LENGTH, dtype=np.float64)
    return counts / float(counts.sum())


def mean_length() -> float:
    """Mean number of touches in a journey."""
    probabilities = length_probabilities()
    return float(np.arange(1, len(probabilities) + 1) @ probabilities)


def stickiness(shares: NDArray[np.float64], repeat_share: float) -> float:
    """Probability of staying in the channel by habit, so that staying by habit or chance has `repeat_share`.

    With probability s the next touch repeats the channel, else it is drawn from the mix, hence
    P(repeat) = s + (1-s) * sum(p^2).
    """
    by_chance = float((shares**2).sum())
    return max(0.0, (repeat_share - by_chance) / (1.0 - by_chance)) if by_chance < 1.0 else 0.0
