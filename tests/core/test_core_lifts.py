import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from attributary.attribution_core import analyze
from attributary.attribution_core.lifts import (
    Experiment,
    ExperimentError,
    Totals,
    calibrate_totals,
    calibration_document,
    read_experiments,
)
from attributary.cli.main import app

DAY = 86_400_000_000
PATHS: dict[str, list[Any]] = {
    "path": ["social > search > mail", "search > mail", "mail", "search", "social", "social > search"],
    "total_conversions": [60, 90, 45, 40, 2, 10],
    "total_conversion_value": [3000, 4500, 900, 800, 40, 400],
    "total_null": [140, 300, 400, 900, 700, 500],
}
TOTALS = Totals(("mail", "search"), np.array([100.0, 50.0]), np.array([4.0, 3.0]), 200.0, 0, 40 * DAY)


def columns(**cells: Any) -> dict[str, list[Any]]:
    return {name: [cell] for name, cell in ({"channel": "mail", "standard_error": 5.0} | cells).items()}


@pytest.mark.parametrize(
    ("cells", "rule"),
    [
        ({}, "one of the columns conversions, value, share must be there"),
        ({"conversions": 1, "share": 0.2}, "row 1: one of conversions, value, share must be given"),
        ({"conversions": "many"}, "row 1: conversions: must be a number"),
        ({"conversions": 1, "standard_error": 0}, "row 1: standard_error: must be positive"),
        ({"conversions": 1, "channel": " "}, "row 1: channel: must not be empty"),
        ({"conversions": 1, "from": "2026-01-01"}, "row 1: from and to: both or none"),
        ({"conversions": 1, "from": "soon", "to": "later"}, "row 1: from: must be an ISO 8601 time"),
    ],
)
def test_what_cannot_be_read_is_named(cells: dict[str, Any], rule: str) -> None:
    with pytest.raises(ExperimentError, match=rule):
        read_experiments(columns(**cells))
    with pytest.raises(ExperimentError, match="the column channel is missing"):
        read_experiments({"conversions": [1]})
    with pytest.raises(ExperimentError, match="there is no row"):
        read_experiments({"channel": [], "standard_error": [], "share": []})


def test_times_and_empty_cells_are_read() -> None:
    (found,) = read_experiments(
        columns(conversions="", value=float("nan"), share="0.2", **{"from": "1970-01-02", "to": str(10 * DAY)})
    )
    assert found == Experiment("mail", "share", 0.2, 5.0, DAY, 10 * DAY)
    (zoned,) = read_experiments(columns(value=3, **{"from": "1970-01-02T01:00:00+01:00", "to": "1970-01-03"}))
    assert (zoned.since, zoned.until) == (DAY, 2 * DAY)


def test_amounts_are_carried_to_the_time_of_the_totals_and_shares_are_not() -> None:
    quarter = Experiment("mail", "conversions", 15.0, 2.5, 10 * DAY, 20 * DAY)
    found = calibrate_totals(TOTALS, [quarter], "conversions")
    assert found.channels[0].calibrated == pytest.approx(60)
    assert found.channels[0].basis == "measured"
    assert found.channels[1].basis == "uncalibrated"  # one experiment says nothing about another channel
    document = calibration_document(TOTALS, [quarter], "conversions")
    assert document["experiments"][0]["carried"] == 4
    assert document["between"] is None
    assert document["channels"][0]["share"] == pytest.approx(0.3)
    json.dumps(document, allow_nan=False)
    share = calibrate_totals(TOTALS, [Experiment("mail", "share", 0.3, 0.05, 10 * DAY, 20 * DAY)], "conversions")
    assert share.channels[0].calibrated == pytest.approx(60)
    for since, until in ((-DAY, DAY), (39 * DAY, 41 * DAY)):
        with pytest.raises(ExperimentError, match="outside the time"):
            calibrate_totals(TOTALS, [Experiment("mail", "conversions", 1, 1, since, until)], "conversions")
    endless = Totals(TOTALS.channels, TOTALS.amounts, TOTALS.errors, 200.0)
    with pytest.raises(ExperimentError, match="no begin or no end"):
        calibrate_totals(endless, [quarter], "conversions")


