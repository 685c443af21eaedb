"""Valid but cruel events through the real stack: all promises hold, memory is bounded, a quiet tenant goes on.

ATTRIBUTION_CRUEL_SIZE=3000 is the size of a night; the default is one of CI.
"""

from __future__ import annotations

import os
import random
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from attributary.schemas.topics import CONVERSIONS, IDENTITIES, TOUCHPOINTS
from tests import observed_state
from tests.expected_results import InputRecord, tell
from tests.factories.cruel_events import KINDS, cruel_events, quiet_events
from tests.factories.samples import records

if TYPE_CHECKING:
    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]

SIZE = int(os.environ.get("ATTRIBUTION_CRUEL_SIZE", "200"))
SEED = int(os.environ.get("ATTRIBUTION_CRUEL_SEED", "7"))
LIMIT_MEBIBYTES = 1_024
STAGES = ("stitcher", "attributor", "auditor", "sweeper")
_EVERY = 100  # cruel events between two journeys of the quiet tenant


def peak_mebibytes(pid: int) -> float:
    """Most memory that a process has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1_024  # type: ignore[index]


def test_every_kind_is_valid_and_is_there() -> None:
    for kind in KINDS:
        batch = records(list(kind(random.Random(SEED), 40)))
        assert batch, kind
        truth = tell([InputRecord(r.topic, 0, r.offset, r.timestamp_ms, r.value) for r in batch])
        assert not truth.refused, (kind, sorted(truth.refused)[:3])


@pytest.mark.timeout(3_600)
def test_cruel_events_break_no_promise_and_stop_nobody(
    pipeline: PipelineUnderTest, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = cruel_events(SEED, SIZE)
    mixed = [
        event
        for number, first in enumerate(range(0, len(events), _EVERY))
        for event in (*events[first : first + _EVERY], *quiet_events(number))
    ]
    # Thousands of results of half a megabyte take their time to be read again.
    monkeypatch.setattr(observed_state, "_PATIENCE_SECONDS", 60.0 + SIZE)
    # The oracle knows of journeys that are cut, not of anonymous ids that are: see tests/store/test_store_many_devices.
    pipeline.environment["ATTRIBUTION_MAX_DEVICES"] = "20000"
    pipeline.start(*STAGES)
    for event in mixed:
        topic = {"touchpoint": TOUCHPOINTS, "conversion": CONVERSIONS, "identity_link": IDENTITIES}[event.NAME]
        publisher.send(topic, event.to_record())
    publisher.flush()
    pipeline.settle(seconds=3_000)
    peaks = {name: peak_mebibytes(pipeline.stages[name].pid) for name in STAGES}
    print(f"\n{len(mixed)} events; peak MiB { ({name: round(peak) for name, peak in peaks.items()}) }")
    print(pipeline.check(publisher.acknowledged))
    assert max(peaks.values()) < LIMIT_MEBIBYTES, peaks
    assert set(pipeline.stop().values()) == {0}
