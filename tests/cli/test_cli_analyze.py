"""`attributary analyze` as people meet it: options, errors that name the file, and output that goes somewhere."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import shlex
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from attributary.attribution_core import analyze
from attributary.attribution_core.models.rules import RuleSettings
from attributary.cli.main import app
from attributary.local.stages import command_line

if TYPE_CHECKING:
    from collections.abc import Iterator

DAY = 86_400
PATHS = "path,total_conversions,total_conversion_value,total_null\ncafé > mail,40,80,5\nmail,50,50,9\n,3,6,1\n"
EVENTS = f"user,time,channel,conversion\nu,0,search,0\nu,{4 * DAY},social,0\nu,{8 * DAY},mail,0\nu,{9 * DAY},,1\n"


@pytest.fixture
def paths(tmp_path: Path) -> Path:
    file = tmp_path / "paths.csv"
    file.write_text(PATHS, encoding="utf-8")
    return file


@pytest.fixture
def events(tmp_path: Path) -> Path:
    file = tmp_path / "events.csv"
    file.write_text(EVENTS, encoding="utf-8")
    return file


def said(*arguments: str, code: int = 0) -> Any:
    done = CliRunner().invoke(app, ["analyze", *arguments])
    assert done.exit_code == code, done.output
    return done


def document(*arguments: str) -> Any:
    return json.loads(said(*arguments, "--format", "json").stdout)


def process(*arguments: str, **variables: str) -> dict[str, Any]:
    """Arguments of a process of its own; an encoding other than that of the tests needs one."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return {"args": command_line("analyze", *arguments), "env": {**kept, "PYTHONUTF8": "0", **variables}}


@pytest.mark.parametrize("given", [["markov,shapley"], ["Markov", "SHAPLEY"], ["markov, shapley"], ["shapley,markov"]])
def test_models_may_be_joined_by_commas_and_written_in_any_case(paths: Path, given: list[str]) -> None:
    options = [option for name in given for option in ("--model", name)]
    assert {report["model"] for report in document(str(paths), *options)} == {"markov", "shapley"}


def test_a_model_may_be_written_with_a_hyphen_and_not_be_left_out(paths: Path) -> None:
    assert document(str(paths), "--model", "last-non-direct")["model"] == "last_non_direct"
    assert "a name is missing" in said(str(paths), "--model", "markov,", code=2).stderr
    assert "--model: no model 'best'" in said(str(paths), "--model", "Best", code=2).stderr


@pytest.mark.parametrize("weights", ["60,20,20", "0,100,0", "33.3,33.4,33.3"])
def test_position_weights_are_those_of_python(events: Path, weights: str) -> None:
    first, middle, last = (float(part) / 100 for part in weights.split(","))
    found = document(str(events), "--model", "position_based", "--position-weights", weights)
    columns = {name: list(column) for name, *column in zip(*csv.reader(io.StringIO(EVENTS)), strict=True)}
    rules = RuleSettings(first, middle, last)
    assert found == analyze(columns, ["position_based"], rules=rules)["position_based"].to_dict()
    assert {row["channel"]: row["share"] for row in found["channels"]} == pytest.approx(
        {"search": first, "social": middle, "mail": last}
    )


def test_the_half_life_is_in_days(events: Path) -> None:
    by_channel = {
        row["channel"]: row["share"]
        for row in document(str(events), "--model", "time_decay", "--half-life", "4")["channels"]
    }
    assert by_channel == pytest.approx({"search": 1 / 7, "social": 2 / 7, "mail": 4 / 7})


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (["--half-life", "0"], "positive number of days"),
        (["--half-life", "nan"], "positive number of days"),
        (["--position-weights", "50,50"], "sum to 100"),
        (["--position-weights", "50,50,50"], "sum to 100"),
        (["--position-weights", "a,b,c"], "sum to 100"),
        (["--position-weights", "nan,50,50"], "sum to 100"),
        (["--draws", "10000000000"], "100000"),
        (["--seed", "-1"], "--seed"),
        (["--minimum-conversions", "-1"], "--minimum-conversions"),
        (["--draws", "1"], "--draws"),
        (["--method", "best"], "--method"),
    ],
)
def test_options_out_of_range_are_refused_by_name(paths: Path, options: list[str], rule: str) -> None:
    text = said(str(paths), *options, "--intervals", code=2).stderr
    assert rule in " ".join(text.replace("│", " ").split())
    assert options[0] in text


def test_support_and_method_of_intervals_may_be_chosen(paths: Path) -> None:
    few = document(str(paths), "--model", "linear", "--minimum-conversions", "41")
    assert [row["status"] for row in few["channels"]] == ["insufficient data", "ok"]
    options = [str(paths), "--model", "linear", "--intervals", "--draws", "20", "--method"]
    fast, slow = (document(*options, method)["channels"][0] for method in ("fast", "bootstrap"))
    assert fast["interval"] != slow["interval"]


def test_the_least_of_options_is_that_of_python(paths: Path) -> None:
    columns = {name: list(column) for name, *column in zip(*csv.reader(io.StringIO(PATHS)), strict=True)}
    found = document(str(paths), "--model", "linear", "--intervals", "--draws", "2", "--minimum-conversions", "0")
    wanted = analyze(columns, ["linear"], intervals=True, draws=2, minimum_conversions=0)["linear"]
    assert found == json.loads(json.dumps(wanted.to_dict()))


