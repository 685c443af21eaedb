"""Signs of life of a job, and the places at which it stops.

A job computes for minutes without saying anything, in numpy or in one query. So a thread with a connection of its own
says for it that the worker lives, and does for it what cannot wait: it ends a cancelled job, and gives a job back when
the process stops. The claim is gone by that, and without it the job can write nothing, however long it still computes.

Invariant: while a job runs its heartbeats are no further apart than the set time and what Postgres and Kafka take to
answer, or seconds where Kafka is away. A job that shows progress stops at its very next step once it was cancelled, its
claim is gone or the process stops.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import structlog

from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.runtime.errors import AttributaryError, Retry
from attributary.consumers.runtime.loop import run_guarded
from attributary.consumers.store.jobs.jobs import ClaimedJob, ClaimLostError, finish, give_back, heartbeat
from attributary.consumers.store.session import StoreSession

_log = structlog.get_logger()

OUTCOMES = {"submitted": "given_back", "cancelled": "cancelled"}
"""What became of a job for its worker, by the state in which `give_back` left it; else the claim was lost."""


class StoppedError(Exception):
    """The process stops: the job goes back."""


class CancelledError(Exception):
    """Somebody asked for the job to end."""


class Pulse:
    """Keeps the claim of a job while its context is open; told by the job how far it is.

    Args:
        session: a connection that nobody else uses while the context is open.
        job: as claimed.
        stop: set when the process stops; call `wake` afterwards.
        publish: publishes the statuses that are still to be published; called by the pulse's thread.
        seconds: time between two heartbeats.
    """

    def __init__(
        self,
        session: StoreSession,
        job: ClaimedJob,
        stop: threading.Event,
        publish: Callable[[], None],
        seconds: float,
    ) -> None:
        self._session = session
        self._job = job
        self._stop = stop
        self._publish = publish
        self._seconds = seconds
        self.progress: tuple[int, int | None] = (0, None)
        """How many steps of how many were done when the job said so last."""
        self._news = threading.Event()
        self._is_over = False
        self._trouble: Exception | None = None  # raised at the job's next step
        self._thread = threading.Thread(target=self._guarded, name="trainer-pulse", daemon=True)
        self.outcome: str | None = None
        """What became of the job by the pulse's own doing: cancelled, given_back or None."""
        self.is_released = threading.Event()
        """Set when the claim is gone and that is told: whatever the job still computes, nobody waits for it."""

    def __enter__(self) -> Self:
        """Start the heartbeats."""
        if self._stop.is_set():
            self._news.set()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End them; the connection is free again."""
        self._is_over = True
        self._news.set()
        self._thread.join()

    def __call__(self, done: int, total: int | None) -> None:
        """Note that so many steps of so many are done.

        Raises:
            StoppedError: the process stops.
            CancelledError: the job was cancelled.
            ClaimLostError: another worker has the job.
            Fatal: the heartbeats ended by a bug, or the schema does not fit any more.
        """
        self.progress = (done, total)
        if self._stop.is_set():
            raise StoppedError
        if self._trouble is not None:
            raise self._trouble

    def wake(self) -> None:
        """Look at once whether the process stops."""
        self._news.set()

    def _guarded(self) -> None:
        try:
            run_guarded(self._run)
        except AttributaryError as error:
            self._trouble = error

    def _run(self) -> None:
        is_away = False
        while True:
            self._news.wait(self._seconds)
            self._news.clear()
            if self._is_over:
                return
            try:
                if self._trouble is None and self._stop.is_set():
                    self._give_back()
                elif self._trouble is None:
                    self._beat()
                self._publish()
            except Retry as error:
                if not is_away:
                    _log.warning("heartbeat waits", job=self._job.job_id, tenant=self._job.tenant_id, why=str(error))
                is_away = True
                continue
            is_away = False
            if self._trouble is not None:
                self.is_released.set()

    def _beat(self) -> None:
        done, total = self.progress
        try:
            with map_errors(), self._session.transaction() as connection:
                if is_cancelled := heartbeat(connection, self._job, done, total):
                    finish(connection, self._job, "cancelled")
        except ClaimLostError as error:
            self._trouble = error
            return
        if is_cancelled:
            self.outcome = "cancelled"
            self._trouble = CancelledError()

    def _give_back(self) -> None:
        with map_errors(), self._session.transaction() as connection:
            state = give_back(connection, self._job)
        self.outcome = OUTCOMES.get(state or "")
        self._trouble = StoppedError()
