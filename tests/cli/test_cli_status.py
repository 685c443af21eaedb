"""`attributary status` and `doctor`: what is broken is told with cause and cure, and what hangs is not waited for."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource  # type: ignore[attr-defined]
from typer.testing import CliRunner

from attributary.cli.main import app
from attributary.consumers.maintenance.status import Level, kafka_checks
from attributary.consumers.maintenance.status.store_checks import Places
from attributary.consumers.runtime.settings import KafkaSettings
from attributary.schemas.registry import subject_of
from attributary.schemas.topics import TOUCHPOINTS, dead_letter_topics

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pytest_httpserver import HTTPServer

STAGES = {"stitcher", "attributor", "auditor", "sweeper"}
SECRET = "hunter2"
Found = dict[str, dict[str, Any]]


def status(**variables: str | None) -> tuple[int, Found]:
    done = CliRunner().invoke(app, ["status", "--json"], env=variables)
    report = json.loads(done.stdout)
    assert report["seconds"] < 6
    assert SECRET not in done.output
    return done.exit_code, {finding["part"]: finding for finding in report["findings"]}


def levels(found: Found) -> dict[str, str]:
    return {part: finding["level"] for part, finding in found.items()}


@contextmanager
def silent_server() -> Iterator[int]:
    """Take connections and never say a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(64)
        taken: list[socket.socket] = []

        def take() -> None:
            while True:
                try:
                    taken.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield int(server.getsockname()[1])
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for each in taken:
                each.close()
            assert taken, "nobody connected: the fault did not fire"


def test_what_hangs_is_not_waited_for() -> None:
    with silent_server() as kafka, silent_server() as postgres, silent_server() as registry:
        started = time.monotonic()
        code, found = status(
            KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{kafka}",
            DATABASE_URL=f"postgresql://a:{SECRET}@127.0.0.1:{postgres}/x",
            SCHEMA_REGISTRY_URL=f"http://127.0.0.1:{registry}",
        )
        assert time.monotonic() - started < 90  # five, and what a loaded machine adds
    assert code == 69
    assert {part for part, level in levels(found).items() if level == "bad"} == {"kafka", "postgres", "registry"}
    assert levels(found)["stitcher"] == levels(found)["models"] == "unknown"


def test_without_settings_each_part_says_what_it_lacks() -> None:
    done = CliRunner().invoke(app, ["doctor"], env={"KAFKA_BOOTSTRAP_SERVERS": None, "DATABASE_URL": None})
    assert done.exit_code == 69
    assert "KAFKA_BOOTSTRAP_SERVERS: must be set" in done.stdout
    assert "DATABASE_URL: must be set" in done.stdout
    assert "attributary settings check" in " ".join(done.stdout.split())
    assert done.stderr == ""


def test_the_processes_of_a_local_stack_are_asked(free_port: int, httpserver: HTTPServer) -> None:
    nothing: dict[str, str | None] = {"KAFKA_BOOTSTRAP_SERVERS": None, "DATABASE_URL": None}
    assert "processes" not in status(**nothing, STATUS_READY_URLS=None)[1]
    httpserver.expect_request("/readyz").respond_with_data("ready")
    good = f"stitcher=http://127.0.0.1:{httpserver.port}"
    _, found = status(**nothing, STATUS_READY_URLS=good)
    assert (found["processes"]["level"], found["processes"]["text"]) == ("good", "all 1 are ready")
    _, found = status(**nothing, STATUS_READY_URLS=f"{good}, api=http://127.0.0.1:{free_port}")
    assert (found["processes"]["level"], found["processes"]["text"]) == ("bad", "1 of 2 not ready: api")
    assert found["processes"]["facts"] == {"stitcher": "ready", "api": "/readyz does not answer"}
    httpserver.clear()
    httpserver.expect_request("/readyz").respond_with_data("no partitions yet", status=503)
    _, found = status(**nothing, STATUS_READY_URLS=good)
    assert (found["processes"]["level"], found["processes"]["cause"]) == ("warning", "stitcher: no partitions yet")
    for wrong in ("stitcher", f"a=http://u:{SECRET}@h:1", "a=file:///etc/passwd"):
        _, found = status(**nothing, STATUS_READY_URLS=wrong)
        assert found["processes"]["text"].startswith("STATUS_READY_URLS: must be name=http://host:port")


