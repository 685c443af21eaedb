"""GA4: events, envelopes, the rules that stand before an API that never says no, and the stage on the GA4 fake."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.consumers.destinations.attempts import SenderOptions
from attributary.consumers.destinations.destination import HttpResponse, Moment, NotSent, PreparedEvent, ResponseClass
from attributary.consumers.destinations.ga4.destination import EU_BASE_URL, Ga4Destination, Ga4Options
from attributary.consumers.destinations.ga4.event import client_id, session_id
from attributary.consumers.destinations.ga4.rules import check_envelope, check_event, check_request
from attributary.consumers.destinations.memory_ledger import MemoryLedger
from attributary.consumers.destinations.validation_probe import ValidationProbe
from attributary.consumers.runtime.errors import Retry
from attributary.consumers.store.deliveries.delivery import DeliveryState
from attributary.local.fakes import Fault, Ga4Fake
from attributary.local.fakes.ga4_checks import messages_of
from attributary.local.fakes.server import FakeServer
from attributary.producers.matching.text import sha256_hex
from tests.forwarder.forwarder_factories import (
    HASH,
    ScriptedTransport,
    SimulatedClock,
    conversion,
    ga4_account,
    records,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.forwarder.conftest import MakeStage

NOW = 1_795_500_000_000_000
HOUR = 3_600_000_000
FAST = SenderOptions(concurrency=1, first_backoff=0.001, max_backoff=0.002)


def prepared(**changes: Any) -> PreparedEvent | NotSent:
    return Ga4Destination().build(conversion(NOW, **changes), ga4_account(), Moment(NOW, NOW))


def document(**changes: Any) -> dict[str, Any]:
    event = prepared(**changes)
    assert isinstance(event, PreparedEvent), event
    found: dict[str, Any] = json.loads(Ga4Destination().request(ga4_account(), [event]).body)
    return found


def test_a_purchase_and_what_stands_around_it() -> None:
    found = document(
        user_id="u-1",
        order_id="o-1",
        ga_client_id="GA1.1.123.456",
        ga_session_id="GS2.1.s1747323152$o28$g0",
        engagement_time_msec=1200,
        properties={"coupon": "SPRING", "user.plan": "gold", "bad name": "x"},
        referrer="https://ref.example/",
    )
    assert found == {
        "client_id": "123.456",
        "user_id": "u-1",
        "consent": {"ad_user_data": "GRANTED", "ad_personalization": "GRANTED"},
        "user_data": {"sha256_email_address": [HASH]},
        "user_properties": {"plan": {"value": "gold"}},
        "user_agent": "Mozilla/5.0",
        "ip_override": "203.0.113.9",
        "events": [
            {
                "name": "purchase",
                "timestamp_micros": NOW - 60_000_000,
                "params": {
                    "transaction_id": "o-1",
                    "currency": "EUR",
                    "value": 19.99,
                    "session_id": "1747323152",
                    "engagement_time_msec": 1200,
                    "page_location": "https://shop.example/thanks",
                    "page_referrer": "https://ref.example/",
                    "items": [{"item_id": "sku-1", "item_name": "Shoe", "quantity": 2, "price": 9.995}],
                    "coupon": "SPRING",
                },
            }
        ],
    }


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"conversion_type": "lead"}, "generate_lead"),
        ({"conversion_type": "signup"}, "sign_up"),
        ({"conversion_type": "add_to_cart"}, "add_to_cart"),
        ({"conversion_type": "page_view"}, "page_view"),
        ({"conversion_type": "trial started"}, "trial_started"),
        ({"kind": "refund", "conversion_id": "c-1"}, "refund"),
        ({"kind": "cancellation", "conversion_id": "c-1"}, "refund"),
    ],
)
def test_event_names(changes: dict[str, Any], name: str) -> None:
    assert document(**changes)["events"][0]["name"] == name


def test_a_refund_names_its_purchase_and_a_cancellation_takes_all_of_it_back() -> None:
    refund = document(kind="refund", conversion_id="c-1", order_id=None)["events"][0]["params"]
    assert (refund["transaction_id"], refund["value"]) == ("c-1", 19.99)
    whole = document(kind="cancellation", conversion_id="c-1", order_id="o-9", items=[])["events"][0]["params"]
    assert whole["transaction_id"] == "o-9"
    assert "value" not in whole


def test_f20_user_data_needs_consent_and_goes_for_guests_too() -> None:
    assert document(user_id=None)["user_data"] == {"sha256_email_address": [HASH]}
    assert "user_data" not in document(consent={"analytics_storage": True, "ad_user_data": False})
    assert "user_data" not in document(consent={"analytics_storage": True})
    plain = {"email": "J.D@gmail.com", "first_name": "Jo", "last_name": "Do", "postal_code": "10115", "country": "de"}
    assert document(user_data=plain)["user_data"] == {
        "sha256_email_address": [sha256_hex("jd@gmail.com")],
        "address": [
            {
                "sha256_first_name": sha256_hex("jo"),
                "sha256_last_name": sha256_hex("do"),
                "postal_code": "10115",
                "country": "DE",
            }
        ],
    }
    assert document(user_id="jane@example.com")["user_id"] == sha256_hex("jane@example.com")


def test_an_app_stream_has_its_own_id() -> None:
    account = ga4_account(firebase_app_id="1:2:android:3")
    instance = "0123456789abcdef0123456789abcdef"
    destination = Ga4Destination(Ga4Options(base_url=EU_BASE_URL))
    event = destination.build(conversion(NOW, ga_app_instance_id=instance), account, Moment(NOW, NOW))
    assert isinstance(event, PreparedEvent)
    assert not event.resend_safe, "purchases of app streams are not removed when they come twice"
    request = destination.request(account, [event])
    assert request.url == f"{EU_BASE_URL}/mp/collect?firebase_app_id=1%3A2%3Aandroid%3A3&api_secret=test-secret"
    assert json.loads(request.body)["app_instance_id"] == instance
    assert b"test-secret" not in request.body


def test_client_and_session_ids() -> None:
    derived = conversion(NOW, ga_client_id=None, anonymous_id="d")
    assert client_id(derived) == client_id(conversion(NOW, ga_client_id=None, anonymous_id="d"))
    assert client_id(derived).replace(".", "").isdigit()
    assert [session_id(text) for text in (None, "17", "GS1.1.17.3.0.x", "GS2.1.s17$o1")] == [None, "17", "17", "17"]


def test_free_properties_are_fitted_instead_of_losing_the_event() -> None:
    many = {f"p{n:02d}": "x" * 101 for n in range(40)}
    event = prepared(properties=many | {"ga_secret": "x", "1st": "x"}, items=[])
    assert isinstance(event, PreparedEvent)
    params = json.loads(event.body)["params"]
    assert len(params) == 25
    assert max(len(text) for text in params.values() if isinstance(text, str)) == 100
    assert event.remark is not None
    assert "too many" in event.remark
    assert "its name" in event.remark


@pytest.mark.parametrize(
    ("changes", "field", "code"),
    [
        ({"conversion_type": "session_start"}, "events[0].name", "NAME_RESERVED"),
        ({"conversion_type": "ga_thing"}, "events[0].name", "NAME_RESERVED"),
        ({"conversion_type": "9lives"}, "events[0].name", "NAME_INVALID"),
        ({"conversion_type": "x" * 41}, "events[0].name", "NAME_INVALID"),
    ],
)
def test_what_ga4_would_drop_is_refused_with_googles_code(changes: dict[str, Any], field: str, code: str) -> None:
    refused = prepared(**changes)
    assert isinstance(refused, NotSent)
    assert (refused.state, refused.field) == (DeliveryState.REJECTED, field)
    assert refused.reason.startswith(code)


def test_age_and_corrections() -> None:
    destination = Ga4Destination()

    def prepared(**changes: Any) -> DeliveryState | None:
        refused = destination.validate(conversion(NOW, **changes), Moment(NOW, NOW))
        return refused.state if refused else None

    assert prepared(occurred_at=NOW - 71 * HOUR) is None
    assert prepared(occurred_at=NOW - 72 * HOUR) is DeliveryState.EXPIRED
    assert prepared(kind="restatement", conversion_id="c") is DeliveryState.SKIPPED
    assert prepared(kind="refund", conversion_id="c", conversion_type="lead") is DeliveryState.SKIPPED


@pytest.mark.parametrize(
    ("event", "code"),
    [
        ({}, "VALUE_REQUIRED"),
        ({"name": "x", "params": []}, "VALUE_INVALID"),
        ({"name": "x", "params": {"a": None}}, "VALUE_INVALID"),
        ({"name": "x", "params": {"a": float("nan")}}, "VALUE_INVALID"),
        ({"name": "x", "params": {"firebase_conversion": 1}}, "NAME_RESERVED"),
        ({"name": "x", "params": {"_a": 1}}, "NAME_INVALID"),
        ({"name": "x", "params": {"value": 1}}, "VALUE_REQUIRED"),
        ({"name": "x", "params": {"value": "1", "currency": "EUR"}}, "VALUE_INVALID"),
        ({"name": "x", "params": {"currency": "eur"}}, "VALUE_INVALID"),
        ({"name": "purchase", "params": {"transaction_id": ""}}, "VALUE_REQUIRED"),
        ({"name": "x", "params": {"items": [{}]}}, "VALUE_REQUIRED"),
        ({"name": "x", "params": {"items": [{"item_id": "i", "price": "1"}]}}, "VALUE_INVALID"),
        (
            {"name": "x", "params": {"items": [{"item_id": "i"} | {f"c{n}": 1 for n in range(11)}]}},
            "EXCEEDED_MAX_ENTITIES",
        ),
        ({"name": "x", "params": {f"p{n}": 1 for n in range(26)}}, "EXCEEDED_MAX_ENTITIES"),
        ({"name": "x", "params": {"engagement_time_msec": 0}}, "VALUE_INVALID"),
        ({"name": "x", "timestamp_micros": "1"}, "VALUE_INVALID"),
    ],
)
def test_event_rules(event: dict[str, Any], code: str) -> None:
    assert code in {problem.code for problem in check_event(event)}


@pytest.mark.parametrize(
    ("envelope", "path"),
    [
        ({}, "client_id"),
        ({"client_id": "1.2", "user_id": ""}, "user_id"),
        (
            {"client_id": "1.2", "user_id": "u", "user_data": {"sha256_email_address": ["x"]}},
            "user_data.sha256_email_address",
        ),
        ({"client_id": "1.2", "consent": {"ad_user_data": "YES"}}, "consent.ad_user_data"),
        ({"client_id": "1.2", "consent": {"analytics_storage": "GRANTED"}}, "consent.analytics_storage"),
        ({"client_id": "1.2", "user_properties": {"user_id": {"value": "x"}}}, "user_properties.user_id"),
        ({"client_id": "1.2", "user_properties": {"plan": {"value": "x" * 37}}}, "user_properties.plan"),
        ({"client_id": "1.2", "user_properties": {"plan": "x"}}, "user_properties.plan"),
        ({"client_id": "1.2", "user_location": {"country_id": "germany"}}, "user_location.country_id"),
        ({"client_id": "1.2", "user_location": {"region_id": "BE"}}, "user_location.region_id"),
        ({"client_id": "1.2", "device": {"colour": "red"}}, "device.colour"),
        ({"client_id": "1.2", "colour": "red"}, "colour"),
        ({"client_id": "1.2", "validation_behavior": "X"}, "validation_behavior"),
        ({"client_id": "1.2", "timestamp_micros": 1.5}, "timestamp_micros"),
    ],
)
def test_envelope_rules(envelope: dict[str, Any], path: str) -> None:
    assert path in {problem.path for problem in check_envelope(envelope)}


def test_request_rules() -> None:
    event = {"name": "x"}
    assert check_request({"client_id": "1.2", "events": [event] * 25}, body_bytes=100) == []
    assert check_request({"client_id": "1.2", "events": [event] * 26}, body_bytes=100)
    assert check_request({"client_id": "1.2", "events": [event]}, body_bytes=130_000)
    assert check_request({"client_id": "1.2", "events": []}, body_bytes=10)


names = st.text(st.sampled_from("abcZ_0-é "), max_size=45) | st.sampled_from(
    ["purchase", "refund", "session_start", "ga_x", "page_view", "items", "value", "currency", "session_id"]
)
values = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=130), st.just("EUR"))
events = st.fixed_dictionaries(
    {"name": names}, optional={"params": st.dictionaries(names, values, max_size=28), "timestamp_micros": values}
)


@settings(max_examples=300, deadline=None)
@given(events)
def test_what_our_rules_let_pass_passes_the_stand_in_too(event: dict[str, Any]) -> None:
    if not check_event(event):
        assert messages_of({"client_id": "1.2", "events": [event]}, 100, app=False) == []


@pytest.mark.parametrize(
    ("response", "response_class"),
    [
        (HttpResponse(204), ResponseClass.DELIVERED),
        (HttpResponse(200), ResponseClass.DELIVERED),
        (HttpResponse(503), ResponseClass.RETRY),
        (HttpResponse(429), ResponseClass.THROTTLED),
        (HttpResponse(0, fault="ConnectError"), ResponseClass.RETRY),
        (HttpResponse(0, fault="ReadTimeout", perhaps_sent=True), ResponseClass.AMBIGUOUS),
        (HttpResponse(413), ResponseClass.REJECTED),
        (HttpResponse(404), ResponseClass.ACCOUNT_STOPPED),
        (HttpResponse(302), ResponseClass.ACCOUNT_STOPPED),
    ],
)
def test_answers(response: HttpResponse, response_class: ResponseClass) -> None:
    assert Ga4Destination().classify(response, 1).response_class is response_class


@pytest.fixture
def fake() -> Ga4Fake:
    return Ga4Fake(secrets=["test-secret"])


@pytest.fixture
def url(fake: Ga4Fake) -> Iterator[str]:
    with FakeServer(fake) as server:
        yield server.url


def states(ledger: MemoryLedger) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in ledger.rows.values():
        found[row.state.value] = found.get(row.state.value, 0) + 1
    return found


def test_events_of_one_client_share_a_request(
    fake: Ga4Fake, url: str, clock: SimulatedClock, make_stage: MakeStage
) -> None:
    mine = {"user_id": "u", "ga_client_id": "1.2"}
    events = [conversion(clock.micros, **mine) for _ in range(60)] + [conversion(clock.micros) for _ in range(3)]
    make_stage("ga4", url, clock).handle(records(events, now_micros=clock.micros))
    assert fake.calls == 3 + 3
    assert fake.largest_request == 25
    assert (fake.counted, fake.dropped) == (63, [])


@pytest.mark.parametrize("kind", ["http_500", "http_503", "http_429", "reset_before"])
def test_faults_before_processing_lose_and_double_nothing(
    fake: Ga4Fake, url: str, clock: SimulatedClock, make_stage: MakeStage, kind: str
) -> None:
    fake.script.replace([Fault(kind, times=2)])
    ledger = MemoryLedger()
    batch = records([conversion(clock.micros) for _ in range(10)], now_micros=clock.micros)
    stage = make_stage("ga4", url, clock, ledger=ledger, options=FAST)
    for _ in range(20):
        try:
            stage.handle(batch)
            break
        except Retry as retry:
            clock.sleep(retry.after_seconds + 0.01)
    assert fake.script.fired[kind] == 2
    assert states(ledger) == {"sent": 10}
    assert (fake.counted, fake.purchase_copies, fake.dropped) == (10, 0, [])


@pytest.mark.parametrize(("policy", "state", "counted"), [("hold", "uncertain", 1), ("resend", "sent", 2)])
def test_an_ambiguous_answer_is_safe_for_purchases_and_a_policy_for_the_rest(
    fake: Ga4Fake, url: str, clock: SimulatedClock, make_stage: MakeStage, policy: Any, state: str, counted: int
) -> None:
    options = SenderOptions(concurrency=1, first_backoff=0.001, max_backoff=0.002, uncertain=policy)
    ledger = MemoryLedger()
    stage = make_stage("ga4", url, clock, ledger=ledger, options=options)
    fake.script.replace([Fault("reset_after", times=1)])
    lead = conversion(clock.micros, conversion_type="lead", event_id="lead")
    stage.handle(records([lead], now_micros=clock.micros))
    assert fake.counted == counted
    (row,) = ledger.find("lead")
    assert row.state.value == state
    fake.clear()
    fake.script.replace([Fault("reset_after", times=1)])
    stage.handle(records([conversion(clock.micros, event_id="buy")], now_micros=clock.micros, first=5))
    (row,) = ledger.find("buy")
    assert (row.state.value, fake.counted, fake.purchase_copies) == ("sent", 1, 1), "removed by its transaction id"


def test_a_crash_in_flight_leaves_a_lead_uncertain_and_a_purchase_to_send(
    url: str, clock: SimulatedClock, make_stage: MakeStage, fake: Ga4Fake
) -> None:
    ledger = MemoryLedger()
    events = [conversion(clock.micros), conversion(clock.micros, conversion_type="lead")]
    batch = records(events, now_micros=clock.micros)
    broken = make_stage("ga4", url, clock, ledger=ledger, transport=ScriptedTransport(_die))
    with pytest.raises(PowerCut):
        broken.handle(batch)
    assert all(row.in_flight for row in ledger.rows.values())
    make_stage("ga4", url, clock, ledger=ledger).handle(batch)
    assert states(ledger) == {"sent": 1, "uncertain": 1}
    assert fake.counted == 1


class PowerCut(BaseException):
    pass


def _die(_: Any) -> HttpResponse:
    raise PowerCut


def test_new_shapes_are_probed_once_and_a_new_secret_sends_a_canary(
    fake: Ga4Fake, url: str, clock: SimulatedClock
) -> None:
    from attributary.consumers.destinations.destination import Account
    from attributary.consumers.destinations.sender import BatchSender
    from attributary.consumers.destinations.transport import HttpTransport

    destination, ledger = Ga4Destination(Ga4Options(base_url=url)), MemoryLedger()
    sender = BatchSender(destination, HttpTransport(), ledger, SenderOptions(), clock)
    validation_probe = ValidationProbe(destination, sender, ledger, clock)
    account = ga4_account()
    one = [destination.build(conversion(clock.micros), account, Moment(clock.micros, clock.micros)) for _ in range(9)]
    good = [event for event in one if isinstance(event, PreparedEvent)]
    validation_probe.probe(account, good)
    validation_probe.probe(account, good)
    assert (fake.debug_calls, fake.calls) == (1, 0)
    changed = Account(account.tenant_id, account.ledger_name, account.account_id, "test-secret-2", account.options)
    ValidationProbe(destination, sender, ledger, clock).probe(changed, good)
    ValidationProbe(destination, sender, ledger, clock).probe(changed, good)
    assert fake.calls == 1, "one canary for the new secret"
    assert fake.dropped[0]["document"]["events"][0]["name"] == "attributary_canary"
    sender.close()
