"""The life of jobs on a real Postgres: taken once, claimed by one, finished once, cancelled in any order."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from attributary.consumers.store.connection import connect
from attributary.consumers.store.jobs import (
    ClaimedJob,
    ClaimLostError,
    JobRow,
    NewJob,
    claim_next,
    finish,
    give_back,
    heartbeat,
    hold,
    list_jobs,
    mark_published,
    show_job,
    submit,
    unpublished,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

pytestmark = pytest.mark.postgres

AT = 1_795_500_000_000_000


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    with connect(database, application_name="tests", autocommit=True) as opened:
        yield opened


def job(name: str, kind: str = "train", tenant: str = "acme", at: int = AT, **parameters: str) -> NewJob:
    return NewJob(tenant, name, kind, parameters, at, "tests")


def cancel(name: str, target: str, tenant: str = "acme") -> NewJob:
    return job(name, "cancel", tenant, target_job_id=target)


def claim(connection: psycopg.Connection, *, lease_seconds: float = 60.0, most_attempts: int = 3) -> ClaimedJob | None:
    with connection.transaction():
        return claim_next(connection, lease_seconds=lease_seconds, most_attempts=most_attempts)


def claimed(connection: psycopg.Connection, *, lease_seconds: float = 60.0) -> ClaimedJob:
    found = claim(connection, lease_seconds=lease_seconds)
    assert found is not None
    return found


def row(connection: psycopg.Connection, name: str, tenant: str = "acme") -> JobRow:
    found = show_job(connection, tenant, name)
    assert found is not None
    return found


def put(connection: psycopg.Connection, *jobs: NewJob) -> None:
    with connection.transaction():
        submit(connection, jobs)


def test_a_job_id_is_taken_once(connection: psycopg.Connection) -> None:
    put(connection, job("a", model="markov"), job("a", "backtest"), job("a", tenant="other"))
    put(connection, job("a", "backtest"))
    put(connection)
    found = row(connection, "a")
    assert (found.kind, found.parameters, found.state) == ("train", {"model": "markov"}, "submitted")
    assert found.submitted_at.timestamp() * 1e6 == AT
    assert (found.submitted_by, found.done, found.total, found.started_at) == ("tests", 0, None, None)
    assert [(each.tenant_id, each.job_id) for each in list_jobs(connection)] == [("acme", "a"), ("other", "a")]
    assert list_jobs(connection, tenant_id="other", state="running") == []
    assert show_job(connection, "acme", "b") is None


def test_jobs_are_claimed_in_the_order_of_submission_and_finished_once(connection: psycopg.Connection) -> None:
    put(connection, job("late", at=AT + 1), job("early"))
    first, second = claimed(connection), claimed(connection)
    assert (first.job_id, second.job_id, claim(connection)) == ("early", "late", None)
    assert heartbeat(connection, first, 3, 10) is False
    assert hold(connection, first) is False
    finish(connection, first, "succeeded", result={"version": 1})
    found = row(connection, "early")
    assert (found.state, found.done, found.total, found.result) == ("succeeded", 10, 10, {"version": 1})
    assert found.finished_at is not None
    with pytest.raises(ClaimLostError):
        finish(connection, first, "failed", error="twice")
    finish(connection, second, "failed", error="no data")
    assert row(connection, "late").error == "no data"
    assert claim(connection, lease_seconds=0.0) is None


def test_a_silent_worker_loses_its_claim_and_everything_it_wrote(connection: psycopg.Connection) -> None:
    put(connection, job("a"))
    dead = claimed(connection)
    assert claim(connection) is None
    alive = claimed(connection, lease_seconds=0.0)
    assert (alive.job_id, alive.claim) == ("a", dead.claim + 1)
    with pytest.raises(ClaimLostError):
        heartbeat(connection, dead, 1, None)

    def write_late() -> None:
        with connection.transaction():
            connection.execute("INSERT INTO attribution_model_sets VALUES ('acme', 1, '{}')")
            finish(connection, dead, "succeeded", result={})

    with pytest.raises(ClaimLostError):
        write_late()
    assert connection.execute("SELECT count(*) FROM attribution_model_sets").fetchone() == (0,)
    give_back(connection, dead)
    assert row(connection, "a").state == "running"
    heartbeat(connection, alive, 1, 2)
    finish(connection, alive, "succeeded")


def test_a_job_that_kills_its_workers_is_given_up(connection: psycopg.Connection) -> None:
    put(connection, job("a"))
    for _ in range(3):
        claimed(connection, lease_seconds=0.0)
    assert claim(connection, lease_seconds=0.0) is None
    found = row(connection, "a")
    assert (found.state, found.error) == ("failed", "given up: 3 workers ended while they worked on it")


def test_giving_back_is_no_attempt(connection: psycopg.Connection) -> None:
    put(connection, job("a"))
    claims = []
    for _ in range(5):
        mine = claimed(connection)
        claims.append(mine.claim)
        give_back(connection, mine)
        assert row(connection, "a").state == "submitted"
    assert claims == [1, 2, 3, 4, 5]
    assert row(connection, "a").attempts == 0


def test_a_cancellation_reaches_its_target_in_any_order(connection: psycopg.Connection) -> None:
    put(connection, job("waiting"), cancel("c1", "waiting"))
    assert row(connection, "waiting").state == "cancelled"
    assert row(connection, "waiting").finished_at is not None
    assert row(connection, "c1").result == {"target_job_id": "waiting", "target_state": "cancelled"}

    put(connection, cancel("c2", "later"))
    assert row(connection, "c2").result == {"target_job_id": "later", "target_state": None}
    put(connection, job("later"), job("later", tenant="other"))
    assert row(connection, "later").state == "cancelled"
    assert row(connection, "later", "other").state == "submitted"

    other = claimed(connection)
    assert heartbeat(connection, other, 0, None) is False
    put(connection, cancel("c3", "later", "other"))
    assert row(connection, "c3", "other").result == {"target_job_id": "later", "target_state": "running"}
    assert heartbeat(connection, other, 0, None) is True
    assert hold(connection, other) is True
    finish(connection, other, "cancelled")
    assert row(connection, "later", "other").state == "cancelled"
    put(connection, cancel("c4", "c3", "other"))  # a cancellation is done at once: there is nothing to cancel
    assert row(connection, "c3", "other").state == "succeeded"
    assert claim(connection) is None


@contextmanager
def publishing(connection: psycopg.Connection) -> Iterator[list[tuple[str, str, int]]]:
    with connection.transaction():
        rows = unpublished(connection, 100)
        yield [(each.job_id, each.state, each.done) for each in rows]
        mark_published(connection, rows)


def test_every_change_is_published_until_it_is_known_to_be(connection: psycopg.Connection, database: str) -> None:
    put(connection, job("a"), job("b"))
    with connect(database, application_name="tests") as other:
        assert {each.job_id for each in unpublished(other, 100)} == {"a", "b"}  # Kafka did not take them: no mark
    with publishing(connection) as found:
        assert sorted(found) == [("a", "submitted", 0), ("b", "submitted", 0)]
        with connect(database, application_name="tests") as other:
            assert unpublished(other, 100) == []  # in other hands: statuses of a job keep their order
    mine = claimed(connection)
    heartbeat(connection, mine, 5, 9)
    with publishing(connection) as found:
        assert found == [("a", "running", 5)]
    heartbeat(connection, mine, 5, 9)
    with publishing(connection) as found:
        assert found == []  # a sign of life is no news
    finish(connection, mine, "succeeded", result={})
    with publishing(connection) as found:
        assert found == [("a", "succeeded", 9)]
