"""kill -9 of the reporter at each of its points, on a real broker: the roll-up is the sum of the newest results."""

from __future__ import annotations

import importlib
import signal
from typing import TYPE_CHECKING

import psycopg
import pytest

from attributary.consumers.auditor.stage import GROUP as AUDITOR
from attributary.consumers.reporter.stage import GROUP
from attributary.consumers.runtime.crash_points import crash_points
from attributary.consumers.store.rollup.differences import rollup_differences
from tests.factories.rolled_results import DAYS_BY_MODEL
from tests.factories.traffic import publish, traffic
from tests.integration.test_integration_roles import ROLLED_UP

if TYPE_CHECKING:
    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

importlib.import_module("attributary.consumers.reporter.process")  # registers the points that it passes
BEHIND = """
SELECT count(*) FROM attribution_positions a LEFT JOIN attribution_positions p
  ON p.consumer_group = %s AND p.topic = a.topic AND p.partition = a.partition
WHERE a.consumer_group = %s AND COALESCE(p.next_offset, 0) < a.next_offset
"""


@pytest.mark.parametrize("point", crash_points("reporter"))
def test_a_reporter_that_dies_there_counts_nothing_twice_and_nothing_never(
    pipeline: PipelineUnderTest, publisher: Publisher, point: str
) -> None:
    events = traffic(600, 80, seed=len(point))
    publish(publisher, events[:300])
    pipeline.start("stitcher", "attributor", "auditor")
    pipeline.start("reporter", ATTRIBUTION_CRASH_AT=point)
    publish(publisher, events[300:])
    code, log = pipeline.ended("reporter")
    assert code == -signal.SIGKILL, log
    assert log.splitlines()[-1] == f"crash_at: {point}"
    pipeline.start("reporter")
    pipeline.wait_for_assignments()
    pipeline.check(publisher.acknowledged)
    pipeline.wait_for(lambda: pipeline.query(BEHIND, GROUP, AUDITOR) == 0, "the reporter is behind the auditor")
    pipeline.wait_for(lambda: pipeline.query(ROLLED_UP) == 0, "a newest result is not in the roll-up")
    with psycopg.connect(pipeline.dsn) as connection:
        assert list(rollup_differences(connection, (GROUP, AUDITOR))) == []
        whole = connection.execute("SELECT count(*) FROM attribution_conversions WHERE version > 0").fetchone()
        per_model = connection.execute(
            f"SELECT DISTINCT sum(credit)::int8 FROM {DAYS_BY_MODEL} GROUP BY dating, model".encode()
        ).fetchall()
        assert whole is not None
        assert per_model == [(whole[0] * 1_000_000_000,)]
    assert pipeline.stop() == dict.fromkeys(("stitcher", "attributor", "auditor", "reporter"), 0)
