"""Plans promise what comes true, on average, and are silent where there is nothing to gain."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from attributary.attribution_core.budget.curve_posterior import draw_curves
from attributary.attribution_core.budget.curves import Curve
from attributary.attribution_core.budget.recommend import BudgetPlan, PlanOptions, plan_budget

CHANNELS = ("search", "social", "video", "mail")


class Outcome(NamedTuple):
    plan: BudgetPlan
    realised: float


def planned(error: float, spread: float, seed: int, move: float = 0.2) -> Outcome:
    """A plan for four channels with estimates off by a log error; what it brings under the true curves."""
    draw = np.random.default_rng(seed)
    now = draw.uniform(500, 3000, 4)
    k = now * np.exp(draw.normal(0.3, spread, 4))
    b = np.exp(draw.normal(1.0, spread, 4)) * (k + now)
    off = np.exp(draw.normal(0.0, error, (2, 4)))
    curves = [
        Curve(name, b[n] * off[0, n], k[n] * off[1, n], error, error, 0.0, 1e9) for n, name in enumerate(CHANNELS)
    ]
    plan = plan_budget(curves, dict(zip(CHANNELS, now, strict=True)), PlanOptions(draws=50, seed=seed, move=move))
    then = np.array([each.after for each in plan.channels])
    return Outcome(plan, float((b * then / (k + then)).sum() / (b * now / (k + now)).sum()) - 1.0)


@pytest.mark.parametrize("error", [0.15, 0.3])
@pytest.mark.parametrize("move", [0.2, 0.9])
@pytest.mark.parametrize("spread", [0.5, 0.3])
def test_what_is_promised_is_within_two_points_of_what_comes_true(error: float, move: float, spread: float) -> None:
    outcomes = [planned(error, spread, seed, move) for seed in range(40)]
    promised = float(np.mean([each.plan.gain for each in outcomes]))
    realised = float(np.mean([each.realised for each in outcomes]))
    assert promised == pytest.approx(realised, abs=0.01)
    assert np.mean([each.plan.raw_gain for each in outcomes]) > promised  # what the optimiser alone would have said
    acted_on = [each for each in outcomes if each.plan.is_recommended]
    assert len(acted_on) >= 5
    if spread == 0.5:  # of less different channels fewer are acted on, and 40 worlds say too little of them
        assert len(acted_on) > 10
        promised = float(np.mean([each.plan.gain for each in acted_on]))
        assert promised == pytest.approx(np.mean([each.realised for each in acted_on]), abs=0.02)
        assert np.mean([each.realised < 0 for each in acted_on]) <= 0.1


def test_intervals_of_the_gain_cover_what_comes_true() -> None:
    outcomes = [planned(0.3, 0.5, seed, 0.9) for seed in range(60)]
    inside = [each.plan.interval[0] <= each.realised <= each.plan.interval[1] for each in outcomes]
    assert 0.8 <= np.mean(inside) <= 0.99


@pytest.mark.parametrize("move", [0.2, 0.9])
@pytest.mark.parametrize("error", [0.15, 0.3])
def test_with_equal_curves_it_recommends_in_at_most_one_of_twenty(error: float, move: float) -> None:
    assert np.mean([planned(error, 0.0, seed, move).plan.is_recommended for seed in range(60)]) <= 0.05


def test_draws_of_well_known_curves_stay_and_of_unknown_ones_go_to_the_others() -> None:
    now = np.full(4, 1000.0)
    logs = np.log(np.array([4000.0, 4000.0, 4000.0, 8000.0])), np.log(np.full(4, 1500.0))
    random = np.random.default_rng(1)
    sure = draw_curves(logs, (np.full(4, 0.01), np.full(4, 0.01)), now, 2000, random)
    assert np.median(sure.b, axis=0) == pytest.approx([4000, 4000, 4000, 8000], rel=0.02)
    unsure = (np.array([0.05, 0.05, 0.05, 1.0]), np.array([0.05, 0.05, 0.05, 1.0]))
    drawn = draw_curves(logs, unsure, now, 2000, random)
    assert np.median(drawn.b[:, 3] / (drawn.k[:, 3] + 1000.0)) < 2.4  # 1.6 as the others, 3.2 as estimated
    assert 30.0 < drawn.k[:, 0].std() < 80.0  # 5 % of 1,500, less what channels that look alike say of each other


def test_bounds_hold_sums_are_kept_and_marginal_returns_meet_inside() -> None:
    curves = [Curve("a", 4000, 1000, 0.01, 0.01, 0, 9000), Curve("b", 6000, 4000, 0.01, 0.01, 0, 9000),
              Curve("c", 1000, 9000, 0.01, 0.01, 0, 9000)]  # fmt: skip
    current = {"a": 2400.0, "b": 2600.0, "c": 500.0}
    plan = plan_budget(curves, current, PlanOptions(move=0.9, fixed=frozenset({"c"})))
    after = {each.channel: each.after for each in plan.channels}
    assert sum(after.values()) == pytest.approx(5500.0)
    assert (after["c"], plan.channels[2].bound) == (500.0, "fixed")
    assert plan.channels[0].slope_after == pytest.approx(plan.channels[1].slope_after, rel=0.05)
    assert plan.is_recommended
    held = plan_budget(curves, current, PlanOptions(move=0.05))
    for each in held.channels:
        assert 0.95 * each.before - 1e-6 <= each.after <= 1.05 * each.before * 1.001
    assert {each.bound for each in held.channels} >= {"smallest move", "largest move"}
    assert plan_budget(curves, current, PlanOptions(move=0.05)) == held  # the same seed, the same plan
    with pytest.raises(ValueError, match="leave no split"):
        plan_budget(curves, current, PlanOptions(budget=9_000.0, move=0.1))


def test_the_tested_range_is_not_left() -> None:
    curves = [Curve("a", 4000, 1000, 0.01, 0.01, 900, 1100), Curve("b", 90000, 4000, 0.01, 0.01, 900, 1050)]
    plan = plan_budget(curves, {"a": 1000.0, "b": 1000.0}, PlanOptions(move=0.5))
    assert plan.channels[1].after <= 1050.0 * 1.001
    assert plan.channels[1].bound == "tested range"
