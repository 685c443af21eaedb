"""The local stack: one owner a folder, stages that are looked after, nothing lost between two starts."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from attributary.local import stack as stack_module
from attributary.local.broker import find_broker
from attributary.local.folder import FolderInUseError, StackFolder
from attributary.local.paths import project_root
from attributary.local.ports import is_free
from attributary.local.process import spawn
from attributary.local.stack import RunningStage, Stack
from attributary.local.stages import StageProcess, command_line
from attributary.local.up import stop_detached, summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

STEADY = StageProcess("steady", ("steady",), "runs until it is stopped")
FRAIL = StageProcess("frail", ("frail",), "ends at once")
MISSET = StageProcess("misset", ("misset",), "lacks a setting")
ABSENT = StageProcess("absent", ("absent",), "has no credentials", enabled_by=("ATTRIBUTARY_TEST_CREDENTIAL",))
PROGRAMS = {
    "steady": (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); "
        "print('steady now', flush=True); time.sleep(600)"
    ),
    "frail": "import sys; sys.exit(70)",
    "misset": "import sys; print('META_PIXEL_ID: must be set'); sys.exit(78)",
}


@pytest.fixture
def scripted_stages(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stages that are one-line programs, and a mock broker, so that only the looking after is tested."""

    def program(*arguments: str) -> list[str]:
        return [sys.executable, "-c", PROGRAMS.get(arguments[0], "pass")]

    monkeypatch.setattr(stack_module, "command_line", program)
    monkeypatch.setattr(stack_module, "STAGES", (STEADY, FRAIL, MISSET, ABSENT))
    monkeypatch.setattr(stack_module, "_RESTART_SECONDS", 0.05)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with find_broker(("mock",)) as broker:
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker.bootstrap)
        yield


@pytest.mark.postgres
@pytest.mark.usefixtures("scripted_stages")
def test_stages_are_started_restarted_given_up_and_stopped(tmp_path: Path) -> None:
    said: list[str] = []
    with Stack(StackFolder(tmp_path), said.append) as stack:
        stack.start()
        steady, frail, misset = stack.stages
        _until(lambda: frail.restarts >= 2 and misset.given_up, stack.watch)
        # A SIGTERM that comes before Python has its handler ends it with -15.
        _until(lambda: "steady now" in steady.child.log_tail(), stack.watch)
        assert steady.restarts == 0
        assert steady.child.running
        assert misset.restarts == 0
        assert "misset is off: META_PIXEL_ID: must be set" in said
        lines = "\n".join(summary(stack))
        assert "absent         off without credentials: ATTRIBUTARY_TEST_CREDENTIAL" in lines
        assert str(steady.metrics_port) in lines
    assert steady.child.returncode == 0


@pytest.mark.postgres
@pytest.mark.usefixtures("scripted_stages")
def test_a_stop_and_a_start_find_the_data_and_the_ports_again(tmp_path: Path) -> None:
    ports = []
    for start in range(2):
        with Stack(StackFolder(tmp_path), lambda _: None) as stack:
            stack.start()
            ports.append([running.metrics_port for running in stack.stages])
            with psycopg.connect(stack.dsn) as connection:
                if start == 0:
                    connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
                else:
                    assert connection.execute("SELECT answer FROM kept").fetchall() == [(42,)]
    assert ports[0] == ports[1]


def test_a_stage_is_asked_to_stop_once(tmp_path: Path) -> None:
    """The second SIGTERM means: at once, without the batch."""
    folder = StackFolder(tmp_path)
    counting = (
        "import signal, sys, time; asked = []; signal.signal(signal.SIGTERM, lambda *_: asked.append(1)); "
        "print('ready', flush=True)\n"
        "while not asked: time.sleep(0.01)\n"
        "time.sleep(0.5); print('asked', len(asked), flush=True)"
    )
    with Stack(folder, lambda _: None) as stack:
        child = spawn([sys.executable, "-c", counting], name="counting", log=folder.log("counting"))
        stack.stages.append(RunningStage(STEADY, 1, child))
        _until(lambda: "ready" in child.log_tail(), lambda: None)
    assert child.log_tail().splitlines()[-1] == "asked 1"
    assert child.returncode == 0


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    folder = StackFolder(tmp_path / "up")
    assert folder.owner() is None
    assert stop_detached(folder) is False
    with folder.lock():
        assert folder.owner() == os.getpid()
        with pytest.raises(FolderInUseError, match=str(os.getpid())), folder.lock():
            pass
        folder.write_environment({"DATABASE_URL": "postgresql://u@/x?host=/tmp dir"})
        assert folder.environment_file.stat().st_mode & 0o777 == 0o600
        assert folder.environment_file.read_text() == "export DATABASE_URL='postgresql://u@/x?host=/tmp dir'\n"
    assert folder.owner() is None
    assert not folder.environment_file.exists()


def test_a_port_is_remembered_while_it_is_free(tmp_path: Path, free_port: int) -> None:
    folder = StackFolder(tmp_path)
    assert folder.port("kafka", free_port) == free_port
    assert is_free(free_port)
    assert folder.port("kafka", 1) == free_port


def test_files_of_a_checkout_lie_beside_its_project_file() -> None:
    root = project_root()
    assert root is not None
    assert (root / "pyproject.toml").exists()


def test_a_stage_without_its_packages_is_off_and_says_how_to_get_them() -> None:
    without = StageProcess("x", ("x",), "needs a package", packages=("attributary_no_such_package",))
    assert not without.is_enabled({})
    assert without.why_off == "off: pip install 'attributary[collect]'"
    assert "ATTRIBUTARY_TEST_CREDENTIAL" in ABSENT.why_off


def test_a_stage_is_enabled_by_any_of_its_variables_or_their_files() -> None:
    assert STEADY.is_enabled({})
    assert not ABSENT.is_enabled({"ATTRIBUTARY_TEST_CREDENTIAL": ""})
    assert ABSENT.is_enabled({"ATTRIBUTARY_TEST_CREDENTIAL": "x"})
    assert ABSENT.is_enabled({"ATTRIBUTARY_TEST_CREDENTIAL_FILE": "secret"})


def test_commands_run_with_this_interpreter() -> None:
    assert command_line("db", "migrate")[-2:] == ["db", "migrate"]
    assert command_line("db")[0].startswith(os.path.dirname(sys.executable))  # noqa: PTH120  # it is a text


def _until(condition: Callable[[], bool], step: Callable[[], None]) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < deadline
        step()
        time.sleep(0.02)
