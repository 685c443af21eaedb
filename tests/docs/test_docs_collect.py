"""The page on the HTTP collector: its commands in one shell, against a real collector and a real broker."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from attributary.local.ports import free_ports
from tests.fixtures.collector_process import in_log

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "how-to" / "collect.md").read_text("utf-8")
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_STARTED = """(attributary collect > collector.log 2>&1 & echo $! > collector.pid)
HEALTH=http://localhost:8080/api/v1/attribution/health
for i in $(seq 1800); do curl -sf $HEALTH > /dev/null && break; sleep 0.1; done"""


def script(port: int) -> str:
    lines = ["set -e"]
    for language, text in _BLOCK.findall(PAGE):
        if language == "sh":
            lines.append(text.replace("attributary collect   # until Ctrl-C", _STARTED) + "\necho\necho ==")
    return "\n".join(lines).replace("localhost:8080", f"127.0.0.1:{port}")


@pytest.mark.kafka
@pytest.mark.slow
def test_the_commands_of_the_page_do_what_it_says(kafka_topics: str, tmp_path: Path) -> None:
    port, metrics_port = free_ports(2)
    kept = {name: text for name, text in os.environ.items() if not name.startswith("COLLECT_")}
    environment = kept | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "KAFKA_BOOTSTRAP_SERVERS": kafka_topics,
        "COLLECT_HOST": "127.0.0.1",
        "COLLECT_PORT": str(port),
        "METRICS_PORT": str(metrics_port),
        "METRICS_HOST": "127.0.0.1",
    }
    try:
        done = subprocess.run(
            ["bash", "-c", script(port)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240,
            check=False,
        )  # fmt: skip
        log = (tmp_path / "collector.log").read_text()
        assert done.returncode == 0, done.stdout + done.stderr + log
    finally:
        subprocess.run(["bash", "-c", "kill $(cat collector.pid)"], cwd=tmp_path, check=False)
    for language, text in _BLOCK.findall(PAGE):
        if language == "json":
            assert text.strip() in done.stdout
    assert '"field":"anonymous_id"' in done.stdout
    assert "302 https://shop.example/offer?utm_source=news&utm_medium=email" in done.stdout
    assert (tmp_path / "pixel.gif").read_bytes()[:4] == b"GIF8"
    assert "in force\torder service" in done.stdout
    assert set(in_log(kafka_topics, "visit-")) == {"visit-17", "visit-18"}


def test_the_json_that_the_page_shows_is_json() -> None:
    bodies = re.findall(r"-d '([^']*)'", PAGE)
    assert len(bodies) >= 5
    for body in bodies:
        json.loads(body)


def test_the_limits_of_the_page_are_the_defaults() -> None:
    from attributary.producers.collector.config import CollectorConfig

    config = CollectorConfig()
    assert (config.max_body, config.max_body_secret) == (1 << 20, 5 << 20)
    assert (config.max_record, config.max_record_secret) == (32 << 10, 256 << 10)
    assert (config.max_records, config.requests_per_second, config.requests_per_second_ip) == (1_000, 500, 50)
    assert (config.header_bytes, config.headers_max) == (16 << 10, 100)
    assert (config.header_seconds, config.body_seconds, config.ack_seconds) == (10, 20, 2)
