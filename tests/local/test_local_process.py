"""Children end with their parents, tell why they failed, and survive a suspension."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from attributary.local.process import ProcessFailedError, run, spawn, wait_until_ready

if TYPE_CHECKING:
    from pathlib import Path


def test_stop_sends_the_signal_and_returns_the_code(tmp_path: Path) -> None:
    child = spawn(["sleep", "60"], name="sleeper", log=tmp_path / "log")
    assert child.running
    assert child.stop() == -signal.SIGTERM
    assert not child.running


def test_stop_insists_when_the_signal_is_ignored(tmp_path: Path) -> None:
    script = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    child = spawn(["sh", "-c", script], name="stubborn", log=tmp_path / "log")
    wait_until_ready(child, lambda: None if child.log_tail() else "silent", timeout_seconds=240)
    assert child.stop(timeout_seconds=0.3) == -signal.SIGKILL


def test_a_suspended_child_can_be_stopped(tmp_path: Path) -> None:
    child = spawn(["sleep", "60"], name="sleeper", log=tmp_path / "log")
    child.suspend()
    assert child.stop() == -signal.SIGTERM


def test_a_child_that_ends_early_tells_what_it_printed(tmp_path: Path) -> None:
    child = spawn(["sh", "-c", "echo no disk; exit 3"], name="broker", log=tmp_path / "log")
    with pytest.raises(ProcessFailedError, match=r"broker ended with 3(.|\n)*no disk"):
        wait_until_ready(child, lambda: "not yet", timeout_seconds=240)


def test_a_child_that_is_never_ready_is_reported(tmp_path: Path) -> None:
    child = spawn(["sleep", "60"], name="sleeper", log=tmp_path / "log")
    with pytest.raises(ProcessFailedError, match="sleeper is not ready after 0 s: still dreaming"):
        wait_until_ready(child, lambda: "still dreaming", timeout_seconds=0.1)
    child.kill()


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProcessFailedError, match="broker cannot be started"):
        spawn([str(tmp_path / "nothing")], name="broker", log=tmp_path / "log")


def test_run_returns_what_was_printed_and_raises_on_failure() -> None:
    assert run(["echo", "hello"], name="echo", timeout_seconds=240) == "hello"
    with pytest.raises(ProcessFailedError, match=r"shell ended with 4:\nbad luck"):
        run(["sh", "-c", "echo bad luck; exit 4"], name="shell", timeout_seconds=240)


def test_no_child_outlives_a_killed_parent(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, sys\n"
        "from attributary.local.process import spawn\n"
        "home = pathlib.Path(sys.argv[1])\n"
        "print(spawn(['sleep', '600'], name='sleeper', log=home / 'log').pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid = int(done.stdout)
    deadline = time.monotonic() + 180
    while _alive(pid):
        assert time.monotonic() < deadline, "the child lives on"
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    """Whether the process runs; one that waits to be reaped by init does not count."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return not state.stdout.strip().startswith("Z") and bool(state.stdout.strip())
