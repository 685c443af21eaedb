"""The net of a purchase is the same in every order of deliveries, to the minor unit, by the project's own fold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.attribution_core.domain.conversion import ConversionEvent, ConversionState, fold
from attributary.producers import AttributaryProducer, MemoryTransport, ProducerConfig
from attributary.producers.collector.webhooks import (
    ShopifyOptions,
    StripeOptions,
    WebhookOutcome,
    WebhookReceiver,
    WooCommerceOptions,
)
from attributary.producers.collector.webhooks.stripe_money import stripe_decimals
from attributary.producers.money import minor_digits
from tests.factories.webhooks import (
    NOW,
    deliver,
    money_set,
    receiver,
    shopify_order,
    shopify_refund,
    stripe_event,
    stripe_payment,
    stripe_refund,
    units,
    woo_order,
)

SEALER = AttributaryProducer(ProducerConfig(), transport=MemoryTransport())


def stored(outcomes: Iterable[WebhookOutcome]) -> dict[str, Any]:
    """What the stitcher keeps: one record an event id, the first; a second one has the same bytes."""
    kept: dict[str, Any] = {}
    for outcome in outcomes:
        for name, fields in outcome.records:
            message = SEALER.seal(name, fields)
            assert kept.setdefault(fields["event_id"], (fields, message))[1] == message, "one id, two contents"
    return {event_id: fields for event_id, (fields, _) in kept.items()}


def net(outcomes: Iterable[WebhookOutcome]) -> ConversionState:
    facts = stored(outcomes).values()
    assert len({each["conversion_id"] for each in facts}) <= 1
    names = ("occurred_at", "event_id", "kind", "value_micros", "currency")
    return fold(ConversionEvent(*(each[name] for name in names)) for each in facts)


Delivery = tuple[Any, str]


def every_order(to: WebhookReceiver, deliveries: Sequence[Delivery]) -> set[tuple[int, str]]:
    found = set()
    for order in permutations(deliveries):
        state = net([deliver(to, body, topic) for body, topic in (*order, *order)])
        found.add((state.net_value_micros, state.currency))
    return found


@pytest.mark.parametrize(
    ("currency", "total", "parts", "left"),
    [
        ("EUR", "100.00", ("19.99", "0.01"), "80.00"),
        ("EUR", "19.99", ("19.99",), "0.00"),
        ("EUR", "10.00", ("10.00", "0.50"), "-0.50"),
        ("JPY", "1000", ("333", "333"), "334"),
        ("KWD", "10.005", ("3.335", "0.001"), "6.669"),
        ("HUF", "1000.00", ("0.50",), "999.50"),
        ("ISK", "5000.00", ("1.00",), "4999.00"),
        ("MGA", "10.2", ("0.2",), "10.0"),
    ],
)
def test_shopify_purchase_and_refunds_in_every_order(
    currency: str, total: str, parts: tuple[str, ...], left: str
) -> None:
    deliveries: list[Delivery] = [(shopify_order(total, currency), "orders/paid")]
    deliveries += [(shopify_refund(key, part, currency), "refunds/create") for key, part in enumerate(parts, 1)]
    cancelled = shopify_order(total, currency, cancelled_at="2025-12-31T20:00:00Z", financial_status="refunded")
    deliveries.append((cancelled, "orders/cancelled"))
    assert every_order(receiver("shopify"), deliveries) == {(units(left), currency)}


def test_shopify_counts_one_basis_where_shop_and_customer_pay_in_other_currencies() -> None:
    """Refund transactions come in the customer's currency; the shop's money stands in the lines."""
    order = shopify_order(total_price_set=money_set("93.00", "EUR", "100.00"), total_price="93.00")
    line = {"subtotal_set": money_set("18.60", "EUR", "20.00"), "total_tax_set": money_set("0.93", "EUR", "1.00")}
    refund = shopify_refund(1, "21.00", "USD", refund_line_items=[line], order_adjustments=[])
    deliveries: list[Delivery] = [(order, "orders/paid"), (refund, "refunds/create")]
    shop = receiver("shopify", ShopifyOptions(currency="EUR"))
    assert every_order(shop, deliveries) == {(units("73.47"), "EUR")}
    assert every_order(receiver("shopify"), deliveries) == {(units("73.47"), "EUR")}
    customer = receiver("shopify", ShopifyOptions(basis="presentment_money"))
    assert every_order(customer, deliveries) == {(units("79.00"), "USD")}


def test_shopify_unpaid_orders_that_count_are_cancelled() -> None:
    to = receiver("shopify", ShopifyOptions(purchase_topic="orders/create"))
    order = shopify_order(financial_status="pending")
    cancelled = {**order, "cancelled_at": "2025-12-31T20:00:00Z", "financial_status": "voided"}
    assert every_order(to, [(order, "orders/create"), (cancelled, "orders/cancelled")]) == {(0, "EUR")}


def test_shopify_edits_set_the_value_anew() -> None:
    to = receiver("shopify", ShopifyOptions(restate_on_update=True))
    states = [("120.00", "2026-01-01T10:00:00Z"), ("90.00", "2026-01-01T11:00:00Z"), ("120.00", "2026-01-01T12:00:00Z")]
    edits: list[Delivery] = [(shopify_order(total, updated_at=at), "orders/updated") for total, at in states]
    deliveries = [(shopify_order(), "orders/paid"), (shopify_refund(1, "5.00"), "refunds/create"), *edits]
    assert every_order(to, deliveries) == {(units("115.00"), "EUR")}


# Stripe's amount in its own minor units, and what that is.
@pytest.mark.parametrize(
    ("currency", "total", "parts", "left"),
    [
        ("eur", 10_000, (1_999, 1), "80.00"),
        ("eur", 1_000, (1_000, 50), "-0.50"),
        ("jpy", 1_000, (333, 333), "334"),
        ("kwd", 10_010, (3_330, 10), "6.670"),
        ("isk", 500_000, (100,), "4999"),
        ("ugx", 500_000, (50_000,), "4500"),
        ("huf", 100_000, (50,), "999.50"),
        ("twd", 100_000, (25,), "999.75"),
        ("mga", 1_000, (1,), "999"),
        ("clp", 5_000, (1,), "4999"),
        ("xof", 5_000, (5_000,), "0"),
    ],
)
def test_stripe_purchase_and_refunds_in_every_order(
    currency: str, total: int, parts: tuple[int, ...], left: str
) -> None:
    deliveries: list[Delivery] = [(stripe_payment(total, currency), "")]
    for key, part in enumerate(parts):
        body = stripe_refund(f"re_{key}", part, currency)
        deliveries += [(body, ""), ({**body, "type": "refund.updated", "id": f"evt_{key}"}, "")][: 2 if key == 0 else 1]
    assert every_order(receiver("stripe"), deliveries) == {(units(left), currency.upper())}


def test_stripe_cumulative_refunds_are_the_net_of_the_charge() -> None:
    to = receiver("stripe", StripeOptions(purchase="charge", refunds="charge"))
    charge = {"id": "ch_1", "payment_intent": "pi_1", "amount": 10_000, "amount_captured": 9_000, "captured": True,
              "currency": "eur", "created": int(NOW) - 60, "amount_refunded": 0}  # fmt: skip
    deliveries: list[Delivery] = [(stripe_event("charge.succeeded", charge), "")]
    for refunded, at in ((500, 40), (1_500, 40), (9_000, 30)):  # two within one second
        event = stripe_event("charge.refunded", {**charge, "amount_refunded": refunded}, created=int(NOW) - at)
        deliveries.append((event, ""))
    assert every_order(to, deliveries[:3]) == {(units("75.00"), "EUR")}
    assert every_order(to, deliveries) == {(0, "EUR")}


def test_stripe_refunds_that_did_not_succeed_take_nothing_off() -> None:
    to = receiver("stripe")
    pending = stripe_refund("re_1", 500, status="pending")
    failed = {**stripe_refund("re_1", 500, status="failed"), "type": "refund.failed"}
    canceled = stripe_refund("re_2", 500, status="canceled")
    waiting = stripe_refund("re_3", 500, status="requires_action")
    deliveries: list[Delivery] = [(each, "") for each in (stripe_payment(1_000), pending, failed, canceled, waiting)]
    assert every_order(to, deliveries) == {(units("10.00"), "EUR")}
    assert deliver(to, failed).outcome == "unmapped"  # somebody must look whether it had counted


def test_woocommerce_purchase_refunds_and_cancellation_in_every_order() -> None:
    to = receiver("woocommerce")
    paid, one = woo_order(), woo_order(refunds={1: "19.99"})
    two = woo_order(refunds={1: "19.99", 2: "0.01"}, status="completed", date_modified_gmt="2026-01-01T12:00:00")
    everything = woo_order(refunds={1: "19.99", 2: "0.01", 3: "80.00"}, status="refunded")
    deliveries = [(paid, "order.created"), (one, "order.updated"), (two, "order.updated")]
    assert every_order(to, deliveries) == {(units("80.00"), "EUR")}
    assert every_order(to, [*deliveries, (everything, "order.updated")]) == {(0, "EUR")}
    cancelled = woo_order(refunds={1: "19.99"}, status="cancelled")
    assert every_order(to, [*deliveries, (cancelled, "order.updated")]) == {(0, "EUR")}
    assert every_order(to, [(everything, "order.updated")]) == {(0, "EUR")}, "the only delivery that came through"


def test_woocommerce_edits_set_the_value_anew() -> None:
    to = receiver("woocommerce", WooCommerceOptions(restate_on_update=True))
    states = [woo_order(), *(woo_order(date_modified_gmt=f"2026-01-01T1{hour}:00:00") for hour in (0, 1))]
    cancelled = woo_order(status="cancelled", date_modified_gmt="2026-01-01T12:00:00")
    assert every_order(to, [(state, "order.updated") for state in states]) == {(units("100.00"), "EUR")}
    assert every_order(to, [(state, "order.updated") for state in (*states, cancelled)]) == {(0, "EUR")}
    restated = stored([deliver(to, woo_order("90.00", date_modified_gmt="2026-01-01T13:00:00"), "order.updated")])
    assert [each["value_micros"] for each in restated.values() if each["kind"] == "restatement"] == [units("90.00")]


def test_the_same_delivery_100_times_is_one_record() -> None:
    for to, body, topic in (
        (receiver("shopify"), shopify_order(), "orders/paid"),
        (receiver("stripe"), stripe_payment(1_000), ""),
        (receiver("woocommerce"), woo_order(), "order.updated"),
    ):
        outcomes = [deliver(to, body, topic, NOW + second * 60) for second in range(100)]
        assert {outcome.outcome for outcome in outcomes} == {"accepted"}
        assert len(stored(outcomes)) == 1


CURRENCIES = st.sampled_from(
    ["EUR", "USD", "JPY", "KWD", "BHD", "ISK", "UGX", "MGA", "HUF", "TWD", "CLP", "VND", "XAF"]
)


@settings(max_examples=60)
@given(
    data=st.data(), currency=CURRENCIES, total=st.integers(1, 10**9), parts=st.lists(st.integers(1, 10**9), max_size=4)
)
def test_any_refunds_in_any_order_with_any_repeats_leave_the_same_net(
    data: st.DataObject, currency: str, total: int, parts: list[int]
) -> None:
    """Amounts in ISO minor units, told by each provider in its own way of writing."""
    digits = minor_digits(currency)
    expected = (total - sum(parts)) * 10 ** (6 - digits)
    texts = [str(Decimal(amount).scaleb(-digits)) for amount in (total, *parts)]
    at_stripe = stripe_decimals(currency)
    factor = 10 ** max(0, at_stripe - digits)
    plain = {"shopify": 1, "woocommerce": 1, "stripe": 1 if at_stripe >= digits else 0}
    of_shopify: list[Delivery] = [(shopify_order(texts[0], currency), "orders/paid")]
    of_shopify += [(shopify_refund(key, text, currency), "refunds/create") for key, text in enumerate(texts[1:], 1)]
    of_stripe: list[Delivery] = [(stripe_payment(total * factor, currency.lower()), "")]
    of_stripe += [(stripe_refund(f"re_{key}", part * factor, currency.lower()), "") for key, part in enumerate(parts)]
    seen = dict(enumerate(texts[1:], 1))
    of_woo: list[Delivery] = [
        (woo_order(texts[0], currency, {key: seen[key] for key in range(1, upto + 1)}), "order.updated")
        for upto in range(len(parts) + 1)
    ]
    for provider, deliveries in (("shopify", of_shopify), ("stripe", of_stripe), ("woocommerce", of_woo)):
        if not plain[provider]:
            continue  # Stripe has no such amounts: MGA in whole units
        shuffled = data.draw(st.permutations(deliveries + data.draw(st.lists(st.sampled_from(deliveries), max_size=3))))
        state = net([deliver(receiver(provider), body, topic) for body, topic in shuffled])  # type: ignore[arg-type]
        assert (state.net_value_micros, state.currency) == (expected, currency)
