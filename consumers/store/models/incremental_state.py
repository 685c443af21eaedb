"""The incremental state in Postgres: contributions of people, sums by day, totals.

Invariant: a writer holds the state lock and works in one snapshot. State, contributions and the removal of pending
changes are one transaction, so a crash leaves all of them as they were before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg
from psycopg.types.json import Jsonb

from attributary.consumers.store.connection import translated_errors

Period = tuple[int, str]
"""Day of the end (days since 1970-01-01 UTC), and currency; the empty currency: journeys without conversion."""

# An arbitrary constant that names this lock in Postgres.
_LOCK = 0x6174747A

_TOTALS = """
SELECT inactivity_micros, people, open_touches, passed_over, policies, replaced, suspended
FROM attribution_training_upkeep WHERE tenant_id = %s
"""
_STORE_TOTALS = """
INSERT INTO attribution_training_upkeep AS u (
    tenant_id, inactivity_micros, people, open_touches, passed_over, policies, replaced, suspended)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (tenant_id) DO UPDATE SET
    inactivity_micros = excluded.inactivity_micros, people = excluded.people, open_touches = excluded.open_touches,
    passed_over = excluded.passed_over, policies = excluded.policies, replaced = excluded.replaced,
    suspended = excluded.suspended, updated_at = now()
