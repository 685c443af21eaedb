"""Meta: what an event looks like, what is refused before it is sent, what an answer means."""

from __future__ import annotations

import json
from typing import Any

import pytest

from attributary.consumers.destinations.addresses import public_address
from attributary.consumers.destinations.destination import HttpResponse, Moment, NotSent, PreparedEvent, ResponseClass
from attributary.consumers.destinations.meta.destination import MetaDestination, MetaOptions, is_old_version
from attributary.consumers.destinations.meta.responses import classify
from attributary.consumers.store.deliveries.delivery import DeliveryState
from attributary.producers.matching.text import sha256_hex
from tests.forwarder.forwarder_factories import HASH, conversion, meta_account

NOW = 1_795_500_000_000_000
DAY = 86_400_000_000


def built(destination: MetaDestination | None = None, received_at: int = NOW, **changes: Any) -> Any:
    chosen = destination or MetaDestination()
    event = chosen.build(conversion(NOW, **changes), meta_account(), Moment(NOW, received_at))
    return json.loads(event.body) if isinstance(event, PreparedEvent) else event


def test_a_purchase_carries_every_documented_part() -> None:
    event = built(event_id="e-1", user_id="u-1", order_id="o-1", referrer="https://ref.example/", opt_out=True)
    assert event == {
        "event_name": "Purchase",
        "event_time": (NOW - 60_000_000) // 1_000_000,
        "event_id": "e-1",
        "action_source": "website",
        "event_source_url": "https://shop.example/thanks",
        "referrer_url": "https://ref.example/",
        "opt_out": True,
        "user_data": {
            "em": [HASH],
            "external_id": [sha256_hex("u-1")],
            "client_ip_address": "203.0.113.9",
            "client_user_agent": "Mozilla/5.0",
            "fbc": "fb.1.1554763741205.AbCdEf-GhI",
            "fbp": "fb.1.1558571054389.1098115397",
        },
        "custom_data": {
            "value": 19.99,
            "currency": "EUR",
            "order_id": "o-1",
            "contents": [{"id": "sku-1", "quantity": 2, "item_price": 9.995, "title": "Shoe"}],
            "content_ids": ["sku-1"],
            "content_type": "product",
            "num_items": 2,
        },
    }


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("purchase", "Purchase"),
        ("lead", "Lead"),
        ("signup", "CompleteRegistration"),
        ("add_to_cart", "AddToCart"),
        ("page_view", "PageView"),
        ("loyalty_tier_reached", "loyalty_tier_reached"),
    ],
)
def test_event_names(kind: str, name: str) -> None:
    assert built(conversion_type=kind)["event_name"] == name


def test_plain_user_data_is_hashed_on_the_way_out() -> None:
    plain = {"email": "Jane@Example.com", "phone": "0171 1234567", "external_id": "User-1", "country": "DE"}
    event = built(MetaDestination(MetaOptions(external_id="both")), user_data=plain)
    assert event["user_data"]["em"] == [sha256_hex("jane@example.com")]
    assert event["user_data"]["ph"] == [sha256_hex("491711234567")]
    assert event["user_data"]["external_id"] == ["User-1", sha256_hex("User-1")]
    assert "Jane" not in json.dumps(event)


def test_limited_data_use_travels_with_its_place() -> None:
    event = built(data_processing_options=["LDU"])
    assert event["data_processing_options"] == ["LDU"]
    assert (event["data_processing_options_country"], event["data_processing_options_state"]) == (0, 0)
    event = built(data_processing_options=["LDU"], data_processing_country=1, data_processing_state=1000)
    assert (event["data_processing_options_country"], event["data_processing_options_state"]) == (1, 1000)
    assert "data_processing_options" not in built()


def test_a_fast_clock_is_set_right_by_kafkas_time_and_stays_the_same() -> None:
    event = built(occurred_at=NOW + 3_600_000_000, received_at=NOW)
    assert event["event_time"] == NOW // 1_000_000


def test_click_ids_are_passed_on_or_left_out_but_never_rewritten() -> None:
    five = "fb.1.1554763741205.AbCdEf-GhI.AQICAQMC"
    assert built(click_ids={"fbc": five})["user_data"]["fbc"] == five
    bad = MetaDestination().build(conversion(NOW, click_ids={"fbc": "fb.x"}), meta_account(), Moment(NOW, NOW))
    assert isinstance(bad, PreparedEvent)
    assert bad.remark == "fbc left out: malformed"
    assert "fbc" not in json.loads(bad.body)["user_data"]
    from_fbclid = built(click_ids={"fbclid": "AbC-x"})
    assert from_fbclid["user_data"]["fbc"] == f"fb.1.{(NOW - 60_000_000) // 1000}.AbC-x"
    others = built(click_ids={"lead_id": "12", "madid": "M", "fb_login_id": "x"})["user_data"]
    assert (others["lead_id"], others["madid"]) == (12, "M")
    assert "fb_login_id" not in others


@pytest.mark.parametrize(
    ("changes", "state", "field"),
    [
        ({"currency": "XXX", "value_micros": 0, "items": []}, DeliveryState.REJECTED, "currency"),
        (
            {"user_data": None, "user_id": None, "click_ids": {}, "client_ip_address": None},
            DeliveryState.SKIPPED,
            "user_data",
        ),
    ],
)
def test_what_would_kill_its_batch_is_found_before(changes: dict[str, Any], state: DeliveryState, field: str) -> None:
    refused = built(**changes)
    assert isinstance(refused, NotSent)
    assert (refused.state, refused.field) == (state, field)


