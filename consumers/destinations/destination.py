"""The one destination interface: validate -> consent -> build -> batch -> send -> classify the answer.

A destination is a set of pure functions: it does no I/O, keeps no state and reads no clock. The steps that are the
same everywhere live elsewhere: consent in `prepare`, sending, retrying and bisecting in
`sender`, the ledger and Kafka in `stage`. So a new destination is one file plus its fake.

Invariant: no text in `NotSent`, `DeliveryResponse` or a `repr` holds a value of an event or a secret.
"""

from __future__ import annotations

import datetime as dt
import enum
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from attributary.consumers.store.deliveries.delivery import DeliveryState

_MAX_REMARKS = 30

Conversion = dict[str, Any]
"""A conversion as the codec decodes it: every field of schemas/conversion.avsc."""


@dataclass(frozen=True, slots=True)
class Account:
    """One account of one tenant at a destination.

    Attributes:
        tenant_id: the owner.
        ledger_name: the destination in the ledger; with the account when the tenant has several.
        account_id: pixel id, measurement id or app id; not secret.
        secret: token or API secret; never shown.
        options: further settings of the destination (test event code, app secret, ...); never shown.
        event_names: the account's own event names by conversion type.
    """

    tenant_id: str
    ledger_name: str
    account_id: str
    secret: str = field(repr=False)
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    event_names: Mapping[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Tell this account and secret from any other without showing them: 12 hexadecimal digits."""
        return hashlib.sha256(f"{self.account_id}\0{self.secret}".encode()).hexdigest()[:12]

    @property
    def secret_fingerprint(self) -> str:
        """Tell this secret from any other without showing it: 12 hexadecimal digits."""
        return hashlib.sha256(self.secret.encode()).hexdigest()[:12]


class Moment(NamedTuple):
    """The times against which an event is prepared, both microseconds since 1970-01-01 UTC."""

    now: int
    received_at: int


@dataclass(frozen=True, slots=True)
class NotSent:
    """An event that will not be sent: skipped, expired or rejected.

    Attributes:
        state: what the ledger notes.
        reason: the rule, never the value.
        field: the field that broke the rule, if one did.
    """

    state: DeliveryState
    reason: str
    field: str | None = None


@dataclass(frozen=True, slots=True)
class PreparedEvent:
    """An event that is ready to be batched.

    Attributes:
        event_id: its id.
        occurred_at: event time in microseconds; batches are sent oldest first.
        body: the event as the destination wants it, encoded JSON.
        envelope: what stands around the events of a request, encoded JSON; only events with equal envelopes share one.
        resend_safe: True when the destination removes a second copy by itself.
        match_keys: names of the match keys in the event.
        remark: what was left out on the way, for the ledger; None when nothing was.
        name: of the event at the destination: an event name, or the id of a rule, tag, action or goal. A name that the
            destination refuses (`DeliveryResponse.unknown_names`) holds the events with it, and no others.
        order_key: ties a correction to what it corrects; empty: nothing is ever corrected.
        is_correction: True for a correction: it goes after the other event of its key.
    """

    event_id: str
    occurred_at: int
    body: bytes
    envelope: bytes = b"{}"
    resend_safe: bool = True
    match_keys: tuple[str, ...] = ()
    remark: str | None = None
    name: str = ""
    order_key: str = ""
    is_correction: bool = False


def joined_remarks(remarks: Iterable[str]) -> str | None:
    """Return remarks as one text for the ledger, each once and 30 at most; None without any."""
    once = list(dict.fromkeys(filter(None, remarks)))
    more = [f"and {len(once) - _MAX_REMARKS} more"] if len(once) > _MAX_REMARKS else []
    return "; ".join(once[:_MAX_REMARKS] + more) or None


class Api(NamedTuple):
    """The API that a destination speaks.

    Attributes:
        name: as its documentation calls it.
        version: as it stands in the address; empty where there are none.
        ends_not_before: the day until which the version is promised; None: nothing is promised.
        max_age: how old an event may be, for people.
    """

    name: str
    version: str
    ends_not_before: dt.date | None
    max_age: str


class RequestLimits(NamedTuple):
    """What fits in one request: number of events and bytes of its body."""

    events: int
    body_bytes: int


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One HTTP request. URL and headers may hold the secret; the body does only on its way to a token endpoint."""

    url: str = field(repr=False)
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    method: Literal["GET", "POST"] = "POST"

    @property
    def digest(self) -> str:
        """SHA-256 of the body."""
        return hashlib.sha256(self.body).hexdigest()


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """What came back: status 0 when nothing did, and then `fault` names how it failed.

    Attributes:
        status: HTTP status, 0 without an answer.
        body: as received, cut at a sane length.
        headers: lower-case names.
        fault: class of the transport's error.
        perhaps_sent: True when the destination may have taken the request before the fault.
        is_complete: False when the body broke off, did not end in time or is too long.
    """

    status: int
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    fault: str | None = None
    perhaps_sent: bool = False
    is_complete: bool = True


class ResponseClass(enum.Enum):
    """What an answer means for the events of its request."""

    DELIVERED = "delivered"
    RETRY = "retry"  # not taken; the same request may succeed later
    AMBIGUOUS = "ambiguous"  # perhaps taken
    THROTTLED = "throttled"  # not taken; nothing more should be sent on this account for a while
    ACCOUNT_STOPPED = "channel_dead"  # not taken, and nothing will be until a person acts; the events are kept
    REJECTED = "rejected"  # at least one event of the request is wrong for good
    NAME_STOPPED = "name_stopped"  # not taken: an event name (rule, tag, action, goal) does not exist or is not allowed


@dataclass(frozen=True, slots=True)
class DeliveryResponse:
    """The classified answer.

    Attributes:
        response_class: what to do.
        code: HTTP status and the destination's codes, joined by "/".
        reason: for people; never quotes the destination's text, which may quote the event.
        wait_seconds: how long the destination asks to wait before the next request; 0: nothing asked.
        trace_id: the destination's id of the answer.
        usage_percent: the highest usage figure in the headers; None without.
        refused: positions of the events that the destination names as wrong. Beside DELIVERED all others were taken,
            beside REJECTED none was.
        suspects: positions that a refusal hints at; they are tried alone first.
        unknown_names: positions of events that were not taken because of their `PreparedEvent.name`, which the
            destination does not know or not allow, with the reason for people: the name stops, not the account. Beside
            DELIVERED all others were taken, beside NAME_STOPPED none was; there empty means that it is not said which.
    """

    response_class: ResponseClass
    code: str
    reason: str = ""
    wait_seconds: float = 0.0
    trace_id: str | None = None
    usage_percent: float | None = None
    refused: tuple[int, ...] = ()
    suspects: tuple[int, ...] = ()
    unknown_names: Mapping[int, str] = field(default_factory=dict)


@runtime_checkable
class SignsRequests(Protocol):
    """A destination that wants every attempt signed anew, with its time and a number used once."""

    def sign(self, request: HttpRequest, account: Account, now_seconds: int, nonce: str) -> HttpRequest:
        """Return the request with its signature; pure.

        Args:
            request: as `request` built it.
            account: its secrets.
            now_seconds: seconds since 1970-01-01 UTC.
            nonce: letters and digits that no other attempt has.
        """
        ...


@runtime_checkable
class WarnsByHeader(Protocol):
    """A destination that says in a header of an answer that something of its API will change or end."""

    warning_header: str
    """Its name in lower case. What it says is free text, so it is never kept: that it is there is logged."""


class RequestStatus(NamedTuple):
    """What became of a request that was received.

    Attributes:
        is_final: the destination has looked at all of its events.
        is_good: it took all of them.
        is_failed: it took none of them.
        refused: how many events were refused, by reason.
        warned: how many events it warns of, by reason.
    """

    is_final: bool
    is_good: bool
    is_failed: bool
    refused: Mapping[str, int]
    warned: Mapping[str, int]


@runtime_checkable
class TellsLater(Protocol):
    """A destination that receives a request and judges its events later; the `trace_id` of its answer names it."""

    verdict_after_seconds: int
    """So long after a request its verdict may be there."""

    def status_request(self, account: Account, request_id: str) -> HttpRequest:
        """Build the question what became of a request."""
        ...

    def read_status(self, response: HttpResponse) -> RequestStatus | None:
        """Say what became of a request; None when the answer does not tell."""
        ...


class Destination(Protocol):
    """What a destination knows. All functions are pure and thread-safe."""

    name: str
    limits: RequestLimits
    consent_purposes: tuple[str, ...]
    unused_fields: tuple[str, ...]
    """Fields of a conversion that the destination has nothing for."""
    needed_properties: tuple[str, ...]
    """Free properties that become fields of the destination's own; no list keeps them back."""
    probe_needs: str
    """The setting without which an account has no probe, for people; empty: no setting gives it one."""
    probe_note: str
    """What a good answer to a probe leaves behind or does not show, for people; empty: nothing."""

    @property
    def api(self) -> Api:
        """The API that it speaks."""
        ...

    def validate(self, conversion: Conversion, moment: Moment) -> NotSent | None:
        """Refuse what can never be sent: kinds without a counterpart, too old, wrong values."""
        ...

    def build(self, conversion: Conversion, account: Account, moment: Moment) -> PreparedEvent | NotSent:
        """Build the event, and refuse it when it would spoil its batch."""
        ...

    def redelivery_ends(self, first_sent_at: int) -> int | None:
        """Give the time after which an event that was perhaps sent must not be sent again; None: no limit."""
        ...

    def request(self, account: Account, batch: Sequence[PreparedEvent]) -> HttpRequest:
        """Build the request for events with one envelope."""
        ...

    def classify(self, response: HttpResponse, events: int) -> DeliveryResponse:
        """Say what the answer to a request of so many events means."""
        ...

    def probe(self, account: Account, event: PreparedEvent) -> HttpRequest | None:
        """Give a request by which the destination checks an event without taking it for real; None: it cannot."""
        ...

    def read_probe(self, response: HttpResponse) -> DeliveryResponse:
        """Say what the answer to a probe means; delivered: the destination would take the event."""
        ...

    def findings(self, response: HttpResponse) -> list[str]:
        """Read the answer to a probe: rule codes, empty when all is well."""
        ...
