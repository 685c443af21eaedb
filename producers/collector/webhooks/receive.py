"""One delivery of a provider becomes records: a pure function of bytes, headers, settings and the time now.

Contract of ``receive``:

1. The signature is checked first, over the raw bytes; nothing is parsed before (Google's key stands in the body).
2. A delivery that is signed is answered 200, whatever it holds: providers delete or disable a subscription that answers
   otherwise. What it is not recorded for stands in ``left_out``.
3. The records depend on the body and the settings. So a delivery that is repeated gives the same event ids and the same
   bytes, and a different time of arrival changes nothing (except the hour of a Google lead).
4. It raises nothing, for any bytes and any headers.

Records are checked by the rules of their schema here, so that one that would be refused later is named in ``left_out``.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from pathlib import Path

from attributary.producers.errors import InvalidRecord
from attributary.producers.records import PublishedRecord
from attributary.schemas.rules import CHECKS, find_unstorable_text

from . import signatures
from .leads import map_google, map_meta
from .outcome import LeftOut, WebhookOutcome, WebhookRecord, refused
from .payload import Skipped, Unmapped, parse_object, text_of
from .shopify import map_shopify
from .signed_json import delivery_name, read_mapping
from .source import LeadOptions, SignedJsonOptions, WebhookSource
from .stripe import map_stripe
from .woocommerce import is_ping, map_woocommerce

_Mapped = tuple[list[WebhookRecord], list[LeftOut]]


class WebhookReceiver:
    """Receives the deliveries of one source.

    Args:
        source: its settings.
        folder: where a relative path of a mapping file begins.

    Raises:
        SourceError: the mapping file cannot be used.
    """

    def __init__(self, source: WebhookSource, folder: Path = Path()) -> None:
        self.source = source
        options = source.options
        self._mapping = read_mapping(folder / options.mapping) if isinstance(options, SignedJsonOptions) else None

    def receive(self, body: bytes, headers: Mapping[str, str], now: float) -> WebhookOutcome:
        """Return what becomes of one delivery; see the contract of the module.

        Args:
            body: the raw bytes.
            headers: by name in lower case.
            now: seconds since 1970.
        """
        if self.source.provider == "woocommerce" and is_ping(body):
            return WebhookOutcome(outcome="set_up")
        if reason := self.broken_signature(body, headers, now):
            return refused(reason)
        return self.map(body, headers, now)

    def broken_signature(self, body: bytes, headers: Mapping[str, str], now: float) -> str | None:
        """Return why a delivery is not signed by the source's provider; None when it is."""
        return _CHECKED_BY[self.source.provider](self.source, body, headers, now)

    def map(self, body: bytes, headers: Mapping[str, str], now: float) -> WebhookOutcome:
        """Return what becomes of a delivery that is signed."""
        what = _label(headers)
        try:
            records, left_out = self._records(body, headers, now)
        except Skipped as skipped:
            return WebhookOutcome(outcome="ignored", left_out=(LeftOut(what, skipped.reason),))
        except (Unmapped, InvalidRecord) as error:
            return WebhookOutcome(outcome="unmapped", left_out=(LeftOut(what, "unmapped", error.field, error.rule),))
        kept, broken = _valid(records, int(now * 1_000_000))
        left_out += broken
        if kept:
            return WebhookOutcome(outcome="accepted", records=tuple(kept), left_out=tuple(left_out))
        unmapped = any(each.reason == "unmapped" for each in left_out)
        return WebhookOutcome(outcome="unmapped" if unmapped else "ignored", left_out=tuple(left_out))

    def _records(self, body: bytes, headers: Mapping[str, str], now: float) -> _Mapped:
        source, document = self.source, parse_object(body)
        if source.provider == "shopify":
            return _typed(map_shopify(document, headers.get("x-shopify-topic"), source)), []
        if source.provider == "stripe":
            return _typed(map_stripe(document, source)), []
        if source.provider == "woocommerce":
            records, left_out = map_woocommerce(document, headers.get("x-wc-webhook-topic"), source)
            return _typed(records), left_out
        if source.provider == "meta_leads":
            records, left_out = map_meta(document, source)
            return _typed(records), left_out
        if source.provider == "google_leads":
            return _typed(map_google(document, source, now)), []
        assert self._mapping is not None  # noqa: S101 - every other provider has one
        return self._mapping.records(document, delivery_name(source, body, headers), source)


