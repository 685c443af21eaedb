"""Deliveries of shops and payment providers, as small as their documentation allows, and the signatures under them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from attributary.producers.collector.webhooks import (
    LeadOptions,
    ShopifyOptions,
    StripeOptions,
    WebhookOutcome,
    WebhookReceiver,
    WebhookSource,
    WooCommerceOptions,
)
from attributary.producers.collector.webhooks.source import Options, Provider

SECRET = "a secret of sixteen"
NOW = 1_767_225_600.0  # 2026-01-01 UTC
PAID_AT = "2025-12-31T12:00:00+00:00"
_DEFAULTS: Mapping[str, Options] = {
    "shopify": ShopifyOptions(),
    "stripe": StripeOptions(),
    "woocommerce": WooCommerceOptions(),
    "meta_leads": LeadOptions(verify_token="the token of the page"),
    "google_leads": LeadOptions(),
}


def receiver(provider: Provider, options: Options | None = None, **others: Any) -> WebhookReceiver:
    return WebhookReceiver(
        WebhookSource(
            name="shop",
            provider=provider,
            tenant_id="acme",
            secrets=others.pop("secrets", (SECRET,)),
            options=options or _DEFAULTS[provider],
            **others,
        )
    )


def encoded(body: Any) -> bytes:
    return json.dumps(body, default=str).encode()


def hmac_of(body: bytes, secret: str = SECRET) -> bytes:
    return hmac.new(secret.encode(), body, hashlib.sha256).digest()


def signed(provider: Provider, body: bytes, topic: str = "", now: float = NOW) -> dict[str, str]:
    """Headers with a right signature."""
    if provider == "shopify":
        return {"x-shopify-topic": topic, "x-shopify-hmac-sha256": base64.b64encode(hmac_of(body)).decode()}
    if provider == "woocommerce":
        return {"x-wc-webhook-topic": topic, "x-wc-webhook-signature": base64.b64encode(hmac_of(body)).decode()}
    if provider == "stripe":
        mac = hmac_of(f"{int(now)}.".encode() + body).hex()
        return {"stripe-signature": f"t={int(now)},v1={mac}"}
    if provider == "meta_leads":
        return {"x-hub-signature-256": "sha256=" + hmac_of(body).hex()}
    return {}


def deliver(to: WebhookReceiver, body: Any, topic: str = "", now: float = NOW) -> WebhookOutcome:
    raw = body if isinstance(body, bytes) else encoded(body)
    return to.receive(raw, signed(to.source.provider, raw, topic, now), now)


def money_set(shop: str, currency: str, presentment: str | None = None, other: str = "USD") -> dict[str, Any]:
    return {
        "shop_money": {"amount": shop, "currency_code": currency},
        "presentment_money": {"amount": presentment or shop, "currency_code": other if presentment else currency},
    }


def shopify_order(total: str = "100.00", currency: str = "EUR", **others: Any) -> dict[str, Any]:
    return {
        "id": 450789469,
        "name": "#1001",
        "processed_at": PAID_AT,
        "created_at": PAID_AT,
        "updated_at": "2025-12-31T13:00:00+00:00",
        "financial_status": "paid",
        "currency": currency,
        "total_price": total,
        "total_price_set": money_set(total, currency),
        "customer": {"id": 207119551},
        "line_items": [],
        **others,
    }


def shopify_refund(refund_id: int, amount: str, currency: str = "EUR", **others: Any) -> dict[str, Any]:
    return {
        "id": refund_id,
        "order_id": 450789469,
        "created_at": "2025-12-31T14:00:00+00:00",
        "refund_line_items": [],
        "order_adjustments": [{"kind": "refund_discrepancy", "amount_set": money_set(f"-{amount}", currency)}],
        "transactions": [{"kind": "refund", "status": "success", "amount": amount, "currency": currency}],
        **others,
    }


def stripe_event(kind: str, entity: Mapping[str, Any], **others: Any) -> dict[str, Any]:
    return {
        "id": "evt_1",
        "object": "event",
        "api_version": "2025-09-30.clover",
        "created": int(NOW) - 50,
        "livemode": True,
        "type": kind,
        "data": {"object": dict(entity)},
        **others,
    }


def stripe_payment(amount: int, currency: str = "eur", **others: Any) -> dict[str, Any]:
    entity = {"id": "pi_1", "amount_received": amount, "currency": currency, "created": int(NOW) - 60, **others}
    return stripe_event("payment_intent.succeeded", entity)


def stripe_refund(refund_id: str, amount: int, currency: str = "eur", **others: Any) -> dict[str, Any]:
    entity = {
        "id": refund_id,
        "object": "refund",
        "amount": amount,
        "currency": currency,
        "payment_intent": "pi_1",
        "charge": "ch_1",
        "created": int(NOW) - 30,
        "status": "succeeded",
        **others,
    }
    return stripe_event("refund.created", entity)


def woo_order(
    total: str = "100.00", currency: str = "EUR", refunds: Mapping[int, str] | None = None, **others: Any
) -> dict[str, Any]:
    return {
        "id": 727,
        "number": "727",
        "status": "processing",
        "currency": currency,
        "total": total,
        "date_created_gmt": "2025-12-31T11:59:00",
        "date_paid_gmt": "2025-12-31T12:00:00",
        "date_modified_gmt": "2025-12-31T12:30:00",
        "customer_id": 26,
        "billing": {},
        "line_items": [],
        "meta_data": [],
        "refunds": [{"id": key, "reason": "", "total": f"-{amount}"} for key, amount in (refunds or {}).items()],
        **others,
    }


def units(text: str) -> int:
    """An amount in micros."""
    return int(Decimal(text) * 1_000_000)
