"""What the delivery ledger knows about one event on its way to one destination.

Invariant: no field holds personal data; `source` says where in Kafka the event can be read again, so the ledger never
needs its content. `Ledger` is the contract that `ledger.PostgresLedger` and the in-memory ledger of the forwarder both
keep; one set of tests runs on both.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


class DeliveryState(enum.StrEnum):
    """How far a delivery has come. `PENDING` and `HELD` wait, the others are final; `forward retry` tries one again."""

    PENDING = "pending"
    HELD = "held"  # the destination does not take the event name (rule, tag, action, goal) of its type
    SENT = "sent"
    SKIPPED = "skipped"
    EXPIRED = "expired"
    REJECTED = "rejected"
    UNCERTAIN = "uncertain"


class DeliveryKey(NamedTuple):
    """One event on its way to one destination; `destination` names the account too when a tenant has several."""

    tenant_id: str
    destination: str
    event_id: str


class Queue(NamedTuple):
    """All deliveries of one tenant to one account; `destination` as in `DeliveryKey`."""

    tenant_id: str
    destination: str


class Source(NamedTuple):
    """Coordinates of the event in Kafka."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """A delivery as it is first written down.

    Attributes:
        key: which event goes where.
        state: pending, or final at once (skipped, expired, rejected).
        reason: why it is final, or a remark; never a value of the event.
        occurred_at: event time, microseconds since 1970-01-01 UTC.
        source: where the event lies.
        match_keys: names of the match keys that the event carries.
    """

    key: DeliveryKey
    state: DeliveryState
    reason: str | None
    occurred_at: int
    source: Source
    match_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Delivery:
    """A row of the ledger.

    Attributes:
        in_flight: True from just before a request until its answer is known; after a crash it means "perhaps sent".
        attempts: how many times the event was handed to a request that was not a mere continuation of another.
        first_sent_at: when it was first handed over and perhaps taken, microseconds; None when it surely was not.
        request_hash: SHA-256 of the last request's body, to compare with `forward --dry-run`.
        response_code: HTTP status and the destination's own code, for example 400/100/2804003.
        trace_id: the destination's own id of the answer (Meta: fbtrace_id).
        event_name: of a held one: the name at the destination that it waits for; else None.
    """

    key: DeliveryKey
    state: DeliveryState
    reason: str | None
    occurred_at: int
    source: Source
    match_keys: tuple[str, ...] = ()
    in_flight: bool = False
    attempts: int = 0
    first_sent_at: int | None = None
    request_hash: str | None = None
    response_code: str | None = None
    trace_id: str | None = None
    event_name: str | None = None


@dataclass(frozen=True, slots=True)
class DeliveryOutcome:
    """What became of a delivery in an attempt; `PENDING` means that it has to be tried again.

    Attributes:
        event_name: of a held one: the name at the destination that it waits for; else None.
    """

    key: DeliveryKey
    state: DeliveryState
    reason: str | None = None
    in_flight: bool = False
    request_hash: str | None = None
    response_code: str | None = None
    trace_id: str | None = None
    event_name: str | None = None


class StoppedName(NamedTuple):
    """An event name that an account's destination does not know, or not allow: events with it are held.

    Attributes:
        tenant_id: the owner of the events.
        destination: as in `DeliveryKey`.
        event_name: the conversion rule, event tag, conversion action or goal.
        reason: for people.
        response_code: HTTP status and the destination's codes.
        stopped_at: when it was first refused, microseconds since 1970-01-01 UTC.
        retry_at: when one event tries it again, microseconds.
        refusals: how often it was refused, one event or many at a time.
    """

    tenant_id: str
    destination: str
    event_name: str
    reason: str
    response_code: str
    stopped_at: int
    retry_at: int
    refusals: int = 1

    @property
    def queue(self) -> Queue:
        """Its tenant and account."""
        return Queue(self.tenant_id, self.destination)


class HeldEvents(NamedTuple):
    """The deliveries of a queue that are held for one event name; the time of the oldest event in microseconds."""

    queue: Queue
    event_name: str
    deliveries: int
    oldest_at: int


class Verdict(enum.StrEnum):
    """What a destination says later of a request that it has received. All but `PENDING` are final."""

    PENDING = "pending"
    ACCEPTED = "accepted"  # all events
    PARTLY = "partly"
    REFUSED = "refused"  # all events
    UNKNOWN = "unknown"  # it never told


class ReceivedRequest(NamedTuple):
    """A request that a destination has received and judges later; times are microseconds since 1970-01-01 UTC.

    Attributes:
        tenant_id: the owner of its events.
        destination: as in `DeliveryKey`.
        request_id: the destination's; the `trace_id` of the deliveries in it.
        events: how many it has.
        received_at: when the destination received it.
        ask_at: when it is asked next.
        verdict: what it said.
        asked: how often it was asked.
        refused: how many events it refused, by its reason.
        warned: how many it warns of, by its reason.
    """

    tenant_id: str
    destination: str
    request_id: str
    events: int
    received_at: int
    ask_at: int
    verdict: Verdict = Verdict.PENDING
    asked: int = 0
    refused: Mapping[str, int] = {}
    warned: Mapping[str, int] = {}


Positions = Mapping[tuple[str, int], int]
"""The next offset to be read of each (topic, partition)."""


class Count(NamedTuple):
    """How many deliveries of a destination are in a state, for one reason; times are event times in microseconds."""

    destination: str
    state: DeliveryState
    reason: str | None
    deliveries: int
    oldest_at: int


class Waiting(NamedTuple):
    """The pending deliveries of a queue: how many, the time of the oldest event in microseconds, one of the reasons."""

    queue: Queue
    deliveries: int
    oldest_at: int
    reason: str | None


class Ledger(Protocol):
    """One row per (tenant, destination, event). Every function is bulk and commits before it returns."""

    def claim(self, entries: Sequence[NewDelivery]) -> Mapping[DeliveryKey, Delivery]:
        """Write the entries that are new and give the rows that were there already, as they stand."""
        ...

    def begin(self, keys: Sequence[DeliveryKey], *, now_micros: int) -> None:
        """Note that the events are about to be handed to the destination: in flight, one attempt more."""
        ...

    def settle(
        self,
        outcomes: Sequence[DeliveryOutcome],
        received: Sequence[ReceivedRequest] = (),
        stopped: Sequence[StoppedName] = (),
    ) -> None:
        """Note what became of an attempt; a row that is sent stays sent.

        Args:
            outcomes: of the deliveries.
            received: requests that the destination judges later; noted together with the outcomes.
            stopped: event names that the destination refused, and that so are one refusal more; noted as well.
        """
        ...

    def stopped_names(self, destination: str) -> Sequence[StoppedName]:
        """Give the event names that a destination, with all its accounts, does not take; sorted."""
        ...

    def resume_names(self, names: Sequence[StoppedName]) -> None:
        """Note that event names are taken again, or that nothing is sent to them any more."""
        ...

    def held(self, destination: str, positions: Positions) -> Sequence[HeldEvents]:
        """Count the held deliveries of a destination that Kafka will not bring again, by queue and event name."""
        ...

    def release(self, queue: Queue, event_name: str, positions: Positions, *, limit: int | None = None) -> int:
        """Make held deliveries that Kafka will not bring again pending, the newest first; returns how many.

        Args:
            queue: of which tenant and account.
            event_name: for which they wait.
            positions: as in `left_behind`.
            limit: so many at most; None: all.
        """
        ...

    def due_requests(self, destination: str, now_micros: int, *, limit: int) -> Sequence[ReceivedRequest]:
        """Give requests without a verdict that are due to be asked about, longest waiting first."""
        ...

    def judge_requests(self, requests: Sequence[ReceivedRequest], *, now_micros: int) -> None:
        """Note what the destination says of requests; a verdict that is final stays so."""
        ...

    def find(self, event_id: str, *, tenant_id: str | None = None) -> Sequence[Delivery]:
        """Give the deliveries of an event, sorted by key."""
        ...

    def open_deliveries(self, destination: str, state: DeliveryState, *, limit: int) -> Sequence[Delivery]:
        """Give deliveries in a state, oldest event first."""
        ...

    def left_behind(self, destination: str, positions: Positions) -> Sequence[Queue]:
        """Give the queues of a destination with pending deliveries that Kafka will not bring again.

        Args:
            destination: with all its accounts.
            positions: the next offset to be read of each partition; deliveries of other partitions do not count.
        """
        ...

    def queued(self, queue: Queue, positions: Positions, *, limit: int, newest: bool = False) -> Sequence[Delivery]:
        """Give the pending deliveries of one queue that Kafka will not bring again: the oldest events, or the newest.

        Either way the oldest event comes first.
        """
        ...

    def counts(self) -> Sequence[Count]:
        """Count deliveries by destination, state and reason."""
        ...


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)


def time_of(micros: int) -> dt.datetime:
    """Return a time of the ledger's tables from microseconds since 1970-01-01 UTC."""
    return _EPOCH + micros * _MICROSECOND


def micros_of(time: dt.datetime) -> int:
    """Return microseconds since 1970-01-01 UTC from a time of the ledger's tables."""
    return (time - _EPOCH) // _MICROSECOND
