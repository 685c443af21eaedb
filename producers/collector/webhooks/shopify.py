"""Shopify's orders and refunds: one topic is the purchase, ``refunds/create`` are the refunds.

The topic's header is not signed, so a delivery must also have the shape of its topic, and ids come from the objects:
a body that is replayed under another topic is the same record, or none. The shop comes from the source's name, never
from a header.

An order is worth one measure in one basis of money, shop or presentment, for the purchase and its refunds alike
(``shopify_money``). ``orders/edited`` carries quantities and no money: with ``restate_on_update`` the value is set anew
by ``orders/updated``, which carries the whole order.

Source: Shopify Admin REST API, webhook topics; resources order, refund, transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attributary.producers.records import Conversion, Item, PublishedRecord, UserData

from .payload import (
    Skipped,
    Unmapped,
    address_of,
    click_ids_of,
    first_of,
    guest_id,
    instant_of,
    named_texts,
    object_id,
    object_in,
    objects_in,
    person_id,
    price_micros,
    text_of,
    url_of,
    user_data_of,
    word_of,
)
from .shopify_money import order_worth, refund_worth
from .source import ShopifyOptions, WebhookSource

_ANONYMOUS_ID = "_atb"
_COUNTED_TOPICS = frozenset({"orders/paid", "orders/create", "orders/updated", "orders/cancelled", "refunds/create"})
_PAID = frozenset({"paid", "partially_refunded", "refunded"})
_NEVER_PAID = frozenset({"pending", "authorized", "expired", "voided", "unpaid", None})
_ACTION_SOURCES = {"web": "website", "pos": "physical_store"}
_MOST_ITEMS = 1_000


def map_shopify(body: Mapping[str, Any], topic: str | None, source: WebhookSource) -> list[PublishedRecord]:
    """Return the records of one delivery.

    Args:
        body: the order or the refund.
        topic: the header ``X-Shopify-Topic``; it narrows what may be recorded, the body's shape decides what is.
        source: the settings.

    Raises:
        Skipped: there is nothing to record.
        Unmapped: it should be recorded, and cannot.
    """
    options = source.option(ShopifyOptions)
    if topic is None:
        raise Unmapped("X-Shopify-Topic", "must be set")
    if topic == "orders/edited":
        raise Skipped("edit_without_amounts")
    if topic not in _COUNTED_TOPICS:
        raise Skipped("other_type")
    is_refund = "order_id" in body and isinstance(body.get("refund_line_items"), list)
    if is_refund != (topic == "refunds/create") or (not is_refund and not isinstance(body.get("line_items"), list)):
        raise Unmapped("X-Shopify-Topic", "is not that of the body's shape")
    if is_refund:
        return [_refund(body, source, options)]
    if body.get("test") is True:
        raise Skipped("test_data")
    if topic == "orders/cancelled":
        return [_cancellation(body, source, options)]
    if topic == "orders/updated":
        return [_restatement(body, source, options)]
    if topic != options.purchase_topic:
        raise Skipped("other_purchase_event")
    return [_purchase(body, source, options)]


def _purchase(order: Mapping[str, Any], source: WebhookSource, options: ShopifyOptions) -> Conversion:
    status = word_of(order.get("financial_status"))
    if status == "voided":
        raise Skipped("voided")
    if options.purchase_topic == "orders/paid" and status not in _PAID:
        raise Skipped("not_paid")
    conversion_id = _conversion_id(order.get("id"), "id", source)
    value, currency = order_worth(order, options)
    attributes = named_texts(order.get("note_attributes"), "name", "value")
    customer = object_in(order.get("customer"))
    email = first_of(order.get("email"), order.get("contact_email"), customer.get("email"))
    anonymous = person_id(attributes.get(_ANONYMOUS_ID))
    user = person_id(customer.get("id")) or guest_id(email, source.guest_key)
    landing = url_of(order.get("landing_site"))
    client = object_in(order.get("client_details"))
    return Conversion(
        event_id=conversion_id,
        conversion_id=conversion_id,
        tenant_id=source.tenant_id,
        conversion_type="purchase",
        occurred_at=_occurred_at(order),
        value_micros=value,
        currency=currency,
        anonymous_id=anonymous or (None if user else conversion_id),
        user_id=user,
        order_id=text_of(first_of(order.get("name"), order.get("order_number")), 200),
        items=_items(order, options),
        user_data=_user_data(order, customer, email),
        action_source=_ACTION_SOURCES.get(str(order.get("source_name")), "system_generated"),
        event_source_url=_page(landing, options.shop_domain),
        referrer=url_of(order.get("referring_site")),
        client_ip_address=address_of(first_of(client.get("browser_ip"), order.get("browser_ip")), source.ip),
        client_user_agent=text_of(client.get("user_agent"), 4096),
        click_ids=click_ids_of(landing, attributes),
        consent=source.consent,
    )


def _refund(refund: Mapping[str, Any], source: WebhookSource, options: ShopifyOptions) -> Conversion:
    conversion_id = _conversion_id(refund.get("order_id"), "order_id", source)
    value, currency = refund_worth(refund, options)
    if value == 0:
        raise Skipped("no_money_moved")
    return _correction(
        f"shopify-{source.name}-refund-{object_id(refund.get('id'), 'id')}",
        conversion_id,
        source,
        kind="refund",
        occurred_at=instant_of(first_of(refund.get("processed_at"), refund.get("created_at")), "created_at"),
        value_micros=value,
        currency=currency,
    )


def _cancellation(order: Mapping[str, Any], source: WebhookSource, options: ShopifyOptions) -> Conversion:
    """Cancel an order that was counted and never paid; for one that was paid the refunds do the work."""
    cancelled_at = order.get("cancelled_at")
    if cancelled_at is None:
        raise Unmapped("cancelled_at", "must be set: is this the body of another topic?")
    conversion_id = _conversion_id(order.get("id"), "id", source)
    if options.purchase_topic == "orders/paid":
        raise Skipped("counted_by_refunds")
    if word_of(order.get("financial_status")) not in _NEVER_PAID:
        raise Skipped("counted_by_refunds")
    _, currency = order_worth(order, options)
    return _correction(
        f"{conversion_id}-cancelled",
        conversion_id,
        source,
        kind="cancellation",
        occurred_at=instant_of(cancelled_at, "cancelled_at"),
        value_micros=0,
        currency=currency,
    )


def _restatement(order: Mapping[str, Any], source: WebhookSource, options: ShopifyOptions) -> Conversion:
    if not options.restate_on_update:
        raise Skipped("updates_do_not_count")
    if order.get("cancelled_at") is not None or word_of(order.get("financial_status")) not in _PAID:
        raise Skipped("not_paid")
    conversion_id = _conversion_id(order.get("id"), "id", source)
    value, currency = order_worth(order, options)
    updated_at = instant_of(order.get("updated_at"), "updated_at")
    return _correction(
        f"{conversion_id}-updated-{updated_at}",
        conversion_id,
        source,
        kind="restatement",
        occurred_at=updated_at,
        value_micros=value,
        currency=currency,
    )


def _correction(event_id: str, conversion_id: str, source: WebhookSource, **facts: Any) -> Conversion:
    return Conversion(
        event_id=event_id,
        conversion_id=conversion_id,
        tenant_id=source.tenant_id,
        conversion_type="purchase",
        anonymous_id=conversion_id,
        action_source="system_generated",
        **facts,
    )


def _conversion_id(order_id: object, field: str, source: WebhookSource) -> str:
    return f"shopify-{source.name}-order-{object_id(order_id, field)}"


def _occurred_at(order: Mapping[str, Any]) -> int:
    """Return when the order was placed: imports are dated back in ``processed_at``; never the time of an update."""
    return instant_of(first_of(order.get("processed_at"), order.get("created_at")), "processed_at")


def _page(landing: str | None, shop_domain: str) -> str | None:
    if landing is None or landing.startswith(("https://", "http://")):
        return landing
    return f"https://{shop_domain}{landing}"[:4096] if shop_domain and landing.startswith("/") else None


def _items(order: Mapping[str, Any], options: ShopifyOptions) -> list[Item]:
    found = []
    for line in objects_in(order.get("line_items")):
        identity = text_of(first_of(line.get("sku"), line.get("variant_id"), line.get("product_id"), line.get("id")))
        quantity = line.get("quantity")
        if identity is None or isinstance(quantity, bool) or not isinstance(quantity, int) or quantity < 1:
            continue
        money = object_in(object_in(line.get("price_set")).get(options.basis))
        amount = money.get("amount")
        if amount is None and options.basis == "shop_money":
            amount = line.get("price")
        found.append(
            Item(
                item_id=identity,
                item_name=text_of(line.get("title")),
                item_brand=text_of(line.get("vendor")),
                item_variant=text_of(line.get("variant_title")),
                quantity=float(min(quantity, 1 << 40)),
                price_micros=price_micros(amount),
            )
        )
    return found[:_MOST_ITEMS]


def _user_data(order: Mapping[str, Any], customer: Mapping[str, Any], email: object) -> UserData | None:
    address = object_in(order.get("billing_address")) or object_in(order.get("shipping_address"))
    return user_data_of(
        {
            "email": email,
            "phone": first_of(order.get("phone"), address.get("phone"), customer.get("phone")),
            "first_name": first_of(address.get("first_name"), customer.get("first_name")),
            "last_name": first_of(address.get("last_name"), customer.get("last_name")),
            "street": address.get("address1"),
            "city": address.get("city"),
            "region": first_of(address.get("province_code"), address.get("province")),
            "postal_code": address.get("zip"),
            "country": address.get("country_code"),
        }
    )
