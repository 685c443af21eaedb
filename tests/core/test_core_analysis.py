from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from attributary.attribution_core import analyze
from attributary.attribution_core.analysis.analyze import ANALYSES
from attributary.attribution_core.domain.journeys import ChannelIndex
from attributary.attribution_core.models.model_set import ModelError
from attributary.attribution_core.models.shapley import sampled_rate_values
from attributary.attribution_core.tables.paths import TableError

COLUMNS: dict[str, list[Any]] = {
    "path": ["search > mail", "mail", "search", "social > search > mail", "social", ""],
    "total_conversions": [30, 20, 10, 15, 2, 4],
    "total_conversion_value": [300, 200, 100, 150, 20, 40],
    "total_null": [50, 90, 200, 60, 300, 7],
}


class Frame:
    """What pandas' and polars' frames have in common: names of columns, and columns by name."""

    def __contains__(self, name: str) -> bool:
        return name in COLUMNS

    def __getitem__(self, name: str) -> list[Any]:
        return COLUMNS[name]


def test_three_lines_are_enough() -> None:
    result = analyze(COLUMNS)
    assert {report.model for report in result} == set(ANALYSES) - {"time_decay", "poisson"}
    for report in result:
        assert sum(report.column("conversions")) == pytest.approx(77)
        assert sum(report.column("value")) == pytest.approx(770)
        assert sum(report.column("share")) == pytest.approx(1)
        assert report.diagnostics["unattributed_conversions"] == 4
        assert report.diagnostics["unattributed_value"] == 40
        assert report.diagnostics["journeys"] == 81 + 707
    assert "search" in str(result)
    assert len(result.rows()) == (3 + 1) * len(result.models)  # channels and what is unattributed
    with pytest.raises(KeyError):
        result["time_decay"]


def test_rows_columns_and_frames_give_the_same_numbers() -> None:
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in zip(*COLUMNS.values(), strict=True)]
    assert analyze(rows, ["markov"]).to_json() == analyze(COLUMNS, ["markov"]).to_json()
    framed = analyze(Frame(), ["markov"])  # type: ignore[arg-type]
    assert framed.to_json() == analyze(COLUMNS, ["markov"]).to_json()


def test_intervals_contain_the_share_and_say_how_sure_they_are() -> None:
    for method in ("bootstrap", "fast"):
        result = analyze(COLUMNS, ["linear", "markov", "shapley"], intervals=True, method=method, draws=60)
        for report in result:
            for row in report.channels:
                low, high = row["interval"]
                assert low <= row["share"] <= high
        assert 0.8 < result["markov"].diagnostics["confidence"] < 1
        assert result["linear"].diagnostics["confidence"] is None  # a rule, not an estimate
    again = analyze(COLUMNS, ["markov"], intervals=True, draws=60, seed=0)
    assert again.to_json() == analyze(COLUMNS, ["markov"], intervals=True, draws=60).to_json()
    assert again.to_json() != analyze(COLUMNS, ["markov"], intervals=True, draws=60, seed=1).to_json()


def test_rare_channels_and_small_data_say_so_and_name_the_fallback() -> None:
    result = analyze(COLUMNS, ["markov", "linear"])
    social = next(row for row in result["markov"].channels if row["channel"] == "social")
    assert social["status"] == "insufficient data"
    assert social["fallback"]["model"] == "linear"
    linear = next(row for row in result["linear"].channels if row["channel"] == "social")
    assert social["fallback"]["share"] == pytest.approx(linear["share"])
    assert social["spread_over_models"] == pytest.approx(abs(social["share"] - linear["share"]))
    few = analyze({"path": ["a"], "total_conversions": [3], "total_null": [3]}, ["markov"])
    assert few["markov"].diagnostics["status"].startswith("insufficient data")


def test_models_with_a_baseline_take_no_part_in_model_dependence() -> None:
    """What they name is another whole: a channel that is all baseline would be "apart" for that reason alone."""
    models = ["last", "linear"]
    wanted = analyze(COLUMNS, models)["last"].column("spread_over_models")
    found = analyze(COLUMNS, [*models, "markov_shapley"], baseline=("mail",))
    for report in found:
        assert report.column("spread_over_models") == wanted
    mail = next(row for row in found["markov_shapley"].channels if row["channel"] == "mail")
    assert mail["share"] == 0
    without = analyze(COLUMNS, ["last", "markov_shapley"])["last"].column("spread_over_models")
    assert None not in without  # no baseline: it names the same whole and takes part
    alone = analyze(COLUMNS, ["markov_shapley"], baseline=("mail",))["markov_shapley"]
    assert set(alone.column("spread_over_models")) == {None}


