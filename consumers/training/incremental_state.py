"""The training state kept up to date: find who changed, retract what they contributed, add what they contribute now.

One definition a tenant: all finished journeys, whom the sweeper closed counting as closed (`Closing.SWEPT`), with the
inactivity time of the policy in force; another inactivity time begins the state anew. The sums are by day and currency,
so that any currency and any forgetting can be had from them.

Invariant: once no change waits, the state equals what reading the store anew would give, bit by bit (`verify`). Every
step is one transaction over one snapshot: changes taken off, contributions, sums and totals. Steps are bounded by
people and taken by one process at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import psycopg

from attributary.attribution_core.statistics.state import JourneyState
from attributary.consumers.runtime.crash_points import crash_at, register_points
from attributary.consumers.store.connection import translated_errors
from attributary.consumers.store.models.changed_people import (
    all_people_changed,
    find_new_events,
    pending_changes,
    sight,
    take_changes,
)
from attributary.consumers.store.models.incremental_state import (
    Period,
    StoredContribution,
    Totals,
    clear,
    contributions,
    count_contributions,
    periods,
    replace_contributions,
    replace_periods,
    store_totals,
    totals_of,
    turn,
)
from attributary.consumers.store.models.timelines import Selection, stored_policies, stream_timelines

from .contributions import Change, change, contributions_of
from .journeys import FinishRules, finished_journeys
from .read_journeys import Closing, Learned, Progress, ReadCounts, Window, no_progress, read_journeys

register_points("trainer_in_upkeep", "trainer_before_upkeep_commit")

STEP_PEOPLE = 2_000
"""Changes a step: a job waits for a step at most."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a step did.

    Attributes:
        changes: people who were looked at.
        replaced: of these, whose contribution is another one now.
    """

    changes: int
    replaced: int


@dataclass(frozen=True, slots=True)
class Difference:
    """How the state that is kept differs from a fresh reading of the same snapshot.

    Attributes:
        people: people in the fresh reading.
        differing_people: people whose contribution differs, is missing or is too many.
        differing_periods: days and currencies whose sums differ, are missing or are too many.
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
def snapshot(connection: psycopg.Connection) -> Iterator[None]:
    """Run one transaction over one snapshot; may write."""
    with translated_errors(), connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        yield


@contextmanager
def looked(connection: psycopg.Connection) -> Iterator[int]:
    """Do as `snapshot` does, and note first whom new events concern; yields how many. In one's turn only."""
    with translated_errors(), connection.transaction():
        sighting = sight(connection)
    with snapshot(connection):
        yield find_new_events(connection, sighting)


def begin(connection: psycopg.Connection, tenant_id: str, inactivity_micros: int) -> Totals:
    """Begin the state of a tenant anew: everybody is to be looked at. In one's turn and a snapshot."""
    clear(connection, tenant_id)
    all_people_changed(connection, tenant_id)
    totals = Totals(inactivity_micros, 0, 0, 0, {}, 0)
    store_totals(connection, tenant_id, totals)
    return totals


def step(connection: psycopg.Connection, tenant_id: str, inactivity_micros: int, *, limit: int = STEP_PEOPLE) -> Step:
    """Replace the contributions of some people who changed. In one's turn and a snapshot.

    Raises:
        StateError: contributions and sums do not fit; it cannot happen while nobody else writes to them.
        UnknownPolicyError: a conversion pins a policy that is not stored.
    """
    totals = totals_of(connection, tenant_id)
    if totals is None or totals.inactivity_micros != inactivity_micros:
        totals = begin(connection, tenant_id, inactivity_micros)
    people = take_changes(connection, tenant_id, limit)
    if not people:
        return Step(0, 0)
    old = contributions(connection, tenant_id, people)
    new: dict[str, StoredContribution] = {}
    rules = FinishRules(stored_policies(connection), inactivity_micros)
    for rows in stream_timelines(connection, Selection(tenant_id, people=people)):
        found = contributions_of(finished_journeys(rows, rules))
        new |= {key: each.stored() for key, each in found.items()}
    changed = [key for key in people if old.get(key) != new.get(key)]
    gone = [key for key in changed if key in old]
    come = {key: new[key] for key in changed if key in new}
    difference = change((old[key] for key in gone), come.values())
    replace_contributions(connection, tenant_id, gone, come)
    crash_at("trainer_in_upkeep")
    _replace_sums(connection, tenant_id, difference)
    store_totals(connection, tenant_id, _moved(totals, difference, len(changed)))
    crash_at("trainer_before_upkeep_commit")
    return Step(len(people), len(changed))


