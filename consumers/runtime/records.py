"""What goes into a stage and what comes out of it.

Invariant: a record keeps the bytes, key, headers and coordinates with which it was read, so that a dead letter can be
replayed as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Headers = Sequence[tuple[str, bytes]]


def _no_headers() -> Headers:
    return ()


@dataclass(slots=True, eq=False)
class Record:
    """One record as it was read. ``timestamp_ms`` is the log-append time, milliseconds since 1970-01-01 UTC."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    read_headers: Callable[[], Headers | None] = field(default=_no_headers, repr=False)

    @property
    def headers(self) -> Headers:
        """The headers, read when asked for: most records never need them."""
        return self.read_headers() or ()

    @property
    def place(self) -> str:
        """Where the record stands, for messages: ``topic[partition]@offset``."""
        return f"{self.topic}[{self.partition}]@{self.offset}"


@dataclass(slots=True, frozen=True)
class Outbound:
    """A record to produce in the transaction of the batch."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


@dataclass(slots=True, frozen=True)
class DeadLetter:
    """A record that can never be processed, with the reason; no personal data in ``reason``.

    ``stage`` is decode, validate, store, send or quarantine; ``field`` the field that broke the rule, if one did.
    """

    record: Record
    stage: str
    field: str | None
    reason: str
    attempts: int = 1


@dataclass(slots=True)
class Outcome:
    """What a stage decided about a batch: all of it goes into one Kafka transaction with the source offsets.

    ``taken`` is set where the batch costs too much at once: only so many of its first records were processed, at least
    one, as if the others had not been read. The loop commits these and hands the others over again.

    ``on_committed`` is called after the commit: for what may be noted only when a dead letter is there.
    """

    messages: list[Outbound] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    taken: int | None = None
    on_committed: Callable[[], None] | None = None


def within_bytes(batch: Sequence[Record], max_bytes: int) -> int:
    """Return how many of the first records have values of so many bytes together: at least one."""
    total = 0
    for number, record in enumerate(batch):
        total += len(record.value or b"")
        if total > max_bytes and number:
            return number
    return len(batch)
