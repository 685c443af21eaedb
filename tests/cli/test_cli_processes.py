"""Processes started by the command line: what stops their start, and how `attributary all` keeps them together."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import typer

from attributary.cli.main import COMMANDS
from attributary.local.stages import command_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

STAGES = ["stitcher", "attributor", "auditor", "reporter", "spender", "sweeper", "trainer"]


def environment(**variables: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return {**kept, "METRICS_HOST": "127.0.0.1", "METRICS_PORT": "0", **variables}


def run(*arguments: str, seconds: float = 240, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command_line(*arguments), env=environment(**variables), capture_output=True, text=True, timeout=seconds,
        check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_missing_setting_stops_the_start(stage: str) -> None:
    done = run(stage)
    assert done.returncode == 78
    assert "KAFKA_BOOTSTRAP_SERVERS: must be set" in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["exit_code"] == 78


def test_a_database_that_is_down_or_not_migrated_stops_the_start(free_port: int, blank_database: str) -> None:
    brokers = f"127.0.0.1:{free_port}"
    done = run("stitcher", KAFKA_BOOTSTRAP_SERVERS=brokers, DATABASE_URL=f"postgresql://u:hunter2@{brokers}/x")
    assert done.returncode == 69
    assert "hunter2" not in done.stdout + done.stderr
    done = run("auditor", KAFKA_BOOTSTRAP_SERVERS=brokers, DATABASE_URL=blank_database)
    assert done.returncode == 78
    assert "run `attributary db migrate`" in done.stderr


@pytest.mark.parametrize(("chosen", "threads"), [({}, "1"), ({"OPENBLAS_NUM_THREADS": "4"}, "4")])
def test_numpy_is_loaded_after_it_is_told_to_use_one_thread(chosen: dict[str, str], threads: str) -> None:
    program = "import os, sys, attributary.cli.main; print('numpy' in sys.modules, os.environ['OPENBLAS_NUM_THREADS'])"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(**chosen), capture_output=True, text=True, timeout=240,
        check=True,
    )  # fmt: skip
    assert done.stdout.split() == ["False", threads]


@pytest.mark.parametrize("module", COMMANDS)
def test_each_module_adds_the_commands_that_it_is_listed_with(module: str) -> None:
    """One that is missing from the list would be found in the whole command line only, and start slowly."""
    alone = typer.Typer()
    alone.callback()(lambda: None)
    importlib.import_module(f"attributary.cli.{module}").register(alone)
    found = getattr(typer.main.get_command(alone), "commands", {})
    assert sorted(found) == sorted(COMMANDS[module])


@pytest.mark.parametrize("command", [*STAGES, "forwarder meta"])
def test_a_process_of_a_stage_loads_no_other_command_and_no_tables(command: str) -> None:
    program = """
import sys
from attributary.cli.main import run
try:
    run()
finally:
    loaded = sorted(name for name in sys.modules if name.startswith(("attributary.cli.", "rich")))
    print("LOADED", *loaded)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, *command.split()], env=environment(), capture_output=True, text=True,
        timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode in (78, 0), done.stderr  # a forwarder without credentials is off
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("LOADED"))
    loaded = {name.removeprefix("attributary.cli.") for name in line.split()[1:]}
    assert loaded & set(COMMANDS) == {"forward" if command.startswith("forwarder") else "stages"}
    assert not any(name.split(".")[0] == "rich" for name in loaded), loaded


@pytest.mark.slow
def test_one_that_cannot_start_ends_them_all() -> None:
    done = run("all", "--without", "trainer", "--without", "sweeper")
    assert done.returncode == 78
    assert "ended with 78: stopping the others" in done.stderr


@pytest.fixture
def fake_services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Instead of stages: programs that note their start and wait for SIGTERM."""
    from attributary.local import supervisor

    script = tmp_path / "stage"
    script.write_text(
        f"#!/bin/sh\ntrap 'echo stopped >> {tmp_path}/$1.log; exit ${{CODE:-0}}' TERM\n"
        f"echo $METRICS_PORT > {tmp_path}/$1.log\nwhile :; do sleep 0.05; done\n"
    )
    script.chmod(0o755)

    def stand_in(*arguments: str) -> list[str]:
        return [str(script), *arguments]

    monkeypatch.setattr(supervisor, "command_line", stand_in)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield tmp_path
    for number, handler in before.items():
        signal.signal(number, handler)


def logs(folder: Path) -> dict[str, list[str]]:
    return {file.stem: file.read_text().splitlines() for file in folder.glob("*.log")}


def supervise(folder: Path, wait_for: int, first_port: int, without: Sequence[str] = ()) -> int:
    """Run the supervisor in this process; a watcher sends SIGTERM when so many stand-ins have started."""
    from attributary.local.supervisor import run_all

    watch = f"while [ $(ls {folder} | grep -c log) -lt {wait_for} ]; do sleep 0.02; done; kill -TERM {os.getpid()}"
    with subprocess.Popen(["sh", "-c", watch]):
        return run_all(without, first_port)


def test_a_signal_reaches_every_stage(fake_services: Path) -> None:
    assert supervise(fake_services, 6, 9000, ["trainer"]) == 0
    assert logs(fake_services) == {
        "stitcher": ["9000", "stopped"],
        "attributor": ["9001", "stopped"],
        "auditor": ["9002", "stopped"],
        "reporter": ["9003", "stopped"],
        "spender": ["9004", "stopped"],
        "sweeper": ["9005", "stopped"],
    }


def test_any_port_is_any_port_for_all(fake_services: Path) -> None:
    assert supervise(fake_services, 6, 0) == 0
    assert {lines[0] for lines in logs(fake_services).values()} == {"0"}


def test_a_signal_during_the_start_is_not_forgotten(fake_services: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from attributary.local import supervisor

    started: list[str] = []
    stand_in: Any = vars(supervisor)["command_line"]

    def signalled(*arguments: str) -> Any:
        started.append(arguments[0])
        if len(started) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return stand_in(*arguments)

    monkeypatch.setattr(supervisor, "command_line", signalled)
    assert supervisor.run_all([], 9000) == 0
    assert started == ["stitcher", "attributor"]
    assert all(lines[-1] == "stopped" for lines in logs(fake_services).values() if lines)


def demo(report: Path, folder: Path, *arguments: str) -> dict[str, Any]:
    done = run(
        "demo", "--touchpoints", "2000", "--report", str(report), "--folder", str(folder), *arguments, seconds=900
    )
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-2_000:]
    figures: dict[str, Any] = json.loads(report.read_text())
    assert len(figures["promises"]) >= 6
    assert [promise for promise in figures["promises"] if not promise["held"]] == []
    assert figures["sent"] > 2_000
    assert figures["latency_ms"]["p50"] > 0
    return figures


@pytest.mark.slow
@pytest.mark.timeout(1_000)
def test_the_demo_on_the_mock_broker_says_that_it_proves_nothing(tmp_path: Path) -> None:
    assert demo(tmp_path / "figures.json", tmp_path / "demo", "--broker", "mock")["broker"] == "mock"


@pytest.mark.slow
@pytest.mark.timeout(1_000)
@pytest.mark.kafka
def test_the_demo_on_a_real_broker_keeps_every_promise(tmp_path: Path, broker: Any) -> None:
    if broker.kind == "given":
        pytest.skip("the demo empties a broker's topics only when it started the broker")
    assert demo(tmp_path / "figures.json", tmp_path / "demo", "--broker", broker.kind)["broker"] == broker.kind
