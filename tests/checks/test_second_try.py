"""Which tests get a second try: those that depend on other processes, and no promise that broke."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_TESTS = """
import time
import pytest
tries = []

@pytest.mark.slow
def test_that_passes_at_its_second_try():
    tries.append(1)
    assert len(tries) == 2, "the first try of a slow test"

def test_within_one_process():
    assert tries == [], "no process but its own"

@pytest.mark.kafka
@pytest.mark.fault
def test_of_a_promise():
    tries.append(1)
    assert False, f"a lost record, try {len(tries)}"

@pytest.fixture(scope="module")
def server():
    tries.append(1)
    assert len(tries) > 4, "a server that does not start at once"
    return "server"

@pytest.mark.kafka
def test_of_a_server(server):
    assert server == "server"

@pytest.mark.slow
@pytest.mark.timeout(2)
def test_that_is_too_slow_at_first():
    tries.append(1)
    time.sleep(0.0 if len(tries) == 7 else 60.0)

@pytest.mark.kafka
@pytest.mark.fault
def test_of_a_fault_that_fires_at_its_second_try():
    tries.append(1)
    assert len(tries) == 9, "a cut: did not fire"

@pytest.mark.kafka
@pytest.mark.once
def test_once():
    tries.append(1)
    assert False, f"once, try {len(tries)}"
"""
_ROOT = Path(__file__).parents[2]


def test_only_what_depends_on_other_processes_is_tried_again_and_the_end_of_the_run_says_so(tmp_path: Path) -> None:
    (tmp_path / "test_them.py").write_text(_TESTS)
    marks = [f"-omarkers={name}" for name in ("slow kafka fault once timeout",)]
    plugins = [f"-ptests.fixtures.{name}" for name in ("second_try", "run_notes")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--rootdir", str(tmp_path), "-c", "/dev/null", *marks, *plugins,
         str(tmp_path / "test_them.py")],
        cwd=_ROOT, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert "3 failed, 4 passed" in done.stdout, done.stdout + done.stderr
    assert done.stdout.count("failed at first, tried again") == 4
    for said in ("a server that does not start at once", "Timeout (>2.0s)", "a cut: did not fire"):
        assert said in done.stdout
    assert "the first try of a slow test" in done.stdout
    assert "a lost record, try 3" in done.stdout
    assert "once, try 10" in done.stdout
