"""A shop with a hidden truth: saturating ads with carry-over, demand of its own, buyers who would have bought anyway.

Spend that was set by chance recovers what one more unit brings; spend that followed demand shows several times as much,
and is refused.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attributary.attribution_core.budget.curves import Curve, Floats, NoCurveError, SpendTest, fit_curve

DAYS, CEILING, HALF, CARRY = 365, 4_000.0, 1_500.0, 0.5
LEVELS = (0.0, 500.0, 1_000.0, 2_000.0, 3_000.0)
BLOCK, WASHED_OUT = 12, 5  # days of one level, and of them those in which the level before still works
TODAY = 1_500.0


class World(NamedTuple):
    """A year of a shop by day: spend, all sales, those that ads caused (hidden) and those that are credited."""

    spend: Floats
    sales: Floats
    caused: Floats
    credited: Floats


def lived(draw: np.random.Generator, spend: Floats, demand: Floats) -> World:
    """Return what sales come to under the hidden response; a fifth of those who buy anyway click on their way."""
    works = np.zeros(DAYS)
    for day in range(DAYS):  # carry-over first, normalised; then saturation
        works[day] = (1 - CARRY) * spend[day] + CARRY * (works[day - 1] if day else spend[0])
    caused = CEILING * works / (HALF + works)
    anyway = demand + draw.normal(0.0, 60.0, DAYS)
    return World(spend, anyway + caused, caused, caused + 0.2 * anyway)


def slope_of(x: Floats, y: Floats) -> float:
    return float(np.polyfit(x, y, 1)[0])


def true_slope(spend: float) -> float:
    return CEILING * HALF / (HALF + spend) ** 2


def season(draw: np.random.Generator) -> Floats:
    yearly = 1_500.0 * np.sin(np.arange(DAYS) * 2 * np.pi / 91.0)
    return np.asarray(6_000.0 + yearly + np.cumsum(draw.normal(0.0, 12.0, DAYS)))


def experiments_of(world: World, demand_like: Floats) -> list[SpendTest]:
    """Compare the days of each level with those of no spend, after the wash-out; a control of like demand is taken off.

    The control stands for regions without the ads: it shares the season and nothing of the spend.
    """
    settled = np.arange(DAYS) % BLOCK >= WASHED_OUT
    rest = world.sales - demand_like
    days = {level: rest[settled & (world.spend == level)] for level in LEVELS}
    low = days[LEVELS[0]]
    found = []
    for level in LEVELS[1:]:
        high = days[level]
        error = float(np.sqrt(high.var(ddof=1) / high.size + low.var(ddof=1) / low.size))
        found.append(SpendTest("search", LEVELS[0], level, float(high.mean() - low.mean()), error, "geo"))
    return found


def randomised(seed: int) -> tuple[World, Floats]:
    draw = np.random.default_rng(seed)
    demand = season(draw)
    blocks = -(-DAYS // BLOCK)
    order = np.concatenate([draw.permutation(LEVELS) for _ in range(-(-blocks // len(LEVELS)))])[:blocks]
    spend = np.repeat(order, BLOCK)[:DAYS]
    return lived(draw, spend, demand), demand + draw.normal(0.0, 60.0, DAYS)


def slopes(tests: list[SpendTest], seed: int) -> Floats:
    """The slope of curves through effects that are drawn anew within their errors."""
    draw = np.random.default_rng(seed)
    again = (
        [replace(each, effect=each.effect + draw.normal(0.0, each.standard_error)) for each in tests] for _ in range(40)
    )
    return np.array([fit_curve(each, draws=10, seed=seed).slope(TODAY) for each in again])


def test_spend_set_by_chance_recovers_what_one_more_unit_brings_within_its_interval() -> None:
    inside, ratios = [], []
    for seed in range(60):
        tests = experiments_of(*randomised(seed))
        low, high = np.quantile(slopes(tests, seed), (0.05, 0.95))
        inside.append(low <= true_slope(TODAY) <= high)
        ratios.append(fit_curve(tests, seed=seed).slope(TODAY) / true_slope(TODAY))
    assert np.mean(inside) >= 0.8
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.06)


def test_spend_that_follows_demand_shows_several_times_the_truth_and_is_refused() -> None:
    credited, total = [], []
    for seed in range(40):
        draw = np.random.default_rng(seed)
        demand = season(draw)
        spend = TODAY * (demand / demand.mean()) ** 2 * np.exp(draw.normal(0.0, 0.1, DAYS))
        world = lived(draw, spend, demand)
        credited.append(slope_of(world.spend, world.credited) / true_slope(TODAY))
        total.append(slope_of(world.spend, world.sales) / true_slope(TODAY))
    assert np.mean(credited) > 1.3  # buyers who would have bought anyway come with the spend
    assert np.mean(total) > 3.0
    tests = [SpendTest("search", 0.0, level, 2.0 * level, 10.0, "observational") for level in LEVELS[1:]]
    with pytest.raises(NoCurveError, match="spend that follows demand shows several times the true return"):
        fit_curve(tests)


def test_credited_return_is_above_what_the_ads_brought_also_where_spend_was_set_by_chance() -> None:
    world, _ = randomised(1)
    assert world.credited.sum() / world.spend.sum() > 1.5 * world.caused.sum() / world.spend.sum()


@given(st.floats(1.0, 1e6), st.floats(1.0, 1e6), st.floats(1.0, 1e6))
def test_the_return_of_the_next_unit_is_the_average_return_times_k_over_k_plus_spend(
    b: float, k: float, spend: float
) -> None:
    curve = Curve("c", b, k, 0.1, 0.1, 0.0, 1e9)
    assert curve.slope(spend) == pytest.approx(curve.value(spend) / spend * k / (k + spend))
