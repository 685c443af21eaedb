"""Real stages erase people: nothing is left, nothing comes back, and no micro of revenue is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from attributary.consumers.runtime.crash_points import crash_points
from attributary.consumers.sweeper import erasure_queue
from attributary.local.stages import command_line
from attributary.schemas.topics import CONVERSIONS, ERASURE_REQUESTS, erasure_request_key
from tests.expected_results import codec
from tests.factories.traffic import publish, traffic
from tests.observed_state import check_run

if TYPE_CHECKING:
    from attributary.producers.simulator import Event
    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

STAGES = ("stitcher", "attributor", "auditor", "sweeper")
POINTS = crash_points("erasure")
REVENUE = """
SELECT sum(net)::int8 FROM (
    SELECT net_value_micros AS net FROM attribution_conversions
    UNION ALL SELECT net_micros FROM attribution_removed_totals) AS books
"""
OPEN = "SELECT count(*) FROM attribution_erasure_requests WHERE state <> 'completed'"


def test_the_points_are_those_of_the_queue() -> None:
    assert erasure_queue.REPEAT_SECONDS > 14 * 86_400
    assert len(POINTS) == 3


def people(events: list[Event], most: int) -> list[tuple[str, str]]:
    """Tenants and users who bought something."""
    named = [(e.record["tenant_id"], e.record["user_id"]) for e in events if e.topic == CONVERSIONS]
    return list(dict.fromkeys(each for each in named if each[1] is not None))[:most]


def request(publisher: Publisher, wanted: list[tuple[str, str]], mode: str = "delete") -> None:
    for number, (tenant, user) in enumerate(wanted):
        record = {
            "tenant_id": tenant, "request_id": f"{mode}-{number}", "kind": "user", "identifier": user, "mode": mode,
            "requested_at": time.time_ns() // 1_000,
        }  # fmt: skip
        key = erasure_request_key(tenant, f"{mode}-{number}")
        publisher.send_bytes(ERASURE_REQUESTS, codec().encode("erasure_request", record), key)
    publisher.flush()


def completed(pipeline: PipelineUnderTest, number: int) -> None:
    there = "SELECT count(*) FROM attribution_erasure_requests WHERE derived_from IS NULL"
    pipeline.wait_for(
        lambda: pipeline.query(there) >= number and pipeline.query(OPEN) == 0, "the requests are not completed"
    )


def command(pipeline: PipelineUnderTest, *line: str) -> tuple[int, Any]:
    ran = subprocess.run(
        command_line(*line), env=pipeline.variables(), capture_output=True, text=True,
        check=False, timeout=240,
    )  # fmt: skip
    return ran.returncode, json.loads(ran.stdout) if "--json" in line and ran.stdout else ran.stdout + ran.stderr


def test_erased_people_are_gone_and_stay_gone(pipeline: PipelineUnderTest, publisher: Publisher) -> None:
    events = traffic(300, 60, seed=7)
    publish(publisher, events)
    pipeline.environment["SWEEP_REPAIR_AFTER_SECONDS"] = "5"
    pipeline.start(*STAGES)
    pipeline.settle()
    before = pipeline.query(REVENUE)
    wanted = people(events, 8)
    assert len(wanted) == 8
    request(publisher, wanted)
    completed(pipeline, 8)
    assert pipeline.query(REVENUE) == before
    assert pipeline.query("SELECT sum(conversions) FROM attribution_removed_totals") >= 8
    assert pipeline.query("SELECT count(*) FROM attribution_audit WHERE action = 'erasure.executed'") >= 8
    pipeline.check(publisher.acknowledged, repeats_allowed=True)
    publish(publisher, events[:200])  # everything comes once more
    pipeline.check(publisher.acknowledged, repeats_allowed=True)
    assert pipeline.query(REVENUE) == before
    # No table holds one of the users, but for results that wait for their second tombstone.
    for tenant in {tenant for tenant, _ in wanted}:
        texts = [each for whose, user in wanted if whose == tenant for each in ("--text", user)]
        code, found = command(pipeline, "erase", "verify", "--tenant", tenant, "--no-topics", "--json", *texts)
        assert code == 0, found
        assert found["is_clean"], found
    pipeline.stop()
    # The stitcher reads the whole log again, as after a restored backup that knows the ledger.
    with psycopg.connect(pipeline.dsn) as connection:
        connection.execute("UPDATE attribution_positions SET next_offset = 0 WHERE consumer_group ~ 'stitcher'")
    pipeline.start(*STAGES)
    pipeline.check(publisher.acknowledged, repeats_allowed=True)
    assert pipeline.query(REVENUE) == before
    code, said = command(pipeline, "verify")
    assert code == 0, said


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_a_sweeper_that_dies_while_it_erases_is_followed_by_one_that_goes_on(
    pipeline: PipelineUnderTest, publisher: Publisher, point: str
) -> None:
    events = traffic(150, 30, seed=len(point))
    publish(publisher, events)
    pipeline.environment["SWEEP_REPAIR_AFTER_SECONDS"] = "1"
    pipeline.start("stitcher", "attributor", "auditor")
    pipeline.settle()
    before = pipeline.query(REVENUE)
    request(publisher, people(events, 5))
    pipeline.start("sweeper", ATTRIBUTION_CRASH_AT=f"{point}:{2 if 'commit' in point else 1}")
    code, log = pipeline.ended("sweeper")
    assert code == -signal.SIGKILL, log
    assert log.splitlines()[-1] == f"crash_at: {point}"
    pipeline.start("sweeper")
    completed(pipeline, 5)
    pipeline.settle()
    assert pipeline.query(REVENUE) == before
    check_run(pipeline.bootstrap, pipeline.dsn, acknowledged=publisher.acknowledged, repeats_allowed=True)
