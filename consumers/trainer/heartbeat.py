"""Heartbeats: the lease of a job, kept by a thread while the job computes.

A job computes for minutes in numpy or in one query and reports nothing. So a thread with its own connection writes the
heartbeats. The thread also ends a cancelled job, and gives the job back when the process stops. Both end the claim, and
without the claim the job can write nothing, however long it still computes.

Invariant: two heartbeats are no further apart than the set interval plus the time that Postgres and Kafka take to
answer; seconds while Kafka is away. A job that reports progress stops at its next step after a cancellation, after the
loss of its claim, and when the process stops.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import structlog

from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.runtime.errors import AttributaryError, Retry
from attributary.consumers.runtime.run import run_guarded
from attributary.consumers.store.jobs.jobs import ClaimedJob, ClaimLostError, finish, give_back, heartbeat
from attributary.consumers.store.session import StoreSession

_log = structlog.get_logger()

OUTCOMES = {"submitted": "given_back", "cancelled": "cancelled"}
"""The outcome of a job for its worker, by the state in which `give_back` left it; otherwise the claim was lost."""


class StoppedError(Exception):
    """The process stops and the job is given back."""


class CancelledError(Exception):
    """The job was cancelled."""


class JobLease:
    """Keeps the claim of a job while its context is open. The job calls it to report progress.

    Args:
        session: a connection for this lease alone while the context is open.
        job: the claimed job.
        stop: set when the process stops; call `wake` afterwards.
        publish: publishes pending statuses; called by the heartbeat thread.
        interval_seconds: time between two heartbeats.
    """

    def __init__(
        self,
        session: StoreSession,
        job: ClaimedJob,
        stop: threading.Event,
        publish: Callable[[], None],
        interval_seconds: float,
    ) -> None:
        self._session = session
        self._job = job
        self._stop = stop
        self._publish = publish
        self._interval_seconds = interval_seconds
        self.progress: tuple[int, int | None] = (0, None)
        """Steps done and steps in all, as the job reported them last."""
        self._wakeup = threading.Event()
        self._is_over = False
        self._failure: Exception | None = None  # raised at the next step of the job
        self._thread = threading.Thread(target=self._guarded, name="trainer-heartbeat", daemon=True)
        self.outcome: str | None = None
        """How this lease ended the job: cancelled, given_back or None."""
        self.is_released = threading.Event()
        """Set when the claim is gone and its status is published: the worker no longer waits for the job."""

    def __enter__(self) -> Self:
        """Start the heartbeats."""
        if self._stop.is_set():
            self._wakeup.set()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the heartbeats; the connection is free again."""
        self._is_over = True
        self._wakeup.set()
        self._thread.join()

    def __call__(self, done: int, total: int | None) -> None:
        """Report progress: steps done, and steps in all if known.

        Raises:
            StoppedError: the process stops.
            CancelledError: the job was cancelled.
            ClaimLostError: another worker has the job.
            Fatal: the heartbeats ended by a bug, or the schema does not fit any more.
        """
        self.progress = (done, total)
        if self._stop.is_set():
            raise StoppedError
        if self._failure is not None:
            raise self._failure

    def wake(self) -> None:
        """Check at once for a stop of the process."""
        self._wakeup.set()

    def _guarded(self) -> None:
        try:
            run_guarded(self._run)
        except AttributaryError as error:
            self._failure = error

    def _run(self) -> None:
        is_away = False
        while True:
            self._wakeup.wait(self._interval_seconds)
            self._wakeup.clear()
            if self._is_over:
                return
            try:
                if self._failure is None and self._stop.is_set():
                    self._give_back()
                elif self._failure is None:
                    self._beat()
                self._publish()
            except Retry as error:
                if not is_away:
                    _log.warning(
                        "heartbeat is waiting for Postgres or Kafka",
                        job=self._job.job_id,
                        tenant=self._job.tenant_id,
                        why=str(error),
                    )
                is_away = True
                continue
            is_away = False
            if self._failure is not None:
                self.is_released.set()

    def _beat(self) -> None:
        done, total = self.progress
        try:
            with map_errors(), self._session.transaction() as connection:
                if is_cancelled := heartbeat(connection, self._job, done, total):
                    finish(connection, self._job, "cancelled")
        except ClaimLostError as error:
            self._failure = error
            return
        if is_cancelled:
            self.outcome = "cancelled"
            self._failure = CancelledError()

    def _give_back(self) -> None:
        with map_errors(), self._session.transaction() as connection:
            state = give_back(connection, self._job)
        self.outcome = OUTCOMES.get(state or "")
        self._failure = StoppedError()
