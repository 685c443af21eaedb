"""The worker: one thread that takes jobs from Postgres, one after the other.

Why a thread: a training of some minutes must not keep the loop from polling Kafka, or the group would take the
partitions away and replay the record for ever. Why Postgres between the two: the loop only stores what was asked for;
whoever is free, in this process or another, takes the next job (`claim_next` says which). A worker that dies is noticed
by its missing heartbeats, and the job starts again from the beginning: its effects and its end are one transaction, so
nothing of the first try is left.

Between jobs the worker keeps the training state up to date, in steps that are short enough for the next job to wait.

Invariant: a job leaves the worker finished, given back, or, when the process or the database died, to the lease.
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
from attributary.consumers.runtime.loop import run_guarded
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
from .heartbeat import OUTCOMES, CancelledError, Pulse, StoppedError
from .idle_tasks import Upkeep
from .job_handlers import JOB_ERRORS, Workshop
from .job_requests import PARAMETERS
from .job_statuses import StatusPublisher

register_points("trainer_before_finish", "trainer_after_finish")

_log = structlog.get_logger()

# A job that computes in silence is not waited for once it was given back; one that shows progress ends within this.
_LAST_STEP_SECONDS = 1.0
HEARTBEAT_SECONDS = 1.0


class WorkerSessions(NamedTuple):
    """Connections of a worker: for claims and effects, and for what must go on while those wait or the job computes."""

    effects: StoreSession
    signs: StoreSession


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """How patient a worker is.

    Attributes:
        lease_seconds: a worker silent for longer is taken for dead, seconds.
        most_attempts: a job whose workers died so often fails.
        poll_seconds: how often to look for the jobs of dead workers and of other processes, seconds.
        heartbeat_seconds: time between two heartbeats, seconds; far below the lease.
    """

    lease_seconds: float = 300.0
    most_attempts: int = 3
    poll_seconds: float = 2.0
    heartbeat_seconds: float = HEARTBEAT_SECONDS


class Worker:
    """Does jobs until it is stopped.

    Args:
        sessions: connections of its own.
        workshop: does the work; reads on another connection.
        publisher: publishes statuses, on the connection for signs of life.
        limits: how patient to be.
        on_death: called when the thread ends by a bug.
        upkeep: what to do between jobs, a bounded piece a call; says whether there is more to do at once.
    """

    def __init__(
        self,
        sessions: WorkerSessions,
        workshop: Workshop,
        publisher: StatusPublisher,
        limits: WorkerLimits,
        on_death: Callable[[], None],
        upkeep: Upkeep | None = None,
    ) -> None:
        self._session, self._signs = sessions
        self._workshop = workshop
        self._publisher = publisher
        self._limits = limits
        self._on_death = on_death
        self._upkeep = upkeep
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._guarded, name="trainer-worker", daemon=True)
        self._trouble: AttributaryError | None = None
        self._left_over: ClaimedJob | None = None
        self._pulse: Pulse | None = None
        for kind in PARAMETERS:  # an alert sees the first failure only if the series began at 0
            for outcome in ("succeeded", "failed", "cancelled", "given_back", "lost"):
                metrics.jobs.labels(kind, outcome)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Say that there may be a new job."""
        self._wake.set()

    def check(self) -> None:
        """Raise what ended the thread, if it ended by itself.

        Raises:
            AttributaryError: a bug, or a schema that does not fit.
        """
        if self._trouble is not None:
            raise self._trouble

    @property
    def is_alive(self) -> bool:
        """Whether the thread works."""
        return self._thread.is_alive()

    def stop(self, timeout_seconds: float) -> None:
        """Give the job in hand back and end the thread; what takes longer is left to the lease.

        A job that computes in silence is given back all the same, and its thread is not waited for: without the claim
        it can write nothing, and it ends with the process.
        """
        self._stop.set()
        self._wake.set()
        until = time.monotonic() + timeout_seconds
        pulse, is_released = self._pulse, False
        if pulse is not None:
            pulse.wake()
        while self.is_alive and time.monotonic() < until:
            self._thread.join(0.02)
            pulse = self._pulse  # a job may have been claimed at this moment: its pulse finds the stop by itself
            if pulse is not None and pulse.is_released.is_set() and not is_released:
                is_released, until = True, min(until, time.monotonic() + _LAST_STEP_SECONDS)
        if self.is_alive:
            _log.warning("the job in hand still computes", is_given_back=is_released)

    def _guarded(self) -> None:
        try:
            run_guarded(self._run)
        except AttributaryError as error:
            self._trouble = error
            self._on_death()
        finally:
            self._publisher.close()
            self._workshop.close()
            if self._upkeep is not None:
                self._upkeep.close()
            self._session.close()
            self._signs.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            worked = False
            try:
                worked = self.turn() or (self._upkeep is not None and self._upkeep())
            except Retry as error:
                _log.warning("trainer waits", why=str(error))
            if not worked:
                self._wake.wait(self._limits.poll_seconds)
        # Asked to stop while Postgres was away: if it answers now, nobody waits for the lease.
        with contextlib.suppress(Retry):
            self._give_left_over_back()
            self._publisher.publish()

    def turn(self) -> bool:
        """Do the next job there is, and publish what is to be published; returns whether there was a job.

        Raises:
            Retry: Postgres is away.
            Fatal: the schema and the code do not fit.
        """
        self._give_left_over_back()
        self._publisher.publish()
        lease, most = self._limits.lease_seconds, self._limits.most_attempts
        with map_errors(), self._session.transaction() as connection:
            given_up = give_up(connection, lease_seconds=lease, most_attempts=most)
            job = claim_next(connection, lease_seconds=lease, most_attempts=most)
        for each in given_up:
            _note_given_up(each)
        self._publisher.publish()
        if job is None:
            return False
        self._do(job)
        self._publisher.publish()
        return True

    def _give_left_over_back(self) -> None:
        """Give back the job that was in hand when Postgres went away."""
        job = self._left_over
        if job is None:
            return
        outcome = self._give_back(job)
        self._left_over = None
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
            self._left_over = job
            raise
        except Fatal as error:
            if error.exit_code == EXIT_CONFIG:
                raise
            # A bug in one kind of job must not keep all others waiting: the job fails, the log has the stack.
            ends.append(self._end(job, "failed", str(error)))
        outcome, why = ends[0]
        seconds = time.monotonic() - started
        metrics.jobs.labels(job.kind, outcome).inc()
        metrics.job_seconds.labels(job.kind).observe(seconds)
        tell = log.warning if outcome in ("failed", "lost") else log.info
        reason = {} if why is None else {"why": why}
        tell("job ended", outcome=outcome, seconds=round(seconds, 3), **reason)

    def _attempt(self, job: ClaimedJob) -> _End:
        """Do a job and end it; returns what became of it."""
        pulse = Pulse(self._signs, job, self._stop, self._publisher.publish, self._limits.heartbeat_seconds)
        self._pulse = pulse
        try:
            with pulse:
                return self._done(job, pulse)
        except StoppedError:
            return _End(pulse.outcome or self._give_back(job))
        except Retry:
            if pulse.outcome:
                return _End(pulse.outcome)
            raise
        except CancelledError:
            end = self._end(job, "cancelled")
        except ClaimLostError:
            end = _LOST
        except JOB_ERRORS as error:
            end = self._end(job, "failed", str(error))
        finally:
            self._pulse = None
        # The pulse may have ended it before us: then our own writing was refused.
        return _End(pulse.outcome) if end is _LOST and pulse.outcome else end

    def _done(self, job: ClaimedJob, pulse: Pulse) -> _End:
        with map_errors():
            decision = self._workshop.do(job, pulse)
        crash_at("trainer_before_finish")
        with map_errors(), self._session.transaction() as connection:
            if heartbeat(connection, job, *pulse.progress):
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
    """What became of a job, and why if it failed."""

    outcome: str
    why: str | None = None


_LOST = _End("lost", "another worker has it: this one was silent for longer than the lease; nothing was written")


def _note_given_up(job: GivenUp) -> None:
    metrics.jobs.labels(job.kind, job.state).inc()
    _log.warning("job ended", tenant=job.tenant_id, job=job.job_id, kind=job.kind, outcome=job.state, why=job.error)
