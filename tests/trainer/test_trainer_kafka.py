"""The trainer as a process on a real Kafka and a real Postgres: done once, told on the topic, killed, resumed."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from attributary.cli.main import app
from attributary.consumers.runtime.crash_points import crash_points
from attributary.consumers.runtime.settings import KafkaSettings
from attributary.consumers.runtime.topic_reader import read_topic
from attributary.consumers.store.connection import connect
from attributary.consumers.store.models.model_states import in_force, list_states
from attributary.consumers.trainer import process as _process  # noqa: F401  # registers the points that it passes
from attributary.local.process import ManagedProcess, spawn
from attributary.local.stages import command_line
from attributary.producers.client import AttributaryProducer
from attributary.producers.config import ProducerConfig
from attributary.producers.pathdata import PathDataMissingError, Replay, ReplayConfig, find_pathdata, read_paths
from attributary.schemas.codec import Codec
from attributary.schemas.topics import CONVERSIONS, JOB_STATUS, TOUCHPOINTS
from tests.factories.bulk_journeys import MARKOV, SHAPLEY
from tests.factories.training_events import feed, order, touchpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import psycopg

pytestmark = [pytest.mark.postgres, pytest.mark.kafka, pytest.mark.slow]

PATIENCE_SECONDS = 180.0
ACME = ("--tenant", "acme")
ACTIVATED = ("-s", "activate=true", "-s", "force=true")  # nobody is closed: conversions only


@pytest.fixture
def pipeline(database: str, fresh_topics: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in {
        "DATABASE_URL": database,
        "KAFKA_BOOTSTRAP_SERVERS": fresh_topics,
        "ATTRIBUTION_FIRST_START": "earliest",
        "METRICS_HOST": "127.0.0.1",
        "METRICS_PORT": "0",
        "KAFKA_SESSION_TIMEOUT_MS": "6000",
        "KAFKA_TRANSACTION_TIMEOUT_MS": "5000",
        "TRAINER_LEASE_SECONDS": "3",
        "TRAINER_POLL_SECONDS": "0.2",
    }.items():
        monkeypatch.setenv(name, value)
    return database


@pytest.fixture
def shop(pipeline: str) -> str:
    events = []
    for number in range(40):
        events += [touchpoint(f"p{number}", number % 9, "search"), touchpoint(f"p{number}", number % 9 + 1, "mail")]
        if number % 2 == 0:
            events.append(order(f"p{number}", number % 9 + 2, 10))
    feed(pipeline, events)
    return pipeline


@contextmanager
def trainer(folder: Path, crash_at: str = "", stage: str = "trainer", name: str = "0") -> Iterator[ManagedProcess]:
    environment = {**os.environ, "ATTRIBUTION_CRASH_AT": crash_at, "ATTRIBUTION_INSTANCE": name}
    child = spawn(command_line(stage), name=stage, log=folder / f"{stage}-{name}.log", env=environment)
    try:
        yield child
    finally:
        child.stop(120.0)


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    return result.stdout


def statuses(bootstrap: str, job_id: str) -> list[dict[str, Any]]:
    codec = Codec()
    settings = KafkaSettings(KAFKA_BOOTSTRAP_SERVERS=bootstrap)
    records = [codec.decode("job_status", found.value) for found in read_topic(settings, JOB_STATUS, until_end=True)]
    return [record for record in records if record["job_id"] == job_id]


def until_published(bootstrap: str, job_id: str, state: str) -> list[dict[str, Any]]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := statuses(bootstrap, job_id)) or found[-1]["state"] != state:
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    return found


def test_jobs_go_through_kafka_and_come_back(shop: str, fresh_topics: str, tmp_path: Path) -> None:
    with trainer(tmp_path) as child:
        done = json.loads(run("jobs", "submit", "train", *ACME, *ACTIVATED, "--id", "t1", "--wait", "--json"))
        assert (done["state"], done["result"]["version"]) == ("succeeded", 1)
        run("jobs", "submit", "train", *ACME, *ACTIVATED, "--id", "t1", "--wait")  # the same job
        run("jobs", "submit", "train", *ACME, "--id", "t1", "--wait", code=2)  # another one
        batch = json.loads(run("jobs", "submit", "analyze_batch", *ACME, "--wait", "--json"))
        assert batch["result"]["conversions"] == 20
        run("jobs", "submit", "activate", *ACME, "-s", "model=poisson", "--wait", code=1)
        run("jobs", "cancel", "later", *ACME)
        run("jobs", "submit", "train", *ACME, "--id", "later", "--wait", code=1)
        assert "later (train of acme): cancelled" in run("jobs", "status", "later", *ACME)
        published = until_published(fresh_topics, "t1", "succeeded")
        assert json.loads(published[-1]["result"])["activation"]["versions"] == {"markov": 1}
        until_published(fresh_topics, "later", "cancelled")
        assert child.running
    assert child.returncode == 0, child.log_tail()
    with connect(shop, application_name="tests") as connection:
        assert [row.version for row in list_states(connection)] == [1]
        assert in_force(connection, "acme").model_set == 1


@pytest.mark.fault
@pytest.mark.parametrize("point", [point for point in crash_points("trainer") if "_state_" not in point])
def test_a_job_survives_the_death_of_its_worker(shop: str, fresh_topics: str, tmp_path: Path, point: str) -> None:
    with trainer(tmp_path, crash_at=point) as child:
        run("jobs", "submit", "train", *ACME, *ACTIVATED, "--id", "t1")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while child.running:
            assert time.monotonic() < deadline, child.log_tail()
            time.sleep(0.1)
        assert child.returncode == -signal.SIGKILL
        assert f"crash_at: {point}" in child.log_tail()
    with trainer(tmp_path):
        done = json.loads(run("jobs", "status", "t1", *ACME, "--wait", "--json"))
        until_published(fresh_topics, "t1", "succeeded")
    assert done["state"] == "succeeded"
    with connect(shop, application_name="tests") as connection:
        assert [(row.version, row.is_active) for row in list_states(connection)] == [(1, True)]
        assert in_force(connection, "acme").model_set == 1


@contextmanager
def query_without_end(dsn: str) -> Iterator[None]:
    """Let the job in hand wait for one answer of Postgres, in silence, until the context ends."""
    with connect(dsn, application_name="tests") as blocker:
        blocker.execute("LOCK TABLE attribution_touchpoints IN ACCESS EXCLUSIVE MODE")
        yield
        blocker.rollback()


def until_blocked(dsn: str) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = %s"
    deadline = time.monotonic() + PATIENCE_SECONDS
    with connect(dsn, application_name="tests", autocommit=True) as connection:
        while connection.execute(waiting, ("attributary-trainer-reader",)).fetchone() == (0,):
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.fault
def test_a_process_that_is_silent_for_longer_than_the_lease_keeps_cancels_and_gives_back_its_job(
    shop: str, fresh_topics: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINER_UPKEEP_SECONDS", "0")  # it would wait for the table, too
    monkeypatch.setenv("TRAINER_LEASE_SECONDS", "8")  # a busy machine may keep a process from its heartbeat for some
    with query_without_end(shop), trainer(tmp_path) as child, trainer(tmp_path, name="second") as second:
        run("jobs", "submit", "train", *ACME, "-s", "closing=all", "--id", "t1")
        until_blocked(shop)
        time.sleep(12.0)  # one lease and a half
        kept = json.loads(run("jobs", "status", "t1", *ACME, "--json"))
        assert (kept["state"], kept["attempts"]) == ("running", 1)
        run("jobs", "cancel", "t1", *ACME)
        asked = time.monotonic()
        until_published(fresh_topics, "t1", "cancelled")
        assert time.monotonic() - asked < PATIENCE_SECONDS
        run("jobs", "submit", "train", *ACME, "-s", "closing=all", "--id", "t2")
        until_published(fresh_topics, "t2", "running")  # by the second, for the first still waits
        for process in (child, second):
            os.kill(process.pid, signal.SIGTERM)
        asked = time.monotonic()
        while (given_back := json.loads(run("jobs", "status", "t2", *ACME, "--json")))["state"] != "submitted":
            assert time.monotonic() - asked < PATIENCE_SECONDS, child.log_tail() + second.log_tail()
        assert given_back["attempts"] == 0
        while child.running or second.running:
            assert time.monotonic() - asked < PATIENCE_SECONDS, child.log_tail() + second.log_tail()
            time.sleep(0.1)
        assert (child.returncode, second.returncode) == (0, 0), child.log_tail() + second.log_tail()
        assert "still computes" in child.log_tail() + second.log_tail()
    with trainer(tmp_path):
        run("jobs", "status", "t2", *ACME, "--wait")
        assert until_published(fresh_topics, "t2", "succeeded")


@pytest.mark.timeout(1_200)
def test_the_reference_data_set_through_kafka_gives_its_exact_population_numbers(
    pipeline: str, fresh_topics: str, tmp_path: Path
) -> None:
    try:
        rows = read_paths(find_pathdata())
    except PathDataMissingError as missing:
        pytest.skip(str(missing))
    replay = Replay(rows, ReplayConfig(int(time.time() * 1e6), seed=1))
    config = ProducerConfig(bootstrap=fresh_topics, source="tests", full_buffer_timeout_seconds=600)
    names = {TOUCHPOINTS: "touchpoint", CONVERSIONS: "conversion"}
    with trainer(tmp_path, stage="stitcher") as stitcher, trainer(tmp_path):
        with AttributaryProducer(config) as producer:
            for topic, _, event in replay:
                producer.publish_mapping(names[topic], event)
        with connect(pipeline, application_name="tests", autocommit=True) as connection:
            while _stitched(connection) < len(replay):
                assert stitcher.running, stitcher.log_tail()
                time.sleep(1.0)
        arguments = ("--tenant", "pathdata", "-s", "closing=all", "--wait", "--json")
        done = json.loads(run("jobs", "submit", "train", *arguments))
    report = done["result"]["metadata"]["diagnostics"]
    assert (report["conversions"], report["nulls"], report["value_micros"]) == (19_785, 68_602, replay.value_micros)
    channels = {row["channel"]: row for row in report["channels"]}
    assert {name: round(row["markov"]["conversions"], 1) for name, row in channels.items()} == MARKOV
    assert {name: round(channels[name]["shapley"]["conversions"], 1) for name in SHAPLEY} == SHAPLEY


def _stitched(connection: psycopg.Connection) -> int:
    """How many records the stitcher has stored."""
    row = connection.execute(
        "SELECT COALESCE(sum(next_offset), 0) FROM attribution_positions WHERE consumer_group = 'attribution.stitcher'"
    ).fetchone()
    return int(row[0]) if row else 0
