"""Return and cost with intervals: worked numbers, and how often the intervals hold what is true."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attributary.attribution_core.spend.ratios import (
    NOTHING,
    cost_per_conversion,
    gamma_quantile,
    poisson_interval,
    return_on_spend,
    standard_error,
    support_note,
    weighted_interval,
)


@pytest.mark.parametrize(
    ("count", "low", "high"),
    [(1, 0.051, 4.744), (3, 0.818, 7.754), (10, 5.425, 16.962), (30, 21.594, 40.691), (0, 0, 2.996)],
)
def test_the_limits_of_a_count_are_the_exact_ones(count: int, low: float, high: float) -> None:
    assert poisson_interval(count) == pytest.approx((low, high), abs=5e-4)
    if count:
        assert weighted_interval(count, count) == pytest.approx((low, high), abs=5e-4)


def test_return_of_three_orders() -> None:
    squares = 20.0**2 + 30.0**2 + 50.0**2
    found = return_on_spend(100.0, squares, 50.0)
    assert found.value == 2.0
    assert standard_error(squares) / 50.0 == pytest.approx(1.23, abs=0.005)
    assert found.low is not None
    assert found.high is not None
    assert found.low * found.high == pytest.approx(4.0)  # symmetric on the log scale


def test_cost_of_ten_conversions_and_of_none() -> None:
    assert cost_per_conversion(10.0, 10.0, 1000.0) == pytest.approx((100.0, 59.0, 184.3), abs=0.1)
    none = cost_per_conversion(0.0, 0.0, 1000.0)
    assert (none.value, none.high) == (None, None)
    assert none.low == pytest.approx(333.8, abs=0.1)  # at least 334


def test_without_spend_there_is_no_return_and_without_conversions_it_is_0() -> None:
    assert return_on_spend(10.0, 100.0, 0.0) == NOTHING
    assert cost_per_conversion(3.0, 3.0, 0.0) == NOTHING
    assert return_on_spend(0.0, 0.0, 80.0) == (0.0, None, None)
    assert return_on_spend(-5.0, 25.0, 10.0).value == -0.5


def test_little_support_is_said() -> None:
    assert support_note(29.0, 100.0, 1.0) == "insufficient: 29 conversions"
    assert support_note(300.0, 100.0, 21.0) == "one person is 21% of the value"
    assert support_note(300.0, 100.0, 19.0) == ""
    assert support_note(0.0, 0.0, 0.0) == ""


@given(st.floats(0.01, 0.99), st.floats(0.05, 5_000.0))
def test_quantiles_rise_and_lie_around_the_mean(probability: float, shape: float) -> None:
    low, middle, high = (gamma_quantile(p, shape) for p in (probability / 2, probability, (1 + probability) / 2))
    assert 0.0 <= low <= middle <= high
    assert abs(gamma_quantile(0.5, shape) - shape) < 1.0
    assert math.isfinite(high)


@given(st.floats(0.5, 1e4), st.floats(0.1, 10.0), st.floats(1.0, 1e6))
def test_the_interval_holds_the_ratio(total: float, scale: float, spend: float) -> None:
    found = cost_per_conversion(total, total * scale, spend)
    assert found.value is not None
    assert found.low is not None
    assert found.low <= found.value <= (found.high or math.inf)


@pytest.mark.parametrize("buyers", [60.0, 150.0, 600.0])
def test_nine_in_ten_intervals_hold_what_is_true(buyers: float) -> None:
    """Buyers come by chance, buy once or several times, log-normal values, and share credit with other channels."""
    draw = np.random.default_rng(20261130)
    runs, spend = 2_000, 1_000.0
    orders_mean, value_mean, credit_mean = 1.4, math.exp(3.0 + 0.8**2 / 2), 0.75
    true_return = buyers * orders_mean * value_mean * credit_mean / spend
    true_cost = spend / (buyers * orders_mean * credit_mean)
    held = np.zeros(2)
    for _ in range(runs):
        persons = draw.poisson(buyers)
        orders = 1 + draw.poisson(orders_mean - 1.0, persons)
        owner = np.repeat(np.arange(persons), orders)
        share = draw.choice([0.5, 1.0], owner.size)
        value = np.bincount(owner, draw.lognormal(3.0, 0.8, owner.size) * share, persons)
        credit = np.bincount(owner, share, persons)
        gained = return_on_spend(value.sum(), float((value**2).sum()), spend)
        cost = cost_per_conversion(float(credit.sum()), float((credit**2).sum()), spend)
        assert gained.low is not None and gained.high is not None  # noqa: PT018
        assert cost.low is not None and cost.high is not None  # noqa: PT018
        held += (gained.low <= true_return <= gained.high, cost.low <= true_cost <= cost.high)
    coverage = held / runs
    assert np.all((coverage >= 0.86) & (coverage <= 0.94)), coverage
