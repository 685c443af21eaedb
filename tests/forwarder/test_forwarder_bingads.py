"""Microsoft's offline conversions: what goes, what is adjusted, what an answer means; the tag sends no copy."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from attributary.consumers.destinations.account_fields import broken_event_name
from attributary.consumers.destinations.ad_platform import PlatformOptions
from attributary.consumers.destinations.attempts import SenderOptions
from attributary.consumers.destinations.bingads import responses
from attributary.consumers.destinations.bingads.destination import SCOPE, BingAdsDestination
from attributary.consumers.destinations.credentials import AccountCredentials, Credentials
from attributary.consumers.destinations.destination import HttpResponse, Moment, NotSent, PreparedEvent, ResponseClass
from attributary.consumers.destinations.memory_ledger import MemoryLedger
from attributary.consumers.destinations.microsoft.destination import MicrosoftDestination
from attributary.consumers.destinations.microsoft.settings import MicrosoftSettings
from attributary.consumers.destinations.oauth2.grants import RefreshTokenGrant
from attributary.consumers.runtime.errors import ConfigError
from attributary.consumers.runtime.settings import load
from attributary.consumers.store.deliveries.delivery import DeliveryState
from attributary.local.fakes import BingAdsFake, Fault, OAuthFake
from attributary.local.fakes.server import FakeServer
from tests.forwarder.forwarder_factories import (
    ACCOUNTS,
    CASE_TIME,
    account_at,
    conversion,
    prepared,
    records,
    sent,
)

if TYPE_CHECKING:
    from tests.forwarder.conftest import MakeStage
    from tests.forwarder.forwarder_factories import SimulatedClock

DAY = 86_400_000_000
CLICK = "f894f652ea334e739002f7167ab8f8e3"  # of Microsoft's own example
# Of Microsoft's guide: john@contoso.com and +14255551234.
JOHN = "ec81f3ac7b2b19675bab9d54cf416f9f18cff87c97da5cca82c0f0891bc40602"
PHONE = "c59475d96e9f01d7d18d06cfad84dd02333207f02c0c2c5663ef2782cda0390e"
APRIL = 1_585_767_054_000_000  # 2020-04-01T18:50:54Z, the time of Microsoft's own example
PERSON = {"email": "J.o.h.n+shop@Contoso.com", "phone": "+1 425 555 1234"}
FIXED = {"properties": {"original_event.event_time": str(CASE_TIME // 1_000_000 - 7_200)}}


def event(**changes: Any) -> PreparedEvent:
    found = prepared("bingads", **changes)
    assert isinstance(found, PreparedEvent), found
    return found


def refused(**changes: Any) -> NotSent:
    found = prepared("bingads", **changes)
    assert isinstance(found, NotSent), found
    return found


def answer(status: int, document: Any, events: int = 5) -> tuple[ResponseClass, tuple[int, ...], str]:
    found = responses.classify(HttpResponse(status, json.dumps(document).encode()), events)
    return found.response_class, found.refused, found.reason


def item(index: int | None, word: str, code: int = 4_000) -> dict[str, Any]:
    return {"Index": index, "ErrorCode": word, "Code": code, "Message": "jane@example.com", "Type": "BatchError"}


def test_a_conversion_is_microsofts_own_example() -> None:
    account = account_at("bingads")
    found = BingAdsDestination(PlatformOptions(event_names={"purchase": "My Goal Name"})).build(
        conversion(
            APRIL + 60_900_000,
            occurred_at=APRIL + 900_000,
            conversion_type="purchase",
            value_micros=10_000_000,
            currency="USD",
            click_ids={"msclkid": CLICK},
            user_data={},
        ),
        type(account)("acme", "bingads", account.account_id, account.secret, account.options, {}),
        Moment(APRIL + 60_900_000, APRIL + 60_900_000),
    )
    assert isinstance(found, PreparedEvent)
    assert json.loads(found.body) == {
        "ConversionName": "My Goal Name",
        "ConversionTime": "2020-04-01T18:50:54Z",
        "MicrosoftClickId": CLICK,
        "ConversionValue": 10,
        "ConversionCurrencyCode": "USD",
    }


def test_a_person_goes_as_click_and_as_both_hashes_of_microsofts_guide() -> None:
    body, remark = sent("bingads", user_data=PERSON, properties={"colour": "red"}, currency="XXX", value_micros=0)
    assert (body["HashedEmailAddress"], body["HashedPhoneNumber"]) == (JOHN, PHONE)
    assert "MicrosoftClickId" in body
    assert not body.keys() & {"ConversionValue", "ConversionCurrencyCode"}, "the goal's own value stands in"
    assert "property left out: Microsoft has no field for it" in remark


def test_only_a_click_id_makes_a_second_copy_harmless() -> None:
    assert event().resend_safe
    assert not event(click_ids={}).resend_safe
    assert event(kind="cancellation", click_ids={}, **FIXED).resend_safe


@pytest.mark.parametrize(
    ("changes", "state", "reason"),
    [
        ({"conversion_type": "page_view"}, "skipped", "no conversion goal is set for this conversion type"),
        ({"click_ids": {}, "user_data": None}, "skipped", "too few match keys"),
        ({"click_ids": {"msclkid": "undefined"}, "user_data": None}, "skipped", "too few match keys"),
        ({"occurred_at": CASE_TIME - 91 * DAY}, "expired", "older than 90 days"),
        ({"kind": "refund"}, "skipped", "publish a restatement or a cancellation"),
        ({"kind": "restatement"}, "skipped", "give the property original_event.event_time, in seconds"),
        (
            {"kind": "restatement", "properties": {"original_event.event_time": "2026-11-24"}},
            "skipped",
            "give the property original_event.event_time",
        ),
        (
            {"kind": "cancellation", "properties": {"original_event.event_time": "1500000000"}},
            "expired",
            "older than 90 days",
        ),
        (
            {"kind": "cancellation", "properties": {"original_event.event_time": "99999999999"}},
            "skipped",
            "lies ahead",
        ),
        ({"conversion_type": "signup"}, "skipped", "its conversions go by the destination microsoft"),
        ({"conversion_type": "signup", "kind": "cancellation", "order_id": None}, "skipped", "its order_id"),
        ({"consent": {"ad_storage": False, "ad_user_data": True}}, "skipped", "consent refused: ad_storage"),
    ],
)
def test_what_is_not_sent_says_why(changes: dict[str, Any], state: str, reason: str) -> None:
    found = refused(**changes)
    assert found.state.value == state
    assert reason in found.reason


def test_a_restatement_adjusts_the_offline_conversion_that_it_names() -> None:
    found = event(
        kind="restatement",
        conversion_id="c-1",
        occurred_at=CASE_TIME - 60_400_000,
        value_micros=12_500_000,
        click_ids={"msclkid": CLICK},
        user_data=None,
        **FIXED,
    )
    assert json.loads(found.body) == {
        "ConversionName": "Shop orders",
        "ConversionTime": "2026-11-24T04:00:00Z",
        "MicrosoftClickId": CLICK,
        "AdjustmentType": "Restate",
        "AdjustmentTime": "2026-11-24T05:58:59Z",
        "AdjustmentValue": 12.5,
        "AdjustmentCurrencyCode": "EUR",
    }
    assert json.loads(found.envelope)["operation"] == "OfflineConversionAdjustments"
    assert (found.is_correction, found.order_key) == (True, event(conversion_id="c-1").order_key)


def test_a_cancellation_retracts_and_is_never_older_than_its_conversion() -> None:
    late = str(CASE_TIME // 1_000_000 - 5)
    body, _ = sent("bingads", kind="cancellation", properties={"original_event.event_time": late})
    assert body["AdjustmentType"] == "Retract"
    assert body["AdjustmentTime"] == body["ConversionTime"]
    assert not body.keys() & {"AdjustmentValue", "AdjustmentCurrencyCode"}


def test_corrections_of_uet_are_known_by_their_transaction() -> None:
    found = event(conversion_type="signup", kind="cancellation", order_id="o-7", click_ids={}, user_data=None)
    assert json.loads(found.body) == {
        "ConversionName": "Sign-ups",
        "TransactionId": "o-7",
        "AdjustmentType": "Retract",
        "AdjustmentTime": "2026-11-24T05:59:00Z",
    }
    assert json.loads(found.envelope)["operation"] == "OnlineConversionAdjustments"
    account = account_at("bingads")
    assert BingAdsDestination().types_named(found.name, account) == ("signup",), "so that a stop of it is known"


def test_the_request_names_account_customer_and_developer() -> None:
    account = account_at("bingads")
    destination = BingAdsDestination()
    request = destination.request(account, [event(), event()])
    assert request.url == "https://campaign.api.bingads.microsoft.com/CampaignManagement/v13/OfflineConversions/Apply"
    assert [*json.loads(request.body)] == ["OfflineConversions"]
    assert len(json.loads(request.body)["OfflineConversions"]) == 2
    assert {name: request.headers[name] for name in ("developertoken", "customerid", "customeraccountid")} == {
        "developertoken": "dev-1",
        "customerid": "2500",
        "customeraccountid": "1500",
    }
    grant = destination.grant(account)
    assert isinstance(grant, RefreshTokenGrant)
    assert (grant.scope, grant.token_url) == (SCOPE, BingAdsDestination.token_url)


def test_two_errors_of_one_event_refuse_it_though_one_names_no_place() -> None:
    """There is no other event that they could mean, so nothing is in doubt."""
    errors = [item(None, "OfflineConversionValueInvalid"), item(0, "OfflineConversionCurrencyCodeInvalid")]
    assert answer(200, {"PartialErrors": errors}, 1)[0] is ResponseClass.REJECTED
    assert answer(200, {"PartialErrors": errors}, 5)[0] is ResponseClass.AMBIGUOUS


@pytest.mark.parametrize(
    ("status", "document", "found", "named"),
    [
        (200, {"PartialErrors": []}, "DELIVERED", ()),
        (200, {"PartialErrors": None, "TrackingId": "t"}, "DELIVERED", ()),
        (200, {}, "DELIVERED", ()),
        (200, {"ok": True}, "AMBIGUOUS", ()),
        (200, {"PartialErrors": "none"}, "AMBIGUOUS", ()),
        (200, {"PartialErrors": [item(3, "OfflineConversionMSClickIdInvalid"), item(1, "X")]}, "DELIVERED", (1, 3)),
        (200, {"PartialErrors": [item(n, "OfflineConversionNameInvalid") for n in range(5)]}, "NAME_STOPPED", ()),
        (200, {"PartialErrors": [item(n, "OfflineConversionValueInvalid") for n in range(5)]}, "REJECTED",
         (0, 1, 2, 3, 4)),
        (200, {"PartialErrors": [item(n, "OfflineConversionNameInvalid" if n else "X") for n in range(5)]}, "REJECTED",
         (0,)),
        (400, {"OperationErrors": [{"Code": 1, "ErrorCode": "OfflineConversionGoalTooRecent"}]}, "NAME_STOPPED", ()),
        (200, {"PartialErrors": [item(9, "OfflineConversionMSClickIdInvalid")]}, "AMBIGUOUS", ()),
        (200, {"PartialErrors": [item(1, "InternalError", 0)]}, "AMBIGUOUS", ()),
        (200, {"PartialErrors": [item(n, "OfflineConversionGoalTooRecent") for n in range(5)]}, "NAME_STOPPED", ()),
        (200, {"Errors": [{"Code": 106, "ErrorCode": "UserIsNotAuthorized"}]}, "ACCOUNT_STOPPED", ()),
        (400, {"Errors": [{"Code": 117, "ErrorCode": "CallRateExceeded"}]}, "THROTTLED", ()),
        (500, {"Errors": [{"Code": 105, "ErrorCode": "InvalidCredentials"}]}, "ACCOUNT_STOPPED", ()),
        (401, {"Errors": [{"Code": 109, "ErrorCode": "AuthenticationTokenExpired"}]}, "ACCOUNT_STOPPED", ()),
        (500, {"Errors": [{"Code": 0, "ErrorCode": "InternalError"}]}, "RETRY", ()),
        (400, {"OperationErrors": [{"Code": 1, "ErrorCode": "CampaignServiceX"}], "BatchErrors": []}, "REJECTED", ()),
        (400, {"BatchErrors": [item(2, "OfflineConversionValueInvalid")]}, "REJECTED", (2,)),
        (400, {"Errors": []}, "REJECTED", ()),
        (403, {"Message": "no"}, "ACCOUNT_STOPPED", ()),
        (503, {"Message": "down"}, "RETRY", ()),
        (429, {}, "THROTTLED", ()),
    ],
)  # fmt: skip
def test_what_an_answer_means(status: int, document: Any, found: str, named: tuple[int, ...]) -> None:
    kind, positions, reason = answer(status, document)
    assert (kind.name, positions) == (found, named)
    assert "jane" not in reason


@pytest.mark.parametrize(
    ("word", "code", "found"),
    [
        ("OfflineConversionTimeOutOfWindow", 4_000, "REJECTED"),
        ("InternalError", 0, "RETRY"),
        ("OfflineConversionGoalTooRecent", 4_000, "NAME_STOPPED"),
    ],
)
def test_one_item_alone_needs_no_position(word: str, code: int, found: str) -> None:
    kind, positions, _ = answer(200, {"PartialErrors": [item(None, word, code)]}, 1)
    assert (kind.name, positions) == (found, ())


def test_a_wrong_goal_costs_one_call_and_holds_only_its_own_events(
    make_stage: MakeStage, clock: SimulatedClock
) -> None:
    fake = BingAdsFake(OAuthFake(), goals=["Shop orders"])
    ledger, now = MemoryLedger(), clock.now_micros()
    events = [conversion(now, conversion_type="lead" if n % 2 else "purchase") for n in range(200)]
    with FakeServer(fake) as server:
        stage = make_stage("bingads", server.url, clock, ledger=ledger)
        outcome = stage.handle(records(events, now_micros=now))
    assert not outcome.dead_letters
    assert {(c.state.value, c.reason): c.deliveries for c in ledger.counts()} == {
        ("sent", None): 100,
        ("held", "the conversion goal does not exist: FORWARD_BINGADS_GOALS"): 100,
    }
    assert (fake.received.calls, len(fake.received.by_key)) == (2, 100)


def test_one_bad_of_a_thousand_is_named_in_one_call(make_stage: MakeStage, clock: SimulatedClock) -> None:
    fake = BingAdsFake(OAuthFake())
    ledger, now = MemoryLedger(), clock.now_micros()
    events = [conversion(now) for _ in range(1_000)]
    fake.poison = {events[617]["click_ids"]["msclkid"]}
    with FakeServer(fake) as server:
        stage = make_stage("bingads", server.url, clock, ledger=ledger)
        outcome = stage.handle(records(events, now_micros=now))
    assert [letter.record.offset for letter in outcome.dead_letters] == [617]
    assert (fake.received.calls, fake.received.largest_request, len(fake.received.by_key)) == (1, 999, 999)


def test_lost_answers_are_sent_again_with_a_click_and_held_without(
    make_stage: MakeStage, clock: SimulatedClock
) -> None:
    fake = BingAdsFake(OAuthFake())
    ledger, now = MemoryLedger(), clock.now_micros()
    events = [conversion(now, **({} if n % 2 else {"click_ids": {}})) for n in range(40)]
    fake.script.replace([Fault("reset_after", times=1)])
    with FakeServer(fake) as server:
        stage = make_stage("bingads", server.url, clock, ledger=ledger)
        stage.handle(records(events, now_micros=now))
    found = {count.state.value: count.deliveries for count in ledger.counts()}
    assert found == {"sent": 20, "uncertain": 20}
    assert fake.script.fired == {"reset_after": 1}


def test_a_correction_goes_after_its_conversion_in_the_same_turn(make_stage: MakeStage, clock: SimulatedClock) -> None:
    fake = BingAdsFake(OAuthFake(), goals=["Shop orders"])
    now = clock.now_micros()
    at = now - now % 1_000_000 - 3_600_000_000
    clicks = {"msclkid": CLICK}
    events = [
        conversion(now, kind="restatement", conversion_id="c-1", value_micros=5_000_000, click_ids=clicks,
                   properties={"original_event.event_time": str(at // 1_000_000)}),
        conversion(now, event_id="c-1", occurred_at=at, click_ids=clicks),
    ]  # fmt: skip
    with FakeServer(fake) as server:
        make_stage("bingads", server.url, clock).handle(records(events, now_micros=now))
    [(key, copies)] = fake.received.by_key.items()
    assert copies == 1
    assert fake.adjusted[key]["AdjustmentValue"] == 5  # type: ignore[index]  # the same key: goal, time, click


def test_a_goal_that_is_too_new_is_tried_again_after_two_hours() -> None:
    errors = [item(n, "OfflineConversionGoalTooRecent") for n in range(5)]
    found = responses.classify(HttpResponse(200, json.dumps({"PartialErrors": errors}).encode()), 5)
    assert (found.response_class, found.wait_seconds) == (ResponseClass.NAME_STOPPED, 7_200)
    some = responses.classify(HttpResponse(200, json.dumps({"PartialErrors": errors[:2]}).encode()), 5)
    assert (some.response_class, [*some.unknown_names]) == (ResponseClass.DELIVERED, [0, 1])


def test_tokens_that_end_on_the_way_cost_no_event(make_stage: MakeStage, clock: SimulatedClock) -> None:
    oauth = OAuthFake(rotates=True)
    fake = BingAdsFake(oauth)
    ledger, now = MemoryLedger(), clock.now_micros()
    made = ACCOUNTS["bingads"]
    public = AccountCredentials(made.name, "refresh-1", dict(made.options), made.event_names)
    with FakeServer(fake) as server:
        route = {"credentials": Credentials("bingads", public)}
        stage = make_stage(
            "bingads", server.url, clock, ledger=ledger, route=route, options=SenderOptions(concurrency=1)
        )
        for first in range(0, 60, 20):
            oauth.end_all()
            stage.handle(records([conversion(now) for _ in range(20)], now_micros=now, first=first))
    assert {count.state.value: count.deliveries for count in ledger.counts()} == {"sent": 60}
    assert set(fake.received.by_key.values()) == {1}


def test_what_goes_offline_is_skipped_by_the_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORWARD_BINGADS_GOALS", "lead=Offline leads,purchase=uet:Web shop")
    elsewhere = load(MicrosoftSettings).sent_elsewhere
    assert elsewhere == {"lead"}
    tag = MicrosoftDestination(PlatformOptions(sent_elsewhere=elsewhere))
    found = prepared("microsoft", tag, conversion_type="lead")
    assert isinstance(found, NotSent)
    assert (found.state, found.field) == (DeliveryState.SKIPPED, "conversion_type")
    assert isinstance(prepared("microsoft", tag, conversion_type="purchase"), PreparedEvent)
    monkeypatch.setenv("FORWARD_BINGADS_GOALS", "lead")
    with pytest.raises(ConfigError, match="FORWARD_BINGADS_GOALS"):
        _ = load(MicrosoftSettings).sent_elsewhere


@pytest.mark.parametrize(("name", "good"), [
    ("Offline leads", True), ("uet:Web shop", True), ("ü" * 100, True),
    ("", False), ("uet:", False), (" x", False), ("a\nb", False), ("x" * 101, False),
])  # fmt: skip
def test_the_name_of_a_goal(name: str, good: bool) -> None:
    assert (broken_event_name("bingads", {"lead": name}) is None) is good
