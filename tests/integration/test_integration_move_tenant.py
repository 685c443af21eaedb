"""A tenant moves from one installation to another, under traffic and with the command killed at three of its steps."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from attributary.local.fakes import MetaFake
from attributary.local.fakes.server import FakeServer
from attributary.local.stages import command_line
from attributary.schemas.topics import CONVERSIONS, ERASURE_REQUESTS, RESULTS, erasure_request_key
from tests.expected_results import codec
from tests.factories.traffic import publish, traffic
from tests.fixtures.pipeline import ERASURE_KEY, UNOBSERVED, wait_until
from tests.fixtures.second_installation import NORTH, run
from tests.observed_state import read_dead_letters, read_topics

if TYPE_CHECKING:
    from pathlib import Path

    from attributary.producers.simulator import Event
    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

STAGES = ("stitcher", "attributor", "auditor", "reporter")
MOVES, STAYS = "acme", "globex"
EVENTS = """
SELECT array_agg(event_id ORDER BY event_id) FROM (
    SELECT event_id FROM attribution_touchpoints WHERE tenant_id = %s
    UNION ALL SELECT event_id FROM attribution_conversion_events WHERE tenant_id = %s
    UNION ALL SELECT event_id FROM attribution_identity_links WHERE tenant_id = %s) AS e
"""
VERSIONS = """
SELECT COALESCE(jsonb_object_agg(conversion_id, version), '{}') FROM attribution_conversions WHERE tenant_id = %s
"""
SENT = "SELECT count(*) FROM attribution_deliveries WHERE tenant_id = %s AND state = 'sent'"


def of_tenant(tenant: str, seed: int) -> list[Event]:
    """Traffic of one tenant with a name; no event comes twice, and no conversion is too old to be forwarded."""
    found, recent = {}, int((time.time() - 5 * 86_400) * 1e6)
    for event in traffic(120, 30, seed=seed, tenants=1):
        record = {**event.record, "tenant_id": tenant}
        if event.topic == CONVERSIONS:
            record["occurred_at"] = max(record["occurred_at"], recent)
        found[record["event_id"]] = event._replace(record=record)
    return list(found.values())


def move(pipeline: PipelineUnderTest, to: Path, *options: str, crash: str = "") -> tuple[int, str]:
    """Run the command; returns its exit code and what it printed."""
    done = subprocess.run(
        command_line("cell", "move-tenant", MOVES, "--to", str(to), *options),
        env=pipeline.variables(ATTRIBUTION_CRASH_AT=crash), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert not crash or f"crash_at: {crash}" in done.stderr, (done.stdout, done.stderr)
    return done.returncode, done.stdout + done.stderr


def moved(pipeline: PipelineUnderTest, to: Path, *options: str) -> dict[str, Any]:
    code, said = move(pipeline, to, *options, "--json")
    assert code == 0, said
    found: dict[str, Any] = json.loads(said)
    return found


def erase(pipeline: PipelineUnderTest, publisher: Publisher, user: str) -> None:
    record = {
        "tenant_id": MOVES, "request_id": "r-1", "kind": "user", "identifier": user, "mode": "delete",
        "requested_at": time.time_ns() // 1_000,
    }  # fmt: skip
    key = erasure_request_key(MOVES, "r-1")
    publisher.send_bytes(ERASURE_REQUESTS, codec().encode("erasure_request", record), key)
    publisher.flush()
    done = "SELECT count(*) FROM attribution_erasure_requests WHERE request_id = 'r-1' AND executed_at IS NOT NULL"
    pipeline.wait_for(lambda: pipeline.query(done) == 1, "the request is not executed")
    pipeline.wait_for(lambda: pipeline.query(UNOBSERVED) == 0, "results are missing")


def newest(bootstrap: str, topic: str) -> dict[bytes, tuple[int, bool]]:
    """Of the last record of each of the tenant's conversions: the version, and whether it holds a result."""
    found = {}
    for message in read_topics(bootstrap, [topic]):
        if (message.key() or b"").startswith(f"{MOVES}|".encode()):
            version = codec().decode("result", message.value())["version"] if message.value() else 0
            found[message.key() or b""] = (version, message.value() is not None)
    return found


