"""Any conversion that schema and rules allow: never an exception, and nothing sent that the APIs would refuse."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.consumers.destinations.destination import Account, HttpRequest, HttpResponse, Moment, PreparedEvent
from attributary.consumers.destinations.ga4.destination import Ga4Destination
from attributary.consumers.destinations.memory_ledger import MemoryLedger
from attributary.consumers.destinations.meta.destination import MetaDestination
from attributary.consumers.destinations.prepare import prepare
from attributary.consumers.store.deliveries.delivery import DeliveryState
from attributary.local.fakes.ga4_checks import messages_of
from attributary.local.fakes.meta_checks import broken_event
from attributary.schemas.limits import ACTION_SOURCES
from attributary.schemas.rules import check_conversion
from tests.forwarder.forwarder_factories import (
    CODEC,
    HASH,
    ScriptedTransport,
    SimulatedClock,
    ga4_account,
    meta_account,
    records,
    stage_for,
)

NOW = 1_795_500_000_000_000
odd = st.sampled_from(
    ["", " ", "a@b.example", "+49 171 1234567", "GA1.1.1.2", "GS2.1.s17$o1", "NaN", "inf", "1e400", "-Infinity", "0.1",
     "1_0", "undefined", "{{x}}", "https://a.b/?email=a@b.de", "a.b/c", "::ffff:10.0.0.1", "fb.1.1.x", "9" * 400, "-0"]
)  # fmt: skip
text = st.text(max_size=120) | odd
short = st.text(min_size=1, max_size=60)
names = short | st.sampled_from(
    ["value", "currency", "session_id", "items", "ga_x", "user.plan", "user.user_id", "content_name", "predicted_ltv",
     "page_location", "num_items", "discount", "index", "tax", "level", "email", "price", "quantity",
     "delivery_category", "net_revenue", "advertiser_tracking_enabled", "application_tracking_enabled",
     "transaction_id", "engagement_time_msec", "extinfo", "firebase_conversion"]
)  # fmt: skip
maybe = st.none() | text
consents = st.dictionaries(
    st.sampled_from(["ad_storage", "ad_user_data", "ad_personalization", "analytics_storage"]), st.booleans()
)
click_ids = st.dictionaries(
    st.sampled_from(["fbc", "fbp", "fbclid", "lead_id", "fb_login_id", "madid", "gclid"]),
    text | st.sampled_from(["fb.1.1554763741205.AbC", "fb.1.1554763741205.AbC.AQ", "fb.1.1558571054389.12"]),
)
items = st.lists(
    st.fixed_dictionaries(
        {"item_id": short},
        optional={
            "item_name": maybe,
            "quantity": st.floats(5e-324, 1.7e308),
            "price_micros": st.none() | st.integers(0, 10**17),
            "properties": st.dictionaries(names, text, max_size=13),
        },
    ),
    max_size=4,
)
user_data = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ["email", "phone", "first_name", "last_name", "date_of_birth", "gender", "street", "city", "region",
         "postal_code", "country", "external_id"],
        maybe,
    )
    | {
        "meta_hashes": st.dictionaries(st.sampled_from(["em", "ph", "country", "ct", "odd"]), st.just([HASH])),
        "google_hashes": st.dictionaries(st.sampled_from(["sha256_email_address", "sha256_street"]), st.just([HASH])),
    },
)  # fmt: skip
conversions = st.fixed_dictionaries(
    {
        "tenant_id": st.just("acme"),
        "event_id": short,
        "conversion_type": st.sampled_from(["purchase", "lead", "add_to_cart", "page_view", "signup", "session_start"])
        | short.map(lambda word: word.strip().lower()),
        "anonymous_id": short,
        "occurred_at": st.integers(NOW - 4 * 86_400_000_000, NOW + 80_000_000_000),
    },
    optional={
        "kind": st.sampled_from(["conversion", "conversion", "refund", "cancellation", "restatement"]),
        "conversion_id": st.just("c-1"),
        "user_id": short,
        "value_micros": st.integers(0, 10**13).map(lambda cents: cents * 10_000),
        "currency": st.sampled_from(["EUR", "USD", "XXX"]),
        "order_id": maybe,
        "items": items,
        "properties": st.dictionaries(names, text, max_size=30),
        "user_data": st.none() | user_data,
        "action_source": st.sampled_from(sorted(ACTION_SOURCES)),
        "event_source_url": maybe,
        "referrer": maybe,
        "client_ip_address": maybe | st.ip_addresses().map(str),
        "client_user_agent": maybe,
        "click_ids": click_ids,
        "ga_client_id": maybe,
        "ga_session_id": maybe | st.just("17"),
        "engagement_time_msec": st.none() | st.integers(0, 2**63 - 1),
        "consent": st.none() | consents,
        "opt_out": st.booleans(),
        "data_processing_options": st.sampled_from([[], ["LDU"]]),
        "data_processing_country": st.none() | st.sampled_from([0, 1]),
        "data_processing_state": st.none() | st.sampled_from([0, 1000, 1013]),
    },
)


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def prepared(destination: Any, fields: dict[str, Any], account: Any) -> PreparedEvent | None:
    if check_conversion(fields, now_micros=NOW):
        return None
    conversion = CODEC.decode("conversion", CODEC.encode("conversion", fields))
    found = prepare(destination, conversion, account, Moment(NOW, NOW), unknown="send")
    if isinstance(found, PreparedEvent):
        return found
    assert found.reason
    assert not found.reason.startswith("the event cannot be built"), "a fault of ours, seen by its net"
    return None


@settings(max_examples=400, deadline=None)
@given(conversions)
def test_f1_meta_is_sent_nothing_that_it_would_refuse(fields: dict[str, Any]) -> None:
    event = prepared(MetaDestination(), fields, meta_account())
    if event is not None:
        assert broken_event(json.loads(event.body, parse_constant=_refuse), NOW / 1e6) is None


@settings(max_examples=400, deadline=None)
@given(conversions)
def test_f1_ga4_is_sent_nothing_that_it_would_drop(fields: dict[str, Any]) -> None:
    event = prepared(Ga4Destination(), fields, ga4_account())
    if event is not None:
        body = Ga4Destination().request(ga4_account(), [event]).body
        assert messages_of(json.loads(body, parse_constant=_refuse), len(body), app=False) == []


def app_account() -> Account:
    return Account("acme", "ga4", "1:2:android:3f", "s", {"firebase_app_id": "1:2:android:3f", "measurement_id": "G-1"})


@settings(max_examples=150, deadline=None)
@given(conversions, st.sampled_from(["", "x" * 32, "0" * 32, "0123456789abcdef" * 2, " "]))
def test_f1_ga4_is_sent_nothing_that_an_app_stream_would_drop(fields: dict[str, Any], instance: str) -> None:
    event = prepared(Ga4Destination(), fields | {"ga_app_instance_id": instance}, app_account())
    if event is not None:
        body = Ga4Destination().request(app_account(), [event]).body
        app = b'"app_instance_id"' in body
        assert messages_of(json.loads(body, parse_constant=_refuse), len(body), app=app) == []


def _take(request: HttpRequest) -> HttpResponse:
    document = json.loads(request.body, parse_constant=_refuse)
    if "data" not in document:
        return HttpResponse(204)
    return HttpResponse(200, json.dumps({"events_received": len(document["data"])}).encode())


@settings(max_examples=100, deadline=None)
@given(
    st.lists(conversions, min_size=1, max_size=6), st.sampled_from(["meta", "ga4"]), st.sampled_from(["send", "skip"])
)
def test_f1_any_records_go_through_the_stage_and_each_has_one_end(
    found: list[dict[str, Any]], name: str, unknown: str
) -> None:
    good = [fields for fields in found if not check_conversion(fields, now_micros=NOW)]
    ledger = MemoryLedger()
    clock = SimulatedClock(NOW)
    stage = stage_for(
        name, "http://x", clock, ledger=ledger, transport=ScriptedTransport(_take), route={"consent_unknown": unknown}
    )
    batch = records([CODEC.encode("conversion", fields) for fields in good], now_micros=NOW)
    try:
        letters = stage.handle(batch).dead_letters
    finally:
        stage.close()
    ends = {key.event_id: row.state for key, row in ledger.rows.items()}
    refused = {fields["event_id"] for fields in good if "\0" in fields["event_id"]}
    assert ends.keys() == {fields["event_id"] for fields in good} - refused
    assert DeliveryState.PENDING not in ends.values()
    rejected = sum(state is DeliveryState.REJECTED for state in ends.values())
    assert len(letters) == rejected + sum("\0" in fields["event_id"] for fields in good)
    assert not any(letter.reason.startswith("the event cannot be built") for letter in letters)
