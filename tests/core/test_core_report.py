"""What an analysis says: unknown numbers, rows that sum to the input, a table that fits."""

import math
from collections.abc import Iterator
from typing import Any

import pytest

from attributary.attribution_core import analyze
from attributary.attribution_core.lifts import ExperimentError, read_experiments

COLUMNS: dict[str, list[Any]] = {
    "path": ["search > mail", "mail", "search", "social > search > mail", "social", ""],
    "total_conversions": [30, 20, 10, 15, 2, 4],
    "total_conversion_value": [300, 200, 100, 150, 20, 40],
    "total_null": [50, 90, 200, 60, 300, 7],
}
NO_VALUE = {name: column for name, column in COLUMNS.items() if name != "total_conversion_value"}
NO_CONVERSIONS = {"path": COLUMNS["path"], "total_null": COLUMNS["total_null"], "total_conversions": [0] * 6}
MODELS = ("linear", "markov", "shapley", "shapley_rate", "markov_shapley")


def leaves(value: Any) -> Iterator[Any]:
    """Every cell of a report."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from leaves(each)
    else:
        yield value


@pytest.mark.parametrize("model", MODELS)
def test_without_values_a_channels_value_is_unknown_in_every_model(model: str) -> None:
    report = analyze(NO_VALUE, [model], intervals=True, draws=20)[model]
    for row in report.channels:
        assert (row["value"], row["value_share"], row["value_interval"]) == (None, None, None)
        low, high = row["interval"]
        assert low <= high  # what is not known of value takes nothing from conversions
        assert row["standard_error"] >= 0
    assert report.diagnostics["value"] is None
    assert report.diagnostics["unattributed_value"] is None
    assert sum(report.column("conversions")) == pytest.approx(77)


@pytest.mark.parametrize("model", MODELS)
def test_without_conversions_what_a_channel_receives_is_unknown_in_every_model(model: str) -> None:
    report = analyze(NO_CONVERSIONS, [model], intervals=True, draws=20)[model]
    unknown = {"conversions", "value", "share", "value_share", "interval", "value_interval", "standard_error"}
    unknown |= {"removal_effect", "removal_effect_value", "shapley", "shapley_error", "spread_over_models"}
    for row in report.channels:
        assert {row[name] for name in unknown & set(row)} == {None}
        assert row["conversions_with"] == 0  # this is known
        assert row["fallback"] == {"model": "linear", "share": None}
    assert report.diagnostics["conversions"] == 0
    assert report.diagnostics["confidence"] is None


def test_values_that_cancel_out_are_known_although_their_shares_are_not() -> None:
    columns: dict[str, list[Any]] = {
        "path": ["a", "b"],
        "total_conversions": [5, 5],
        "total_conversion_value": [10, -10],
    }
    report = analyze(columns, ["linear"])["linear"]
    assert report.column("value") == [10.0, -10.0]
    assert report.column("value_share") == [None, None]
    assert report.diagnostics["value"] == 0.0


@pytest.mark.parametrize("columns", [COLUMNS, NO_VALUE, NO_CONVERSIONS], ids=["full", "no value", "no conversions"])
def test_reports_hold_plain_python_and_nothing_that_is_no_number(columns: dict[str, list[Any]]) -> None:
    for report in analyze(columns, intervals=True, draws=20):
        for cell in leaves([report.channels, report.diagnostics]):
            assert type(cell) in {int, float, str, bool, type(None)}, (report.model, cell)
            assert not isinstance(cell, float) or math.isfinite(cell)


def test_an_experiment_on_value_needs_values() -> None:
    lifts = tuple(read_experiments({"channel": ["mail"], "value": [70], "standard_error": [10]}))
    with pytest.raises(ExperimentError, match="linear: the data have no value"):
        analyze(NO_VALUE, ["linear"], experiments=lifts, draws=20)
