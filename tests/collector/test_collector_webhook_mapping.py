"""What each provider's delivery becomes, field by field; what is left out, and why."""

from __future__ import annotations

from typing import Any

import pytest

from attributary.producers.collector.webhooks import (
    LeadOptions,
    ShopifyOptions,
    StripeOptions,
    WebhookOutcome,
    meta_challenge,
)
from tests.factories.webhooks import (
    NOW,
    PAID_AT,
    SECRET,
    deliver,
    encoded,
    money_set,
    receiver,
    shopify_order,
    shopify_refund,
    signed,
    stripe_event,
    stripe_payment,
    stripe_refund,
    units,
    woo_order,
)


def only(outcome: WebhookOutcome) -> dict[str, Any]:
    assert (outcome.outcome, outcome.status) == ("accepted", 200), outcome.left_out
    (record,) = outcome.records
    return dict(record.fields)


def reason(outcome: WebhookOutcome) -> str:
    assert outcome.records == ()
    assert outcome.status == 200, "another answer makes providers delete the subscription"
    return outcome.left_out[0].reason


def at_stripe(kind: str, entity: dict[str, Any], **options: Any) -> WebhookOutcome:
    return deliver(receiver("stripe", StripeOptions(**options)), stripe_event(kind, entity))


def test_every_field_of_a_shopify_order() -> None:
    order = shopify_order(
        note_attributes=[
            {"name": "_atb", "value": "1.0198b3c0-7a1e-7c00-8000-1234567890ab"},
            {"name": "gclid", "value": "Cj0%2BKC"},
        ],
        landing_site="/p/shoe?utm_source=x&fbclid=IwAR%2B0&gclid=older",
        referring_site="https://www.google.com/",
        email="ada@example.com",
        phone="+4930123456",
        billing_address={
            "first_name": "Ada",
            "last_name": "L",
            "zip": "10115",
            "city": "Berlin",
            "country_code": "DE",
            "address1": "Allee 1",
            "province_code": "BE",
        },
        client_details={"browser_ip": "203.0.113.77", "user_agent": "Mozilla/5.0"},
        source_name="web",
        line_items=[
            {
                "id": 1,
                "sku": "SHOE-42",
                "variant_id": 9,
                "title": "Shoe",
                "vendor": "Acme",
                "quantity": 2,
                "variant_title": "42",
                "price_set": money_set("50.00", "EUR"),
            },
            {"id": 2, "sku": "", "variant_id": 10, "quantity": 1, "price_set": money_set("0.00", "EUR")},
        ],
    )
    fields = only(deliver(receiver("shopify", ShopifyOptions(shop_domain="shop.example")), order, "orders/paid"))
    assert fields["event_id"] == fields["conversion_id"] == "shopify-shop-order-450789469"
    assert (fields["user_id"], fields["anonymous_id"]) == ("207119551", "0198b3c0-7a1e-7c00-8000-1234567890ab")
    assert (fields["value_micros"], fields["currency"], fields["order_id"]) == (units("100"), "EUR", "#1001")
    assert fields["occurred_at"] == 1_767_182_400_000_000
    assert fields["click_ids"] == {"gclid": "Cj0%2BKC", "fbclid": "IwAR%2B0"}, "byte for byte, the cart's own wins"
    assert fields["event_source_url"] == "https://shop.example/p/shoe?utm_source=x&fbclid=IwAR%2B0&gclid=older"
    assert (fields["client_ip_address"], fields["client_user_agent"]) == ("203.0.113.0", "Mozilla/5.0")
    assert [(item["item_id"], item["quantity"], item["price_micros"]) for item in fields["items"]] == [
        ("SHOE-42", 2.0, units("50")),
        ("10", 1.0, 0),
    ]
    assert fields["user_data"]["email"] == "ada@example.com"
    assert fields["action_source"] == "website"
    assert (fields["tenant_id"], fields["kind"], fields["conversion_type"]) == ("acme", "conversion", "purchase")


def test_guests_have_a_keyed_id_or_none() -> None:
    guest = shopify_order(customer=None, email="Ada@Example.com ")
    assert only(deliver(receiver("shopify"), guest, "orders/paid"))["anonymous_id"] == "shopify-shop-order-450789469"
    keyed = receiver("shopify", guest_key="the guests' key")
    first = only(deliver(keyed, guest, "orders/paid"))["user_id"]
    again = only(deliver(keyed, {**guest, "email": "ada@example.com", "id": 2}, "orders/paid"))["user_id"]
    assert first == again
    assert first.startswith("guest-")
    assert "ada" not in first
    other = receiver("shopify", guest_key="another key of it")
    assert only(deliver(other, guest, "orders/paid"))["user_id"] != first


