"""Mapping files of other senders, the file of sources, and bodies that nobody meant."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from attributary.producers.collector.webhooks import (
    ShopifyOptions,
    SignedJsonOptions,
    SourceError,
    StripeOptions,
    WebhookReceiver,
    WebhookSource,
    WooCommerceOptions,
    read_sources,
)
from attributary.producers.collector.webhooks.source import read_options
from tests.factories.webhooks import (
    NOW,
    SECRET,
    deliver,
    encoded,
    receiver,
    shopify_order,
    shopify_refund,
    stripe_event,
    stripe_payment,
    stripe_refund,
    units,
    woo_order,
)

MAPPING = """
type: event.type
test: event.sandbox
records:
  - when: [order.paid, order.captured]
    kind: conversion
    map: {event_id: order.id, conversion_id: order.id, user_id: buyer.ref, occurred_at: order.at, value: order.cents,
          currency: order.currency, order_id: order.number, click_ids.gclid: buyer.gclid}
    constant: {conversion_type: purchase}
    time_format: s
    minor_units: true
  - when: order.refunded
    kind: conversion
    map: {conversion_id: order.id, occurred_at: order.at, value: order.amount, currency: order.currency}
    constant: {conversion_type: purchase, kind: refund}
  - when: visit
    kind: touchpoint
    map: {anonymous_id: visitor, occurred_at: at, landing_url: url}
