"""People and their journeys as columns: who meets which channel when.

Invariant: touches of a journey lie next to each other, in the order of their times; every touch is older than its
journey's end by at least a minute and by less than the shortest window of its kind (30 days for clicks, 1 day for
passive contacts), so all touches of a conversion's journey count for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attributary.producers.simulator.calibration import length_probabilities, stickiness
from attributary.producers.simulator.config import MICROS, MICROS_PER_DAY, SimulatorConfig

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

ANONYMOUS, LINKED, SIGNED_IN = 0, 1, 2

_YOUNGEST_SECONDS = 60.0
_OLDEST_SECONDS = 29.9 * 86_400
_PASSIVE_SECONDS = 23.0 * 3_600
_MEAN_AGE_SECONDS = 5.0 * 86_400
# Journeys end early enough for everything that follows a conversion to happen before the end of simulated time.
_QUIET_END_MICROS = 3_600 * MICROS


def stream(seed: int, name: str) -> np.random.Generator:
    """A source of randomness of its own for one concern, so that concerns do not disturb each other."""
    return np.random.default_rng([seed, *name.encode()])


@dataclass(frozen=True)
class People:
    """Columns by person. `same` numbers people inside their tenant: equal numbers in two tenants bear equal ids."""

    tenant: Ints
    same: Ints
    kind: Ints
    two_devices: Flags


@dataclass(frozen=True)
class Journeys:
    """Columns by journey; `first` is the position of its first touch (with one more entry at the end)."""

    person: Ints
    end: Ints  # microseconds UTC; the time of the conversion, if there is one
    first: Ints


@dataclass(frozen=True)
class Touches:
    """Columns by touch, journey after journey."""

    journey: Ints
    channel: Ints
    occurred_at: Ints  # microseconds UTC
    device: Ints  # 0 or 1: which of the person's devices
    passive: Flags
    robot: Flags
    pick: Floats  # 0 to 1: draws the placement and the campaign


@dataclass(frozen=True)
class Population:
    """People, their journeys and touches."""

    people: People
    journeys: Journeys
    touches: Touches

    def touch_person(self) -> Ints:
        """Person of every touch."""
        return self.journeys.person[self.touches.journey]


def draw_population(config: SimulatorConfig) -> Population:
    """Draw everybody and everything that happens before a conversion."""
    lengths = _draw_lengths(config)
    people, person = _draw_people(config, len(lengths))
    span = config.volume.span_days * MICROS_PER_DAY
    end = (
        config.now_micros
        - _QUIET_END_MICROS
        - (stream(config.seed, "ends").random(len(lengths)) * span).astype(np.int64)
    )
    first = np.concatenate(([0], np.cumsum(lengths)))
    journeys = Journeys(person, end, first)
    return Population(people, journeys, _draw_touches(config, people, journeys, lengths))


def _draw_lengths(config: SimulatorConfig) -> Ints:
    """Numbers of touches by journey that sum to the wanted total, with at least as many journeys as conversions."""
    wanted = config.volume.touchpoints
    probabilities = length_probabilities()
    count = int(config.expected_journeys * 1.1) + 100
    lengths = 1 + stream(config.seed, "lengths").choice(len(probabilities), size=count, p=probabilities).astype(
        np.int64
    )
    while (total := int(lengths.sum())) < wanted:
        lengths = np.append(lengths, min(wanted - total, len(probabilities)))
    sums = np.cumsum(lengths)
    last = int(np.searchsorted(sums, wanted))
    lengths = lengths[: last + 1].copy()
    lengths[last] -= sums[last] - wanted
    while len(lengths) < config.volume.conversions:
        longest = int(lengths.argmax())
        lengths[longest] -= 1
        lengths = np.append(lengths, 1)
    return lengths


def _draw_people(config: SimulatorConfig, journeys: int) -> tuple[People, Ints]:
    """People, and the person of every journey: everybody has one before anybody has two."""
    random = stream(config.seed, "people")
    count = journeys if config.volume.people is None else min(config.volume.people, journeys)
    number = np.arange(count, dtype=np.int64)
    known = random.random(count) >= config.identities.anonymous
    signed_in = random.random(count) < config.identities.signed_in
    kind = np.where(known, np.where(signed_in, SIGNED_IN, LINKED), ANONYMOUS).astype(np.int64)
    people = People(
        tenant=number % config.volume.tenants,
        same=number // config.volume.tenants,
        kind=kind,
        # A second device of somebody who stays anonymous would be another person to everybody.
        two_devices=(random.random(count) < config.identities.two_devices) & known,
    )
    person = np.concatenate((number, random.integers(0, count, journeys - count)))
    return people, person


def _draw_touches(config: SimulatorConfig, people: People, journeys: Journeys, lengths: Ints) -> Touches:
    total = int(journeys.first[-1])
    journey = np.repeat(np.arange(len(lengths)), lengths)
    random = stream(config.seed, "touches")
    age = draw_ages(random, total)
    age = age[np.lexsort((-age, journey))]
    channel = _draw_channels(config, random, journeys, total)
    passive_share = np.array([c.passive_share if c.passive else 0.0 for c in config.channels])
    passive = (random.random(total) < passive_share[channel]) & (age < _PASSIVE_SECONDS)
    second = (random.random(total) < 0.4) & people.two_devices[journeys.person[journey]]
    return Touches(
        journey=journey,
        channel=channel,
        occurred_at=journeys.end[journey] - (age * MICROS).astype(np.int64),
        device=second.astype(np.int64),
        passive=passive,
        robot=random.random(total) < config.identities.robots,
        pick=random.random(total),
    )


def draw_ages(random: np.random.Generator, total: int) -> Floats:
    """Draw seconds between a touch and its journey's end: exponential, cut to the 30 days of the click window."""
    cut = 1.0 - np.exp(-(_OLDEST_SECONDS - _YOUNGEST_SECONDS) / _MEAN_AGE_SECONDS)
    ages: Floats = _YOUNGEST_SECONDS - _MEAN_AGE_SECONDS * np.log1p(-random.random(total) * cut)
    return ages


def _draw_channels(config: SimulatorConfig, random: np.random.Generator, journeys: Journeys, total: int) -> Ints:
    """Channels from the mix, repeating the one before by habit; every touch has the mix's distribution."""
    shares = np.array([c.share for c in config.channels], dtype=np.float64)
    shares /= shares.sum()
    drawn = random.choice(len(shares), size=total, p=shares).astype(np.int64)
    fresh = random.random(total) >= stickiness(shares, config.repeat_share)
    fresh[journeys.first[:-1]] = True
    # A touch that repeats takes the channel of the nearest fresh one before it.
    source = np.maximum.accumulate(np.where(fresh, np.arange(total), 0))
    return drawn[source]