def _replace_sums(connection: psycopg.Connection, tenant_id: str, difference: Change) -> None:
    touched = sorted(set(difference.off) | set(difference.on))
    documents = periods(connection, tenant_id, touched)
    empty = JourneyState.empty()
    renewed: dict[Period, Mapping[str, object] | None] = {}
    for period in touched:
        before = JourneyState.from_document(documents[period]) if period in documents else empty
        after = before.replace(difference.off.get(period, empty), difference.on.get(period, empty))
        renewed[period] = after.to_document() if after.sets else None
    replace_periods(connection, tenant_id, renewed)


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
    """Take all steps of a tenant that there are, each a transaction in a turn of its own.

    Args:
        connection: not in a transaction.
        tenant_id: whose.
        inactivity_micros: silence that ends a journey without conversion, microseconds.
        progress: told after each step of how many changes of how many; may raise to stop.
    """
    with turn(connection, wait=True), looked(connection):
        waiting = pending_changes(connection, tenant_id)[0]
    done = 0
    while True:
        with turn(connection, wait=True), snapshot(connection):
            taken = step(connection, tenant_id, inactivity_micros).changes
        if not taken:
            return
        done += taken
        progress(min(done, waiting), waiting)


def upkept(
    connection: psycopg.Connection,
    tenant_id: str,
    inactivity_micros: int,
    *,
    currency: str | None = None,
    progress: Progress = no_progress,
) -> Learned | None:
    """Return the statistics of a tenant from the state that is kept, brought up to date; None when none is kept.

    Args:
        connection: not in a transaction; may write.
        tenant_id: whose.
        inactivity_micros: silence that ends a journey without conversion, microseconds.
        currency: of the values; the commonest when not given.
        progress: as for `catch_up`.
    """
    with snapshot(connection):
        if totals_of(connection, tenant_id) is None:
            return None
    catch_up(connection, tenant_id, inactivity_micros, progress)
    with turn(connection, wait=True), looked(connection):
        _finish(connection, tenant_id, inactivity_micros)
        return _kept(connection, tenant_id, currency)


def _finish(connection: psycopg.Connection, tenant_id: str, inactivity_micros: int) -> None:
    while step(connection, tenant_id, inactivity_micros).changes:
        pass


def _kept(connection: psycopg.Connection, tenant_id: str, currency: str | None) -> Learned:
    totals = totals_of(connection, tenant_id) or Totals(0, 0, 0, 0, {}, 0)
    states = {
        period: JourneyState.from_document(document) for period, document in periods(connection, tenant_id).items()
    }
    counts = ReadCounts(totals.people, totals.open_touches, totals.passed_over)
    return Learned.of_periods(states, counts, tuple(totals.policies), currency=currency, is_upkept=True)


def rebuild(
    connection: psycopg.Connection, tenant_id: str, inactivity_micros: int, progress: Progress = no_progress
) -> None:
    """Throw the state of a tenant away and build it from the store; cut short, whoever comes next goes on."""
    with turn(connection, wait=True), looked(connection):
        begin(connection, tenant_id, inactivity_micros)
    catch_up(connection, tenant_id, inactivity_micros, progress)


def verify(
    connection: psycopg.Connection, tenant_id: str, inactivity_micros: int, progress: Progress = no_progress
) -> Difference:
    """Compare the state, brought up to date, with a fresh reading of everybody in the same snapshot."""
    catch_up(connection, tenant_id, inactivity_micros)
    with turn(connection, wait=True), looked(connection):
        _finish(connection, tenant_id, inactivity_micros)
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
        for period, state in difference.on.items():
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
