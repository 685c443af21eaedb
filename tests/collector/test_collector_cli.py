"""The command `collect` with missing and wrong settings: exit code 78 and the variable's name, never a value."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.collector import make_key


def collect(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    make_key(folder / "keys.json", "wk")
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("COLLECT_", "KAFKA_"))}
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "COLLECT_KEYS_FILE": str(folder / "keys.json"),
        "COLLECT_SPOOL": "off", "COLLECT_PORT": "0", "METRICS_PORT": "0",
    }  # fmt: skip
    command = [sys.executable, "-c", "from attributary.cli.main import run; run()", "collect"]
    return subprocess.run(
        command, env=environment | settings | variables, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"COLLECT_SPOOL": ""}, "COLLECT_SPOOL"),
        ({"COLLECT_KEYS_FILE": "/nonexistent/keys.json"}, "COLLECT_KEYS_FILE"),
        ({"COLLECT_TRUSTED_PROXIES": "10.0.0.0/8,secret-host"}, "COLLECT_TRUSTED_PROXIES"),
        ({"COLLECT_REDIRECT_SECRET": "secret-short"}, "COLLECT_REDIRECT_SECRET"),
        ({"COLLECT_PREFIX": "secret path"}, "COLLECT_PREFIX"),
        ({"COLLECT_SPOOL": "/proc/nonexistent/secret"}, "COLLECT_SPOOL"),
        ({"KAFKA_EXTRA": '{"acks": "0"}'}, "KAFKA_EXTRA"),
        ({"COLLECT_PORT": "taken"}, "COLLECT_PORT"),
    ],
)
def test_a_bad_setting_stops_the_start(tmp_path: Path, variables: dict[str, str], named: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        given = {name: port if text == "taken" else text for name, text in variables.items()}
        ended = collect(tmp_path, COLLECT_HOST="127.0.0.1", **given)
    assert ended.returncode == 78, ended.stderr
    assert named in ended.stderr
    assert "secret" not in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
