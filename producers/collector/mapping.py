"""From the JSON of a record to the fields of its schema.

Contract: ``touchpoint``, ``conversion`` and ``identity_link`` return a ``Submission``, raise ``Rejected``, or raise
``NoEvent`` for a landing inside a visit. They read no clock: the time of the request comes with the ``Visit`` and only
judges, it never enters a record.

Invariant: the same bytes with the same key give the same event id and the same record. A record without an id gets one
from its own bytes, so ``occurred_at`` must be there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from attributary.producers.collector.intake import Submission
from attributary.producers.collector.payloads import (
    NULL,
    ConversionBody,
    IdentityBody,
    RecordBody,
    Rejected,
    TouchpointBody,
    amount,
    read_conversion,
    read_identity,
    read_touchpoint,
)
from attributary.producers.collector.visits import Visit, minted_id
from attributary.producers.landing import UTM_FIELDS, click_ids_at, is_robot, parse_landing
from attributary.producers.money import exact_micros, to_micros
from attributary.producers.times import to_micros as instant_micros
from attributary.schemas.limits import MICROS_PER_DAY
from attributary.schemas.schema_catalog import defaults

SKEW_MICROS = 5 * 60_000_000
"""A clock that differs by less is left alone: the difference also contains the network's delay."""
_MINUTE = 60_000_000
_ID_BYTES = 16
_NO_CURRENCY = "XXX"
_TOUCHPOINT_PLAIN = (
    "campaign_id", "campaign_name", "ad_set_id", "ad_set_name", "ad_id", "ad_name", *UTM_FIELDS, "device",
    "engagement_seconds",
)  # fmt: skip
_CONVERSION_PLAIN = (
    "conversion_id", "order_id", "event_source_url", "referrer", "ga_client_id", "ga_app_instance_id", "ga_session_id",
    "engagement_time_msec", "data_processing_country", "data_processing_state",
)  # fmt: skip


class NoEvent(Exception):  # no error: the record is right, and says that a visit goes on
    """A landing from an own page, or from a payment or sign-in page: no touchpoint.

    Args:
        event_id: the id that it would have had.
    """

    def __init__(self, event_id: str) -> None:
        super().__init__(event_id)
        self.event_id = event_id


