"""All ad platforms at once on real Kafka and the real ledger, under faults of every class, a kill and a dead one.

The size is that of `FORWARD_FLOOD_EVENTS`; the run of record has 20,000 (docs/how-to/forward.md). `FORWARD_FLOOD_NAMES`
names some platforms of all. Google judges its requests later: the run ends when each verdict is known.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections import Counter
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from attributary.local.fakes import Fault, GoogleFake
from attributary.local.fakes.received import StandIn
from attributary.local.fakes.server import FakeServer
from tests.forwarder.forwarder_factories import CODEC, conversion
from tests.forwarder.forwarder_processes import (
    FAKES,
    Forwarders,
    ask_at_once,
    dead_letters,
    late_verdicts,
    ledger_states,
    produce,
    settled_counts,
    variables,
)

if TYPE_CHECKING:
    from pathlib import Path

ALL = ("tiktok", "linkedin", "x", "reddit", "pinterest", "snap", "microsoft", "bingads", "google")
NAMES = tuple(name for name in ALL if name in os.environ.get("FORWARD_FLOOD_NAMES", ",".join(ALL)).split(","))
EVENTS = int(os.environ.get("FORWARD_FLOOD_EVENTS", "2000"))
IS_FULL = EVENTS >= 20_000
A_REQUEST = 100 if IS_FULL else 20
SHARE = 0.05
CLASSES = ("html_502", "http_500", "reset_before", "reset_after", "cut", "slow")
OWN: dict[str, tuple[str, ...]] = {
    "tiktok": ("http_429", "partial", "conflict", "maintenance", "server_busy"),
    "x": ("limit", "locked", "over_capacity"),
    "pinterest": ("ramped_down", "listed_422"),  # a 422 without a list costs copies: it has a test of its own
    "snap": ("invalid_200",),
    "microsoft": ("warning",),
    "bingads": ("internal", "item_internal"),
    "google": ("internal", "unavailable"),
}
# Their 429 names no time, so the account rests for a minute: once in a full run. `more_faults` has them by the dozen.
A_MINUTE = {
    "tiktok": "throttled",
    "linkedin": "http_429",
    "reddit": "http_429",
    "pinterest": "http_429",
    "microsoft": "http_429",
    "snap": "http_429",
    "bingads": "call_rate",
    "google": "quota",
}
# These remove no copies that two calls bring: what was perhaps taken is held, and nothing is sent twice.
HOLDS = ("linkedin", "pinterest", "microsoft")


def scripted(name: str) -> list[Fault]:
    """Faults by chance in a full run, two of each class in a small one: they must fire."""
    classes = CLASSES + OWN.get(name, ())
    seconds = {"slow": 2.0}
    if not IS_FULL:
        return [Fault(kind, times=2, seconds=seconds.get(kind, 1.0)) for kind in classes]
    faults = [Fault(kind, share=SHARE, seconds=seconds.get(kind, 1.0)) for kind in classes]
    return ([Fault(A_MINUTE[name], times=1)] if name in A_MINUTE else []) + faults


def flood(now: int) -> dict[str, list[dict[str, Any]]]:
    """Events by what becomes of them: of a hundred one is refused by the platform, and five each may not go."""
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in ("good", "bad", "refused", "refund", "old")}
    consent = {"ad_storage": False, "ad_user_data": False}
    for number in range(EVENTS):
        if number % 100 == 42:
            found["bad"].append(conversion(now))
            continue
        match number % 20:
            case 7:
                found["refused"].append(conversion(now, consent=consent))
            case 11:
                found["refund"].append(conversion(now, kind="refund", conversion_id=f"order-{number}"))
            case 15:
                found["old"].append(conversion(now, occurred_at=now - 100 * 86_400_000_000))
            case _:
                found["good"].append(conversion(now))
    return found


def known_as(name: str, events: list[dict[str, Any]]) -> dict[str, str]:
    """Return our ids of events by those that a platform knows: Google has the order's, Bing Ads the click's."""
    match name:
        case "google":
            return {event["order_id"]: event["event_id"] for event in events}
        case "bingads":
            return {event["click_ids"]["msclkid"]: event["event_id"] for event in events}
    return {event["event_id"]: event["event_id"] for event in events}


def ids(events: list[dict[str, Any]]) -> set[str]:
    return {event["event_id"] for event in events}


def check_accounted_for(
    name: str, states: dict[str, set[str]], sorted_events: dict[str, list[dict[str, Any]]], fake: StandIn
) -> None:
    """Compare the ledger of one platform with what was published and with what its stand-in has received."""
    assert fake.script.fired.keys() >= set(CLASSES), (name, fake.script.fired)
    ours = known_as(name, [event for events in sorted_events.values() for event in events])
    taken = Counter({ours[str(key[-1])]: copies for key, copies in fake.received.by_key.items()})  # type: ignore[index]
    if isinstance(fake, GoogleFake):  # received, and refused later
        taken += Counter(dict.fromkeys((ours[order] for order in fake.refused_later), 1))
    everything = set[str]().union(*(ids(events) for events in sorted_events.values()))
    assert set[str]().union(*states.values()) == everything, name
    assert sum(map(len, states.values())) == EVENTS, "one state each"
    assert states["skipped"] == ids(sorted_events["refused"]) | ids(sorted_events["refund"])
    assert states["expired"] == ids(sorted_events["old"])
    sent, uncertain, rejected = (states.get(state, set()) for state in ("sent", "uncertain", "rejected"))
    assert sent <= set(taken) <= sent | uncertain, "received exactly what counts as sent, or is in doubt"
    assert rejected <= ids(sorted_events["bad"]) <= rejected | uncertain
    if name in HOLDS:
        assert uncertain, "some answers were lost"
        assert max(taken.values()) == 1
    else:
        assert not uncertain
        assert sent == set(taken) == ids(sorted_events["good"])
    counts = {state: len(events) for state, events in sorted(states.items())}
    received = f"{fake.received.calls} calls, {fake.received.duplicates} copies"
    print(name, counts, received, dict(sorted(fake.script.fired.items())))


def check_late_verdicts(verdicts: list[tuple[str, int, dict[str, int]]], sent: int, refused: int) -> None:
    """Compare what Google said of its requests with what was sent, and with what it was told to refuse later."""
    assert {verdict for verdict, *_ in verdicts} <= {"accepted", "partly", "refused"}
    assert sum(events for _, events, _ in verdicts) == sent, "each sent event is in one request with a verdict"
    assert sum((Counter(reasons) for *_, reasons in verdicts), Counter[str]()) == {"INVALID_GCLID": refused}
    print("google's verdicts", Counter(verdict for verdict, *_ in verdicts), f"{refused} refused later")


@pytest.mark.kafka
@pytest.mark.postgres
@pytest.mark.fault
@pytest.mark.slow
def test_every_event_is_accounted_for_at_all_platforms_at_once(
    fresh_topics: str, database: str, tmp_path: Path
) -> None:
    now = time.time_ns() // 1_000
    sorted_events = flood(now)
    junk = [b"\x00rubbish", b"\xc3\x01none"]
    mixed = sorted((e for events in sorted_events.values() for e in events), key=lambda event: event["event_id"])
    encoded = [CODEC.encode("conversion", event) for event in mixed]
    fakes: dict[str, StandIn] = {name: FAKES[name]() for name in NAMES}
    with ExitStack() as stack:
        urls = {name: stack.enter_context(FakeServer(fake)).url for name, fake in fakes.items()}
        gone = stack.enter_context(socket.socket())
        gone.bind(("127.0.0.1", 0))  # held and never listened on: every connection to it is refused
        urls["meta"] = f"http://127.0.0.1:{gone.getsockname()[1]}"
        for name, fake in fakes.items():
            fake.poison = set(known_as(name, sorted_events["bad"]))
            fake.script.replace(scripted(name), seed=7)
        google = fakes.get("google", GoogleFake())
        assert isinstance(google, GoogleFake)
        google.refused_later = dict.fromkeys([*known_as("google", sorted_events["good"])][::50], "INVALID_GCLID")
        environment = variables(
            fresh_topics,
            database,
            urls,
            FORWARD_EVENTS_PER_REQUEST=str(A_REQUEST),
            FORWARD_BATCH_SIZE=str(25 * A_REQUEST),
            FORWARD_TIMEOUT_SECONDS="1",
        )
        assert produce(fresh_topics, [*encoded[:50], *junk, *encoded[50:]]) == EVENTS + len(junk)
        armed = environment | {"ATTRIBUTION_CRASH_AT": "forwarder_after_send"}
        with Forwarders(NAMES, armed, tmp_path) as killed:
            for name, process in killed.processes.items():
                assert process.wait(240) == -signal.SIGKILL, killed.log(name).read_text()[-3_000:]
        assert {name for name in NAMES if fakes[name].received.by_key} == set(NAMES), "sent, and no answer written down"
        for name, fake in fakes.items():
            fake.script.replace(scripted(name), seed=8)
        with Forwarders((*NAMES, "meta"), environment, tmp_path) as forwarders:
            deadline = time.monotonic() + 1_500
            while any(settled_counts(database).get(name, 0) < EVENTS for name in NAMES):
                assert not forwarders.ended(), forwarders.ended()
                assert time.monotonic() < deadline, settled_counts(database)
                time.sleep(0.5)
            assert not forwarders.ended(), "the dead one waits as well"
            google.script.replace([])
            google.clock_offset += 3_600
            while any(verdict == "pending" for verdict, *_ in late_verdicts(database, "google")):
                assert not forwarders.ended(), forwarders.ended()
                assert time.monotonic() < deadline, late_verdicts(database, "google")
                ask_at_once(database)
                time.sleep(0.5)
        found = ledger_states(database)
        letters = {name: Counter(dead_letters(fresh_topics, name)) for name in NAMES}
    assert set(found.pop("meta", {"pending": set()})) <= {"pending", "skipped", "expired"}, (
        "the dead one has lost nothing"
    )
    by_id = dict(zip((event["event_id"] for event in mixed), encoded, strict=True))
    if "google" in NAMES:
        check_late_verdicts(late_verdicts(database, "google"), len(found["google"]["sent"]), len(google.refused_later))
    for name in NAMES:
        check_accounted_for(name, found[name], sorted_events, fakes[name])
        refused = found[name].get("rejected", set())
        assert letters[name] == Counter([*(by_id[event] for event in refused), *junk]), "each refused one once"
