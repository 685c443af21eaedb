"""Simulated traffic for tests: small, disordered, several tenants, with everything that may go wrong in it."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from attributary.producers.simulator import Corrections, Disorder, SimulatorConfig, Volume, simulate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from attributary.producers.simulator import Event
    from tests.fixtures.pipeline import Publisher


def traffic(touchpoints: int, conversions: int, *, seed: int = 1, tenants: int = 2) -> list[Event]:
    """Events in the order of arrival: 5% twice, 5% late, shuffled within an hour, people who come back."""
    config = SimulatorConfig(
        now_micros=int((time.time() - 86_400) * 1e6),
        seed=seed,
        volume=Volume(touchpoints, conversions, tenants, people=max(2, touchpoints // 6)),
        disorder=Disorder(duplicates=0.05, late=0.05, shuffle_seconds=3_600),
    )
    corrections = Corrections(refunds=0.06, partial_refunds=0.06, cancellations=0.04, restatements=0.06)
    return list(simulate(replace(config, corrections=corrections)))


def publish(publisher: Publisher, events: Iterable[Event]) -> None:
    """Send events in their order and wait for the acknowledgements."""
    for event in events:
        publisher.send(event.topic, event.record)
    publisher.flush()