"""
KEY = base64.b64encode(b"a key of twenty bytes").decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop-system.yaml").write_text(MAPPING)
    return tmp_path


def standard(folder: Path, **others: Any) -> WebhookReceiver:
    source = WebhookSource(
        name="till",
        provider="standard",
        tenant_id="acme",
        secrets=(f"whsec_{KEY}",),
        options=SignedJsonOptions(mapping="shop-system.yaml"),
        **others,
    )
    return WebhookReceiver(source, folder)


def sent(to: WebhookReceiver, body: Any, identity: str = "msg_1", now: float = NOW) -> Any:
    raw = encoded(body)
    mac = hmac.new(base64.b64decode(KEY), f"{identity}.{int(now)}.".encode() + raw, hashlib.sha256).digest()
    headers = {
        "webhook-id": identity,
        "webhook-timestamp": str(int(now)),
        "webhook-signature": "v1," + base64.b64encode(mac).decode(),
    }
    return to.receive(raw, headers, now)


def paid(**order: Any) -> dict[str, Any]:
    facts = {"id": "A-1", "at": int(NOW) - 60, "cents": 10_005, "currency": "KWD", "number": "1", **order}
    return {"event": {"type": "order.paid"}, "order": facts, "buyer": {"ref": "u-17", "gclid": "Cj0%2BKC"}}


def test_a_mapping_file_makes_records_of_any_signed_json(folder: Path) -> None:
    (record,) = sent(standard(folder), paid()).records
    assert (record.name, record.fields["event_id"], record.fields["user_id"]) == ("conversion", "A-1", "u-17")
    assert (record.fields["value_micros"], record.fields["currency"]) == (units("10.005"), "KWD")
    assert record.fields["click_ids"] == {"gclid": "Cj0%2BKC"}
    assert record.fields["tenant_id"] == "acme"


def test_the_id_of_a_delivery_stands_for_an_event_id(folder: Path) -> None:
    """The signed id is the same in every retry; a refund without a buyer stands for its conversion."""
    body = {
        "event": {"type": "order.refunded"},
        "order": {"id": "A-1", "at": "2025-12-31T12:00:00Z", "amount": "5.005", "currency": "KWD"},
    }
    first, retry, other = (
        sent(standard(folder), body, *each) for each in (("msg_1",), ("msg_1", NOW + 200), ("msg_2",))
    )
    assert first == retry
    assert [each.records[0].fields["event_id"] for each in (first, other)] == ["till-msg_1", "till-msg_2"]
    fields = first.records[0].fields
    assert (fields["kind"], fields["conversion_id"], fields["anonymous_id"]) == ("refund", "A-1", "A-1")
    assert fields["value_micros"] == units("5.005")


def test_a_landing_in_a_delivery_becomes_a_touchpoint(folder: Path) -> None:
    body = {
        "event": {"type": "visit"},
        "visitor": "v-1",
        "at": "2025-12-31T12:00:00Z",
        "url": "https://s.example/?gclid=A%2Bb",
    }
    (record,) = sent(standard(folder, consent={"ad_storage": True}), body).records
    assert (record.fields["channel"], record.fields["click_ids"]) == ("paid_search", {"gclid": "A%2Bb"})
    assert record.fields["consent"] == {"ad_storage": True}


@pytest.mark.parametrize(
    ("body", "outcome", "reason", "field"),
    [
        ({"event": {"type": "order.shipped"}}, "ignored", "other_type", ""),
        ({}, "ignored", "other_type", ""),
        ({**paid(), "event": {"type": "order.paid", "sandbox": True}}, "ignored", "test_data", ""),
        (paid(cents="10.5"), "unmapped", "unmapped", "value"),
        (paid(cents=-1), "unmapped", "unmapped", "value"),
        (paid(currency="kw"), "unmapped", "unmapped", "currency"),
        (paid(at="yesterday"), "unmapped", "unmapped", "occurred_at"),
        (paid(id=None), "accepted", "", ""),
        (paid(at=None), "unmapped", "unmapped", "occurred_at"),
    ],
)
def test_what_a_mapping_does_not_take(folder: Path, body: Any, outcome: str, reason: str, field: str) -> None:
    found = sent(standard(folder), body)
    assert (found.outcome, found.status) == (outcome, 200)
    if reason:
        assert (found.left_out[0].reason, found.left_out[0].field) == (reason, field)


SCHEMES: list[tuple[dict[str, Any], bytes, str]] = [
    ({"signature_prefix": "sha256="}, b"%b", "x-signature: sha256={hex}"),  # GitHub's form
    ({"signature_header": "X-Mac", "encoding": "base64"}, b"%b", "x-mac: {base64}"),
    (
        {"signature_prefix": "v0=", "timestamp_header": "X-Time", "signed": "v0:{timestamp}:{body}"},
        b"v0:1767225600:%b",
        "x-signature: v0={hex}\nx-time: 1767225600",
    ),  # Slack's form
    (
        {"signature_header": "TikTok-Signature", "signature_key": "s", "timestamp_key": "t"},
        b"1767225600.%b",
        "tiktok-signature: t=1767225600,s={hex}",
    ),
    (
        {
            "signature_header": "Paddle-Signature",
            "signature_key": "h1",
            "timestamp_key": "ts",
            "signed": "{timestamp}:{body}",
        },
        b"1767225600:%b",
        "paddle-signature: ts=1767225600;h1={hex}",
    ),
    ({"timestamp_header": "X-Time"}, b"1767225600000.%b", "x-signature: {hex}\nx-time: 1767225600000"),  # milliseconds
]


@pytest.mark.parametrize(
    ("options", "signed", "lines"),
    SCHEMES,
    ids=[lines.split(":")[0] + str(at) for at, (_, _, lines) in enumerate(SCHEMES)],
)
def test_signed_json_in_other_schemes(folder: Path, options: dict[str, Any], signed: bytes, lines: str) -> None:
    body = encoded(paid())
    chosen = read_options("till", "signed_json", {"mapping": "shop-system.yaml", **options})
    source = WebhookSource(name="till", provider="signed_json", tenant_id="acme", secrets=(SECRET,), options=chosen)
    to = WebhookReceiver(source, folder)
    mac = hmac.new(SECRET.encode(), signed % body, hashlib.sha256).digest()
    written = lines.format(hex=mac.hex(), base64=base64.b64encode(mac).decode())
    right = dict(line.split(": ", 1) for line in written.splitlines())
    assert to.receive(body, right, NOW).outcome == "accepted"
    assert to.receive(body + b" ", right, NOW).outcome == "refused"
    assert to.receive(body, {}, NOW).status == 401
    assert to.receive(body, dict.fromkeys(right, ""), NOW).status == 401
    has_time = b"1767" in signed
    assert (to.receive(body, right, NOW + 301).outcome == "refused") is has_time


@pytest.mark.parametrize(
    "options",
    [{"signed": "{body}{body}"}, {"signed": "x"}, {"signed": "{timestamp}{body}"}, {"timestamp_key": "t"},
     {"timestamp_header": "x-time", "signed": "{body}"}],
)  # fmt: skip
def test_a_scheme_that_signs_nothing_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(SourceError, match=r"signed must hold|needs signature_key"):
        read_options("till", "signed_json", {"mapping": "m.yaml", **options})


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("- a", "records"),
        ("records: {}", "records"),
        ("records: [1]", "must be a mapping"),
        ("a: [", "not YAML"),
        ("records: [{kind: order}]", "kind must be one of"),
        ("records: [{kind: conversion, mapp: {}}]", "mapp is not known"),
        ("records: [{kind: conversion, when: x}]", "type must be a path"),
        ("other: 1\nrecords: []", "other is not known"),
        ("records: [{kind: conversion, map: {colour: x}}]", "no such field"),
        ("records: [{kind: conversion, constant: {value_micros: x}}]", "value_micros"),
        ("records: [{kind: conversion, timezone: Mars/Base}]", "timezone"),
    ],
)
def test_a_mapping_file_that_cannot_be_used_says_why(tmp_path: Path, text: str, rule: str) -> None:
    (tmp_path / "shop-system.yaml").write_text(text)
    with pytest.raises(SourceError, match=rule):
        standard(tmp_path)


SOURCES = """
webhooks:
  - name: shop
    provider: shopify
    tenant: acme
    path: kd83hf02mslq94jd
    secrets: [env:SHOP_SECRET, file:{folder}/old]
    options: {{currency: EUR, basis: shop_money}}
    consent: {{ad_storage: true}}
  - {{name: pay, provider: stripe, tenant: acme, secrets: [env:SHOP_SECRET], ip: none, tolerance_seconds: 60}}
