"""Google's Data Manager API: what an event carries, what is not sent, what each answer means, Google's own vectors."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from attributary.consumers.destinations.ad_platform import PlatformOptions
from attributary.consumers.destinations.attempts import SenderOptions
from attributary.consumers.destinations.credentials import AccountCredentials, Credentials
from attributary.consumers.destinations.destination import (
    Account,
    HttpResponse,
    Moment,
    NotSent,
    PreparedEvent,
    RequestStatus,
    ResponseClass,
)
from attributary.consumers.destinations.google import responses
from attributary.consumers.destinations.google.destination import GoogleDestination
from attributary.consumers.destinations.memory_ledger import MemoryLedger
from attributary.consumers.destinations.oauth2.grants import RefreshTokenGrant
from attributary.consumers.destinations.oauth2.service_account import ServiceAccountGrant
from attributary.consumers.destinations.prepare import prepare
from attributary.consumers.destinations.sender import BatchSender, Shipment
from attributary.consumers.destinations.transport import HttpTransport
from attributary.consumers.destinations.wire_format import rfc3339
from attributary.consumers.runtime.errors import Retry
from attributary.consumers.store.deliveries.delivery import DeliveryState
from attributary.local.fakes import Fault, GoogleFake, OAuthFake
from attributary.local.fakes.server import FakeServer
from attributary.producers.matching import google as google_rules
from attributary.producers.matching.text import sha256_hex
from tests.forwarder.forwarder_factories import (
    ALL_CONSENT,
    CASE_TIME,
    HASH,
    OAUTH_CLIENT,
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

PHONE = sha256_hex("+18005550100")
DAY = 86_400_000_000
ANALYTICS = AccountCredentials(
    "77", "refresh-1",
    {"analytics_property_id": "77", "measurement_id": "G-A1"} | OAUTH_CLIENT,
    {"trial": "trial_started"},
)  # fmt: skip


def analytics(**changes: Any) -> PreparedEvent | NotSent:
    """What becomes of one conversion at an Analytics stream."""
    account = Account("acme", "google", ANALYTICS.name, ANALYTICS.secret, ANALYTICS.options, ANALYTICS.event_names)
    moment = Moment(CASE_TIME, CASE_TIME)
    destination = destination_at("google", "https://api.example")
    return prepare(destination, conversion(CASE_TIME, **changes), account, moment, unknown="send")


def body(event: PreparedEvent | NotSent) -> dict[str, Any]:
    assert isinstance(event, PreparedEvent), event
    found: dict[str, Any] = json.loads(event.body)
    return found


def test_a_purchase_carries_every_documented_part() -> None:
    names = {"sha256_first_name": [sha256_hex("jane")], "sha256_last_name": [sha256_hex("doe")]}
    hashes = {"sha256_email_address": [HASH], "sha256_phone_number": [PHONE], **names}
    event, remark = sent(
        "google",
        order_id="o-1",
        occurred_at=CASE_TIME - 1_500_000,
        user_data={"google_hashes": hashes, "postal_code": "94045", "country": "US"},
        click_ids={"gclid": "Cj0-AbC", "wbraid": "w1"},
        consent=ALL_CONSENT | {"ad_personalization": False},
        properties={"colour": "red"},
    )
    assert event == {
        "transactionId": "o-1",
        "eventTimestamp": rfc3339(CASE_TIME - 1_500_000),
        "eventSource": "WEB",
        "userData": {
            "userIdentifiers": [
                {"emailAddress": HASH},
                {"phoneNumber": PHONE},
                {
                    "address": {
                        "givenName": sha256_hex("jane"),
                        "familyName": sha256_hex("doe"),
                        "regionCode": "US",
                        "postalCode": "94045",
                    }
                },
            ]
        },
        "adIdentifiers": {"gclid": "Cj0-AbC"},
        "consent": {"adUserData": "CONSENT_GRANTED", "adPersonalization": "CONSENT_DENIED"},
        "eventDeviceInfo": {"userAgent": "Mozilla/5.0", "ipAddress": "203.0.113.9"},
        "conversionValue": 19.99,
        "currency": "EUR",
        "cartData": {"items": [{"merchantProductId": "sku-1", "quantity": "2", "unitPrice": 9.995}]},
    }
    assert "wbraid left out: Google takes one click id, and gclid goes first" in remark
    assert "property left out: Google has no field for it" in remark


def test_the_request_names_account_action_encoding_and_who_calls() -> None:
    destination = destination_at("google", "https://api.example")
    account = account_at("google", login_customer_id="111-222-3333")
    account = dataclasses.replace(account, secret="access-1")
    event = prepare(destination, conversion(CASE_TIME), account, Moment(CASE_TIME, CASE_TIME), unknown="send")
    assert isinstance(event, PreparedEvent)
    request = destination.request(account, [event, event])
    document = json.loads(request.body)
    assert request.url == "https://api.example/v1/events:ingest"
    assert request.headers == {"authorization": "Bearer access-1", "x-goog-user-project": "shop-1"}
    assert document["destinations"] == [
        {
            "operatingAccount": {"accountType": "GOOGLE_ADS", "accountId": "1234567890"},
            "loginAccount": {"accountType": "GOOGLE_ADS", "accountId": "1112223333"},
            "productDestinationId": "7001",
        }
    ]
    assert (document["encoding"], len(document["events"]), set(document)) == (
        "HEX", 2, {"destinations", "encoding", "events"},
    )  # fmt: skip
    probe = json.loads(destination.probe(account, event).body)
    assert (probe["validateOnly"], len(probe["events"])) == (True, 1)


@pytest.mark.parametrize(
    ("plain", "normal"),
    [
        ("alexz@example.com", "alexz@example.com"),
        ("cloudy.sanfrancisco+shopping@gmail.com", "cloudysanfrancisco@gmail.com"),
        ("user.name+NYC@Example.com", "user.name+nyc@example.com"),
    ],
)
def test_googles_own_vectors_of_addresses(plain: str, normal: str) -> None:
    assert google_rules.emails(plain)[0] == normal
    event, _ = sent("google", user_data={"email": plain})
    assert {"emailAddress": sha256_hex(normal)} in event["userData"]["userIdentifiers"]


def test_googles_own_digests() -> None:
    digest = "509e933019bb285a134a9334b8bb679dff79d0ce023d529af4bd744d47b4fd8a"
    assert google_rules.hashed("sha256_email_address", "alexz@example.com") == [digest]
    assert base64.b64encode(bytes.fromhex(digest)).decode() == "UJ6TMBm7KFoTSpM0uLtnnf950M4CPVKa9L10TUe0/Yo="
    assert google_rules.hashed("sha256_phone_number", "1 800 555 0100", regions=("US",)) == [
        "fb4f73a6ec5fdb7077d564cdd22c3554b43ce49168550c3b12c547b78c517b30"
    ]


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (0, "1970-01-01T00:00:00Z"), (1_795_493_479_000_000, "2026-11-24T04:11:19Z"),
        (1_500_000, "1970-01-01T00:00:01.500000Z"),
    ],
)  # fmt: skip
def test_times_are_rfc_3339(micros: int, text: str) -> None:
    assert rfc3339(micros) == text


@pytest.mark.parametrize(
    ("changes", "state", "field"),
    [
        ({"conversion_type": "signup"}, DeliveryState.SKIPPED, "conversion_type"),
        ({"user_data": None, "click_ids": {}}, DeliveryState.SKIPPED, "user_data"),
        ({"occurred_at": CASE_TIME - 90 * DAY}, DeliveryState.EXPIRED, "occurred_at"),
        ({"consent": {"ad_storage": True, "ad_user_data": False}}, DeliveryState.SKIPPED, "consent"),
        ({"kind": "refund", "conversion_id": "c"}, DeliveryState.SKIPPED, "kind"),
    ],
)
def test_what_is_not_sent_has_a_reason(changes: dict[str, Any], state: DeliveryState, field: str) -> None:
    found = prepared("google", **changes)
    assert isinstance(found, NotSent)
    assert (found.state, found.field) == (state, field)


def test_a_correction_is_the_same_transaction_with_its_new_total() -> None:
    first, later, none = (
        prepared("google", order_id="o-1", kind=kind, conversion_id=None if kind == "conversion" else "c-1")
        for kind in ("conversion", "restatement", "cancellation")
    )
    assert [body(each)["transactionId"] for each in (first, later, none)] == ["o-1"] * 3
    assert [body(each)["conversionValue"] for each in (first, later, none)] == [19.99, 19.99, 0]
    assert isinstance(first, PreparedEvent)
    assert isinstance(later, PreparedEvent)
    assert (first.order_key, first.is_correction) == (later.order_key, False)
    assert later.is_correction
    assert first.resend_safe, "a second copy changes nothing"


def test_only_metas_hashes_are_left_out_with_a_remark() -> None:
    event, remark = sent("google", user_data={"meta_hashes": {"em": [HASH]}}, click_ids={"gbraid": "g1"})
    assert "userData" not in event
    assert event["adIdentifiers"] == {"gbraid": "g1"}
    assert "e-mail left out: only its hash under Meta's rules is on the topic" in remark


def test_ten_identifiers_at_most() -> None:
    hashes = {"sha256_email_address": [sha256_hex(str(n)) for n in range(12)]}
    event, remark = sent("google", user_data={"google_hashes": hashes})
    assert len(event["userData"]["userIdentifiers"]) == 10
    assert "user identifiers cut to 10" in remark


def test_an_event_of_an_analytics_stream() -> None:
    found = analytics(
        order_id="o-1", user_id="u-1", ga_client_id="1.2", properties={"tax": "1.5", "user.plan": "gold"},
        user_data={"google_hashes": {"sha256_email_address": [HASH]}}, click_ids={"gclid": "g1"},
    )  # fmt: skip
    event = body(found)
    assert isinstance(found, PreparedEvent)
    assert (event["eventName"], event["clientId"], event["userId"]) == ("purchase", "1.2", "u-1")
    assert (event["transactionId"], event["conversionValue"], event["currency"]) == ("o-1", 19.99, "EUR")
    assert event["cartData"]["items"][0] == {
        "itemId": "sku-1", "quantity": "2", "unitPrice": 9.995,
        "additionalItemParameters": [{"parameterName": "item_name", "value": "Shoe"}],
    }  # fmt: skip
    parameters = {each["parameterName"]: each["value"] for each in event["additionalEventParameters"]}
    assert parameters["tax"] == "1.5"
    assert parameters["session_id"] == "1700000000"
    assert all(isinstance(value, str) for value in parameters.values())
    assert "user properties left out" in (found.remark or "")
    place = json.loads(found.envelope)
    assert place["operatingAccount"] == {"accountType": "GOOGLE_ANALYTICS_PROPERTY", "accountId": "77"}
    assert place["productDestinationId"] == "G-A1"
    assert found.resend_safe


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"occurred_at": CASE_TIME - 3 * DAY}, DeliveryState.EXPIRED),
        ({"ga_app_instance_id": "0a" * 16}, DeliveryState.SKIPPED),
        ({"kind": "restatement", "conversion_id": "c"}, DeliveryState.SKIPPED),
        ({"kind": "refund", "conversion_id": "c", "conversion_type": "lead"}, DeliveryState.SKIPPED),
    ],
)
def test_what_an_analytics_stream_does_not_get(changes: dict[str, Any], state: DeliveryState) -> None:
    found = analytics(**changes)
    assert isinstance(found, NotSent)
    assert found.state is state


def test_own_names_and_copies_at_an_analytics_stream() -> None:
    lead, own, refund = analytics(conversion_type="lead"), analytics(conversion_type="trial"), analytics(kind="refund")
    assert [body(each)["eventName"] for each in (lead, own, refund)] == ["generate_lead", "trial_started", "refund"]
    assert isinstance(lead, PreparedEvent)
    assert not lead.resend_safe, "Analytics removes copies of purchases only"
    assert isinstance(refund, PreparedEvent)
    assert refund.is_correction


def refusal(status: int, *fields: tuple[str, str], name: str = "INVALID_ARGUMENT", reason: str = "") -> HttpResponse:
    violations = [{"field": field, "reason": word, "description": "jane@example.com"} for field, word in fields]
    details: list[dict[str, Any]] = [{"@type": "x/ErrorInfo", "reason": reason}] if reason else []
    details += [{"@type": "x/BadRequest", "fieldViolations": violations}] if fields else []
    error = {"code": status, "status": name, "message": "jane@example.com", "details": details}
    return HttpResponse(status, json.dumps({"error": error}).encode())


@pytest.mark.parametrize(
    ("answer", "expected", "code", "refused"),
    [
        (HttpResponse(200, b'{"requestId":"r1"}'), ResponseClass.DELIVERED, "200", ()),
        (HttpResponse(200, b"{}"), ResponseClass.AMBIGUOUS, "200/unreadable", ()),
        (HttpResponse(200, b"<html>"), ResponseClass.AMBIGUOUS, "200/unreadable", ()),
        (
            refusal(400, ("events[3].currency", "INVALID_CURRENCY_CODE"), ("events[1].user_data", "INVALID_EVENT")),
            ResponseClass.REJECTED, "400/INVALID_CURRENCY_CODE", (3, 1),
        ),
        (refusal(400, ("events[99].x", "INVALID_EVENT")), ResponseClass.REJECTED, "400/INVALID_EVENT", ()),
        (
            refusal(400, ("destinations[0]", "INVALID_CONVERSION_ACTION_ID")),
            ResponseClass.NAME_STOPPED, "400/INVALID_CONVERSION_ACTION_ID", (),
        ),
        (refusal(400, reason="SOMETHING_NEW"), ResponseClass.REJECTED, "400/SOMETHING_NEW", ()),
        (
            refusal(403, name="PERMISSION_DENIED", reason="PERMISSION_DENIED"),
            ResponseClass.ACCOUNT_STOPPED, "403/PERMISSION_DENIED", (),
        ),
        (refusal(400, reason="TERMS_AND_CONDITIONS_NOT_SIGNED"), ResponseClass.ACCOUNT_STOPPED,
         "400/TERMS_AND_CONDITIONS_NOT_SIGNED", ()),
        (refusal(401, name="UNAUTHENTICATED"), ResponseClass.ACCOUNT_STOPPED, "401", ()),
        (refusal(429, name="RESOURCE_EXHAUSTED"), ResponseClass.THROTTLED, "429", ()),
        (refusal(500, name="INTERNAL", reason="INTERNAL_ERROR"), ResponseClass.RETRY, "500/INTERNAL_ERROR", ()),
        (refusal(503, name="UNAVAILABLE"), ResponseClass.RETRY, "503", ()),
        (refusal(400, reason="CONVERSION_ACTION_TOO_RECENTLY_CREATED"), ResponseClass.NAME_STOPPED,
         "400/CONVERSION_ACTION_TOO_RECENTLY_CREATED", ()),
        (HttpResponse(404, b"<html>Not Found</html>"), ResponseClass.ACCOUNT_STOPPED, "404", ()),
        (HttpResponse(0, fault="ReadTimeout", perhaps_sent=True), ResponseClass.AMBIGUOUS, "0/ReadTimeout", ()),
    ],
)  # fmt: skip
def test_what_each_answer_means(
    answer: HttpResponse, expected: ResponseClass, code: str, refused: tuple[int, ...]
) -> None:
    found = responses.classify(answer, 5)
    assert (found.response_class, found.code, found.refused) == (expected, code, refused)
    assert "jane" not in repr(found)
    if expected is ResponseClass.DELIVERED:
        assert found.trace_id == "r1"


def test_the_status_of_a_request_has_counts_and_no_rows() -> None:
    def entry(status: str, *errors: tuple[str, Any]) -> HttpResponse:
        counts = [{"reason": reason, "recordCount": number} for reason, number in errors]
        found = {"requestStatus": status, "errorInfo": {"errorCounts": counts}}
        return HttpResponse(200, json.dumps({"requestStatusPerDestination": [found]}).encode())

    assert responses.read_status(entry("PROCESSING")) == RequestStatus(False, False, False, {}, {})
    assert responses.read_status(entry("SUCCESS")) == RequestStatus(True, True, False, {}, {})
    found = responses.read_status(
        entry("PARTIAL_SUCCESS", ("PROCESSING_ERROR_REASON_INVALID_GCLID", "3"), ("jane@example.com", 2), ("X", -1))
    )
    assert found is not None
    assert (found.is_final, found.is_good, found.refused) == (True, False, {"INVALID_GCLID": 3, "UNSPECIFIED": 2})
    for broken in (b"", b"{}", b"[]", b'{"requestStatusPerDestination":[{"requestStatus":"NEW"}]}'):
        assert responses.read_status(HttpResponse(200, broken)) is None
    assert responses.read_status(HttpResponse(500, b"")) is None


def test_who_calls_a_user_or_a_service_account() -> None:
    destination = destination_at("google", "https://api.example")
    assert isinstance(destination.grant(account_at("google")), RefreshTokenGrant)
    key = json.dumps({"client_email": "s@p.example", "private_key": "pem", "token_uri": "https://oauth.example/token"})
    found = destination.grant(Account("acme", "google", "1", key, {"customer_id": "1"}))
    assert isinstance(found, ServiceAccountGrant)
    assert (found.token_url, found.client_email) == ("https://api.example/token", "s@p.example")
    assert found.audience == "https://oauth.example/token"
    assert found.scope == "https://www.googleapis.com/auth/datamanager"
    assert "pem" not in repr(found)


def test_tokens_that_end_in_the_middle_lose_nothing_and_send_nothing_twice(
    make_stage: MakeStage, clock: SimulatedClock
) -> None:
    oauth = OAuthFake()
    fake, ledger, now = GoogleFake(oauth), MemoryLedger(), clock.now_micros()
    with FakeServer(fake) as server:
        stage = make_stage("google", server.url, clock, ledger=ledger)
        for first in range(0, 100, 20):
            stage.handle(records([conversion(now) for _ in range(20)], now_micros=now, first=first))
            oauth.end_all()
    assert len(fake.received.by_key) == 100
    assert set(fake.received.by_key.values()) == {1}
    assert (fake.received.calls, oauth.received.calls) == (9, 5)


def test_an_action_that_does_not_exist_costs_one_call_and_only_its_own_events(
    make_stage: MakeStage, clock: SimulatedClock
) -> None:
    fake, ledger, now = GoogleFake(OAuthFake(), actions=["7001"]), MemoryLedger(), clock.now_micros()
    with FakeServer(fake) as server:
        stage = make_stage("google", server.url, clock, ledger=ledger)
        batch = [conversion(now) for _ in range(100)] + [conversion(now, conversion_type="lead") for _ in range(100)]
        outcome = stage.handle(records(batch, now_micros=now))
    assert len(fake.received.by_key) == 100
    assert fake.received.calls == 2
    assert not outcome.dead_letters
    held = [row for row in ledger.rows.values() if row.state is DeliveryState.HELD]
    assert {(row.event_name, row.reason) for row in held} == {
        ("7002", "the conversion action does not exist: FORWARD_GOOGLE_ACTIONS")
    }
    assert len(held) == 100


def test_a_dead_authorisation_keeps_the_events_and_reaches_google_with_nothing(
    make_stage: MakeStage, clock: SimulatedClock
) -> None:
    oauth = OAuthFake()
    oauth.script.replace([Fault("invalid_grant", share=1.0)])
    fake, ledger, now = GoogleFake(oauth), MemoryLedger(), clock.now_micros()
    with FakeServer(fake) as server:
        stage = make_stage("google", server.url, clock, ledger=ledger)
        with pytest.raises(Retry, match="google: the refresh token is revoked or has ended"):
            stage.handle(records([conversion(now) for _ in range(30)], now_micros=now))
    assert fake.received.calls == 0
    assert {row.state for row in ledger.rows.values()} == {DeliveryState.PENDING}


def test_two_accounts_of_one_tenant_go_to_ads_and_to_analytics(make_stage: MakeStage, clock: SimulatedClock) -> None:
    fake, ledger, now = GoogleFake(OAuthFake()), MemoryLedger(), clock.now_micros()
    ads = account_at("google")
    both = [AccountCredentials(ads.account_id, ads.secret, ads.options, ads.event_names), ANALYTICS]
    with FakeServer(fake) as server:
        route = {"credentials": Credentials("google", None, {"acme": both})}
        stage = make_stage("google", server.url, clock, ledger=ledger, route=route)
        stage.handle(records([conversion(now) for _ in range(3)], now_micros=now))
    assert {key[:2] for key in fake.received.by_key if isinstance(key, tuple)} == {
        ("1234567890", "7001"),
        ("77", "G-A1"),
    }
    assert len(fake.received.by_key) == 6


def test_one_bad_event_in_the_largest_request_costs_two_calls(clock: SimulatedClock) -> None:
    fake, ledger, now = GoogleFake(OAuthFake()), MemoryLedger(), clock.now_micros()
    with FakeServer(fake) as server:
        options = PlatformOptions(base_url=server.url, token_url=f"{server.url}/token")
        destination = GoogleDestination(options, events_per_request=10_000)
        account = account_at("google")
        events = [
            prepare(destination, conversion(now), account, Moment(now, now), unknown="send") for _ in range(2_000)
        ]
        good = [event for event in events if isinstance(event, PreparedEvent)]
        fake.poison = {json.loads(good[1_234].body)["transactionId"]}
        sender = BatchSender(destination, HttpTransport(answer_seconds=60.0), ledger, SenderOptions(), clock)
        outcomes = sender.deliver([Shipment(account, good)])
        sender.close()
    states = Counter(outcome.state for outcome in outcomes)
    assert states == {DeliveryState.SENT: 1_999, DeliveryState.REJECTED: 1}
    assert (fake.received.calls, fake.received.largest_request) == (2, 1_999)
