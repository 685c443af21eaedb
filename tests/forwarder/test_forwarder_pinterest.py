"""Pinterest: what an event looks like, what is not sent, what an answer means of each event of its request."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from attributary.consumers.destinations.destination import HttpResponse, NotSent, PreparedEvent, ResponseClass
from attributary.consumers.destinations.memory_ledger import MemoryLedger
from attributary.consumers.destinations.pinterest import responses
from attributary.consumers.store.deliveries.delivery import DeliveryState
from attributary.local.fakes import Fault, PinterestFake
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
LINE = {"item_id": "sku-1", "quantity": 2.0, "price_micros": 5_000, "properties": {}}


def test_a_purchase_carries_every_documented_part() -> None:
    event, remark = sent(
        "pinterest",
        event_id="e-1",
        order_id="o-1",
        user_id="User-1",
        user_data={"meta_hashes": {"em": [HASH], "ph": [PHONE], "fn": [HASH]}},
        click_ids={"epik": "dj0yJnU", "gaid": "cd34"},
        items=[LINE],
        properties={"search_string": "shoes", "colour": "red"},
        opt_out=True,
        data_processing_options=["LDU"],
    )
    assert event == {
        "event_name": "checkout",
        "action_source": "web",
        "event_time": (CASE_TIME - 60_000_000) // 1_000_000,
        "event_id": "e-1",
        "event_source_url": "https://shop.example/thanks",
        "opt_out": True,
        "user_data": {
            "em": [HASH],
            "ph": [PHONE],
            "fn": [HASH],
            "external_id": [sha256_hex("User-1")],
            "hashed_maids": [sha256_hex("cd34")],
            "click_id": "dj0yJnU",
            "client_ip_address": "203.0.113.9",
            "client_user_agent": "Mozilla/5.0",
        },
        "custom_data": {
            "value": "19.99",
            "currency": "EUR",
            "order_id": "o-1",
            "content_ids": ["sku-1"],
            "contents": [{"id": "sku-1", "item_price": "0.005", "quantity": 2}],
            "num_items": 2,
            "search_string": "shoes",
            "opt_out_type": "LDP",
        },
    }
    assert remark == "property left out: Pinterest has no field for it"


def test_another_type_goes_as_custom_and_says_so() -> None:
    event, remark = sent("pinterest", conversion_type="trial_started", value_micros=0, currency="XXX", items=[])
    assert event["event_name"] == "custom"
    assert remark == "sent as custom: Pinterest has no event of this type"
    event, _ = sent("pinterest", conversion_type="signup")
    assert event["event_name"] == "signup"


@pytest.mark.parametrize(("system", "source"), [("Android", "app_android"), ("ios", "app_ios")])
def test_an_event_of_an_app_names_its_system(system: str, source: str) -> None:
    event, _ = sent("pinterest", action_source="app", properties={"operating_system": system})
    assert event["action_source"] == source


@pytest.mark.parametrize(
    ("changes", "state", "field"),
    [
        ({"occurred_at": CASE_TIME - 7 * DAY}, DeliveryState.EXPIRED, "occurred_at"),
        ({"action_source": "app"}, DeliveryState.SKIPPED, "action_source"),
        ({"action_source": "app", "properties": {"operating_system": "tv"}}, DeliveryState.SKIPPED, "action_source"),
        # A phone number alone is not enough.
        (
            {"user_data": {"meta_hashes": {"ph": [PHONE]}}, "client_ip_address": None},
            DeliveryState.SKIPPED,
            "user_data",
        ),
    ],
)
def test_what_would_spoil_a_batch_is_not_sent(changes: dict[str, Any], state: DeliveryState, field: str) -> None:
    found = prepared("pinterest", **changes)
    assert isinstance(found, NotSent)
    assert (found.state, found.field) == (state, field)


def test_the_request_has_its_token_in_a_header() -> None:
    event = prepared("pinterest")
    assert isinstance(event, PreparedEvent)
    request = destination_at("pinterest", "https://api.example").request(account_at("pinterest"), [event])
    assert request.url == "https://api.example/v5/ad_accounts/5490/events"
    assert json.loads(request.body) == {"data": [json.loads(event.body)]}
    assert request.headers == {"authorization": "Bearer test-token"}


def listed(*statuses: str) -> dict[str, Any]:
    return {"events": [{"status": status, "error_message": "jane@example.com"} for status in statuses]}


@pytest.mark.parametrize(
    ("status", "document", "expected", "refused", "suspects"),
    [
        (200, listed("processed", "processed", "processed"), ResponseClass.DELIVERED, (), ()),
        (200, listed("processed", "failed", "processed"), ResponseClass.DELIVERED, (1,), ()),
        (200, listed("failed", "failed", "failed"), ResponseClass.REJECTED, (), ()),
        (200, listed("processed"), ResponseClass.AMBIGUOUS, (), ()),
        (200, {"num_events_received": 3, "num_events_processed": 3}, ResponseClass.DELIVERED, (), ()),
        (200, {"num_events_received": 3, "num_events_processed": 2}, ResponseClass.AMBIGUOUS, (), ()),
        (200, b"<html>", ResponseClass.AMBIGUOUS, (), ()),
        (422, {"details": listed("failed", "processed", "failed")}, ResponseClass.DELIVERED, (0, 2), ()),
        (422, {"details": {}}, ResponseClass.REJECTED, (), (0, 1)),
        (400, {"code": 1, "message": "x"}, ResponseClass.REJECTED, (), ()),
        (401, {"code": 2}, ResponseClass.ACCOUNT_STOPPED, (), ()),
        (403, {"code": 29}, ResponseClass.ACCOUNT_STOPPED, (), ()),
        (429, {"code": 8}, ResponseClass.THROTTLED, (), ()),
        (503, {"code": 12}, ResponseClass.RETRY, (), ()),
    ],
)
def test_what_an_answer_means(
    status: int, document: Any, expected: ResponseClass, refused: tuple[int, ...], suspects: tuple[int, ...]
) -> None:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    found = responses.classify(HttpResponse(status, body), 3)
    assert (found.response_class, found.refused, found.suspects) == (expected, refused, suspects)
    assert "jane" not in repr(found)


@pytest.mark.parametrize(("kind", "copies", "calls"), [("listed_422", 0, 1), ("bare_422", 4, 6)])
def test_beside_a_422_the_others_are_taken_and_only_an_unnamed_one_costs_calls(
    kind: str, copies: int, calls: int, make_stage: MakeStage, clock: SimulatedClock
) -> None:
    fake = PinterestFake()
    now = clock.now_micros()
    sent_events = [conversion(now) for _ in range(5)]
    with FakeServer(fake) as server:
        stage = make_stage("pinterest", server.url, clock, ledger=MemoryLedger())
        stage.handle(records([conversion(now)], now_micros=now))
        fake.poison = {sent_events[3]["event_id"]}
        fake.script.replace([Fault(kind, times=1)])
        before = fake.received.calls
        outcome = stage.handle(records(sent_events, now_micros=now, first=1))
    assert fake.script.fired == {kind: 1}
    assert [letter.record.offset for letter in outcome.dead_letters] == [4]
    assert len(fake.received.by_key) == 5
    assert fake.received.duplicates == copies, "each is tried alone with the id of its first copy"
    assert fake.received.calls - before == calls
