"""The spread of shares, as analyses report it: which way it is found, and of what it is the spread."""

from __future__ import annotations

import numpy as np
import pytest

from attributary.attribution_core import analyze
from tests.core.unequal import UNEQUAL, single


def test_the_bootstrap_goes_by_the_seed_also_where_a_closed_form_exists() -> None:
    one, two = (
        analyze(UNEQUAL, ["linear"], intervals=True, draws=40, method="bootstrap", seed=seed)["linear"].column(
            "interval"
        )
        for seed in (0, 1)
    )
    assert one != two


def test_the_fast_path_of_the_first_order_is_another_one_and_agrees() -> None:
    fast, slow = (
        analyze(UNEQUAL, ["markov"], intervals=True, draws=40, method=method)["markov"].column("interval")
        for method in ("fast", "bootstrap")
    )
    assert fast != slow
    assert np.array(fast) == pytest.approx(np.array(slow), abs=0.05)


def test_the_second_order_has_no_fast_path_and_is_bootstrapped() -> None:
    fast, slow = (
        analyze(UNEQUAL, ["markov"], order=2, intervals=True, draws=40, method=method)
        for method in ("fast", "bootstrap")
    )
    assert fast.to_json() == slow.to_json()
    assert fast["markov"].diagnostics["interval_method"] == "bootstrap"


def test_the_closed_form_has_the_confidence_of_the_bootstrap() -> None:
    fast, slow = (
        analyze(UNEQUAL, ["shapley"], intervals=True, draws=600, method=method)["shapley"].diagnostics["confidence"]
        for method in ("fast", "bootstrap")
    )
    assert 1 - fast == pytest.approx(1 - slow, rel=0.1)


def test_an_interval_reaches_as_far_as_its_standard_error_says() -> None:
    for row in analyze(UNEQUAL, ["linear"], intervals=True, draws=400)["linear"].channels:
        low, high = row["interval"]
        assert row["standard_error"] == pytest.approx((high - low) / (2 * 1.645), rel=0.2)


@pytest.mark.parametrize("method", ["bootstrap", "fast"])
@pytest.mark.parametrize("model", ["linear", "markov"])
def test_the_interval_of_value_is_around_the_share_of_value(model: str, method: str) -> None:
    for row in analyze(single(), [model], intervals=True, draws=100, method=method)[model].channels:
        assert row["value_interval"][0] < row["value_share"] < row["value_interval"][1]
        assert not row["value_interval"][0] < row["share"] < row["value_interval"][1]


@pytest.mark.parametrize("model", ["linear", "markov"])
def test_conversions_without_touches_widen_nothing(model: str) -> None:
    columns = {name: cells + [cell] * 200 for (name, cells), cell in zip(single().items(), ("", 1, 50, 0), strict=True)}
    for row in analyze(columns, [model], intervals=True, draws=60, method="bootstrap")[model].channels:
        assert row["interval"][0] < row["share"] < row["interval"][1]
        assert row["value_interval"][0] < row["value_share"] < row["value_interval"][1]


def test_a_baseline_keeps_its_part_of_conversions_and_of_value() -> None:
    report = analyze(single(), ["markov_shapley"], baseline=("b",), intervals=True, draws=40)["markov_shapley"]
    for kind in ("share", "value_share"):
        assert report.diagnostics[f"baseline_{kind}"] == pytest.approx(1 - sum(report.column(kind)))
    for row in report.channels:
        assert row["value_interval"][0] <= row["value_share"] <= row["value_interval"][1]
        assert row["interval"] != row["value_interval"] or row["channel"] == "b"


def test_five_models_are_compared_beside_every_interval() -> None:
    names = ("first", "last", "linear", "markov", "shapley")
    shares = np.array([report.column("share") for report in analyze(UNEQUAL, names)])
    report = analyze(UNEQUAL, ["markov"], intervals=True, draws=20)["markov"]
    assert report.column("spread_over_models") == pytest.approx(shares.max(axis=0) - shares.min(axis=0))