def test_several_experiments_of_a_channel_are_averaged_by_precision_and_the_error_is_carried_through() -> None:
    several = [Experiment("mail", "conversions", 40, 10), Experiment("mail", "conversions", 60, 10)]
    one = calibrate_totals(TOTALS, [Experiment("mail", "conversions", 50, 10 / np.sqrt(2))], "conversions")
    averaged = calibrate_totals(TOTALS, several, "conversions").channels[0]
    assert averaged.interval == pytest.approx(one.channels[0].interval, rel=1e-12)
    exact = Totals(TOTALS.channels, TOTALS.amounts, np.zeros(2), 200.0)
    narrower = calibrate_totals(exact, several, "conversions").channels[0]
    assert narrower.standard_error == pytest.approx(10 / np.sqrt(2))
    assert narrower.standard_error < one.channels[0].standard_error  # the model's own error counts as well
    with pytest.raises(ExperimentError, match="none of them measured value"):
        calibrate_totals(TOTALS, several, "value")
    with pytest.raises(ExperimentError, match="no channel 'radio'"):
        calibrate_totals(TOTALS, [Experiment("radio", "share", 0.1, 0.1)], "conversions")


def test_an_analysis_puts_calibrated_totals_beside_its_own() -> None:
    lifts = tuple(
        read_experiments({"channel": ["mail", "search"], "conversions": [70, 48], "standard_error": [10, 12]})
    )
    result = analyze(PATHS, ["markov", "last"], experiments=lifts, draws=50)
    for report in result:
        (found,) = report.diagnostics["calibration"]
        assert [row["basis"] for row in found["channels"]] == ["measured", "measured", "borrowed"]
        mail = report.channels[0]["calibrated_conversions"]
        assert mail["calibrated"] == pytest.approx(70)
        assert mail["interval"][0] < 70 < mail["interval"][1]
        assert report.channels[0]["conversions"] != pytest.approx(70)  # the model's own number stays
    rows = result.rows()
    assert (rows[0]["calibrated_by"], rows[0]["calibrated_conversions"]) == ("measured", pytest.approx(70))
    assert "left to no channel" in str(result)
    plain = analyze(PATHS, ["markov"]).rows()[0]
    assert (plain["calibrated_by"], plain["calibrated_conversions"]) == (None, None)


def test_an_interval_is_never_without_model_dependence_even_for_one_model() -> None:
    row = analyze(PATHS, ["markov"], intervals=True, draws=20)["markov"].channels[0]
    assert row["spread_over_models"] > row["interval"][1] - row["interval"][0]
    assert analyze(PATHS, ["markov"])["markov"].channels[0]["spread_over_models"] is None


def test_the_command_line_says_the_same(tmp_path: Path) -> None:
    file, lift = tmp_path / "paths.csv", tmp_path / "lift.csv"
    lines = [",".join(map(str, row)) for row in zip(*PATHS.values(), strict=True)]
    file.write_text("\n".join([",".join(PATHS), *lines]), encoding="utf-8")
    lift.write_text("channel,conversions,standard_error\nmail,70,10\nsearch,48,12\n", encoding="utf-8")

    def run(*options: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["analyze", str(file), "--draws", "50", *options])
        assert result.exit_code == code, result.output
        return result.output

    both = ("--calibrate", str(lift), "--insights")
    shown = run("--model", "markov", *both)
    assert "measured" in shown
    assert "associations, not causes" in shown
    assert "channel.opener_closer" in shown
    document = json.loads(run("--model", "markov", *both, "--format", "json"))
    assert set(document) == {"model", "version", "channels", "diagnostics"}
    assert document["diagnostics"]["calibration"][0]["of"] == "conversions"
    assert all(each["text"] for each in document["diagnostics"]["insights"])
    assert "calibrated_low" in run("--format", "csv", "--calibrate", str(lift))
    run("--format", "csv", "--insights", code=2)
    lift.write_text("channel,conversions,standard_error\nradio,70,10\n", encoding="utf-8")
    assert "no channel 'radio'" in run(*both, code=2)


def test_events_need_no_reader_of_their_own() -> None:
    events = [
        {"user": "a", "time": 0, "channel": "mail"},
        {"user": "a", "time": 86_400, "channel": "search"},
        {"user": "a", "time": 90_000, "channel": "", "conversion": True, "value": 5},
        {"user": "b", "time": 0, "channel": "mail"},
    ]
    for data in (events, {name: [row.get(name) for row in events] for name in events[2]}):
        result = analyze(data, ["last"])
        assert [row["conversions"] for row in result["last"].channels] == [0, 1]
