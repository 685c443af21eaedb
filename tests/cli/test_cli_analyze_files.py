"""Files of journeys for `attributary analyze`: what is wrong with one is said by file, line, column and rule."""

from __future__ import annotations

import gzip
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from attributary.cli.main import app

RUNNER = CliRunner()
HEADER = "path,total_conversions,total_conversion_value,total_null\n"
GOOD = HEADER + "a > b,40,400,60\nb,50,500,50\n"


def run(tmp_path: Path, content: str | bytes, *options: str, name: str = "file.csv") -> Result:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return RUNNER.invoke(app, ["analyze", str(file), *options])


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (HEADER + "a >,1,2,3\n> b,10,2,3\nc,100,2,3\nd,1000,2,3\n", "line 2: path: channel 'a >' begins or ends"),
        (HEADER + "\n\na,1,2,x\n", "line 4: total_null: 'x' must be a whole number"),
        (HEADER + '"a\n > b",1,2,3\nc,1,2,1.5\n', "line 4: total_null: '1.5' must be"),
        (HEADER + "a,1\n", "line 2: 2 cells, but 4 columns"),
        (HEADER + '"a,1,2,3\n', "line 2: unexpected end of data"),
        (HEADER.replace(",", ";") + "a;1;2;3\n", "line 1: the columns look separated by ';'; they must be by ','"),
        (HEADER.replace(",", "\t") + "a\t1\t2\t3\n", r"line 1: the columns look separated by '\t'"),
        ("path,total_conversions,path\na,1,b\n", "the column path stands twice"),
        ("path,total_conversions,x,x\na,1,b,c\n", "the column x stands twice"),
        ("path,Total_Conversions\na,1\n", "total_conversions is missing; there are path, Total_Conversions; names"),
        ("user,time,channel\nu,1712050112345,a\n", "line 2: time: '1712050112345' is outside of 1970 to 2099; looks"),
        (GOOD.replace("a >", "\xe9 >").encode("latin-1"), "line 2: no UTF-8 text (byte 0xe9); save the file as UTF-8"),
        (b"\xef\xbb\xbfpath,total_conversions\n\xe9,1\n", "line 2: no UTF-8 text (byte 0xe9); save the file"),
        (GOOD.encode("utf-16"), "UTF-16 text; save the file as UTF-8"),
        (GOOD.encode("utf-16-le"), "looks like UTF-16 text without a byte order mark; save the file as UTF-8"),
        (GOOD.encode("utf-16-be"), "looks like UTF-16 text without a byte order mark; save the file as UTF-8"),
        (GOOD.replace("a", "a\0", 1).encode(), "line 1: a NUL byte (0x00): the file is binary or damaged"),
        (gzip.compress(GOOD.encode(), mtime=0), "compressed by gzip; unpack it first"),
        (b"PK\x03\x04rest", "a ZIP archive or an Excel workbook; save the table as CSV"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, content: str | bytes, rule: str) -> None:
    done = run(tmp_path, content)
    assert done.exit_code == 2
    assert rule in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"attributary: {tmp_path / 'file.csv'}: ")


def test_files_that_cannot_be_opened_are_named_once(tmp_path: Path) -> None:
    for name, rule in (("none.csv", "No such file"), ("none.parquet", "No such file"), ("", "Is a directory")):
        done = RUNNER.invoke(app, ["analyze", str(tmp_path / name)])
        assert done.exit_code == 2
        assert done.stderr.count(str(tmp_path)) == 1
        assert rule in done.stderr
    done = run(tmp_path, GOOD, "--calibrate", str(tmp_path / "lift.csv"))
    assert done.exit_code == 2
    assert done.stderr == f"attributary: {tmp_path / 'lift.csv'}: No such file or directory\n"