def test_age_and_corrections() -> None:
    destination = MetaDestination()

    def prepared(**changes: Any) -> DeliveryState | None:
        refused = destination.validate(conversion(NOW, **changes), Moment(NOW, NOW))
        return refused.state if refused else None

    assert prepared(occurred_at=NOW - 6 * DAY) is None
    assert prepared(occurred_at=NOW - 7 * DAY) is DeliveryState.EXPIRED
    assert prepared(occurred_at=NOW - 61 * DAY, action_source="physical_store") is None
    assert prepared(occurred_at=NOW - 62 * DAY, action_source="physical_store") is DeliveryState.EXPIRED
    assert prepared(kind="refund", conversion_id="c") is DeliveryState.SKIPPED


def test_a_request_keeps_the_token_out_of_url_and_body() -> None:
    destination = MetaDestination()
    account = meta_account(test_event_code="TEST1", app_secret="app-secret")
    event = destination.build(conversion(NOW), account, Moment(NOW, NOW))
    assert isinstance(event, PreparedEvent)
    request = destination.request(account, [event, event])
    assert request.headers["authorization"] == "Bearer test-token"
    assert "test-token" not in request.url
    assert b"test-token" not in request.body
    assert "appsecret_proof=" in request.url
    document = json.loads(request.body)
    assert len(document["data"]) == 2
    assert document["test_event_code"] == "TEST1"
    assert "test-token" not in repr(account) + repr(request)


def error(status: int, code: int | None = None, subcode: int | None = None, **more: Any) -> HttpResponse:
    document = {"error": {"code": code, "error_subcode": subcode, "message": "jane@example.com", **more}}
    return HttpResponse(status, json.dumps(document).encode())


@pytest.mark.parametrize(
    ("response", "response_class"),
    [
        (error(500, 1), ResponseClass.RETRY),
        (error(500, 2, is_transient=True), ResponseClass.RETRY),
        (error(400, 21009), ResponseClass.RETRY),
        (error(400, 5000), ResponseClass.RETRY),
        (error(400, 999, is_transient=True), ResponseClass.RETRY),
        (error(503, 999), ResponseClass.RETRY),
        (HttpResponse(502, b"<html>"), ResponseClass.RETRY),
        (HttpResponse(0, fault="ConnectError"), ResponseClass.RETRY),
        (HttpResponse(0, fault="ReadTimeout", perhaps_sent=True), ResponseClass.AMBIGUOUS),
        (HttpResponse(200, b"<html>"), ResponseClass.AMBIGUOUS),
        (HttpResponse(200, b'{"events_received":1}'), ResponseClass.AMBIGUOUS),
        (HttpResponse(200, b'{"events_received":2,"fbtrace_id":"T"}'), ResponseClass.DELIVERED),
        (error(400, 4), ResponseClass.THROTTLED),
        (error(500, 17, 2446079), ResponseClass.THROTTLED),
        (error(400, 80004), ResponseClass.THROTTLED),
        (error(400, 613), ResponseClass.THROTTLED),
        (HttpResponse(429), ResponseClass.THROTTLED),
        (error(400, 190, 463), ResponseClass.ACCOUNT_STOPPED),
        (error(500, 190), ResponseClass.ACCOUNT_STOPPED),
        (error(403, 200), ResponseClass.ACCOUNT_STOPPED),
        (error(403, 10), ResponseClass.ACCOUNT_STOPPED),
        (error(400, 100, 33), ResponseClass.ACCOUNT_STOPPED),
        (error(400, 2635), ResponseClass.ACCOUNT_STOPPED),
        (HttpResponse(404, b"Not Found"), ResponseClass.ACCOUNT_STOPPED),
        (error(400, 100, 2804003), ResponseClass.REJECTED),
        (error(400, 100, 2804001), ResponseClass.REJECTED),
        (error(400, 100, 38), ResponseClass.REJECTED),
        (error(400, 100), ResponseClass.REJECTED),
        (error(400, 424242), ResponseClass.REJECTED),
        (HttpResponse(413, b""), ResponseClass.REJECTED),
        (error(400, None, type="x"), ResponseClass.REJECTED),
    ],
)
def test_answers_are_judged_by_code_first(response: HttpResponse, response_class: ResponseClass) -> None:
    answer = classify(response, 2)
    assert answer.response_class is response_class
    assert "jane" not in repr(answer), "Meta's own text may quote the event"


def test_usage_headers_tell_percent_and_wait() -> None:
    entry = {"call_count": 30, "total_cputime": 96, "total_time": 10, "estimated_time_to_regain_access": 3}
    answer = classify(
        HttpResponse(
            200,
            b'{"events_received":1}',
            {
                "x-app-usage": '{"call_count":28,"total_time":25,"total_cputime":25}',
                "x-business-use-case-usage": json.dumps({"9": [entry]}),
            },
        ),
        1,
    )
    assert (answer.usage_percent, answer.wait_seconds) == (96.0, 180.0)
    account = HttpResponse(
        400, b'{"error":{"code":17}}', {"x-ad-account-usage": '{"acc_id_util_pct":100,"reset_time_duration":77}'}
    )
    assert classify(account, 1).wait_seconds == 77.0
    assert classify(HttpResponse(200, b'{"events_received":1}', {"x-app-usage": "rubbish"}), 1).usage_percent is None
    assert classify(HttpResponse(429, b"", {"retry-after": "9"}), 1).wait_seconds == 9.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("203.0.113.9:443", "203.0.113.9"),
        ("[2001:db8::1]:80", "2001:db8::1"),
        ("nobody", ""),
    ],
)
def test_addresses_lose_their_port(text: str, expected: str) -> None:
    assert public_address(text)[0] == expected


def test_old_versions_are_known() -> None:
    assert is_old_version("v18.0")
    assert not is_old_version("v26.0")
