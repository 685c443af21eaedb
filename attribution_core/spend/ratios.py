"""Return and cost: ratios of sums, with intervals for who converts. Spend is taken as exact.

Invariants: a ratio is a sum over a sum at every level, never a mean of ratios. Without spend there is no return.
Without conversions there is no cost but a bound: never infinity, never 0. All intervals have the level
`CONFIDENCE_LEVEL`.
Sources: compound Poisson variance over persons; exact (gamma) limits of a Poisson count, with the scale of weighted
counts of Fay and Feuer (1997).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from attributary.attribution_core.domain.confidence import NORMAL_QUANTILE, TAILS

FEW_CONVERSIONS = 30
"""Below so many conversions a ratio says little, whatever its interval."""
LARGE_SHARE = 0.2
"""From this share of the value on, one person alone moves the ratio."""

_ITERATIONS = 200
_STEPS = 500
_TINY = 1e-15


class Estimate(NamedTuple):
    """A ratio with its interval; `value` None with a `low` is a bound: at least so much."""

    value: float | None
    low: float | None
    high: float | None


NOTHING = Estimate(None, None, None)


def poisson_interval(count: float) -> tuple[float, float]:
    """Return the exact limits of the mean of a Poisson count; of 0 the upper one is that of 95 % to one side."""
    low = gamma_quantile(TAILS[0], count) if count > 0 else 0.0
    return low, gamma_quantile(TAILS[1], count + 1.0)


def weighted_interval(total: float, squares: float) -> tuple[float, float]:
    """Return the limits of the mean of a sum of weights, each of a person who converts independently of the others.

    Args:
        total: the sum of the weights.
        squares: the sum of their squares; equal to `total` for weights of 1, where the limits are the exact ones.
    """
    if total <= 0.0 or squares <= 0.0:
        return 0.0, poisson_interval(0.0)[1]
    scale = squares / total
    low, high = poisson_interval(total / scale)
    return low * scale, high * scale


def standard_error(squares: float) -> float:
    """Return the standard error of a sum over persons from the sum of their squares: compound Poisson."""
    return math.sqrt(max(squares, 0.0))


def return_on_spend(value: float, squares: float, spend: float) -> Estimate:
    """Return value per unit of spend; nothing without spend.

    The interval is normal on the log scale, as values are skewed to the right; on the plain scale where the value is
    not above 0.

    Args:
        value: sum of values, after refunds.
        squares: sum over persons of the squares of each one's value.
        spend: in the same currency.
    """
    if spend <= 0.0:
        return NOTHING
    error = standard_error(squares)
    if squares <= 0.0:
        return Estimate(value / spend, None, None)  # nobody converted: how much more there could be is not known
    if value <= 0.0:
        half = NORMAL_QUANTILE * error
        return Estimate(value / spend, (value - half) / spend, (value + half) / spend)
    factor = math.exp(NORMAL_QUANTILE * error / value)
    return Estimate(value / spend, value / factor / spend, value * factor / spend)


def cost_per_conversion(conversions: float, squares: float, spend: float) -> Estimate:
    """Return spend per conversion; without one, "at least" the spend over the most that may have been missed.

    Args:
        conversions: sum of credits.
        squares: sum over persons of the squares of each one's credits.
        spend: as billed.
    """
    if spend <= 0.0:
        return NOTHING
    low, high = weighted_interval(conversions, squares)
    if conversions <= 0.0:
        return Estimate(None, spend / high, None)
    return Estimate(spend / conversions, spend / high, spend / low if low > 0.0 else None)


def support_note(conversions: float, value: float, largest: float) -> str:
    """Return what a reader must know of how much a ratio rests on; empty: enough.

    Args:
        conversions: sum of credits.
        value: sum of values.
        largest: the largest value of one person.
    """
    notes = [f"insufficient: {conversions:.3g} conversions"] if 0.0 < conversions < FEW_CONVERSIONS else []
    if value > 0.0 and largest > LARGE_SHARE * value:
        notes.append(f"one person is {largest / value:.0%} of the value")
    return "; ".join(notes)


def gamma_quantile(probability: float, shape: float) -> float:
    """Return the quantile of the gamma distribution with a shape and scale 1, by bisection: relative error 1e-12."""
    low, high = 0.0, max(1.0, shape) + 10.0 * math.sqrt(max(shape, 1.0)) + 10.0
    for _ in range(_ITERATIONS):
        middle = 0.5 * (low + high)
        if _lower_gamma(shape, middle) < probability:
            low = middle
        else:
            high = middle
        if high - low <= 1e-13 * high:
            break
    return 0.5 * (low + high)


def _lower_gamma(shape: float, x: float) -> float:
    """Return the regularised lower incomplete gamma function: a series below the mean, a continued fraction above."""
    if x <= 0.0:
        return 0.0
    lead = math.exp(shape * math.log(x) - x - math.lgamma(shape))
    if x < shape + 1.0:
        term = total = 1.0 / shape
        number = shape
        for _ in range(_STEPS + int(10 * math.sqrt(shape))):
            number += 1.0
            term *= x / number
            total += term
            if term < total * _TINY:
                break
        return total * lead
    b = x + 1.0 - shape
    c, d = 1.0 / _TINY**2, 1.0 / b
    fraction = d
    for step in range(1, _STEPS + int(10 * math.sqrt(shape))):
        factor = step * (shape - step)
        b += 2.0
        d = 1.0 / (factor * d + b or _TINY)
        c = b + factor / c or _TINY
        change = c * d
        fraction *= change
        if abs(change - 1.0) < _TINY * 10:
            break
    return 1.0 - fraction * lead
