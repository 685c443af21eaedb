"""Between the event loop and the log's transport: one thread polls, outcomes reach the loop once a poll round.

Contract: ``send`` queues a message of a ``Shipment`` at once; it never blocks the loop. The shipment gets the outcome:
None (acknowledged) or the error of the transport. ``BufferError``: the queue is full, nothing was queued. ``Refused``:
the message can never be sent.

One ``call_soon_threadsafe`` a poll round instead of one a message: on one core that is 41,000 against some 9,000
single records a second. One future a shipment, not one a message.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from attributary.producers.transport import Message, Transport

_POLL_SECONDS = 0.1
PROBE_SECONDS = 1.0
"""While the log is away one message in so long finds out whether it is back."""

logger = logging.getLogger("attributary.collector")

_OF_THE_RECORD = frozenset({"MSG_SIZE_TOO_LARGE", "INVALID_RECORD", "INVALID_MSG"})


class Shipment:
    """Messages that are sent together, by their keys.

    Attributes:
        outcomes: what is known: None for an acknowledged message, else the transport's error.
        pending: messages without an outcome.
    """

    __slots__ = ("_all_known", "outcomes", "pending")

    def __init__(self) -> None:
        self.outcomes: dict[str, object | None] = {}
        self.pending = 0
        self._all_known: asyncio.Future[None] | None = None

    async def wait(self, seconds: float) -> bool:
        """Wait for all outcomes; return whether they came in time.

        Args:
            seconds: how long at most.
        """
        if self.pending:
            loop = asyncio.get_running_loop()
            self._all_known = loop.create_future()
            timer = loop.call_later(seconds, self._end_wait)
            try:
                await self._all_known
            finally:
                timer.cancel()
                self._all_known = None
        return not self.pending

    def settle(self, key: str, error: object | None) -> None:
        """Note the outcome of a message; called on the loop."""
        self.outcomes[key] = error
        self.pending -= 1
        if not self.pending:
            self._end_wait()

    def _end_wait(self) -> None:
        if self._all_known is not None and not self._all_known.done():
            self._all_known.set_result(None)


class LogBridge:
    """Sends messages and settles shipments on one event loop.

    Args:
        transport: where messages go; owned by the bridge from now on.
        on_fatal: called once, on the loop, when the transport says that it failed for good.
    """

    def __init__(self, transport: Transport, *, on_fatal: Callable[[object], None] | None = None) -> None:
        self._transport = transport
        self._on_fatal = on_fatal
        self._loop: asyncio.AbstractEventLoop | None = None
        self._done: list[tuple[Shipment, str, object | None]] = []
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._away_since: float | None = None
        self._probed_at = 0.0
        self._idle: asyncio.Event | None = None
        self.in_flight = 0

    def start(self) -> None:
        """Begin to poll; call it on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._poll, name="collector-poll", daemon=True)
        self._thread.start()

    @property
    def is_away(self) -> bool:
        """Whether something failed or came too late since the last acknowledgement: then nobody waits for the log."""
        return self._away_since is not None

    def may_probe(self) -> bool:
        """Tell whether a message may find out if the log is back; true once in ``PROBE_SECONDS``."""
        now = time.monotonic()
        if now - self._probed_at < PROBE_SECONDS:
            return False
        self._probed_at = now
        return True

    def note_deadline(self) -> None:
        """Note that a request's deadline passed without an acknowledgement."""
        if self._away_since is None:
            self._away_since = time.monotonic()
            logger.warning("the log did not acknowledge in time: records go to the spool until it does")

    def send(self, shipment: Shipment, key: str, message: Message) -> None:
        """Queue one message; see the contract of the module.

        Args:
            shipment: gets the outcome.
            key: the message's name in the shipment.
            message: the message.

        Raises:
            BufferError: the queue is full.
            Refused: the message can never be sent.
        """
        self._transport.send(message, partial(self._note, shipment, key))
        shipment.pending += 1
        self.in_flight += 1

    def _note(self, shipment: Shipment, key: str, error: object | None, _message: object) -> None:
        """Keep an outcome for the loop; called by the thread that polls."""
        self._done.append((shipment, key, error))

    async def stop(self, seconds: float) -> int:
        """Wait for outcomes, then give up the rest; return how many were given up.

        Args:
            seconds: how long to wait.
        """
        if self.in_flight:
            self._idle = asyncio.Event()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), seconds)
        self._stopping.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        given_up = self.in_flight
        await asyncio.to_thread(self._transport.discard)
        self._resolve(self._taken())
        self._transport.close()
        return given_up

    def _poll(self) -> None:
        assert self._loop is not None  # noqa: S101
        while not self._stopping.is_set():
            self._transport.poll(_POLL_SECONDS)
            if done := self._taken():
                self._loop.call_soon_threadsafe(self._resolve, done)
            else:
                self._stopping.wait(0.001)

    def _taken(self) -> list[tuple[Shipment, str, object | None]]:
        done, self._done = self._done, []
        return done

    def _resolve(self, done: list[tuple[Shipment, str, object | None]]) -> None:
        self.in_flight -= len(done)
        for shipment, key, error in done:
            if error is None:
                if self._away_since is not None:
                    logger.info("the log acknowledges again after %.1f s", time.monotonic() - self._away_since)
                self._away_since = None
            elif self._away_since is None and not is_of_the_record(error):
                self._away_since = time.monotonic()
                logger.warning("the log does not acknowledge: %s", error)
            if error is not None and self._on_fatal is not None and _is_fatal(error):
                tell, self._on_fatal = self._on_fatal, None
                tell(error)
            shipment.settle(key, error)
        if self._idle is not None and not self.in_flight:
            self._idle.set()


def _is_fatal(error: Any) -> bool:
    fatal = getattr(error, "fatal", None)
    return bool(fatal is not None and fatal())


def is_of_the_record(error: Any) -> bool:
    """Tell whether an error says something about the record, not the log: another try would end the same way."""
    name = getattr(error, "name", None)
    return name is not None and name() in _OF_THE_RECORD
