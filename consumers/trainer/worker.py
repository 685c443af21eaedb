"""The worker: one thread that takes jobs from Postgres, one after the other.

Why a thread: a training of some minutes must not keep the loop from polling Kafka. The group would take the partitions
away and replay the record for ever. Why Postgres between the two: the loop only stores jobs, and the next free worker
of any process claims one (`claim_next` has the order). Missing heartbeats tell of a dead worker. Its job then starts
again from the beginning: effects and end of a job are one transaction, so nothing of the first attempt is left.

Between jobs the worker runs the idle task, in steps that are short enough for the next job to wait.

Invariant: a job leaves the worker finished or given back. Where the process or the database died, its lease expires.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.runtime.crash_points import crash_at, register_points
from attributary.consumers.runtime.errors import EXIT_CONFIG, AttributaryError, Fatal, Retry
from attributary.consumers.runtime.run import run_guarded
from attributary.consumers.store.jobs.jobs import (
    ClaimedJob,
    ClaimLostError,
    GivenUp,
    claim_next,
    finish,
    give_back,
    give_up,
    heartbeat,
)
from attributary.consumers.store.session import StoreSession

from . import metrics
from .heartbeat import OUTCOMES, CancelledError, JobLease, StoppedError
from .idle_tasks import StateUpdater
from .job_handlers import JOB_ERRORS, JobHandlers
from .job_requests import PARAMETERS
from .job_statuses import StatusPublisher
from .memory import MemoryLimitError

register_points("trainer_before_finish", "trainer_after_finish")

_log = structlog.get_logger()

# After a job was given back: one that reports progress ends within this time, and no other is waited for.
_LAST_STEP_SECONDS = 1.0
HEARTBEAT_SECONDS = 1.0


class WorkerSessions(NamedTuple):
    """Connections of a worker: for claims and effects, and for heartbeats and statuses while the job computes."""

    effects: StoreSession
    heartbeats: StoreSession


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """Time limits and attempts of a worker.

    Attributes:
        lease_seconds: a worker without a heartbeat for longer is considered dead, seconds.
        max_attempts: a job fails after this many of its workers died.
        poll_seconds: how often to look for jobs of dead workers and of other processes, seconds.
        heartbeat_seconds: time between two heartbeats, seconds; far below the lease.
    """

    lease_seconds: float = 300.0
    max_attempts: int = 3
    poll_seconds: float = 2.0
    heartbeat_seconds: float = HEARTBEAT_SECONDS


class Worker:
    """Does jobs until it is stopped.

    Args:
        sessions: connections for this worker alone.
        handlers: read and compute, on another connection.
        publisher: publishes statuses, on the connection for heartbeats.
        limits: time limits and attempts.
        on_death: called when the thread ends by a bug.
        idle_task: called between jobs; does one bounded step and returns whether another one waits.
    """

    def __init__(
        self,
        sessions: WorkerSessions,
        handlers: JobHandlers,
        publisher: StatusPublisher,
        limits: WorkerLimits,
        on_death: Callable[[], None],
        idle_task: StateUpdater | None = None,
    ) -> None:
        self._session, self._heartbeats = sessions
        self._handlers = handlers
        self._publisher = publisher
        self._limits = limits
        self._on_death = on_death
        self._idle_task = idle_task
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._guarded, name="trainer-worker", daemon=True)
        self._failure: AttributaryError | None = None
        self._unreturned: ClaimedJob | None = None
        self._lease: JobLease | None = None
        for kind in PARAMETERS:  # an alert sees the first failure only if the series began at 0
            for outcome in ("succeeded", "failed", "cancelled", "given_back", "lost"):
                metrics.jobs.labels(kind, outcome)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Look for a new job at once."""
        self._wake.set()

    def check(self) -> None:
        """Raise the error that ended the thread, if there is one.

        Raises:
            AttributaryError: a bug, or a schema that does not fit.
        """
        if self._failure is not None:
            raise self._failure

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stop(self, timeout_seconds: float) -> None:
        """Give the current job back and end the thread.

        A job that reports no progress is given back all the same, and its thread is not joined: without the claim it
        can write nothing, and it ends with the process.

        Args:
            timeout_seconds: how long to wait for that; afterwards the lease of the job expires.
        """
        self._stop.set()
        self._wake.set()
        until = time.monotonic() + timeout_seconds
        lease, is_released = self._lease, False
        if lease is not None:
            lease.wake()
        while self.is_alive and time.monotonic() < until:
            self._thread.join(0.02)
            lease = self._lease  # a job claimed at this moment has a lease that finds the stop by itself
            if lease is not None and lease.is_released.is_set() and not is_released:
                is_released, until = True, min(until, time.monotonic() + _LAST_STEP_SECONDS)
        if self.is_alive:
            _log.warning("the current job still computes", is_given_back=is_released)

    def _guarded(self) -> None:
        try:
            run_guarded(self._run)
        except AttributaryError as error:
            self._failure = error
            self._on_death()
        finally:
            self._publisher.close()
            self._handlers.close()
            if self._idle_task is not None:
                self._idle_task.close()
            self._session.close()
            self._heartbeats.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            worked = False
            try:
                worked = self.turn() or (self._idle_task is not None and self._idle_task())
            except Retry as error:
                _log.warning("trainer is waiting for Postgres", why=str(error))
            if not worked:
                self._wake.wait(self._limits.poll_seconds)
        # Stopped while Postgres was away: if it answers now, the job need not wait for the end of its lease.
        with contextlib.suppress(Retry):
            self._give_unreturned_back()
            self._publisher.publish()

    def turn(self) -> bool:
        """Do the next job and publish pending statuses. Return whether there was a job.

        Raises:
            Retry: Postgres is away.
            Fatal: the schema and the code do not fit.
        """
        self._give_unreturned_back()
        self._publisher.publish()
        lease_seconds, max_attempts = self._limits.lease_seconds, self._limits.max_attempts
        with map_errors(), self._session.transaction() as connection:
            given_up = give_up(connection, lease_seconds=lease_seconds, max_attempts=max_attempts)
            job = claim_next(connection, lease_seconds=lease_seconds, max_attempts=max_attempts)
        for each in given_up:
            _note_given_up(each)
        self._publisher.publish()
        if job is None:
            return False
        self._do(job)
        self._publisher.publish()
        return True

    def _give_unreturned_back(self) -> None:
        """Give back the job that was running when Postgres went away."""
        job = self._unreturned
        if job is None:
            return
        outcome = self._give_back(job)
        self._unreturned = None
        metrics.jobs.labels(job.kind, outcome).inc()
        _log.info("job ended", tenant=job.tenant_id, job=job.job_id, kind=job.kind, outcome=outcome)

    def _do(self, job: ClaimedJob) -> None:
        started = time.monotonic()
        log = _log.bind(tenant=job.tenant_id, job=job.job_id, kind=job.kind)
        log.info("job started")
        ends: list[_End] = []
        try:
            run_guarded(lambda: ends.append(self._attempt(job)))
        except Retry:
            self._unreturned = job
            raise
        except Fatal as error:
            if error.exit_code == EXIT_CONFIG:
                raise
            # A bug in one kind of job must not stop all others: the job fails, and the log has the stack.
            ends.append(self._end(job, "failed", str(error)))
        outcome, why = ends[0]
        seconds = time.monotonic() - started
        metrics.jobs.labels(job.kind, outcome).inc()
        metrics.job_seconds.labels(job.kind).observe(seconds)
        report = log.warning if outcome in ("failed", "lost") else log.info
        reason = {} if why is None else {"why": why}
        report("job ended", outcome=outcome, seconds=round(seconds, 3), **reason)

    def _attempt(self, job: ClaimedJob) -> _End:
        """Do a job and end it. Return how it ended."""
        lease = JobLease(self._heartbeats, job, self._stop, self._publisher.publish, self._limits.heartbeat_seconds)
        self._lease = lease
        try:
            with lease:
                return self._complete(job, lease)
        except StoppedError:
            return _End(lease.outcome or self._give_back(job))
        except Retry:
            if lease.outcome:
                return _End(lease.outcome)
            raise
        except CancelledError:
            end = self._end(job, "cancelled")
        except ClaimLostError:
            end = _LOST
        except (MemoryLimitError, *JOB_ERRORS) as error:
            end = self._end(job, "failed", str(error))
        finally:
            self._lease = None
        # The lease may have ended the job first: then our own write was refused.
        return _End(lease.outcome) if end is _LOST and lease.outcome else end

    def _complete(self, job: ClaimedJob, lease: JobLease) -> _End:
        try:
            with map_errors():
                decision = self._handlers.handle(job, lease)
        except MemoryError:
            raise MemoryLimitError from None
        crash_at("trainer_before_finish")
        with map_errors(), self._session.transaction() as connection:
            if heartbeat(connection, job, *lease.progress):
                raise CancelledError
            finish(connection, job, "succeeded", result=decision(connection))
        crash_at("trainer_after_finish")
        return _End("succeeded")

    def _end(self, job: ClaimedJob, state: str, error: str | None = None) -> _End:
        try:
            with map_errors(), self._session.transaction() as connection:
                finish(connection, job, state, error=error)
        except ClaimLostError:
            return _LOST
        return _End(state, error)

    def _give_back(self, job: ClaimedJob) -> str:
        with map_errors(), self._session.transaction() as connection:
            state = give_back(connection, job)
        return OUTCOMES.get(state or "", "lost")


class _End(NamedTuple):
    """How a job ended, and the reason of a failure."""

    outcome: str
    why: str | None = None


_LOST = _End("lost", "another worker has the job: no heartbeat for longer than the lease; nothing was written")


def _note_given_up(job: GivenUp) -> None:
    metrics.jobs.labels(job.kind, job.state).inc()
    _log.warning("job ended", tenant=job.tenant_id, job=job.job_id, kind=job.kind, outcome=job.state, why=job.error)