def meta_challenge(source: WebhookSource, query: Mapping[str, str]) -> WebhookOutcome:
    """Return the answer to Meta's set-up call: its challenge as plain text, or 403 for a wrong token.

    Args:
        source: a source of Meta leads.
        query: the parameters ``hub.mode``, ``hub.verify_token`` and ``hub.challenge``.
    """
    token, challenge = query.get("hub.verify_token", ""), query.get("hub.challenge", "")
    expected = source.option(LeadOptions).verify_token
    right = hmac.compare_digest(token.encode("utf-8", "replace"), expected.encode())
    if not expected or not right or query.get("hub.mode") != "subscribe" or not challenge.isascii():
        return refused("verify_token_wrong", 403)
    return WebhookOutcome(outcome="set_up", reply=challenge[:200])


def _typed(records: list[PublishedRecord]) -> list[WebhookRecord]:
    return [WebhookRecord.of(record) for record in records]


def _valid(records: list[WebhookRecord], now_micros: int) -> tuple[list[WebhookRecord], list[LeftOut]]:
    """Return the records that keep the rules, each event id once, and the others with the rule that they break."""
    kept: dict[str, WebhookRecord] = {}
    left_out = []
    for record in records:
        broken = CHECKS[record.name](record.fields, now_micros=now_micros) or find_unstorable_text(record.fields)
        event_id = record.fields["event_id"]
        if broken is not None:
            left_out.append(LeftOut(record.name, "unmapped", broken.field, broken.rule))
        elif kept.setdefault(event_id, record) != record:
            left_out.append(LeftOut(record.name, "unmapped", "event_id", "stands twice in the delivery"))
    return list(kept.values()), left_out


def _label(headers: Mapping[str, str]) -> str:
    """Return the provider's word for a delivery, for people; it is not signed and decides nothing."""
    topic = headers.get("x-shopify-topic") or headers.get("x-wc-webhook-topic")
    return text_of(topic, 50) or "delivery"


def _shopify(source: WebhookSource, body: bytes, headers: Mapping[str, str], _now: float) -> str | None:
    return signatures.broken_base64(source.secrets, body, headers.get("x-shopify-hmac-sha256"))


def _stripe(source: WebhookSource, body: bytes, headers: Mapping[str, str], now: float) -> str | None:
    header = headers.get("stripe-signature")
    return signatures.broken_stripe(source.secrets, body, header, now, source.tolerance_seconds)


def _woocommerce(source: WebhookSource, body: bytes, headers: Mapping[str, str], _now: float) -> str | None:
    return signatures.broken_woocommerce(source.secrets, body, headers.get("x-wc-webhook-signature"))


def _meta(source: WebhookSource, body: bytes, headers: Mapping[str, str], _now: float) -> str | None:
    return signatures.broken_hex(source.secrets, body, headers.get("x-hub-signature-256"))


def _google(source: WebhookSource, body: bytes, _headers: Mapping[str, str], _now: float) -> str | None:
    try:
        return signatures.broken_shared_key(source.secrets, parse_object(body).get("google_key"))
    except Unmapped:
        return signatures.MALFORMED


def _standard(source: WebhookSource, body: bytes, headers: Mapping[str, str], now: float) -> str | None:
    return signatures.broken_standard(source.secrets, body, headers, now, source.tolerance_seconds)


def _signed_json(source: WebhookSource, body: bytes, headers: Mapping[str, str], now: float) -> str | None:
    options = source.option(SignedJsonOptions)
    given, stamp = headers.get(options.signature_header.lower()), None
    if options.timestamp_header:
        stamp = headers.get(options.timestamp_header.lower())
    if options.signature_key:
        pairs = signatures.pairs_of(given)
        given = pairs.get(options.signature_key)
        stamp = pairs.get(options.timestamp_key) if options.timestamp_key else stamp
    has_time = bool(options.timestamp_header or options.timestamp_key)
    scheme = signatures.Scheme(
        signed=options.signed or ("{timestamp}.{body}" if has_time else "{body}"),
        prefix=options.signature_prefix,
        in_base64=options.encoding == "base64",
        has_time=has_time,
        tolerance=source.tolerance_seconds,
    )
    return signatures.broken_scheme(source.secrets, body, given, stamp, now, scheme)


_Check = Callable[[WebhookSource, bytes, Mapping[str, str], float], str | None]
_CHECKED_BY: Mapping[str, _Check] = {
    "shopify": _shopify,
    "stripe": _stripe,
    "woocommerce": _woocommerce,
    "meta_leads": _meta,
    "google_leads": _google,
    "standard": _standard,
    "signed_json": _signed_json,
}