@pytest.mark.parametrize(
    ("topic", "body", "why"),
    [
        ("orders/paid", shopify_order(test=True), "test_data"),
        ("orders/paid", shopify_order(financial_status="voided"), "voided"),
        ("orders/paid", shopify_order(financial_status="pending"), "not_paid"),
        ("orders/create", shopify_order(), "other_purchase_event"),
        ("orders/updated", shopify_order(), "updates_do_not_count"),
        ("orders/edited", {"order_edit": {"order_id": 1}}, "edit_without_amounts"),
        ("orders/cancelled", shopify_order(cancelled_at=PAID_AT), "counted_by_refunds"),
        ("products/update", {"id": 1}, "other_type"),
        ("customers/redact", {"shop_id": 1}, "other_type"),
        ("draft_orders/create", {"id": 1}, "other_type"),
        ("refunds/create", shopify_refund(1, "5.00", transactions=[]), "no_money_moved"),
        (
            "refunds/create",
            shopify_refund(1, "5.00", transactions=[{"kind": "refund", "status": "failure"}]),
            "no_money_moved",
        ),
        # A body under another topic than its own, which no signature forbids.
        ("refunds/create", shopify_order(), "unmapped"),
        ("orders/paid", shopify_refund(1, "5.00"), "unmapped"),
        ("orders/cancelled", shopify_order(), "unmapped"),
        ("orders/paid", {"id": 1}, "unmapped"),
        # What cannot be counted right is not counted.
        ("orders/paid", shopify_order("19.999"), "unmapped"),
        ("orders/paid", shopify_order("1,000.00"), "unmapped"),
        ("orders/paid", shopify_order("-1.00"), "unmapped"),
        ("orders/paid", shopify_order("10.50", "JPY"), "unmapped"),
        ("orders/paid", shopify_order("10.50", "euro"), "unmapped"),
        ("orders/paid", shopify_order(processed_at="2025-12-31T12:00:00"), "unmapped"),
        ("orders/paid", shopify_order(processed_at="2027-12-31T12:00:00Z"), "unmapped"),
        ("orders/paid", shopify_order(id=None), "unmapped"),
        ("orders/paid", shopify_order(id="a b"), "unmapped"),
        ("orders/paid", shopify_order(id=True), "unmapped"),
        ("refunds/create", shopify_refund(1, "5.00", "USD", order_adjustments=[]), "unmapped"),
    ],
)
def test_what_shopify_sends_that_is_no_record(topic: str, body: dict[str, Any], why: str) -> None:
    outcome = deliver(receiver("shopify"), body, topic)
    assert reason(outcome) == why
    assert outcome.outcome == ("unmapped" if why == "unmapped" else "ignored")


@pytest.mark.parametrize(
    ("measure", "order_value", "refunded"),
    [
        ("total", "113.90", "22.80"),
        ("subtotal", "90.00", "18.00"),
        ("without_tax", "99.00", "20.00"),
        ("without_shipping", "104.90", "19.80"),
    ],
)
def test_one_measure_counts_for_the_order_and_its_refund(measure: Any, order_value: str, refunded: str) -> None:
    options = ShopifyOptions(measure=measure)
    order = shopify_order(
        "113.90",
        subtotal_price_set=money_set("90.00", "EUR"),
        total_tax_set=money_set("14.90", "EUR"),
        total_shipping_price_set=money_set("9.00", "EUR"),
    )
    refund = shopify_refund(
        1,
        "22.80",
        refund_line_items=[{"subtotal_set": money_set("18.00", "EUR"), "total_tax_set": money_set("1.80", "EUR")}],
        refund_shipping_lines=[
            {"subtotal_amount_set": money_set("2.00", "EUR"), "tax_amount_set": money_set("1.00", "EUR")}
        ],
        order_adjustments=[{"kind": "shipping_refund", "amount_set": money_set("-2.00", "EUR")}],
    )
    assert only(deliver(receiver("shopify", options), order, "orders/paid"))["value_micros"] == units(order_value)
    assert only(deliver(receiver("shopify", options), refund, "refunds/create"))["value_micros"] == units(refunded)


