"""What really happened, to compare the pipeline with.

Invariant: everything here follows from the same draws as the traffic. Baseline and per-channel `caused` sum to the
number of conversions; `incremental` does not have to, since a conversion can need several channels or be lost with any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from attributary.producers.simulator.config import SimulatorConfig
from attributary.producers.simulator.outcomes import CURRENCIES, Causes
from attributary.producers.simulator.population import ANONYMOUS, Ints, Population
from attributary.producers.simulator.records import Outcomes, Records
from attributary.schemas.topics import CONVERSIONS, IDENTITIES, TOUCHPOINTS

EventKey = tuple[str, str]  # tenant id, event id


@dataclass(frozen=True)
class ChannelTruth:
    """What a channel did.

    Attributes:
        touchpoints: its distinct touchpoints.
        converting_touchpoints: those in journeys that convert.
        incremental: conversions that would not have happened with its effect switched off.
        caused: conversions by the channel's share of their intensity.
    """

    touchpoints: int
    converting_touchpoints: int
    incremental: int
    caused: float


@dataclass(frozen=True)
class ConversionTruth:
    """A conversion after its correction, if any.

    Attributes:
        journey_key: u: and the user id, or a: and the anonymous id, once all links are known.
        converted_at: microseconds UTC.
        gross_value_micros: value as first published.
        net_value_micros: value after the correction.
        currency: ISO 4217.
        touchpoints: event ids of the journey's touches that no robot made, in order of time. Where people come back
            (fewer people than journeys), the lookback window may also hold touches of their other journeys.
    """

    journey_key: str
    converted_at: int
    gross_value_micros: int
    net_value_micros: int
    currency: str
    touchpoints: tuple[str, ...]


@dataclass(frozen=True)
class Truth:
    """The whole truth about a traffic.

    Attributes:
        touchpoints: distinct touchpoints.
        conversions: distinct conversions, corrections not counted.
        corrections: distinct refunds, cancellations and restatements.
        links: distinct identity links.
        duplicates: events that arrive a second time.
        late: distinct events that arrive late.
        baseline: conversions that happen with every effect switched off.
        caused_by_nothing: conversions by the baseline's share of their intensity.
        channels: by channel.
        by_conversion: by (tenant, conversion id).
        owners: by (tenant, anonymous id), the known user; None for people who stay anonymous.
        events: distinct events by topic.
    """

    touchpoints: int
    conversions: int
    corrections: int
    links: int
    duplicates: int
    late: int
    baseline: int
    caused_by_nothing: float
    channels: Mapping[str, ChannelTruth]
    by_conversion: Mapping[EventKey, ConversionTruth]
    owners: Mapping[tuple[str, str], str | None]
    events: Mapping[str, frozenset[EventKey]]

    def document(self) -> dict[str, Any]:
        """The truth as JSON can hold it: nested by tenant; of the events only their numbers."""
        conversions: dict[str, dict[str, Any]] = {}
        for (tenant, conversion_id), each in self.by_conversion.items():
            conversions.setdefault(tenant, {})[conversion_id] = asdict(each)
        owners: dict[str, dict[str, str | None]] = {}
        for (tenant, anonymous_id), user_id in self.owners.items():
            owners.setdefault(tenant, {})[anonymous_id] = user_id
        counts = {name: value for name, value in vars(self).items() if isinstance(value, int | float)}
        return {
            "counts": counts | {"events": {topic: len(ids) for topic, ids in self.events.items()}},
            "channels": {name: asdict(each) for name, each in self.channels.items()},
            "conversions": conversions,
            "owners": owners,
        }


def tell_truth(
    config: SimulatorConfig,
    population: Population,
    outcomes: Outcomes,
    causes: Causes,
    records: Records,
) -> dict[str, Any]:
    """Return all fields of the `Truth` but the numbers of duplicates and late events."""
    touches, journeys = population.touches, population.journeys
    in_converting = np.isin(touches.journey, causes.converted)
    size = len(config.channels)
    met = np.bincount(touches.channel, minlength=size)
    met_converting = np.bincount(touches.channel[in_converting], minlength=size)
    channels = {
        channel.name: ChannelTruth(
            int(met[c]), int(met_converting[c]), int(causes.incremental[c]), float(causes.caused[c])
        )
        for c, channel in enumerate(config.channels)
    }
    ends = records.ends
    ids = [records.topic_ids(number) for number in range(ends[-1])]
    return {
        "touchpoints": ends[0],
        "conversions": ends[1] - ends[0],
        "corrections": ends[2] - ends[1],
        "links": ends[3] - ends[2],
        "baseline": causes.without_any,
        "caused_by_nothing": causes.caused_by_nothing,
        "channels": channels,
        "by_conversion": _conversions(population, outcomes, records),
        "owners": _owners(population, records, journeys.person),
        "events": {
            TOUCHPOINTS: frozenset(ids[: ends[0]]),
            CONVERSIONS: frozenset(ids[ends[0] : ends[2]]),
            IDENTITIES: frozenset(ids[ends[2] :]),
        },
    }


def _conversions(population: Population, outcomes: Outcomes, records: Records) -> dict[EventKey, ConversionTruth]:
    conversions, journeys = outcomes.conversions, population.journeys
    first, robot = journeys.first.tolist(), population.touches.robot.tolist()
    person, end = journeys.person.tolist(), journeys.end.tolist()
    columns = (conversions.journey, conversions.currency, conversions.value_micros, conversions.net_micros)
    result: dict[EventKey, ConversionTruth] = {}
    for number, (journey, currency, gross, net) in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
        key = records.topic_ids(records.ends[0] + number)
        touches = range(first[journey], first[journey + 1])
        result[key] = ConversionTruth(
            journey_key=records.journey_key(person[journey]),
            converted_at=end[journey],
            gross_value_micros=gross,
            net_value_micros=net,
            currency=CURRENCIES[currency],
            touchpoints=tuple(records.event_ids[t] for t in touches if not robot[t]),
        )
    return result


def _owners(population: Population, records: Records, person: Ints) -> dict[tuple[str, str], str | None]:
    """Owner of every device of everybody with a journey."""
    owners: dict[tuple[str, str], str | None] = {}
    second = population.people.two_devices & (population.people.kind != ANONYMOUS)
    for each in np.unique(person).tolist():
        for device in (0, 1) if second[each] else (0,):
            tenant, anonymous_id, user_id = records.owner(each, device)
            owners[tenant, anonymous_id] = user_id
    return owners
