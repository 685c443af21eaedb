"""The life of jobs on a real Postgres: taken once, claimed by one, finished once, cancelled in any order."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from attributary.consumers.store.connection import connect
from attributary.consumers.store.jobs.job_views import (
    JobRow,
    drifted,
    expire_jobs,
    job_backlog,
    list_jobs,
    mark_published,
    show_job,
    unpublished,
)
from attributary.consumers.store.jobs.jobs import (
    ClaimedJob,
    ClaimLostError,
    GivenUp,
    NewJob,
    Submission,
    claim_next,
    finish,
    give_back,
    give_up,
    heartbeat,
    submit,
)
from attributary.consumers.store.models.model_states import NewState, activate, save_states

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


def claim(connection: psycopg.Connection, *, lease_seconds: float = 60.0, max_attempts: int = 3) -> ClaimedJob | None:
    with connection.transaction():
        return claim_next(connection, lease_seconds=lease_seconds, max_attempts=max_attempts)


def claimed(connection: psycopg.Connection, *, lease_seconds: float = 60.0) -> ClaimedJob:
    found = claim(connection, lease_seconds=lease_seconds)
    assert found is not None
    return found


def row(connection: psycopg.Connection, name: str, tenant: str = "acme") -> JobRow:
    found = show_job(connection, tenant, name)
    assert found is not None
    return found


def put(connection: psycopg.Connection, *jobs: NewJob) -> Submission:
    with connection.transaction():
        return submit(connection, jobs)


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
    finish(connection, first, "succeeded", result={"version": 1})
    found = row(connection, "early")
    assert (found.state, found.done, found.total, found.result) == ("succeeded", 10, 10, {"version": 1})
    assert found.finished_at is not None
    with pytest.raises(ClaimLostError):
        finish(connection, first, "failed", error="twice")
    heartbeat(connection, second, 4, 10)
    finish(connection, second, "failed", error="no data")
    late = row(connection, "late")
    assert (late.error, late.done, late.total) == ("no data", 4, 10)  # as far as it came, not more
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
    assert give_up(connection, lease_seconds=60.0, max_attempts=3) == []
    why = "given up: 3 workers ended while they worked on it"
    given_up = give_up(connection, lease_seconds=0.0, max_attempts=3)
    assert given_up == [GivenUp("acme", "a", "train", "failed", why)]
    found = row(connection, "a")
    assert (found.state, found.error) == ("failed", why)
    assert give_up(connection, lease_seconds=0.0, max_attempts=3) == []


def test_a_cancelled_job_is_not_started_again_after_its_worker_died_or_stopped(connection: psycopg.Connection) -> None:
    put(connection, job("dead"), job("stopped"))
    claimed(connection)
    stopped = claimed(connection)
    put(connection, cancel("c1", "dead"), cancel("c2", "stopped"))
    assert give_back(connection, stopped) == "cancelled"
    assert row(connection, "stopped").finished_at is not None
    given_up = give_up(connection, lease_seconds=0.0, max_attempts=3)
    assert given_up == [GivenUp("acme", "dead", "train", "cancelled", None)]
    assert claim(connection, lease_seconds=0.0) is None


def test_an_id_with_other_content_is_a_conflict_and_a_repetition_is_none(connection: psycopg.Connection) -> None:
    assert put(connection, job("a", model="markov")) == Submission()
    assert put(connection, job("a", model="markov", at=AT + 9)) == Submission()  # a retry: another time, the same job
    other = put(connection, job("a", "backtest"), job("a", model="poisson"), job("b"), job("b", "rollback"))
    assert other.conflicts == (("acme", "a", "backtest"), ("acme", "a", "train"), ("acme", "b", "rollback"))
    assert row(connection, "a").parameters == {"model": "markov"}


def test_quick_jobs_go_first_tenants_take_turns_and_the_clock_of_the_client_counts_nothing(
    connection: psycopg.Connection,
) -> None:
    put(connection, job("first"))
    put(connection, job("backdated", at=AT - 9_000_000_000_000))
    put(connection, job("theirs", tenant="bolt"))
    put(connection, job("back", "rollback"))
    order = []
    for _ in range(4):
        mine = claimed(connection)
        order.append(mine.job_id)
        finish(connection, mine, "succeeded")
    assert order == ["back", "theirs", "first", "backdated"]


def test_a_submission_names_the_jobs_that_it_cancels(connection: psycopg.Connection) -> None:
    put(connection, job("runs"))
    claimed(connection)
    put(connection, job("waits"))
    cancelling = (cancel("c1", "runs"), cancel("c2", "waits"), cancel("c3", "unknown"))
    assert put(connection, *cancelling).cancelled == (("acme", "waits", "train"),)
    assert put(connection, *cancelling).cancelled == ()
    assert put(connection, job("unknown", "backtest")).cancelled == (("acme", "unknown", "backtest"),)


def test_the_backlog_counts_from_when_jobs_were_stored(connection: psycopg.Connection) -> None:
    assert job_backlog(connection) == (0, 0.0, 0, 0.0)
    put(connection, job("a"), job("b"), job("c"))
    claimed(connection)
    connection.execute("UPDATE attribution_batch_jobs SET created_at = now() - interval '1 h' WHERE job_id = 'b'")
    connection.execute("UPDATE attribution_batch_jobs SET started_at = now() - interval '2 h' WHERE job_id = 'a'")
    found = job_backlog(connection)
    assert (found.waiting, found.running) == (2, 1)
    assert 3_600 <= found.oldest_waiting_seconds < 3_700
    assert 7_200 <= found.oldest_running_seconds < 7_300


def test_jobs_that_ended_long_ago_are_deleted_once_their_status_is_published(connection: psycopg.Connection) -> None:
    put(connection, job("old"), job("young"), job("untold"), job("zzz"))
    for _ in range(3):
        finish(connection, claimed(connection), "succeeded")
    connection.execute("UPDATE attribution_batch_jobs SET published_number = status_number WHERE job_id <> 'untold'")
    connection.execute("UPDATE attribution_batch_jobs SET finished_at = now() - interval '9 d' WHERE job_id <> 'young'")
    assert expire_jobs(connection, 10 * 86_400.0, 10) == 0
    assert expire_jobs(connection, 8 * 86_400.0, 10) == 1
    assert {each.job_id for each in list_jobs(connection)} == {"young", "untold", "zzz"}


def trained(connection: psycopg.Connection, tenant: str, name: str, changed: list[str] | None) -> int:
    """A training job that succeeded, with drift in these channels; None: nothing was in force."""
    put(connection, job(name, tenant=tenant, model="poisson"))
    (version,) = save_states(connection, [NewState(tenant, "poisson", {}, {}, {})])
    drift = None if changed is None else {"from_version": 1, "changed": changed}
    finish(connection, claimed(connection), "succeeded", result={"version": version, "drift": drift})
    return version


def test_drift_is_that_of_the_newest_version_of_each_tenant_until_it_is_in_force(
    connection: psycopg.Connection,
) -> None:
    trained(connection, "acme", "a1", None)
    assert drifted(connection) == {}
    trained(connection, "acme", "a2", ["mail"])
    newest = trained(connection, "acme", "a3", ["mail", "search", "social"])
    trained(connection, "bolt", "b1", ["mail"])
    trained(connection, "calm", "c1", [])  # the last one trained says nothing about the others
    assert drifted(connection) == {"poisson": (2, 3)}
    with connection.transaction():
        activate(connection, "acme", {"poisson": newest})
    assert drifted(connection) == {"poisson": (1, 1)}
    trained(connection, "bolt", "b2", [])
    assert drifted(connection) == {}


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
        assert found == []  # a heartbeat without progress changes no status
    finish(connection, mine, "succeeded", result={})
    with publishing(connection) as found:
        assert found == [("a", "succeeded", 9)]
