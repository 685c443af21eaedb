"""The stage on the Meta fake: batches, bisection, retries, waits, ledger and dead letters."""

from __future__ import annotations

import gc
import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from attributary.consumers.destinations import metrics
from attributary.consumers.destinations.attempts import SenderOptions
from attributary.consumers.destinations.credentials import AccountCredentials, Credentials
from attributary.consumers.destinations.destination import HttpResponse
from attributary.consumers.destinations.memory_ledger import MemoryLedger
from attributary.consumers.forwarder.redelivery import Redelivery, again
from attributary.consumers.runtime.errors import Retry
from attributary.consumers.store.connection import StoreUnavailable
from attributary.consumers.store.deliveries.delivery import DeliveryKey, DeliveryState
from attributary.local.fakes import Fault, MetaFake
from attributary.local.fakes.server import FakeServer
from tests.forwarder.forwarder_factories import (
    MemoryReader,
    ScriptedTransport,
    SimulatedClock,
    conversion,
    record,
    records,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from attributary.consumers.runtime.records import Outcome, Record
    from tests.forwarder.conftest import MakeStage

FAST = SenderOptions(concurrency=1, first_backoff=0.001, max_backoff=0.002)


@pytest.fixture
def fake() -> MetaFake:
    return MetaFake(tokens=["test-token"])


@pytest.fixture
def url(fake: MetaFake) -> Iterator[str]:
    with FakeServer(fake) as server:
        yield server.url


def states(ledger: MemoryLedger) -> dict[str, int]:
    found: dict[str, int] = {}
    for row in ledger.rows.values():
        found[row.state.value] = found.get(row.state.value, 0) + 1
    return found


def until_done(stage: Any, batch: list[Record], clock: SimulatedClock, turns: int = 50) -> Outcome:
    """What the loop does: the same records again after the wait that was asked for."""
    for _ in range(turns):
        try:
            outcome: Outcome = stage.handle(batch)
        except Retry as retry:
            clock.sleep(retry.after_seconds + 0.01)
        else:
            return outcome
    raise AssertionError("never done")


def test_999_good_and_one_bad_cost_fewer_than_25_calls(
    fake: MetaFake, url: str, clock: SimulatedClock, make_stage: MakeStage
) -> None:
    ledger = MemoryLedger()
    events = [conversion(clock.micros) for _ in range(1_000)]
    fake.poison.add(events[617]["event_id"])
    stage = make_stage("meta", url, clock, ledger=ledger, options=FAST)
    outcome = stage.handle(records(events, now_micros=clock.micros))
    assert [(letter.record.offset, letter.stage) for letter in outcome.dead_letters] == [(617, "send")]
    assert fake.calls < 25
    assert len(fake.received) == 999
    assert fake.duplicates == 0
    assert states(ledger) == {"sent": 999, "rejected": 1}


class ScriptedBad(ScriptedTransport):
    """Meta's all-or-nothing: a request that holds the bad event is rejected."""

    def __init__(self, *bad: str) -> None:
        super().__init__(self._prepare)
        self.bad = set(bad)
        self.delivered = 0

    def _prepare(self, request: Any) -> HttpResponse:
        ids = [event["event_id"] for event in json.loads(request.body)["data"]]
        if self.bad & set(ids):
            return HttpResponse(400, b'{"error":{"code":100,"error_subcode":2804019,"message":"jane@example.com"}}')
        self.delivered += len(ids)
        return HttpResponse(200, json.dumps({"events_received": len(ids), "fbtrace_id": "T1"}).encode())


def test_several_culprits_are_found(clock: SimulatedClock, make_stage: MakeStage) -> None:
    events = [conversion(clock.micros) for _ in range(300)]
    bad = {events[n]["event_id"] for n in (0, 150, 299)}
    ledger = MemoryLedger()
    transport = ScriptedBad(*bad)
    outcome = make_stage("meta", "http://x", clock, ledger=ledger, transport=transport, options=FAST).handle(
        records(events, now_micros=clock.micros)
    )
    assert {letter.record.offset for letter in outcome.dead_letters} == {0, 150, 299}
    assert states(ledger) == {"sent": 297, "rejected": 3}
    row = ledger.rows[DeliveryKey("acme", "meta", events[5]["event_id"])]
    assert (row.response_code, row.trace_id, row.attempts) == ("200", "T1", 1)
    assert row.request_hash
    assert row.match_keys == ("client_ip_address", "client_user_agent", "em", "external_id", "fbc", "fbp")


@pytest.mark.parametrize(
    "kind",
    [
        "transient", "not_ready", "html_502", "http_500", "reset_before", "reset_after", "partial", "app_limit",
        "user_limit", "account_limit", "http_429", "token", "pixel", "permission", "deprecated",
    ],
)  # fmt: skip
def test_every_fault_ends_with_everything_delivered(
    fake: MetaFake, url: str, clock: SimulatedClock, kind: str, make_stage: MakeStage
) -> None:
    fake.script.replace([Fault(kind, times=2)])
    ledger = MemoryLedger()
    events = [conversion(clock.micros) for _ in range(40)]
    stage = make_stage("meta", url, clock, ledger=ledger, options=FAST)
    outcome = until_done(stage, records(events, now_micros=clock.micros), clock)
    assert fake.script.fired[kind] == 2
    assert not outcome.dead_letters
    assert states(ledger) == {"sent": 40}
    assert len(fake.received) == 40
    assert {name for _, name, _ in fake.received} == {"Purchase"}


def test_a_replay_sends_nothing_twice(fake: MetaFake, url: str, clock: SimulatedClock, make_stage: MakeStage) -> None:
    ledger = MemoryLedger()
    batch = records([conversion(clock.micros) for _ in range(50)], now_micros=clock.micros)
    stage = make_stage("meta", url, clock, ledger=ledger)
    stage.handle(batch)
    calls = fake.calls
    make_stage("meta", url, clock, ledger=ledger).handle(batch)
    copies = [record(letter.value or b"", 900 + n, at_ms=letter.timestamp_ms) for n, letter in enumerate(batch)]
    stage.handle(copies)
    assert fake.calls == calls
    assert fake.duplicates == 0


def test_a_dead_letter_comes_again_on_a_replay_but_not_for_a_copy(clock: SimulatedClock, make_stage: MakeStage) -> None:
    event = conversion(clock.micros, currency="XXX", value_micros=0, items=[])
    stage = make_stage("meta", "http://x", clock, ledger=MemoryLedger())
    first = record(event, 7, at_ms=clock.micros // 1_000)
    copy = record(event, 8, at_ms=clock.micros // 1_000)
    assert len(stage.handle([first, copy]).dead_letters) == 1
    (again,) = stage.handle([first]).dead_letters
    assert (again.record.offset, again.stage, again.reason) == (
        7,
        "validate",
        "a purchase needs a value and a currency",
    )
    assert stage.handle([copy]).dead_letters == []


def test_broken_records_are_dead_lettered_and_the_rest_goes_on(
    fake: MetaFake, url: str, clock: SimulatedClock, make_stage: MakeStage
) -> None:
    now = clock.micros
    batch = records(
        [
            b"\x00rubbish",
            conversion(now),
            conversion(now, occurred_at=now + 3 * 86_400_000_000),
            conversion(now, event_id="nul\0"),
        ],
        now_micros=now,
    )
    outcome = make_stage("meta", url, clock).handle(batch)
    assert [(letter.record.offset, letter.stage, letter.field) for letter in outcome.dead_letters] == [
        (0, "decode", None),
        (2, "validate", "occurred_at"),
        (3, "validate", "event_id"),
    ]
    assert len(fake.received) == 1


def test_consent_is_asked_for_before_anything_is_built(url: str, clock: SimulatedClock, make_stage: MakeStage) -> None:
    ledger = MemoryLedger()
    events = [
        conversion(clock.micros, event_id="yes"),
        conversion(clock.micros, event_id="no", consent={"ad_storage": True, "ad_user_data": False}),
        conversion(clock.micros, event_id="not-asked", consent={"ad_storage": True}),
        conversion(clock.micros, event_id="unknown", consent=None),
    ]
    make_stage("meta", url, clock, ledger=ledger).handle(records(events, now_micros=clock.micros))
    reasons = {key.event_id: row.reason for key, row in ledger.rows.items()}
    assert reasons == {
        "yes": None,
        "no": "consent refused: ad_user_data",
        "not-asked": "consent not known: ad_user_data",
        "unknown": "consent not known: ad_storage",
    }
    assert states(ledger) == {"sent": 1, "skipped": 3}
    other = MemoryLedger()
    stage = make_stage("meta", url, clock, ledger=other, route={"consent_unknown": "send"})
    stage.handle(records(events, now_micros=clock.micros))
    assert states(other) == {"sent": 3, "skipped": 1}


def test_corrections_and_old_events_are_accounted_for(
    fake: MetaFake, url: str, clock: SimulatedClock, make_stage: MakeStage
) -> None:
    ledger = MemoryLedger()
    events = [
        conversion(clock.micros, event_id="refund", kind="refund", conversion_id="c"),
        conversion(clock.micros, event_id="old", occurred_at=clock.micros - 8 * 86_400_000_000),
    ]
    outcome = make_stage("meta", url, clock, ledger=ledger).handle(records(events, now_micros=clock.micros))
    assert outcome.dead_letters == []
    assert fake.calls == 0
    assert {key.event_id: (row.state.value, row.reason) for key, row in ledger.rows.items()} == {
        "refund": ("skipped", "Meta has no event for a refund"),
        "old": ("expired", "older than 7 days"),
    }


def test_usage_headers_slow_down_and_stop_before_the_limit(clock: SimulatedClock, make_stage: MakeStage) -> None:
    fake = MetaFake(usage_step=5.0)
    with FakeServer(fake) as server:
        options = SenderOptions(concurrency=1, first_backoff=0.001, max_backoff=0.002, budget=1e9)
        stage = make_stage("meta", server.url, clock, options=options)
        for turn in range(25):
            batch = records([conversion(clock.micros)], now_micros=clock.micros, first=turn)
            try:
                stage.handle(batch)
            except Retry as retry:
                wait = retry.after_seconds
                break
        else:
            raise AssertionError("never paused")
        assert wait > 1
        assert fake.usage < 100, "paused before Meta refused anything"
        assert clock.slept > 1, "and slowed down before that"


@pytest.mark.slow
def test_an_hour_of_outage_ends_with_everything_in_order_of_age(clock: SimulatedClock, make_stage: MakeStage) -> None:
    start = clock.micros
    back = start + 3_600_000_000
    order: list[str] = []

    def answer(request: Any) -> HttpResponse:
        if clock.micros < back:
            return HttpResponse(0, fault="ConnectError")
        events = json.loads(request.body)["data"]
        order.extend(event["event_id"] for event in events)
        return HttpResponse(200, json.dumps({"events_received": len(events)}).encode())

    ledger = MemoryLedger()
    transport = ScriptedTransport(answer)
    stage = make_stage("meta", "http://x", clock, ledger=ledger, transport=transport)
    events = [conversion(start, occurred_at=start - n * 1_000_000) for n in range(200)]
    outcome = until_done(stage, records(events, now_micros=start), clock, turns=2_000)
    assert clock.micros >= back
    assert not outcome.dead_letters
    assert order == [event["event_id"] for event in reversed(events)]
    assert states(ledger) == {"sent": 200}
    assert len(transport.requests) < 400, "the destination is probed, not flooded"


@pytest.mark.slow
def test_memory_stays_flat_while_a_destination_is_away(clock: SimulatedClock, make_stage: MakeStage) -> None:
    class Away:
        def send(self, request: Any) -> HttpResponse:  # noqa: ARG002
            return HttpResponse(0, fault="ConnectError")

        def close(self) -> None:
            pass

    stage = make_stage("meta", "http://x", clock, transport=Away())
    batch = records([conversion(clock.micros) for _ in range(10)], now_micros=clock.micros)

    def turns(number: int) -> int:
        for _ in range(number):
            with pytest.raises(Retry) as caught:
                stage.handle(batch)
            clock.sleep(caught.value.after_seconds + 0.01)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = turns(15)
        after = turns(60)
    finally:
        tracemalloc.stop()
    assert after - before < 50_000, "bytes, over an hour of simulated outage"


def test_dead_credentials_of_one_tenant_hold_up_no_other(clock: SimulatedClock, make_stage: MakeStage) -> None:
    fake = MetaFake(tokens=["good"])
    tenants = {
        "acme": [AccountCredentials("1", "expired", {})],
        "globex": [AccountCredentials("2", "good", {})],
        "initech": [],
    }
    with FakeServer(fake) as server:
        ledger = MemoryLedger()
        route = {"credentials": Credentials("meta", None, tenants)}
        stage = make_stage("meta", server.url, clock, ledger=ledger, options=FAST, route=route)
        events = [conversion(clock.micros, tenant_id=name) for name in ("acme", "globex", "initech") * 2]
        outcome = stage.handle(records(events, now_micros=clock.micros))
        assert outcome.dead_letters == []
    found = {(key.tenant_id, row.state.value) for key, row in ledger.rows.items()}
    assert found == {("acme", "pending"), ("globex", "sent")}
    assert {row.reason for row in ledger.rows.values() if row.state is DeliveryState.PENDING} == {
        "the access token is not valid"
    }


def test_a_tenant_may_have_several_pixels(
    fake: MetaFake, url: str, clock: SimulatedClock, make_stage: MakeStage
) -> None:
    tenants = {"acme": [AccountCredentials("1", "test-token", {}), AccountCredentials("2", "test-token", {})]}
    ledger = MemoryLedger()
    stage = make_stage("meta", url, clock, ledger=ledger, route={"credentials": Credentials("meta", None, tenants)})
    stage.handle(records([conversion(clock.micros)], now_micros=clock.micros))
    assert {key.destination for key in ledger.rows} == {"meta", "meta:2"}
    assert {pixel for pixel, _, _ in fake.received} == {"1", "2"}


def test_redelivery_ends_when_meta_would_not_see_the_copy(clock: SimulatedClock, make_stage: MakeStage) -> None:
    ledger = MemoryLedger()
    down = ScriptedTransport(lambda _: HttpResponse(0, fault="ReadTimeout", perhaps_sent=True))
    stage = make_stage("meta", "http://x", clock, ledger=ledger, transport=down, options=FAST)
    batch = records([conversion(clock.micros)], now_micros=clock.micros)
    with pytest.raises(Retry):
        stage.handle(batch)
    (row,) = ledger.rows.values()
    assert (row.state, row.in_flight) == (DeliveryState.PENDING, True)
    clock.sleep(49 * 3_600)
    assert stage.handle(batch).dead_letters == []
    (row,) = ledger.rows.values()
    assert row.state is DeliveryState.EXPIRED


def test_f6_a_retry_without_the_account_changes_nothing(url: str, clock: SimulatedClock, make_stage: MakeStage) -> None:
    ledger = MemoryLedger()
    down = ScriptedTransport(lambda _: HttpResponse(0, fault="ReadTimeout", perhaps_sent=True))
    stage = make_stage("meta", url, clock, ledger=ledger, transport=down, options=FAST)
    batch = records([conversion(clock.micros)], now_micros=clock.micros)
    with pytest.raises(Retry):
        stage.handle(batch)
    before = dict(ledger.rows)
    (row,) = before.values()
    assert row.in_flight  # perhaps sent: the knowledge that must not be lost
    nobody = make_stage("meta", url, clock, ledger=ledger, route={"credentials": Credentials("meta", None)})
    elsewhere = Credentials("meta", None, {"globex": [AccountCredentials("1", "test-token", {})]})
    other = make_stage("meta", url, clock, ledger=ledger, route={"credentials": elsewhere})
    for without in (nobody, other):
        found = again([row], without, MemoryReader(batch), print)
        assert found == Redelivery(tried=0, gone=(), without_account=1)
        assert ledger.rows == before


def test_what_was_surely_not_taken_may_go_after_days(
    fake: MetaFake, url: str, clock: SimulatedClock, make_stage: MakeStage
) -> None:
    fake.script.replace([Fault("token", times=1)])
    ledger = MemoryLedger()
    stage = make_stage("meta", url, clock, ledger=ledger, options=FAST)
    batch = records([conversion(clock.micros)], now_micros=clock.micros)
    with pytest.raises(Retry, match="access token"):
        stage.handle(batch)
    clock.sleep(3 * 86_400)
    stage.handle(batch)
    assert states(ledger) == {"sent": 1}


def test_the_age_of_the_oldest_rises_while_an_account_is_stopped(
    fake: MetaFake, url: str, clock: SimulatedClock, make_stage: MakeStage
) -> None:
    fake.script.replace([Fault("token", times=1)])
    stage = make_stage("meta", url, clock, options=FAST)
    batch = records([conversion(clock.micros)], now_micros=clock.micros)
    ages = []
    for _ in range(2):
        with pytest.raises(Retry):
            stage.handle(batch)
        ages.append(metrics.forward_oldest_pending_seconds.labels("meta")._value.get())
        assert metrics.forward_channels_stopped.labels("meta")._value.get() == 1
        clock.sleep(50)
    assert ages == [pytest.approx(60, abs=1), pytest.approx(110, abs=1)]
    clock.sleep(20)
    stage.handle(batch)
    assert metrics.forward_oldest_pending_seconds.labels("meta")._value.get() == 0
    assert metrics.forward_channels_stopped.labels("meta")._value.get() == 0


def test_doubt_outlives_a_later_sure_failure(clock: SimulatedClock, make_stage: MakeStage) -> None:
    answers = iter([HttpResponse(0, fault="ReadTimeout", perhaps_sent=True), HttpResponse(429), HttpResponse(429)])
    once = SenderOptions(concurrency=1, attempts=1)
    ledger = MemoryLedger()
    transport = ScriptedTransport(lambda _: next(answers))
    stage = make_stage("meta", "http://x", clock, ledger=ledger, options=once, transport=transport)
    batch = records([conversion(clock.micros)], now_micros=clock.micros)
    first = clock.micros
    for _ in range(2):
        with pytest.raises(Retry):
            stage.handle(batch)
        clock.sleep(100)
    (row,) = ledger.rows.values()
    assert (row.in_flight, row.first_sent_at) == (True, first)


def test_a_ledger_that_is_away_is_waited_for(url: str, clock: SimulatedClock, make_stage: MakeStage) -> None:
    class Away(MemoryLedger):
        def claim(self, entries: Any) -> Any:  # noqa: ARG002
            raise StoreUnavailable("Postgres gave up: 57P01")

    stage = make_stage("meta", url, clock, ledger=Away())
    with pytest.raises(Retry, match="57P01"):
        stage.handle(records([conversion(clock.micros)], now_micros=clock.micros))
    assert not stage.is_ready()
