"""All destinations beside Meta and GA4 through the whole stage: faults of every class, bad events, outages."""

from __future__ import annotations

import collections
import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from attributary.consumers.destinations import metrics
from attributary.consumers.destinations.attempts import SenderOptions
from attributary.consumers.destinations.credentials import AccountCredentials, Credentials, load_credentials
from attributary.consumers.destinations.destination import HttpResponse
from attributary.consumers.destinations.linkedin.destination import LinkedInDestination
from attributary.consumers.destinations.memory_ledger import MemoryLedger
from attributary.consumers.forwarder.process import watch_tokens, watch_version
from attributary.consumers.runtime.errors import ConfigError, Retry
from attributary.local.fakes import (
    BingAdsFake,
    Fault,
    GoogleFake,
    LinkedInFake,
    MicrosoftFake,
    OAuthFake,
    PinterestFake,
    RedditFake,
    SnapFake,
    TikTokFake,
    XFake,
)
from attributary.local.fakes.server import FakeServer
from tests.forwarder.forwarder_factories import ACCOUNTS, X_KEYS, ScriptedTransport, SimulatedClock, conversion, records

if TYPE_CHECKING:
    from pathlib import Path

    from attributary.consumers.destinations.destination import HttpRequest
    from attributary.consumers.runtime.records import Outcome, Record
    from attributary.local.fakes.received import StandIn
    from tests.forwarder.conftest import MakeStage

MADE: dict[str, Any] = {
    "tiktok": lambda: TikTokFake(tokens=["test-token"]),
    "linkedin": lambda: LinkedInFake(tokens=["test-token"], rules=["104012", "104013"]),
    "x": lambda: XFake(keys=X_KEYS, tags=["o87ne"]),
    "reddit": lambda: RedditFake(tokens=["test-token"], pixels=["a2_abc"]),
    "pinterest": lambda: PinterestFake(tokens=["test-token"], accounts=["5490"]),
    "snap": lambda: SnapFake(tokens=["test-token"], assets=["pixel-1", "app-1"]),
    "microsoft": lambda: MicrosoftFake(tokens=["test-token"], tags=["1870"]),
    "bingads": lambda: BingAdsFake(
        OAuthFake(), developer_token="dev-1", accounts=["1500"], goals=["Shop orders", "Leads"]
    ),
    "google": lambda: GoogleFake(OAuthFake(), accounts=["1234567890"], actions=["7001", "7002"]),
}
NAMES = tuple(MADE)
# Of each class some that lose nothing: 5 % of all requests.
FLOOD = ("html_502", "http_500", "http_429", "reset_before", "reset_after", "cut")
OWN = {
    "tiktok": ("partial", "throttled", "conflict"),
    "x": ("locked", "over_capacity", "limit"),
    "pinterest": ("ramped_down",),
    "google": ("quota", "internal", "unavailable"),
    "bingads": ("internal", "call_rate", "item_internal"),
}
# These remove no copies that two calls bring: what was perhaps taken is held, and nothing is sent twice.
HOLDS = ("linkedin", "pinterest", "microsoft")
# Named at once, hinted at, or found by halves: so many calls for so many bad events.
CALLS: dict[str, Any] = {
    "linkedin": lambda _: 2,
    "tiktok": lambda bad: 2 + 2 * bad,
    "x": lambda bad: 1 + 20 * bad,
    "reddit": lambda _: 2,
    "snap": lambda bad: 1 + 2 * bad,
    "pinterest": lambda _: 1,
    "microsoft": lambda _: 1,
    "google": lambda _: 2,
    "bingads": lambda _: 1,
}


def sent_id(name: str, event: dict[str, Any]) -> str:
    """The id by which a platform knows an event: Google's is the order's, Microsoft's offline one the click's."""
    if name == "bingads":
        return str(event["click_ids"]["msclkid"])
    return str(event["order_id" if name == "google" else "event_id"])


def until_done(stage: Any, batch: list[Record], clock: SimulatedClock, fake: StandIn, start: int) -> Outcome:
    """Hand a batch over again, as the loop does, until nothing of it must wait; the stand-in's time goes along."""
    for _ in range(500):
        try:
            found: Outcome = stage.handle(batch)
        except Retry as retry:
            clock.sleep(retry.after_seconds + 0.01)
            fake.clock_offset = (clock.now_micros() - start) / 1e6
        else:
            return found
    raise AssertionError("never done")


def states(ledger: MemoryLedger) -> dict[str, int]:
    found: collections.Counter[str] = collections.Counter()
    for count in ledger.counts():
        found[count.state.value] += count.deliveries
    return dict(found)


