import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from attributary.attribution_core import analyze
from attributary.attribution_core.analysis import ANALYSES
from attributary.attribution_core.journeys import ChannelIndex
from attributary.attribution_core.models import ModelError
from attributary.attribution_core.paths import TableError
from attributary.attribution_core.shapley import sampled_rate_values
from attributary.cli.main import app

COLUMNS: dict[str, list[Any]] = {
    "path": ["search > mail", "mail", "search", "social > search > mail", "social", ""],
    "total_conversions": [30, 20, 10, 15, 2, 4],
    "total_conversion_value": [300, 200, 100, 150, 20, 40],
    "total_null": [50, 90, 200, 60, 300, 7],
}
RUNNER = CliRunner()


class Frame:
    """What pandas' and polars' frames have in common: names of columns, and columns by name."""

    def __contains__(self, name: str) -> bool:
        return name in COLUMNS

    def __getitem__(self, name: str) -> list[Any]:
        return COLUMNS[name]


@pytest.fixture
def paths_csv(tmp_path: Path) -> Path:
    file = tmp_path / "paths.csv"
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(COLUMNS)
        writer.writerows(zip(*COLUMNS.values(), strict=True))
    return file


@pytest.fixture
def events() -> dict[str, list[Any]]:
    rows = [("u1", 0, "search", 0, ""), ("u1", 90_000, "mail", 0, ""), ("u1", 90_001, "", 1, "12.50")]
    rows += [("u2", 5, "social", 0, "")]
    return {
        name: [row[place] for row in rows]
        for place, name in enumerate(("user", "time", "channel", "conversion", "value"))
    }


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


def test_command_prints_json_of_full_precision(paths_csv: Path) -> None:
    done = RUNNER.invoke(
        app, ["analyze", str(paths_csv), "--model", "markov", "--order", "2", "--intervals", "--format", "json"]
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["model"] == "markov"
    assert set(found) == {"model", "version", "channels", "diagnostics"}
    wanted = analyze(COLUMNS, ["markov"], order=2, intervals=True)["markov"].to_dict()
    assert found == json.loads(json.dumps(wanted))
    assert {"channel", "conversions", "value", "share", "interval", "removal_effect"} <= set(found["channels"][0])


def test_command_prints_a_table_and_csv(paths_csv: Path) -> None:
    table = RUNNER.invoke(app, ["analyze", str(paths_csv)])
    assert table.exit_code == 0
    assert "markov_shapley" in table.stdout
    flat = RUNNER.invoke(app, ["analyze", str(paths_csv), "--model", "shapley", "--model", "first", "--format", "csv"])
    rows = list(csv.DictReader(io.StringIO(flat.stdout)))
    assert [row["channel"] for row in rows] == ["mail", "search", "social", "(unattributed)"] * 2
    assert float(rows[0]["shapley"]) == 30 / 2 + 20 + 15 / 3


def test_command_reads_events_in_csv_and_parquet(tmp_path: Path, events: dict[str, list[Any]]) -> None:
    file = tmp_path / "events.csv"
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(events)
        writer.writerows(zip(*events.values(), strict=True))
    options = ["--model", "time_decay", "--format", "json"]
    from_csv = RUNNER.invoke(app, ["analyze", str(file), *options])
    assert from_csv.exit_code == 0, from_csv.output
    found = json.loads(from_csv.stdout)
    assert [row["channel"] for row in found["channels"]] == ["mail", "search", "social"]
    assert sum(row["value"] for row in found["channels"]) == pytest.approx(12.5)
    near = json.loads(RUNNER.invoke(app, ["analyze", str(file), "--lookback-days", "0.5", *options]).stdout)
    assert near["channels"][0]["share"] == 1
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs the extra")
    from pyarrow import parquet

    columnar = tmp_path / "events.parquet"
    parquet.write_table(pyarrow.table({**events, "value": [None, None, 12.5, None]}), columnar)
    assert json.loads(RUNNER.invoke(app, ["analyze", str(columnar), *options]).stdout) == found


@pytest.mark.parametrize(
    ("content", "options", "rule"),
    [
        ("path,total_conversions\na,x\n", [], "line 2: total_conversions: 'x'"),
        ("path,total_conversions\na\n", [], "line 2: 1 cells, but 2 columns"),
        ("x,y\n1,2\n", [], "columns must be"),
        ("path,total_conversions\na,1\n", ["--model", "best"], "no model"),
        ("path,total_conversions\na,1\n", ["--transform", "best"], "no transform"),
        ("path,total_conversions\na,1\n", ["--baseline", "best"], "no channel 'best'"),
        (f"path,total_conversions\n{' > '.join(map(str, range(300)))},1\n", ["--order", "8"], "order"),
        ("path,total_conversions\na,1\n", ["--lookback-days", "3"], "needs times"),
        ("", [], "columns must be"),
    ],
)
def test_command_refuses_what_it_cannot_read(tmp_path: Path, content: str, options: list[str], rule: str) -> None:
    file = tmp_path / "file.csv"
    file.write_text(content)
    done = RUNNER.invoke(app, ["analyze", str(file), *options])
    assert done.exit_code == 2
    assert rule in done.stderr


def test_command_names_a_missing_or_broken_file(tmp_path: Path) -> None:
    missing = RUNNER.invoke(app, ["analyze", str(tmp_path / "none.csv")])
    assert missing.exit_code == 2
    broken = tmp_path / "x.parquet"
    broken.write_bytes(b"nothing")
    done = RUNNER.invoke(app, ["analyze", str(broken)])
    assert done.exit_code == 2
    assert "Parquet" in done.stderr


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
