"""What an analysis says of its own numbers: unknown is unknown, and what is shaky is called so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from attributary.attribution_core import analyze, read_events
from attributary.attribution_core.domain.journeys import JourneyBatch, Outcomes
from attributary.attribution_core.models.markov_credit import MarkovModel, MarkovSettings
from attributary.attribution_core.models.model_set import ModelError
from attributary.attribution_core.statistics.forgetting import Forgetting, PeriodState, forget
from attributary.attribution_core.statistics.state import JourneyState

DAY_SECONDS = 86_400
PATHS: dict[str, list[Any]] = {
    "path": ["a > b", "b", "a"],
    "total_conversions": [300, 400, 200],
    "total_null": [100, 300, 500],
}
MODELS = ["markov", "linear", "shapley", "markov_journeys", "shapley_rate", "markov_shapley"]


@pytest.mark.parametrize("method", ["bootstrap", "fast"])
@pytest.mark.parametrize("model", MODELS)
def test_intervals_of_conversions_do_not_need_values(model: str, method: str) -> None:
    without, with_values = (
        analyze(columns, [model], intervals=True, draws=30, method=method)[model]
        for columns in (PATHS, {**PATHS, "total_conversion_value": [3, 4, 2]})
    )
    assert without.column("interval") == with_values.column("interval")
    assert all(low < high for low, high in without.column("interval"))
    assert without.diagnostics["draws"] in (0, 30)
    assert without.diagnostics["value_status"] == "unavailable: no values"


def test_the_method_of_the_intervals_is_named() -> None:
    def used(model: str, **options: Any) -> tuple[str, int]:
        diagnostics = analyze(PATHS, [model], intervals=True, draws=20, **options)[model].diagnostics
        return diagnostics["interval_method"], diagnostics["draws"]

    assert used("markov") == ("bootstrap", 20)
    assert used("markov", method="fast") == ("dirichlet", 20)
    assert used("linear", method="fast") == ("closed form", 0)
    assert used("markov", method="fast", order=2) == ("bootstrap", 20)


def test_rows_that_sum_up_values_have_no_interval_of_value() -> None:
    columns = {**PATHS, "total_conversion_value": [3, 4, 2]}
    report = analyze(columns, ["linear"], intervals=True, draws=20)["linear"].to_dict()
    assert [row["value_interval"] for row in report["channels"]] == [None, None]
    assert "rows sum up the values" in report["diagnostics"]["value_interval_note"]
    single = columns | {"total_conversions": [1, 1, 1]}
    known = analyze(single, ["linear"], intervals=True, draws=20)["linear"]
    assert "value_interval_note" not in known.diagnostics
    assert all(row["value_interval"][0] < row["value_interval"][1] for row in known.channels)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "method"), [("markov", "fast"), ("markov", "bootstrap"), ("linear", "fast")])
def test_intervals_of_value_cover_the_truth_of_single_journeys(model: str, method: str) -> None:
    """Heavy-tailed values of single conversions; the truth is the share in a very large sample."""

    def sample(number: int, seed: int) -> dict[str, list[Any]]:
        generator = np.random.default_rng(seed)
        paths = np.array(["a", "b", "a > b", "b > c", "c", "c > a"])[generator.integers(0, 6, number)]
        converted = generator.random(number) < 0.4
        values = np.where(converted, generator.lognormal(3, 1.2, number), 0.0).round(2)
        return {
            "path": paths.tolist(),
            "total_conversions": converted.astype(int).tolist(),
            "total_conversion_value": values.tolist(),
            "total_null": (~converted).astype(int).tolist(),
        }

    truth = analyze(sample(300_000, 1), [model])[model].column("value_share")
    repeats, inside = 60, 0
    for repeat in range(repeats):
        found = analyze(sample(1_000, 100 + repeat), [model], intervals=True, draws=100, method=method)[model]
        inside += sum(
            low < share < high for (low, high), share in zip(found.column("value_interval"), truth, strict=True)
        )
    assert 0.82 < inside / (3 * repeats) < 0.97


def test_a_chain_of_forgotten_journeys_can_still_be_drawn() -> None:
    """A loop that few effective journeys ran through has drawn exits of 0: the walk must end all the same."""
    half_life = 7 * DAY_SECONDS * 1_000_000
    recent = JourneyState.fit(
        JourneyBatch.of_paths([["a", "b"]] * 300 + [["a"]] * 700),
        Outcomes.of([True] * 300 + [False] * 700, [0] * 1_000),
    )
    old = JourneyState.fit(JourneyBatch.of_paths([["c", "d", "c"]]), Outcomes.of([False], [0]))
    faded = forget([PeriodState(100 * half_life, recent), PeriodState(95 * half_life, old)], Forgetting(half_life))
    plain = MarkovModel.train("v", recent)
    for seed in range(20):
        settings = MarkovSettings(seed=seed, journeys_per_count=faded.journeys_per_count)
        model = MarkovModel.train("v", faded.state, settings)
        assert np.isfinite(model.draws).all()
        assert ((model.draws >= 0) & (model.draws <= 1 + 1e-9)).all()
        assert model.effects[:2] == pytest.approx(plain.effects, abs=1e-3)


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ([10, 20, 30], "ok"),
        ([0, 0, 0], "unavailable: no values"),
        ([10.1, -10.1, 0], "unavailable: refunds cancel the values"),
        ([10.3, -10.2, 0], "unstable: refunds leave 0.5% of the values, shares are of that"),
        ([10, 20, -5], "ok"),
    ],
)
@pytest.mark.parametrize("order", [1, 2])
def test_a_net_value_that_refunds_nearly_cancel_is_called_so(values: list[float], status: str, order: int) -> None:
    result = analyze({**PATHS, "total_conversion_value": values}, ["markov"], order=order)
    report = result["markov"]
    assert report.diagnostics["value_status"] == status
    assert {row["value_status"] for row in result.rows()} == {status}
    shown = " ".join(str(result).split())
    assert (f"value: {status}" in shown) == (status not in {"ok", "unavailable: no values"})
    effects = report.column("removal_effect_value")
    assert all(effect is None for effect in effects) == status.startswith("unavailable")
    assert all(0 <= effect <= 1 for effect in report.column("removal_effect"))


def test_a_chain_with_more_states_than_journeys_is_called_so() -> None:
    names = "abcdefgh"
    columns: dict[str, list[Any]] = {
        "path": [" > ".join(names[place:] + names[:place]) for place in range(8)],
        "total_conversions": [1] * 8,
        "total_null": [0] * 7 + [1],
    }
    assert analyze(columns, ["markov"], minimum_conversions=1)["markov"].diagnostics["status"] == "ok"
    status = analyze(columns, ["markov"], order=3, minimum_conversions=1)["markov"].diagnostics["status"]
    assert status == "insufficient data: order 3 has 24 states for 9 journeys"


def events(rows: Sequence[tuple[str, float, str, int]]) -> dict[str, list[Any]]:
    user, day, channel, conversion = zip(*rows, strict=True)
    return {
        "user": list(user),
        "time": [when * DAY_SECONDS for when in day],
        "channel": list(channel),
        "conversion": list(conversion),
        "value": [10 * flag for flag in conversion],
    }


def test_a_touch_at_the_moment_of_the_conversion_is_no_exposure() -> None:
    """No time is watched between the two: taken for an exposure, any rate at all would fit."""
    rows = [row for n in range(100) for row in ((f"u{n}", 0, "search", 0), (f"u{n}", 4, "checkout", 1))]
    rows += [(f"n{n}", 0, ("search", "checkout")[n % 2], 0) for n in range(600)] + [("end", 60, "search", 0)]
    rows += [row for n in range(60) for row in ((f"b{n}", 0, "mail", 0), (f"b{n}", 40, "", 1))]
    report = analyze(read_events(events(rows)), ["poisson"])["poisson"]
    assert report.diagnostics["conversions_at_a_touch"] == 100
    checkout, _, search = report.channels
    assert checkout["rate_ratio_0_1_days"] < 2
    assert 1 < search["rate_ratio_1_7_days"] < 100
    assert "e^" not in report.diagnostics["status"]
    nothing = [(f"u{n}", 4, "checkout", 1) for n in range(100)] + [("end", 30, "search", 0)]
    alone = analyze(read_events(events(nothing)), ["poisson"])["poisson"]
    assert alone.column("share") == [None, None]
    status = "unavailable: no rates can be fitted, no conversion came after a touch (100 at its very moment)"
    assert alone.diagnostics["status"] == status
    drawn = analyze(read_events(events(nothing)), ["poisson"], intervals=True, draws=5)["poisson"]
    assert (drawn.diagnostics["interval_method"], drawn.diagnostics["draws"]) == (None, 0)


def test_rates_that_nobody_could_believe_are_called_so() -> None:
    soon = [row for n in range(100) for row in ((f"u{n}", 0, "search", 0), (f"u{n}", 0.0001, "", 1))]
    soon += [(f"m{n}", 0, "mail", 0) for n in range(100)] + [("end", 30, "mail", 0)]
    report = analyze(read_events(events(soon)), ["poisson"])["poisson"]
    assert report.diagnostics["status"].startswith("unstable: a fitted rate ratio is e^")
    # touches keep people from converting: the rate without them is above the rate with them
    late = [(f"s{n}", 0, "search", 0) for n in range(400)]
    late += [(f"s{n}", 10 + n, "", 1) for n in range(20)] + [(f"s{n}", 31 + n % 9, "", 1) for n in range(20, 70)]
    found = analyze(read_events(events([*late, ("end", 40, "mail", 0)])), ["poisson"])["poisson"]
    assert found.diagnostics["baseline_share"] > 1
    assert found.diagnostics["status"].startswith("unstable: shares beyond 100 %")


def test_a_short_lookback_is_not_for_the_model_that_has_its_own() -> None:
    """Left out touches would cut the time that people who converted were watched, and no other's."""
    rows = [row for n in range(40) for row in ((f"u{n}", 0, "search", 0), (f"u{n}", 5 + n % 9, "", 1))]
    columns = events([*rows, ("end", 30, "mail", 0)])
    with pytest.raises(ModelError, match="poisson has a lookback of its own, 30 days"):
        analyze(columns, ["poisson"], lookback_days=3)
    assert "poisson" not in [report.model for report in analyze(columns, lookback_days=3)]
    assert "poisson" in [report.model for report in analyze(columns, lookback_days=30)]


@pytest.mark.parametrize("method", ["bootstrap", "fast"])
@pytest.mark.parametrize("model", MODELS)
def test_a_refund_of_nobodys_conversion_takes_part_in_no_share(model: str, method: str) -> None:
    rows = [row for n in range(40) for row in ((f"u{n}", 0, "ab"[n % 2], 0), (f"u{n}", 5, "", 1))]
    rows += [(f"n{n}", 0, "ab"[n % 3 // 2], 0) for n in range(60)]
    plain = events([*rows, ("late", 9, "", 1)])
    refunded = {**plain, "value": [*plain["value"][:-1], -10]}
    options: dict[str, Any] = {"intervals": True, "draws": 20, "method": method}
    report = analyze(refunded, [model], **options)[model]
    assert report.diagnostics["refunds_without_conversion"] == 1
    assert report.diagnostics["unattributed_value"] == -10
    assert report.diagnostics["conversions"] == 40
    assert report.column("share") == analyze(plain, [model], **options)[model].column("share")
    assert all(low <= high for low, high in report.column("interval"))