@pytest.mark.fault
@pytest.mark.parametrize("name", NAMES)
def test_a_flood_of_faults_loses_nothing_and_every_event_is_accounted_for(
    name: str, make_stage: MakeStage, clock: SimulatedClock
) -> None:
    fake: StandIn = MADE[name]()
    kinds = FLOOD + OWN.get(name, ())
    fake.script.replace([Fault(kind, share=0.05, seconds=1.0) for kind in kinds], seed=7)
    ledger = MemoryLedger()
    now = clock.now_micros()
    sent = [conversion(now) for _ in range(1_000)]
    options = SenderOptions(concurrency=1, attempts=4)
    with FakeServer(fake) as server:
        stage = make_stage(name, server.url, clock, ledger=ledger, options=options)
        for first in range(0, 1_000, 20):
            until_done(stage, records(sent[first : first + 20], now_micros=now, first=first), clock, fake, now)
    assert set(fake.script.fired) >= {"html_502", "reset_before", "reset_after"}, "the faults fired"
    found = states(ledger)
    taken = collections.Counter(fake.received.by_key.values())
    accepted = {key[-1] for key in fake.received.by_key if isinstance(key, tuple)}
    if name in HOLDS:
        assert found["sent"] + found.get("uncertain", 0) == 1_000
        assert set(taken) == {1}
        assert found.get("uncertain", 0) > 0
    else:
        assert found == {"sent": 1_000}
        assert accepted == {sent_id(name, event) for event in sent}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [1, 3])
def test_bad_events_of_a_large_batch_are_found_with_few_calls(
    name: str, bad: int, make_stage: MakeStage, clock: SimulatedClock
) -> None:
    fake: StandIn = MADE[name]()
    now = clock.now_micros()
    sent = [conversion(now) for _ in range(500)]
    culprits = [sent_id(name, sent[number]) for number in (137, 138, 400)[:bad]]
    fake.poison = set(culprits)
    ledger = MemoryLedger()
    with FakeServer(fake) as server:
        stage = make_stage(name, server.url, clock, ledger=ledger)
        # One batch before, so that the account has delivered something: rejections count only beside a delivery.
        stage.handle(records([conversion(now)], now_micros=now))
        before = fake.received.calls
        outcome = stage.handle(records(sent, now_micros=now, first=1))
    letters = [letter.record.offset - 1 for letter in outcome.dead_letters]
    assert sorted(letters) == sorted([137, 138, 400][:bad])
    assert len(fake.received.by_key) == 501 - bad
    assert fake.received.calls - before <= CALLS[name](bad)


@pytest.mark.parametrize("name", NAMES)
def test_an_hour_of_outage_delays_and_loses_nothing(name: str, make_stage: MakeStage, clock: SimulatedClock) -> None:
    fake: StandIn = MADE[name]()
    # A connection that breaks leaves events in doubt where copies count; an answer of the server does not.
    kind = "http_500" if name in HOLDS else "reset_before"
    fake.script.replace([Fault(kind, share=1.0)])
    ledger = MemoryLedger()
    start = clock.now_micros()
    with FakeServer(fake) as server:
        stage = make_stage(name, server.url, clock, ledger=ledger)
        batch = records([conversion(start) for _ in range(40)], now_micros=start)
        while clock.now_micros() - start < 3_600_000_000:
            with pytest.raises(Retry) as caught:
                stage.handle(batch)
            clock.sleep(caught.value.after_seconds + 0.01)
        assert fake.script.fired[kind] > 3, "the outage fired"
        assert states(ledger) == {"pending": 40}
        fake.script.replace([])
        fake.clock_offset = (clock.now_micros() - start) / 1e6
        until_done(stage, batch, clock, fake, start)
    assert states(ledger) == {"sent": 40}
    assert set(fake.received.by_key.values()) == {1}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("tiktok", "token_expired"),
        ("tiktok", "permission"),
        ("linkedin", "revoked"),
        ("x", "unauthorized"),
        ("reddit", "no_scope"),
        ("snap", "unauthorized"),
        ("microsoft", "unauthorized"),
        ("pinterest", "no_right"),
        ("google", "no_right"),
        ("bingads", "not_authorized"),
        ("bingads", "invalid_credentials"),
    ],
)
def test_wrong_credentials_stop_the_account_and_keep_its_events(
    name: str, kind: str, make_stage: MakeStage, clock: SimulatedClock
) -> None:
    fake: StandIn = MADE[name]()
    fake.script.replace([Fault(kind, share=1.0)])
    ledger = MemoryLedger()
    now = clock.now_micros()
    with FakeServer(fake) as server:
        stage = make_stage(name, server.url, clock, ledger=ledger)
        with pytest.raises(Retry, match=name):
            stage.handle(records([conversion(now) for _ in range(30)], now_micros=now))
    assert fake.script.fired[kind] >= 1
    assert states(ledger) == {"pending": 30}