class RecordMapper:
    """Maps the records of one request.

    Attributes:
        browser_id: the anonymous id of the cookie, if a record took it, or the one that was made for this request.
        may_store: whether the records of a page agree to ``ad_storage``; one that refuses decides; None: none says so.

    Args:
        visit: what the request says beside its records.
        skew_micros: what is added to the times of a page, whole minutes.
        idempotency_key: the event id of the request's only record, when its header names one.
    """

    def __init__(self, visit: Visit, *, skew_micros: int = 0, idempotency_key: str | None = None) -> None:
        self._visit = visit
        self._skew = 0 if visit.key.is_secret else skew_micros
        self._idempotency_key = idempotency_key
        self.browser_id: str | None = None
        self.may_store: bool | None = None

    def touchpoint(self, raw: bytes) -> Submission:
        """Return the touchpoint of a record.

        Raises:
            Rejected: it breaks a rule.
            NoEvent: it is a page view inside a visit.
        """
        return self.touchpoint_of(read_touchpoint(raw))

    def touchpoint_of(self, body: TouchpointBody) -> Submission:
        """Return the touchpoint of a body; raises as ``touchpoint``."""
        event_id = self._event_id(body, "touchpoint")
        occurred_at = self._occurred_at(body.occurred_at, "occurred_at", event_id)
        visit, secret = self._visit, self._visit.key.is_secret
        consent = visit.consent(body.consent)
        agent = body.user_agent if secret else visit.user_agent
        found = self._landing(body, event_id, occurred_at, agent)
        fields: dict[str, Any] = {
            **defaults("touchpoint"),
            **found,
            "event_id": event_id,
            "occurred_at": occurred_at,
            "user_id": body.user_id,
            "anonymous_id": self._anonymous_id(body, consent, event_id, occurred_at),
            "landing_url": body.landing_url,
            "referrer": body.referrer or None,
            "country": body.country if secret else visit.country,
            "properties": body.properties or {},
            "consent": consent,
        }
        if body.is_bot is not None or agent:
            fields["is_bot"] = bool(body.is_bot) or (bool(agent) and is_robot(str(agent)))
        for name in _TOUCHPOINT_PLAIN:
            if (given := getattr(body, name)) is not None:
                fields[name] = given
        return Submission("touchpoint", fields)

    def identity_link(self, raw: bytes) -> Submission:
        """Return the identity link of a record.

        Raises:
            Rejected: it breaks a rule.
        """
        body: IdentityBody = read_identity(raw)
        event_id = self._event_id(body, "identity_link")
        linked_at = self._occurred_at(
            body.occurred_at if body.linked_at is None else body.linked_at, "linked_at", event_id
        )
        consent = self._visit.consent(body.consent)
        fields = {
            **defaults("identity_link"),
            "event_id": event_id,
            "linked_at": linked_at,
            "user_id": body.user_id,
            "anonymous_id": self._anonymous_id(body, consent, event_id, linked_at),
            "source": body.source,
        }
        return Submission("identity_link", fields)

    def conversion(self, raw: bytes) -> Submission:
        """Return the conversion of a record.

        Raises:
            Rejected: it breaks a rule.
        """
        body: ConversionBody = read_conversion(raw)
        event_id = self._event_id(body, "conversion")
        occurred_at = self._occurred_at(body.occurred_at, "occurred_at", event_id)
        visit, secret = self._visit, self._visit.key.is_secret
        consent = visit.consent(body.consent)
        if body.conversion_type is None:
            raise Rejected("conversion_type", "must be set, for example purchase", event_id)
        currency = body.currency or _NO_CURRENCY
        properties = dict(body.properties or {})
        if not secret:
            self._check_browser(body, event_id)
            properties["trust"] = "browser"
            if visit.user_agent and is_robot(visit.user_agent):
                properties["is_bot"] = "true"
        fields: dict[str, Any] = {
            **defaults("conversion"),
            "event_id": event_id,
            "occurred_at": occurred_at,
            "kind": body.kind,
            "conversion_type": body.conversion_type,
            "user_id": body.user_id,
            "anonymous_id": self._anonymous_id(body, consent, event_id, occurred_at),
            "value_micros": _value_micros(body, currency, event_id),
            "currency": currency,
            "items": _items(body, event_id),
            "properties": properties,
            "user_data": None if body.user_data is None else msgspec.structs.asdict(body.user_data),
            "action_source": body.action_source,
            "client_ip_address": self._address(body, consent),
            "client_user_agent": (body.client_user_agent or body.user_agent) if secret else visit.user_agent,
            "click_ids": body.click_ids or {},
            "consent": consent,
            "opt_out": body.opt_out,
            "data_processing_options": body.data_processing_options or [],
        }
        for name in _CONVERSION_PLAIN:
            if (given := getattr(body, name)) is not None:
                fields[name] = given
        return Submission("conversion", fields)

    def _landing(self, body: TouchpointBody, event_id: str, occurred_at: int, agent: str | None) -> dict[str, Any]:
        """Return channel, platform, interaction, UTM parameters and click ids, read from the landing where missing."""
        click_ids = dict(body.click_ids or {})
        if body.landing_url is None:
            for name in ("channel", "platform"):
                if getattr(body, name) is None:
                    raise Rejected(name, "must be set, or landing_url", event_id)
            return {
                "channel": body.channel, "platform": body.platform, "interaction": body.interaction or "click",
                "click_ids": click_ids,
            }  # fmt: skip
        landing = parse_landing(body.landing_url, body.referrer, agent, self._visit.key.own_domains())
        if landing.is_internal and body.channel is None:
            raise NoEvent(event_id)
        return {
            **landing.utm,
            "campaign_id": landing.campaign_id,
            "is_bot": landing.is_bot,
            "channel": body.channel or landing.channel,
            "platform": body.platform or landing.platform,
            "interaction": body.interaction or landing.interaction,
            "click_ids": click_ids_at(landing, occurred_at, click_ids),
        }

    def _event_id(self, body: RecordBody, name: str) -> str:
        given = body.event_id
        if self._idempotency_key is not None:
            if given is not None and given != self._idempotency_key:
                raise Rejected("event_id", "must be that of the header Idempotency-Key", _shown(given))
            given = self._idempotency_key
        if given is not None:
            if not given.isprintable():
                raise Rejected("event_id", "must hold printable characters only")
            return given
        if isinstance(body, ConversionBody):
            if not body.order_id:
                raise Rejected("event_id, order_id", "one must be set, so that a repeated request counts once")
            if body.kind == "conversion":
                return f"order-{body.order_id}"
        content = f"{self._visit.key.tenant}|{name}|".encode() + _canonical(body)
        return "auto-" + hashlib.blake2b(content, digest_size=_ID_BYTES).hexdigest()

    def _occurred_at(self, given: str | int | None, field: str, event_id: str) -> int:
        if given is None:
            raise Rejected(field, "must be set: RFC 3339 with a zone, or microseconds since 1970", _shown(event_id))
        micros = read_instant(given, field, event_id)
        visit = self._visit
        if not visit.key.is_secret:
            micros += self._skew
            if micros < visit.now_micros - MICROS_PER_DAY:
                raise Rejected(field, "must not be older than 24 hours with a write key", _shown(event_id))
        return micros

    def _anonymous_id(
        self, body: RecordBody, consent: Mapping[str, bool] | None, event_id: str, occurred_at: int
    ) -> str | None:
        may_store = self._may_store(consent)
        if body.anonymous_id is not None or self._visit.key.is_secret or not may_store:
            return body.anonymous_id
        if self.browser_id is None:
            self.browser_id = self._visit.cookie_id or minted_id(self._visit.key, event_id, occurred_at)
        return self.browser_id

    def _may_store(self, consent: Mapping[str, bool] | None) -> bool:
        said = (consent or {}).get("ad_storage")
        if said is not None and not self._visit.key.is_secret:
            self.may_store = said and self.may_store is not False
        return bool(said)

    def _address(self, body: ConversionBody, consent: Mapping[str, bool] | None) -> str | None:
        said = consent or {}
        if said.get("ad_user_data") is False or said.get("ad_storage") is False:
            return None
        if self._visit.key.is_secret:
            return body.client_ip_address
        return self._visit.address if body.action_source == "website" else None

    def _check_browser(self, body: ConversionBody, event_id: str) -> None:
        """Refuse what only a server may say."""
        if body.kind != "conversion":
            raise Rejected("kind", "must be conversion with a write key; corrections need a secret key", event_id)
        if (body.value != NULL or body.value_micros) and not self._visit.key.browser_values:
            raise Rejected("value", "must not be named with this write key; use a secret key", event_id)
        for name in ("client_ip_address", "client_user_agent"):
            if getattr(body, name) is not None:
                raise Rejected(name, "must not be named with a write key", event_id)


