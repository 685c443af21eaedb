"""Reddit: what an event looks like, which hash of an e-mail address it gets, what an answer means."""

from __future__ import annotations

import json
from typing import Any

import pytest

from attributary.consumers.destinations.ad_platform import PlatformOptions
from attributary.consumers.destinations.destination import HttpResponse, NotSent, PreparedEvent, ResponseClass
from attributary.consumers.destinations.reddit import responses
from attributary.consumers.destinations.reddit.destination import RedditDestination
from attributary.consumers.store.deliveries.delivery import DeliveryState
from attributary.producers.matching import hash_user_data
from attributary.producers.matching.text import sha256_hex
from tests.forwarder.forwarder_factories import CASE_TIME, HASH, account_at, destination_at, prepared, sent

DAY = 86_400_000_000
# Published by Reddit: of Al.ice+Apple@Example.Com, +15554441234 and customer12345.
EMAIL = "ff8d9819fc0e12bf0d24892e45987e249a28dce836a85cad60e28eaaa8c6d976"
PHONE = "e5b124c58580eb16bd959b8d0cac12b12c952e2ceae0203d416cff94f10b994a"
EXTERNAL_ID = "a4cc2fc5adf58a029291c1514d273989113a1d05e1d753c1d0c3a848af7109cc"
UUID = "1677712978123.45efb4ab-5d81-4b34-9b2c-0123456789ab"


def test_a_purchase_carries_every_documented_part() -> None:
    event, remark = sent(
        "reddit",
        event_id="e-1",
        user_data={"meta_hashes": {"em": [HASH]}, "google_hashes": {"sha256_phone_number": [PHONE]}},
        user_id="customer12345",
        click_ids={"rdt_cid": "AbC-1", "_rdt_uuid": UUID, "idfa": "ab12", "gaid": "CD34"},
        properties={"colour": "red"},
        data_processing_options=["LDU"],
        data_processing_country=1,
        data_processing_state=1_000,
    )
    assert event == {
        "event_at": (CASE_TIME - 60_000_000) // 1_000,
        "action_source": "WEBSITE",
        "type": {"tracking_type": "PURCHASE"},
        "click_id": "AbC-1",
        "event_source_url": "https://shop.example/thanks",
        "metadata": {
            "conversion_id": "e-1",
            "value": 19.99,
            "currency": "EUR",
            "products": [{"id": "sku-1", "name": "Shoe", "item_price": 9.995, "quantity": 2}],
            "item_count": 2,
        },
        "user": {
            "email": HASH,
            "phone_number": PHONE,
            "external_id": EXTERNAL_ID,
            "ip_address": "203.0.113.9",
            "user_agent": "Mozilla/5.0",
            "idfa": sha256_hex("AB12"),
            "aaid": sha256_hex("cd34"),
            "uuid": UUID,
            "data_processing_options": {"modes": ["LDU"], "country": "US", "region": "US-CA"},
        },
    }
    assert remark == "property left out: Reddit has no field for it"


@pytest.mark.parametrize("hashed_by", ["producer", "forwarder"])
def test_the_published_hashes_come_from_a_plain_address_and_number(hashed_by: str) -> None:
    plain = {"email": "Al.ice+Apple@Example.Com", "phone": "+1 555 444 1234"}
    # libphonenumber knows no +1 555 444 1234, which nobody has; given as Google's hash it goes.
    given: dict[str, Any] = hash_user_data(plain) if hashed_by == "producer" else plain
    event, _ = sent("reddit", user_data=given)
    assert event["user"]["email"] == EMAIL


@pytest.mark.parametrize(
    ("address", "normal"),
    [
        ("alice@example.com", "alice@example.com"),
        ("jane.doe+x@corp.com", "janedoe@corp.com"),
        ("Jane.Doe+x@Gmail.com", "janedoe@gmail.com"),
        ("jane.doe@googlemail.com", "janedoe@googlemail.com"),
        ("jane+@corp.com", "jane@corp.com"),
    ],
)
def test_an_address_is_hashed_without_dots_and_tag_whatever_its_domain(address: str, normal: str) -> None:
    event, _ = sent("reddit", user_data=hash_user_data({"email": address}))
    assert event["user"]["email"] == sha256_hex(normal)


@pytest.mark.parametrize("name", ["meta", "ga4", "tiktok", "linkedin", "x"])
def test_the_bare_hash_goes_to_nobody_else_and_is_no_remark(name: str) -> None:
    found = prepared(name, user_data=hash_user_data({"email": "jane.doe+x@corp.com"}))
    assert isinstance(found, PreparedEvent)
    assert sha256_hex("janedoe@corp.com") not in (found.body + found.envelope).decode()
    assert "hash left out" not in (found.remark or "")


