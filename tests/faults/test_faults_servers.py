"""The broker and Postgres die, or drop connections, in the middle of the load."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.traffic import publish, traffic

if TYPE_CHECKING:
    from tests.faults.conftest import Ground
    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.fault, pytest.mark.slow]

STAGES = ("stitcher", "attributor", "auditor")


def under_load(pipeline: PipelineUnderTest, publisher: Publisher, seed: int) -> None:
    """Start the stages on a backlog and wait until they are in the middle of it."""
    pipeline.environment["ATTRIBUTION_BATCH_SIZE"] = "20"
    publish(publisher, traffic(1_500, 150, seed=seed))
    pipeline.start(*STAGES)
    pipeline.wait_for_assignments()
    pipeline.wait_for(lambda: pipeline.events() > 100, "the load does not begin")


def logged(pipeline: PipelineUnderTest, *texts: str) -> bool:
    logs = [path.read_text(errors="replace") for path in pipeline.folder.glob("*.log")]
    return any(text in log for text in texts for log in logs)


@pytest.mark.parametrize("how", ["hard", "clean"])
def test_the_broker_goes_away_and_comes_back(
    ground: Ground, broken: PipelineUnderTest, published: Publisher, how: str
) -> None:
    under_load(broken, published, 21)
    node = ground.kafka.nodes[0]
    before = node.child.pid
    node.kill() if how == "hard" else node.stop()
    assert not node.running
    time.sleep(2.0)
    ground.kafka.restart(node)
    assert node.child.pid != before
    publish(published, traffic(200, 20, seed=22))
    # Now and then the broker takes a minute or two to end what it had open, and shows no stable offsets until then.
    broken.check(published.acknowledged, settle_seconds=220.0)
    assert all(child.running for child in broken.stages.values())  # an outage is waited out, not died of


@pytest.mark.parametrize("how", ["crash", "fast shutdown"])
def test_postgres_goes_away_and_comes_back(
    ground: Ground, broken: PipelineUnderTest, published: Publisher, how: str
) -> None:
    under_load(broken, published, 23)
    before = ground.postgres.child.pid
    if how == "crash":
        ground.postgres.kill()
        time.sleep(1.5)
    ground.postgres.restart()
    assert ground.postgres.child.pid != before
    publish(published, traffic(200, 20, seed=24))
    broken.check(published.acknowledged)
    assert logged(broken, '"paused"')
    assert all(child.running for child in broken.stages.values())


def test_connections_are_killed_in_the_middle_of_everything(
    ground: Ground, broken: PipelineUnderTest, published: Publisher
) -> None:
    under_load(broken, published, 25)
    killed = 0
    with psycopg.connect(ground.postgres.dsn, autocommit=True) as connection:
        deadline = time.monotonic() + 60
        while killed < 12 and time.monotonic() < deadline:
            row = connection.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE application_name LIKE 'attributary-%' AND state = 'active' AND xact_start IS NOT NULL"
            ).fetchone()
            killed += row[0] if row else 0
            time.sleep(0.01 if not killed else 0.2)
    publish(published, traffic(200, 20, seed=26))
    broken.check(published.acknowledged)
    assert killed > 0
    assert logged(broken, '"paused"')


def test_a_rebalance_storm_under_both_protocols(broken: PipelineUnderTest, published: Publisher) -> None:
    for round_, protocol in enumerate(("classic", "consumer")):
        broken.environment["KAFKA_GROUP_PROTOCOL"] = protocol
        publish(published, traffic(700, 70, seed=27 + round_))
        broken.start(*STAGES)
        for number in range(3):
            joined = [broken.start(stage, instance="storm") for stage in ("stitcher", "attributor")]
            time.sleep(1.5)
            for name in ("stitcher-storm", "attributor-storm"):
                broken.stages.pop(name)
            for child in joined:
                child.kill() if number == 1 else child.terminate()
            for child in joined:
                child.wait(30.0)
        broken.check(published.acknowledged)
        assert logged(broken, '"assigned"')
        broken.stop()
