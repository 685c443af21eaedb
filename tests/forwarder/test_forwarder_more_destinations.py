"""All destinations beside Meta and GA4: their events, what is refused before it is sent, what an answer means."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attributary.consumers.destinations.account_fields import ACCOUNT_FIELDS
from attributary.consumers.destinations.bingads import responses as bingads_responses
from attributary.consumers.destinations.catalog import CATALOG
from attributary.consumers.destinations.destination import HttpResponse, NotSent, PreparedEvent, ResponseClass
from attributary.consumers.destinations.google import responses as google_responses
from attributary.consumers.destinations.linkedin import responses as linkedin_responses
from attributary.consumers.destinations.microsoft import responses as microsoft_responses
from attributary.consumers.destinations.pinterest import responses as pinterest_responses
from attributary.consumers.destinations.reddit import responses as reddit_responses
from attributary.consumers.destinations.snap import responses as snap_responses
from attributary.consumers.destinations.tiktok import responses as tiktok_responses
from attributary.consumers.destinations.wire_format import decimal_text
from attributary.consumers.destinations.x import responses as x_responses
from attributary.consumers.destinations.x.oauth import OAuthKeys, authorization, signature
from attributary.consumers.store.deliveries.delivery import DeliveryState
from attributary.producers.matching.text import sha256_hex
from tests.forwarder.forwarder_factories import CASE_TIME, HASH, account_at, destination_at, prepared, sent

if TYPE_CHECKING:
    from collections.abc import Callable

DAY = 86_400_000_000
PHONE = sha256_hex("+491711234567")
BOTH = {
    "meta_hashes": {"em": [HASH], "ph": [sha256_hex("491711234567")], "external_id": [sha256_hex("User-1")]},
    "google_hashes": {"sha256_email_address": [HASH], "sha256_phone_number": [PHONE]},
}
NAMES = ("tiktok", "linkedin", "x", "reddit", "pinterest", "snap", "google", "microsoft", "bingads")
NO_PHONE = ("linkedin",)
GOOGLES_HASHES = ("google",)  # of an e-mail address too; nothing else recognises anybody
WANT_DIGITS = ("pinterest", "snap")  # of a phone number; the others want its plus


def test_the_catalogue_and_the_fields_of_accounts_name_the_same_destinations() -> None:
    assert set(CATALOG) == set(ACCOUNT_FIELDS)
    assert {destination_at(name, "https://api.example").name for name in CATALOG} == set(CATALOG)


def test_a_purchase_at_tiktok_carries_every_documented_part() -> None:
    event, remark = sent(
        "tiktok",
        event_id="e-1",
        order_id="o-1",
        user_data=BOTH,
        referrer="https://ref.example/",
        click_ids={"ttclid": "E.C.P.AbC", "_ttp": "2aBcD"},
        properties={"predicted_ltv": "12.5", "query": "shoes", "colour": "red"},
        data_processing_options=["LDU"],
    )
    assert event == {
        "event": "Purchase",
        "event_time": (CASE_TIME - 60_000_000) // 1_000_000,
        "event_id": "e-1",
        "user": {
            "email": [HASH],
            "phone": [PHONE],
            "external_id": [sha256_hex("User-1")],
            "ttclid": "E.C.P.AbC",
            "ttp": "2aBcD",
            "ip": "203.0.113.9",
            "user_agent": "Mozilla/5.0",
        },
        "page": {"url": "https://shop.example/thanks", "referrer": "https://ref.example/"},
        "properties": {
            "value": 19.99,
            "currency": "EUR",
            "order_id": "o-1",
            "contents": [{"content_id": "sku-1", "quantity": 2, "price": 9.995, "content_name": "Shoe"}],
            "content_type": "product",
            "predicted_ltv": 12.5,
            "query": "shoes",
        },
        "limited_data_use": True,
    }
    assert remark == "property left out: TikTok has no field for it"


def test_a_purchase_at_linkedin_goes_to_the_rule_of_its_type() -> None:
    event, remark = sent("linkedin", event_id="e-1", click_ids={"li_fat_id": "Uuid-1"}, value_micros=100_050_000)
    assert event == {
        "conversion": "urn:lla:llaPartnerConversion:104012",
        "conversionHappenedAt": (CASE_TIME - 60_000_000) // 1_000,
        "eventId": "e-1",
        "conversionValue": {"currencyCode": "EUR", "amount": "100.05"},
        "user": {
            "userIds": [
                {"idType": "SHA256_EMAIL", "idValue": HASH},
                {"idType": "LINKEDIN_FIRST_PARTY_ADS_TRACKING_UUID", "idValue": "Uuid-1"},
            ]
        },
    }
    assert remark == ""
    long, remark = sent("linkedin", event_id="e" * 65)
    assert long["eventId"] == sha256_hex("e" * 65)
    assert remark == "event_id is longer than 64 characters: its SHA-256 is sent"


def test_a_purchase_at_x_goes_to_the_tag_of_its_type() -> None:
    event, remark = sent(
        "x",
        event_id="e-1",
        user_data=BOTH,
        click_ids={"twclid": "2-abc"},
        occurred_at=CASE_TIME - 1_500,
        properties={"description": "first order"},
    )
    moment = dt.datetime.fromtimestamp((CASE_TIME - 1_500) // 1_000 / 1e3, dt.UTC)
    assert event == {
        "conversion_time": moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z",
        "event_id": "o87ne",
        "identifiers": [
            {"twclid": "2-abc"},
            {"hashed_email": HASH},
            {"hashed_phone_number": PHONE},
            {"ip_address": "203.0.113.9", "user_agent": "Mozilla/5.0"},
        ],
        "conversion_id": "e-1",
        "value": 19.99,
        "price_currency": "EUR",
        "contents": [{"content_id": "sku-1", "num_items": 2, "content_price": 9.995, "content_name": "Shoe"}],
        "number_items": 2,
        "event_source_url": "https://shop.example/thanks",
        "description": "first order",
    }
    assert remark == ""


@pytest.mark.parametrize(
    ("name", "changes", "state", "field"),
    [
        *((name, {"kind": "refund", "conversion_id": "c"}, DeliveryState.SKIPPED, "kind") for name in NAMES),
        ("tiktok", {"occurred_at": CASE_TIME - 7 * DAY}, DeliveryState.EXPIRED, "occurred_at"),
        ("linkedin", {"occurred_at": CASE_TIME - 90 * DAY}, DeliveryState.EXPIRED, "occurred_at"),
        ("x", {"occurred_at": CASE_TIME - 90 * DAY}, DeliveryState.EXPIRED, "occurred_at"),
        ("tiktok", {"currency": "XXX", "value_micros": 0, "items": []}, DeliveryState.REJECTED, "currency"),
        ("tiktok", {"action_source": "app"}, DeliveryState.SKIPPED, "action_source"),
        ("linkedin", {"conversion_type": "signup"}, DeliveryState.SKIPPED, "conversion_type"),
        ("x", {"conversion_type": "signup"}, DeliveryState.SKIPPED, "conversion_type"),
        ("linkedin", {"user_data": None}, DeliveryState.SKIPPED, "user_data"),
        ("x", {"user_data": None}, DeliveryState.SKIPPED, "user_data"),  # address and browser are not enough
        (
            "tiktok",
            {"user_data": None, "user_id": None, "client_user_agent": None},
            DeliveryState.SKIPPED,
            "user_data",
        ),
    ],
)
def test_what_would_spoil_a_batch_is_not_sent(
    name: str, changes: dict[str, Any], state: DeliveryState, field: str
) -> None:
    found = prepared(name, **changes)
    assert isinstance(found, NotSent)
    assert (found.state, found.field) == (state, field)


def test_an_offline_event_at_tiktok_has_its_own_source_and_age() -> None:
    found = prepared("tiktok", action_source="physical_store", occurred_at=CASE_TIME - 20 * DAY)
    assert isinstance(found, PreparedEvent)
    assert json.loads(found.envelope) == {"event_source": "offline", "event_source_id": "77"}
    request = destination_at("tiktok", "https://api.example").request(
        account_at("tiktok", test_event_code="TEST1"), [found]
    )
    assert json.loads(request.body) == {
        "event_source": "offline",
        "event_source_id": "77",
        "test_event_code": "TEST1",
        "data": [json.loads(found.body)],
    }
    assert request.headers == {"access-token": "test-token"}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in (*WANT_DIGITS, *GOOGLES_HASHES)])
def test_a_phone_of_metas_family_alone_is_left_out_with_a_remark(name: str) -> None:
    event, remark = sent(name, user_data={"meta_hashes": {"em": [HASH], "ph": [sha256_hex("491711234567")]}})
    assert sha256_hex("491711234567") not in json.dumps(event)
    assert "phone left out: only its hash without the plus is on the topic" in remark


@pytest.mark.parametrize("name", NAMES)
def test_plain_user_data_is_hashed_on_the_way_out(name: str) -> None:
    event, _ = sent(name, user_data={"email": " Jane@Example.com", "phone": "+1 123 456 7890"})
    text = json.dumps(event)
    assert sha256_hex("jane@example.com") in text
    # X's golden vector.
    with_plus = "1fa6b8d986d9b9cd01bf36951815158bbde9f520c0567c835dfe34783d0a4231"
    assert (with_plus in text) is (name not in (*NO_PHONE, *WANT_DIGITS))
    assert (sha256_hex("11234567890") in text) is (name in WANT_DIGITS)
    assert "Jane" not in text


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "0.00"),
        (19_990_000, "19.99"),
        (5_000, "0.005"),
        (1, "0.000001"),
        (-1_500_000, "-1.50"),
        (10**18, "1" + "0" * 12 + ".00"),
    ],
)
def test_amounts_as_decimal_texts(micros: int, text: str) -> None:
    assert decimal_text(micros) == text


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_decimal_text_is_exact(micros: int) -> None:
    from decimal import Decimal

    assert Decimal(decimal_text(micros)) * 1_000_000 == micros


def test_the_signature_is_that_of_xs_documentation() -> None:
    keys = OAuthKeys(
        "xvz1evFS4wEEPTGEFPHBog",
        "kAcSOqF21Fu85e7zjz7ZN2U4ZRhfV3WpwPAoE3Z7kBw",
        "370773112-GmHxMAgYyLbNEtIKZeRNFsMKPR9EyMZeS9weJAEb",
        "LswwdoUaIvS8ltyTt5jkRh4J50vUPVVHtR2YPi5kE",
    )
    parameters = {
        "oauth_consumer_key": keys.consumer_key,
        "oauth_nonce": "kYjzVBB8Y0ZFabxSWbWovY3uYSQ2pTgmZeNu2VS4cg",
        "oauth_signature_method": "HMAC-SHA1",
        "oauth_timestamp": "1318622958",
        "oauth_token": keys.token,
        "oauth_version": "1.0",
        "status": "Hello Ladies + Gentlemen, a signed OAuth request!",
    }
    path = "/1.1/statuses/update.json?include_entities=true"
    assert signature("POST", f"https://api.x.com{path}", parameters, keys) == "Ls93hJiZbQ3akF3HF3x1Bz8/zU4="
    assert signature("POST", f"https://api.twitter.com{path}", parameters, keys) == "hCtSmYh+iHYCEqBWrE7C7hYmtUk="
    header = authorization(
        "POST",
        "https://ads-api.x.com/12/measurement/conversions/o8z6j",
        OAuthKeys("ck", "cs", "at", "ts"),
        1_795_493_479,
        "abc123",
    )
    assert 'oauth_signature="njjBlio%2FNIzXldc5WAFyC3nhiZw%3D"' in header


def test_every_attempt_at_x_is_signed_anew_or_carries_the_pixel_token() -> None:
    destination = destination_at("x", "https://ads-api.x.com")
    event = prepared("x")
    assert isinstance(event, PreparedEvent)
    request = destination.request(account_at("x"), [event])
    assert request.headers == {}
    one, two = (destination.sign(request, account_at("x"), 1_795_500_000, nonce) for nonce in ("a1", "b2"))
    assert one.headers["authorization"] != two.headers["authorization"]
    assert one.body == two.body == request.body
    account = account_at("x")
    account = type(account)("acme", "x", "o8z6j", "pixel-token", {}, account.event_names)
    assert destination.sign(request, account, 1, "n").headers == {"x-pixel-token": "pixel-token"}


def answered(status: int, document: Any, headers: dict[str, str] | None = None) -> HttpResponse:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return HttpResponse(status, body, headers or {})


@pytest.mark.parametrize(
    ("status", "document", "expected"),
    [
        (200, {"code": 0}, ResponseClass.DELIVERED),
        (200, {"code": 40050}, ResponseClass.DELIVERED),
        (200, {"code": 20001}, ResponseClass.AMBIGUOUS),
        (200, {"code": 40001}, ResponseClass.ACCOUNT_STOPPED),
        (200, {"code": 40105}, ResponseClass.ACCOUNT_STOPPED),
        (200, {"code": 40115}, ResponseClass.ACCOUNT_STOPPED),
        (200, {"code": 40100}, ResponseClass.THROTTLED),
        (200, {"code": 40202}, ResponseClass.RETRY),
        (200, {"code": 52_123}, ResponseClass.RETRY),
        (200, {"code": 40002}, ResponseClass.REJECTED),
        (200, {"code": 49_999}, ResponseClass.REJECTED),
        (200, {"code": True}, ResponseClass.AMBIGUOUS),
        (200, b"<html>", ResponseClass.AMBIGUOUS),
        (429, {"code": 1}, ResponseClass.THROTTLED),
        (502, b"<html>", ResponseClass.RETRY),
        (500, {"code": 0}, ResponseClass.RETRY),
        (404, b"", ResponseClass.ACCOUNT_STOPPED),
    ],
)
def test_what_tiktoks_answers_mean(status: int, document: Any, expected: ResponseClass) -> None:
    assert tiktok_responses.classify(answered(status, document), 10).response_class is expected


def test_tiktoks_message_hints_at_positions_and_is_never_kept() -> None:
    message = "Batch.3.properties.contents.0.content_id: Not a valid string. data.12.user jane@example.com"
    found = tiktok_responses.classify(answered(200, {"code": 40002, "message": message, "request_id": "r"}), 10)
    assert found.suspects == (3,)  # 12 is not in the batch
    assert (found.refused, found.trace_id) == ((), "r")
    assert "jane" not in repr(found)


@pytest.mark.parametrize(
    ("status", "document", "expected", "refused"),
    [
        (200, {"elements": [{"status": 201}] * 3}, ResponseClass.DELIVERED, ()),
        (200, {"elements": [{"status": 201}, {"status": 400}, {"status": 201}]}, ResponseClass.DELIVERED, (1,)),
        (200, {"elements": [{"status": 400}] * 3}, ResponseClass.REJECTED, ()),
        (200, {"elements": [{"status": 201}, {"status": 500}, {"status": 201}]}, ResponseClass.AMBIGUOUS, ()),
        (200, {"elements": [{"status": 201}]}, ResponseClass.AMBIGUOUS, ()),
        (200, b"", ResponseClass.AMBIGUOUS, ()),
        (422, {"message": "Index: 0, ERROR :: /user :: x\nIndex: 2, ERROR :: /y"}, ResponseClass.REJECTED, (0, 2)),
        (400, {"message": "method should be CONVERSIONS_API, indices [1, 9]"}, ResponseClass.NAME_STOPPED, ()),
        (400, {"message": "Invalid Urn format"}, ResponseClass.NAME_STOPPED, ()),
        (401, {"serviceErrorCode": 65601}, ResponseClass.ACCOUNT_STOPPED, ()),
        (403, {}, ResponseClass.ACCOUNT_STOPPED, ()),
        (426, {}, ResponseClass.ACCOUNT_STOPPED, ()),
        (429, {}, ResponseClass.THROTTLED, ()),
        (503, b"<html>", ResponseClass.RETRY, ()),
    ],
)
def test_what_linkedins_answers_mean(
    status: int, document: Any, expected: ResponseClass, refused: tuple[int, ...]
) -> None:
    found = linkedin_responses.classify(answered(status, document), 3)
    assert (found.response_class, found.refused) == (expected, refused)


def error(code: str, message: str = "") -> dict[str, Any]:
    return {"errors": [{"code": code, "message": message}]}


@pytest.mark.parametrize(
    ("status", "document", "expected"),
    [
        (200, {"data": {"conversions_processed": 3}}, ResponseClass.DELIVERED),
        (200, {"data": {"conversions_processed": 2}}, ResponseClass.AMBIGUOUS),
        (200, {"data": {}}, ResponseClass.AMBIGUOUS),
        (200, b"<html>", ResponseClass.AMBIGUOUS),
        (400, error("INVALID_PARAMETER"), ResponseClass.REJECTED),
        (400, error("INVALID_PARAMETER", "Event ID was not found"), ResponseClass.NAME_STOPPED),
        (404, error("NOT_FOUND"), ResponseClass.ACCOUNT_STOPPED),
        (404, error("ROUTE_NOT_FOUND"), ResponseClass.ACCOUNT_STOPPED),
        (401, error("UNAUTHORIZED_ACCESS"), ResponseClass.ACCOUNT_STOPPED),
        (423, error("LOCK_ACQUISITION_TIMEOUT"), ResponseClass.RETRY),
        (503, error("OVER_CAPACITY"), ResponseClass.RETRY),
        (503, b"<html>", ResponseClass.RETRY),
        (429, error("TOO_MANY_REQUESTS"), ResponseClass.THROTTLED),
        (429, b"", ResponseClass.THROTTLED),
    ],
)
def test_what_xs_answers_mean(status: int, document: Any, expected: ResponseClass) -> None:
    assert x_responses.classify(answered(status, document), 3).response_class is expected


def test_x_names_the_second_at_which_its_limit_ends() -> None:
    headers = {"date": "Mon, 30 Nov 2026 12:00:00 GMT", "x-rate-limit-reset": "1796040090"}
    assert x_responses.classify(answered(429, error("TOO_MANY_REQUESTS"), headers), 3).wait_seconds == 90.0
    headers |= {"x-account-rate-limit-reset": "1796040120"}
    assert x_responses.classify(answered(429, b"", headers), 3).wait_seconds == 120.0


CLASSIFIERS: dict[str, Callable[[HttpResponse, int], Any]] = {
    "tiktok": tiktok_responses.classify,
    "linkedin": linkedin_responses.classify,
    "x": x_responses.classify,
    "reddit": reddit_responses.classify,
    "pinterest": pinterest_responses.classify,
    "snap": snap_responses.classify,
    "microsoft": microsoft_responses.classify,
    "bingads": bingads_responses.classify,
    "google": google_responses.classify,
}
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "code",
                    "message",
                    "errors",
                    "elements",
                    "status",
                    "data",
                    "error",
                    "fields",
                    "details",
                    "fieldViolations",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("name", NAMES)
@given(
    status=st.sampled_from([0, 200, 201, 204, 301, 400, 401, 404, 422, 426, 429, 500, 503]),
    document=anything,
    events=st.integers(1, 5),
    is_complete=st.booleans(),
)
def test_no_answer_raises_and_every_position_is_in_the_batch(
    name: str, status: int, document: Any, events: int, is_complete: bool
) -> None:
    response = HttpResponse(status, json.dumps(document).encode(), {}, is_complete=is_complete)
    found = CLASSIFIERS[name](response, events)
    assert all(0 <= position < events for position in (*found.refused, *found.suspects))
    if found.refused and found.response_class is ResponseClass.DELIVERED:
        assert len(found.refused) < events