def test_a_shop_header_changes_no_id() -> None:
    body = encoded(shopify_order())
    headers = signed("shopify", body, "orders/paid") | {"x-shopify-shop-domain": "evil.myshopify.com"}
    assert only(receiver("shopify").receive(body, headers, NOW))["event_id"] == "shopify-shop-order-450789469"


def test_every_field_of_a_stripe_payment() -> None:
    session = {
        "id": "cs_1",
        "object": "checkout.session",
        "payment_status": "paid",
        "payment_intent": "pi_9",
        "amount_total": 1_050,
        "currency": "kwd",
        "created": 1_767_182_400,
        "client_reference_id": "1.0198b3c0-7a1e",
        "customer": "cus_1",
        "metadata": {"order_id": "A-7"},
        "customer_details": {"email": "ada@example.com", "address": {"city": "Berlin", "country": "DE"}},
    }
    fields = only(
        deliver(
            receiver("stripe", StripeOptions(purchase="checkout")), stripe_event("checkout.session.completed", session)
        )
    )
    assert fields["event_id"] == fields["conversion_id"] == "stripe-pi_9"
    assert (fields["value_micros"], fields["currency"]) == (units("1.050"), "KWD")
    assert (fields["anonymous_id"], fields["user_id"], fields["order_id"]) == ("0198b3c0-7a1e", "cus_1", "A-7")
    assert fields["occurred_at"] == 1_767_182_400_000_000, "the object's own time, not the event's"
    assert (fields["user_data"]["email"], fields["user_data"]["city"]) == ("ada@example.com", "Berlin")


def test_a_renewal_is_one_and_the_charge_names_its_intent() -> None:
    invoice = {
        "id": "in_1",
        "payment_intent": {"id": "pi_3"},
        "amount_paid": 999,
        "currency": "usd",
        "created": int(NOW) - 9,
        "billing_reason": "subscription_cycle",
        "customer": {"id": "cus_2"},
    }
    fields = only(at_stripe("invoice.paid", invoice, purchase="invoice"))
    assert (fields["conversion_type"], fields["conversion_id"], fields["user_id"]) == (
        "renewal",
        "stripe-pi_3",
        "cus_2",
    )
    basil = {**invoice, "payment_intent": None, "payments": {"data": [{"payment": {"payment_intent": "pi_4"}}]}}
    assert (
        only(deliver(receiver("stripe", StripeOptions(purchase="invoice")), stripe_event("invoice.paid", basil)))[
            "conversion_id"
        ]
        == "stripe-pi_4"
    )
    charge = {
        "id": "ch_1",
        "payment_intent": "pi_5",
        "amount": 500,
        "captured": True,
        "currency": "eur",
        "created": 1_767_182_400,
    }
    fields = only(
        deliver(receiver("stripe", StripeOptions(purchase="charge")), stripe_event("charge.captured", charge))
    )
    assert (fields["conversion_id"], fields["anonymous_id"]) == ("stripe-pi_5", "stripe-pi_5")


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (stripe_event("charge.succeeded", {"id": "ch_1"}), "other_purchase_event"),
        (stripe_event("checkout.session.completed", {"id": "cs_1"}), "other_purchase_event"),
        (stripe_event("customer.created", {"id": "cus_1"}), "other_type"),
        (stripe_event("charge.refunded", {"id": "ch_1"}), "counted_by_refund"),
        (stripe_event("charge.dispute.closed", {"id": "dp_1", "status": "lost"}), "dispute"),
        ({**stripe_payment(100), "livemode": False}, "test_data"),
        ({**stripe_payment(100), "livemode": "true"}, "test_data"),
        (stripe_payment(0), "zero"),
        (stripe_payment(50, "isk"), "unmapped"),
        (stripe_payment(-5), "unmapped"),
        (stripe_payment(100, "xau"), "unmapped"),
        (stripe_payment(100, "clf"), "unmapped"),
        (stripe_payment(100, "iqd"), "unmapped"),
        ({**stripe_payment(100), "object": "v2.core.event"}, "unmapped"),
        (stripe_payment(100, created="yesterday"), "unmapped"),
        (stripe_payment(100, id=None), "unmapped"),
        (stripe_payment(100, amount_received="100"), "unmapped"),
        (stripe_refund("re_1", 100, payment_intent=None, charge=None), "unmapped"),
    ],
)
def test_what_stripe_sends_that_is_no_record(event: dict[str, Any], why: str) -> None:
    assert reason(deliver(receiver("stripe"), event)) == why


