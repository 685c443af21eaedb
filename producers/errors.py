"""What can go wrong between a service and the log.

ProducerError
├── InvalidRecord     the record breaks a rule of its schema; nothing was sent
├── DeliveryFailed    records of earlier calls were given up by the transport
├── BufferFull        the queue stayed full for the whole time allowed; this record was not sent
└── FlushTimeout      time ran out before everything was acknowledged

Invariant: no text of these errors holds a value of a record, only names of fields, event ids and rules, so that they
can be logged.
"""

from __future__ import annotations

from collections.abc import Sequence


class ProducerError(Exception):
    """Anything that the publishing client raises about a record or its delivery."""


class InvalidRecord(ProducerError, ValueError):
    """A record breaks a rule; it was not sent.

    Attributes:
        record: what kind of record: touchpoint, conversion, identity_link.
        field: the field that breaks the rule.
        rule: what the field must be, without its value.
        event_id: the record's id, when it is known.
    """

    def __init__(self, record: str, field: str, rule: str, event_id: str | None = None) -> None:
        self.record = record
        self.field = field
        self.rule = rule
        self.event_id = event_id
        suffix = f" (event_id {event_id})" if event_id else ""
        super().__init__(f"{record}.{field}: {rule}{suffix}")


class DeliveryFailed(ProducerError):
    """The transport gave up on records that earlier calls had queued.

    Raised before the record at hand is queued: publish that one again, too.

    Attributes:
        event_ids: the ids of the records that were not delivered.
        reasons: the transport's distinct reasons.
    """

    SHOWN = 5

    def __init__(self, event_ids: Sequence[str], reasons: Sequence[str]) -> None:
        self.event_ids = tuple(event_ids)
        self.reasons = tuple(reasons)
        shown = ", ".join(self.event_ids[: self.SHOWN])
        more = len(self.event_ids) - self.SHOWN
        tail = f" and {more} more" if more > 0 else ""
        super().__init__(f"{len(self.event_ids)} not delivered ({'; '.join(self.reasons)}): {shown}{tail}")


class BufferFull(ProducerError, TimeoutError):
    """The transport's queue stayed full: the broker is slower than the service, or away. The record was not sent."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(f"the queue stayed full for {seconds:g} s; is the broker reachable?")


class FlushTimeout(ProducerError, TimeoutError):
    """Time ran out while waiting for acknowledgements.

    Attributes:
        undelivered: how many records have no acknowledgement; those in flight may still arrive.
        event_ids: from ``close``, which gives them up: the ids of all records that were not acknowledged and that no
            earlier error named. Publish them again; consumers drop the doubles.
        reason: why, when the transport knows.
    """

    def __init__(self, undelivered: int, seconds: float, event_ids: Sequence[str] = (), reason: str = "") -> None:
        self.reason = reason
        self.undelivered = undelivered
        self.seconds = seconds
        self.event_ids = tuple(event_ids)
        records = "1 record was" if undelivered == 1 else f"{undelivered} records were"
        super().__init__(f"{records} not delivered within {seconds:g} s{f': {reason}' if reason else ''}")
