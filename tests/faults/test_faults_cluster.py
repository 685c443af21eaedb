"""Three brokers, each lost once: leaders of partitions, coordinators of groups and of transactions among them."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.factories.traffic import publish, traffic
from tests.faults.fault_assertions import fired
from tests.fixtures.pipeline import PipelineUnderTest, Publisher
from tests.fixtures.topics import recreate_topics

if TYPE_CHECKING:
    from pathlib import Path

    from attributary.local.kafka_jars import KafkaCluster

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.fault, pytest.mark.slow]


@pytest.mark.timeout(1_500)
def test_each_broker_of_three_is_lost_once(three_brokers: KafkaCluster, database: str, tmp_path: Path) -> None:
    bootstrap = recreate_topics(three_brokers.bootstrap, replicas=3)
    pipeline = PipelineUnderTest(bootstrap, database, tmp_path, {"ATTRIBUTION_BATCH_SIZE": "50"})
    publisher = Publisher(bootstrap)
    try:
        pipeline.start("stitcher", "attributor", "auditor")
        for number, node in enumerate(three_brokers.nodes):
            publish(publisher, traffic(300, 40, seed=71 + number))
            pipeline.wait_for(lambda number=number: pipeline.events() > 250 * number, "nothing moves")  # type: ignore[misc]
            before = node.child.pid
            node.kill()
            assert node.child.returncode == -signal.SIGKILL
            fired("one broker of three killed")
            publish(publisher, traffic(300, 40, seed=81 + number))  # two replicas of three are enough
            time.sleep(4.0)
            three_brokers.restart(node)
            assert node.child.pid != before
        pipeline.check(publisher.acknowledged, settle_seconds=300.0)
        assert all(child.running for child in pipeline.stages.values())
    finally:
        pipeline.stop()
