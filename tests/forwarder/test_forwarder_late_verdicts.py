"""Verdicts that come later: requests that a destination has received, asked about until it says what became of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from attributary.cli.main import app
from attributary.consumers.destinations import metrics
from attributary.consumers.destinations.memory_ledger import MemoryLedger
from attributary.consumers.store.deliveries.delivery import (
    DeliveryKey,
    DeliveryOutcome,
    DeliveryState,
    ReceivedRequest,
    Verdict,
)
from attributary.local.fakes import Fault, GoogleFake, OAuthFake
from attributary.local.fakes.server import FakeServer
from tests.forwarder.forwarder_factories import SimulatedClock, conversion, records
from tests.forwarder.test_forwarder_ledger import NOW, new, postgres_ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from attributary.consumers.forwarder.stage import ForwarderStage
    from attributary.consumers.store.deliveries.delivery import Ledger
    from tests.forwarder.conftest import MakeStage

HOUR = 3_600


@pytest.fixture
def fake(clock: SimulatedClock) -> GoogleFake:
    """Google's side, in the simulated time."""
    made = GoogleFake(OAuthFake())
    made.time = lambda: clock.now_micros() / 1e6
    return made


@pytest.fixture
def server(fake: GoogleFake) -> Iterator[FakeServer]:
    with FakeServer(fake) as running:
        yield running


@pytest.fixture(params=["memory", pytest.param("stored", marks=pytest.mark.postgres)])
def ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    if request.param == "memory":
        yield MemoryLedger()
    else:
        with postgres_ledger(request.getfixturevalue("database")) as found:
            yield found


def pass_time(stage: ForwarderStage, clock: SimulatedClock, seconds: int, step: int = 300) -> None:
    """Let a stage without new events live on."""
    for _ in range(0, seconds, step):
        clock.sleep(step)
        stage.catch_up([], is_idle=True)


def verdict_of(ledger: MemoryLedger) -> list[tuple[Verdict, int, dict[str, int], int]]:
    return [(each.verdict, each.events, dict(each.refused), each.asked) for each in ledger.requests.values()]


def count(name: str, *labels: str) -> float:
    counter: Any = getattr(metrics, name).labels("google", *labels)
    return float(counter._value.get())


def test_a_request_is_asked_about_after_half_an_hour_until_its_verdict(
    make_stage: MakeStage, clock: SimulatedClock, fake: GoogleFake, server: FakeServer
) -> None:
    ledger, now = MemoryLedger(), clock.now_micros()
    before = count("forward_late_verdicts", "accepted")
    stage = make_stage("google", server.url, clock, ledger=ledger)
    stage.handle(records([conversion(now) for _ in range(20)], now_micros=now))
    assert verdict_of(ledger) == [(Verdict.PENDING, 20, {}, 0)]
    calls = fake.received.calls
    pass_time(stage, clock, 1_500)
    assert fake.received.calls == calls, "not before half an hour has gone"
    pass_time(stage, clock, 600)
    assert verdict_of(ledger) == [(Verdict.ACCEPTED, 20, {}, 1)]
    asked = fake.received.calls
    pass_time(stage, clock, HOUR)
    assert fake.received.calls == asked, "a verdict is not asked about again"
    assert count("forward_late_verdicts", "accepted") - before == 20
    assert {row.state.value for row in ledger.rows.values()} == {"sent"}