"""


def test_the_file_of_sources(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("an older secret\n")
    file = tmp_path / "webhooks.yaml"
    file.write_text(SOURCES.format(folder=tmp_path))
    shop, pay = read_sources(file, {"SHOP_SECRET": SECRET})
    assert (shop.secrets, shop.options) == ((SECRET, "an older secret"), ShopifyOptions(currency="EUR"))
    assert (pay.options, pay.ip, pay.tolerance_seconds) == (StripeOptions(), "none", 60.0)
    with pytest.raises(SourceError, match="SHOP_SECRET is not set"):
        read_sources(file, {})
    assert len(read_sources(file, {}, with_secrets=False)) == 2


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("webhooks: 1", "list of sources"),
        ("hooks: []", "list of sources"),
        ("webhooks: [1]", "must be a mapping"),
        ("webhooks: [{name: a, colour: b}]", "colour is not known"),
        ("webhooks: [{name: 7}]", "name must be a text"),
        ("webhooks: [{name: a, provider: paypal, secrets: ['env:S']}]", "provider must be one of shopify"),
        ("webhooks: [{name: a, provider: stripe, tenant: acme, secrets: [hunter22]}]", "never the secret itself"),
        ("webhooks: [{name: a, provider: stripe, tenant: acme, secrets: ['file:/nowhere']}]", "cannot be read"),
        ("webhooks: [{name: a, provider: stripe, tenant: acme}]", "secrets at least one"),
        ("webhooks: [{name: a, provider: stripe, tenant: ACME, secrets: ['env:S']}]", "tenant must be"),
        ("webhooks: [{name: a, provider: stripe, tenant: acme, path: x, secrets: ['env:S']}]", "path must be"),
        (
            "webhooks: [{name: a, provider: stripe, tenant: acme, secrets: ['env:S'], options: {currency: EUR}}]",
            "not known",
        ),
        (
            "webhooks: [{name: a, provider: stripe, tenant: acme, secrets: ['env:S'], options: {allow_test: 1}}]",
            "true or false",
        ),
        (
            "webhooks: [{name: a, provider: shopify, tenant: acme, secrets: ['env:S'], options: {currency: euro}}]",
            "ISO 4217",
        ),
        (
            "webhooks: [{name: a, provider: shopify, tenant: acme, secrets: ['env:S'], options: {basis: x}}]",
            "basis must be one",
        ),
        ("webhooks: [{name: a, provider: signed_json, tenant: acme, secrets: ['env:S']}]", "mapping must name"),
        ("webhooks: [{name: a, provider: stripe, tenant: acme, secrets: ['env:S'], consent: {a: 1}}]", "consent"),
        ("webhooks: [{name: a, provider: stripe, tenant: acme, secrets: ['env:S'], ip: all}]", "ip must be"),
        (
            (
                "webhooks: [{name: a, provider: stripe, tenant: t, secrets: ['env:S']}, "
                "{name: a, provider: stripe, tenant: t, secrets: ['env:S']}]"
            ),
            "same name",
        ),
    ],
)
def test_a_file_of_sources_that_cannot_be_used_says_why(tmp_path: Path, text: str, rule: str) -> None:
    file = tmp_path / "webhooks.yaml"
    file.write_text(text)
    with pytest.raises(SourceError, match=rule) as raised:
        read_sources(file, {"S": SECRET})
    assert SECRET not in str(raised.value)
    assert "hunter22" not in str(raised.value)


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(
        [
            "2025-12-31T12:00:00Z",
            "0001-01-01T00:00:00+23:59",
            "99999999999999999999",
            "1e400",
            "1e-400",
            "\0",
            "\ud800",
            "NaN",
            "EUR",
            "eur",
            "paid",
            "processing",
            "leadgen",
            "success",
            "refund",
            "pi_1",
            10**400,
        ]
    )
)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
ODD_BODIES = [
    b"",
    b"null",
    b"[]",
    b"1",
    b'"a"',
    b"{",
    b"\xff\xfe{\x00}\x00",
    b"\xef\xbb\xbf{}",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"id": NaN}',
    b'{"id": 1e400}',
    b'{"id": ' + b"9" * 5_000 + b"}",
    b"\xff",
    b'{"id": 1, "id": 2}',
    b'{"a": "\\ud800"}',
    b'{"' + b"k" * 1_000_000 + b'": 1}',
]


def mutated(draw: st.DrawFn, base: Any) -> Any:
    """A real delivery with a few of its values, at any depth, replaced by others."""
    document = json.loads(json.dumps(base))
    for _ in range(draw(st.integers(1, 4))):
        at: Any = document
        while isinstance(at, dict | list) and at:
            key = draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
            if not isinstance(at[key], dict | list) or not at[key] or draw(st.booleans()):
                at[key] = draw(JSON)
                break
            at = at[key]
    return document


@st.composite
def mutations(draw: st.DrawFn, bases: list[Any]) -> Any:
    return mutated(draw, draw(st.sampled_from(bases)))


RICH_ORDER = shopify_order(
    line_items=[{"sku": "a", "quantity": 1, "price_set": {"shop_money": {"amount": "1"}}}],
    landing_site="/?gclid=1",
    note_attributes=[{"name": "_atb", "value": "1"}],
    client_details={"browser_ip": "::1"},
    billing_address={"zip": "1"},
)
RICH_WOO = woo_order(
    refunds={1: "1.00"}, line_items=[{"sku": "a", "quantity": 1, "price": 1}], meta_data=[{"key": "_atb", "value": "x"}]
)
LEAD = {
    "object": "page",
    "entry": [{"changes": [{"field": "leadgen", "value": {"leadgen_id": 1, "created_time": 1, "ad_id": 1}}]}],
}
GOOGLE = {
    "lead_id": "a",
    "google_key": SECRET,
    "gcl_id": "x",
    "user_column_data": [{"column_id": "EMAIL", "string_value": "a@b.c"}],
}
CHARGE = stripe_event("charge.refunded", {"id": "ch_1", "amount": 5, "amount_refunded": 1, "currency": "eur"})
DELIVERIES: list[tuple[Any, str, Any, list[Any]]] = [
    ("shopify", "orders/paid", ShopifyOptions(), [RICH_ORDER]),
    ("shopify", "orders/updated", ShopifyOptions(restate_on_update=True, measure="without_tax"), [RICH_ORDER]),
    (
        "shopify",
        "orders/cancelled",
        ShopifyOptions(purchase_topic="orders/create"),
        [{**RICH_ORDER, "cancelled_at": "x"}],
    ),
    (
        "shopify",
        "refunds/create",
        ShopifyOptions(measure="subtotal"),
        [shopify_refund(1, "1.00"), shopify_refund(2, "1", "JPY")],
    ),
    ("stripe", "", StripeOptions(disputes="lost"), [stripe_payment(100), stripe_refund("re_1", 5)]),
    (
        "stripe",
        "",
        StripeOptions(purchase="charge", refunds="charge"),
        [CHARGE, stripe_event("charge.succeeded", {"captured": True})],
    ),
    (
        "stripe",
        "",
        StripeOptions(purchase="invoice"),
        [stripe_event("invoice.paid", {"id": "in_1", "payments": {"data": [{}]}})],
    ),
    (
        "woocommerce",
        "order.updated",
        WooCommerceOptions(restate_on_update=True),
        [RICH_WOO, {**RICH_WOO, "status": "cancelled"}],
    ),
    ("meta_leads", "", None, [LEAD]),
    ("google_leads", "", None, [GOOGLE]),
]


@settings(
    max_examples=60,
    phases=[Phase.explicit, Phase.generate],  # a failure shows its draw; to shrink it takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    deadline=None,
)
@given(data=st.data())
def test_no_signed_body_makes_any_mapping_raise(folder: Path, data: st.DataObject) -> None:
    """Signed bodies of any shape: 200, and every record that comes out keeps its schema's rules (checked inside)."""
    for provider, topic, options, bases in DELIVERIES:
        body = data.draw(mutations(bases))
        outcome = deliver(receiver(provider, options), body, topic)
        if provider == "google_leads" and body.get("google_key") != SECRET:
            assert outcome.status == 401
            continue
        assert outcome.status == 200
        assert outcome.records or outcome.left_out or provider == "meta_leads"
    assert sent(standard(folder), data.draw(mutations([paid()]))).status == 200


@pytest.mark.parametrize("body", ODD_BODIES, ids=range(len(ODD_BODIES)))
def test_odd_bodies_are_answered(body: bytes) -> None:
    for provider, topic in (
        ("shopify", "orders/paid"),
        ("stripe", ""),
        ("woocommerce", "order.updated"),
        ("meta_leads", ""),
    ):
        outcome = deliver(receiver(provider), body, topic)  # type: ignore[arg-type]
        assert (outcome.outcome, outcome.status, outcome.records) == ("unmapped", 200, ())
    assert receiver("google_leads").receive(body, {}, NOW).status == 401


@given(body=st.binary(max_size=300), topic=st.text(max_size=20))
@example(body=b"{}", topic="orders/paid")
def test_any_bytes_are_answered(body: bytes, topic: str) -> None:
    for provider in ("shopify", "stripe", "woocommerce", "meta_leads"):
        assert deliver(receiver(provider), body, topic).status == 200
