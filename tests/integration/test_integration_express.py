"""A quiet tenant goes on while another one's flood waits, and nothing is lost, doubled or different in the end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from attributary.consumers.stitcher.tenant_rate import BURST_SECONDS
from attributary.schemas.topics import CONVERSIONS, TOUCHPOINTS
from tests.factories.samples import sale, touch

if TYPE_CHECKING:
    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]

FLOOD, QUIET = 4_000, 20
RATE = 1.0  # records a second, of a tenant in a partition
STORED = "SELECT count(*) FROM attribution_touchpoints WHERE tenant_id = %s"
OBSERVED = "SELECT count(*) FROM attribution_conversions WHERE tenant_id = %s AND observed_version > 0"


def test_a_quiet_tenant_gets_its_results_while_a_flood_waits(pipeline: PipelineUnderTest, publisher: Publisher) -> None:
    """The stitcher stands still before the flood, as if it took for ever: nobody but the flooding tenant waits."""
    pipeline.start("stitcher", "attributor", "auditor", "sweeper")
    for number in range(40):  # of each partition a first record, so that the stitcher has a place in it
        publisher.send(TOUCHPOINTS, touch(f"first-{number}", 0, who=f"a:first-{number}").to_record())
        publisher.send(CONVERSIONS, sale(f"first-{number}", 1, who=f"a:first-{number}").to_record())
    publisher.flush()
    pipeline.settle()
    pipeline.kill("stitcher")
    began = time.monotonic()
    for number in range(FLOOD):
        publisher.send(TOUCHPOINTS, touch(f"f{number}", 1, who=f"a:f{number % 300}", tenant_id="flooding").to_record())
    for number in range(QUIET):
        publisher.send(TOUCHPOINTS, touch(f"q{number}", 1, who=f"a:q{number}", tenant_id="quiet").to_record())
        publisher.send(CONVERSIONS, sale(f"q{number}", 2, who=f"a:q{number}", tenant_id="quiet").to_record())
    publisher.flush()
    took = time.monotonic() - began
    pipeline.start("express", EXPRESS_RATE=str(RATE), EXPRESS_AFTER_SECONDS="0.2")
    pipeline.wait_for(
        lambda: pipeline.query(OBSERVED, "quiet") == QUIET and pipeline.query(STORED, "quiet") == QUIET,
        "the quiet tenant waits behind the flood",
    )
    stored = pipeline.query(STORED, "flooding")
    partitions = len({place[:2] for place in publisher.acknowledged if place[0] == TOUCHPOINTS})
    assert stored <= partitions * RATE * (BURST_SECONDS + took + 1)  # the rate is that of log time
    assert stored < FLOOD
    pipeline.start("stitcher")
    pipeline.settle()
    assert pipeline.query(STORED, "flooding") == FLOOD
    pipeline.check(publisher.acknowledged)
    assert set(pipeline.stop().values()) == {0}
