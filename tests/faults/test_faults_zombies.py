"""Processes that sleep through their own funeral, and clocks that are a day off."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psycopg
import pytest
from confluent_kafka.admin import AdminClient

from tests.factories.traffic import publish, traffic
from tests.faults.fault_assertions import fired
from tests.fixtures.pipeline import WAITS_FOR_A_LOCK

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.fault, pytest.mark.slow]


def members(bootstrap: str, group: str) -> int:
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    return len(admin.describe_consumer_groups([group])[group].result(120).members)


@pytest.mark.parametrize("stage", ["attributor", "auditor"])
def test_a_zombie_wakes_up_after_its_partitions_were_given_away(
    broken: PipelineUnderTest, published: Publisher, stage: str
) -> None:
    broken.environment["ATTRIBUTION_BATCH_SIZE"] = "10"
    publish(published, traffic(1_000, 150, seed=41))
    broken.start("stitcher", "attributor", "auditor")
    table = {"attributor": "attribution_conversions", "auditor": "attribution_results"}[stage]
    broken.wait_for(lambda: broken.query(f"SELECT count(*) FROM {table}"), "the load does not begin")
    zombie = broken.stages.pop(stage)
    zombie.suspend()
    broken.start(stage, instance="heir")
    group = f"attribution.{stage}"
    broken.wait_for(lambda: members(broken.bootstrap, group) == 1, "the zombie is still a member")
    publish(published, traffic(200, 30, seed=42))
    broken.settle()
    zombie.resume()
    broken.stages["zombie"] = zombie
    broken.wait_for(lambda: members(broken.bootstrap, group) == 2, "the zombie does not come back")
    fired(f"zombie {stage}: stopped past its session, woken after its partitions were given away")
    publish(published, traffic(200, 30, seed=43))
    broken.check(published.acknowledged)


def test_a_zombie_that_holds_locks_in_postgres(broken: PipelineUnderTest, published: Publisher) -> None:
    publish(published, traffic(500, 60, seed=44))
    with psycopg.connect(broken.dsn) as holder:
        holder.execute("LOCK TABLE attribution_conversion_events IN SHARE ROW EXCLUSIVE MODE")
        zombie = broken.start("stitcher")
        broken.wait_for(lambda: broken.query(WAITS_FOR_A_LOCK, "stitcher"), "the stitcher is not in its batch")
        zombie.suspend()
    broken.stages.pop("stitcher")
    held = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'attributary-stitcher' AND state LIKE %s"
    broken.wait_for(lambda: broken.query(held, "idle in transaction%"), "the zombie holds no transaction")
    broken.start("stitcher", instance="heir")
    broken.start("attributor", "auditor")
    broken.settle()  # only after Postgres let go of the sleeper's locks
    zombie.resume()
    broken.stages["zombie"] = zombie
    publish(published, traffic(200, 30, seed=45))
    broken.check(published.acknowledged)
    assert zombie.running
    fired("zombie stitcher that held locks in Postgres")


_SKEW = """
import os, time
_skew = int(os.environ["TEST_CLOCK_SKEW_SECONDS"])
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + _skew
time.time_ns = lambda: _time_ns() + _skew * 1_000_000_000
"""


def test_the_clocks_of_processes_and_devices_are_a_day_off(
    broken: PipelineUnderTest, published: Publisher, tmp_path: Path
) -> None:
    day = 86_400
    (tmp_path / "sitecustomize.py").write_text(_SKEW)
    skewed = {"PYTHONPATH": str(tmp_path)}
    broken.start("stitcher", TEST_CLOCK_SKEW_SECONDS=str(-day), **skewed)
    broken.start("attributor", TEST_CLOCK_SKEW_SECONDS=str(day), **skewed)
    broken.start("auditor", "sweeper", TEST_CLOCK_SKEW_SECONDS=str(day), **skewed)
    for number, event in enumerate(traffic(600, 60, seed=46)):
        field = "linked_at" if "linked_at" in event.record else "occurred_at"
        shift = (-day, 0, day // 2)[number % 3] * 1_000_000
        published.send(event.topic, event.record | {field: event.record[field] + shift})
    published.flush()
    broken.check(published.acknowledged)
    newest = broken.query("SELECT max(computed_at_us) FROM attribution_results")
    assert newest > (time.time() + day / 2) * 1e6  # the skew was there
    fired("clocks of processes and devices a day off")