@pytest.mark.parametrize(
    ("lift", "rule"),
    [
        ("x\n1\n", "the columns channel, standard_error are missing"),
        ("channel,conversions,standard_error,From\nmail,3,1,\n", "not used: From (did you mean from?)"),
        ("channel,conversions,standard_error\nmail,3,1\n\nmail,1_0,1\n", "line 4: conversions: '1_0' must be a num"),
        ("channel,conversions,standard_error\nnobody,3,1\n", "nobody"),
        ("channel,conversions,standard_error\nmail,3\n", "line 2: 2 cells"),
        (None, "No such file"),
    ],
)
def test_what_is_wrong_with_experiments_is_said_of_their_file(
    tmp_path: Path, paths: Path, lift: str | None, rule: str
) -> None:
    file = tmp_path / "lift.csv"
    if lift is not None:
        file.write_text(lift, encoding="utf-8")
    text = said(str(paths), "--calibrate", str(file), code=2).stderr
    assert text.startswith(f"attributary: {file}: ")
    assert rule in text


def test_csv_sums_to_the_file_and_has_calibrated_value(tmp_path: Path, paths: Path) -> None:
    lift = tmp_path / "lift.csv"
    lift.write_text("channel,value,standard_error\nmail,60,5\n", encoding="utf-8")
    header, *rest = paths.read_text(encoding="utf-8").splitlines()
    lines = [header]
    for path, won, value, lost in (line.split(",") for line in rest):
        lines += [f"{path},1,{float(value) / int(won)},0"] * int(won) + [f"{path},0,0,1"] * int(lost)
    single = tmp_path / "single.csv"  # a row for each journey: only then it is known how values vary
    single.write_text("\n".join(lines), encoding="utf-8")
    text = said(str(single), "--calibrate", str(lift), "--format", "csv", "--draws", "20").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    for model in {row["model"] for row in rows}:
        own = [row for row in rows if row["model"] == model]
        assert sum(float(row["conversions"]) for row in own) == pytest.approx(93)
        assert sum(float(row["value"]) for row in own) == pytest.approx(136)
        mail = next(row for row in own if row["channel"] == "mail")
        assert float(mail["calibrated_value"]) == pytest.approx(60)
        assert mail["calibrated_conversions"] == ""


def test_the_commands_of_the_readme_run(paths: Path, events: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(paths.parent)
    assert events.parent == paths.parent
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    calls = [line for line in text.splitlines() if line.startswith("attributary analyze ")]
    lines = [shlex.split(line, comments=True) for line in calls]
    assert len(lines) == 3
    for _, _, *arguments in lines:
        assert "mail" in said(*arguments).stdout


def test_unknown_cells_of_csv_are_empty(tmp_path: Path) -> None:
    file = tmp_path / "paths.csv"
    file.write_text("path,total_conversions\na,0\n", encoding="utf-8")
    row = next(csv.DictReader(io.StringIO(said(str(file), "--format", "csv").stdout)))
    assert (row["conversions"], row["value"], row["share"]) == ("", "", "")


def test_the_table_is_as_wide_as_the_terminal(paths: Path) -> None:
    def widest(columns: str) -> int:
        done = CliRunner().invoke(app, ["analyze", str(paths)], env={"COLUMNS": columns})
        return max(map(len, done.stdout.splitlines()))

    assert widest("60") <= 60 < widest("300")


@pytest.mark.slow
def test_an_output_that_cannot_hold_a_letter_gets_an_escape(paths: Path) -> None:
    def bytes_of(form: str) -> str:
        arguments = process(str(paths), "--model", "first", "--format", form, PYTHONIOENCODING="ascii")
        return str(subprocess.run(**arguments, capture_output=True, check=True).stdout, "ascii")

    assert "caf\\xe9" in bytes_of("table")
    assert "caf\\xe9" in bytes_of("csv")
    assert json.loads(bytes_of("json"))["channels"][0]["channel"] == "café"


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_a_full_disk_is_one_line_and_its_own_code(paths: Path, form: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no device that is always full")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            **process(str(paths), "--format", form), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 74
    assert done.stderr == "attributary: standard output: No space left on device\n"


@pytest.mark.parametrize("form", ["table", "json", "csv"])
def test_a_reader_that_has_gone_is_no_error(paths: Path, form: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        **process(str(paths), "--format", form), stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def read_to_end(terminal: int) -> Iterator[bytes]:
    with suppress(OSError):  # that is how Linux says that nobody writes any more
        while found := os.read(terminal, 100_000):
            yield found


@pytest.mark.slow
def test_progress_is_shown_on_a_terminal_and_nowhere_else(paths: Path) -> None:
    options = [str(paths), "--model", "markov", "--intervals", "--draws", "3000"]
    ours, theirs = pty.openpty()
    with subprocess.Popen(**process(*options, TERM="xterm"), stdout=subprocess.PIPE, stderr=theirs) as running:
        os.close(theirs)
        shown = b"".join(read_to_end(ours))
        table, _ = running.communicate()
    os.close(ours)
    assert b"markov" in shown
    assert running.returncode == 0
    assert b"support" in table
    assert subprocess.run(**process(*options), capture_output=True, check=True).stderr == b""


def test_the_help_names_the_exit_codes() -> None:
    text = " ".join(CliRunner().invoke(app, ["analyze", "--help"]).output.replace("│", " ").split())
    assert (
        "Exit codes: 0 done; 2 a file or an option is wrong; 74 the output cannot be written; 130 interrupted" in text
    )
