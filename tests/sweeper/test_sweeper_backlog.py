"""The sweeper tells what the trainers have before them, whether one of them runs or not, and deletes old jobs."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from attributary.consumers.store.connection import connect
from attributary.consumers.store.jobs.job_views import list_jobs
from attributary.consumers.store.jobs.jobs import NewJob, claim_next, finish, submit
from attributary.consumers.store.models.model_states import NewState, save_states
from attributary.consumers.store.session import StoreSession
from attributary.consumers.sweeper import job_backlog as backlog
from attributary.consumers.sweeper import metrics
from attributary.consumers.sweeper import retention as keeping
from attributary.consumers.sweeper.job_backlog import JobBacklog
from attributary.consumers.sweeper.retention import JobRetention, RetentionSettings
from attributary.consumers.trainer.idle_tasks import StateUpdater
from attributary.schemas.topics import JOBS, catalogue
from tests.factories.training_events import NOW, POLICY, feed, touchpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Gauge

pytestmark = pytest.mark.postgres


def value(gauge: Gauge, *labels: str) -> float:
    return float((gauge.labels(*labels) if labels else gauge)._value.get())


@pytest.fixture
def trainers(database: str) -> Iterator[JobBacklog]:
    with closing(StoreSession(database, "tests-sweeper")) as session:
        yield JobBacklog(session, 0.0)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "_REST", 0)


def execute(dsn: str, *statements: str) -> None:
    with connect(dsn, application_name="tests") as connection:
        for statement in statements:
            connection.execute(statement.encode())


def put(dsn: str, *names: str) -> None:
    with connect(dsn, application_name="tests") as connection:
        submit(connection, [NewJob("acme", name, "train", {"model": "poisson"}, NOW, None) for name in names])


def test_jobs_that_wait_and_run_are_told_although_no_trainer_does(database: str, trainers: JobBacklog) -> None:
    put(database, "a", "b", "c")
    with connect(database, application_name="tests") as connection:
        assert claim_next(connection, lease_seconds=60, max_attempts=3) is not None
    execute(
        database,
        "UPDATE attribution_batch_jobs SET created_at = now() - interval '1 h', started_at = now() - interval '9 s'",
    )
    trainers.turn()
    assert value(metrics.waiting_jobs) == 2
    assert value(metrics.running_jobs) == 1
    assert 3_600 <= value(metrics.oldest_waiting_job_seconds) < 3_700
    assert 9 <= value(metrics.oldest_running_job_seconds) < 60
    execute(database, "DELETE FROM attribution_batch_jobs")
    trainers.turn()
    assert value(metrics.waiting_jobs) == value(metrics.oldest_running_job_seconds) == 0


def test_a_training_state_that_nobody_keeps_up_to_date_any_more_gets_older(database: str, trainers: JobBacklog) -> None:
    trainers.turn()
    assert value(metrics.training_lag_seconds) == 0  # no state was ever begun
    feed(database, [touchpoint("p", 0, "mail")])
    with closing(StateUpdater(StoreSession(database, "tests"), POLICY.inactivity_micros, 0.001)) as idle_task:
        while idle_task():
            pass
    trainers.turn()
    assert 0 < value(metrics.training_lag_seconds) < 60
    # No trainer runs: nobody looks, so nobody notes who changed.
    execute(database, "UPDATE attribution_training_watermark SET found_at = found_at - interval '3 h'")
    trainers.turn()
    assert value(metrics.training_changes_pending) == 0
    assert value(metrics.training_lag_seconds) > 3 * 3_600
    # A job keeps the trainer busy: what was noted waits.
    execute(
        database,
        "UPDATE attribution_training_watermark SET found_at = now()",
        "INSERT INTO attribution_training_changes (tenant_id, identity_key, created_at)"
        " VALUES ('acme', 'a:p', now() - interval '2 h')",
    )
    trainers.turn()
    assert value(metrics.training_changes_pending) == 1
    assert 2 * 3_600 <= value(metrics.training_lag_seconds) < 2 * 3_600 + 60


def test_drift_is_the_largest_of_all_tenants_and_goes_when_there_is_none(database: str, trainers: JobBacklog) -> None:
    put(database, "a")
    with connect(database, application_name="tests") as connection:
        claimed = claim_next(connection, lease_seconds=60, max_attempts=3)
        assert claimed is not None
        (version,) = save_states(connection, [NewState("acme", "poisson", {}, {}, {})])
        drift = {"from_version": 1, "changed": ["mail", "search"]}
        finish(connection, claimed, "succeeded", result={"version": version, "drift": drift})
    trainers.turn()
    assert value(metrics.model_drift_channels, "poisson") == 2
    assert value(metrics.model_drift_tenants, "poisson") == 1
    assert value(metrics.model_drift_tenants, "markov") == 0
    execute(database, "UPDATE attribution_model_states SET is_active = true, activated_at = now()")
    trainers.turn()
    assert value(metrics.model_drift_channels, "poisson") == value(metrics.model_drift_tenants, "poisson") == 0


def test_looking_takes_a_small_part_of_the_time(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "_REST", 1e9)
    put(database, "a")
    with closing(StoreSession(database, "tests-sweeper")) as session:
        trainers = JobBacklog(session)
        trainers.turn()
        put(database, "b")
        trainers.turn()
    assert value(metrics.waiting_jobs) == 1


def test_jobs_are_kept_for_longer_than_their_topic_keeps_them(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (topic,) = [topic for topic in catalogue() if topic.name == JOBS]
    retention_days = int(topic.config["retention.ms"]) / 86_400_000
    with pytest.raises(ValueError, match="greater than"):
        RetentionSettings(ATTRIBUTION_JOBS_KEPT_DAYS=retention_days)
    monkeypatch.setattr(keeping, "_JOBS", 2)
    put(database, *"abcde")
    execute(
        database,
        "UPDATE attribution_batch_jobs SET state = 'failed', published_number = status_number,"
        " finished_at = now() - interval '40 d' * (job_id <> 'e')::int",
    )
    with closing(StoreSession(database, "tests-sweeper")) as session:
        assert JobRetention(RetentionSettings(), session).turn() == 0  # 90 days
        keeper = JobRetention(RetentionSettings(ATTRIBUTION_JOBS_KEPT_DAYS=retention_days + 1), session)
        assert [keeper.turn() for _ in range(4)] == [2, 2, 0, 0]
    with connect(database, application_name="tests") as connection:
        assert [row.job_id for row in list_jobs(connection)] == ["e"]
