"""Stripe's events: one kind is the purchase, refund objects are the refunds.

A conversion is named by its payment intent, else by its charge: refunds and disputes name the same. Amounts are
Stripe's (``stripe_money``). The time is the object's ``created``, which no retry changes.

Refunds count when they have succeeded. A pending one that fails never counted, so nothing has to be taken back; a
refund that fails after it succeeded is put aside for a person: a restatement replaces the gross value and leaves
refunds in place, so it cannot be computed from the refund alone.

Source: Stripe API reference (events, refunds, charges, payment intents, checkout sessions, invoices, disputes).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attributary.producers.records import Conversion, PublishedRecord

from .payload import (
    Skipped,
    Unmapped,
    expandable_id,
    first_of,
    object_id,
    object_in,
    objects_in,
    person_id,
    seconds_of,
    text_of,
    user_data_of,
    whole_of,
    word_of,
)
from .source import StripeOptions, WebhookSource
from .stripe_money import stripe_micros

_PURCHASES: Mapping[str, str] = {
    "payment_intent.succeeded": "payment_intent",
    "checkout.session.completed": "checkout",
    "checkout.session.async_payment_succeeded": "checkout",
    "charge.succeeded": "charge",
    "charge.captured": "charge",
    "invoice.paid": "invoice",
}
_REFUNDS = frozenset({"refund.created", "refund.updated", "refund.failed", "charge.refund.updated"})
# Since this version an invoice names its payments in a list that webhooks do not carry.
_INVOICES_WITHOUT_INTENT = "2025-03-31"


def map_stripe(event: Mapping[str, Any], source: WebhookSource) -> list[PublishedRecord]:
    """Return the records of one event.

    Raises:
        Skipped: there is nothing to record.
        Unmapped: it should be recorded, and cannot.
    """
    options = source.option(StripeOptions)
    kind = event.get("type")
    if event.get("object") != "event" or not isinstance(kind, str):
        raise Unmapped("object", "must be an event of Stripe's API with its whole object (no thin event)")
    entity = object_in(object_in(event.get("data")).get("object"))
    purchase = _PURCHASES.get(kind)
    wanted = purchase or kind in _REFUNDS or kind in {"charge.refunded", "charge.dispute.closed"}
    if not wanted:
        raise Skipped("other_type")
    if event.get("livemode") is not True and not options.allow_test:
        raise Skipped("test_data")
    if purchase:
        if purchase != options.purchase:
            raise Skipped("other_purchase_event")
        return [_purchase(purchase, entity, event, source)]
    if kind == "charge.refunded":
        if options.refunds != "charge":
            raise Skipped("counted_by_refund")
        return [_net_of_charge(entity, event, source)]
    if kind == "charge.dispute.closed":
        return [_lost_dispute(entity, source, options)]
    if options.refunds != "refund":
        raise Skipped("counted_by_charge")
    return [_refund(kind, entity, source)]


def _purchase(kind: str, entity: Mapping[str, Any], event: Mapping[str, Any], source: WebhookSource) -> Conversion:
    conversion_id, amount, details = _READERS[kind](entity, event)
    value, currency = stripe_micros(amount, entity.get("currency"))
    if value == 0:
        raise Skipped("zero")
    metadata = object_in(entity.get("metadata"))
    reference = entity.get("client_reference_id")
    anonymous, user = person_id(metadata.get("atb_id")), person_id(metadata.get("user_id"))
    if source.option(StripeOptions).client_reference == "anonymous_id":
        anonymous = anonymous or person_id(reference)
    else:
        user = user or person_id(reference)
    user = user or _customer(entity.get("customer"))
    address = object_in(details.get("address"))
    return Conversion(
        event_id=f"stripe-{conversion_id}",
        conversion_id=f"stripe-{conversion_id}",
        tenant_id=source.tenant_id,
        conversion_type="renewal" if entity.get("billing_reason") == "subscription_cycle" else "purchase",
        occurred_at=seconds_of(entity.get("created"), "created"),
        value_micros=value,
        currency=currency,
        anonymous_id=anonymous or (None if user else f"stripe-{conversion_id}"),
        user_id=user,
        order_id=text_of(metadata.get("order_id"), 200),
        user_data=user_data_of(
            {
                "email": first_of(details.get("email"), entity.get("receipt_email"), entity.get("customer_email")),
                "phone": details.get("phone"),
                "street": address.get("line1"),
                "city": address.get("city"),
                "region": address.get("state"),
                "postal_code": address.get("postal_code"),
                "country": address.get("country"),
            }
        ),
        consent=source.consent,
    )


_Read = tuple[str, object, Mapping[str, Any]]  # id of the conversion, amount, details of the payer


def _payment_intent(entity: Mapping[str, Any], _event: Mapping[str, Any]) -> _Read:
    return object_id(entity.get("id"), "id"), entity.get("amount_received"), {}


def _charge(entity: Mapping[str, Any], _event: Mapping[str, Any]) -> _Read:
    if entity.get("captured") is not True:
        raise Skipped("not_captured")
    captured = entity.get("amount_captured")
    amount = entity.get("amount") if captured is None else captured
    return _of_charge(entity), amount, object_in(entity.get("billing_details"))


def _checkout(entity: Mapping[str, Any], _event: Mapping[str, Any]) -> _Read:
    if entity.get("payment_status") != "paid":
        raise Skipped("zero" if entity.get("payment_status") == "no_payment_required" else "not_paid")
    intent = expandable_id(entity.get("payment_intent"), "payment_intent")
    if intent is None:
        raise Unmapped("payment_intent", "is not set: count a subscription by payment_intent, its refunds name that")
    return intent, entity.get("amount_total"), object_in(entity.get("customer_details"))


def _invoice(entity: Mapping[str, Any], event: Mapping[str, Any]) -> _Read:
    intent = expandable_id(entity.get("payment_intent"), "payment_intent")
    for payment in objects_in(object_in(entity.get("payments")).get("data")):
        intent = intent or expandable_id(object_in(payment.get("payment")).get("payment_intent"), "payment_intent")
    version = event.get("api_version")
    hidden = isinstance(version, str) and version >= _INVOICES_WITHOUT_INTENT
    if intent is None and hidden and entity.get("paid_out_of_band") is not True and entity.get("amount_paid"):
        raise Unmapped("payment_intent", "is not in this API version's invoices: count by payment_intent instead")
    details = {"email": entity.get("customer_email"), "phone": entity.get("customer_phone")}
    return (
        intent or object_id(entity.get("id"), "id"),
        entity.get("amount_paid"),
        {**details, "address": entity.get("customer_address")},
    )


_READERS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], _Read]] = {
    "payment_intent": _payment_intent,
    "charge": _charge,
    "checkout": _checkout,
    "invoice": _invoice,
}


def _refund(kind: str, entity: Mapping[str, Any], source: WebhookSource) -> Conversion:
    refund_id = object_id(entity.get("id"), "id")
    status = word_of(entity.get("status"))
    if status == "failed" or kind == "refund.failed":
        raise Unmapped("status", "failed: if this refund had succeeded before, put its amount back by hand")
    if status == "canceled":
        raise Skipped("refund_canceled")
    if status not in {"succeeded", None}:  # null: API versions that know only refunds that succeeded
        raise Skipped("refund_pending")
    conversion_id = expandable_id(entity.get("payment_intent"), "payment_intent") or object_id(
        entity.get("charge"), "charge"
    )
    value, currency = stripe_micros(entity.get("amount"), entity.get("currency"))
    return _correction(source, conversion_id, refund_id, "refund", entity.get("created"), value, currency)


def _lost_dispute(entity: Mapping[str, Any], source: WebhookSource, options: StripeOptions) -> Conversion:
    if options.disputes != "lost" or entity.get("status") != "lost":
        raise Skipped("dispute")
    conversion_id = expandable_id(entity.get("payment_intent"), "payment_intent") or expandable_id(
        entity.get("charge"), "charge"
    )
    if conversion_id is None:
        raise Unmapped("charge", "must be set")
    value, currency = stripe_micros(entity.get("amount"), entity.get("currency"))
    dispute = object_id(entity.get("id"), "id")
    return _correction(source, conversion_id, dispute, "refund", entity.get("created"), value, currency)


def _net_of_charge(entity: Mapping[str, Any], event: Mapping[str, Any], source: WebhookSource) -> Conversion:
    """Restate a charge to what is left of it: ``amount_refunded`` is the sum so far, not this refund."""
    captured = entity.get("amount_captured")
    amount = whole_of(entity.get("amount") if captured is None else captured, "amount")
    refunded = whole_of(entity.get("amount_refunded"), "amount_refunded")
    if refunded > amount:
        raise Unmapped("amount_refunded", "must not be more than the amount")
    value, currency = stripe_micros(amount - refunded, entity.get("currency"))
    # Digits in front: of two refunds in one second the later sum is the later id.
    suffix = f"{object_id(entity.get('id'), 'id')}-net-{refunded:015d}"
    return _correction(source, _of_charge(entity), suffix, "restatement", event.get("created"), value, currency)


def _of_charge(entity: Mapping[str, Any]) -> str:
    return expandable_id(entity.get("payment_intent"), "payment_intent") or object_id(entity.get("id"), "id")


def _correction(
    source: WebhookSource, conversion_id: str, object_name: str, kind: str, created: object, value: int, currency: str
) -> Conversion:
    if kind == "refund" and value == 0:
        raise Skipped("zero")
    return Conversion(
        event_id=f"stripe-{object_name}",
        conversion_id=f"stripe-{conversion_id}",
        tenant_id=source.tenant_id,
        kind=kind,
        conversion_type="purchase",
        occurred_at=seconds_of(created, "created"),
        value_micros=value,
        currency=currency,
        anonymous_id=f"stripe-{conversion_id}",
        action_source="system_generated",
    )


def _customer(value: object) -> str | None:
    return person_id(object_in(value).get("id") if isinstance(value, Mapping) else value)
