"""kill -9 at every named point of every stage. The exit code and the last line prove that it was there."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from attributary.consumers.runtime.crash import POINTS
from tests.traffic import publish, traffic

if TYPE_CHECKING:
    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.fault, pytest.mark.slow]

LOOP = ("loop_before_transaction", "loop_before_send_offsets", "loop_before_kafka_commit", "loop_after_kafka_commit")
# One round a line: where the stitcher dies, where the attributor, where the auditor.
ROUNDS = (
    ("stitcher_after_consume", "attributor_after_consume", "auditor_before_pg_commit"),
    ("stitcher_in_store", "attributor_after_read", "auditor_after_pg_commit"),
    ("stitcher_before_pg_commit", *LOOP[:1] * 2),
    ("stitcher_after_pg_commit", *LOOP[1:2] * 2),
    *((point, point, point) for point in LOOP[2:]),
    (LOOP[0], "attributor_after_read", "auditor_after_consume"),
    (LOOP[1], LOOP[3], "auditor_after_pg_commit"),
)
STAGES = ("stitcher", "attributor", "auditor")


def test_every_point_of_these_stages_has_its_turn() -> None:
    tried = {point for points in ROUNDS for point in points}
    assert {point for point in POINTS if point.split("_")[0] in {*STAGES, "loop"}} <= tried


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
        broken.start(stage)
    broken.check(published.acknowledged)
