"""The incremental state: find the people who changed, retract their old contributions, add the new ones.

There is one state a tenant. It counts all finished journeys, with the people that the sweeper closed as closed
(`Closing.SWEPT`) and with the inactivity time of the policy in force. Another inactivity time rebuilds it. The sums are
by day and currency, so they serve any currency and any half-life. A tenant with more than `MAX_CHANNELS` channels on a
day has no state: it is suspended, its changes are dropped, and `rebuild` tries again.

Invariant: once no change is pending, the state equals a fresh reading of the store, bit by bit (`verify`). A step is
one transaction over one snapshot: pending changes, contributions, sums and totals. It is bounded by people, and a
lock lets one process at a time take it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import psycopg
import structlog

from attributary.attribution_core.statistics.state import JourneyState
from attributary.consumers.runtime.crash_points import crash_at, register_points
from attributary.consumers.store.connection import translated_errors
from attributary.consumers.store.models.changed_people import (
    note_all_people,
    note_new_events,
    pending_changes,
    server_activity,
    take_changes,
)
from attributary.consumers.store.models.incremental_state import (
    Period,
    StoredContribution,
    Totals,
    channels_of_periods,
    clear,
    contributions,
    count_contributions,
    periods,
    replace_contributions,
    replace_periods,
    state_lock,
    store_totals,
    stream_periods,
    totals_of,
)
from attributary.consumers.store.models.timelines import Selection, stored_policies, stream_timelines

from .contributions import Change, change, contributions_of, state_of
from .journeys import FinishRules, finished_journeys, parts_of_people
from .name_limits import MAX_CHANNELS, OTHER, TooLargeError, check_cells
from .read_journeys import Closing, Progress, ReadCounts, Window, WindowStatistics, no_progress, read_journeys

register_points("trainer_in_state_step", "trainer_before_state_commit")

_log = structlog.get_logger()

STEP_PEOPLE = 10_000
"""Changed people a step; a job waits for one step at most. Each step rewrites the sums of every day that it touches, so
small steps cost more: with 2,000 people twice as much Python an event."""


TOO_MANY_CHANNELS = (
    f"a day has more than {MAX_CHANNELS} channels; trainings read the store and pool rare channels as {OTHER}"
)


@dataclass(frozen=True, slots=True)
class Step:
    """Counts of a step.

    Attributes:
        changes: people that were read again.
        replaced: those with another contribution than before.
    """

    changes: int
    replaced: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Differences between the incremental state and a fresh reading of the same snapshot.

    Attributes:
        people: people in the fresh reading.
        differing_people: people with a contribution that differs, is missing or is superfluous.
        differing_periods: days and currencies with sums that differ, are missing or are superfluous.
        differing_totals: whether people, unused touches or policies differ.
    """

    people: int
    differing_people: int
    differing_periods: int
    differing_totals: bool

    @property
    def is_none(self) -> bool:
        """Whether the two are equal."""
        return not (self.differing_people or self.differing_periods or self.differing_totals)


@contextmanager
def snapshot(connection: psycopg.Connection, *, read_only: bool = False) -> Iterator[None]:
    """Run one transaction over one snapshot (REPEATABLE READ)."""
    with translated_errors(), connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ" + (", READ ONLY" if read_only else ""))
        yield


@contextmanager
def fresh_snapshot(connection: psycopg.Connection) -> Iterator[int]:
    """Open a `snapshot` and note the people of new events in it; yield how many. Needs the state lock."""
    with translated_errors(), connection.transaction():
        activity = server_activity(connection)
    with snapshot(connection):
        yield note_new_events(connection, activity)


def start_anew(connection: psycopg.Connection, tenant_id: str, inactivity_micros: int) -> Totals:
    """Empty the state of a tenant and note all its people as changed. Needs the state lock and a snapshot."""
    clear(connection, tenant_id)
    note_all_people(connection, tenant_id)
    totals = Totals(inactivity_micros, 0, 0, 0, {}, 0)
    store_totals(connection, tenant_id, totals)
    return totals