def test_an_event_that_linkedin_refuses_beside_others_is_not_sent_again(
    make_stage: MakeStage, clock: SimulatedClock
) -> None:
    fake = LinkedInFake()
    ledger = MemoryLedger()
    now = clock.now_micros()
    with FakeServer(fake) as server:
        stage = make_stage("linkedin", server.url, clock, ledger=ledger)
        fake.script.replace([Fault("some_fail", times=1)])
        outcome = stage.handle(records([conversion(now) for _ in range(5)], now_micros=now))
    assert fake.script.fired == {"some_fail": 1}
    assert len(outcome.dead_letters) == 1
    assert fake.received.calls == 1
    assert len(fake.received.by_key) == 4


def test_a_version_that_linkedin_has_ended_stops_the_account(make_stage: MakeStage, clock: SimulatedClock) -> None:
    fake = LinkedInFake()
    ledger = MemoryLedger()
    now = clock.now_micros()
    gone = dt.datetime(2027, 9, 20, tzinfo=dt.UTC).timestamp()
    with FakeServer(fake) as server:
        fake.clock_offset = gone - now / 1e6
        stage = make_stage("linkedin", server.url, clock, ledger=ledger)
        with pytest.raises(Retry, match="the API version is gone: raise LINKEDIN_API_VERSION"):
            stage.handle(records([conversion(now)], now_micros=now))
    assert states(ledger) == {"pending": 1}


@pytest.mark.parametrize(("day", "warns"), [("2027-05-01", False), ("2027-06-20", True), ("2027-09-01", True)])
def test_the_end_of_an_api_version_is_shown_and_warned_of(
    day: str, warns: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    now = dt.datetime.fromisoformat(f"{day}T00:00:00+00:00")
    watch_version(LinkedInDestination(), SimulatedClock(int(now.timestamp() * 1e6)))
    [found] = metrics.forward_api_left_seconds.labels("linkedin").collect()
    left = found.samples[0].value
    assert left == (dt.datetime(2027, 8, 16, tzinfo=dt.UTC) - now).total_seconds()
    assert ("promised for few days only" in capsys.readouterr().out) is warns


@pytest.mark.parametrize(("day", "warned"), [("2027-05-01", 0), ("2027-06-05", 1), ("2027-06-21", 2)])
def test_the_end_of_the_first_token_is_shown_and_each_is_warned_of(
    day: str, warned: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "credentials.json"
    ends = {"acme": "2027-06-30", "globex": "2027-06-10", "hooli": None}
    accounts = {
        tenant: {
            "linkedin": {"ad_account_id": "1", "access_token": "never-shown"} | ({"token_expires": end} if end else {})
        }
        for tenant, end in ends.items()
    }
    path.write_text(json.dumps({"tenants": accounts}))
    now = dt.datetime.fromisoformat(f"{day}T00:00:00+00:00")
    watch_tokens("linkedin", load_credentials("linkedin", None, str(path)), SimulatedClock(int(now.timestamp() * 1e6)))
    [found] = metrics.forward_token_left_seconds.labels("linkedin").collect()
    assert found.samples[0].value == (dt.datetime(2027, 6, 11, tzinfo=dt.UTC) - now).total_seconds()
    said = capsys.readouterr().out
    assert said.count("the token ends soon") == warned
    assert "never-shown" not in said


def test_a_day_that_is_none_is_named_with_its_tenant(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    account = {"ad_account_id": "1", "access_token": "never-shown", "token_expires": "soon"}
    path.write_text(json.dumps({"tenants": {"acme": {"linkedin": account}}}))
    with pytest.raises(ConfigError, match="tenant acme, linkedin: token_expires must be a day, such as 2027-11-30"):
        load_credentials("linkedin", None, str(path))


def test_a_warning_in_a_header_is_logged_once_an_account_without_its_text(
    clock: SimulatedClock, make_stage: MakeStage
) -> None:
    def answer(request: HttpRequest) -> HttpResponse:
        taken = {"data": {"conversions_processed": len(json.loads(request.body)["conversions"])}}
        return HttpResponse(200, json.dumps(taken).encode(), {"x-api-warn": "version 12 ends; token s3cret"})

    mine = ACCOUNTS["x"]
    other = AccountCredentials("other", mine.secret, mine.options, mine.event_names)
    tenants = {"acme": [ACCOUNTS["x"]], "shop": [other]}
    stage = make_stage(
        "x",
        "http://x",
        clock,
        transport=ScriptedTransport(answer),
        route={"credentials": Credentials("x", None, tenants)},
    )
    with structlog.testing.capture_logs() as logged:
        for tenant in ("acme", "shop", "acme"):
            stage.handle(records([conversion(clock.micros, tenant_id=tenant)], now_micros=clock.micros))
    warnings = [line for line in logged if "warns" in line["event"]]
    assert [(line["tenant_id"], line["account"], line["header"]) for line in warnings] == [
        ("acme", ACCOUNTS["x"].name, "x-api-warn"), ("shop", "other", "x-api-warn"),
    ]  # fmt: skip
    assert "s3cret" not in repr(logged)