@pytest.mark.parametrize(("bad", "verdict"), [(3, Verdict.PARTLY), (20, Verdict.REFUSED)])
def test_what_is_refused_later_is_counted_by_reason_and_told(
    bad: int,
    verdict: Verdict,
    make_stage: MakeStage,
    clock: SimulatedClock,
    fake: GoogleFake,
    server: FakeServer,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ledger, now = MemoryLedger(), clock.now_micros()
    sent = [conversion(now) for _ in range(20)]
    fake.refused_later = {each["order_id"]: "PROCESSING_ERROR_REASON_INVALID_GCLID" for each in sent[:bad]}
    before = count("forward_late_refusals", "INVALID_GCLID"), count("forward_late_verdicts", "refused")
    stage = make_stage("google", server.url, clock, ledger=ledger)
    stage.handle(records(sent, now_micros=now))
    pass_time(stage, clock, HOUR)
    assert verdict_of(ledger) == [(verdict, 20, {"INVALID_GCLID": bad}, 1)]
    assert count("forward_late_refusals", "INVALID_GCLID") - before[0] == bad
    assert count("forward_late_verdicts", "refused") - before[1] == bad
    assert "the destination's verdict on a request" in capsys.readouterr().out
    assert {row.state.value for row in ledger.rows.values()} == {"sent"}, "Google does not say which"


def test_a_status_that_stays_away_is_asked_for_less_and_less_often_and_given_up_after_a_day(
    make_stage: MakeStage, clock: SimulatedClock, fake: GoogleFake, server: FakeServer
) -> None:
    ledger, now = MemoryLedger(), clock.now_micros()
    stage = make_stage("google", server.url, clock, ledger=ledger)
    stage.handle(records([conversion(now)], now_micros=now))
    calls = fake.received.calls
    fake.taken.clear()  # the request is not known: every question is refused
    pass_time(stage, clock, 20 * HOUR)
    [(verdict, _, _, asked)] = verdict_of(ledger)
    assert verdict is Verdict.PENDING
    assert asked == fake.received.calls - calls
    assert 5 < asked < 15
    pass_time(stage, clock, 16 * HOUR)
    assert [each[0] for each in verdict_of(ledger)] == [Verdict.UNKNOWN]


def test_faults_of_the_status_and_of_the_token_endpoint_delay_a_verdict_only(
    make_stage: MakeStage, clock: SimulatedClock, fake: GoogleFake, server: FakeServer
) -> None:
    ledger, now = MemoryLedger(), clock.now_micros()
    stage = make_stage("google", server.url, clock, ledger=ledger)
    stage.handle(records([conversion(now) for _ in range(5)], now_micros=now))
    fake.script.replace([Fault("html_502", times=1), Fault("cut", times=1), Fault("reset_before", times=1)])
    assert fake.oauth is not None
    fake.oauth.end_all()
    fake.oauth.script.replace([Fault("http_500", times=1)])
    pass_time(stage, clock, 12 * HOUR)
    assert [each[0] for each in verdict_of(ledger)] == [Verdict.ACCEPTED]
    assert set(fake.script.fired) == {"html_502", "cut", "reset_before"}


def test_an_account_that_the_settings_have_no_more_ends_unknown(
    make_stage: MakeStage, clock: SimulatedClock, server: FakeServer
) -> None:
    ledger = MemoryLedger()
    now = clock.now_micros()
    ledger.settle([], [ReceivedRequest("acme", "google:gone", "r-1", 7, now, now)])
    stage = make_stage("google", server.url, clock, ledger=ledger)
    pass_time(stage, clock, 40 * HOUR, step=1_800)
    assert [each[0] for each in verdict_of(ledger)] == [Verdict.UNKNOWN]


def request(number: int, **changes: Any) -> ReceivedRequest:
    return ReceivedRequest("acme", "google", f"r-{number}", 10, NOW, NOW + number)._replace(**changes)


def test_requests_are_noted_with_their_outcomes_and_given_when_they_are_due(ledger: Ledger) -> None:
    ledger.claim([new("a", destination="google")])
    outcome = DeliveryOutcome(DeliveryKey("acme", "google", "a"), DeliveryState.SENT, trace_id="r-1")
    ledger.settle([outcome], [request(1), request(3), request(2, destination="google:77")])
    ledger.settle([outcome], [request(1, events=99)])
    due = ledger.due_requests("google", NOW + 2, limit=10)
    assert [(each.request_id, each.destination, each.events) for each in due] == [
        ("r-1", "google", 10), ("r-2", "google:77", 10),
    ]  # fmt: skip
    assert [each.request_id for each in ledger.due_requests("google", NOW + 9, limit=1)] == ["r-1"]
    assert ledger.due_requests("goo", NOW + 9, limit=9) == []


def test_a_verdict_that_is_final_stays_so(ledger: Ledger) -> None:
    ledger.claim([new("a", destination="google")])
    outcome = DeliveryOutcome(DeliveryKey("acme", "google", "a"), DeliveryState.SENT, trace_id="r-1")
    ledger.settle([outcome], [request(1), request(2)])
    refused = {"INVALID_GCLID": 4}
    ledger.judge_requests(
        [request(1, verdict=Verdict.PARTLY, refused=refused), request(2, ask_at=NOW + 50)], now_micros=NOW
    )
    ledger.judge_requests([request(1, verdict=Verdict.ACCEPTED)], now_micros=NOW)
    assert ledger.due_requests("google", NOW + 9, limit=9) == []
    [left] = ledger.due_requests("google", NOW + 50, limit=9)
    assert (left.request_id, left.asked) == ("r-2", 1)


@pytest.mark.postgres
def test_explain_and_status_tell_the_verdict_of_a_request(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    outcome = DeliveryOutcome(DeliveryKey("acme", "google", "a"), DeliveryState.SENT, trace_id="r-1")

    def explained(*options: str) -> str:
        result = CliRunner().invoke(app, ["forward", "explain", "a", *options])
        assert result.exit_code == 0, result.output
        return result.output

    with postgres_ledger(database) as stored:
        stored.claim([new("a", destination="google")])
        stored.settle([outcome], [request(1)])
        assert "received with 10 events; the verdict comes later" in explained()
        refused = {"INVALID_GCLID": 3, "NO_CONSENT": 1}
        stored.judge_requests([request(1, verdict=Verdict.PARTLY, refused=refused)], now_micros=NOW)
        said = "4 of the request's 10 events were refused later: INVALID_GCLID 3, NO_CONSENT 1; it does not say which"
        assert said in explained()
        assert json.loads(explained("--json"))["request"]["verdict"] == "partly"
        status = CliRunner().invoke(app, ["forward", "status"])
        assert "partly, 1 requests" in status.output
        assert stored.prune(NOW + 10) == 1
        assert stored.verdicts() == []
