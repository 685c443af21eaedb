"""The publishing client: typed records in, acknowledged messages out.

Contract:

- A call of ``publish`` queues one valid record or raises; it waits only while the queue is full.
- A record that the log did not take is never forgotten: it goes to ``on_delivery``, or the next ``publish``, ``flush``
  or ``close`` raises ``DeliveryFailed`` with its event id.
- Leaving the ``with`` block waits for all acknowledgements, or says how many are missing. A producer that nobody closed
  waits at the end of the process, and logs how many are missing.

Invariant: ``published == delivered + failed + waiting``, once the calls in progress have returned. Thread-safe. A
process that forks must open its producer after the fork.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self

from attributary.attribution_core.domain.identity_rules import normalized_id
from attributary.producers.config import ProducerConfig
from attributary.producers.envelope import Envelope
from attributary.producers.errors import BufferFull, DeliveryFailed, FlushTimeout, InvalidRecord, ProducerError
from attributary.producers.kafka import KafkaTransport
from attributary.producers.records import Conversion, IdentityLink, PublishedRecord, Touchpoint
from attributary.producers.spend import Spend
from attributary.producers.touchpoint_sealer import FIELDS, values_of_mapping, values_of_object
from attributary.producers.transport import Message, Refused, Transport
from attributary.schemas.codec import Codec

OnDelivery = Callable[[str, str | None], None]
"""Called with the event id, and None when it was acknowledged or else the reason."""

_WAIT_FOR_ROOM_SECONDS = 0.05

logger = logging.getLogger("attributary.producers")


def _rescue(transport: Transport, seconds: float, process: int) -> None:
    """Deliver what a producer holds that nobody closed."""
    if os.getpid() == process and (undelivered := transport.flush(seconds)):
        logger.error("%d records were not delivered; the producer was not closed", undelivered)


class Counters(NamedTuple):
    """What became of the records of one producer so far."""

    published: int  # queued
    delivered: int  # acknowledged by the log
    failed: int  # given up

    @property
    def waiting(self) -> int:
        """Queued, and without an outcome yet."""
        return self.published - self.delivered - self.failed


class AttributaryProducer:
    """Publishes touchpoints, conversions, identity links and what ads cost.

    Args:
        config: the settings.
        transport: where messages go instead of Kafka, for example a ``MemoryTransport`` in a test.
        on_delivery: called for every outcome with the event id and the reason, None when it was delivered. With it,
            ``DeliveryFailed`` is raised no more: failures are yours. It runs inside publish, flush and close.

    Examples:
        >>> from attributary import AttributaryProducer, ProducerConfig, Touchpoint
        >>> config = ProducerConfig(bootstrap="localhost:9092", source="shop", default_tenant="acme")
        >>> with AttributaryProducer(config) as producer:  # doctest: +SKIP
        ...     producer.publish(Touchpoint(...))
    """

    def __init__(
        self, config: ProducerConfig, *, transport: Transport | None = None, on_delivery: OnDelivery | None = None
    ) -> None:
        if transport is None and not config.bootstrap:
            raise ValueError("bootstrap: name at least one Kafka broker, host:port")
        self._config = config
        self._envelope = Envelope(config.codec or Codec(), config.source, config.identities, config.default_tenant)
        self._transport: Transport = transport or KafkaTransport(
            config.bootstrap, {"client.id": config.source, **config.kafka}
        )
        self._on_delivery = on_delivery
        self._lock = threading.Lock()
        self._published = 0
        self._delivered = 0
        self._failed = 0
        self._unreported: list[tuple[str, str]] = []  # (event id, reason) of failures that nobody was told of yet
        self._process = os.getpid()
        self._closed = False
        self._abandoned = weakref.finalize(self, _rescue, self._transport, config.flush_timeout_seconds, os.getpid())

    @property
    def counters(self) -> Counters:
        """What became of the records so far; outcomes are counted when a call serves them."""
        with self._lock:
            return Counters(self._published, self._delivered, self._failed)

    def publish_touchpoint(self, touchpoint: Touchpoint, *, traceparent: str | None = None) -> None:
        """Publish a touchpoint; see ``publish``."""
        self.publish(touchpoint, traceparent=traceparent)

    def publish_conversion(self, conversion: Conversion, *, traceparent: str | None = None) -> None:
        """Publish a conversion or its correction; see ``publish``."""
        self.publish(conversion, traceparent=traceparent)

    def publish_identity_link(self, link: IdentityLink, *, traceparent: str | None = None) -> None:
        """Publish that an anonymous id is a known user; see ``publish``."""
        self.publish(link, traceparent=traceparent)

    def publish_spend(self, spend: Spend, *, traceparent: str | None = None) -> None:
        """Publish what an ad account cost on a day; see ``publish``."""
        self.publish(spend, traceparent=traceparent)

    def publish(self, record: PublishedRecord | Spend, *, traceparent: str | None = None) -> None:
        """Queue one record for the log.

        Args:
            record: a touchpoint, conversion, identity link or a report of spend.
            traceparent: W3C trace context of the request that it comes from.

        Raises:
            InvalidRecord: it breaks a rule.
            DeliveryFailed: earlier records were not delivered; this one is not queued. Or this one can never be sent.
            BufferFull: the queue stayed full for ``full_buffer_timeout_seconds``.
            RegistryUnavailableError: with a registry, which does not answer; it is asked once a kind of record.
        """
        self._ready()
        message = None
        if type(record) is Touchpoint:
            message = self._envelope.seal_touchpoint(values_of_object(record), traceparent)
        if message is None:
            message = self._seal_any(record.NAME, record.to_record(), traceparent)
        self._queue(message, record.event_id)

    def publish_mapping(self, name: str, record: Mapping[str, Any], *, traceparent: str | None = None) -> None:
        """Queue one record that already is in the form of its schema; otherwise as ``publish``.

        Args:
            name: touchpoint, conversion, identity_link or spend.
            record: the fields by name, times in microseconds UTC. The default tenant and the hashes are filled in.
            traceparent: W3C trace context.

        Raises:
            InvalidRecord: it breaks a rule.
            DeliveryFailed: earlier records were not delivered, or this one can never be sent.
            BufferFull: the queue stayed full for ``full_buffer_timeout_seconds``.
        """
        self._ready()
        self._queue(self.seal(name, record, traceparent=traceparent), record["event_id"])

    def seal(self, name: str, record: Mapping[str, Any], *, traceparent: str | None = None) -> Message:
        """Return the message that ``publish_mapping`` would queue, without queueing it.

        Raises:
            InvalidRecord: the record breaks a rule.
        """
        if name == "touchpoint" and type(record) is dict and len(record) == len(FIELDS):
            try:
                message = self._envelope.seal_touchpoint(values_of_mapping(record), traceparent)
            except KeyError:
                message = None
            if message is not None:
                return message
        return self._seal_any(name, record, traceparent)

    def _seal_any(self, name: str, record: Mapping[str, Any], traceparent: str | None) -> Message:
        if not record.get("tenant_id"):
            record = {**record, "tenant_id": self._config.default_tenant}
        for field in ("user_id", "anonymous_id"):
            given = record.get(field)
            if isinstance(given, str) and (stored := normalized_id(given)) != given:
                record = {**record, field: stored}
        if self._config.hash_user_data and record.get("user_data"):
            record = {**record, "user_data": self._hashed(record["user_data"])}
        return self._envelope.seal(name, record, traceparent)

    def flush(self, timeout_seconds: float | None = None) -> None:
        """Wait until every queued record has an outcome.

        Args:
            timeout_seconds: how long at most; ``flush_timeout_seconds`` of the settings when not given.

        Raises:
            FlushTimeout: some have none yet; they stay queued.
            DeliveryFailed: some were not delivered.
        """
        self._ready()
        seconds = self._config.flush_timeout_seconds if timeout_seconds is None else timeout_seconds
        undelivered = self._transport.flush(seconds)
        self._raise_unreported()
        if undelivered:
            raise FlushTimeout(undelivered, seconds, reason=self._trouble())

    def close(self) -> None:
        """Wait for all acknowledgements, then free everything. A second call does nothing.

        Raises:
            FlushTimeout: time ran out; the records without an outcome were given up.
            DeliveryFailed: some were not delivered.
        """
        if self._closed:
            return
        self._ready()
        self._closed = True
        self._abandoned.detach()
        undelivered = self._transport.flush(self._config.flush_timeout_seconds)
        if undelivered:
            self._transport.discard()
        self._transport.close()
        if undelivered:
            event_ids = [event_id for event_id, _ in self._take_unreported()]
            raise FlushTimeout(undelivered, self._config.flush_timeout_seconds, event_ids, self._trouble())
        self._raise_unreported()

    def _trouble(self) -> str:
        return self._transport.trouble if isinstance(self._transport, KafkaTransport) else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close()
        except ProducerError as unfinished:  # the block's own error is the one to see; this one goes with it
            error.add_note(f"while closing the producer: {unfinished}")

    def _ready(self) -> None:
        if self._closed:
            raise RuntimeError("the producer is closed")
        if os.getpid() != self._process:
            raise RuntimeError("the producer was opened before a fork, and its threads stayed behind: open it after")

    def _queue(self, message: Message, event_id: str) -> None:
        self._transport.poll(0)
        self._raise_unreported()
        self._send(message, event_id)

    def _send(self, message: Message, event_id: str) -> None:
        with self._lock:
            self._published += 1
        on_done = partial(self._done, event_id)
        try:
            try:
                self._transport.send(message, on_done)
            except BufferError:
                self._send_when_there_is_room(message, on_done)
        except (Refused, BufferFull) as error:
            with self._lock:
                self._published -= 1
            if isinstance(error, Refused):
                raise DeliveryFailed([event_id], [str(error)]) from None
            raise

    def _send_when_there_is_room(self, message: Message, on_done: Callable[[object | None, object], None]) -> None:
        seconds = self._config.full_buffer_timeout_seconds
        deadline = time.monotonic() + seconds
        while True:
            self._transport.poll(_WAIT_FOR_ROOM_SECONDS)
            try:
                return self._transport.send(message, on_done)
            except BufferError:
                if time.monotonic() >= deadline:
                    raise BufferFull(seconds) from None

    def _done(self, event_id: str, error: object | None, _message: object) -> None:
        with self._lock:
            if error is None:
                self._delivered += 1
            else:
                self._failed += 1
                if self._on_delivery is None:
                    self._unreported.append((event_id, str(error)))
        if self._on_delivery is not None:
            self._on_delivery(event_id, None if error is None else str(error))

    def _take_unreported(self) -> list[tuple[str, str]]:
        with self._lock:
            failures, self._unreported = self._unreported, []
        return failures

    def _raise_unreported(self) -> None:
        if self._unreported and (failures := self._take_unreported()):
            raise DeliveryFailed([event_id for event_id, _ in failures], sorted({reason for _, reason in failures}))

    def _hashed(self, user_data: Mapping[str, Any]) -> dict[str, Any]:
        # Imported on first use: a service that sends no user data needs no table of phone numbers in memory.
        from attributary.producers.matching import hash_user_data  # noqa: PLC0415

        try:
            return hash_user_data(user_data, default_region=self._config.default_region)
        except (TypeError, AttributeError):
            raise InvalidRecord("conversion", "user_data", "must be texts by field") from None
