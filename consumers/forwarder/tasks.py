"""From records to tasks, and from outcomes to dead letters: what the forwarder decides without sending anything.

Contract: pure, apart from metrics; one task for each event and account. Invariants: the first record of an event
counts, copies in the batch do not; a record that cannot be read, or from which no event can be built, becomes a dead
letter and never an exception.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from attributary.consumers.adapters.departures import Fate
from attributary.consumers.destinations import metrics
from attributary.consumers.destinations.destination import Moment, NotSent, PreparedEvent
from attributary.consumers.destinations.prepare import prepare
from attributary.consumers.runtime.records import DeadLetter, Outcome
from attributary.consumers.store.deliveries.delivery import (
    DeliveryKey,
    DeliveryOutcome,
    DeliveryState,
    NewDelivery,
    Queue,
    Source,
)
from attributary.schemas.codec import Codec, DecodeError
from attributary.schemas.rules import check_conversion

from .erasures import REASON as ERASED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from attributary.consumers.adapters.departures import DeparturesCache
    from attributary.consumers.adapters.tenant_rules import ConsentDefaults
    from attributary.consumers.destinations.credentials import Credentials
    from attributary.consumers.destinations.destination import Account, Conversion, Destination
    from attributary.consumers.destinations.prepare import Unknown
    from attributary.consumers.destinations.property_filter import PropertyFilter
    from attributary.consumers.forwarder.erasures import ErasedPeople
    from attributary.consumers.runtime.records import Record
    from attributary.consumers.store.deliveries.delivery import Delivery

FINAL = frozenset(DeliveryState) - {DeliveryState.PENDING}


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
        codec: of the topic's records; None: without a registry.
        properties: which free properties may go; None: all.
        consent: what tenants say where an event does not; None: nothing.
        erased: who must not be forwarded; None: nobody is erased.
        departed: tenants that moved to another installation, which forwards their events; None: nobody moved.
    """

    destination: Destination
    credentials: Credentials
    consent_unknown: Unknown = "skip"
    uncertain: str = "hold"
    max_records: int = 5_000
    max_poison_share: float = 1.0
    codec: Codec | None = None
    properties: PropertyFilter | None = None
    consent: ConsentDefaults | None = None
    erased: ErasedPeople | None = None
    departed: DeparturesCache | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One event for one account."""

    record: Record
    account: Account
    conversion: Conversion
    prepared: PreparedEvent | NotSent

    @property
    def queue(self) -> Queue:
        """Its tenant and account, as the ledger names them."""
        return Queue(self.account.tenant_id, self.account.ledger_name)


class Tasks:
    """Reads records into tasks.

    Args:
        route: where events go.
    """

    def __init__(self, route: Route) -> None:
        self._route = route
        self._codec = route.codec or Codec()

    def read(self, batch: Iterable[Record], outcome: Outcome, now: int) -> dict[DeliveryKey, Task]:
        """Decode, validate and prepare.

        Args:
            batch: the records.
            outcome: gets a dead letter for each record that cannot be read.
            now: microseconds since 1970-01-01 UTC.
        """
        name = self._route.destination.name
        tasks: dict[DeliveryKey, Task] = {}
        defaults = self._route.consent.by_tenant() if self._route.consent else {}
        events = self._events(batch, outcome, now)
        erased = self._route.erased.among(events) if self._route.erased else set()
        for number, (record, conversion) in enumerate(events):
            moment = Moment(now, record.timestamp_ms * 1_000 if record.timestamp_ms > 0 else now)
            if answers := defaults.get(conversion["tenant_id"]):
                conversion["consent"] = {**answers, **(conversion["consent"] or {})}
            accounts = self._route.credentials.accounts(conversion["tenant_id"])
            if not accounts:
                metrics.forward_events.labels(name, "off").inc()
            for account in accounts:
                key = DeliveryKey(account.tenant_id, account.ledger_name, conversion["event_id"])
                if key in tasks:
                    metrics.forward_events.labels(name, "duplicate").inc()
                    continue
                if number in erased:
                    tasks[key] = Task(record, account, conversion, NotSent(DeliveryState.SKIPPED, ERASED))
                    continue
                prepared = prepare(
                    self._route.destination,
                    conversion,
                    account,
                    moment,
                    unknown=self._route.consent_unknown,
                    properties=self._route.properties,
                )
                tasks[key] = Task(record, account, conversion, prepared)
        return tasks

    def _events(self, batch: Iterable[Record], outcome: Outcome, now: int) -> list[tuple[Record, Conversion]]:
        """Return what can be read; what cannot becomes a dead letter."""
        events: list[tuple[Record, Conversion]] = []
        departed, name = self._route.departed, self._route.destination.name
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
            if departed is not None and departed.fate(conversion["tenant_id"], record)[0] is not Fate.STORED:
                metrics.forward_events.labels(name, "relayed").inc()
                continue
            events.append((record, conversion))
        return events

    def settled_unsent(
        self, tasks: Mapping[DeliveryKey, Task], known: Mapping[DeliveryKey, Delivery], now: int
    ) -> list[DeliveryOutcome]:
        """Settle rows of an earlier turn that must not be sent now: too late, refused by now, perhaps sent."""
        settled = []
        for key, row in known.items():
            if row.state is not DeliveryState.PENDING or key not in tasks:
                continue
            prepared = tasks[key].prepared
            if isinstance(prepared, NotSent):
                settled.append(DeliveryOutcome(key, prepared.state, told(prepared)))
            elif row.in_flight and not prepared.resend_safe and self._route.uncertain == "hold":
                settled.append(DeliveryOutcome(key, DeliveryState.UNCERTAIN, "perhaps sent before a crash"))
            elif row.first_sent_at is not None:
                ends = self._route.destination.redelivery_ends(row.first_sent_at)
                if ends is not None and now > ends:
                    reason = "first tried too long ago: the destination would not see that it comes twice"
                    settled.append(DeliveryOutcome(key, DeliveryState.EXPIRED, reason))
        return settled


def source_of(record: Record) -> Source:
    """Return the coordinates of a record."""
    return Source(record.topic, record.partition, record.offset)


def told(refused: NotSent) -> str:
    """Return why an event is not sent, for the ledger; of a rejected one the field as well."""
    if refused.state is DeliveryState.REJECTED and refused.field:
        return f"{refused.reason} ({refused.field})"
    return refused.reason


def new_delivery(key: DeliveryKey, task: Task, *, waits: bool) -> NewDelivery:
    """Return the row of a task as it is first written down; `waits`: behind older events of its queue."""
    prepared, at = task.prepared, task.conversion["occurred_at"]
    if isinstance(prepared, NotSent):
        return NewDelivery(key, prepared.state, told(prepared), at, source_of(task.record))
    reason = "waits for older events of its account" if waits else None
    return NewDelivery(key, DeliveryState.PENDING, reason, at, source_of(task.record), prepared.match_keys)


def dead_letters(
    tasks: Mapping[DeliveryKey, Task],
    known: Mapping[DeliveryKey, Delivery],
    settled: Sequence[DeliveryOutcome],
) -> list[DeadLetter]:
    """Give the records that must be dead-lettered; again on a replay, never for a copy of the event."""
    rejected = {outcome.key: outcome for outcome in settled if outcome.state is DeliveryState.REJECTED}
    letters: dict[Source, DeadLetter] = {}
    for key, task in tasks.items():
        row, fresh = known.get(key), rejected.get(key)
        place = source_of(task.record)
        prepared = task.prepared
        is_broken = isinstance(prepared, NotSent) and prepared.state is DeliveryState.REJECTED
        is_replay = row is not None and row.state is DeliveryState.REJECTED and row.source == place
        if fresh is None and not is_replay and not (row is None and is_broken):
            continue
        if isinstance(prepared, NotSent) and is_broken:
            reason, stage, field = prepared.reason, "validate", prepared.field
        else:
            found = fresh or row
            reason, stage, field = (found.reason if found else None) or "refused", "send", None
        attempts = max(1, row.attempts if row else 1)
        letters[place] = DeadLetter(task.record, stage, field, reason, attempts)
    return list(letters.values())


def counted(
    tasks: Mapping[DeliveryKey, Task],
    known: Mapping[DeliveryKey, Delivery],
    settled: Sequence[DeliveryOutcome],
) -> dict[str, int]:
    """Count what became of the events of a turn, by state; copies of an event are duplicates."""
    counts: Counter[str] = Counter(outcome.state.value for outcome in settled)
    for key, task in tasks.items():
        row = known.get(key)
        if row is not None and row.state in FINAL:
            # The same record again is a replay; another record with the same event id is a duplicate.
            counts["duplicate"] += row.source != source_of(task.record)
        elif row is None and isinstance(task.prepared, NotSent):
            counts[task.prepared.state.value] += 1
    return counts


def gone(row: Delivery) -> DeliveryOutcome:
    """Settle a delivery after Kafka has removed its record."""
    state = DeliveryState.UNCERTAIN if row.in_flight else DeliveryState.EXPIRED
    return DeliveryOutcome(row.key, state, "Kafka does not hold the event any more")


def as_before(outcome: DeliveryOutcome, row: Delivery) -> DeliveryOutcome:
    """Return the outcome that leaves a delivery as it was; a doubt that came up stays."""
    if row.state is DeliveryState.PENDING:
        return replace(outcome, in_flight=outcome.in_flight or row.in_flight)
    doubt = row.in_flight or (row.state is DeliveryState.HELD and outcome.in_flight)
    return replace(outcome, state=row.state, reason=row.reason, in_flight=doubt, event_name=row.event_name)
