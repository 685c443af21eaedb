"""Fixtures of the forwarder's tests."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.forwarder.forwarder_factories import SimulatedClock, stage_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from attributary.consumers.forwarder.stage import ForwarderStage


class MakeStage(Protocol):
    def __call__(self, name: str, url: str, clock: Any, **others: Any) -> ForwarderStage: ...


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock(time.time_ns() // 1_000)


@pytest.fixture
def make_stage() -> Iterator[MakeStage]:
    """`stage_for`, and every stage is closed afterwards."""
    made: list[ForwarderStage] = []

    def make(name: str, url: str, clock: Any, **others: Any) -> ForwarderStage:
        made.append(stage_for(name, url, clock, **others))
        return made[-1]

    yield make
    for stage in made:
        stage.close()