def test_the_lines_fit_into_80_columns(free_port: int) -> None:
    variables = {
        "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port}", "COLUMNS": "80",
        "DATABASE_URL": f"postgresql://a:{SECRET}@127.0.0.1:{free_port}/a_database_with_a_long_name",
    }  # fmt: skip
    for command in ("status", "doctor"):
        done = CliRunner().invoke(app, [command], env=variables)
        lines = done.stdout.splitlines()
        assert len(lines) > 5
        assert [line for line in lines if len(line) > 80 or line != line.rstrip()] == []
        assert SECRET not in done.stdout
        assert f"127.0.0.1:{free_port}: nothing listens there" in " ".join(done.stdout.split())


def judged(
    name: str = "stitcher",
    processes: int = 1,
    behind: int = 0,
    *,
    has_begun: bool = True,
    lost: int = 0,
    age: float | None = 0.0,
    idle: float | None = 1.0,
    left: float | None = 600_000.0,
) -> tuple[Level, str]:
    group = f"attribution.{name}"
    reading = kafka_checks._Reading(behind, has_begun, lost)
    stored = Places({}, {} if idle is None else {group: idle}, {})
    found = kafka_checks._stage(group, processes, reading, stored, age, left)
    assert (found.level is Level.GOOD) == (not found.cause)
    assert (found.level is Level.GOOD) == (not found.cure)
    return found.level, f"{found.text}; {found.cause}"


def test_a_stage_is_judged_by_processes_lag_progress_and_retention() -> None:
    assert judged() == (Level.GOOD, "1 process, nothing unread, stored 1 s ago; ")
    # A mark of a transaction is an offset behind, and no record.
    assert judged(behind=3) == (Level.GOOD, "1 process, nothing unread, stored 1 s ago; ")
    assert judged(processes=2, behind=3, age=5.0)[1].startswith("2 processes, 3 unread, the oldest for 5 s")
    assert judged(behind=3, age=90.0)[0] is Level.WARNING
    assert judged(behind=3, age=900.0, idle=800.0) == (
        Level.BAD, "1 process, 3 unread, the oldest for 15 min, stored 13 min ago; no progress for 13 min",
    )  # fmt: skip
    assert judged(behind=3, age=400_000.0, left=200_000.0)[0] is Level.WARNING
    assert judged(behind=3, age=560_000.0, left=40_000.0)[0] is Level.BAD
    assert judged(behind=3, age=700_000.0, left=-100_000.0)[1].endswith("unread records are removed in 0 s")
    assert judged(lost=7)[0] is Level.BAD
    assert judged(processes=0)[0] is Level.BAD
    assert judged("trainer", processes=0, age=None, idle=None)[0] is Level.WARNING
    assert judged("forwarder.meta", processes=0, has_begun=False, age=None) == (Level.GOOD, "not in use; ")
    assert judged("forwarder.meta", processes=0, age=None)[0] is Level.WARNING


