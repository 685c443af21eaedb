"""The typed clients, used on their own against the stand-ins."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from attributary.consumers.destinations.clients import GA4Client, MetaConversionsClient
from attributary.consumers.destinations.meta.destination import MetaOptions
from attributary.consumers.store.deliveries.delivery import DeliveryState
from attributary.local.fakes import Fault, Ga4Fake, MetaFake
from attributary.local.fakes.server import FakeServer
from attributary.producers.errors import InvalidRecord
from attributary.producers.matching.text import sha256_hex
from attributary.producers.records import Conversion, Item

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def meta_fake() -> MetaFake:
    return MetaFake(tokens=["token"], app_secret="app")


@pytest.fixture
def meta(meta_fake: MetaFake) -> Iterator[MetaConversionsClient]:
    options = MetaOptions(base_url="http://127.0.0.1", default_region="DE")
    with FakeServer(meta_fake) as server:
        options = MetaOptions(base_url=server.url, default_region="DE")
        with MetaConversionsClient("42", "token", options, test_event_code="TEST7", app_secret="app") as client:
            yield client


@pytest.fixture
def ga4_fake() -> Ga4Fake:
    return Ga4Fake()


@pytest.fixture
def ga4(ga4_fake: Ga4Fake) -> Iterator[GA4Client]:
    with FakeServer(ga4_fake) as server, GA4Client("G-X1", "secret", base_url=server.url) as client:
        yield client


def test_meta_sends_the_four_usual_events(meta: MetaConversionsClient, meta_fake: MetaFake) -> None:
    person = {"email": "Jane@Example.com", "phone": "0171 1234567"}
    bought = meta.send_purchase(
        event_id="order-1",
        value=Decimal("19.99"),
        currency="EUR",
        user_data=person,
        order_id="order-1",
        items=[Item(item_id="sku", price_micros=19_990_000)],
    )
    assert bought.is_sent
    assert bought.trace_id
    assert meta.send_lead(user_data=person).is_sent
    assert meta.send_add_to_cart(user_data=person).is_sent
    assert meta.send_page_view(user_data=person, event_source_url="https://shop.example/").is_sent
    assert meta.send_event("subscribe", user_id="u-1").is_sent
    names = [event["event_name"] for event in meta_fake.bodies]
    assert names == ["Purchase", "Lead", "AddToCart", "PageView", "Subscribe"]
    assert meta_fake.bodies[0]["user_data"]["em"] == [sha256_hex("jane@example.com")]
    assert meta_fake.bodies[0]["user_data"]["ph"] == [sha256_hex("491711234567")]
    assert meta_fake.test_events == 5


def test_meta_says_why_an_event_was_not_sent(meta: MetaConversionsClient, meta_fake: MetaFake) -> None:
    assert meta.send_lead().state is DeliveryState.SKIPPED
    week = int(time.time() * 1e6) - 8 * 86_400_000_000
    assert meta.send_lead(user_id="u", occurred_at=week).state is DeliveryState.EXPIRED
    refused = meta.send_lead(user_id="u", consent={"ad_user_data": False, "ad_storage": True})
    assert refused.reason == "consent refused: ad_user_data"
    meta_fake.script.replace([Fault("token", times=9)])
    assert meta.send_lead(user_id="u").state is DeliveryState.PENDING
    with pytest.raises(InvalidRecord, match="ISO 4217"):
        meta.send_purchase(value=1, currency="euro", user_id="u")


def test_meta_sends_many_at_once(meta: MetaConversionsClient, meta_fake: MetaFake) -> None:
    now = int(time.time() * 1e6)
    many = [
        Conversion(tenant_id="t", conversion_type="lead", occurred_at=now, user_id=f"u{n}", event_id=f"e{n}")
        for n in range(1_500)
    ]
    receipts = meta.send(many)
    assert sum(receipt.is_sent for receipt in receipts) == 1_500
    assert (meta_fake.calls, meta_fake.largest_request) == (2, 1_000)


def test_ga4_sends_the_four_usual_events_and_refunds(ga4: GA4Client, ga4_fake: Ga4Fake) -> None:
    browser = {"ga_client_id": "1.2", "ga_session_id": "17"}
    assert ga4.send_purchase(value=10, currency="JPY", order_id="o-1", ga_client_id="1.2", user_id="u").is_sent
    assert ga4.send_lead(ga_client_id="1.2").is_sent
    assert ga4.send_add_to_cart(ga_client_id="1.2").is_sent
    assert ga4.send_page_view(event_source_url="https://shop.example/", ga_client_id="1.2").is_sent
    now = int(time.time() * 1e6)
    refund = Conversion.refund(
        of="c", value=10, currency="JPY", order_id="o-1", occurred_at=now, user_id="u", tenant_id="t"
    )
    assert ga4.send([refund])[0].is_sent
    events = [entry["event"] for entry in ga4_fake.accepted]
    assert [event["name"] for event in events] == ["purchase", "generate_lead", "add_to_cart", "page_view", "refund"]
    assert events[0]["params"]["value"] == 10
    assert browser["ga_client_id"] == ga4_fake.accepted[0]["envelope"]["client_id"]
    assert ga4_fake.dropped == []


def test_ga4_takes_events_of_your_own_making(ga4: GA4Client, ga4_fake: Ga4Fake) -> None:
    assert ga4.validate_event("level_up", {"level": 3}, client_id="1.2") == []
    assert ga4.send_event("level_up", {"level": 3}, client_id="1.2", user_id="u").is_sent
    assert ga4_fake.accepted[0]["event"]["params"] == {"level": 3}
    (problem,) = ga4.validate_event("session_start", {}, client_id="1.2")
    assert (problem.path, problem.code) == ("events[0].name", "NAME_RESERVED")
    assert ga4.send_event("session_start", {}, client_id="1.2").state is DeliveryState.REJECTED
    assert ga4.send_event("x", {}).reason == "VALUE_REQUIRED: client_id: a web stream needs a client id"
    assert ga4.ask_google("session_start", {}, client_id="1.2") == ["NAME_RESERVED"]
    assert (ga4_fake.calls, ga4_fake.debug_calls) == (1, 1)


def test_ga4_needs_a_stream() -> None:
    with pytest.raises(ValueError, match="measurement_id or firebase_app_id"):
        GA4Client(None, "secret")


def test_ga4_app_streams(ga4_fake: Ga4Fake) -> None:
    instance = "7d1f3b6a90c24e8885aa31c4de0b92f6"
    with (
        FakeServer(ga4_fake) as server,
        GA4Client(None, "secret", firebase_app_id="1:2:ios:3", base_url=server.url) as client,
    ):
        assert client.send_lead(ga_app_instance_id=instance).is_sent
        assert client.send_event("level_up", {}, user_id="u", app_instance_id=instance).is_sent
        assert client.send_lead(ga_client_id="1.2").state is DeliveryState.SKIPPED
    assert {entry["stream"] for entry in ga4_fake.accepted} == {"1:2:ios:3"}
