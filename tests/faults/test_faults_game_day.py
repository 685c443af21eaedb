"""Game day: causes are made to happen to a running pipeline that a real Prometheus scrapes; each alert is seen to fire.

The rules are those of deploy/prometheus with their waits divided by ``FASTER``, and their ranges by less, so that a few
restarts fit into one on a loaded machine. The targets have the labels that prometheus.yml gives them. The test is
skipped where Prometheus (Debian: prometheus) is not installed.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import psycopg.conninfo
import pytest
import yaml
from confluent_kafka import Producer
from psycopg import sql

from attributary.local.ports import free_port
from attributary.schemas.topics import CONVERSIONS, TOUCHPOINTS
from tests.factories.traffic import publish, traffic
from tests.fixtures.pipeline import wait_until
from tests.fixtures.run_notes import note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]

RULES = Path(__file__).resolve().parents[2] / "deploy" / "prometheus" / "rules.yml"
STAGES = ("stitcher", "attributor", "auditor", "sweeper", "trainer")
FASTER = 30
RANGES_FASTER = 10
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def fast_rules() -> str:
    def divided(text: str, before: str, after: str, by: int) -> str:
        return re.sub(
            rf"{before}(\d+)([smhd]){after}",
            lambda found: found[0].replace(
                f"{found[1]}{found[2]}", f"{max(1, int(found[1]) * _UNITS[found[2]] // by)}s"
            ),
            text,
        )

    text = divided(RULES.read_text(encoding="utf-8"), "for: ", r"\b", FASTER)
    text = divided(divided(text, r"\[", r"\]", RANGES_FASTER), "offset ", r"\b", RANGES_FASTER)
    # Thresholds of seconds.
    return text.replace("attribution_stalled_seconds) > 180", "attribution_stalled_seconds) > 6").replace(
        "attribution_oldest_unread_input_seconds) > 300", "attribution_oldest_unread_input_seconds) > 10"
    )


@dataclass
class Prometheus:
    """A Prometheus that scrapes the stages of one test every second."""

    url: str
    targets: Path
    ports: dict[str, int]
    took: dict[str, float] = field(default_factory=dict)

    def show(self, *without: str) -> None:
        """Name the targets to Prometheus."""
        found = [
            {"targets": [f"127.0.0.1:{port}"], "labels": {"process": name}}
            for name, port in self.ports.items()
            if name not in without
        ]
        fresh = self.targets.with_suffix(".new")
        fresh.write_text(json.dumps(found))
        fresh.replace(self.targets)

    def ask(self, query: str) -> list[dict[str, str]]:
        url = f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        try:
            with urllib.request.urlopen(url, timeout=120) as response:  # noqa: S310  # ours
                document: dict[str, Any] = json.load(response)
        except OSError:
            return []
        return [each["metric"] for each in document["data"]["result"]]

    def firing(self, alert: str, **labels: str) -> bool:
        wanted = "".join(f', {name}="{value}"' for name, value in labels.items())
        return bool(self.ask(f'ALERTS{{alertname="{alert}", alertstate="firing"{wanted}}}'))

    def pages(self) -> set[str]:
        return {each["alertname"] for each in self.ask('ALERTS{alertstate="firing"}')}

    def await_alert(self, cause: str, alert: str, since: float, **labels: str) -> None:
        wait_until(lambda: self.firing(alert, **labels), f"{cause}: {alert} does not fire", 180)
        self.took[f"{cause} -> {alert}"] = round(time.monotonic() - since, 1)

    def await_silence(self, *alerts: str) -> None:
        wait_until(lambda: not self.pages() & set(alerts), f"{alerts} do not end: {self.pages()}", 240)


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus (Debian: prometheus) is not installed: no game day was held")
    folder = tmp_path / "prometheus"
    folder.mkdir()
    (folder / "rules.yml").write_text(fast_rules())
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yml"],
        "scrape_configs": [
            {
                "job_name": "attributary",
                "file_sd_configs": [{"files": ["targets.json"], "refresh_interval": "1s"}],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    found = Prometheus(f"http://127.0.0.1:{port}", folder / "targets.json", {name: free_port() for name in STAGES})
    found.show()
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(
            [program, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
             f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"],
            stdout=log, stderr=log, cwd=folder,
        )  # fmt: skip
    try:
        yield found
    finally:
        child.terminate()
        child.wait(180)


def start(pipeline: PipelineUnderTest, prometheus: Prometheus, *names: str, **variables: str) -> None:
    for name in names:
        pipeline.start(name, METRICS_PORT=str(prometheus.ports[name]), **variables)


def allow_connections(dsn: str, *, allowed: bool) -> None:
    """Let Postgres refuse a database, and end who is in it, or take it back."""
    parts = psycopg.conninfo.conninfo_to_dict(dsn)
    name = str(parts["dbname"])
    with psycopg.connect(psycopg.conninfo.make_conninfo(dsn, dbname="postgres"), autocommit=True) as admin:
        admin.execute(
            sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS {}").format(sql.Identifier(name), sql.Literal(allowed))
        )
        if not allowed:
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))


def end_again_and_again(pipeline: PipelineUnderTest, prometheus: Prometheus) -> None:
    """Kill the auditor once, then each time that it has started."""
    since = time.monotonic()
    pipeline.kill("auditor")
    prometheus.await_alert("the auditor is killed", "AttributaryProcessDown", since, process="auditor")
    since = time.monotonic()
    for _ in range(5):
        start(pipeline, prometheus, "auditor")
        wait_until(lambda: prometheus.ask('up{process="auditor"} == 1'), "the auditor is not scraped")
        pipeline.kill("auditor")
        wait_until(lambda: not prometheus.ask('up{process="auditor"} == 1'), "the auditor is still there")
    prometheus.await_alert("the auditor ends again and again", "AttributaryCrashLoop", since, process="auditor")
    start(pipeline, prometheus, "auditor")


def send_bomb(bootstrap: str) -> None:
    """Publish a batch of kilobytes that unpacks to more than a client takes."""
    producer = Producer(
        {"bootstrap.servers": bootstrap, "message.max.bytes": 250_000_000, "compression.type": "zstd",
         "queue.buffering.max.kbytes": 500_000, "log_level": 0}
    )  # fmt: skip
    producer.produce(TOUCHPOINTS, bytes(180 << 20), b"acme|bomb", partition=0)
    assert producer.flush(120) == 0


def test_s10_each_cause_is_told_by_its_alert(
    pipeline: PipelineUnderTest, publisher: Publisher, prometheus: Prometheus
) -> None:
    pipeline.environment["DATABASE_LOCK_SECONDS"] = "0"
    start(pipeline, prometheus, *STAGES)
    publish(publisher, traffic(200, 20, seed=3))
    pipeline.settle()
    wait_until(lambda: len(prometheus.ask('up{job="attributary"} == 1')) == len(STAGES), "not all are scraped")
    wait_until(lambda: prometheus.pages() == set(), "a healthy pipeline tells something")  # what its start told ends

    cause, since = "records that cannot be read", time.monotonic()
    for _ in range(3):
        publisher.send_bytes(CONVERSIONS, b"rubbish", b"acme|x")
    publisher.flush()
    prometheus.await_alert(cause, "AttributaryDeadLetters", since, stage="stitcher")

    cause, since = "a lock that is never given back", time.monotonic()
    with psycopg.connect(pipeline.dsn) as holder:
        holder.execute("LOCK TABLE attribution_positions IN ACCESS EXCLUSIVE MODE")
        publish(publisher, traffic(50, 5, seed=4))
        prometheus.await_alert(cause, "AttributaryStageHangs", since, stage="stitcher")
    prometheus.await_silence("AttributaryStageHangs")

    cause, since = "Postgres takes no connections", time.monotonic()
    allow_connections(pipeline.dsn, allowed=False)
    try:
        publish(publisher, traffic(50, 5, seed=5))
        prometheus.await_alert(cause, "AttributaryPaused", since, stage="stitcher")
    finally:
        allow_connections(pipeline.dsn, allowed=True)
    prometheus.await_silence("AttributaryPaused")

    end_again_and_again(pipeline, prometheus)

    cause, since = "the target of the trainer vanishes", time.monotonic()
    prometheus.show("trainer")
    prometheus.await_alert(cause, "AttributaryProcessMissing", since, process="trainer")
    prometheus.show()

    cause, since = "the stitcher is off while events come", time.monotonic()
    pipeline.kill("stitcher")
    publish(publisher, traffic(50, 5, seed=6))
    prometheus.await_alert(cause, "AttributaryInputWaits", since)
    start(pipeline, prometheus, "stitcher")
    pipeline.settle()

    cause, since = "a batch that cannot be unpacked", time.monotonic()
    send_bomb(pipeline.bootstrap)
    prometheus.await_alert(cause, "AttributaryUnreadableBatch", since, stage="stitcher")

    for what, seconds in prometheus.took.items():
        note("game day", f"{what}: {seconds} s (waits of the rules divided by {FASTER})")
    assert len(prometheus.took) == 8
