"""A sweeper that is killed within a page of retention, or right after it: the next one goes on, no micro is lost."""

from __future__ import annotations

import signal
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from attributary.consumers.runtime.crash_points import crash_points
from attributary.consumers.store.tenants import Tenant, store_tenant
from attributary.consumers.sweeper import tenant_retention
from tests.factories.samples import START, link, sale, touch
from tests.pipeline_harness import InProcess

if TYPE_CHECKING:
    from tests.fixtures.pipeline import PipelineUnderTest

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.fault]

DAY = 24
KEPT = 217
REVENUE = """
SELECT currency, sum(net)::int8 FROM (
    SELECT currency, net_value_micros AS net FROM attribution_conversions WHERE version > 0
    UNION ALL SELECT currency, net_micros FROM attribution_removed_totals) AS books GROUP BY 1 ORDER BY 1
"""
CREDITS = """
SELECT currency, sum(value_micros)::int8 FROM attribution_retired_credits WHERE model = 'linear' GROUP BY 1 ORDER BY 1
"""
COUNTS = """
SELECT (SELECT count(*) FROM attribution_conversions), (SELECT count(*) FROM attribution_conversion_events),
       (SELECT count(*) FROM attribution_touchpoints), (SELECT count(*) FROM attribution_results)
"""
DONE = "SELECT step = 'done' FROM attribution_retention"


def rows(pipeline: PipelineUnderTest, question: str) -> list[Any]:
    with psycopg.connect(pipeline.dsn) as connection:
        return connection.execute(question.encode()).fetchall()


def test_the_points_are_those_of_a_page() -> None:
    assert tenant_retention.__name__.endswith("tenant_retention")
    assert set(crash_points("retention")) == {"retention_in_page", "retention_after_page"}


@pytest.mark.parametrize(("point", "left"), [("retention_in_page", 20), ("retention_after_page", 10)])
def test_a_sweeper_killed_in_a_page_is_followed_by_one_that_goes_on(
    pipeline: PipelineUnderTest, point: str, left: int
) -> None:
    ago = (datetime.now(UTC) - START).days * DAY  # hours from the samples' start to now
    events: list[Any] = []
    for number in range(20):
        hours = ago - (500 if number % 2 else 5) * DAY
        who, currency = f"u:user{number}", ("EUR", "USD")[number % 3 == 0]
        events += [
            touch(f"t{number}", hours, who=who),
            sale(f"o{number}", hours + 1, who=who, value=1_010_000 * (number + 1), currency=currency),
        ]  # fmt: skip
    events.append(link("l1", "d1", "user1", ago - 500 * DAY))
    with InProcess(pipeline.dsn) as stages:
        stages.publish(*events)
    with psycopg.connect(pipeline.dsn) as connection:
        connection.execute("UPDATE attribution_conversions SET is_final = true")
        tenant = Tenant("acme", conversions_kept_days=KEPT, touchpoints_kept_days=KEPT, links_kept_days=KEPT)
        store_tenant(connection, tenant)
    before = rows(pipeline, REVENUE)
    pipeline.start("sweeper", ATTRIBUTION_CRASH_AT=f"{point}:1")
    code, log = pipeline.ended("sweeper")
    assert code == -signal.SIGKILL, log
    assert log.splitlines()[-1] == f"crash_at: {point}"
    assert rows(pipeline, COUNTS) == [(left, left, 20, left)]  # the whole page, or nothing of it
    assert rows(pipeline, REVENUE) == before
    pipeline.start("sweeper")
    pipeline.wait_for(lambda: pipeline.query(DONE), "retention does not come to its end")
    assert rows(pipeline, COUNTS) == [(10, 10, 10, 10)]
    assert rows(pipeline, REVENUE) == before
    assert rows(
        pipeline, "SELECT conversions_retired, touchpoints_removed, links_removed FROM attribution_retention"
    ) == [(10, 10, 1)]
    retired = rows(pipeline, "SELECT currency, net_micros FROM attribution_removed_totals ORDER BY 1")
    assert sum(net for _, net in rows(pipeline, CREDITS)) == sum(net for _, net in retired)
