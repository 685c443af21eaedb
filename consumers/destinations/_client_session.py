"""The private core of the two typed clients: conversions in, receipts out.

Contract: every conversion is prepared, batched and sent as the forwarder does it, and comes back as one `Receipt`.
Invariant: an event that breaks a rule of the schema raises before anything of its call is sent.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from attributary.consumers.destinations.attempts import SenderOptions
from attributary.consumers.destinations.destination import Moment, NotSent
from attributary.consumers.destinations.memory_ledger import MemoryLedger
from attributary.consumers.destinations.prepare import prepare
from attributary.consumers.destinations.sender import BatchSender, Shipment
from attributary.consumers.destinations.transport import HttpTransport
from attributary.consumers.store.deliveries.delivery import DeliveryKey, DeliveryState, NewDelivery, Source
from attributary.producers.errors import InvalidRecord
from attributary.producers.records import Conversion, Item, UserData, new_event_id
from attributary.schemas.codec import Codec
from attributary.schemas.rules import check_conversion

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from attributary.consumers.destinations.destination import Account, Destination, PreparedEvent
    from attributary.consumers.destinations.transport import Clock, Transport
    from attributary.producers.times import Instant

TENANT = "client"
_NOWHERE = Source("", 0, 0)
# A client has few events, and its caller sees every rejection: only many without a delivery are doubted.
_CREDIBLE_REJECTIONS = 19


class EventFields(TypedDict, total=False):
    """What an event may carry; names and meanings as in schemas/conversion.avsc.

    `occurred_at` is now, `event_id` a new one, unless given. `user_data` takes the plain or hashed fields of UserData;
    plain ones are hashed before they leave the process.
    """

    occurred_at: Instant
    event_id: str
    conversion_id: str
    user_id: str
    anonymous_id: str
    order_id: str
    items: Sequence[Item]
    properties: Mapping[str, str]
    user_data: Mapping[str, Any]
    action_source: str
    event_source_url: str
    referrer: str
    client_ip_address: str
    client_user_agent: str
    click_ids: Mapping[str, str]
    ga_client_id: str
    ga_app_instance_id: str
    ga_session_id: str
    engagement_time_msec: int
    consent: Mapping[str, bool]
    opt_out: bool
    data_processing_options: Sequence[str]
    data_processing_country: int
    data_processing_state: int


class Receipt(NamedTuple):
    """What became of one event.

    Attributes:
        event_id: its id.
        state: sent, skipped, expired, rejected, uncertain, or pending when the destination could not be reached.
        reason: why it was not sent, or what was left out of it.
        response_code: HTTP status and the destination's codes.
        trace_id: the destination's id of the answer.
    """

    event_id: str
    state: DeliveryState
    reason: str | None = None
    response_code: str | None = None
    trace_id: str | None = None

    @property
    def is_sent(self) -> bool:
        """Tell whether the destination took the event."""
        return self.state is DeliveryState.SENT


class ClientSession:
    """Takes conversions, gives receipts; one account of one destination.

    Args:
        destination: its rules.
        account: where the events go.
        transport: connections; None opens its own.
        clock: where time comes from.
    """

    def __init__(self, destination: Destination, account: Account, transport: Transport | None, clock: Clock) -> None:
        self._destination = destination
        self._account = account
        self._clock = clock
        self._ledger = MemoryLedger()
        self._lock = threading.Lock()
        self._codec = Codec()
        self.transport = transport or HttpTransport()
        options = SenderOptions(budget=30.0, unproven=_CREDIBLE_REJECTIONS)
        self._sender = BatchSender(destination, self.transport, self._ledger, options, clock)

    def close(self) -> None:
        """Close the connections."""
        self._sender.close()

    def now(self) -> int:
        """Give the time of day in microseconds."""
        return self._clock.now_micros()

    def conversion(self, conversion_type: str, fields: EventFields, **more: Any) -> Conversion:
        """Build a conversion; a person without any id of ours stands for itself alone."""
        values: dict[str, Any] = {"occurred_at": self.now(), "event_id": new_event_id(), **fields, **more}
        if not values.get("user_id") and not values.get("anonymous_id"):
            own = (values.get(name) for name in ("ga_client_id", "ga_app_instance_id", "event_id"))
            values["anonymous_id"] = next(filter(None, own))
        if values.get("user_data") is not None:
            values["user_data"] = UserData(**values["user_data"])
        if "value" in values:
            return Conversion.purchase(tenant_id=TENANT, **values)
        return Conversion(conversion_type=conversion_type, tenant_id=TENANT, **values)

    def send(self, conversions: Iterable[Conversion]) -> list[Receipt]:
        """Send conversions.

        Raises:
            InvalidRecord: one breaks a rule of the schema; nothing was sent.
        """
        receipts: dict[str, Receipt] = {}
        events: list[PreparedEvent] = []
        for conversion in conversions:
            prepared = self._prepare(conversion)
            if isinstance(prepared, NotSent):
                receipts[conversion.event_id] = Receipt(conversion.event_id, prepared.state, prepared.reason)
            else:
                events.append(prepared)
        return list((receipts | self.deliver(events)).values())

    def _prepare(self, conversion: Conversion) -> PreparedEvent | NotSent:
        record = conversion.to_record()
        now = self.now()
        if broken := check_conversion(record, now_micros=now):
            raise InvalidRecord("conversion", broken.field, broken.rule, conversion.event_id)
        complete = self._codec.decode("conversion", self._codec.encode("conversion", record))
        return prepare(self._destination, complete, self._account, Moment(now, now), unknown="send")

    def deliver(self, events: Sequence[PreparedEvent]) -> dict[str, Receipt]:
        """Send events that are built already; receipts by event id."""
        keys = {e.event_id: DeliveryKey(self._account.tenant_id, self._account.ledger_name, e.event_id) for e in events}
        with self._lock:  # the ledger in memory holds one call's events at a time
            self._ledger.rows.clear()
            self._ledger.claim(
                [NewDelivery(keys[e.event_id], DeliveryState.PENDING, None, e.occurred_at, _NOWHERE) for e in events]
            )
            settled = self._sender.deliver([Shipment(self._account, events)])
        return {
            s.key.event_id: Receipt(s.key.event_id, s.state, s.reason, s.response_code, s.trace_id) for s in settled
        }
