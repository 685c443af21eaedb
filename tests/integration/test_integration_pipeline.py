"""Simulated traffic through real Kafka and real Postgres, all processes real; every test ends with all promises."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.factories.traffic import publish, traffic
from tests.fixtures.pipeline import wait_until

if TYPE_CHECKING:
    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

ALL = ("stitcher", "attributor", "auditor", "sweeper")


def test_everything_published_is_attributed_once_and_rightly(pipeline: PipelineUnderTest, publisher: Publisher) -> None:
    events = traffic(4_000, 300)
    publish(publisher, events[:2_000])
    pipeline.start(*ALL)
    pipeline.settle()
    publish(publisher, events[2_000:])
    findings = pipeline.check(publisher.acknowledged)
    assert findings.events == len(events)
    assert findings.conversions == 300
    assert findings.results > 300  # late events raised versions
    assert pipeline.stop() == dict.fromkeys(ALL, 0)


@pytest.mark.parametrize("victim", ["stitcher", "attributor", "auditor"])
def test_a_stage_killed_in_the_middle_of_the_load_changes_nothing(
    pipeline: PipelineUnderTest, publisher: Publisher, victim: str
) -> None:
    events = traffic(3_000, 300, seed=2)
    pipeline.environment["ATTRIBUTION_BATCH_SIZE"] = "200"
    pipeline.start("stitcher", "attributor", "auditor")
    publish(publisher, events[:1_500])
    pipeline.wait_for(lambda: pipeline.events() > 300, "the pipeline does not start")
    assert pipeline.kill(victim) == -signal.SIGKILL
    publish(publisher, events[1_500:])
    pipeline.start(victim)
    pipeline.check(publisher.acknowledged)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_two_processes_of_each_stage_share_the_work_under_both_group_protocols(
    pipeline: PipelineUnderTest, publisher: Publisher, protocol: str
) -> None:
    events = traffic(3_000, 250, seed=3)
    pipeline.environment["KAFKA_GROUP_PROTOCOL"] = protocol
    pipeline.environment["ATTRIBUTION_BATCH_SIZE"] = "100"
    pipeline.start("stitcher", "attributor", "auditor")
    publish(publisher, events[:1_000])
    pipeline.start("stitcher", "attributor", instance="1")
    publish(publisher, events[1_000:])
    pipeline.check(publisher.acknowledged)
    wait_until(lambda: "assigned" in pipeline.stages["stitcher-1"].log_tail(), "the second stitcher got nothing to do")
    assert set(pipeline.stop().values()) == {0}