def step(connection: psycopg.Connection, tenant_id: str, inactivity_micros: int, *, limit: int = STEP_PEOPLE) -> Step:
    """Replace the contributions of some changed people. Needs the state lock and a snapshot.

    Raises:
        StateError: contributions contradict the sums, which only a foreign write can cause.
        UnknownPolicyError: a conversion pins a policy that is not stored.
    """
    totals = totals_of(connection, tenant_id)
    if totals is None or totals.inactivity_micros != inactivity_micros:
        totals = start_anew(connection, tenant_id, inactivity_micros)
    people = take_changes(connection, tenant_id, limit)
    if not people or totals.suspended is not None:
        return Step(len(people), 0)
    old = contributions(connection, tenant_id, people)
    new: dict[str, StoredContribution] = {}
    rules = FinishRules(stored_policies(connection), inactivity_micros)
    for rows in stream_timelines(connection, Selection(tenant_id, people=people)):
        for part in parts_of_people(rows):
            found = contributions_of(finished_journeys(part, rules))
            new |= {key: each.stored() for key, each in found.items()}
    changed = [key for key in people if old.get(key) != new.get(key)]
    gone = [key for key in changed if key in old]
    come = {key: new[key] for key in changed if key in new}
    difference = change((old[key] for key in gone), come.values())
    replace_contributions(connection, tenant_id, gone, come)
    crash_at("trainer_in_state_step")
    if not _replace_sums(connection, tenant_id, difference):
        clear(connection, tenant_id)
        store_totals(connection, tenant_id, Totals(inactivity_micros, 0, 0, 0, {}, 0, TOO_MANY_CHANNELS))
        _log.warning("incremental state suspended", tenant=tenant_id, why=TOO_MANY_CHANNELS)
        return Step(len(people), 0)
    store_totals(connection, tenant_id, _moved(totals, difference, len(changed)))
    crash_at("trainer_before_state_commit")
    return Step(len(people), len(changed))


def _replace_sums(connection: psycopg.Connection, tenant_id: str, difference: Change) -> bool:
    """Replace the sums of a change. Return False for a day with too many channels: then nothing more is done."""
    touched = sorted(set(difference.retracted) | set(difference.added))
    documents = periods(connection, tenant_id, touched)
    empty = JourneyState.empty()
    renewed: dict[Period, Mapping[str, object] | None] = {}
    for period in touched:
        retracted, added = difference.retracted.get(period, ()), difference.added.get(period, ())
        channels = {channel for journey in (*retracted, *added) for channel in journey.path}
        if len(channels.union(documents.get(period, {}).get("channels", ()))) > MAX_CHANNELS:
            return False
        before = JourneyState.from_document(documents[period]) if period in documents else empty
        after = before.replace(state_of(retracted), state_of(added))
        renewed[period] = after.to_document() if after.sets else None
    replace_periods(connection, tenant_id, renewed)
    return True


def _moved(totals: Totals, difference: Change, replaced: int) -> Totals:
    policies = dict(totals.policies)
    for policy, number in difference.policies.items():
        policies[policy] = policies.get(policy, 0) + number
    return replace(
        totals,
        people=totals.people + difference.people,
        open_touches=totals.open_touches + difference.open_touches,
        passed_over=totals.passed_over + difference.passed_over,
        policies={policy: number for policy, number in sorted(policies.items()) if number},
        replaced=totals.replaced + replaced,
    )


def catch_up(
    connection: psycopg.Connection, tenant_id: str, inactivity_micros: int, progress: Progress = no_progress
) -> None:
    """Take all pending steps of a tenant, each one transaction under the state lock.

    Args:
        connection: not in a transaction.
        tenant_id: the tenant.
        inactivity_micros: silence that ends a journey without conversion, microseconds.
        progress: called after each step with changes done and changes in all; may raise to stop.
    """
    with state_lock(connection, wait=True), fresh_snapshot(connection):
        waiting = pending_changes(connection, tenant_id)[0]
    done = 0
    while True:
        with state_lock(connection, wait=True), snapshot(connection):
            taken = step(connection, tenant_id, inactivity_micros).changes
        if not taken:
            return
        done += taken
        progress(min(done, waiting), waiting)