def test_a_custom_type_keeps_its_name_and_an_own_name_may_be_one_of_reddits() -> None:
    event, _ = sent("reddit", conversion_type="trial_started", value_micros=0, currency="XXX", items=[])
    assert event["type"] == {"tracking_type": "CUSTOM", "custom_event_name": "trial_started"}
    assert event["metadata"].keys() == {"conversion_id"}
    own = RedditDestination(PlatformOptions(event_names={"trial_started": "LEAD"}))
    event, _ = sent("reddit", own, conversion_type="trial_started")
    assert event["type"] == {"tracking_type": "LEAD"}


def test_an_event_of_a_store_has_no_device() -> None:
    event, _ = sent("reddit", action_source="physical_store", click_ids={"rdt_cid": "A", "rdt_uuid": UUID})
    assert event["action_source"] == "PHYSICAL_STORE"
    assert event["user"] == {"email": HASH}
    assert "click_id" not in event
    event, remark = sent("reddit", click_ids={"rdt_uuid": "1.2"})
    assert "uuid" not in event["user"]
    assert remark == "rdt_uuid left out: malformed"


@pytest.mark.parametrize(
    ("changes", "state", "field"),
    [
        ({"occurred_at": CASE_TIME - 7 * DAY}, DeliveryState.EXPIRED, "occurred_at"),
        ({"user_data": None, "user_id": None, "client_ip_address": None}, DeliveryState.SKIPPED, "user_data"),
        ({"user_data": None, "user_id": None, "client_user_agent": None}, DeliveryState.SKIPPED, "user_data"),
    ],
)
def test_what_would_spoil_a_batch_is_not_sent(changes: dict[str, Any], state: DeliveryState, field: str) -> None:
    found = prepared("reddit", **changes)
    assert isinstance(found, NotSent)
    assert (found.state, found.field) == (state, field)


def test_the_request_has_an_agent_of_its_own_and_no_token_in_its_address() -> None:
    event = prepared("reddit")
    assert isinstance(event, PreparedEvent)
    request = destination_at("reddit", "https://api.example").request(
        account_at("reddit", test_event_code="t1"), [event]
    )
    assert request.url == "https://api.example/api/v3/pixels/a2_abc/conversion_events"
    assert json.loads(request.body) == {"data": {"events": [json.loads(event.body)], "test_id": "t1"}}
    assert request.headers["authorization"] == "Bearer test-token"
    assert request.headers["user-agent"].startswith("attributary-forwarder")


def fields(*places: str) -> dict[str, Any]:
    found = [{"field": f"$.data.events{place}", "message": "jane@example.com"} for place in places]
    return {"error": {"code": 400, "message": "There were N invalid conversion events.", "fields": found}}


@pytest.mark.parametrize(
    ("status", "document", "expected", "refused"),
    [
        (200, {"data": {"message": "Successfully processed 3 conversion events."}}, ResponseClass.DELIVERED, ()),
        (200, {}, ResponseClass.AMBIGUOUS, ()),
        (200, b"<html>", ResponseClass.AMBIGUOUS, ()),
        (400, fields("[0].user.UUID", "[2].event_at", "[2].user", "[7].user"), ResponseClass.REJECTED, (0, 2)),
        (400, {"error": {"code": 400, "message": "Bad Request"}}, ResponseClass.REJECTED, ()),
        (401, {"error": {}}, ResponseClass.ACCOUNT_STOPPED, ()),
        (403, {"error": {"message": "UNAUTHORIZED"}}, ResponseClass.ACCOUNT_STOPPED, ()),
        (403, {"error": {"message": "JSON error: x"}}, ResponseClass.REJECTED, ()),
        (404, {}, ResponseClass.ACCOUNT_STOPPED, ()),
        (429, {}, ResponseClass.THROTTLED, ()),
        (500, {"error": {"message": "None were processed"}}, ResponseClass.RETRY, ()),
        (503, b"<html>", ResponseClass.RETRY, ()),
    ],
)
def test_what_an_answer_means(status: int, document: Any, expected: ResponseClass, refused: tuple[int, ...]) -> None:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    found = responses.classify(HttpResponse(status, body), 3)
    assert (found.response_class, found.refused) == (expected, refused)
    assert "jane" not in repr(found)
