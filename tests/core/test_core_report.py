"""What an analysis says: unknown numbers, and rows that sum to the input."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from attributary.attribution_core import analyze
from attributary.attribution_core.tables.experiments import read_experiments

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
def test_without_conversions_every_share_is_unknown(model: str) -> None:
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
    (document,) = analyze(NO_VALUE, ["linear"], experiments=lifts, draws=20)["linear"].diagnostics["calibration"]
    assert document["status"].startswith("unavailable: ")
    assert document["channels"] == []


def one_by_one(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The same journeys, a row each: only then it is known how values vary."""
    rows = [
        row
        for path, won, value, lost in zip(*columns.values(), strict=True)
        for row in [(path, 1, value / won, 0)] * won + [(path, 0, 0, 1)] * lost
    ]
    return dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))


def timed(people: int = 60) -> dict[str, list[Any]]:
    """Events of people who see a search, then a mail; two of three convert, one in four of these without a touch."""
    rows: list[tuple[str, int, str, int, int | None]] = []
    for number in range(people):
        start = number * 3_000
        if number % 4:
            rows += [(f"u{number}", start, "search", 0, None), (f"u{number}", start + 90_000, "mail", 0, None)]
        if number % 3 or not number % 4:
            rows.append((f"u{number}", start + 95_000 + 60_000 * (number % 5), "", 1, 10 + number % 7))
    names = ("user", "time", "channel", "conversion", "value")
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


@pytest.mark.parametrize(
    ("data", "models", "options"),
    [
        (COLUMNS, None, {}),
        (COLUMNS, ["markov_shapley"], {"baseline": ("mail",)}),
        (timed(), None, {}),
        (timed(), ["poisson"], {}),
    ],
    ids=["paths", "with a baseline", "events", "time-aware"],
)
def test_rows_of_every_model_sum_to_the_data(data: dict[str, list[Any]], models: Any, options: dict[str, Any]) -> None:
    result = analyze(data, models, **options)
    rows = result.rows()
    for report in result:
        own = [row for row in rows if row["model"] == report.model]
        assert {row["channel"] for row in own} >= {"(unattributed)"}
        assert ("(baseline)" in {row["channel"] for row in own}) == ("baseline" in report.diagnostics)
        for of in ("conversions", "value"):
            assert sum(row[of] for row in own) == pytest.approx(report.diagnostics[of])
        for of in ("share", "value_share"):
            assert sum(row[of] for row in own if row[of] is not None) == pytest.approx(1)
        assert sum(row["conversions"] for row in own if row["channel"] == "(unattributed)") > 0
        assert {row["model_status"] for row in own} == {report.diagnostics["status"]}


def test_the_time_aware_model_says_what_value_stays_with_its_baseline() -> None:
    report = analyze(timed(), ["poisson"])["poisson"]
    kept = report.diagnostics["baseline_value_share"]
    assert kept == pytest.approx(1 - sum(report.column("value_share")))
    assert kept != pytest.approx(report.diagnostics["baseline_share"])  # dear conversions are not all conversions
    assert 0 < kept < 1


def test_rows_hold_intervals_of_value_errors_and_fallbacks() -> None:
    result = analyze(one_by_one(COLUMNS), ["markov"], intervals=True, draws=40)
    mail, _, social, rest = result.rows()
    said = result["markov"].channels
    assert [mail["value_interval_low"], mail["value_interval_high"]] == said[0]["value_interval"]
    assert mail["standard_error"] == said[0]["standard_error"] > 0
    assert (mail["fallback_model"], mail["fallback_share"]) == (None, None)
    assert (social["fallback_model"], social["fallback_share"]) == ("linear", said[2]["fallback"]["share"])
    assert (rest["interval_low"], rest["status"], rest["calibrated_value"]) == (None, None, None)


def test_rows_hold_calibrated_value_where_value_was_measured() -> None:
    lifts = tuple(read_experiments({"channel": ["mail"], "value": [300], "standard_error": [40]}))
    mail, search, *_ = analyze(one_by_one(COLUMNS), ["linear"], experiments=lifts, draws=40).rows()
    assert (mail["calibrated_value"], mail["calibrated_value_by"]) == (pytest.approx(300), "measured")
    assert mail["calibrated_value_low"] < 300 < mail["calibrated_value_high"]
    assert (mail["calibrated_conversions"], mail["calibrated_by"]) == (None, None)
    assert search["calibrated_value_by"] == "uncalibrated"  # one experiment scales no other channel
