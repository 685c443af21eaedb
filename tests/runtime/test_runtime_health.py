"""/metrics, /livez and /readyz, and the logs' net under personal data."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import pytest

from attributary.consumers.runtime import health, metrics
from attributary.consumers.runtime.errors import ConfigError
from attributary.consumers.runtime.health import Heartbeat, serve
from attributary.consumers.runtime.logging import _mask

HOST = "127.0.0.1"


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=120) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


class Served:
    def __init__(self) -> None:
        self.dependency_answers = True
        self.heartbeat = Heartbeat(lambda: self.dependency_answers)
        self.port = serve(HOST, 0, self.heartbeat)

    def status(self, path: str) -> int:
        return get(self.port, path)[0]


@pytest.fixture
def served() -> Served:
    return Served()


def test_the_three_paths_and_no_other(served: Served) -> None:
    status, text = get(served.port, "/metrics")
    assert status == 200
    assert "# HELP attribution_build_info" in text
    status, text = get(served.port, "/")
    assert (status, text) == (404, "paths: /metrics /livez /readyz\n")


def test_ready_only_after_the_start_and_while_dependencies_answer(served: Served) -> None:
    assert (served.status("/livez"), served.status("/readyz")) == (200, 503)
    served.heartbeat.started = True
    assert served.status("/readyz") == 200
    served.dependency_answers = False
    assert (served.status("/livez"), served.status("/readyz")) == (200, 503)  # a restart would not bring Postgres back


def test_a_loop_that_stands_still_is_dead(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    served.heartbeat.started = True
    monkeypatch.setattr(health, "LIVENESS_SECONDS", -1.0)
    assert (served.status("/livez"), served.status("/readyz")) == (503, 503)
    monkeypatch.setattr(health, "LIVENESS_SECONDS", 60.0)
    served.heartbeat.beat()
    assert (served.status("/livez"), served.status("/readyz")) == (200, 200)


def test_a_port_that_is_taken_or_impossible_is_a_setting(served: Served) -> None:
    with pytest.raises(ConfigError, match="METRICS_PORT: cannot listen") as caught:
        serve(HOST, served.port, served.heartbeat)
    assert caught.value.exit_code == 78
    with pytest.raises(ConfigError):
        serve("192.0.2.1", 0, served.heartbeat)


@pytest.mark.parametrize("name", ["email", "user_email", "phone", "ip_address", "access_token", "dsn", "user_data"])
def test_logs_hide_what_a_name_gives_away(name: str) -> None:
    event = {"event": "x", name: "jane@example.org", "conversion_id": "c1"}
    assert _mask(None, "info", event) == {"event": "x", name: "[hidden]", "conversion_id": "c1"}


def logged(body: str, level: str = "info") -> list[dict[str, object]]:
    program = (
        "import structlog\nfrom attributary.consumers.runtime.logging import configure_logging\n"
        f"configure_logging('stitcher', {level!r}, '1.0')\nlog = structlog.get_logger()\n{body}"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240, check=True)
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_one_json_object_a_line_with_service_level_and_utc_time() -> None:
    (line,) = logged("log.info('batch', records=3, dsn='postgresql://u:p@h/d')")
    stamp = str(line.pop("timestamp"))
    assert stamp.endswith("Z")
    assert line == {
        "event": "batch", "records": 3, "dsn": "[hidden]", "level": "info", "service": "stitcher", "version": "1.0",
    }  # fmt: skip


def test_levels_below_the_set_one_are_silent() -> None:
    lines = logged("log.debug('a'); log.info('b'); log.warning('c'); log.error('d')", "warning")
    assert [line["event"] for line in lines] == ["c", "d"]


def test_a_stack_shows_the_way_and_no_row_that_postgres_quotes() -> None:
    text = "duplicate key\\nDETAIL:  Key (user_id)=(jane@example.com) already exists."
    body = f"""
try:
    try:
        raise LookupError("{text}")
    except LookupError as error:
        raise ValueError("{text}") from error
except ValueError:
    log.exception("stopped")
"""
    (line,) = logged(body)
    stack = str(line["exception"])
    assert "jane" not in json.dumps(line)
    assert stack.index("LookupError: duplicate key") < stack.index("ValueError: duplicate key")
    assert stack.count("Traceback (most recent call last):") == 2
    assert 'File "<string>", line ' in stack


def test_s13_half_sent_requests_take_few_threads_and_end(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_SOCKET_SECONDS", 0.5)
    before = threading.active_count()
    slow = [socket.create_connection((HOST, served.port)) for _ in range(200)]
    try:
        for one in slow:
            with contextlib.suppress(OSError):
                one.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
        assert threading.active_count() - before <= health._MAX_THREADS
        deadline = time.monotonic() + 180
        status = 0
        while status != 200 and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                status = served.status("/livez")
        assert status == 200
    finally:
        for one in slow:
            one.close()


def test_s10_a_loop_that_hangs_is_told_by_the_thread_that_serves_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    heartbeat = Heartbeat(lambda: True)
    metrics.stalled_seconds.labels("hung").set_function(heartbeat.silent_seconds)
    now = time.monotonic()
    monkeypatch.setattr("attributary.consumers.runtime.health.time.monotonic", lambda: now + 500)
    port = serve(HOST, 0, heartbeat)
    line = next(
        each for each in get(port, "/metrics")[1].splitlines() if 'attribution_stalled_seconds{stage="hung"}' in each
    )
    assert float(line.split()[-1]) >= 499