def test_no_conversions_is_unavailable_and_no_nulls_is_flagged() -> None:
    columns: dict[str, list[Any]] = {"path": ["a > b", "b"], "total_conversions": [0, 0], "total_null": [5, 6]}
    none = analyze(columns, intervals=True, draws=20)
    for report in none:
        assert report.diagnostics["status"] == "unavailable: no conversions"
        assert all(row["share"] is None for row in report.to_dict()["channels"])
    all_ = analyze({"path": ["a > b", "b"], "total_conversions": [50, 60]}, ["markov"])
    assert all_["markov"].diagnostics["status"].startswith("conversions only")
    nothing = analyze({"path": [], "total_conversions": []})
    assert all(report.channels == [] for report in nothing)


def test_shapley_reports_pairs_and_places() -> None:
    diagnostics = analyze(COLUMNS, ["shapley"])["shapley"].diagnostics
    strongest = diagnostics["interactions"][0]
    assert strongest["channels"] == ["mail", "search"]
    assert strongest["index"] == pytest.approx(30 + 15 / 2)
    assert diagnostics["by_place"]["social"][0] == pytest.approx(15 / 3 + 2)
    rows = analyze(COLUMNS, ["shapley"])["shapley"].channels
    for row in rows:
        assert sum(diagnostics["by_place"][row["channel"]]) == pytest.approx(row["shapley"])


def test_baseline_keeps_what_it_would_bring_alone() -> None:
    result = analyze(COLUMNS, ["markov_shapley"], baseline=("mail",))
    report = result["markov_shapley"]
    kept = report.diagnostics["baseline_share"]
    assert 0 < kept < 1
    assert sum(report.column("share")) == pytest.approx(1 - kept)
    assert "given to nobody" in str(result)


def test_reconciliation_names_what_no_journey_credit_can_reach() -> None:
    columns: dict[str, list[Any]] = {"path": ["a", "b > c", "b", "c"], "total_conversions": [90, 5, 3, 2]}
    columns["total_null"] = [0, 50, 100, 80]
    report = analyze(columns, ["markov"])["markov"].diagnostics["reconciliation"]
    assert report["infeasible"] == ["a"]
    assert "cannot be the sum of per-journey credits" in report["text"]


def test_models_and_options_are_checked() -> None:
    with pytest.raises(ModelError, match="no model 'best'"):
        analyze(COLUMNS, ["best"])
    with pytest.raises(ModelError, match="needs times"):
        analyze(COLUMNS, ["time_decay"])
    with pytest.raises(TypeError):
        analyze(COLUMNS, speed=1)
    with pytest.raises(TableError):
        analyze({"path": ["a"]})


@pytest.mark.parametrize("channels", [16, 24])
def test_the_rate_game_is_exact_up_to_20_channels_and_sampled_beyond(channels: int) -> None:
    names = [f"channel {number:02}" for number in range(channels)]
    rows = channels + 14
    columns: dict[str, list[Any]] = {
        "path": [" > ".join(names[first : first + 3]) for first in range(14)] + names,
        "total_conversions": [5 + number for number in range(rows)],
        "total_null": [90 - number for number in range(rows)],
    }
    report = analyze(columns, ["shapley_rate"])["shapley_rate"]
    assert sum(report.column("conversions")) == pytest.approx(sum(columns["total_conversions"]))
    assert report.to_dict() == analyze(columns, ["shapley_rate"])["shapley_rate"].to_dict()
    sets: dict[tuple[str, ...], tuple[int, int, int]] = {
        tuple(path.split(" > ")): (won, lost, 0) for path, won, lost in zip(*columns.values(), strict=True)
    }
    other = sampled_rate_values(sets, ChannelIndex.of(names), seed=9, max_pairs=500)
    apart = np.abs(np.array(report.column("shapley")) - other.values)
    errors = np.array(report.column("shapley_error"))
    assert (errors > 0).all() == (channels > 20)
    assert (apart < 4.5 * np.hypot(errors, other.errors)).all()


def test_the_table_says_what_is_rare_and_what_is_unavailable() -> None:
    text = str(analyze(COLUMNS, ["markov"]))
    assert "* insufficient data" in text
    assert "n/a" in str(analyze({"path": ["a"], "total_conversions": [0], "total_null": [9]}, ["markov"]))
    assert "no conversions" in str(analyze({"path": ["a"], "total_conversions": [0], "total_null": [9]}, ["markov"]))