def load_tables() -> None:
    """Load now what the first record of a process would wait 0.4 s for: channels, robots, rules of hashes."""
    landing = parse_landing("https://shop.example/?fbclid=IwAR0abcdef0123456789", "https://example.org/", "Mozilla/5.0")
    click_ids_at(landing, 0)


def read_instant(given: str | int, field: str, event_id: str | None = None) -> int:
    """Return microseconds since 1970.

    Raises:
        Rejected: it is no instant with a zone.
    """
    if isinstance(given, int):
        return given
    try:
        return instant_micros(datetime.fromisoformat(given[:64]))
    except (ValueError, OverflowError):
        raise Rejected(field, "must be RFC 3339 with a zone, such as 2026-11-30T09:30:00Z", event_id) from None


def clock_skew(sent_at: str | int | None, now_micros: int) -> int:
    """Return what must be added to a page's times, in whole minutes of microseconds; 0 below five minutes.

    Whole minutes, so that a repeated request, which takes another time on its way, is corrected alike.

    Raises:
        Rejected: ``sent_at`` is no instant with a zone.
    """
    if sent_at is None:
        return 0
    skew = now_micros - read_instant(sent_at, "sent_at")
    return 0 if abs(skew) < SKEW_MICROS else (skew + _MINUTE // 2) // _MINUTE * _MINUTE


def _value_micros(body: ConversionBody, currency: str, event_id: str) -> int:
    value = amount("value", body.value)
    if value is None:
        return body.value_micros or 0
    if body.value_micros is not None:
        raise Rejected("value", "must not be given beside value_micros", event_id)
    if currency == _NO_CURRENCY:
        raise Rejected("currency", "must be set beside a value", event_id)
    try:
        return to_micros(value, currency)
    except ValueError as error:
        raise Rejected("value", str(error), event_id) from None


def _items(body: ConversionBody, event_id: str) -> list[dict[str, Any]]:
    found = []
    for item in body.items or ():
        price = amount("items.price", item.price)
        try:
            micros = item.price_micros if price is None else exact_micros(price)
        except ValueError as error:
            raise Rejected("items.price", str(error), event_id) from None
        found.append(
            {
                "item_id": item.item_id, "item_name": item.item_name, "item_category": item.item_category,
                "item_brand": item.item_brand, "item_variant": item.item_variant, "quantity": item.quantity,
                "price_micros": micros, "properties": item.properties or {},
            }
        )  # fmt: skip
    return found


def _canonical(body: RecordBody) -> bytes:
    """Return the content of a record in one form, without the time of sending, which every try has anew."""
    return msgspec.json.encode(msgspec.structs.replace(body, sent_at=None))


def _shown(event_id: str | None) -> str | None:
    return event_id if event_id is not None and event_id.isprintable() else None
