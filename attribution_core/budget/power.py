"""How small an effect a test of spend can tell from nothing, from the tenant's own sales.

Nothing is assumed of the shape of sales. For switchbacks and regions a test of nothing is put on the past many
times, with its sides drawn anew; the spread of what it finds is its standard error. For people the error has a closed
form: each buys or not on their own, so it comes from the sum of squares of what each bought.

Invariant: the effect that can be told is (z of the level + z of the power) standard errors, two-sided.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

LENGTHS = (14, 28, 42, 56, 84)
"""Days of a test that are looked at."""

_DRAWS = 2_000
_WEEK = 7
_MIN_BLOCKS = 4
_MIN_REGIONS = 4


class Power(NamedTuple):
    """What a test of a length can tell, in units of the currency a day.

    Attributes:
        days: how long it runs.
        error: standard error of the effect.
        detectable: effect that it finds with the wanted power.
        share: the same, share of sales.
        seen: share of the effect that shows up before the test ends, by the carry-over.
    """

    days: int
    error: float
    detectable: float
    share: float
    seen: float


def smallest_effect(error: float, level: float = 0.9, power: float = 0.8) -> float:
    """Return the effect that a two-sided test finds with a power.

    Args:
        error: standard error of the effect.
        level: of the interval; 0.9: one test in ten of nothing finds something.
        power: share of tests that find the effect.
    """
    normal = NormalDist()
    return (normal.inv_cdf(0.5 + level / 2.0) + normal.inv_cdf(power)) * error


def carried_share(carry_over: float, days: int) -> float:
    """Return which share of an effect is seen after so many days, where each day keeps `carry_over` of the day before.

    It is the mean over the days of the cumulative weights, which are geometric and sum to 1.
    """
    if carry_over == 0.0:
        return 1.0
    return 1.0 - carry_over * (1.0 - carry_over**days) / (days * (1.0 - carry_over))


def person_error(squares: float, days: int, share: float) -> float:
    """Return the standard error of the effect a day on everybody, of a test that draws people.

    Args:
        squares: sum over persons of the square of what each bought in as many days.
        days: of the test.
        share: of people in one of the two arms.
    """
    return float(np.sqrt(squares / (share * (1.0 - share)))) / days


def switchback_error(sales: Floats, days: int, block: int, seed: int = 0) -> float | None:
    """Return the standard error of the effect a day, of spend that is switched by blocks of days.

    Args:
        sales: of each day of the past, without gaps.
        days: of the test.
        block: days of a block.
        seed: of the draws.

    Returns:
        None where the past is too short, or the test has fewer than four blocks.
    """
    blocks = days // block
    if len(sales) < days or blocks < _MIN_BLOCKS:
        return None
    random = np.random.default_rng(seed)
    weekday = np.arange(len(sales)) % _WEEK
    usual = np.array([sales[weekday == day].mean() if np.any(weekday == day) else 0.0 for day in range(_WEEK)])
    level = sales - usual[weekday]
    starts = random.integers(0, len(sales) - days + 1, _DRAWS)
    sums = np.concatenate([[0.0], np.cumsum(level)])
    places = starts[:, None] + np.arange(blocks + 1)[None, :] * block
    means = np.diff(sums[places], axis=1) / block
    # In pairs of blocks that follow each other one is high, by a coin: slow changes of sales fall out.
    pairs = means[:, : blocks // 2 * 2].reshape(_DRAWS, blocks // 2, 2)
    coin = np.where(random.random((_DRAWS, blocks // 2)) < 0.5, 1.0, -1.0)
    return float(((pairs[:, :, 1] - pairs[:, :, 0]) * coin).mean(axis=1).std())


def region_error(sales: Floats, days: int, seed: int = 0) -> float | None:
    """Return the standard error of the effect a day on everybody, of spend that is changed in half of the regions.

    The change of a region from the days before the test to the test is compared over both halves.

    Args:
        sales: float64[regions, days] of the past, without gaps.
        days: of the test; as many before it are needed.
        seed: of the draws.

    Returns:
        None where the past is too short, or there are fewer than four regions.
    """
    regions, past = sales.shape
    if past < 2 * days or regions < _MIN_REGIONS:
        return None
    random = np.random.default_rng(seed)
    starts = random.integers(days, past - days + 1, _DRAWS)
    sums = np.concatenate([np.zeros((regions, 1)), np.cumsum(sales, axis=1)], axis=1)
    before = sums[:, starts] - sums[:, starts - days]
    after = sums[:, starts + days] - sums[:, starts]
    is_treated = random.permuted(np.tile(np.arange(regions) % 2 == 0, (_DRAWS, 1)), axis=1).T
    sides = [
        np.where(mask, after, 0.0).sum(axis=0) / np.maximum(np.where(mask, before, 0.0).sum(axis=0), 1e-12)
        for mask in (is_treated, ~is_treated)
    ]
    error = float((sides[0] / np.maximum(sides[1], 1e-12) - 1.0).std())
    return error * float(sales.sum()) / int(past)


def powers(
    errors: Sequence[tuple[int, float]], mean_sales: float, level: float, power: float, carry_over: float
) -> list[Power]:
    """Return what tests of lengths can tell.

    Args:
        errors: days and standard error a day of each.
        mean_sales: a day.
        level: of the interval.
        power: wanted.
        carry_over: share of an effect that a day keeps of the day before.
    """
    found = []
    for days, error in errors:
        seen = carried_share(carry_over, days)
        effect = smallest_effect(error, level, power) / seen
        found.append(Power(days, error, effect, effect / mean_sales if mean_sales > 0.0 else float("inf"), seen))
    return found
