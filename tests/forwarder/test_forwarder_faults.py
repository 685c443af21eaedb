"""Kills, floods of faults, and outages: nothing lost, nothing counted twice, everything accounted for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from attributary.consumers.destinations.attempts import SenderOptions
from attributary.consumers.destinations.memory_ledger import MemoryLedger
from attributary.consumers.forwarder import stage as _stage  # noqa: F401  # registers the points that it passes
from attributary.consumers.runtime.crash_points import crash_points
from attributary.consumers.runtime.errors import Retry
from attributary.consumers.store.deliveries.ledger import PostgresLedger
from attributary.consumers.store.session import StoreSession
from attributary.local.fakes import Fault, Ga4Fake, GoogleFake, MetaFake, OAuthFake
from attributary.local.fakes.server import FakeServer
from tests.forwarder.forwarder_factories import SimulatedClock, conversion, records

if TYPE_CHECKING:
    from tests.forwarder.conftest import MakeStage

ROOT = Path(__file__).parents[2]
POINTS = crash_points("forwarder")


def run_child(name: str, url: str, dsn: str, path: Path, crash_at: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.forwarder.forwarder_crash_process", name, url, dsn, str(path)],
        cwd=ROOT,
        env={**os.environ, "ATTRIBUTION_CRASH_AT": crash_at, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def written(path: Path, conversions: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(event) + "\n" for event in conversions), encoding="utf-8")
    return path


@pytest.mark.fault
@pytest.mark.postgres
@pytest.mark.parametrize("point", POINTS)
def test_meta_loses_nothing_to_a_kill_and_copies_keep_their_event_id(point: str, database: str, tmp_path: Path) -> None:
    now = time.time_ns() // 1_000
    path = written(tmp_path / "events.jsonl", [conversion(now) for _ in range(120)])
    fake = MetaFake()
    with FakeServer(fake) as server:
        killed = run_child("meta", server.url, database, path, point)
        assert killed.returncode == -signal.SIGKILL, "the fault fired"
        assert point in killed.stderr
        again = run_child("meta", server.url, database, path)
        assert again.returncode == 0, again.stderr
        third = run_child("meta", server.url, database, path)
        assert third.returncode == 0
    assert len(fake.received) == 120
    assert max(fake.received.values()) <= 2
    with_copies = point == "forwarder_after_send"
    assert (fake.duplicates > 0) is with_copies, "only the answer that was lost is asked for again"
    ledger = PostgresLedger(StoreSession(database, "tests"))
    assert [(count.state.value, count.deliveries) for count in ledger.counts()] == [("sent", 120)]
    ledger.close()


@pytest.mark.fault
@pytest.mark.postgres
@pytest.mark.parametrize("point", POINTS)
def test_google_loses_nothing_to_a_kill_and_every_request_is_known(point: str, database: str, tmp_path: Path) -> None:
    now = time.time_ns() // 1_000
    events = [conversion(now) for _ in range(60)]
    path = written(tmp_path / "events.jsonl", events)
    fake = GoogleFake(OAuthFake())
    with FakeServer(fake) as server:
        killed = run_child("google", server.url, database, path, point)
        assert killed.returncode == -signal.SIGKILL, "the fault fired"
        again = run_child("google", server.url, database, path)
        assert again.returncode == 0, again.stderr
    assert len(fake.received.by_key) == 60
    assert (fake.received.duplicates > 0) is (point == "forwarder_after_send"), "only a lost answer is asked for again"
    ledger = PostgresLedger(StoreSession(database, "tests"))
    assert [(count.state.value, count.deliveries) for count in ledger.counts()] == [("sent", 60)]
    rows = [row for event in events for row in ledger.find(event["event_id"])]
    assert {row.trace_id for row in rows} <= set(fake.taken)
    assert len(ledger.requests_of(rows)) == 60, "each event's request is asked about later"
    ledger.close()


@pytest.mark.fault
@pytest.mark.postgres
@pytest.mark.parametrize("point", POINTS)
def test_ga4_counts_nothing_twice_after_a_kill(point: str, database: str, tmp_path: Path) -> None:
    now = time.time_ns() // 1_000
    purchases = [conversion(now) for _ in range(20)]
    leads = [conversion(now, conversion_type="lead") for _ in range(20)]
    path = written(tmp_path / "events.jsonl", purchases + leads)
    fake = Ga4Fake()
    with FakeServer(fake) as server:
        killed = run_child("ga4", server.url, database, path, point)
        assert killed.returncode == -signal.SIGKILL, "the fault fired"
        assert run_child("ga4", server.url, database, path).returncode == 0
    ledger = PostgresLedger(StoreSession(database, "tests"))
    states = {event["event_id"]: ledger.find(event["event_id"])[0].state.value for event in purchases + leads}
    ledger.close()
    assert {states[event["event_id"]] for event in purchases} == {"sent"}
    assert len(fake.purchases) == 20
    counted = [entry["event"]["name"] for entry in fake.accepted]
    assert counted.count("purchase") == 20
    assert counted.count("generate_lead") <= 20, "never twice"
    sent = [event for event in leads if states[event["event_id"]] == "sent"]
    uncertain = [event for event in leads if states[event["event_id"]] == "uncertain"]
    assert len(sent) + len(uncertain) == 20
    assert len(sent) <= counted.count("generate_lead")
    if point in {"forwarder_after_ledger", "forwarder_after_answer", "forwarder_before_kafka_commit"}:
        assert not uncertain, "what was surely not sent, or surely answered, is not in doubt"


META_FAULTS = (
    "transient", "not_ready", "html_502", "http_500", "reset_before", "reset_after", "partial", "app_limit",
    "user_limit", "account_limit", "http_429", "token", "pixel", "permission", "deprecated",
)  # fmt: skip
GA4_FAULTS = ("http_500", "http_503", "http_429", "reset_before", "reset_after")


def until_done(stage: Any, batch: Any, clock: SimulatedClock) -> Any:
    for _ in range(500):
        try:
            return stage.handle(batch)
        except Retry as retry:
            clock.sleep(retry.after_seconds + 0.01)
    raise AssertionError("never done")


def mixture(now: int, number: int) -> list[dict[str, Any]]:
    """Mostly good events, with a known share of each kind that must not be sent."""
    day = 86_400_000_000
    events = []
    for n in range(number):
        match n % 100:
            case 0:
                events.append(conversion(now, consent=None))
            case 1:
                events.append(conversion(now, occurred_at=now - 8 * day))
            case 2:
                events.append(conversion(now, kind="restatement", conversion_id=f"c{n}"))
            case 3:
                events.append(conversion(now, conversion_type="x" * 41, currency="XXX", value_micros=0, items=[]))
            case _:
                events.append(conversion(now))
    return events


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.timeout(1_200 if os.environ.get("FORWARDER_FLOOD") else 900)
@pytest.mark.parametrize("name", ["meta", "ga4"])
def test_a_flood_with_faults_of_every_class_is_accounted_for_event_by_event(
    name: str, clock: SimulatedClock, make_stage: MakeStage
) -> None:
    # Requests of 25 and 1 events, so that 5% of them are many; FORWARDER_FLOOD=100000 runs the whole of it.
    number = int(os.environ.get("FORWARDER_FLOOD", "10000" if name == "meta" else "3000"))
    fake: Any = MetaFake() if name == "meta" else Ga4Fake()
    kinds = META_FAULTS if name == "meta" else GA4_FAULTS
    fake.script.replace([Fault(kind, share=0.05 / len(kinds), seconds=1) for kind in kinds], seed=7)
    ledger = MemoryLedger()
    options = SenderOptions(concurrency=1, first_backoff=0.01, max_backoff=0.05, budget=1e6)
    events = mixture(clock.micros, number)
    if name == "meta":
        fake.poison = {event["event_id"] for event in events[50::1000]}
    letters = 0
    with FakeServer(fake) as server:
        stage = make_stage(name, server.url, clock, ledger=ledger, options=options)
        stage._sender._destination.limits = stage._sender._destination.limits._replace(events=25)
        for start in range(0, number, 1_000):
            batch = records(events[start : start + 1_000], now_micros=clock.micros, first=start)
            letters += len(until_done(stage, batch, clock).dead_letters)
    assert sum(fake.script.fired.values()) > number / 25 * 0.02, "the faults fired"
    states: dict[str, int] = {}
    for row in ledger.rows.values():
        states[row.state.value] = states.get(row.state.value, 0) + 1
        assert row.state.value == "sent" or row.reason, "every other one has its reason"
        assert not row.in_flight
    hundredth = number // 100
    assert sum(states.values()) == number
    assert states["skipped"] == 2 * hundredth
    assert states["expired"] == hundredth
    if name == "meta":
        poisoned = len(fake.poison)
        assert states == {
            "sent": number - 3 * hundredth - poisoned,
            "skipped": 2 * hundredth,
            "expired": hundredth,
            "rejected": poisoned,
        }
        assert len(fake.received) == states["sent"], "each exactly once, by Meta's rules"
        assert letters == poisoned
    else:
        assert states["rejected"] == hundredth == letters
        assert fake.dropped == [], "the validator stood before"
        assert fake.counted == states["sent"]
        assert states["sent"] == number - 4 * hundredth


def test_an_outage_of_one_destination_slows_no_other(make_stage: MakeStage, clock: SimulatedClock) -> None:
    """Destinations share no state: each has its own group, process, sender and rows in the ledger."""
    ledger = MemoryLedger()
    ga4 = Ga4Fake()
    batch = records([conversion(clock.micros) for _ in range(20)], now_micros=clock.micros)
    with FakeServer(ga4) as server:
        options = SenderOptions(concurrency=1, first_backoff=0.001, max_backoff=0.002)
        down = make_stage("meta", "http://127.0.0.1:9", clock, ledger=ledger, options=options)
        up = make_stage("ga4", server.url, clock, ledger=ledger, options=options)
        with pytest.raises(Retry, match="ConnectError"):
            down.handle(batch)
        assert up.handle(batch).dead_letters == []
    assert ga4.counted == 20
    assert (down.group, up.group) == ("attribution.forwarder.meta", "attribution.forwarder.ga4")
