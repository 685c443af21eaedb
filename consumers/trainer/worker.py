"""The worker: one thread that takes jobs from Postgres, one after the other.

Why a thread: a training of some minutes must not keep the loop from polling Kafka, or the group would take the
partitions away and replay the record for ever. Why Postgres between the two: the loop only stores what was asked for;
whoever is free, in this process or another, takes the oldest job. A worker that dies is noticed by its missing
heartbeats, and the job starts again from the beginning: its effects and its end are one transaction, so nothing of the
first try is left.

Between jobs the worker keeps the training state up to date, in steps that are short enough for the next job to wait.

Invariant: a job leaves the worker finished, given back, or, when the process or the database died, to the lease.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from attributary.consumers.outages import outside_errors
from attributary.consumers.runtime import metrics
from attributary.consumers.runtime.crash import crash_at
from attributary.consumers.runtime.errors import EXIT_CONFIG, AttributaryError, Fatal, Retry
from attributary.consumers.runtime.loop import run_guarded
from attributary.consumers.store.jobs import (
    ClaimedJob,
    ClaimLostError,
    claim_next,
    finish,
    give_back,
    hold,
)
from attributary.consumers.store.session import StoreSession

from .chores import Upkeep
from .pulse import CancelledError, Pulse, StoppedError
from .statuses import StatusPublisher
from .work import JOB_ERRORS, Decision, Workshop

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """How patient a worker is.

    Attributes:
        lease_seconds: a worker silent for longer is taken for dead, seconds.
        most_attempts: a job whose workers died so often fails.
        poll_seconds: how often to look for the jobs of dead workers and of other processes, seconds.
        heartbeat_seconds: least time between two heartbeats, seconds.
    """

    lease_seconds: float = 300.0
    most_attempts: int = 3
    poll_seconds: float = 2.0
    heartbeat_seconds: float = 1.0


class Worker:
    """Does jobs until it is stopped.

    Args:
        session: a connection of its own, for claims, heartbeats and effects.
        workshop: does the work; reads on another connection.
        publisher: publishes statuses, on the first connection.
        limits: how patient to be.
        on_death: called when the thread ends by a bug.
        upkeep: what to do between jobs, a bounded piece a call; says whether there is more to do at once.
    """

    def __init__(
        self,
        session: StoreSession,
        workshop: Workshop,
        publisher: StatusPublisher,
        limits: WorkerLimits,
        on_death: Callable[[], None],
        upkeep: Upkeep | None = None,
    ) -> None:
        self._session = session
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
        """Give the job in hand back and end the thread; what takes longer is left to the lease."""
        self._stop.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)

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

    def turn(self) -> bool:
        """Do the oldest job there is, and publish what is to be published; returns whether there was a job.

        Raises:
            Retry: Postgres is away.
            Fatal: the schema and the code do not fit.
        """
        if self._left_over is not None:  # Postgres went away while we had it
            self._give_back(self._left_over)
            self._left_over = None
        self._publisher.publish()
        with outside_errors(), self._session.transaction() as connection:
            job = claim_next(
                connection, lease_seconds=self._limits.lease_seconds, most_attempts=self._limits.most_attempts
            )
        if job is None:
            self._publisher.publish()
            return False
        self._publisher.publish()
        self._do(job)
        self._publisher.publish()
        return True

    def _do(self, job: ClaimedJob) -> None:
        started = time.monotonic()
        log = _log.bind(tenant=job.tenant_id, job=job.job_id, kind=job.kind)
        log.info("job started")
        outcomes: list[str] = []
        try:
            run_guarded(lambda: outcomes.append(self._attempt(job)))
        except Retry:
            self._left_over = job
            raise
        except Fatal as error:
            if error.exit_code == EXIT_CONFIG:
                raise
            # A bug in one kind of job must not keep all others waiting: the job fails, the log has the stack.
            outcomes.append(self._end(job, "failed", str(error)))
        metrics.jobs.labels(job.kind, outcomes[0]).inc()
        metrics.job_seconds.labels(job.kind).observe(time.monotonic() - started)
        log.info("job ended", outcome=outcomes[0], seconds=round(time.monotonic() - started, 3))

    def _attempt(self, job: ClaimedJob) -> str:
        """Do a job and end it; returns what became of it."""
        pulse = Pulse(self._session, job, self._stop, self._publisher.publish, self._limits.heartbeat_seconds)
        try:
            with outside_errors():
                decision = self._workshop.do(job, pulse)
            crash_at("trainer_before_finish")
            return self._write(job, decision)
        except StoppedError:
            self._give_back(job)
            return "given_back"
        except CancelledError:
            return self._end(job, "cancelled", None)
        except ClaimLostError:
            return "lost"  # another worker has it: nothing of ours was written
        except JOB_ERRORS as error:
            return self._end(job, "failed", str(error))

    def _write(self, job: ClaimedJob, decision: Decision) -> str:
        with outside_errors(), self._session.transaction() as connection:
            if hold(connection, job):
                raise CancelledError
            finish(connection, job, "succeeded", result=decision(connection))
        crash_at("trainer_after_finish")
        return "succeeded"

    def _end(self, job: ClaimedJob, state: str, error: str | None) -> str:
        try:
            with outside_errors(), self._session.transaction() as connection:
                finish(connection, job, state, error=error)
        except ClaimLostError:
            return "lost"
        return state

    def _give_back(self, job: ClaimedJob) -> None:
        with outside_errors(), self._session.transaction() as connection:
            give_back(connection, job)
