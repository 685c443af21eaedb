"""A job that computes without a word, for longer than the lease: it keeps its claim, is cancelled, is given back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from attributary.consumers.runtime.errors import Fatal, Retry
from attributary.consumers.store.connection import connect
from attributary.consumers.store.jobs.jobs import ClaimLostError, claim_next
from attributary.consumers.store.session import StoreSession
from attributary.consumers.trainer import heartbeat as heartbeats
from attributary.consumers.trainer import worker as workers
from attributary.consumers.trainer.heartbeat import CancelledError, JobLease
from attributary.consumers.trainer.worker import WorkerLimits
from tests.fixtures.pipeline import wait_until
from tests.trainer.training_harness import PATIENCE_SECONDS, SilentHandlers, Trainer, job, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from attributary.consumers.store.jobs.jobs import ClaimedJob

pytestmark = pytest.mark.postgres

LEASE = 8.0  # seconds; a busy machine may keep a thread from its processor for some
LIMITS = WorkerLimits(lease_seconds=LEASE, max_attempts=3, poll_seconds=0.05, heartbeat_seconds=0.05)


@contextmanager
def silent_worker(dsn: str, limits: WorkerLimits = LIMITS) -> Iterator[tuple[Trainer, SilentHandlers]]:
    """A worker that is in the middle of job "long", and computes."""
    bench = SilentHandlers(StoreSession(dsn, "tests-reader"))
    with running(dsn, limits, bench) as trainer:
        trainer.submit(job("long", "train"))
        assert bench.entered.wait(PATIENCE_SECONDS)
        try:
            yield trainer, bench
        finally:
            bench.go_on.set()


def other_worker(dsn: str) -> ClaimedJob | None:
    with connect(dsn, application_name="tests") as connection:
        claimed = claim_next(connection, lease_seconds=LEASE, max_attempts=3)
        connection.commit()
    return claimed


@pytest.mark.fault
def test_a_job_that_computes_in_silence_for_longer_than_the_lease_keeps_its_claim(database: str) -> None:
    with silent_worker(database) as (trainer, bench):
        until = time.monotonic() + 1.5 * LEASE
        while time.monotonic() < until:
            assert other_worker(database) is None
            time.sleep(0.2)
        assert bench.rounds > 10  # it did compute meanwhile
        assert not bench.go_on.is_set()
        bench.go_on.set()
        found = trainer.ended("long")
    assert (found.state, found.result, found.attempts) == ("succeeded", {"done": True}, 1)


@pytest.mark.fault
def test_a_cancellation_ends_a_job_that_computes_in_silence_at_once(database: str) -> None:
    with silent_worker(database) as (trainer, bench):
        trainer.submit(job("stop", "cancel", target_job_id="long"))
        asked = time.monotonic()
        assert trainer.ended("long").state == "cancelled"
        trainer.status_arrives("long", "cancelled")
        assert time.monotonic() - asked < 150.0
        rounds = bench.rounds
        # It still computes: that is why the lease had to end it.
        wait_until(lambda: bench.rounds > rounds, "the job ended")
        bench.go_on.set()
        trainer.submit(job("next", "train"))
        assert trainer.ended("next").state == "succeeded"
        found = trainer.row("long")
    assert (found.state, found.result, found.done) == ("cancelled", None, 0)
    assert trainer.statuses("long")[-1] == "cancelled"


@pytest.mark.fault
def test_a_stop_gives_a_job_that_computes_in_silence_back_and_its_end_is_not_written(database: str) -> None:
    with silent_worker(database) as (trainer, bench):
        asked = time.monotonic()
        trainer.worker.stop(240.0)
        assert time.monotonic() - asked < 150.0
        assert trainer.worker.is_alive  # it still computes
        found = trainer.row("long")
        assert (found.state, found.attempts) == ("submitted", 0)
        assert trainer.statuses("long")[-1] == "submitted"
        claimed = other_worker(database)
        assert claimed is not None
        bench.go_on.set()
        trainer.worker.stop(PATIENCE_SECONDS)
    assert not bench.wrote
    found = trainer.row("long")
    assert (found.state, found.attempts, found.result) == ("running", 1, None)


@pytest.mark.fault
def test_a_job_that_was_claimed_while_the_process_was_asked_to_stop_is_given_back(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    claiming, go_on = threading.Event(), threading.Event()

    def slow_claim(connection: psycopg.Connection, *, lease_seconds: float, max_attempts: int) -> ClaimedJob | None:
        claiming.set()
        go_on.wait(PATIENCE_SECONDS)
        return claim_next(connection, lease_seconds=lease_seconds, max_attempts=max_attempts)

    monkeypatch.setattr(workers, "claim_next", slow_claim)
    bench = SilentHandlers(StoreSession(database, "tests-reader"))
    with running(database, LIMITS, bench) as trainer:
        assert claiming.wait(PATIENCE_SECONDS)
        trainer.submit(job("long", "train"))
        threading.Timer(0.3, go_on.set).start()
        asked = time.monotonic()
        trainer.worker.stop(240.0)
        assert time.monotonic() - asked < 150.0
        assert bench.entered.is_set()  # it was claimed, and computed
        found = trainer.row("long")
        assert (found.state, found.attempts) == ("submitted", 0)
        bench.go_on.set()


@pytest.mark.fault
def test_sigterm_ends_a_process_that_computes_in_silence(database: str) -> None:
    command = [sys.executable, "-m", "tests.trainer.silent_trainer", database]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert "computing\n" in iter(child.stdout.readline, "")
        os.kill(child.pid, signal.SIGTERM)
        asked = time.monotonic()
        assert child.wait(PATIENCE_SECONDS) == 0, child.stderr and child.stderr.read()
        assert time.monotonic() - asked < 150.0
        assert "still computes" in child.stdout.read()  # the fault was there: nobody had waited for its end
    claimed = other_worker(database)
    assert claimed is not None
    with connect(database, application_name="tests") as connection:
        row = connection.execute("SELECT state, attempts FROM attribution_batch_jobs").fetchone()
    assert row == ("running", 1)  # the other worker's: the stop counted as none


@contextmanager
def claimed_job(dsn: str) -> Iterator[tuple[StoreSession, ClaimedJob, Trainer]]:
    trainer = Trainer(dsn)
    with closing(trainer.stage), closing(StoreSession(dsn, "tests")) as session:
        trainer.worker.stop(PATIENCE_SECONDS)
        trainer.submit(job("a", "train"))
        claimed = other_worker(dsn)
        assert claimed is not None
        yield session, claimed, trainer


def stopped_by(lease: JobLease) -> Exception:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            lease(1, 2)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is looked at
            return error
        time.sleep(0.01)
    raise AssertionError("nothing stopped the job")


def test_a_job_learns_at_its_next_step_that_its_claim_is_gone_or_that_it_was_cancelled(database: str) -> None:
    with claimed_job(database) as (session, claimed, trainer):
        with JobLease(session, claimed, threading.Event(), lambda: None, 0.02) as lease:
            lease(3, 5)
            with connect(database, application_name="tests") as connection:
                assert claim_next(connection, lease_seconds=-60.0, max_attempts=3) is not None
            assert isinstance(stopped_by(lease), ClaimLostError)
            assert lease.outcome is None
        trainer.submit(job("b", "train"), job("c", "cancel", target_job_id="a"))
        mine = other_worker(database)
        assert mine is not None
        trainer.submit(job("d", "cancel", target_job_id=mine.job_id))
        with JobLease(session, mine, threading.Event(), lambda: None, 0.02) as lease:
            assert isinstance(stopped_by(lease), CancelledError)
            assert lease.outcome == "cancelled"
        assert trainer.row(mine.job_id).state == "cancelled"


def test_heartbeats_are_kept_apart_and_end_with_the_job(database: str) -> None:
    calls: list[str] = []
    with claimed_job(database) as (session, claimed, trainer):
        with JobLease(session, claimed, threading.Event(), lambda: calls.append("published"), 60.0) as lease:
            for step in range(5):
                lease(step, 5)
        assert (trainer.row("a").done, calls) == (0, [])
        with JobLease(session, claimed, threading.Event(), lambda: calls.append("published"), 0.01) as lease:
            lease(4, 5)
            deadline = time.monotonic() + PATIENCE_SECONDS
            while trainer.row("a").done != 4:
                assert time.monotonic() < deadline
        reported = len(calls)
        assert reported > 0
        time.sleep(0.1)
        assert len(calls) == reported


def test_a_bug_in_the_heartbeats_ends_the_job_and_an_outage_does_not(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with claimed_job(database) as (session, claimed, _):
        beats = iter([Retry("Postgres is away"), ZeroDivisionError()])

        def fail(*_: object) -> bool:
            raise next(beats)

        monkeypatch.setattr(heartbeats, "heartbeat", fail)
        with JobLease(session, claimed, threading.Event(), lambda: None, 0.01) as lease:
            assert isinstance(stopped_by(lease), Fatal)
        assert next(beats, None) is None