def test_a_tenant_moves_under_traffic_and_nothing_is_lost_or_counted_twice(  # noqa: PLR0915  # one story, in its order
    pipeline: PipelineUnderTest, north: PipelineUnderTest, publisher: Publisher, tmp_path: Path
) -> None:
    events, others = of_tenant(MOVES, 51), of_tenant(STAYS, 52)
    first, held, late, after = (events[number::4] for number in range(4))
    erased = next(e.record["user_id"] for e in first if e.topic == CONVERSIONS and e.record["user_id"])
    of_erased = [e for e in events if erased == e.record.get("user_id")]
    to = tmp_path / "north.env"
    to.write_text(
        f"# the other installation\nexport DATABASE_URL='{north.dsn}'\nKAFKA_BOOTSTRAP_SERVERS={north.bootstrap}\n"
        f'ATTRIBUTION_PREFIX={NORTH}\nexport ATTRIBUTION_ERASURE_KEY="{ERASURE_KEY}"\n'
    )
    fake = MetaFake(tokens=["good"])
    with FakeServer(fake) as server:
        meta = {
            "META_BASE_URL": server.url, "META_PIXEL_ID": "42", "META_ACCESS_TOKEN": "good",
            "FORWARD_CONSENT_UNKNOWN": "send", "FORWARD_LINGER_MS": "100",
        }  # fmt: skip
        for installation in (pipeline, north):
            installation.environment |= meta
        forward = ("forwarder", "--destination", "meta")
        publish(publisher, [*first, *others])
        pipeline.start(*STAGES, "sweeper")
        north.start(*STAGES)
        sender = subprocess.Popen(command_line(*forward), env=pipeline.variables(), stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)  # fmt: skip
        try:
            pipeline.settle()
            erase(pipeline, publisher, erased)
            wait_until(lambda: pipeline.query(SENT, MOVES) and pipeline.query(SENT, STAYS), "nothing was forwarded", 60)
            code, said = move(pipeline, to)
            assert code == 1, said
            assert "stop the forwarders of this installation" in said
        finally:
            sender.terminate()
            assert sender.wait(120) == 0
        versions, sent = pipeline.query(VERSIONS, MOVES), pipeline.query(SENT, MOVES)
        assert moved(pipeline, to, "--dry-run")["state"] is None
        assert pipeline.query("SELECT count(*) FROM attribution_tenant_moves") == 0

        # Killed when rows are set aside, results are sent, rows are loaded, and after a batch of the relay.
        assert move(pipeline, to, crash="cell_after_hold")[0] == -9
        publish(publisher, held)
        assert move(pipeline, to, crash="cell_before_load")[0] == -9
        assert move(pipeline, to, crash="cell_after_load")[0] == -9
        assert north.query(VERSIONS, MOVES) == versions
        publish(publisher, late)
        assert move(pipeline, to, crash="cell_after_relay")[0] == -9
        assert moved(pipeline, to)["state"] == "relaying"
        assert pipeline.query(EVENTS, MOVES, MOVES, MOVES) is None

        senders = [
            subprocess.Popen(command_line(*forward), env=each.variables(), stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
            for each in (pipeline, north)
        ]  # fmt: skip
        try:
            publish(publisher, [*after, *of_erased])
            finished = moved(pipeline, to, "--finish", "--take-back-results")
            assert finished["state"] == "moved"
            publish(publisher, late[:3])  # somebody still writes to the old topics
            wanted = sorted({e.record["event_id"] for e in events} - {e.record["event_id"] for e in of_erased})
            stored = "SELECT count(*) FROM attribution_deliveries WHERE tenant_id = %s AND state <> 'pending'"
            number = len({e.record["event_id"] for e in events if e.topic == CONVERSIONS})
            north.wait_for(lambda: set(wanted) <= set(north.query(EVENTS, MOVES, MOVES, MOVES)), "events are missing")
            north.wait_for(lambda: north.query(UNOBSERVED) == 0, "results are missing")
            north.wait_for(lambda: north.query(stored, MOVES) >= number, "conversions were not forwarded")
            pipeline.settle()
            wait_until(lambda: len(read_dead_letters(pipeline.bootstrap)) == 3, "letters are missing")
        finally:
            for each in senders:
                each.terminate()
            assert [each.wait(120) for each in senders] == [0, 0]

    # Each conversion was sent once, by either installation.
    assert fake.duplicates == 0
    assert north.query(SENT, MOVES) > sent
    # Who was erased stays erased, also of what was published again.
    key = "SELECT count(*) FROM attribution_touchpoints WHERE tenant_id = %s AND identity_key = %s"
    assert north.query(key, MOVES, f"u:{erased}") == 0
    assert north.query(EVENTS, MOVES, MOVES, MOVES) == wanted
    # No version came twice or fell, and the other topic of results has each newest one; ours takes them back.
    now = north.query(VERSIONS, MOVES)
    assert versions
    assert all(now[each] >= version for each, version in versions.items())
    sent_results = [m for m in read_topics(north.bootstrap, [f"{NORTH}{RESULTS}"]) if m.value()]
    seen = [(m.key(), codec().decode("result", m.value())["version"]) for m in sent_results]
    assert len(set(seen)) == len(seen)
    there = {name.decode().partition("|")[2]: at for name, at in newest(north.bootstrap, f"{NORTH}{RESULTS}").items()}
    assert {name: at for name, (at, is_there) in there.items() if is_there} == now
    assert not any(is_there for _, is_there in newest(pipeline.bootstrap, RESULTS).values())
    letter = read_dead_letters(pipeline.bootstrap)[0]
    assert "must be published to the installation with the prefix north.: this tenant has moved" in letter.reason
    # Nothing of the tenant is left, and nothing of the other one changed.
    assert pipeline.query("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'attribution_moving%%'") == 0
    assert pipeline.query(EVENTS, MOVES, MOVES, MOVES) is None
    assert pipeline.query("SELECT count(*) FROM attribution_results WHERE tenant_id = %s", MOVES) == 0
    assert pipeline.query(EVENTS, STAYS, STAYS, STAYS) == sorted({e.record["event_id"] for e in others})
    assert north.query("SELECT count(*) FROM attribution_rollup_days WHERE tenant_id = %s", MOVES) > 0
    for installation in (pipeline, north):
        found = json.loads(run(installation, "verify", "--json"))
        assert found["differences"] == 0, found["shown"]
        assert found["conversions"] > 0