def test_stripe_options_decide_what_counts() -> None:
    test_mode = {**stripe_payment(100), "livemode": False}
    assert only(deliver(receiver("stripe", StripeOptions(allow_test=True)), test_mode))["value_micros"] == units("1")
    dispute = stripe_event(
        "charge.dispute.closed",
        {
            "id": "dp_1",
            "status": "lost",
            "amount": 700,
            "currency": "eur",
            "payment_intent": "pi_1",
            "created": int(NOW) - 5,
        },
    )
    lost = only(deliver(receiver("stripe", StripeOptions(disputes="lost")), dispute))
    assert (lost["kind"], lost["conversion_id"], lost["value_micros"]) == ("refund", "stripe-pi_1", units("7"))
    by_user = {"purchase": "checkout", "client_reference": "user_id"}
    completed = "checkout.session.completed"
    session = {
        "payment_status": "paid",
        "payment_intent": "pi_9",
        "amount_total": 100,
        "currency": "eur",
        "created": int(NOW),
        "client_reference_id": "u-17",
    }
    assert only(at_stripe(completed, session, **by_user))["user_id"] == "u-17"
    assert reason(at_stripe(completed, {**session, "payment_intent": None}, **by_user)) == "unmapped"
    assert reason(at_stripe(completed, {**session, "payment_status": "unpaid"}, **by_user)) == "not_paid"


def test_every_field_of_a_woocommerce_order() -> None:
    order = woo_order(
        "27.50",
        created_via="checkout",
        billing={"email": "ada@example.com", "postcode": "10115", "country": "DE"},
        customer_ip_address="2001:db8:1:2:3::4",
        customer_user_agent="Mozilla/5.0",
        line_items=[
            {"id": 1, "product_id": 93, "variation_id": 0, "sku": "", "name": "Mug", "quantity": 2, "price": 13.75}
        ],
        meta_data=[
            {"id": 1, "key": "_atb", "value": "0198b3c0-7a1e"},
            {"id": 2, "key": "odd", "value": {"a": 1}},
            {"id": 3, "key": "_wc_order_attribution_session_entry", "value": "https://s.example/?gclid=A%2Bb"},
            {"id": 4, "key": "_wc_order_attribution_referrer", "value": "https://www.bing.com/"},
        ],
    )
    fields = only(deliver(receiver("woocommerce"), order, "order.created"))
    assert fields["event_id"] == "woo-shop-order-727"
    assert (fields["value_micros"], fields["currency"], fields["order_id"]) == (units("27.5"), "EUR", "727")
    assert fields["occurred_at"] == 1_767_182_400_000_000, "date_paid_gmt is UTC"
    assert (fields["anonymous_id"], fields["user_id"], fields["click_ids"]) == (
        "0198b3c0-7a1e",
        "26",
        {"gclid": "A%2Bb"},
    )
    assert fields["client_ip_address"] == "2001:db8:1::"
    assert fields["items"][0]["price_micros"] == units("13.75")
    assert fields["referrer"] == "https://www.bing.com/"


@pytest.mark.parametrize(
    ("topic", "order", "why"),
    [
        ("order.updated", woo_order(status="pending"), "not_paid"),
        ("order.updated", woo_order(status="on-hold"), "not_paid"),
        ("order.updated", woo_order(status="failed"), "not_paid"),
        ("order.updated", woo_order(status="cancelled", date_paid_gmt=None), "not_paid"),
        ("order.deleted", {"id": 727}, "other_type"),
        ("product.updated", {"id": 1}, "other_type"),
        ("order.updated", {"id": 727}, "unmapped"),
        ("order.updated", woo_order("19.999"), "unmapped"),
        ("order.updated", woo_order("10.5", "JPY"), "unmapped"),
    ],
)
def test_what_woocommerce_sends_that_is_no_record(topic: str, order: dict[str, Any], why: str) -> None:
    assert reason(deliver(receiver("woocommerce"), order, topic)) == why


def test_a_refund_that_cannot_be_read_spoils_no_order() -> None:
    outcome = deliver(receiver("woocommerce"), woo_order(refunds={1: "5.00", 2: "0.001", 3: "0.00"}), "order.updated")
    assert [record.fields["event_id"] for record in outcome.records] == ["woo-shop-order-727", "woo-shop-refund-1"]
    assert [(left.reason, left.field) for left in outcome.left_out] == [
        ("unmapped", "refunds.total"),
        ("no_money_moved", ""),
    ]


