"""The contribution of a person to the incremental state, and the sums by day: pure.

Invariant: a contribution is a function of the person's timeline and the rules; the state is the sum of contributions in
integers, so retracting an old contribution and adding the new one gives the same bits as a sum over all people.
Equal contributions have equal texts, and journeys that are in both the old and the new one are never touched.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from attributary.attribution_core.domain.journeys import JourneyBatch, Outcomes
from attributary.attribution_core.domain.lookback import MICROS_PER_DAY
from attributary.attribution_core.statistics.forgetting import Forgetting, ForgettingState, PeriodState, forget
from attributary.attribution_core.statistics.state import JourneyState
from attributary.consumers.store.models.incremental_state import Period, StoredContribution

from .journeys import FinishedJourneys

NULL = ""
"""In place of the currency of a journey without conversion."""


class Journey(NamedTuple):
    """A finished journey: when it ended, how, and through which channels."""

    day: int
    currency: str
    policy: str
    value_micros: int
    path: tuple[str, ...]

    @property
    def period(self) -> Period:
        """The period that counts it."""
        return self.day, self.currency


@dataclass(slots=True)
class Contribution:
    """The contribution of one person.

    Attributes:
        journeys: the finished ones.
        open_touches: touches of journeys that are not finished.
        passed_over: touches that count for no conversion although one followed.
    """

    journeys: list[Journey] = field(default_factory=list)
    open_touches: int = 0
    passed_over: int = 0

    def stored(self) -> StoredContribution:
        """Return the stored form: equal contributions have equal texts."""
        text = json.dumps(sorted(self.journeys), separators=(",", ":"), ensure_ascii=False)
        return StoredContribution(text, self.open_touches, self.passed_over)


def journeys_of(stored: StoredContribution) -> list[Journey]:
    """Return the journeys of a stored contribution."""
    return [
        Journey(day, currency, policy, value, tuple(path))
        for day, currency, policy, value, path in json.loads(stored.journeys)
    ]


def contributions_of(found: FinishedJourneys) -> dict[str, Contribution]:
    """Return the contribution of each person."""
    contributed: defaultdict[str, Contribution] = defaultdict(Contribution)
    names, codes = found.converted.index.names, found.converted.channels.tolist()
    offsets, days = found.converted.offsets.tolist(), (found.converted.converted_at // MICROS_PER_DAY).tolist()
    for place, row in enumerate(found.conversions):
        path = tuple(names[code] for code in codes[offsets[place] : offsets[place + 1]])
        journey = Journey(days[place], row.group, row.detail, row.value_micros, path)
        contributed[row.journey_key].journeys.append(journey)
    names, codes = found.nulls.index.names, found.nulls.channels.tolist()
    offsets, days = found.nulls.offsets.tolist(), (found.nulls.converted_at // MICROS_PER_DAY).tolist()
    for place, day in enumerate(days):
        low, high = offsets[place], offsets[place + 1]
        path = tuple(names[code] for code in codes[low:high])
        contributed[found.null_touches[low].journey_key].journeys.append(Journey(day, NULL, "", 0, path))
    for touch in found.open_rows:
        contributed[touch.journey_key].open_touches += 1
    for touch in found.passed_over_rows:
        contributed[touch.journey_key].passed_over += 1
    return contributed


def by_period(journeys: Iterable[Journey]) -> dict[Period, list[Journey]]:
    """Group journeys by period."""
    found: dict[Period, list[Journey]] = {}
    for journey in journeys:
        found.setdefault(journey.period, []).append(journey)
    return found


def states_of(journeys: Iterable[Journey]) -> dict[Period, JourneyState]:
    """Sum journeys up by period."""
    return {period: state_of(found) for period, found in by_period(journeys).items()}


def state_of(journeys: Sequence[Journey]) -> JourneyState:
    """Return the sums of journeys; memory grows with the square of their channels."""
    if not journeys:
        return JourneyState.empty()
    batch = JourneyBatch.of_paths([journey.path for journey in journeys])
    converted = np.fromiter((journey.currency != NULL for journey in journeys), np.bool_, len(journeys))
    values = np.fromiter((journey.value_micros for journey in journeys), np.int64, len(journeys))
    return JourneyState.fit(batch, Outcomes.of(converted, values))


@dataclass(frozen=True, slots=True)
class Change:
    """The difference between old and new contributions of some people.

    Attributes:
        retracted: journeys to subtract, by period.
        added: journeys to add, by period.
        people: how many more people.
        open_touches: how many more touches of journeys that are not finished.
        passed_over: how many more touches that count for no conversion although one followed.
        policies: how many more conversions by the policy that they pin.
    """

    retracted: Mapping[Period, Sequence[Journey]]
    added: Mapping[Period, Sequence[Journey]]
    people: int
    open_touches: int
    passed_over: int
    policies: Mapping[str, int]


def change(old: Iterable[StoredContribution], new: Iterable[StoredContribution]) -> Change:
    """Return the change of the sums when new contributions replace old ones."""
    before, after = list(old), list(new)
    journeys = Counter(journey for each in after for journey in journeys_of(each))
    journeys.subtract(journey for each in before for journey in journeys_of(each))
    policies: Counter[str] = Counter()
    for journey, number in journeys.items():
        if journey.currency != NULL:
            policies[journey.policy] += number
    return Change(
        by_period((-journeys).elements()),
        by_period((+journeys).elements()),
        len(after) - len(before),
        sum(each.open_touches for each in after) - sum(each.open_touches for each in before),
        sum(each.passed_over for each in after) - sum(each.passed_over for each in before),
        {policy: number for policy, number in policies.items() if number},
    )


def most_common_currency(states: Mapping[Period, JourneyState]) -> str | None:
    """Return the currency of most conversions, the first by name among equals; None without conversions."""
    numbers: Counter[str] = Counter()
    for (_, currency), state in states.items():
        if currency != NULL:
            numbers[currency] += state.conversions
    return min(numbers, key=lambda name: (-numbers[name], name), default=None)


def in_currency(states: Mapping[Period, JourneyState], currency: str | None) -> list[PeriodState]:
    """Return the sums of a tenant with the values of one currency; conversions in another one have no value."""
    return [
        PeriodState(day * MICROS_PER_DAY + MICROS_PER_DAY // 2, state if name == currency else state.without_value())
        for (day, name), state in sorted(states.items())
    ]


def summed(parts: Sequence[PeriodState]) -> JourneyState:
    """Return the sum of all periods."""
    return JourneyState.weighted_sum((1, part.state) for part in parts)


def weighted_by_age(parts: Sequence[PeriodState], half_life_micros: int) -> ForgettingState:
    """Return the sum of all periods, each with the weight of its age in days against the newest."""
    return forget(parts, Forgetting(half_life_micros))
