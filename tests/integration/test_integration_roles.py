"""The whole pipeline with each stage logged in as its own role: every statement that it sends is one that it may."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.factories.traffic import publish, traffic
from tests.fixtures.role_logins import stage_logins

if TYPE_CHECKING:
    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

STAGES = ("stitcher", "attributor", "auditor", "reporter", "spender", "sweeper", "trainer")

# Newest results that are not in the roll-up.
ROLLED_UP = """
SELECT count(*) FROM (SELECT tenant_id, conversion_id, max(version) AS version FROM attribution_results GROUP BY 1, 2) r
LEFT JOIN attribution_rollup_conversions c
  ON c.tenant_id = r.tenant_id AND c.conversion_md5 = md5(r.conversion_id)::uuid
WHERE c.version IS DISTINCT FROM r.version
"""


def test_each_stage_does_all_its_work_as_its_own_role(pipeline: PipelineUnderTest, publisher: Publisher) -> None:
    events = traffic(2_000, 150, seed=71)
    with stage_logins(pipeline.dsn) as pipeline.logins:
        pipeline.environment |= {"ATTRIBUTION_MAX_REOPENED": "1", "TRAINER_UPKEEP_SECONDS": "1"}
        publish(publisher, events[:1_000])
        pipeline.start(*STAGES)
        publish(publisher, events[1_000:])
        findings = pipeline.check(publisher.acknowledged)
        assert findings.events == len(events)
        users = (
            "SELECT count(DISTINCT usename) FROM pg_stat_activity WHERE application_name LIKE 'attributary-%%' "
            "AND usename <> current_user"
        )
        pipeline.wait_for(lambda: pipeline.query(users) == len(STAGES), "a stage is not logged in as its role")
        pipeline.wait_for(lambda: pipeline.query(ROLLED_UP) == 0, "the reporter has not read all results")
        assert pipeline.stop() == dict.fromkeys(STAGES, 0)
