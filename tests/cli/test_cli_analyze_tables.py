"""`attributary analyze FILE` from end to end: tables in, numbers out, the same as those of Python."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from attributary.attribution_core import analyze
from attributary.cli.main import app

COLUMNS: dict[str, list[Any]] = {
    "path": ["search > mail", "mail", "search", "social > search > mail", "social", ""],
    "total_conversions": [30, 20, 10, 15, 2, 4],
    "total_conversion_value": [300, 200, 100, 150, 20, 40],
    "total_null": [50, 90, 200, 60, 300, 7],
}
RUNNER = CliRunner()


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


def parquet_file(folder: Path) -> Path:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    file = folder / "paths.parquet"
    paths = [f"c{n % 7} > c{n % 5}" for n in range(2_000)]
    parquet.write_table(pa.table({"path": paths, "total_conversions": [1] * 2_000}), file)
    return file


_THREADS_BEFORE_AND_AFTER = """
import os, sys
from pathlib import Path
from pyarrow import parquet
from attributary.cli.table_files import read_columns
before = len(os.listdir("/proc/self/task"))
assert len(read_columns(Path(sys.argv[1])).columns["path"]) == 2_000
print(before, len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
def test_parquet_is_read_without_threads_that_hold_what_is_ours(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _THREADS_BEFORE_AND_AFTER, str(parquet_file(tmp_path))]
    before, after = subprocess.run(command, capture_output=True, check=True).stdout.split()
    assert before == after


@pytest.mark.slow
def test_a_process_that_read_parquet_ends_as_it_should(tmp_path: Path) -> None:
    """A thread of pyarrow's that let go of the file's bytes aborted it in three of a hundred runs, after the output."""
    file = parquet_file(tmp_path)
    for _ in range(12):
        done = subprocess.run(
            [Path(sys.executable).with_name("attributary"), "analyze", file, "--model", "last", "--format", "csv"],
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")


_PEAK_OF_ANALYSIS = """
import resource, sys
from pathlib import Path
from attributary.attribution_core import analyze
from attributary.cli.table_files import read_journeys
import pyarrow.parquet
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = analyze(read_journeys(Path(sys.argv[1])), models=["linear", "markov"])
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, result.models[0].diagnostics["journeys"])
"""


@pytest.mark.slow
def test_a_folder_of_paths_needs_memory_by_distinct_paths(tmp_path: Path) -> None:
    """Held as Python's lists the rows of one file alone would take more than the whole analysis may."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    home = tmp_path / "paths.parquet"
    home.mkdir()
    path = [f"channel-{n % 17} > channel-{n % 13} > channel-{n % 7}" for n in range(1_000_000)]
    ones = [1] * len(path)
    for part in range(3):
        parquet.write_table(pa.table({"path": path, "total_conversions": ones}), home / f"part-{part}.parquet")
    command = [sys.executable, "-c", _PEAK_OF_ANALYSIS, str(home)]
    before, after, journeys = map(int, subprocess.run(command, capture_output=True, check=True).stdout.split())
    assert journeys == 3_000_000
    assert after - before < 150_000, f"{(after - before) / 1_024:.0f} MiB for 24 MB of numbers and 1,547 paths"


def test_a_folder_is_one_table_and_a_bad_row_is_named_by_its_file(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    home = tmp_path / "journeys"
    for name, paths in (("day=1/a", ["a > b", "a"]), ("day=2/b", ["a", "", "b"]), ("_tmp/c", ["x >  > y"])):
        (home / name).parent.mkdir(parents=True)
        parquet.write_table(pa.table({"path": paths, "total_conversions": [1] * len(paths)}), home / f"{name}.parquet")
    done = RUNNER.invoke(app, ["analyze", str(home), "--model", "first", "--format", "json"])
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["diagnostics"]["journeys"] == 5
    assert {row["channel"]: row["conversions"] for row in found["channels"]} == {"a": 3.0, "b": 1.0}
    parquet.write_table(pa.table({"path": ["a", "a >  > b"], "total_conversions": [1, 1]}), home / "z.parquet")
    done = RUNNER.invoke(app, ["analyze", str(home)])
    assert done.exit_code == 2
    assert done.stderr.startswith(f"attributary: {home / 'z.parquet'}: row 2: path: ")
    (home / "day=1/a.parquet").write_bytes(b"nothing")
    done = RUNNER.invoke(app, ["analyze", str(home)])
    assert done.exit_code == 2
    assert "Is a directory" in done.stderr or "no Parquet file" in done.stderr
