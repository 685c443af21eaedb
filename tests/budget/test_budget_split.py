"""Splits of a budget: the closed form, and brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attributary.attribution_core.budget.curves import Curve, NoCurveError, SpendTest, fit_curve
from attributary.attribution_core.budget.split import best_split


def curve(b: float, k: float) -> Curve:
    return Curve("c", b, k, 0.1, 0.1, 0.0, 1e9)


def concave_split(b: list[float], k: list[float], budget: float) -> tuple[list[float], float]:
    """The best spends without bounds for f = b x / (k + x), all above 0, and the common slope (Lagrange)."""
    root = sum(math.sqrt(each_b * each_k) for each_b, each_k in zip(b, k, strict=True)) / (budget + sum(k))
    return [math.sqrt(each_b * each_k) / root - each_k for each_b, each_k in zip(b, k, strict=True)], root**2


def test_the_closed_form_and_the_grid_agree_within_a_step() -> None:
    spends, slope = concave_split([4000, 6000], [1000, 4000], 5000)
    assert spends == pytest.approx([1898.98, 3101.02], abs=0.005)
    curves = [curve(4000, 1000), curve(6000, 4000)]
    assert [each.slope(x) for each, x in zip(curves, spends, strict=True)] == pytest.approx([0.47596] * 2, abs=5e-6)
    assert slope == pytest.approx(0.47596, abs=5e-6)
    total = sum(each.value(x) for each, x in zip(curves, spends, strict=True))
    assert total == pytest.approx(5240.41, abs=0.005)
    assert sum(each.value(2500) for each in curves) == pytest.approx(5164.84, abs=0.005)
    grid = np.arange(201) * 25.0
    split, best = best_split([each.value(grid) for each in curves], 200)
    assert [each * 25.0 for each in split] == pytest.approx(spends, abs=25.0)
    assert 0 <= total - best < 1.0


RESPONSES = st.lists(
    st.lists(st.one_of(st.floats(-50, 50), st.just(-np.inf)), min_size=21, max_size=21), min_size=3, max_size=3
)


@given(RESPONSES)
def test_no_split_is_better_whatever_the_responses(responses: list[list[float]]) -> None:
    arrays = [np.array(each) for each in responses]
    brute = max(
        arrays[0][a] + arrays[1][b] + arrays[2][20 - a - b]
        for a, b in itertools.product(range(21), repeat=2)
        if a + b <= 20
    )
    if brute == -np.inf:
        with pytest.raises(ValueError, match="no split"):
            best_split(arrays, 20)
        return
    split, best = best_split(arrays, 20)
    assert sum(split) == 20
    assert best == pytest.approx(brute)
    assert sum(array[part] for array, part in zip(arrays, split, strict=True)) == pytest.approx(best)


def measured(truth: Curve, changes: list[tuple[float, float]], error: float, seed: int) -> list[SpendTest]:
    draw = np.random.default_rng(seed)
    return [
        SpendTest("c", low, high, truth.value(high) - truth.value(low) + draw.normal(0, error), error, "geo")
        for low, high in changes
    ]


CHANGES = [(0.0, 500.0), (500.0, 1000.0), (1000.0, 2000.0), (1000.0, 3000.0)]


def test_experiments_recover_the_planted_slope_within_their_error() -> None:
    truth = curve(4000, 1500)
    slopes = []
    for seed in range(60):
        found = fit_curve(measured(truth, CHANGES, 40.0, seed), seed=seed)
        slopes.append(found.slope(1500.0) / truth.slope(1500.0))
        assert (found.low, found.high) == (0.0, 3000.0)
    assert np.mean(slopes) == pytest.approx(1.0, abs=0.05)
    assert np.std(slopes) < 0.25


def test_what_makes_no_curve_is_refused_with_the_reason() -> None:
    truth = curve(4000, 1500)
    with pytest.raises(NoCurveError, match="one change of spend gives the return of that change and no curve"):
        fit_curve(measured(truth, CHANGES[:1], 10.0, 1))
    followed = [SpendTest("tv", 0, 1, 5, 1, "observational")]
    with pytest.raises(NoCurveError, match=r"tv: .* spend that follows demand shows several times the true return"):
        fit_curve(followed)
    nothing = [SpendTest("tv", a, b, -20, 15, "geo") for a, b in CHANGES]
    with pytest.raises(NoCurveError, match="do not show that more spend brings more"):
        fit_curve(nothing)
