"""The bench finds its own jobs, and its meter counts the CPU time of a process and of all that it starts."""

from __future__ import annotations

import subprocess
import sys
import time

import psycopg
import pytest

from benchmarks.__main__ import says_busy
from benchmarks.cpu import CpuMeter, others, spent
from benchmarks.environment_setup import ROOT
from benchmarks.floor_job import _TABLES

_BUSY = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
_PARENT = (
    f"import subprocess, sys; subprocess.run([sys.executable, '-c', {_BUSY!r}]); print('done', flush=True); input()"
)


def test_jobs_are_started_where_their_modules_are() -> None:
    assert (ROOT / "benchmarks" / "floor_job.py").is_file()
    assert (ROOT / "pyproject.toml").is_file()


@pytest.mark.skipif(not CpuMeter.is_there(), reason="this system has no /proc")
def test_the_time_of_a_process_is_that_of_its_children_too() -> None:
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        meter = CpuMeter({"parent": parent.pid})
        before = meter.read()
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"done\n"
        after = meter.read()
        assert spent(before, after)["parent"] >= 0.25
        assert others(before, after) >= 0.0
        parent.communicate(b"\n")


@pytest.mark.skipif(not CpuMeter.is_there(), reason="this system has no /proc")
def test_the_machine_has_used_at_least_what_we_have() -> None:
    meter = CpuMeter({})
    before = meter.read()
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    assert others(before, meter.read()) >= 0.2


@pytest.mark.postgres
def test_the_frozen_tables_of_the_floor_are_those_that_its_job_fills(blank_database: str) -> None:
    with psycopg.connect(blank_database) as connection:
        connection.execute((ROOT / "benchmarks" / "floor_tables.sql").read_bytes())
        for table, columns, _ in _TABLES.values():
            found = connection.execute("SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass", [table])
            assert set(columns) <= {name for (name,) in found}
            keys = connection.execute("SELECT count(*) FROM pg_index WHERE indrelid = %s::regclass", [table]).fetchone()
            assert keys is not None
            assert keys[0] >= 3


@pytest.mark.parametrize(("cores", "is_busy"), [(0.1, False), (1.2, True)])
def test_a_busy_machine_is_named(cores: float, is_busy: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert says_busy(cores) is is_busy
    assert ("not judged" in capsys.readouterr().out) is is_busy
