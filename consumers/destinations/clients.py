"""Typed clients for Meta and GA4, usable on their own: no Kafka, no Postgres.

Contract: a client sends through the same rules, batches, retries and bisection as the forwarder, without a ledger that
outlives it. Every event comes back as a `Receipt`: sent, or why not. A wrong argument raises `InvalidRecord` before
anything is sent; nothing else is raised for what the network or the destination does. Clients are thread-safe and keep
their connections; close them, or use them in a `with`.

Consent that was refused is respected; consent that the caller does not mention is the caller's affair.

    with MetaConversionsClient("123456", token) as meta:
        meta.send_purchase(event_id="order-1", value=Decimal("19.99"), currency="EUR",
                           user_id="u1", user_data={"email": "jane@example.com"}, order_id="order-1")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, Unpack

from attributary.consumers.destinations._client_session import TENANT, ClientSession, EventFields, Receipt
from attributary.consumers.destinations.destination import Account, PreparedEvent
from attributary.consumers.destinations.ga4 import rules as ga4_rules
from attributary.consumers.destinations.ga4.destination import DEFAULT_BASE_URL as GA4_URL
from attributary.consumers.destinations.ga4.destination import EU_BASE_URL, Ga4Destination, Ga4Options
from attributary.consumers.destinations.meta.destination import MetaDestination, MetaOptions
from attributary.consumers.destinations.transport import SystemClock
from attributary.consumers.destinations.wire_format import to_json
from attributary.consumers.store.deliveries.delivery import DeliveryState
from attributary.producers.records import new_event_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from decimal import Decimal
    from types import TracebackType

    from attributary.consumers.destinations.transport import Transport
    from attributary.producers.records import Conversion

__all__ = ["EventFields", "GA4Client", "MetaConversionsClient", "Receipt"]


class MetaConversionsClient:
    """Meta's Conversions API.

    Args:
        pixel_id: pixel or data set.
        access_token: of the Conversions API.
        options: how to speak to Meta.
        test_event_code: shows events under Test Events as well.
        app_secret: signs every request.
        transport: connections; None opens its own.
    """

    def __init__(
        self,
        pixel_id: str,
        access_token: str,
        options: MetaOptions | None = None,
        *,
        test_event_code: str | None = None,
        app_secret: str | None = None,
        transport: Transport | None = None,
    ) -> None:
        given = {"test_event_code": test_event_code, "app_secret": app_secret}
        more = {name: value for name, value in given.items() if value}
        account = Account(TENANT, "meta", pixel_id, access_token, more)
        self._session = ClientSession(MetaDestination(options), account, transport, SystemClock())

    def send(self, conversions: Iterable[Conversion]) -> list[Receipt]:
        """Send any conversions, up to 1,000 a request; corrections are skipped, Meta has none."""
        return self._session.send(conversions)

    def send_purchase(self, *, value: Decimal | int, currency: str, **fields: Unpack[EventFields]) -> Receipt:
        """Send a Purchase of `value` units of `currency`."""
        return self._one(self._session.conversion("purchase", fields, value=value, currency=currency))

    def send_lead(self, **fields: Unpack[EventFields]) -> Receipt:
        """Send a Lead."""
        return self._one(self._session.conversion("lead", fields))

    def send_add_to_cart(self, **fields: Unpack[EventFields]) -> Receipt:
        """Send an AddToCart."""
        return self._one(self._session.conversion("add_to_cart", fields))

    def send_page_view(self, **fields: Unpack[EventFields]) -> Receipt:
        """Send a PageView."""
        return self._one(self._session.conversion("page_view", fields))

    def send_event(self, conversion_type: str, **fields: Unpack[EventFields]) -> Receipt:
        """Send any other event, under Meta's name for the type or the type itself."""
        return self._one(self._session.conversion(conversion_type, fields))

    def _one(self, conversion: Conversion) -> Receipt:
        return self._session.send([conversion])[0]

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class GA4Client:
    """GA4's Measurement Protocol.

    Args:
        measurement_id: of the web stream, G-...; None for an app stream.
        api_secret: of the stream.
        firebase_app_id: of the app stream.
        eu: use Google's endpoint in the EU.
        base_url: for a fake or a proxy; goes before `eu`.
        transport: connections; None opens its own.
    """

    def __init__(
        self,
        measurement_id: str | None,
        api_secret: str,
        *,
        firebase_app_id: str | None = None,
        eu: bool = False,
        base_url: str | None = None,
        transport: Transport | None = None,
    ) -> None:
        streams = {"measurement_id": measurement_id, "firebase_app_id": firebase_app_id}
        more = {name: value for name, value in streams.items() if value}
        if not more:
            raise ValueError("measurement_id or firebase_app_id must be given")
        self._app = measurement_id is None
        self._account = Account(TENANT, "ga4", next(iter(more.values())), api_secret, more)
        options = Ga4Options(base_url or (EU_BASE_URL if eu else GA4_URL), user_data_without_answer=True)
        self._destination = Ga4Destination(options)
        self._session = ClientSession(self._destination, self._account, transport, SystemClock())

    def send(self, conversions: Iterable[Conversion]) -> list[Receipt]:
        """Send any conversions and refunds, grouped by client, up to 25 a request."""
        return self._session.send(conversions)

    def send_purchase(self, *, value: Decimal | int, currency: str, **fields: Unpack[EventFields]) -> Receipt:
        """Send a purchase of `value` units of `currency`; its transaction id is the order id, else the event id."""
        return self._session.send([self._session.conversion("purchase", fields, value=value, currency=currency)])[0]

    def send_lead(self, **fields: Unpack[EventFields]) -> Receipt:
        """Send a generate_lead."""
        return self._session.send([self._session.conversion("lead", fields)])[0]

    def send_add_to_cart(self, **fields: Unpack[EventFields]) -> Receipt:
        """Send an add_to_cart."""
        return self._session.send([self._session.conversion("add_to_cart", fields)])[0]

    def send_page_view(self, **fields: Unpack[EventFields]) -> Receipt:
        """Send a page_view."""
        return self._session.send([self._session.conversion("page_view", fields)])[0]

    def send_event(
        self, name: str, params: Mapping[str, Any], *, timestamp_micros: int | None = None, **around: Any
    ) -> Receipt:
        """Send an event of your own making, exactly as given.

        Args:
            name: of the event.
            params: its parameters.
            timestamp_micros: when it happened; now unless given.
            around: what stands around the event: client_id or app_instance_id, user_id, user_properties, consent, ...

        Returns:
            A rejected receipt when GA4 would drop the event; nothing is sent then.
        """
        at = self._session.now() if timestamp_micros is None else timestamp_micros
        event = {"name": name, "timestamp_micros": at, "params": dict(params)}
        identifier = new_event_id()
        if problems := self.validate_event(name, params, timestamp_micros=at, **around):
            path, code, rule = problems[0]
            return Receipt(identifier, DeliveryState.REJECTED, f"{code}: {path}: {rule}")
        safe = name == "purchase" and not self._app
        # The stream's own id stands first: the destination tells web from app by it.
        first = "app_instance_id" if self._app else "client_id"
        envelope = {first: around[first]} | around
        prepared = PreparedEvent(identifier, at, to_json(event), to_json(envelope), resend_safe=safe)
        return self._session.deliver([prepared])[identifier]

    def validate_event(
        self, name: str, params: Mapping[str, Any], *, timestamp_micros: int | None = None, **around: Any
    ) -> list[ga4_rules.Problem]:
        """Give every rule of GA4 that an event breaks; an empty list when GA4 would take it. Nothing is sent."""
        event: dict[str, Any] = {"name": name, "params": dict(params)}
        if timestamp_micros is not None:
            event["timestamp_micros"] = timestamp_micros
        return ga4_rules.check_event(event) + ga4_rules.check_envelope(around, app=self._app)

    def ask_google(self, name: str, params: Mapping[str, Any], **around: Any) -> list[str]:
        """Ask Google's validation endpoint about an event, which records nothing; gives its validation codes."""
        event = PreparedEvent("", 0, to_json({"name": name, "params": dict(params)}), to_json(around))
        request = self._destination.probe(self._account, event)
        return [] if request is None else self._destination.findings(self._session.transport.send(request))

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
