"""WooCommerce's orders: every delivery carries the whole order, and there is no topic for refunds.

So each delivery of an order that was paid yields its purchase and all its refunds, under ids and with times that no
later delivery changes: ``order.created`` and ``order.updated`` fire together, up to four times, and nothing is retried.
A shop that edits orders sets ``restate_on_update``: then each state of the order is one restatement under its own time.

Times are the ``*_gmt`` fields, which have no zone and are UTC. The shop comes from the source's name.

Source: WooCommerce REST API v3, resource order; WooCommerce webhooks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from attributary.producers.records import Conversion, Item, PublishedRecord, UserData

from .outcome import LeftOut
from .payload import (
    Skipped,
    Unmapped,
    address_of,
    click_ids_of,
    currency_of,
    decimal_of,
    first_of,
    guest_id,
    instant_of,
    micros_of,
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
from .source import WebhookSource, WooCommerceOptions

_PING = re.compile(rb"webhook_id=[0-9]{1,20}")
_ORDER_TOPICS = frozenset({"order.created", "order.updated", "order.restored"})
_ATTRIBUTION = "_wc_order_attribution_"
_MOST_ITEMS = 1_000


def is_ping(body: bytes) -> bool:
    """Tell whether a body is the form that WooCommerce sends, unsigned, when a webhook is saved."""
    return _PING.fullmatch(body) is not None


def map_woocommerce(
    order: Mapping[str, Any], topic: str | None, source: WebhookSource
) -> tuple[list[PublishedRecord], list[LeftOut]]:
    """Return the records of one delivery, and the refunds that could not be read.

    Raises:
        Skipped: there is nothing to record.
        Unmapped: it should be recorded, and cannot.
    """
    options = source.option(WooCommerceOptions)
    if topic is not None and topic not in _ORDER_TOPICS:
        raise Skipped("other_type")
    status = order.get("status")
    if not isinstance(status, str) or "line_items" not in order:
        raise Unmapped("status, line_items", "must be set: this is no order")
    paid_at = order.get("date_paid_gmt")
    order_id = f"woo-{source.name}-order-{object_id(order.get('id'), 'id')}"
    if status == "cancelled":
        if paid_at is None and order.get("payment_method") != "cod":
            raise Skipped("not_paid")
        return [_cancellation(order, order_id, source, options)], []
    was_paid = status in options.paid_statuses or (status == "refunded" and paid_at is not None)
    if not was_paid:
        raise Skipped("not_paid")
    currency = currency_of(order.get("currency"))
    value = micros_of(decimal_of(order.get("total"), "total"), currency, "total")
    records: list[PublishedRecord] = [_purchase(order, order_id, value, currency, source)]
    left_out = []
    for refund in objects_in(order.get("refunds")):
        try:
            records.append(_refund(refund, order, order_id, currency, source))
        except Skipped as skipped:
            left_out.append(LeftOut("refund", skipped.reason))
        except Unmapped as error:
            left_out.append(LeftOut("refund", "unmapped", f"refunds.{error.field}", error.rule))
    if options.restate_on_update:
        modified = instant_of(order.get("date_modified_gmt"), "date_modified_gmt", utc=True)
        records.append(
            _correction(
                f"{order_id}-modified-{modified}",
                order_id,
                source,
                kind="restatement",
                occurred_at=modified,
                value_micros=value,
                currency=currency,
            )
        )
    return records, left_out


def _purchase(order: Mapping[str, Any], order_id: str, value: int, currency: str, source: WebhookSource) -> Conversion:
    metadata = named_texts(order.get("meta_data"), "key", "value")
    billing = object_in(order.get("billing"))
    anonymous = person_id(metadata.get("_atb"))
    user = person_id(order.get("customer_id") or None) or guest_id(billing.get("email"), source.guest_key)
    landing = url_of(metadata.get(f"{_ATTRIBUTION}session_entry"))
    return Conversion(
        event_id=order_id,
        conversion_id=order_id,
        tenant_id=source.tenant_id,
        conversion_type="purchase",
        occurred_at=_occurred_at(order),
        value_micros=value,
        currency=currency,
        anonymous_id=anonymous or (None if user else order_id),
        user_id=user,
        order_id=text_of(first_of(order.get("number"), order.get("id")), 200),
        items=_items(order),
        user_data=_user_data(billing),
        action_source="website"
        if word_of(order.get("created_via")) in {"checkout", "store-api"}
        else "system_generated",
        event_source_url=landing,
        referrer=url_of(metadata.get(f"{_ATTRIBUTION}referrer")),
        client_ip_address=address_of(order.get("customer_ip_address"), source.ip),
        client_user_agent=text_of(order.get("customer_user_agent"), 4096),
        click_ids=click_ids_of(landing, metadata),
        consent=source.consent,
    )


def _refund(
    refund: Mapping[str, Any], order: Mapping[str, Any], order_id: str, currency: str, source: WebhookSource
) -> Conversion:
    value = micros_of(-decimal_of(refund.get("total"), "total"), currency, "total")
    if value == 0:
        raise Skipped("no_money_moved")
    return _correction(
        f"woo-{source.name}-refund-{object_id(refund.get('id'), 'id')}",
        order_id,
        source,
        kind="refund",
        occurred_at=_occurred_at(order),  # a refund has no time of its own, and this one never changes
        value_micros=value,
        currency=currency,
    )


def _cancellation(
    order: Mapping[str, Any], order_id: str, source: WebhookSource, options: WooCommerceOptions
) -> Conversion:
    """Cancel an order; beside restatements under the time of the change, else under an id that stays."""
    event_id, occurred_at = f"{order_id}-cancelled", _occurred_at(order)
    if options.restate_on_update:
        occurred_at = instant_of(order.get("date_modified_gmt"), "date_modified_gmt", utc=True)
        event_id = f"{event_id}-{occurred_at}"
    currency = currency_of(order.get("currency"))
    return _correction(
        event_id, order_id, source, kind="cancellation", occurred_at=occurred_at, value_micros=0, currency=currency
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


def _occurred_at(order: Mapping[str, Any]) -> int:
    paid_at = first_of(order.get("date_paid_gmt"), order.get("date_created_gmt"))
    return instant_of(paid_at, "date_paid_gmt", utc=True)


def _items(order: Mapping[str, Any]) -> list[Item]:
    found = []
    for line in objects_in(order.get("line_items")):
        identity = text_of(first_of(line.get("sku"), line.get("variation_id") or None, line.get("product_id")))
        quantity = line.get("quantity")
        if identity is None or isinstance(quantity, bool) or not isinstance(quantity, int) or quantity < 1:
            continue
        found.append(
            Item(
                item_id=identity,
                item_name=text_of(line.get("name")),
                quantity=float(min(quantity, 1 << 40)),
                price_micros=price_micros(line.get("price")),
            )
        )
    return found[:_MOST_ITEMS]


def _user_data(billing: Mapping[str, Any]) -> UserData | None:
    return user_data_of(
        {
            "email": billing.get("email"),
            "phone": billing.get("phone"),
            "first_name": billing.get("first_name"),
            "last_name": billing.get("last_name"),
            "street": billing.get("address_1"),
            "city": billing.get("city"),
            "region": billing.get("state"),
            "postal_code": billing.get("postcode"),
            "country": billing.get("country"),
        }
    )
