"""Signs of life of a job, and the places at which it stops.

Invariant: a job that shows progress learns within the time between two heartbeats that it was cancelled or that its
claim is gone, and at its very next step that the process stops.
"""

import threading
import time
from collections.abc import Callable

from attributary.consumers.outages import outside_errors
from attributary.consumers.store.jobs import ClaimedJob, heartbeat
from attributary.consumers.store.session import StoreSession


class StoppedError(Exception):
    """The process stops: the job goes back."""


class CancelledError(Exception):
    """Somebody asked for the job to end."""


class Pulse:
    """Told by a job how far it is.

    Args:
        session: a connection that the job itself does not use.
        job: as claimed.
        stop: set when the process stops.
        publish: publishes the statuses that are still to be published.
        seconds: least time between two heartbeats.
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
        self._next = 0.0

    def __call__(self, done: int, total: int | None) -> None:
        """Note that so many steps of so many are done.

        Raises:
            StoppedError: the process stops.
            CancelledError: the job was cancelled.
            ClaimLostError: another worker has the job.
            Retry: Postgres is away.
        """
        if self._stop.is_set():
            raise StoppedError
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._seconds
        with outside_errors(), self._session.transaction() as connection:
            cancelled = heartbeat(connection, self._job, done, total)
        if cancelled:
            raise CancelledError
        self._publish()
