"""Snap: what an event looks like, where it goes, what an answer means."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from attributary.consumers.destinations.ad_platform import PlatformOptions
from attributary.consumers.destinations.destination import HttpResponse, NotSent, PreparedEvent, ResponseClass
from attributary.consumers.destinations.memory_ledger import MemoryLedger
from attributary.consumers.destinations.snap import responses
from attributary.consumers.destinations.snap.destination import SnapDestination
from attributary.consumers.store.deliveries.delivery import DeliveryState
from attributary.local.fakes import Fault, SnapFake
from attributary.local.fakes.server import FakeServer
from attributary.producers.matching.text import sha256_hex
from tests.forwarder.forwarder_factories import (
    CASE_TIME,
    HASH,
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
PHONE = sha256_hex("491711234567")


def test_a_purchase_carries_every_documented_part() -> None:
    event, remark = sent(
        "snap",
        event_id="e-1",
        order_id="o-1",
        user_id="User-1",
        user_data={"meta_hashes": {"em": [HASH], "ph": [PHONE], "zp": [HASH]}},
        click_ids={"ScCid": "8f3a-Z", "_scid": "c0-1", "idfa": "AB-12"},
        properties={"sign_up_method": "form", "colour": "red"},
        opt_out=True,
        data_processing_options=["LDU"],
    )
    assert event == {
        "event_name": "PURCHASE",
        "event_time": (CASE_TIME - 60_000_000) // 1_000_000,
        "action_source": "web",
        "event_id": "e-1",
        "event_source_url": "https://shop.example/thanks",
        "opt_out": True,
        "data_processing_options": ["LDU"],
        "user_data": {
            "em": [HASH],
            "ph": [PHONE],
            "zp": HASH,
            "external_id": sha256_hex("User-1"),
            "madid": "ab-12",
            "sc_click_id": "8f3a-Z",
            "sc_cookie1": "c0-1",
            "client_ip_address": "203.0.113.9",
            "client_user_agent": "Mozilla/5.0",
        },
        "custom_data": {
            "value": 19.99,
            "currency": "EUR",
            "order_id": "o-1",
            "content_ids": ["sku-1"],
            "contents": [{"id": "sku-1", "quantity": 2, "item_price": 9.995}],
            "num_items": 2,
            "sign_up_method": "form",
        },
    }
    assert remark == "property left out: Snap has no field for it"


def test_a_lead_needs_a_name_of_the_tenants() -> None:
    found = prepared("snap", conversion_type="lead")
    assert isinstance(found, NotSent)
    assert (found.state, found.field) == (DeliveryState.SKIPPED, "conversion_type")
    own = SnapDestination(PlatformOptions(event_names={"lead": "CUSTOM_EVENT_1"}))
    assert sent("snap", own, conversion_type="lead")[0]["event_name"] == "CUSTOM_EVENT_1"


@pytest.mark.parametrize(
    ("changes", "state", "field"),
    [
        ({"occurred_at": CASE_TIME - 37 * DAY}, DeliveryState.EXPIRED, "occurred_at"),
        ({"currency": "XXX", "value_micros": 0, "items": []}, DeliveryState.REJECTED, "currency"),
        ({"user_data": None, "client_user_agent": None}, DeliveryState.SKIPPED, "user_data"),
    ],
)
def test_what_would_spoil_a_batch_is_not_sent(changes: dict[str, Any], state: DeliveryState, field: str) -> None:
    found = prepared("snap", **changes)
    assert isinstance(found, NotSent)
    assert (found.state, found.field) == (state, field)


def test_events_of_the_web_and_of_an_app_go_to_their_own_assets() -> None:
    destination = destination_at("snap", "https://tr.example")
    web, app = prepared("snap", action_source="physical_store"), prepared("snap", action_source="app")
    assert isinstance(web, PreparedEvent)
    assert isinstance(app, PreparedEvent)
    assert web.envelope != app.envelope, "they never share a request"
    urls = [destination.request(account_at("snap"), [event]).url for event in (web, app)]
    assert urls == [
        "https://tr.example/v3/pixel-1/events?access_token=test-token",
        "https://tr.example/v3/app-1/events?access_token=test-token",
    ]
    request = destination.request(account_at("snap"), [web])
    assert json.loads(request.body) == {"data": [json.loads(web.body)]}
    assert "test-token" not in repr(request)
    account = account_at("snap")
    without_app = type(account)("acme", "snap", "pixel-1", "t", {"pixel_id": "pixel-1"})
    found = destination.build(conversion(CASE_TIME, action_source="app"), without_app, _moment())
    assert isinstance(found, NotSent)
    assert found.reason == "no app_id is set for events of source app"


def _moment() -> Any:
    from attributary.consumers.destinations.destination import Moment

    return Moment(CASE_TIME, CASE_TIME)


@pytest.mark.parametrize(
    ("status", "document", "expected", "suspects"),
    [
        (200, {"status": "VALID"}, ResponseClass.DELIVERED, ()),
        (200, {"status": "INVALID", "event": 1}, ResponseClass.REJECTED, (1,)),
        (200, {}, ResponseClass.AMBIGUOUS, ()),
        (200, b"<html>", ResponseClass.AMBIGUOUS, ()),
        (400, {"status": "INVALID", "event": 2, "reason": "jane@example.com"}, ResponseClass.REJECTED, (2,)),
        (400, {"status": "INVALID", "event": 7}, ResponseClass.REJECTED, ()),
        (400, {"status": "INVALID", "errors": {"codes": ["E_1", "jane@example.com"]}}, ResponseClass.REJECTED, ()),
        (401, {"status": "INVALID"}, ResponseClass.ACCOUNT_STOPPED, ()),
        (403, {"status": "INVALID"}, ResponseClass.ACCOUNT_STOPPED, ()),
        (429, {"status": "INVALID"}, ResponseClass.THROTTLED, ()),
        (500, {"status": "INVALID"}, ResponseClass.RETRY, ()),
        (502, b"<html>", ResponseClass.RETRY, ()),
    ],
)
def test_what_an_answer_means(status: int, document: Any, expected: ResponseClass, suspects: tuple[int, ...]) -> None:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    found = responses.classify(HttpResponse(status, body), 3)
    assert (found.response_class, found.suspects) == (expected, suspects)
    assert "jane" not in repr(found)


def test_an_answer_of_200_that_says_invalid_is_a_refusal(make_stage: MakeStage, clock: SimulatedClock) -> None:
    fake = SnapFake()
    now = clock.now_micros()
    events = [conversion(now) for _ in range(5)]
    with FakeServer(fake) as server:
        stage = make_stage("snap", server.url, clock, ledger=MemoryLedger())
        stage.handle(records([conversion(now)], now_micros=now))
        fake.poison = {events[3]["event_id"]}
        fake.script.replace([Fault("invalid_200", times=1)])
        outcome = stage.handle(records(events, now_micros=now, first=1))
    assert fake.script.fired == {"invalid_200": 1}
    assert [letter.record.offset for letter in outcome.dead_letters] == [4]
    assert len(fake.received.by_key) == 5
    assert fake.received.duplicates == 0