def test_a_dash_is_standard_input(tmp_path: Path) -> None:
    wanted = run(tmp_path, GOOD, "--format", "json").stdout
    assert RUNNER.invoke(app, ["analyze", "-", "--format", "json"], input=GOOD).stdout == wanted
    broken = RUNNER.invoke(app, ["analyze", "-"], input=HEADER + "a >,1,2,3\n")
    assert broken.stderr.startswith("attributary: standard input: line 2: path: channel")


def test_notes_are_on_standard_error_and_in_the_diagnostics(tmp_path: Path) -> None:
    content = GOOD.replace("total_null", "total_nul")
    options = ["--model", "first", "--order", "3", "--baseline", "a", "--format", "json"]
    done = run(tmp_path, content, *options)
    wanted = [
        "columns that are not used: total_nul (did you mean total_null?)",
        "order has no effect: only markov, markov_journeys use it",
        "baseline has no effect: only markov_shapley uses it",
    ]
    assert json.loads(done.stdout)["diagnostics"]["notes"] == wanted
    given = [wanted[0], *(f"--{note}" for note in wanted[1:])]
    assert done.stderr.splitlines() == [f"attributary: note: {note}" for note in given]
    assert run(tmp_path, GOOD).stderr == ""
    assert run(tmp_path, "\ufeff" + GOOD.replace("\n", ",\n", 1).replace("0\n", "0,\n")).exit_code == 0  # as Excel does


@pytest.mark.parametrize(
    ("options", "notes"),
    [
        (["--half-life", "3"], ["--half-life has no effect: only time_decay uses it"]),
        (["--position-weights", "60,20,20"], []),
        (["--draws", "50"], ["--draws has no effect without intervals or insights"]),
    ],
)
def test_an_option_without_effect_is_named_as_it_is_given(tmp_path: Path, options: list[str], notes: list[str]) -> None:
    done = run(tmp_path, GOOD, "--model", "position_based", *options)
    assert done.stderr.splitlines() == [f"attributary: note: {note}" for note in notes]


@pytest.mark.parametrize("days", ["inf", "1e300", "nan", "-1", "36501"])
def test_a_lookback_is_a_number_of_days(tmp_path: Path, days: str) -> None:
    done = run(tmp_path, "user,time,channel\nu,2026-01-01,a\n", f"--lookback-days={days}")
    assert done.exit_code == 2
    assert "--lookback-days" in done.stderr
    assert done.exception is None or isinstance(done.exception, SystemExit)


def test_recency_of_paths_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path, GOOD, "--transform", "recency")
    assert done.exit_code == 2
    assert "recency needs times" in done.stderr


def parquet_bytes(columns: dict[str, Any]) -> bytes:
    arrow = pytest.importorskip("pyarrow", reason="the extra parquet")
    from pyarrow import parquet

    sink = io.BytesIO()
    parquet.write_table(arrow.table(columns), sink, version="2.6")
    return sink.getvalue()


def test_parquet_of_any_precision_and_name_is_read(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="the extra parquet")
    second = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
    columns = {
        "user": ["u", "u"],
        "time": arrow.array([second * 10**9 + 1, second * 10**9 + 1_999], arrow.timestamp("ns", tz="UTC")),
        "channel": arrow.array([b"a", b"b"], arrow.binary()),
        "conversion": [False, True],
    }
    for name in ("events.parquet", "events.csv"):
        done = run(tmp_path, parquet_bytes(columns), "--model", "last", "--format", "json", name=name)
        assert done.exit_code == 0, done.stderr
        shares = {row["channel"]: row["share"] for row in json.loads(done.stdout)["channels"]}
        assert shares == {"a": 0, "b": 1}
    late = {**columns, "time": arrow.array([None, second * 10**9], arrow.timestamp("ns"))}
    assert "row 1: time: must not be empty" in run(tmp_path, parquet_bytes(late), name="e.parquet").stderr
    assert "no Parquet file" in run(tmp_path, b"nothing", name="e.parquet").stderr
    assert "no Parquet file" in run(tmp_path, b"PAR1 nothing").stderr
