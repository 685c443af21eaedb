"""kill -9 at every named point of every stage. The exit code and the last line prove that it was there."""

from __future__ import annotations

import importlib
import signal
from typing import TYPE_CHECKING

import psycopg
import pytest

from attributary.consumers.runtime.crash_points import crash_points
from tests.factories.traffic import publish, traffic
from tests.faults.fault_assertions import fired

if TYPE_CHECKING:
    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.fault, pytest.mark.slow]

STAGES = ("stitcher", "attributor", "auditor")
for _name in (*STAGES, "sweeper"):
    importlib.import_module(f"attributary.consumers.{_name}.process")  # registers the points that it passes
# One entry a round: where each of the stages dies. A point that is added to the list has its turn by itself.
_POINTS = {stage: crash_points(stage, "loop") for stage in STAGES}
ROUNDS = tuple(
    tuple(points[number % len(points)] for points in _POINTS.values())
    for number in range(max(len(points) for points in _POINTS.values()))
)
OVERDUE = "UPDATE attribution_conversions SET version = version + 1, version_reason = 'repair', versioned_at = now()"


@pytest.mark.parametrize("points", ROUNDS, ids="-".join)
def test_dying_there_changes_nothing(broken: PipelineUnderTest, published: Publisher, points: tuple[str, ...]) -> None:
    events = traffic(700, 90, seed=sum(map(len, points)))
    publish(published, events[:400])
    for stage, point in zip(STAGES, points, strict=True):
        broken.start(stage, ATTRIBUTION_CRASH_AT=f"{point}:2")
    publish(published, events[400:])
    for stage, point in zip(STAGES, points, strict=True):
        code, log = broken.ended(stage)
        assert code == -signal.SIGKILL, log
        assert log.splitlines()[-1] == f"crash_at: {point}"
        fired(f"kill -9 of the {stage} at {point}")
        broken.start(stage)
    broken.check(published.acknowledged)


@pytest.mark.parametrize("point", crash_points("sweeper"))
def test_a_sweeper_that_dies_there_is_followed_by_one_that_asks(
    broken: PipelineUnderTest, published: Publisher, point: str
) -> None:
    publish(published, traffic(200, 40, seed=len(point)))
    broken.start(*STAGES)
    broken.settle()
    with psycopg.connect(broken.dsn) as connection:  # as if the commands of these versions had been lost
        assert connection.execute(OVERDUE).rowcount >= 40
    broken.environment["SWEEP_REPAIR_AFTER_SECONDS"] = "1"
    broken.start("sweeper", ATTRIBUTION_CRASH_AT=f"{point}:3")
    code, log = broken.ended("sweeper")
    assert code == -signal.SIGKILL, log
    assert log.splitlines()[-1] == f"crash_at: {point}"
    fired(f"kill -9 of the sweeper at {point}")
    broken.start("sweeper")
    broken.check(published.acknowledged)
