"""A start of the local stack tells what it does: ports, waits, what is not ready; and how to watch the stack."""

from __future__ import annotations

import http.server
import json
import shutil
import socket
import stat
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import yaml
from typer.testing import CliRunner

from attributary.cli.main import app
from attributary.local import stack as stack_module
from attributary.local.folder import StackFolder
from attributary.local.monitoring import start_prometheus, write_monitoring
from attributary.local.paths import project_root
from attributary.local.ports import free_port, is_free
from attributary.local.process import ProcessFailedError, spawn
from attributary.local.stack import RunningStage, Stack
from attributary.local.stages import StageProcess
from attributary.local.steps import step

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))
        server.listen()
        yield int(server.getsockname()[1])


def test_newcomer_2_a_port_of_another_program_is_told_with_the_one_in_its_place(tmp_path: Path) -> None:
    said: list[str] = []
    stack = Stack(StackFolder(tmp_path), said.append)
    with taken_port() as taken:
        port = stack._port("kafka-9092", taken)
        assert port != taken
        assert said == [f"kafka-9092: port {taken} is taken by another program, using {port}"]
        assert stack._port("kafka-9092", taken) == port
        assert said[1] == f"kafka-9092: port {taken} is taken by another program, using {port}, as before"
    assert is_free(taken)
    assert stack._port("kafka-9092", taken) == port
    assert said[2] == f"kafka-9092: using port {port}, as before, although {taken} is free now"
    assert stack._port("other", wish := free_port()) == wish
    assert len(said) == 3


def test_a_step_tells_its_begin_that_it_goes_on_and_how_long_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    with step(said.append, "quick: begins"):
        assert said == ["quick: begins"]
    assert said == ["quick: begins"]
    monkeypatch.setattr("attributary.local.steps.SILENT_SECONDS", 0.0)
    goes_on = threading.Event()

    def say(text: str) -> None:
        said.append(text)
        if "still at it" in text:
            goes_on.set()

    with step(say, "slow: begins", still_seconds=0.01):
        assert goes_on.wait(120)
    assert said[-1].startswith("slow: done in")
    with pytest.raises(ValueError, match="broken"), step(say, "failed: begins"):
        raise ValueError("broken")
    assert said[-1] == "failed: begins"


class Readiness(http.server.BaseHTTPRequestHandler):
    answer = 503

    def do_GET(self) -> None:
        self.send_response(self.answer)
        self.end_headers()
        self.wfile.write(b"no partitions yet" if self.answer != 200 else b"ok\n")

    def log_message(self, *_: object) -> None: ...


@contextmanager
def stage(folder: StackFolder, answer: int, program: str) -> Iterator[Stack]:
    """A stack of one stage, whose program and /readyz are made up."""
    handler = type("Answers", (Readiness,), {"answer": answer})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    stack = Stack(folder, lambda _: None)
    child = spawn([sys.executable, "-c", program], name="made up", log=folder.log("made-up"))
    described = StageProcess("made-up", (), "for this test")
    stack.stages.append(RunningStage(described, server.server_address[1], child))
    try:
        yield stack
    finally:
        stack.stop()
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_stage_that_does_not_become_ready_is_named_with_its_reason(tmp_path: Path) -> None:
    folder = StackFolder(tmp_path)
    waits = "import time; time.sleep(60)"
    late = pytest.raises(ProcessFailedError, match="made-up is not ready: no partitions yet")
    with stage(folder, 503, waits) as stack, late:
        stack.wait_ready(0.3)
    with stage(folder, 200, waits) as stack:
        stack.wait_ready(180)
    wrong = "import sys; print('META_PIXEL_ID: must be set', flush=True); sys.exit(78)"
    ended = pytest.raises(ProcessFailedError, match=r"it ended with 78.*\n.*META_PIXEL_ID: must be set")
    with stage(folder, 503, wrong) as stack, ended:
        stack.wait_ready(180)


def test_a_database_whose_port_was_taken_meanwhile_gets_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports: list[int] = []

    @contextmanager
    def postgres(_data: Path, *, port: int) -> Iterator[str]:
        ports.append(port)
        if len(ports) == 1:
            raise ProcessFailedError('could not bind IPv4 address "127.0.0.1": Address already in use')
        yield "server"

    monkeypatch.setattr(stack_module, "embedded_postgres", postgres)
    monkeypatch.setattr(stack_module, "free_port", lambda _wish: free_port())
    started: object = Stack(StackFolder(tmp_path), lambda _: None)._start_postgres()
    assert started == "server"
    assert len(set(ports)) == 2


def test_the_configuration_of_prometheus_and_grafana_names_every_process(tmp_path: Path) -> None:
    folder = StackFolder(tmp_path)
    ports = {"stitcher": 1, "forwarder-meta": 2}
    home = write_monitoring(folder, ports, "postgresql://u:p%40@127.0.0.1:5/shop", 9)
    scraped = yaml.safe_load((home / "prometheus.yml").read_text())
    jobs = {each["job_name"]: each["static_configs"] for each in scraped["scrape_configs"]}
    assert jobs["attributary"] == [{"targets": ["127.0.0.1:1"], "labels": {"process": "stitcher"}}]
    assert jobs["attributary-forwarders"] == [{"targets": ["127.0.0.1:2"], "labels": {"process": "forwarder-meta"}}]
    assert scraped["rule_files"][0].endswith("deploy/prometheus/rules.yml")
    file = home / "provisioning" / "datasources" / "attributary.yml"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    sources = {each["uid"]: each for each in yaml.safe_load(file.read_text())["datasources"]}
    assert sources["attributary-prometheus"]["url"] == "http://127.0.0.1:9"
    assert sources["attributary-postgres"]["url"] == "127.0.0.1:5"
    assert sources["attributary-postgres"]["secureJsonData"] == {"password": "p@"}
    root = project_root()
    assert root is not None
    file = root / "deploy" / "grafana" / "provisioning" / "datasources" / "attributary.yml"
    deployed = yaml.safe_load(file.read_text())
    assert {each["uid"] for each in deployed["datasources"]} == set(sources)


def test_without_prometheus_on_this_machine_the_option_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProcessFailedError, match="prometheus is not installed; install it"):
        start_prometheus(StackFolder(tmp_path), tmp_path, free_port())


def test_the_prometheus_of_this_machine_scrapes_the_processes(tmp_path: Path) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus (Debian: prometheus) is not installed")
    import urllib.request

    folder, port = StackFolder(tmp_path), free_port()
    child = start_prometheus(folder, write_monitoring(folder, {"stitcher": free_port()}, "dbname=x", port), port)
    try:
        deadline = time.monotonic() + 180
        while True:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/targets", timeout=120) as answer:
                targets = json.load(answer)["data"]["activeTargets"]
            if {each["labels"].get("process") for each in targets} >= {"stitcher"}:
                break
            assert time.monotonic() < deadline, targets
    finally:
        child.stop()


def test_up_status_of_a_folder_without_a_stack_says_how_to_start_one(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["up", "--data", str(tmp_path), "--status"])
    assert done.exit_code == 1
    assert done.stdout == f"no stack runs in {tmp_path}; start one: attributary up --detach\n"
