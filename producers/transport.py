"""What carries a message away, and what the client may rely on.

Contract of every transport (tests/producers/test_producers_transports.py runs it on all of them):

- ``send`` queues one message and returns at once. ``BufferError``: the queue is full, nothing was queued.
  ``Refused``: this message can never be sent.
- ``on_done(error, message)`` is called exactly once for every queued message, from within ``poll``, ``flush`` or
  ``discard``, with None when the log has acknowledged it, else with an error; its ``str`` is the reason.
- ``flush`` returns how many messages still have no outcome when all are done or time is up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

Header = tuple[str, str | bytes | None]
OnDone = Callable[[object | None, object], None]


class Message(NamedTuple):
    """One message on its way to the log."""

    topic: str
    key: bytes
    value: bytes
    headers: list[Header]


class Refused(Exception):
    """The transport can never send this message: too large, or the transport itself has failed for good."""


class TooLarge(Refused):
    """This message is larger than the log takes; others are not concerned."""


class Transport(Protocol):
    """Carries messages to the log; see the contract above."""

    def send(self, message: Message, on_done: OnDone) -> None:
        """Queue one message.

        Raises:
            BufferError: the queue is full; poll and try again.
            Refused: the message can never be sent.
        """

    def poll(self, seconds: float) -> None:
        """Serve outcomes that are known; wait up to ``seconds`` when there are none."""

    def flush(self, seconds: float) -> int:
        """Wait up to ``seconds`` for all outcomes; return how many messages have none yet."""

    def discard(self) -> None:
        """Give up every message without an outcome: its ``on_done`` is called with an error."""

    def close(self) -> None:
        """Free what the transport holds. Call ``flush`` or ``discard`` first."""