@pytest.mark.kafka
@pytest.mark.postgres
def test_each_broken_part_is_told(
    kafka_topics: str, database: str, blank_database: str, httpserver: HTTPServer, free_port: int
) -> None:
    httpserver.expect_request("/subjects").respond_with_json([subject_of("touchpoint")])
    good = {"KAFKA_BOOTSTRAP_SERVERS": kafka_topics, "DATABASE_URL": database}
    code, found = status(**good)
    assert code == 69
    assert {part for part, level in levels(found).items() if level == "bad"} == STAGES
    assert found["stitcher"]["cure"].startswith("start it: attributary stitcher")
    rest = {part: level for part, level in levels(found).items() if part not in STAGES}
    assert set(rest.values()) <= {"good", "note"}, rest

    _, found = status(**good | {"DATABASE_URL": blank_database})
    assert levels(found)["migrations"] == "bad"
    assert found["migrations"]["cure"] == "run: attributary db migrate"
    assert levels(found)["results"] == "unknown"

    _, found = status(**good, SCHEMA_REGISTRY_URL=httpserver.url_for("").rstrip("/"))
    assert levels(found)["registry"] == "warning"
    assert "has 1 of" in found["registry"]["text"]
    _, found = status(**good, SCHEMA_REGISTRY_URL=f"http://127.0.0.1:{free_port}")
    assert levels(found)["registry"] == "bad"

    _, found = status(**good | {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port}"})
    assert levels(found)["kafka"] == "bad"
    assert levels(found)["stitcher"] == levels(found)["topics"] == "unknown"
    assert levels(found)["results"] == "good"

    _break(kafka_topics, database)
    _, found = status(**good)
    assert levels(found)["topics"] == "warning"
    assert "retention.ms" in found["topics"]["cause"]
    assert levels(found)["dead letters"] == "warning"
    assert levels(found)["deliveries"] == "warning"
    assert found["deliveries"]["cause"] == "the token was refused"
    assert levels(found)["results"] == "warning"
    assert "1 result to come" in found["results"]["text"]
    assert found["models"]["facts"]["lacking"][0] == "acme: markov is not trained"


def _break(bootstrap: str, dsn: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    entry = ConfigEntry("retention.ms", "1000000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, TOUCHPOINTS, incremental_configs=[entry])
    for answer in admin.incremental_alter_configs([resource]).values():
        answer.result(120)
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
    producer.produce(dead_letter_topics()[0].name, b"broken")
    assert producer.flush(120) == 0
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement, row in ROWS.items():
            columns, places = ", ".join(row), ", ".join(["%s"] * len(row))
            connection.execute(f"INSERT INTO {statement} ({columns}) VALUES ({places})".encode(), list(row.values()))


ROWS: Mapping[str, Mapping[str, Any]] = {
    "attribution_journeys": {
        "tenant_id": "acme", "journey_key": "u:1", "first_event_us": 1, "last_event_us": 1, "last_received_us": 1,
    },
    "attribution_deliveries": {
        "tenant_id": "acme", "destination": "meta", "event_id": "e", "state": "pending",
        "reason": "the token was refused", "occurred_at": "2026-01-01T00:00:00Z", "source_topic": "t",
        "source_partition": 0, "source_offset": 0,
    },
    "attribution_conversions": {
        "tenant_id": "acme", "conversion_id": "c", "conversion_type": "order", "identity_key": "u:1",
        "journey_key": "u:1", "converted_at_us": 1, "received_at_us": 1, "gross_value_micros": 1,
        "net_value_micros": 1, "previous_net_micros": 0, "currency": "EUR", "version": 1, "version_reason": "new",
        "policy_version": "p", "owner_topic": "", "owner_partition": 0, "owner_offset": 0, "event_published_us": 1,
        "versioned_at": "2026-01-01T00:00:00Z",
    },
}  # fmt: skip


@pytest.mark.kafka
def test_a_lag_is_counted_in_records_that_are_there(kafka_topics: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka_topics)
    kafka = KafkaSettings.load()
    before = {finding.part: finding for finding in kafka_checks.check_stages(kafka, None)}
    producer = Producer({"bootstrap.servers": kafka_topics, "log_level": 0})
    for number in range(5):
        producer.produce(TOUCHPOINTS, str(number).encode(), str(number).encode())
    assert producer.flush(120) == 0
    after = {finding.part: finding for finding in kafka_checks.check_stages(kafka, None)}
    assert after["stitcher"].facts["behind"] - before["stitcher"].facts["behind"] == 5
    assert after["stitcher"].facts["oldest_unread_seconds"] > 0