"""
_CONTRIBUTIONS = """
SELECT p.journey_key, p.journeys, p.open_touches, p.passed_over
FROM unnest(%s::text[]) AS k (journey_key)
JOIN attribution_training_people p ON p.tenant_id = %s AND p.journey_key = k.journey_key
"""
# No COPY: Postgres refuses it into a table with row security, whatever the policy says.
_STORE_CONTRIBUTIONS = """
INSERT INTO attribution_training_people (tenant_id, journey_key, journeys, open_touches, passed_over)
SELECT %s, * FROM unnest(%s::text[], %s::text[], %s::int4[], %s::int4[])
"""
_STORE_PERIOD = "INSERT INTO attribution_training_periods (tenant_id, day, currency, state) VALUES (%s, %s, %s, %s)"
_ROWS = 10_000
_DROP_CONTRIBUTIONS = """
DELETE FROM attribution_training_people WHERE tenant_id = %s AND journey_key = ANY (%s::text[])
"""
_PERIODS = """
SELECT day, currency, state FROM attribution_training_periods
WHERE tenant_id = %s ORDER BY day, currency
"""
_PERIOD_CHANNELS = "SELECT state -> 'channels' FROM attribution_training_periods WHERE tenant_id = %s"
_SOME_PERIODS = """
SELECT p.day, p.currency, p.state FROM unnest(%s::int4[], %s::text[]) AS k (day, currency)
JOIN attribution_training_periods p ON p.tenant_id = %s AND p.day = k.day AND p.currency = k.currency
"""
_DROP_PERIODS = """
DELETE FROM attribution_training_periods p USING unnest(%s::int4[], %s::text[]) AS k (day, currency)
WHERE p.tenant_id = %s AND p.day = k.day AND p.currency = k.currency
"""
_CLEAR = """
DELETE FROM attribution_training_people WHERE tenant_id = %(tenant)s;
DELETE FROM attribution_training_periods WHERE tenant_id = %(tenant)s;
DELETE FROM attribution_training_changes WHERE tenant_id = %(tenant)s;
"""


class StoredContribution(NamedTuple):
    """The contribution of a person: finished journeys as text, and numbers of unused touches."""

    journeys: str
    open_touches: int
    passed_over: int


@dataclass(frozen=True, slots=True)
class Totals:
    """Totals of the state of a tenant, beside the sums by day.

    Attributes:
        inactivity_micros: silence that ends a journey without conversion, microseconds.
        people: people in the state.
        open_touches: touches in journeys that are not finished.
        passed_over: touches that count for no conversion although one followed.
        policies: conversions by the version of their lookback policy.
        replaced: replacements of contributions so far.
        suspended: the reason why no state is kept for the tenant; None: one is kept.
    """

    inactivity_micros: int
    people: int
    open_touches: int
    passed_over: int
    policies: Mapping[str, int]
    replaced: int
    suspended: str | None = None


@contextmanager
def state_lock(connection: psycopg.Connection, *, wait: bool) -> Iterator[bool]:
    """Take the lock of all writers of the incremental state; yield False when another process holds it.

    It is a lock of the session: it must be held before a transaction takes its snapshot, and it ends with the
    connection.

    Args:
        connection: not in a transaction.
        wait: wait until the other process releases it.
    """
    with translated_errors():
        if wait:
            connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
            is_held = True
        else:
            is_held = bool(connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,)).fetchall()[0][0])
        connection.commit()
    try:
        yield is_held
    finally:
        if is_held and not connection.closed:
            with translated_errors():
                connection.rollback()
                connection.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))
                connection.commit()


def totals_of(connection: psycopg.Connection, tenant_id: str) -> Totals | None:
    """Return the totals of a tenant; None without a state."""
    row = connection.execute(_TOTALS, (tenant_id,)).fetchone()
    return Totals(*row) if row else None


def store_totals(connection: psycopg.Connection, tenant_id: str, totals: Totals) -> None:
    """Store the totals of a tenant."""
    policies = Jsonb(dict(totals.policies))
    counts = (totals.people, totals.open_touches, totals.passed_over)
    connection.execute(
        _STORE_TOTALS, (tenant_id, totals.inactivity_micros, *counts, policies, totals.replaced, totals.suspended)
    )


def tenants_with_state(connection: psycopg.Connection) -> list[str]:
    """Return the tenants with a state, by name."""
    rows = connection.execute("SELECT tenant_id FROM attribution_training_upkeep ORDER BY tenant_id").fetchall()
    return [row[0] for row in rows]


def clear(connection: psycopg.Connection, tenant_id: str) -> None:
    """Delete contributions, sums and pending changes of a tenant; the caller replaces the totals."""
    for statement in _CLEAR.split(";")[:-1]:
        connection.execute(statement, {"tenant": tenant_id})


def contributions(
    connection: psycopg.Connection, tenant_id: str, people: Sequence[str]
) -> dict[str, StoredContribution]:
    """Return the contributions of people; people without one are left out."""
    rows = connection.execute(_CONTRIBUTIONS, (list(people), tenant_id)).fetchall()
    return {row[0]: StoredContribution(*row[1:]) for row in rows}


def count_contributions(connection: psycopg.Connection, tenant_id: str) -> int:
    """Return the number of people with a contribution."""
    row = connection.execute(
        "SELECT count(*) FROM attribution_training_people WHERE tenant_id = %s", (tenant_id,)
    ).fetchone()
    return int(row[0]) if row else 0


def replace_contributions(
    connection: psycopg.Connection, tenant_id: str, gone: Sequence[str], new: Mapping[str, StoredContribution]
) -> None:
    """Delete the contributions of some people and store new ones."""
    if gone:
        connection.execute(_DROP_CONTRIBUTIONS, (tenant_id, list(gone)))
    if new:
        keys = sorted(new)
        for start in range(0, len(keys), _ROWS):
            part = keys[start : start + _ROWS]
            columns = zip(*(new[key] for key in part), strict=True)
            connection.execute(_STORE_CONTRIBUTIONS, (tenant_id, part, *map(list, columns)))


def channels_of_periods(connection: psycopg.Connection, tenant_id: str) -> Iterator[Sequence[str]]:
    """Yield the channels of each sum of a tenant; the sums themselves stay in Postgres."""
    with connection.cursor("attribution_period_channels") as cursor:
        cursor.execute(_PERIOD_CHANNELS, (tenant_id,))
        for row in cursor:
            yield row[0]


def stream_periods(connection: psycopg.Connection, tenant_id: str) -> Iterator[tuple[Period, Mapping[str, Any]]]:
    """Yield all sums of a tenant as documents, in order, some at a time."""
    with connection.cursor("attribution_periods") as cursor:
        cursor.itersize = 20
        cursor.execute(_PERIODS, (tenant_id,))
        for row in cursor:
            yield (row[0], row[1]), row[2]


def periods(
    connection: psycopg.Connection, tenant_id: str, wanted: Iterable[Period] | None = None
) -> dict[Period, Mapping[str, Any]]:
    """Return the sums by day and currency as documents: all, or those of the wanted periods that exist."""
    if wanted is None:
        rows = connection.execute(_PERIODS, (tenant_id,)).fetchall()
    else:
        rows = connection.execute(_SOME_PERIODS, (*_columns(wanted), tenant_id)).fetchall()
    return {(row[0], row[1]): row[2] for row in rows}


def replace_periods(
    connection: psycopg.Connection, tenant_id: str, new: Mapping[Period, Mapping[str, Any] | None]
) -> None:
    """Replace the sums of periods; None deletes a period."""
    if not new:
        return
    connection.execute(_DROP_PERIODS, (*_columns(new), tenant_id))
    with connection.cursor() as cursor:  # a document may have megabytes: each goes alone, in one pipeline
        cursor.executemany(
            _STORE_PERIOD,
            (
                (tenant_id, *period, Jsonb(dict(document)))
                for period, document in sorted(new.items(), key=lambda item: item[0])
                if document is not None
            ),
        )


def _columns(chosen: Iterable[Period]) -> tuple[list[int], list[str]]:
    ordered = sorted(chosen)
    return [day for day, _ in ordered], [currency for _, currency in ordered]
