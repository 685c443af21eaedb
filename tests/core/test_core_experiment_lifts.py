from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from attributary.attribution_core import analyze
from attributary.attribution_core.analysis.experiment_lifts import (
    Totals,
    calibrate_totals,
    calibration_document,
    calibration_notes,
)
from attributary.attribution_core.tables.experiments import Experiment, ExperimentError, Measure, read_experiments
from attributary.cli.main import app

DAY = 86_400_000_000
PATHS: dict[str, list[Any]] = {
    "path": ["social > search > mail", "search > mail", "mail", "search", "social", "social > search"],
    "total_conversions": [60, 90, 45, 40, 2, 10],
    "total_conversion_value": [3000, 4500, 900, 800, 40, 400],
    "total_null": [140, 300, 400, 900, 700, 500],
}
ONE = Totals(("mail",), np.array([100.0]), np.zeros(1), 200.0)
TOTALS = Totals(("mail", "search"), np.array([100.0, 50.0]), np.array([4.0, 3.0]), 200.0, 0, 40 * DAY)


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


@pytest.mark.parametrize("measure", ["conversions", "share"])
def test_an_experiment_outside_the_window_is_refused(measure: Measure) -> None:
    for since, until in ((-DAY, DAY), (39 * DAY, 41 * DAY), (-900 * DAY, -890 * DAY)):
        with pytest.raises(ExperimentError, match="outside the time that the totals are of, 1970-01-01T00:00:00"):
            calibrate_totals(TOTALS, [Experiment("mail", measure, 0.1, 0.1, since, until)], "conversions")
    endless = Totals(TOTALS.channels, TOTALS.amounts, TOTALS.errors, 200.0)
    with pytest.raises(ExperimentError, match="no begin or no end"):
        calibrate_totals(endless, [Experiment("mail", measure, 0.1, 0.1, 10 * DAY, 20 * DAY)], "conversions")
    nearly = Experiment("mail", measure, 0.1, 0.1, -DAY // 24, 40 * DAY - DAY // 24)  # days of another time zone
    found = calibration_document(TOTALS, [nearly], "conversions")["experiments"][0]
    assert (found["carried"], round(found["inside"], 3)) == (1, 0.999)


def test_several_experiments_of_a_channel_are_averaged_by_precision() -> None:
    several = [Experiment("mail", "conversions", 44, 10), Experiment("mail", "conversions", 56, 10)]
    one = calibrate_totals(TOTALS, [Experiment("mail", "conversions", 50, 10 / np.sqrt(2))], "conversions")
    averaged = calibrate_totals(TOTALS, several, "conversions").channels[0]
    assert averaged.interval == pytest.approx(one.channels[0].interval, rel=1e-12)
    (repeated,) = calibration_document(TOTALS, several, "conversions")["repeated"]
    assert (repeated["channel"], repeated["experiments"], repeated["note"]) == ("mail", 2, None)
    assert repeated["q"] == pytest.approx(0.72)
    with pytest.raises(ExperimentError, match="none of them measured value"):
        calibrate_totals(TOTALS, several, "value")
    with pytest.raises(ExperimentError, match="no channel 'radio'"):
        calibrate_totals(TOTALS, [Experiment("radio", "share", 0.1, 0.1)], "conversions")


def test_contradicting_experiments_say_so_and_widen_the_interval() -> None:
    odd = [Experiment("mail", "conversions", 10, 2), Experiment("mail", "conversions", 90, 2)]
    document = calibration_document(TOTALS, odd, "conversions")
    mail, (repeated,) = document["channels"][0], document["repeated"]
    assert mail["calibrated"] == pytest.approx(50)
    assert mail["standard_error"] == pytest.approx(40)
    assert mail["interval"] == pytest.approx([50 - 6.314 * 40, 50 + 6.314 * 40])
    assert repeated["q"] == pytest.approx(800)
    assert "mail: its 2 experiments contradict each other (Q 800.0, expected 1)" in calibration_notes(document)[1]
    near = [Experiment("mail", "conversions", 40, 10), Experiment("mail", "conversions", 60, 10)]
    document = calibration_document(TOTALS, near, "conversions")
    assert document["channels"][0]["standard_error"] == pytest.approx(10)
    assert "differ by somewhat more" in calibration_notes(document)[1]


@pytest.mark.parametrize("experiments", [2, 3, 5])
def test_averages_of_experiments_cover_the_truth_as_the_module_says(experiments: int) -> None:
    generator = np.random.default_rng(8)
    for apart, least in ((0.0, 0.88), (2.0, 0.7), (10.0, 0.8)):
        hits = 0
        for _ in range(300):
            results = 50 + generator.normal(0, 5 * apart, experiments) + generator.normal(0, 5, experiments)
            several = [Experiment("mail", "conversions", float(result), 5) for result in results]
            low, high = calibrate_totals(ONE, several, "conversions").channels[0].interval
            hits += low <= 50 <= high
        assert least <= hits / 300 <= 0.96


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
    assert "associated with no channel: " in str(result)
    plain = analyze(PATHS, ["markov"]).rows()[0]
    assert (plain["calibrated_by"], plain["calibrated_conversions"]) == (None, None)


def test_a_share_is_of_all_conversions_those_without_a_touch_too() -> None:
    paths: dict[str, list[Any]] = {
        "path": ["mail > search", "mail", ""],
        "total_conversions": [300, 200, 500],
        "total_conversion_value": [300, 200, 500],
        "total_null": [900, 900, 1],
    }
    lifts = tuple(read_experiments({"channel": ["mail"], "share": [0.1], "standard_error": [0.01]}))
    (found,) = analyze(paths, ["linear"], experiments=lifts)["linear"].diagnostics["calibration"]
    mail, search = found["channels"]
    assert (mail["calibrated"], mail["share"]) == (pytest.approx(100), pytest.approx(0.1))
    assert found["remainder"] == pytest.approx(1_000 - 100 - 150)
    assert found["remainder_interval"][0] < 750 < found["remainder_interval"][1]
    assert search["standard_error"] == pytest.approx(0.011 * 500, rel=0.2)  # errors are of what has touches
    shown = " ".join(str(analyze(paths, ["linear"], experiments=lifts)).split())
    assert "associated with no channel: 750.0 [" in shown
    assert "if the uncalibrated totals of search are right" in shown


def test_the_note_names_five_uncalibrated_channels_none_without_credit() -> None:
    names = [f"c{number}" for number in range(8)]
    paths: dict[str, list[Any]] = {"path": [*names, "idle > c0"], "total_conversions": [*range(10, 90, 10), 5]}
    lifts = tuple(read_experiments({"channel": ["c7"], "conversions": [60], "standard_error": [5]}))
    shown = " ".join(str(analyze(paths, ["last"], experiments=lifts)).split())
    assert "if the uncalibrated totals of c6, c5, c4, c3, c2 and 2 more are right" in shown
    few: dict[str, list[Any]] = {"path": ["a", "b", "idle > a"], "total_conversions": [100, 100, 50]}
    lifts = tuple(read_experiments({"channel": ["b"], "conversions": [60], "standard_error": [5]}))
    shown = " ".join(str(analyze(few, ["last"], experiments=lifts)).split())
    assert "if the uncalibrated totals of a are right" in shown


def test_a_model_that_cannot_be_scaled_says_why_and_stops_no_other() -> None:
    paths: dict[str, list[Any]] = {
        "path": ["a > b", "c > b", "b"],
        "total_conversions": [50, 60, 70],
        "total_conversion_value": [50, 60, 70],
        "total_null": [100, 100, 100],
    }
    lifts = tuple(read_experiments({"channel": ["a", "b"], "conversions": [10, 90], "standard_error": [5, 20]}))
    result = analyze(paths, experiments=lifts, draws=30)
    assert len(result.models) > 8
    (last,), (linear,) = (result[name].diagnostics["calibration"] for name in ("last", "linear"))
    assert last["status"] == "unavailable: it gives nothing to 'a', so there is nothing to scale"
    assert (last["channels"], "calibrated_conversions" in result["last"].channels[0]) == ([], False)
    assert (linear["status"], linear["channels"][0]["basis"]) == ("ok", "measured")
    assert "last, conversions calibrated by 2 experiments: unavailable: it gives nothing to 'a'" in str(result)
    assert {row["calibrated_by"] for row in result.rows() if row["model"] == "last"} == {None}
    result.to_json()
    none: dict[str, list[Any]] = {"path": ["a > b"], "total_conversions": [0], "total_null": [100]}
    (found,) = analyze(none, ["linear"], experiments=lifts)["linear"].diagnostics["calibration"]
    assert "not known (unavailable: no conversions)" in found["status"]


def test_an_experiment_of_a_month_fits_the_events_of_the_month() -> None:
    events = month_of_events()
    cells: dict[str, list[Any]] = {
        "channel": ["mail"],
        "conversions": [40],
        "standard_error": [5],
        "from": ["2026-01-01"],
    }
    lifts = tuple(read_experiments(cells | {"to": ["2026-02-01"]}))
    (found,) = analyze(events, ["linear"], experiments=lifts)["linear"].diagnostics["calibration"]
    assert (found["experiments"][0]["carried"], found["experiments"][0]["inside"]) == (1, 1)
    assert found["channels"][0]["calibrated"] == pytest.approx(40)
    old = tuple(read_experiments(cells | {"from": ["2019-01-01"], "to": ["2019-02-01"]}))
    with pytest.raises(ExperimentError, match="totals are of, 2026-01-01T"):
        analyze(events, ["linear"], experiments=old)


def test_calibrated_value_goes_by_the_spread_of_value() -> None:
    events = month_of_events()
    lifts = tuple(read_experiments({"channel": ["mail"], "value": [900], "standard_error": [90]}))
    report = analyze(events, ["last"], experiments=lifts)["last"]
    (found,) = report.diagnostics["calibration"]
    search = report.channels[1]
    whole = report.diagnostics["value"]
    assert found["channels"][1]["standard_error"] == pytest.approx(search["value_standard_error"] * whole)
    assert search["value_standard_error"] > 1.5 * search["standard_error"]  # a few orders have most of the value
    drawn = analyze(events, ["last"], intervals=True)["last"].channels[1]["value_interval"]
    low, high = (end / whole for end in found["channels"][1]["interval"])
    assert high - low == pytest.approx(drawn[1] - drawn[0], rel=0.15)


def month_of_events() -> list[dict[str, Any]]:
    generator = np.random.default_rng(2)
    begin, seconds = 1_767_225_600, 31 * 86_400  # 2026-01-01
    events: list[dict[str, Any]] = []
    for person in range(400):
        at = 7 + person * (seconds - 1_000) / 400
        channel = ("mail", "search")[person % 2]
        events.append({"user": person + 1, "time": begin + at, "channel": channel})
        if person % 4 < 2:
            value = round(float(generator.pareto(1.3)) * 10, 2)
            events.append({"user": person + 1, "time": begin + at + 600, "conversion": True, "value": value})
    return events


def test_an_interval_is_never_without_model_dependence_even_for_one_model() -> None:
    row = analyze(PATHS, ["markov"], intervals=True, draws=20)["markov"].channels[0]
    assert row["spread_over_models"] > row["interval"][1] - row["interval"][0]
    assert analyze(PATHS, ["markov"])["markov"].channels[0]["spread_over_models"] is None


@pytest.mark.slow
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
    assert f"{lift}: no channel 'radio'; there are mail, search, social" in run(*both, code=2)
    lift.write_text("channel,conversions,standard_error\nsocial,70,10\n", encoding="utf-8")
    one = run("--model", "markov", "--model", "last", "--calibrate", str(lift))
    assert "markov, conversions calibrated by 1 experiment:\n  mail: " in one


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


def test_the_table_says_what_was_carried_to_the_whole_time() -> None:
    rows = [(f"u{n}", n % 40, "ab"[n % 2], 0) for n in range(200)] + [(f"u{n}", 40 + n % 9, "", 1) for n in range(90)]
    names = ("user", "time", "channel", "conversion")
    events = dict(zip(names, map(list, zip(*((u, d * 86_400, c, f) for u, d, c, f in rows), strict=True)), strict=True))
    lifts = tuple(
        read_experiments(
            {"channel": ["a"], "conversions": [20], "standard_error": [3], "from": ["1970-01-11"], "to": ["1970-01-21"]}
        )
    )
    shown = " ".join(str(analyze(events, ["linear"], experiments=lifts, draws=30)).split())
    assert "a: 20.0 measured in a part of the time, carried x 4." in shown
    assert "confidence" not in shown  # of a rule there is none
    assert "confidence: shapley 0.9" in str(analyze(events, ["shapley"], intervals=True, draws=30))