def current_statistics(
    connection: psycopg.Connection,
    tenant_id: str,
    inactivity_micros: int,
    *,
    currency: str | None = None,
    progress: Progress = no_progress,
) -> WindowStatistics | None:
    """Bring the incremental state of a tenant up to date and return its statistics; None without a state.

    Args:
        connection: not in a transaction; writes.
        tenant_id: the tenant.
        inactivity_micros: silence that ends a journey without conversion, microseconds.
        currency: of the values; None: the most common one.
        progress: as for `catch_up`.
    """
    with snapshot(connection):
        totals = totals_of(connection, tenant_id)
        if totals is None or totals.suspended is not None:
            return None
    catch_up(connection, tenant_id, inactivity_micros, progress)
    with state_lock(connection, wait=True), fresh_snapshot(connection):
        _apply_pending(connection, tenant_id, inactivity_micros)
        return _statistics(connection, tenant_id, currency) if _fits(connection, tenant_id) else None


def _fits(connection: psycopg.Connection, tenant_id: str) -> bool:
    """Tell whether the sums of a tenant are there, and small enough for one training."""
    totals = totals_of(connection, tenant_id)
    if totals is None or totals.suspended is not None:
        return False
    names, sizes = set[str](), list[int]()
    for channels in channels_of_periods(connection, tenant_id):
        names.update(channels)
        sizes.append(len(channels))
        if len(names) > MAX_CHANNELS:
            return False
    try:
        check_cells(sizes)
    except TooLargeError:
        return False
    return True


def _apply_pending(connection: psycopg.Connection, tenant_id: str, inactivity_micros: int) -> None:
    while step(connection, tenant_id, inactivity_micros).changes:
        pass


def _statistics(connection: psycopg.Connection, tenant_id: str, currency: str | None) -> WindowStatistics:
    totals = totals_of(connection, tenant_id) or Totals(0, 0, 0, 0, {}, 0)
    states = {
        period: JourneyState.from_document(document) for period, document in stream_periods(connection, tenant_id)
    }
    counts = ReadCounts(people=totals.people, open_touches=totals.open_touches, passed_over=totals.passed_over)
    return WindowStatistics.of_periods(states, counts, tuple(totals.policies), currency=currency, is_incremental=True)


def rebuild(
    connection: psycopg.Connection, tenant_id: str, inactivity_micros: int, progress: Progress = no_progress
) -> None:
    """Rebuild the state of a tenant from the store, in steps; if interrupted, the next caller goes on."""
    with state_lock(connection, wait=True), fresh_snapshot(connection):
        start_anew(connection, tenant_id, inactivity_micros)
    catch_up(connection, tenant_id, inactivity_micros, progress)


def verify(
    connection: psycopg.Connection, tenant_id: str, inactivity_micros: int, progress: Progress = no_progress
) -> Difference:
    """Bring the state up to date and compare it with a fresh reading of all people in the same snapshot."""
    catch_up(connection, tenant_id, inactivity_micros)
    with state_lock(connection, wait=True), fresh_snapshot(connection):
        _apply_pending(connection, tenant_id, inactivity_micros)
        totals = totals_of(connection, tenant_id)
        if totals is not None and totals.suspended is not None:
            raise TooLargeError(f"tenant {tenant_id} has no incremental state: {totals.suspended}")
        return _compared(connection, tenant_id, inactivity_micros, progress)


def _compared(connection: psycopg.Connection, tenant_id: str, inactivity_micros: int, progress: Progress) -> Difference:
    totals = totals_of(connection, tenant_id) or Totals(0, 0, 0, 0, {}, 0)
    fresh: dict[Period, JourneyState] = {}
    expected = replace(totals, people=0, open_touches=0, passed_over=0, policies={})
    wrong = 0
    for found in read_journeys(connection, Window(tenant_id, closing=Closing.SWEPT), inactivity_micros, progress):
        everybody = {key: each.stored() for key, each in contributions_of(found).items()}
        stored = contributions(connection, tenant_id, list(everybody))
        wrong += sum(stored.get(key) != each for key, each in everybody.items())
        difference = change((), everybody.values())
        expected = _moved(expected, difference, 0)
        for period, journeys in difference.added.items():
            state = state_of(journeys)
            fresh[period] = fresh[period].add(state) if period in fresh else state
    kept = periods(connection, tenant_id)
    documents = {period: state.to_document() for period, state in fresh.items()}
    periods_wrong = sum(kept.get(period) != documents.get(period) for period in set(kept) | set(documents))
    return Difference(
        expected.people,
        wrong + max(count_contributions(connection, tenant_id) - expected.people, 0),
        periods_wrong,
        replace(totals, replaced=0) != replace(expected, replaced=0),
    )
