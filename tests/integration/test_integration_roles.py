"""The whole pipeline with each stage logged in as its own role: every statement that it sends is one that it may."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.factories.traffic import publish, traffic
from tests.fixtures.role_logins import stage_logins

if TYPE_CHECKING:
    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

STAGES = ("stitcher", "attributor", "auditor", "sweeper", "trainer")


def test_each_stage_does_all_its_work_as_its_own_role(pipeline: PipelineUnderTest, publisher: Publisher) -> None:
    events = traffic(2_000, 150, seed=71)
    with stage_logins(pipeline.dsn) as pipeline.logins:
        pipeline.environment |= {"ATTRIBUTION_MAX_REOPENED": "1", "TRAINER_UPKEEP_SECONDS": "1"}
        publish(publisher, events[:1_000])
        pipeline.start(*STAGES)
        publish(publisher, events[1_000:])
        findings = pipeline.check(publisher.acknowledged)
        assert findings.events == len(events)
        users = pipeline.query("SELECT count(DISTINCT usename) FROM pg_stat_activity WHERE application_name LIKE "
                               "'attributary-%%' AND usename <> current_user")  # fmt: skip
        assert users == len(STAGES)
        assert pipeline.stop() == dict.fromkeys(STAGES, 0)
