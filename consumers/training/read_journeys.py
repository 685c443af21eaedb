"""Sufficient statistics of the finished journeys of a tenant, read from the store.

Invariant: the statistics are a function of the stored events, the window and the rules. They are sums of integers, so
the size of the chunks changes nothing, and they can be built again at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
import psycopg

from attributary.attribution_core.domain.journeys import Outcomes
from attributary.attribution_core.statistics.forgetting import PeriodState
from attributary.attribution_core.statistics.state import JourneyState
from attributary.consumers.store.models.incremental_state import Period
from attributary.consumers.store.models.timelines import (
    Selection,
    TimelineRow,
    conversions_by_currency,
    count_people,
    newest_arrival,
    person_of_key,
    stored_policies,
    stream_timelines,
)

from .contributions import NULL, contributions_of, in_currency, most_common_currency, states_of, summed
from .journeys import FinishedJourneys, FinishRules, finished_journeys, parts_of_people, pooled
from .name_limits import NameLimit, channel_limit, check_cells, check_sets

Progress = Callable[[int, int | None], None]


def no_progress(_done: int, _total: int | None) -> None:
    """Ignore progress."""


class Closing(StrEnum):
    """The people with a last journey that counts as finished although it did not convert.

    SWEPT: people that the sweeper closed. SILENT: also people without an arrival within the inactivity time before the
    newest arrival of the tenant. ALL: everybody, because the data is complete: for replays and imports of history,
    which all arrive today.
    """

    SWEPT = "swept"
    SILENT = "silent"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Window:
    """Which finished journeys to read.

    Attributes:
        tenant_id: the tenant.
        since: journeys that end at or after it, microseconds UTC; None: from the beginning.
        until: journeys that end before it, microseconds UTC; None: to the end.
        conversion_types: only these types count, the others as if they had not happened; empty: all.
        journey_key: only this person; an owned anonymous id stands for its owner.
        closing: the people that count as closed.
    """

    tenant_id: str
    since: int | None = None
    until: int | None = None
    conversion_types: frozenset[str] = frozenset()
    journey_key: str | None = None
    closing: Closing = Closing.SWEPT


@dataclass(slots=True)
class ReadCounts:
    """Counts of a reading, for the metadata of a version.

    Attributes:
        people: number of people.
        people_left_out: of these, people with more events than a person can have; not used.
        pooled_channels: channels beyond the limit, counted as "(other)".
        open_touches: touches of journeys that are not finished; unused.
        passed_over: touches that count for no conversion although one followed; unused.
        foreign_currency: conversions in another currency than the statistics; they count without value.
    """

    people: int = 0
    people_left_out: int = 0
    pooled_channels: int = 0
    open_touches: int = 0
    passed_over: int = 0
    foreign_currency: int = 0


@dataclass(frozen=True, slots=True)
class WindowStatistics:
    """The statistics of a window.

    Attributes:
        state: the sufficient statistics.
        currency: of the values in it; None without conversions.
        policies: versions of the lookback policies that conversions pinned.
        counts: what was read.
        periods: the same statistics by the day of the end, in order; empty unless read by day.
        is_incremental: whether they come from the incremental state, not from the store.
    """

    state: JourneyState
    currency: str | None
    policies: tuple[str, ...]
    counts: ReadCounts = field(default_factory=ReadCounts)
    periods: Sequence[PeriodState] = ()
    is_incremental: bool = False

    @classmethod
    def of_periods(
        cls,
        states: Mapping[Period, JourneyState],
        counts: ReadCounts,
        policies: Sequence[str],
        *,
        currency: str | None,
        is_incremental: bool = False,
    ) -> WindowStatistics:
        """Return the sum of statistics by day and currency.

        Args:
            states: by day and currency.
            counts: what was read; conversions in other currencies are added here.
            policies: versions of the lookback policies that conversions pinned.
            currency: of the values; None: the most common one.
            is_incremental: whether the states come from the incremental state.
        """
        chosen = most_common_currency(states) if currency is None else currency
        counts.foreign_currency = sum(
            state.conversions for (_, name), state in states.items() if name not in (NULL, chosen)
        )
        parts = in_currency(states, chosen)
        return cls(summed(parts), chosen, tuple(sorted(policies)), counts, parts, is_incremental)


def read_journeys(
    connection: psycopg.Connection, window: Window, inactivity_micros: int, progress: Progress = no_progress
) -> Iterator[FinishedJourneys]:
    """Yield the finished journeys of a window, some people at a time.

    Args:
        connection: in a snapshot that stays open until the last chunk.
        window: which journeys.
        inactivity_micros: silence that ends a journey without conversion, microseconds.
        progress: called after each chunk with people read and people in all; may raise to stop.
    """
    silent_since = _silent_since(connection, window, inactivity_micros)
    person = window.journey_key and person_of_key(connection, window.tenant_id, window.journey_key)
    selection = Selection(window.tenant_id, person, window.since, window.until, silent_since)
    rules = FinishRules(
        stored_policies(connection), inactivity_micros, window.since, window.until, window.conversion_types or None
    )
    total = count_people(connection, selection)
    done = 0
    progress(done, total)
    large: list[str] = []
    for rows in stream_timelines(connection, selection, on_left_out=large.append):
        for part in parts_of_people(rows):
            journeys = finished_journeys(part, rules)
            done += journeys.people
            yield journeys
        progress(done, total)
    if large:
        yield replace(finished_journeys((), rules), people=len(large), left_out=len(large))
        progress(done + len(large), total)


def _silent_since(connection: psycopg.Connection, window: Window, inactivity_micros: int) -> int | None:
    if window.closing is Closing.SWEPT:
        return None
    newest = newest_arrival(connection, window.tenant_id)
    if newest is None or window.closing is Closing.ALL:
        return newest
    return newest - inactivity_micros - 1


def read_statistics(
    connection: psycopg.Connection,
    window: Window,
    inactivity_micros: int,
    *,
    currency: str | None = None,
    progress: Progress = no_progress,
) -> WindowStatistics:
    """Build the statistics of a window.

    Args:
        connection: in a snapshot.
        window: which journeys.
        inactivity_micros: silence that ends a journey without conversion, microseconds.
        currency: of the values; None: the most common one of the window. Amounts of different currencies are never
            added: a conversion in another one counts without value.
        progress: as for `read_journeys`.
    """
    if currency is None:
        selection = Selection(window.tenant_id, since=window.since, until=window.until)
        currency = next(iter(conversions_by_currency(connection, selection)), None)
    limit = channel_limit(connection, window.tenant_id)
    counts, policies = ReadCounts(pooled_channels=limit.pooled), set[str]()
    state = JourneyState.empty()
    for journeys in _counted(read_journeys(connection, window, inactivity_micros, progress), counts, policies):
        state = check_sets(state.add(_fit(journeys, currency, limit)))
        counts.foreign_currency += sum(row.group != currency for row in journeys.conversions)
    return WindowStatistics(state, currency, tuple(sorted(policies)), counts)


def read_daily_statistics(
    connection: psycopg.Connection,
    window: Window,
    inactivity_micros: int,
    *,
    currency: str | None = None,
    progress: Progress = no_progress,
) -> WindowStatistics:
    """Build the statistics of a window by day and currency, for a training with a half-life.

    Args:
        connection: in a snapshot.
        window: which journeys.
        inactivity_micros: silence that ends a journey without conversion, microseconds.
        currency: of the values; None: the most common one.
        progress: as for `read_journeys`.

    Raises:
        TooLargeError: too many channels on too many days.
    """
    limit = channel_limit(connection, window.tenant_id)
    counts, policies = ReadCounts(pooled_channels=limit.pooled), set[str]()
    states: dict[Period, JourneyState] = {}
    for journeys in _counted(read_journeys(connection, window, inactivity_micros, progress), counts, policies):
        converted, nulls = pooled(journeys.converted, limit), pooled(journeys.nulls, limit)
        everybody = contributions_of(replace(journeys, converted=converted, nulls=nulls))
        chunk = states_of(journey for each in everybody.values() for journey in each.journeys)
        for period, state in chunk.items():
            states[period] = states[period].add(state) if period in states else state
        check_cells(len(state.index) for state in states.values())
    return WindowStatistics.of_periods(states, counts, sorted(policies), currency=currency)


def _counted(chunks: Iterable[FinishedJourneys], counts: ReadCounts, policies: set[str]) -> Iterator[FinishedJourneys]:
    """Pass chunks on and count them: people, unused touches, pinned policies."""
    for journeys in chunks:
        yield journeys
        counts.people += journeys.people
        counts.people_left_out += journeys.left_out
        counts.open_touches += journeys.open_touches
        counts.passed_over += journeys.passed_over
        policies |= {row.detail for row in journeys.conversions}


def converted_outcomes(conversions: Sequence[TimelineRow], currency: str | None) -> Outcomes:
    """Return the outcomes of converted journeys: the net value where it is in the currency, else no value."""
    values = np.fromiter(
        (row.value_micros if row.group == currency else 0 for row in conversions), np.int64, len(conversions)
    )
    return Outcomes.of(np.ones(values.size, dtype=np.bool_), values)


def null_outcomes(number: int) -> Outcomes:
    """Return the outcomes of so many journeys without conversion."""
    return Outcomes.of(np.zeros(number, dtype=np.bool_), np.zeros(number, dtype=np.int64))


def _fit(journeys: FinishedJourneys, currency: str | None, limit: NameLimit) -> JourneyState:
    batch = pooled(journeys.converted, limit)
    converted = JourneyState.fit(batch, converted_outcomes(journeys.conversions, currency))
    return converted.add(JourneyState.fit(pooled(journeys.nulls, limit), null_outcomes(len(journeys.nulls))))
