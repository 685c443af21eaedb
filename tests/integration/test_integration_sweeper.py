"""The sweeper asks again for what was lost, patiently, and makes final what can change no more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from attributary.schemas.topics import COMMANDS
from tests.factories.traffic import publish, traffic
from tests.observed_state import read_topics

if TYPE_CHECKING:
    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]


def commands(pipeline: PipelineUnderTest) -> int:
    return sum(1 for _ in read_topics(pipeline.bootstrap, [COMMANDS]))


def test_lost_commands_are_asked_for_again_but_not_in_a_flood(
    pipeline: PipelineUnderTest, publisher: Publisher
) -> None:
    publish(publisher, traffic(200, 20, seed=51))
    pipeline.start("stitcher")
    pipeline.wait_for(lambda: pipeline.query("SELECT count(*) FROM attribution_conversions") == 20, "not stitched")
    pipeline.stop()
    before = commands(pipeline)
    # All commands are lost: the attributor begins at the end of the topic, as after a torn transaction.
    pipeline.start("attributor", ATTRIBUTION_FIRST_START="latest")
    pipeline.wait_for(lambda: "assigned" in pipeline.stages["attributor"].log_tail(), "nothing assigned")
    pipeline.stop()
    # Nobody answers for six seconds: every version is asked for two or three times, not at each of the sixty sweeps.
    began = time.monotonic()
    patient = {"SWEEP_INTERVAL_SECONDS": "0.1", "SWEEP_REPAIR_AFTER_SECONDS": "2"}
    pipeline.start("sweeper", **patient)
    pipeline.wait_for(lambda: commands(pipeline) > before, "nothing is asked for again")
    time.sleep(6.0)
    asked = commands(pipeline) - before
    took = time.monotonic() - began  # a busy machine draws it out
    assert 20 <= asked <= (2 + took / 2) * 20
    pipeline.start("attributor", "auditor", "stitcher")
    assert pipeline.check(publisher.acknowledged, repeats_allowed=True).conversions == 20


def test_a_conversion_that_can_change_no_more_is_published_as_final(
    pipeline: PipelineUnderTest, publisher: Publisher
) -> None:
    policy = pipeline.folder / "policy.yaml"
    policy.write_text(
        "{name: default, lateness_days: 0.00003, inactivity_days: 0, windows: [{days: 30}, "
        "{interaction: impression, days: 1}, {interaction: view, days: 1}]}"
    )
    publish(publisher, traffic(100, 10, seed=52))
    pipeline.environment |= {"ATTRIBUTION_POLICY_FILE": str(policy), "SWEEP_GRACE_SECONDS": "2"}
    pipeline.start("stitcher", "attributor", "auditor", "sweeper")
    final = "SELECT count(*) FROM attribution_results WHERE is_final AND version_reason = 'final'"
    pipeline.wait_for(lambda: pipeline.query(final) == 10, "not final")
    closed = "SELECT count(*) FROM attribution_journeys WHERE closed_at IS NULL"
    pipeline.wait_for(lambda: pipeline.query(closed) == 0, "journeys stay open")
