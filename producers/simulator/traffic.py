"""The traffic: all events in the order of their arrival, and the truth behind them.

Invariant: iterating twice gives equal events. Records are built while iterating, so a traffic of millions needs the
memory of its columns only, and each event is a new record that the caller may change.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from attributary.producers.simulator.arrival import Arrivals, draw_arrivals
from attributary.producers.simulator.config import SimulatorConfig
from attributary.producers.simulator.outcomes import draw_conversions, draw_links, find_causes
from attributary.producers.simulator.population import draw_population
from attributary.producers.simulator.records import Outcomes, Records
from attributary.producers.simulator.truth import Truth, tell_truth


class Event(NamedTuple):
    """One arrival."""

    topic: str
    key: bytes
    record: dict[str, Any]
    occurred_at: int  # microseconds UTC


class Traffic:
    """Events in the order of arrival; see `simulate`.

    Attributes:
        arrivals: columns by arrival, for those who want to know which event is late or a second copy.
        truth: what really happened.
    """

    def __init__(self, records: Records, arrivals: Arrivals, truth: Truth) -> None:
        self._records = records
        self.arrivals = arrivals
        self.truth = truth

    def __len__(self) -> int:
        """Arrivals, duplicates included."""
        return len(self.arrivals.event)

    def __iter__(self) -> Iterator[Event]:
        build, occurred_at = self._records.build, self._records.occurred_at
        for number, at in zip(self.arrivals.event.tolist(), occurred_at[self.arrivals.event].tolist(), strict=True):
            topic, key, record = build(number)
            yield Event(topic, key, record, at)


def simulate(config: SimulatorConfig) -> Traffic:
    """Draw a traffic; the same configuration gives the same events, byte for byte."""
    population = draw_population(config)
    causes = find_causes(config, population)
    conversions, corrections = draw_conversions(config, population, causes)
    outcomes = Outcomes(conversions, corrections, draw_links(config, population))
    records = Records(config, population, outcomes)
    arrivals = draw_arrivals(config.seed, config.disorder, records.occurred_at, records.groups)
    facts = tell_truth(config, population, outcomes, causes, records)
    duplicates = int(arrivals.duplicate.sum())
    late = int((arrivals.late & ~arrivals.duplicate).sum())
    return Traffic(records, arrivals, Truth(**facts, duplicates=duplicates, late=late))
