"""Microsoft Advertising: what an event looks like, what it says of consent, what an answer means."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from attributary.consumers.destinations.ad_platform import PlatformOptions
from attributary.consumers.destinations.destination import HttpResponse, Moment, NotSent, ResponseClass
from attributary.consumers.destinations.memory_ledger import MemoryLedger
from attributary.consumers.destinations.microsoft import responses
from attributary.consumers.destinations.microsoft.destination import MicrosoftDestination
from attributary.consumers.destinations.prepare import prepare
from attributary.consumers.store.deliveries.delivery import DeliveryState
from attributary.local.fakes import Fault, MicrosoftFake
from attributary.local.fakes.server import FakeServer
from attributary.producers.matching import hash_user_data
from attributary.producers.matching.text import sha256_hex
from tests.forwarder.forwarder_factories import (
    CASE_TIME,
    account_at,
    conversion,
    destination_at,
    prepared,
    records,
    sent,
)

if TYPE_CHECKING:
    from tests.forwarder.conftest import MakeStage
    from tests.forwarder.forwarder_factories import SimulatedClock

DAY = 86_400_000_000
# Of Microsoft's guide.
JOHN = "ec81f3ac7b2b19675bab9d54cf416f9f18cff87c97da5cca82c0f0891bc40602"
PHONE = "c59475d96e9f01d7d18d06cfad84dd02333207f02c0c2c5663ef2782cda0390e"


def test_a_purchase_carries_every_documented_part() -> None:
    event, remark = sent(
        "microsoft",
        event_id="e-1",
        order_id="o-1",
        user_id="User-1",
        user_data={"email": "John@Contoso.com", "phone": "+1 425 555 1234"},
        click_ids={"msclkid": "ab-12", "_uetvid": "c0-1", "gaid": "38400000-8cf0-11bd-b23e-10b96e40000d"},
        referrer="https://search.example/?email=a%40b.de",
        properties={
            "event_category": "shop", "event_label": "autumn", "event_value": "3.5", "search_term": "shoe",
            "page_type": "purchase", "colour": "red",
        },
    )  # fmt: skip
    assert event == {
        "eventType": "custom",
        "eventName": "purchase",
        "eventId": "e-1",
        "eventTime": (CASE_TIME - 60_000_000) // 1_000_000,
        "eventSourceUrl": "https://shop.example/thanks",
        "referrerUrl": "https://search.example/",
        "adStorageConsent": "G",
        "userData": {
            "em": JOHN,
            "ph": PHONE,
            "externalId": sha256_hex("User-1"),
            "anonymousId": "c0-1",
            "msclkid": "ab-12",
            "gaid": "38400000-8cf0-11bd-b23e-10b96e40000d",
            "clientIpAddress": "203.0.113.9",
            "clientUserAgent": "Mozilla/5.0",
        },
        "customData": {
            "value": 19.99,
            "currency": "EUR",
            "transactionId": "o-1",
            "itemIds": ["sku-1"],
            "items": [{"id": "sku-1", "quantity": 2, "price": 9.995, "name": "Shoe"}],
            "eventCategory": "shop",
            "eventLabel": "autumn",
            "eventValue": 3.5,
            "searchTerm": "shoe",
            "pageType": "purchase",
        },
    }
    assert remark == "referrer: personal data left out; property left out: Microsoft has no field for it"


@pytest.mark.parametrize("hashed_by", ["producer", "forwarder"])
def test_an_address_loses_dots_and_tag_whatever_its_domain(hashed_by: str) -> None:
    plain = {"email": "j.oh.n+news@contoso.com"}
    given: dict[str, Any] = hash_user_data(plain) if hashed_by == "producer" else plain
    event, _ = sent("microsoft", user_data=given)
    assert event["userData"]["em"] == JOHN


def test_a_page_view_is_a_page_load_and_a_goal_has_the_name_of_its_action() -> None:
    event, remark = sent("microsoft", conversion_type="page_view", items=[])
    assert event["eventType"] == "pageLoad"
    assert "eventName" not in event
    assert "value" not in event["customData"]
    assert "value left out" in remark
    own = MicrosoftDestination(PlatformOptions(event_names={"purchase": "buy", "page_view": "visit"}))
    assert sent("microsoft", own)[0]["eventName"] == "buy"
    assert sent("microsoft", own, conversion_type="page_view")[0]["eventType"] == "custom"


@pytest.mark.parametrize(
    ("changes", "state", "field"),
    [
        ({"occurred_at": CASE_TIME - 7 * DAY}, DeliveryState.EXPIRED, "occurred_at"),
        ({"kind": "refund", "conversion_id": "o-1"}, DeliveryState.SKIPPED, "kind"),
        ({"conversion_type": "page_view", "event_source_url": None}, DeliveryState.SKIPPED, "event_source_url"),
        (
            {"user_data": None, "user_id": None, "client_user_agent": None, "click_ids": {}},
            DeliveryState.SKIPPED,
            "user_data",
        ),
    ],
)
def test_what_would_be_refused_is_not_sent(changes: dict[str, Any], state: DeliveryState, field: str) -> None:
    found = prepared("microsoft", **changes)
    assert isinstance(found, NotSent)
    assert (found.state, found.field) == (state, field)


@pytest.mark.parametrize(
    ("consent", "said"),
    [
        ({"ad_storage": True, "ad_user_data": True}, "G"),
        ({"ad_user_data": True}, "D"),
        (None, "D"),
    ],
)
def test_silence_about_ad_storage_never_goes_as_a_yes(consent: dict[str, bool] | None, said: str) -> None:
    event, _ = sent("microsoft", consent=consent)
    assert event["adStorageConsent"] == said


def test_a_refused_purpose_skips_the_event_unless_the_operator_asks_for_others() -> None:
    refused = conversion(CASE_TIME, consent={"ad_storage": False, "ad_user_data": True})
    moment = Moment(CASE_TIME, CASE_TIME)
    found = prepare(
        destination_at("microsoft", "https://a.example"), refused, account_at("microsoft"), moment, unknown="send"
    )
    assert isinstance(found, NotSent)
    lenient = MicrosoftDestination(consent_purposes=("ad_user_data",))
    event, _ = sent("microsoft", lenient, consent={"ad_storage": False, "ad_user_data": True})
    assert event["adStorageConsent"] == "D"


def test_a_field_that_microsoft_would_refuse_is_left_out() -> None:
    event, remark = sent("microsoft", properties={"event_value": "many", "page_type": "garden"})
    assert not event["customData"].keys() & {"eventValue", "pageType"}
    assert "event_value left out: not a number" in remark
    assert "page_type left out: not one of Microsoft's" in remark


def test_the_request_asks_for_the_good_events_beside_the_bad() -> None:
    destination = destination_at("microsoft", "https://capi.example")
    request = destination.request(account_at("microsoft"), [prepared("microsoft"), prepared("microsoft")])
    body = json.loads(request.body)
    assert body["continueOnValidationError"] is True
    assert len(body["data"]) == 2
    assert all("continueOnValidationError" not in event for event in body["data"])
    assert request.url == "https://capi.example/v1/1870/events"
    assert request.headers == {"authorization": "Bearer test-token"}
    assert b"test-token" not in request.body


def detail(index: Any, name: str = "userData.em", **more: Any) -> dict[str, Any]:
    return {"index": index, "propertyName": name, "attemptedValue": "jane@example.com", **more}


@pytest.mark.parametrize(
    ("status", "document", "expected", "refused"),
    [
        (200, {"eventsReceived": 3}, ResponseClass.DELIVERED, ()),
        (200, {"eventsReceived": 2, "error": {"details": [detail(1)]}}, ResponseClass.DELIVERED, (1,)),
        (200, {"eventsReceived": 3, "error": {"details": [detail(1, isWarning=True)]}}, ResponseClass.DELIVERED, ()),
        (200, {"eventsReceived": 1, "error": {"details": [detail(1)]}}, ResponseClass.AMBIGUOUS, ()),
        (200, {"eventsReceived": 0, "error": {"details": [detail(n) for n in range(3)]}}, ResponseClass.REJECTED, ()),
        (200, {"eventsReceived": True}, ResponseClass.AMBIGUOUS, ()),
        (200, {}, ResponseClass.AMBIGUOUS, ()),
        (200, b"<html>", ResponseClass.AMBIGUOUS, ()),
        (400, {"error": {"code": "ValidationError", "details": [detail(2)]}}, ResponseClass.REJECTED, (2,)),
        (400, {"error": {"details": [detail(-1), detail(7), detail("1"), 5]}}, ResponseClass.REJECTED, ()),
        (400, {"error": None}, ResponseClass.REJECTED, ()),
        (401, {}, ResponseClass.ACCOUNT_STOPPED, ()),
        (401, b"", ResponseClass.ACCOUNT_STOPPED, ()),
        (403, {}, ResponseClass.ACCOUNT_STOPPED, ()),
        (429, {}, ResponseClass.THROTTLED, ()),
        (500, {}, ResponseClass.RETRY, ()),
        (503, b"<html>", ResponseClass.RETRY, ()),
    ],
)
def test_what_an_answer_means(status: int, document: Any, expected: ResponseClass, refused: tuple[int, ...]) -> None:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    found = responses.classify(HttpResponse(status, body), 3)
    assert (found.response_class, found.refused) == (expected, refused)
    assert "jane" not in repr(found)


def test_the_reason_names_the_field_and_no_value() -> None:
    body = json.dumps({"error": {"details": [detail(0, "data[0].userData.em"), detail(1, "jane@example.com")]}})
    assert responses.classify(HttpResponse(400, body.encode()), 3).reason == "refused by Microsoft: userData"


def test_a_bad_event_costs_no_other_and_a_warning_costs_none(make_stage: MakeStage, clock: SimulatedClock) -> None:
    fake = MicrosoftFake(tags=["1870"])
    now = clock.now_micros()
    events = [conversion(now) for _ in range(6)]
    fake.poison = {events[2]["event_id"]}
    ledger = MemoryLedger()
    with FakeServer(fake) as server:
        stage = make_stage("microsoft", server.url, clock, ledger=ledger)
        fake.script.replace([Fault("warning", times=1)])
        outcome = stage.handle(records(events, now_micros=now))
    assert fake.script.fired == {"warning": 1}
    assert [letter.record.offset for letter in outcome.dead_letters] == [2]
    assert fake.received.calls == 1
    assert len(fake.received.by_key) == 5
    assert fake.unattributed == 0
