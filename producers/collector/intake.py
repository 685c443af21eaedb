"""Records of one request become one answer each: validate all, send all, wait for the log, spool the rest.

Contract of ``Intake.take(submissions, tenant, seconds=...)``:

1. Every record is sealed (validated, hashed, encoded) before the first is sent, so that a refused request left nothing
   behind. The tenant of the call replaces whatever the records name.
2. All are sent; the call waits up to ``seconds`` for the log's acknowledgements.
3. What the log did not acknowledge is spooled. A record in flight is spooled too when its time is up: the log may
   get it twice, with the same bytes and event id, which is stored once.
4. One answer a record, in order: ``accepted`` (acknowledged by the log), ``spooled`` (on disk after fsync),
   ``rejected`` (breaks a rule; field and rule say which, never the value), ``retry`` (neither; send it again).

While the log is away nobody waits for it: records go to the spool at once. Two records of one call with one event id
are one if they have the same bytes, else both are rejected.

Invariant: an answer ``accepted`` or ``spooled`` means that the record is kept. No clock, address or counter enters the
bytes, so a repeated call with the same records gives the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from attributary.producers.client import AttributaryProducer
from attributary.producers.collector import metrics
from attributary.producers.collector.bridge import LogBridge, Shipment, is_of_the_record
from attributary.producers.collector.crash_points import crash_at
from attributary.producers.errors import InvalidRecord
from attributary.producers.records import PublishedRecord, RecordName
from attributary.producers.transport import Message, Refused, TooLarge

Outcome = Literal["accepted", "spooled", "rejected", "retry"]

REPEATED = "repeats the event id of another record of this request with other content"
TOO_LARGE = "is larger than the log takes"
_LATE = object()


class Submission(NamedTuple):
    """One record on its way in: its kind, and its fields by name as in ``to_record()``, times in microseconds UTC."""

    name: RecordName
    fields: Mapping[str, Any]

    @classmethod
    def of(cls, record: PublishedRecord) -> Submission:
        """Return the submission of a typed record."""
        return cls(record.NAME, record.to_record())


class RecordAnswer(NamedTuple):
    """What became of one record. ``field`` and ``rule`` are set for ``rejected`` only; no text holds a value."""

    event_id: str | None
    outcome: Outcome
    field: str | None = None
    rule: str | None = None


class SpoolUnavailable(Exception):
    """The spool cannot take a record now: full, or its disk failed."""


class SpoolWriter(Protocol):
    """Keeps sealed messages until the log takes them."""

    async def append(self, messages: Sequence[tuple[str, Message]]) -> None:
        """Return once all (event id, message) pairs are on disk.

        Raises:
            SpoolUnavailable: none can be relied on to be there.
        """


class Intake:
    """Takes records of any edge: the tracking endpoints, pixel, redirect, webhooks.

    Args:
        sealer: seals records; its transport is not used.
        bridge: sends them.
        spool: keeps what the log does not take; None: such records are answered ``retry``.
    """

    def __init__(self, sealer: AttributaryProducer, bridge: LogBridge, spool: SpoolWriter | None = None) -> None:
        self._sealer = sealer
        self._bridge = bridge
        self._spool = spool
        self._spool_failed = False

    async def take(
        self, submissions: Sequence[Submission], tenant: str, *, seconds: float, traceparent: str | None = None
    ) -> list[RecordAnswer]:
        """Return one answer a record, in order; see the contract of the module.

        Args:
            submissions: the records; whatever tenant they name is replaced.
            tenant: the tenant of the key or webhook.
            seconds: how long to wait for the log.
            traceparent: W3C trace context of the request.
        """
        answers: list[RecordAnswer | None] = [None] * len(submissions)
        sealed: dict[str, Message] = {}
        places: dict[str, list[int]] = {}
        for index, (name, fields) in enumerate(submissions):
            try:
                message = self._sealer.seal(name, {**fields, "tenant_id": tenant}, traceparent=traceparent)
            except InvalidRecord as error:
                answers[index] = RecordAnswer(error.event_id, "rejected", error.field, error.rule)
                continue
            event_id: str = fields["event_id"]
            places.setdefault(event_id, []).append(index)
            if sealed.setdefault(event_id, message)[:3] != message[:3]:
                sealed[event_id] = message._replace(topic="")  # marks the id; a topic has a name
        for event_id in [event_id for event_id, message in sealed.items() if not message.topic]:
            del sealed[event_id]
            for index in places.pop(event_id):
                answers[index] = RecordAnswer(event_id, "rejected", "event_id", REPEATED)
        outcomes = await self._keep(sealed, seconds) if sealed else {}
        for event_id, indexes in places.items():
            for index in indexes:
                answers[index] = outcomes[event_id]
        return [answer for answer in answers if answer is not None]

    async def _keep(self, sealed: Mapping[str, Message], seconds: float) -> dict[str, RecordAnswer]:
        """Send, wait, spool the rest; return the answers by event id."""
        outcomes: dict[str, RecordAnswer] = {}
        left: list[str] = []
        sent = Shipment()
        if waiting := self._send(sealed, sent, outcomes, left):
            crash_at("collector_sent")
            started = time.perf_counter()
            if not await sent.wait(seconds):
                self._bridge.note_deadline()
            for event_id in waiting:
                error = sent.outcomes.get(event_id, _LATE)
                if error is None:
                    outcomes[event_id] = RecordAnswer(event_id, "accepted")
                elif error is not _LATE and is_of_the_record(error):
                    outcomes[event_id] = RecordAnswer(event_id, "rejected", "record", TOO_LARGE)
                else:
                    left.append(event_id)
            metrics.ack_seconds.observe(time.perf_counter() - started)
            crash_at("collector_acknowledged")
        if left:
            kept: Outcome = "spooled" if await self._spooled([(each, sealed[each]) for each in left]) else "retry"
            outcomes.update((event_id, RecordAnswer(event_id, kept)) for event_id in left)
        return outcomes

    def _send(
        self, sealed: Mapping[str, Message], sent: Shipment, outcomes: dict[str, RecordAnswer], left: list[str]
    ) -> list[str]:
        """Queue messages, return their ids; add those too large to ``outcomes``, those for the spool to ``left``."""
        may_spool = self._spool is not None and not self._spool_failed
        if self._bridge.is_away and (may_spool or not self._bridge.may_probe()):
            left.extend(sealed)
            return []
        waiting: list[str] = []
        for event_id, message in sealed.items():
            try:
                self._bridge.send(sent, event_id, message)
            except TooLarge:
                outcomes[event_id] = RecordAnswer(event_id, "rejected", "record", TOO_LARGE)
            except (BufferError, Refused):
                left.append(event_id)
            else:
                waiting.append(event_id)
        return waiting

    async def _spooled(self, messages: Sequence[tuple[str, Message]]) -> bool:
        if self._spool is None:
            return False
        try:
            await self._spool.append(messages)
        except SpoolUnavailable:
            self._spool_failed = True
            return False
        self._spool_failed = False
        return True
