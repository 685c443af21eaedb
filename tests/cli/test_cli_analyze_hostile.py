"""No content of a file steers a terminal or a spreadsheet: B30 of the field cases, S14 and S25 of the hostile."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from attributary.cli.main import app

RUNNER = CliRunner()
STEERING = [
    "\x1b[2J",
    "\x1b]0;owned\x07",
    "\x9b31m",
    "\x08",
    "\x7f",
    "\u202e",
    "\u2066",
    "\u200b",
    "\u2028",
    "\x85",
    "\x00",
]


def run(tmp_path: Path, content: str, *options: str) -> Result:
    file = tmp_path / "paths.csv"
    file.write_text(content, encoding="utf-8", newline="")
    return RUNNER.invoke(app, ["analyze", str(file), *options])


def terminal_safe(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("mark", STEERING)
@pytest.mark.parametrize(
    "content",
    [
        "path,total_conversions,a{}b\nx,1,1\n",
        "a{}path,total_conversions\nx,1\n",
        "path,total_conversions\nx{}y,40\n",
        "path,total_conversions\nx,1{}0\n",
        "user,time,channel\nu1,2{}026,x\n",
        "user,time,channel,conversion\nu1,2026-01-01,x,y{}s\n",
        "path,total_conversions\nx{}y > z,40\nX{}Y,1\n",
    ],
)
def test_b30_nothing_of_a_file_steers_the_terminal(tmp_path: Path, content: str, mark: str) -> None:
    done = run(tmp_path, content.replace("{}", mark), "--model", "linear", "--intervals", "--insights")
    assert done.exit_code in (0, 2)
    assert terminal_safe(done.stdout)
    assert terminal_safe(done.stderr)


def test_b30_the_name_of_the_file_is_escaped_too(tmp_path: Path) -> None:
    done = RUNNER.invoke(app, ["analyze", str(tmp_path / "x\x1b]0;owned\x07.csv")])
    assert done.exit_code == 2
    assert terminal_safe(done.stderr)


@pytest.mark.parametrize(
    "name",
    [
        '=HYPERLINK("http://x","y")', "+1+1", "-2+3", "@SUM(A1)", "=cmd|' /C calc'!A0", "\uff1d1+1", "\uff0b1", "-",
        "=1", "\uff20x",
    ],
)  # fmt: skip
def test_s25_no_channel_is_a_formula_in_csv(tmp_path: Path, name: str) -> None:
    lines = io.StringIO()
    csv.writer(lines).writerows([["path", "total_conversions"], [name, 40], ["plain-name", 2]])
    done = run(tmp_path, lines.getvalue(), "--model", "linear", "--format", "csv")
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert {row["channel"] for row in rows} == {f"'{name}", "plain-name", "(unattributed)"}
    as_json = run(tmp_path, lines.getvalue(), "--model", "linear", "--format", "json")
    assert name in {row["channel"] for row in json.loads(as_json.stdout)["channels"]}


def test_s25_negative_numbers_stay_numbers(tmp_path: Path) -> None:
    content = "path,total_conversions,total_conversion_value\na,40,-5\nb,3,9\n"
    done = run(tmp_path, content, "--model", "linear", "--format", "csv")
    values = {row["channel"]: row["value"] for row in csv.DictReader(io.StringIO(done.stdout))}
    assert float(values["a"]) == -5
