"""Twenty thousand ways in which things can go wrong, and all promises after each of them.

ATTRIBUTION_SCHEDULES=n explores n schedules, ATTRIBUTION_SCHEDULE_SEED=s runs schedule s alone and tells its story.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.fixtures.run_notes import note
from tests.model.schedule import Plan, Schedule
from tests.model.stages import stages_on_memory

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

SCHEDULES = int(os.environ.get("ATTRIBUTION_SCHEDULES", "20000"))
# Each part is dealt out on its own when tests run in several processes.
PARTS = 4
QUICK = 400
# Where the numbering of the long run starts; the quick one has its own.
FIRST_SEED = 1_000_000
# Every one of these must have happened, or the model proves less than it says.
FAULTS = (
    "duplicate", "poison", "rebalance", "crash", "zombie fenced", "finalise", "postgres lost commits",
    "sweeper asked again", "asked again blindly", "finalising held", "batch cut",
    "reopened",
    "healed by the sweeper", "fall back noticed", "postgres answer lost", "aborted",
    "answer lost: done", "answer lost: aborted", "torn: records only", "torn: offsets only",
    "crash before the transaction ends", "crash after the transaction", "crash: stitcher_in_store",
    "crash: stitcher_before_pg_commit", "crash: stitcher_after_pg_commit", "crash: attributor_after_read",
    "crash: auditor_before_pg_commit", "crash: auditor_after_pg_commit",
    "crash: reporter_before_pg_commit", "crash: reporter_after_pg_commit", "rolled up",
)  # fmt: skip


def _stages(current: list[Schedule]) -> AbstractContextManager[None]:
    def crash_at(point: str) -> None:
        current[-1].crash_at(point)

    return stages_on_memory(crash_at, lambda: current[-1].store)


def explore(first: int, count: int) -> Counter[str]:
    """Run schedules; the first that fails is made as small as its seed allows and told."""
    fired: Counter[str] = Counter()
    current: list[Schedule] = []
    with _stages(current):
        for seed in range(first, first + count):
            schedule = Schedule(seed, Plan())
            current[:] = [schedule]
            try:
                schedule.run()
            except AssertionError as error:
                pytest.fail(_smallest(seed, current, str(error)), pytrace=False)
            fired += schedule.fired
    return fired


def _smallest(seed: int, current: list[Schedule], message: str) -> str:
    """Try the seed, and others, with ever smaller plans; tell the story of the smallest that still fails."""
    best = (len(current[-1].story), seed, Plan(), message, current[-1].story)
    for events, steps in ((2, 8), (3, 12), (4, 18), (5, 25), (7, 35)):
        for candidate in (seed, *range(300)):
            plan = Plan(events, steps)
            schedule = Schedule(candidate, plan)
            current[:] = [schedule]
            try:
                schedule.run()
            except AssertionError as error:
                best = min(best, (len(schedule.story), candidate, plan, str(error), schedule.story))
        if best[2] != Plan():
            break
    _, number, plan, text, story = best
    return f"schedule {number} with {plan} breaks a promise (first found: {seed})\n{text}\n" + "\n".join(story)


def test_a_few_hundred_schedules_keep_all_promises() -> None:
    explore(0, QUICK)


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(PARTS), ids=lambda part: f"part {part + 1} of {PARTS}")
def test_twenty_thousand_schedules_keep_all_promises(part: int) -> None:
    first, end = (FIRST_SEED + SCHEDULES * edge // PARTS for edge in (part, part + 1))
    count = end - first
    fired = explore(first, count)
    note("schedules", "explored", count)
    for fault in FAULTS:
        note("schedules", fault, fired[fault])
    if count >= 5_000:
        assert [fault for fault in FAULTS if not fired[fault]] == []


@pytest.mark.skipif("ATTRIBUTION_SCHEDULE_SEED" not in os.environ, reason="set ATTRIBUTION_SCHEDULE_SEED to see one")
def test_one_schedule_tells_its_story(capsys: pytest.CaptureFixture[str]) -> None:
    current: list[Schedule] = []
    with _stages(current):
        schedule = Schedule(int(os.environ["ATTRIBUTION_SCHEDULE_SEED"]), Plan())
        current[:] = [schedule]
        try:
            schedule.run()
        finally:
            with capsys.disabled():
                print("\n" + "\n".join(schedule.story))