def test_the_set_up_calls_are_answered() -> None:
    assert receiver("woocommerce").receive(b"webhook_id=17", {}, NOW).status == 200
    for body in (b"webhook_id=17&x=1", b"webhook_id=", b"webhook_id=a", b" webhook_id=1"):
        assert receiver("woocommerce").receive(body, {}, NOW).status == 401
    source = receiver("meta_leads").source
    right = {"hub.mode": "subscribe", "hub.verify_token": "the token of the page", "hub.challenge": "1158201444"}
    assert (meta_challenge(source, right).status, meta_challenge(source, right).reply) == (200, "1158201444")
    for wrong in ({"hub.verify_token": "x"}, {"hub.verify_token": ""}, {"hub.mode": "x"}, {"hub.challenge": "é"}):
        assert meta_challenge(source, {**right, **wrong}).status == 403
    unset = receiver("meta_leads", LeadOptions()).source
    assert meta_challenge(unset, {**right, "hub.verify_token": ""}).status == 403


def test_metas_leads_are_touch_and_conversion() -> None:
    lead = {
        "leadgen_id": "120210000000001",
        "form_id": 77,
        "page_id": "5",
        "ad_id": 23_851_000,
        "created_time": int(NOW) - 9,
    }
    body = {
        "object": "page",
        "entry": [
            {
                "changes": [
                    {"field": "leadgen", "value": lead},
                    {"field": "leadgen", "value": {**lead, "leadgen_id": 2, "ad_id": None}},
                    {"field": "leadgen", "value": {"leadgen_id": "44444444444444", "created_time": 1}},
                    {"field": "feed", "value": {}},
                    {"field": "leadgen", "value": {"leadgen_id": 3}},
                ]
            }
        ],
    }
    options = LeadOptions(value="20.00", currency="EUR", form_values={"77": "35.50"})
    outcome = deliver(receiver("meta_leads", options), body)
    assert [(record.name, record.fields["event_id"]) for record in outcome.records] == [
        ("touchpoint", "meta-lead-120210000000001-touch"),
        ("conversion", "meta-lead-120210000000001"),
        ("conversion", "meta-lead-2"),
    ]
    touch, conversion = (record.fields for record in outcome.records[:2])
    assert (touch["platform"], touch["channel"], touch["ad_id"]) == ("meta", "paid_social", "23851000")
    assert touch["anonymous_id"] == conversion["anonymous_id"]
    assert conversion["properties"] == {"lead_id": "120210000000001", "form_id": "77", "page_id": "5"}
    assert (conversion["conversion_type"], conversion["value_micros"]) == ("lead", units("35.50"))
    assert [left.reason for left in outcome.left_out] == ["test_data", "other_type", "unmapped"]


def test_googles_leads_are_the_same_record_within_the_hour() -> None:
    lead = {
        "lead_id": "TeSter123ABC",
        "api_version": "1.0",
        "form_id": 40_000_000_000,
        "campaign_id": 2**60 + 1,
        "google_key": SECRET,
        "is_test": False,
        "gcl_id": "EAIaIQ_x",
        "adgroup_id": 20_000,
        "creative_id": 30_000,
        "user_column_data": [
            {"column_id": "FULL_NAME", "string_value": "Ada King Lovelace"},
            {"column_id": "EMAIL", "string_value": "ada@example.com"},
        ],
    }
    to = receiver("google_leads")
    first, again, later = (deliver(to, lead, now=NOW + seconds) for seconds in (0, 3_599, 3_600))
    assert first == again
    assert [record.fields["event_id"] for record in later.records] == [
        "google-lead-TeSter123ABC-touch",
        "google-lead-TeSter123ABC",
    ]
    touch, conversion = (record.fields for record in first.records)
    assert touch["campaign_id"] == str(2**60 + 1), "64-bit numbers keep every digit"
    assert touch["click_ids"] == conversion["click_ids"] == {"gclid": "EAIaIQ_x"}
    assert (conversion["user_data"]["first_name"], conversion["user_data"]["last_name"]) == ("Ada King", "Lovelace")
    assert SECRET not in repr(first)
    assert reason(deliver(to, {**lead, "is_test": True})) == "test_data"
    assert to.receive(encoded({**lead, "google_key": "wrong"}), {}, NOW).status == 401
