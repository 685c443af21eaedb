"""Crash points and signals: what ends a process, and how."""

from __future__ import annotations

import ast
import importlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from attributary.consumers.adapters.store_stage import StoreStage
from attributary.consumers.runtime.crash_points import crash_points

STAGES = ("stitcher", "attributor", "auditor", "reporter", "spender", "sweeper", "forwarder", "trainer")
for _name in (*(f"{stage}.process" for stage in STAGES), "maintenance.rebuild"):
    importlib.import_module(f"attributary.consumers.{_name}")  # a module registers the points that it passes

CONSUMERS = Path(__file__).resolve().parents[2] / "consumers"
COMMANDS = Path(__file__).resolve().parents[2] / "src" / "attributary" / "cli"


def start(program: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", "-c", textwrap.dedent(program)],
        env={"PATH": os.environ["PATH"], **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    with process:
        out, err = process.communicate(timeout=240)
    return process.returncode, out, err


PASS = """
    from attributary.consumers.runtime.crash_points import crash_at
    for point in ("loop_before_transaction", "stitcher_in_store", "loop_before_transaction", "loop_before_transaction"):
        crash_at(point)
        print(point)
"""


@pytest.mark.parametrize(
    ("armed", "lines", "killed"),
    [
        (None, 4, False),
        ("", 4, False),
        ("loop_before_transaction", 0, True),
        ("loop_before_transaction:1", 0, True),
        ("loop_before_transaction:3", 3, True),
        ("loop_before_transaction:4", 4, False),
        ("stitcher_in_store", 1, True),
        ("auditor_after_pg_commit", 4, False),
    ],
)
def test_a_crash_point_kills_at_its_passing(armed: str | None, lines: int, *, killed: bool) -> None:
    variables = {} if armed is None else {"ATTRIBUTION_CRASH_AT": armed}
    code, out, err = end(start(PASS, **variables))
    assert code == (-signal.SIGKILL if killed else 0)
    assert len(out.splitlines()) == lines
    assert err == (f"crash_at: {str(armed).partition(':')[0]}\n" if killed else "")


def _points_of(point: ast.expr) -> set[str]:
    """Return the crash points that one call means: a base of stages puts the stage's name before its own words."""
    if isinstance(point, ast.Constant):
        return {str(point.value)}
    assert isinstance(point, ast.JoinedStr), ast.unparse(point)
    stage, rest = point.values
    assert isinstance(stage, ast.FormattedValue), ast.unparse(point)
    assert ast.unparse(stage.value) == "self.name"
    assert isinstance(rest, ast.Constant), ast.unparse(point)
    return {name + str(rest.value) for name in _stages(StoreStage)}


def _stages(base: type[Any]) -> list[str]:
    """Return the names of the stages that are made of a base, at any depth."""
    return [
        name for kind in base.__subclasses__() for name in ([kind.name] if hasattr(kind, "name") else _stages(kind))
    ]


def test_the_list_of_points_is_that_of_the_code() -> None:
    passed = set()
    for file in (*CONSUMERS.rglob("*.py"), *COMMANDS.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "crash_at":
                (point,) = node.args
                passed |= _points_of(point)
    assert passed == set(crash_points())


START = """
    import sys
    from attributary.consumers.runtime.run import run_process
    import attributary.consumers.stitcher.stage
    sys.exit(run_process("tests", "1", lambda process: print("body")))
"""


@pytest.mark.parametrize(
    "armed",
    [
        "stitcher_in_stor",
        "stitcher_in_store:",
        "stitcher_in_store:0",
        "stitcher_in_store:x",
        ":2",
        "*",
        "auditor_after_pg_commit",
    ],
)
def test_a_crash_point_that_does_not_exist_stops_the_start(armed: str) -> None:
    code, out, err = end(start(START, ATTRIBUTION_CRASH_AT=armed))
    assert code == 78
    assert "body" not in out
    assert err.startswith("tests: ATTRIBUTION_CRASH_AT: must be the name of a crash point")


@pytest.mark.parametrize("armed", ["", "stitcher_in_store", "stitcher_in_store:2"])
def test_a_crash_point_that_exists_does_not(armed: str) -> None:
    code, out, _ = end(start(START, ATTRIBUTION_CRASH_AT=armed))
    assert code == 0
    assert "body" in out


def test_every_point_belongs_to_a_stage_or_a_command() -> None:
    stages = (
        "stitcher", "attributor", "auditor", "reporter", "spender", "sweeper", "erasure", "retention", "forwarder",
        "trainer", "rebuild", "cell", "loop",
    )  # fmt: skip
    assert set(crash_points(*stages)) == set(crash_points())
    assert set(crash_points("sweeper")) == {point for point in crash_points() if point.startswith("sweeper")}


WAIT = """
    import sys, threading, time
    from attributary.consumers.runtime.signals import stop_on_signals
    asked = threading.Event()
    stop_on_signals(asked.set, {grace})
    print("ready")
    while not asked.is_set():
        time.sleep(0.01)
    print("asked")
    {then}
"""


def waiting(grace: float, then: str) -> subprocess.Popen[str]:
    process = start(WAIT.format(grace=grace, then=then))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_stops_gracefully(number: signal.Signals) -> None:
    process = waiting(20, "print('clean')")
    process.send_signal(number)
    assert end(process) == (0, "asked\nclean\n", "")


def test_the_second_signal_stops_at_once() -> None:
    process = waiting(20, "time.sleep(20)")
    process.terminate()
    assert process.stdout is not None
    assert process.stdout.readline() == "asked\n"
    process.terminate()
    assert end(process)[0] == 75


def test_when_the_grace_is_over_the_process_ends() -> None:
    process = waiting(0.2, "time.sleep(20)")
    process.terminate()
    code, out, _ = end(process)
    assert code == 75
    assert "graceful stop took too long" in out


def test_sigusr1_shows_stacks_and_ends_nothing() -> None:
    process = waiting(20, "pass")
    process.send_signal(signal.SIGUSR1)
    assert process.stderr is not None
    assert "most recent call first" in process.stderr.readline()
    process.terminate()
    assert end(process)[0] == 0
