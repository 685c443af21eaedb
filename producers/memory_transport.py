"""A transport that keeps messages in memory, for the tests of services that publish.

Invariant: it keeps the contract of ``Transport``, so what passes on it passes on Kafka: outcomes come late, from
``poll`` and ``flush`` only, the queue can be full, and deliveries can be made to fail.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from attributary.producers.transport import Message, OnDone, Refused
from attributary.schemas.codec import Codec
from attributary.schemas.topics import topic_of


class MemoryTransport:
    """Keeps what was published.

    Attributes:
        messages: the delivered messages, oldest first.

    Args:
        capacity: how many messages may wait for an outcome before ``send`` says that the queue is full.
        codec: decodes ``records``; the bundled schemas when not given.
    """

    def __init__(self, capacity: int = 100_000, codec: Codec | None = None) -> None:
        self.messages: list[Message] = []
        self._capacity = capacity
        self._codec = codec or Codec()
        self._pending: deque[tuple[Message, OnDone]] = deque()
        self._failures: deque[str] = deque()
        self._lock = threading.Lock()
        self._stalled = False
        self._closed = False

    def records(self, name: str) -> list[dict[str, Any]]:
        """Return the delivered records of a kind, decoded, oldest first.

        Args:
            name: touchpoint, conversion, identity_link or spend.
        """
        topic = topic_of(name)
        return [self._codec.decode(name, message.value) for message in self.messages if message.topic == topic]

    def fail_next(self, reason: str, times: int = 1) -> None:
        """Let the next ``times`` messages that get an outcome fail for ``reason``."""
        self._failures.extend([reason] * times)

    def stall(self, *, stalled: bool = True) -> None:
        """Give no more outcomes, as a broker that is away; ``stall(stalled=False)`` brings it back."""
        self._stalled = stalled

    def send(self, message: Message, on_done: OnDone) -> None:
        """Queue one message; see the contract of ``Transport``."""
        with self._lock:
            if self._closed:
                raise Refused("the transport is closed")
            if len(self._pending) >= self._capacity:
                raise BufferError("the queue is full")
            self._pending.append((message, on_done))

    def poll(self, seconds: float) -> None:  # noqa: ARG002 - outcomes are known at once, there is nothing to wait for
        """Give every waiting message its outcome."""
        while (outcome := self._next_outcome()) is not None:
            message, on_done, error = outcome
            on_done(error, message)

    def flush(self, seconds: float) -> int:
        """Give every waiting message its outcome; return how many have none because the transport is stalled."""
        self.poll(seconds)
        return len(self._pending)

    def discard(self) -> None:
        """Let every waiting message fail."""
        with self._lock:
            waiting, self._pending = self._pending, deque()
        for message, on_done in waiting:
            on_done("discarded", message)

    def close(self) -> None:
        """Refuse further messages; what was delivered stays readable."""
        self._closed = True

    def _next_outcome(self) -> tuple[Message, OnDone, str | None] | None:
        """Take one waiting message out; None when there is none, or while the transport is stalled."""
        with self._lock:
            if self._stalled or not self._pending:
                return None
            message, on_done = self._pending.popleft()
            error = self._failures.popleft() if self._failures else None
            if error is None:
                self.messages.append(message)
            return message, on_done, error


class CheckOnly:
    """A transport that acknowledges everything and keeps nothing: for dry runs of any length, in one thread."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Message, OnDone]] = []

    def send(self, message: Message, on_done: OnDone) -> None:
        """Queue one message; see the contract of ``Transport``."""
        self._waiting.append((message, on_done))

    def poll(self, seconds: float) -> None:  # noqa: ARG002 - outcomes are known at once, there is nothing to wait for
        """Acknowledge every waiting message."""
        waiting, self._waiting = self._waiting, []
        for message, on_done in waiting:
            on_done(None, message)

    def flush(self, seconds: float) -> int:
        """Acknowledge every waiting message."""
        self.poll(seconds)
        return 0

    def discard(self) -> None:
        """Let every waiting message fail."""
        waiting, self._waiting = self._waiting, []
        for message, on_done in waiting:
            on_done("discarded", message)

    def close(self) -> None:
        """Nothing is held."""
