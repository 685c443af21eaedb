"""The forwarder as a stage: conversions from Kafka to one destination, one consumer group a destination.

Contract (`runtime.stage.Stage`): a batch is decoded, validated, written into the ledger, sent, and its rejected records
given back as dead letters. Invariants:

- the ledger is written before anything is sent, so a crash or a replay sends nothing twice that the destination would
  count twice;
- what is wrong outside the record (an outage, a rate limit, dead credentials, Postgres away) is never dead-lettered:
  the records stay in Kafka and come again;
- every event ends in the ledger in exactly one state, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.destinations import metrics
from attributary.consumers.destinations.destination import Moment, NotSent, PreparedEvent
from attributary.consumers.destinations.prepare import prepare
from attributary.consumers.runtime.crash_points import crash_at, register_points
from attributary.consumers.runtime.dead_letters import check_poison_share
from attributary.consumers.runtime.errors import Retry
from attributary.consumers.runtime.records import DeadLetter, Outcome
from attributary.consumers.store.connection import StoreUnavailable
from attributary.consumers.store.deliveries.delivery import (
    DeliveryKey,
    DeliveryOutcome,
    DeliveryState,
    NewDelivery,
    Source,
)
from attributary.schemas.codec import Codec, DecodeError
from attributary.schemas.rules import check_conversion
from attributary.schemas.topics import CONVERSIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from attributary.consumers.destinations.credentials import Credentials
    from attributary.consumers.destinations.destination import Account, Conversion, Destination
    from attributary.consumers.destinations.prepare import Unknown
    from attributary.consumers.destinations.sender import BatchSender
    from attributary.consumers.destinations.transport import Clock
    from attributary.consumers.destinations.validation_probe import ValidationProbe
    from attributary.consumers.runtime.records import Record
    from attributary.consumers.store.deliveries.delivery import Delivery, Ledger

register_points("forwarder_after_ledger", "forwarder_before_kafka_commit")

_log = structlog.get_logger()

_FINAL = frozenset(DeliveryState) - {DeliveryState.PENDING}


@dataclass(frozen=True, slots=True)
class Route:
    """Where events go and what is asked of them first.

    Attributes:
        destination: the rules of the destination.
        credentials: the accounts of each tenant.
        consent_unknown: what to do when a purpose was never asked about.
        uncertain: what to do with an event that was perhaps sent and would count twice.
        max_records: events taken from Kafka at once.
        max_poison_share: stop when more of a batch than this share cannot even be read.
    """

    destination: Destination
    credentials: Credentials
    consent_unknown: Unknown = "skip"
    uncertain: str = "hold"
    max_records: int = 5_000
    max_poison_share: float = 1.0


@dataclass(frozen=True, slots=True)
class _Task:
    """One event for one account."""

    record: Record
    account: Account
    conversion: Conversion
    prepared: PreparedEvent | NotSent


class ForwarderStage:
    """Forwards conversions to one destination.

    Args:
        route: where events go.
        sender: carries them.
        ledger: what became of them.
        clock: where time comes from.
        validation_probe: probes of new shapes of events and of changed secrets; None without.
        codec: of the topic's records.
    """

    topics: Sequence[str] = (CONVERSIONS,)
    output_topics: Sequence[str] = ()

    def __init__(
        self,
        route: Route,
        sender: BatchSender,
        ledger: Ledger,
        clock: Clock,
        validation_probe: ValidationProbe | None = None,
        codec: Codec | None = None,
    ) -> None:
        self._route = route
        self._sender = sender
        self._ledger = ledger
        self._clock = clock
        self._validation_probe = validation_probe
        self._codec = codec or Codec()
        self._ready = True
        self._oldest_waiting: int | None = None
        self.name = f"forwarder_{route.destination.name}"
        self.group = f"attribution.forwarder.{route.destination.name}"
        self.max_records = route.max_records

    def stored_positions(self, partitions: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], int]:  # noqa: ARG002  # the protocol's
        """The ledger remembers events, not offsets; Kafka's own are the position."""
        return {}

    def is_ready(self) -> bool:
        """Tell whether the ledger answered last time. A destination that is away does not make us unready."""
        return self._ready

    def close(self) -> None:
        """Give back connections and threads."""
        self._sender.close()

    def has_account(self, key: DeliveryKey) -> bool:
        """Tell whether the settings have the account of a delivery."""
        accounts = self._route.credentials.accounts(key.tenant_id)
        return any(account.ledger_name == key.destination for account in accounts)

    def handle(self, batch: Sequence[Record]) -> Outcome:
        """Forward a batch.

        Raises:
            Retry: something must wait; what was sent is in the ledger and is not sent again.
        """
        if self._route.credentials.serves_one_account and (hold := self._sender.hold()):
            self._show_waiting()
            raise Retry(f"{self._route.destination.name}: {hold.reason}", hold.seconds)
        with map_errors():
            try:
                outcome = self._forward(batch)
            except StoreUnavailable:
                self._ready = False
                raise
        self._ready = True
        return outcome

    def _forward(self, batch: Sequence[Record]) -> Outcome:
        outcome = Outcome()
        tasks = self._read(batch, outcome)
        check_poison_share(outcome.dead_letters, len(batch), self._route.max_poison_share)
        known = self._ledger.claim([_entry(key, task) for key, task in tasks.items()])
        crash_at("forwarder_after_ledger")
        settled = self._settle_without_sending(tasks, known)
        self._ledger.settle(settled)
        done = {outcome.key for outcome in settled}
        to_send: dict[int, list[PreparedEvent]] = {}
        accounts: dict[int, Account] = {}
        for key, task in tasks.items():
            row = known.get(key)
            if key in done or not isinstance(task.prepared, PreparedEvent) or (row is not None and row.state in _FINAL):
                continue
            to_send.setdefault(id(task.account), []).append(task.prepared)
            accounts[id(task.account)] = task.account
        deadline = self._sender.turn_ends()
        doubtful = frozenset(key.event_id for key, row in known.items() if row.in_flight)
        for number, events in to_send.items():
            if self._validation_probe is not None:
                self._validation_probe.probe(accounts[number], events)
            settled += self._sender.deliver(accounts[number], events, deadline, doubtful)
        self._report(tasks, known, settled)
        outcome.dead_letters += self._dead_letters(tasks, known, settled)
        self._wait_for_the_rest(tasks, settled)
        crash_at("forwarder_before_kafka_commit")
        return outcome

    def _read(self, batch: Sequence[Record], outcome: Outcome) -> dict[DeliveryKey, _Task]:
        """Decode, validate and prepare; the first record of an event counts, copies in the batch do not."""
        now = self._clock.now_micros()
        tasks: dict[DeliveryKey, _Task] = {}
        for record in batch:
            try:
                conversion = self._codec.decode("conversion", record.value)
            except DecodeError as error:
                outcome.dead_letters.append(DeadLetter(record, "decode", None, error.rule))
                continue
            broken = check_conversion(conversion, now_micros=now)
            if broken is not None or "\0" in conversion["event_id"]:
                field, rule = broken or ("event_id", "must not hold a NUL character")
                outcome.dead_letters.append(DeadLetter(record, "validate", field, rule))
                continue
            moment = Moment(now, record.timestamp_ms * 1_000 if record.timestamp_ms > 0 else now)
            accounts = self._route.credentials.accounts(conversion["tenant_id"])
            if not accounts:
                metrics.forward_events.labels(self._route.destination.name, "off").inc()
            for account in accounts:
                key = DeliveryKey(account.tenant_id, account.ledger_name, conversion["event_id"])
                if key in tasks:
                    metrics.forward_events.labels(self._route.destination.name, "duplicate").inc()
                    continue
                tasks[key] = _Task(record, account, conversion, self._prepare(conversion, account, moment))
        return tasks

    def _prepare(self, conversion: Conversion, account: Account, moment: Moment) -> PreparedEvent | NotSent:
        return prepare(self._route.destination, conversion, account, moment, unknown=self._route.consent_unknown)

    def _settle_without_sending(
        self, tasks: Mapping[DeliveryKey, _Task], known: Mapping[DeliveryKey, Delivery]
    ) -> list[DeliveryOutcome]:
        """Settle rows of an earlier turn that must not be sent now: too late, refused by now, perhaps sent."""
        now = self._clock.now_micros()
        settled = []
        for key, row in known.items():
            if row.state is not DeliveryState.PENDING:
                continue
            prepared = tasks[key].prepared
            if isinstance(prepared, NotSent):
                settled.append(DeliveryOutcome(key, prepared.state, prepared.reason))
            elif row.in_flight and not prepared.resend_safe and self._route.uncertain == "hold":
                settled.append(DeliveryOutcome(key, DeliveryState.UNCERTAIN, "perhaps sent before a crash"))
            elif row.first_sent_at is not None:
                ends = self._route.destination.redelivery_ends(row.first_sent_at)
                if ends is not None and now > ends:
                    reason = "first tried too long ago: the destination would not see that it comes twice"
                    settled.append(DeliveryOutcome(key, DeliveryState.EXPIRED, reason))
        return settled

    def _dead_letters(
        self,
        tasks: Mapping[DeliveryKey, _Task],
        known: Mapping[DeliveryKey, Delivery],
        settled: Sequence[DeliveryOutcome],
    ) -> list[DeadLetter]:
        """Give the records that this batch must dead-letter; again on a replay, never for a copy of the event."""
        rejected = {outcome.key: outcome for outcome in settled if outcome.state is DeliveryState.REJECTED}
        letters: dict[tuple[str, int, int], DeadLetter] = {}
        for key, task in tasks.items():
            row, fresh = known.get(key), rejected.get(key)
            place = _source(task.record)
            prepared = task.prepared
            field = None
            if fresh is not None:
                reason, stage = fresh.reason, "validate" if isinstance(prepared, NotSent) else "send"
            elif row is None and isinstance(prepared, NotSent) and prepared.state is DeliveryState.REJECTED:
                reason, stage, field = prepared.reason, "validate", prepared.field
            elif row is not None and row.state is DeliveryState.REJECTED and row.source == place:
                reason, stage = row.reason, "send" if row.attempts else "validate"
            else:
                continue
            attempts = max(1, row.attempts if row else 1)
            letters[place] = DeadLetter(task.record, stage, field, reason or "refused", attempts)
        return list(letters.values())

    def _wait_for_the_rest(self, tasks: Mapping[DeliveryKey, _Task], settled: Sequence[DeliveryOutcome]) -> None:
        """Ask the loop to come again for what must wait.

        With one account the partition waits for it. With several, an account that needs a person is left behind, its
        events pending in the ledger, so that it holds up nobody else; `attributary forward retry` fetches them.
        """
        name = self._route.destination.name
        waiting = [outcome for outcome in settled if outcome.state is DeliveryState.PENDING]
        self._oldest_waiting = min((tasks[outcome.key].conversion["occurred_at"] for outcome in waiting), default=None)
        self._show_waiting()
        seconds, reason = 0.0, None
        for account in {id(tasks[o.key].account): tasks[o.key].account for o in waiting}.values():
            hold = self._sender.limiter(account).hold_at(self._clock.monotonic())
            if hold is not None and hold.stopped and not self._route.credentials.serves_one_account:
                _log.error("events left pending", destination=name, tenant_id=account.tenant_id, why=hold.reason)
                continue
            seconds = max(seconds, hold.seconds if hold else 0.1)
            reason = hold.reason if hold else "out of time for this turn"
        if reason is not None:
            raise Retry(f"{name}: {reason}", seconds)

    def _show_waiting(self) -> None:
        """Set the gauges; also while an account is on hold, or the age of the oldest would stand still."""
        name, now = self._route.destination.name, self._clock.now_micros()
        age = 0 if self._oldest_waiting is None else max(0, now - self._oldest_waiting)
        metrics.forward_oldest_pending_seconds.labels(name).set(age / 1e6)
        metrics.forward_channels_stopped.labels(name).set(self._sender.stopped_accounts())

    def _report(
        self,
        tasks: Mapping[DeliveryKey, _Task],
        known: Mapping[DeliveryKey, Delivery],
        settled: Sequence[DeliveryOutcome],
    ) -> None:
        name = self._route.destination.name
        counts: dict[str, int] = {}
        for outcome in settled:
            counts[outcome.state.value] = counts.get(outcome.state.value, 0) + 1
        for key, task in tasks.items():
            row = known.get(key)
            if row is not None and row.state in _FINAL:
                # The same record again is a replay; another record with the same event id is a duplicate.
                counts["duplicate"] = counts.get("duplicate", 0) + (row.source != _source(task.record))
            elif row is None and isinstance(task.prepared, NotSent):
                counts[task.prepared.state.value] = counts.get(task.prepared.state.value, 0) + 1
        for state, count in counts.items():
            metrics.forward_events.labels(name, state).inc(count)


def _source(record: Record) -> Source:
    return Source(record.topic, record.partition, record.offset)


def _entry(key: DeliveryKey, task: _Task) -> NewDelivery:
    prepared, at = task.prepared, task.conversion["occurred_at"]
    if isinstance(prepared, NotSent):
        return NewDelivery(key, prepared.state, prepared.reason, at, _source(task.record))
    return NewDelivery(key, DeliveryState.PENDING, None, at, _source(task.record), prepared.match_keys)
