"""Experiments as rows, curves from them, and how small an effect a test can tell."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pytest

from attributary.attribution_core.budget.curves import Curve
from attributary.attribution_core.budget.experiments import (
    ExperimentError,
    SpendExperiment,
    read_experiment,
    stored_curves,
)
from attributary.attribution_core.budget.power import (
    carried_share,
    person_error,
    powers,
    region_error,
    smallest_effect,
    switchback_error,
)

ROW: dict[str, Any] = {
    "experiment": "s1", "channel": "search", "design": "geo", "from": "2026-09-01", "to": "2026-09-29",
    "currency": "EUR", "spend_from": "0", "spend_to": "2800", "effect": "5600.5", "standard_error": "560",
    "share": "0.25", "source": "agency",
}  # fmt: skip


def test_amounts_of_a_test_become_those_of_everybody_and_a_period() -> None:
    each = read_experiment(ROW)
    assert (each.days, each.effect_micros, each.population_share) == (28, 5_600_500_000, 0.25)
    test = each.per_days(7)
    assert (test.spend_from, test.spend_to, test.standard_error) == pytest.approx((0.0, 2800.0, 560.0))
    assert read_experiment(ROW | {"effect": "-12"}).effect_micros == -12_000_000  # kept
    assert read_experiment(ROW | {"share": None, "from": date(2026, 9, 1)}).population_share == 1.0


def test_a_test_without_effect_says_where_it_is() -> None:
    each = read_experiment(ROW | {"effect": "", "standard_error": ""})
    assert [each.state(date(2026, month, 1)) for month in (8, 9, 10)] == ["planned", "running", "ended"]
    assert read_experiment(ROW).state(date(2026, 9, 1)) == "read"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"experiment": "a b"}, "experiment: must be 1 to 64 letters"),
        ({"channel": ""}, "channel: must be 1 to 200 printable characters"),
        ({"source": "x\u0007y"}, "printable"),
        ({"design": "observational"}, "spend that follows demand shows several times the true return"),
        ({"from": "2026-13-01"}, "from: must be a day"),
        ({"to": "2026-09-01"}, "to: must be a later day than from"),
        ({"currency": "eur"}, "currency: must be an ISO 4217 code"),
        ({"spend_to": "0"}, "must be 0 or more, and differ"),
        ({"spend_from": "-1"}, "must be 0 or more, and differ"),
        ({"spend_from": ""}, "must be 0 or more, and differ"),
        ({"effect": "nan"}, "effect: must be a number up to"),
        ({"effect": "much"}, "effect: must be a number, such as"),
        ({"effect": ""}, "both or none"),
        ({"standard_error": "0"}, "both or none, and standard_error above 0"),
        ({"share": "20"}, "share: must be above 0 and at most 1"),
    ],
)
def test_what_is_no_experiment_is_refused_by_column_and_rule(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ExperimentError, match=said):
        read_experiment(ROW | change)


def stored(name: str, spends: tuple[int, int], days: int = 28, **more: Any) -> SpendExperiment:
    """What f(x) = 4000 x / (1500 + x) a day says of two spends a day, measured on a quarter of all."""
    effect = sum(sign * 4000 * spend / (1500 + spend) for sign, spend in zip((-1, 1), spends, strict=True))
    sums = [int(amount * days * 0.25 * 1e6) for amount in (*spends, effect, 20)]
    end = date.fromordinal(date(2026, 9, 1).toordinal() + days)
    fields: dict[str, Any] = {
        "channel": "search",
        "design": "geo",
        "currency": "EUR",
        "source": "x",
        "population_share": 0.25,
    }
    return SpendExperiment(
        experiment=name, first_day=date(2026, 9, 1), end_day=end, spend_from_micros=sums[0], spend_to_micros=sums[1],
        effect_micros=sums[2], error_micros=sums[3], **(fields | more),
    )  # fmt: skip


def test_tests_of_other_lengths_make_one_curve_in_the_unit_that_is_asked_for() -> None:
    tests = [stored("a", (0, 700)), stored("b", (700, 1500), days=14), stored("c", (1000, 3000), days=56)]
    [curve], refused = stored_curves(tests, ["search"], 7, 50, 0)
    assert not refused
    truth = Curve("search", 28_000, 10_500, 0, 0, 0, 21_000)
    assert (curve.low, curve.high) == (0.0, 21_000.0)
    assert curve.slope(7_000) == pytest.approx(truth.slope(7_000), rel=0.03)


def test_channels_without_a_curve_have_the_sentence_why() -> None:
    single = [stored("a", (0, 700))]
    mixed = [stored("d", (0, 700), channel="mail"), stored("e", (700, 1500), channel="mail", currency="USD")]
    gone = [stored("g", (0, 700), channel="radio", is_withdrawn=True)]
    curves, refused = stored_curves([*single, *mixed, *gone], ["search", "mail", "radio"], 1, 50, 0)
    assert not curves
    assert "one change of spend gives the return of that change and no curve" in refused[0]
    assert "mail: its experiments are in EUR and USD; one is needed" in refused[1]
    assert "radio: no experiment with an effect is stored" in refused[2]


def test_the_smallest_effect_is_that_of_the_normal_quantiles() -> None:
    assert smallest_effect(100.0) == pytest.approx((1.644854 + 0.841621) * 100, abs=0.01)
    assert smallest_effect(100.0, 0.95, 0.9) == pytest.approx((1.959964 + 1.281552) * 100, abs=0.01)


def test_a_short_test_sees_the_mean_of_the_cumulative_weights() -> None:
    for carry_over, days in ((0.5, 4), (0.9, 28), (0.0, 14)):
        weights = (1 - carry_over) * carry_over ** np.arange(days)
        assert carried_share(carry_over, days) == pytest.approx(np.cumsum(weights).mean())
    assert carried_share(0.5, 4) == pytest.approx(0.765625)
    [each] = powers([(4, 10.0)], 1000.0, 0.9, 0.8, 0.5)
    assert each.detectable == pytest.approx(smallest_effect(10.0) / 0.765625)
    assert each.share == pytest.approx(each.detectable / 1000.0)


def test_the_error_of_a_test_by_person_is_that_of_simulated_tests() -> None:
    random = np.random.default_rng(3)
    bought = np.exp(random.normal(3.0, 0.8, 4000)) * (1 + random.poisson(0.5, 4000))
    arms = random.random((3000, 4000)) < 0.3
    found = [(bought[arm].sum() / 0.3 - bought[~arm].sum() / 0.7) / 28 for arm in arms]
    assert person_error(float((bought**2).sum()), 28, 0.3) == pytest.approx(np.std(found), rel=0.05)


def sales_of(random: np.random.Generator, days: int, noise: float) -> Any:
    weekday = 1.0 + 0.3 * np.sin(np.arange(days) % 7)
    trend = np.linspace(1.0, 1.2, days)
    return 1000.0 * weekday * trend + random.normal(0.0, noise, days)


@pytest.mark.parametrize("block", [3, 7])
def test_the_error_of_a_switchback_comes_from_its_noise_and_neither_from_weekdays_nor_growth(block: int) -> None:
    sales = sales_of(np.random.default_rng(5), 365, 50.0)
    found = switchback_error(sales, 56, block)
    pairs = 56 // block // 2
    assert found == pytest.approx(50.0 * np.sqrt(2.0 / block / pairs), rel=0.2)
    assert switchback_error(sales[:50], 56, block) is None
    assert switchback_error(sales, 14, 7) is None  # two blocks


def test_eight_of_ten_switchbacks_find_the_effect_that_is_called_detectable() -> None:
    """The planted effect is found by 80 %, and by about 10 % where there is none."""
    random = np.random.default_rng(11)
    past = sales_of(random, 200, 60.0)
    error = switchback_error(past, 56, 7)
    assert error is not None
    for effect, share in ((smallest_effect(error), 0.8), (0.0, 0.1)):
        found = 0
        for _ in range(600):
            weeks = sales_of(random, 56, 60.0).reshape(8, 7).mean(axis=1).reshape(4, 2)
            coin = np.where(random.random(4) < 0.5, 1.0, -1.0)
            measured = ((weeks[:, 1] - weeks[:, 0]) * coin).mean() + effect
            found += abs(measured) > 1.644854 * error
        assert found / 600 == pytest.approx(share, abs=0.1)


def test_the_error_by_region_falls_with_more_regions_and_needs_a_past() -> None:
    random = np.random.default_rng(7)
    size = np.exp(random.normal(6.0, 0.5, 40))[:, None]
    sales = size * (1.0 + 0.2 * np.sin(np.arange(120) / 9.0))[None] * np.exp(random.normal(0.0, 0.3, (40, 120)))
    many, few = region_error(sales, 28), region_error(sales[:8], 28)
    assert many is not None
    assert few is not None
    assert many / sales.sum() < few / sales[:8].sum()
    assert region_error(sales, 84) is None
    assert region_error(sales[:3], 14) is None
