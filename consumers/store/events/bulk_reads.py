"""What is stored, read back in bulk: touchpoints, conversions, journeys and results, by person, by time or by key.

For analyses, exports and services; the stages have statements of their own. Invariants: one statement a call, however
much is asked for; ranges of time are half open, ``since <= time < until``; times are microseconds UTC; what is returned
is in the order of time, then id, and depends on the stored rows alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import psycopg

from attributary.consumers.store.identity_sql import touchpoints_of
from attributary.consumers.store.results.results import RESULT_COLUMNS

from .attribution_inputs import IDENTITIES_OF_PERSON

Key = tuple[str, str]  # tenant, and conversion id or journey key
EARLIEST_US, LATEST_US = -(2**62), 2**62
_ROWS_AT_ONCE = 5_000


class PersonAndTime(NamedTuple):
    """The people and the time of the touchpoints that are wanted."""

    tenant_id: str
    journey_key: str
    since: int = EARLIEST_US
    until: int = LATEST_US


class StoredTouchpoint(NamedTuple):
    """A touchpoint; ``details`` holds the fields of the event that have no column."""

    tenant_id: str
    event_id: str
    identity_key: str
    occurred_at: int
    received_at: int
    platform: str
    channel: str
    interaction: str
    campaign: str
    is_bot: bool
    details: dict[str, Any]


class StoredConversion(NamedTuple):
    """A conversion as it stands now."""

    tenant_id: str
    conversion_id: str
    conversion_type: str
    journey_key: str
    converted_at: int
    received_at: int
    gross_value_micros: int
    net_value_micros: int
    currency: str
    order_id: str | None
    version: int
    version_reason: str
    is_final: bool
    observed_version: int


class StoredJourney(NamedTuple):
    """What is known of the events under one identity key: their bounds, and whether it is closed for inactivity."""

    tenant_id: str
    journey_key: str
    first_event_at: int
    last_event_at: int
    last_received_at: int
    closed_at: datetime | None


class StoredResult(NamedTuple):
    """One version of a conversion's result, as it was published; the lists hold what the columns' comments say."""

    tenant_id: str
    conversion_id: str
    version: int
    version_reason: str
    is_final: bool
    conversion_type: str
    converted_at: int
    journey_key: str
    net_value_micros: int
    gross_value_micros: int
    delta_micros: int
    currency: str
    policy_version: str
    touchpoint_count: int
    touchpoints: list[dict[str, Any]]
    models: list[dict[str, Any]]
    insights: list[Any]
    computed_at: int
    content_hash: str
    stored_at: datetime


_TOUCHPOINT = """t.tenant_id, t.event_id, t.identity_key, t.occurred_at_us, t.received_at_us, t.platform, t.channel,
       t.interaction, t.campaign, t.is_bot, t.details"""
_CONVERSION = """c.tenant_id, c.conversion_id, c.conversion_type, c.journey_key, c.converted_at_us, c.received_at_us,
       c.gross_value_micros, c.net_value_micros, c.currency, c.order_id, c.version, c.version_reason, c.is_final,
       c.observed_version"""
_RESULT = ", ".join(f"r.{column}" for column in (*RESULT_COLUMNS, "created_at"))

_TOUCHPOINTS_OF_PEOPLE = f"""
SELECT w.seq, {_TOUCHPOINT}
FROM unnest(%s::int4[], %s::text[], %s::text[], %s::int8[], %s::int8[])
     AS w (seq, tenant_id, journey_key, since_us, until_us)
{IDENTITIES_OF_PERSON}
CROSS JOIN LATERAL (
    SELECT t.* FROM attribution_touchpoints t
    WHERE {touchpoints_of("t", "w.tenant_id", "person.identity_key")}
      AND t.occurred_at_us >= w.since_us AND t.occurred_at_us < w.until_us
    -- A look-up a device: joined, Memoize compares each device with all touchpoints of the tenant; without an order the
    -- key's index seems as good while there are few.
    ORDER BY t.occurred_at_us OFFSET 0
) AS t
WHERE NOT EXISTS (
    SELECT FROM attribution_identities o
    WHERE w.journey_key < 'a;' COLLATE "C" AND o.tenant_id = w.tenant_id
      AND o.anonymous_id = substr(w.journey_key, 3) COLLATE "C"
)
ORDER BY w.seq, t.occurred_at_us, t.event_id
"""

_TOUCHPOINTS_BETWEEN = f"""
SELECT {_TOUCHPOINT} FROM attribution_touchpoints t
WHERE t.tenant_id = %(tenant)s AND t.occurred_at_us >= %(since)s AND t.occurred_at_us < %(until)s
ORDER BY t.occurred_at_us, t.event_id
"""

_CONVERSIONS_BETWEEN = f"""
SELECT {_CONVERSION} FROM attribution_conversions c
WHERE c.tenant_id = %(tenant)s AND c.converted_at_us >= %(since)s AND c.converted_at_us < %(until)s AND c.version > 0
  AND (%(types)s::text[] IS NULL OR c.conversion_type = ANY (%(types)s::text[]))
ORDER BY c.converted_at_us, c.conversion_id
"""

_JOURNEYS = """
SELECT j.tenant_id, j.journey_key, j.first_event_us, j.last_event_us, j.last_received_us, j.closed_at
FROM unnest(%s::text[], %s::text[]) AS k (tenant_id, journey_key)
JOIN attribution_journeys j ON j.tenant_id = k.tenant_id AND j.journey_key = k.journey_key COLLATE "C"
ORDER BY j.tenant_id, j.journey_key
"""

_NEWEST_RESULTS = f"""
SELECT newest.*
FROM (SELECT DISTINCT tenant_id, conversion_id FROM unnest(%s::text[], %s::text[]) AS k (tenant_id, conversion_id)) AS k
CROSS JOIN LATERAL (
    SELECT {_RESULT} FROM attribution_results r
    WHERE r.tenant_id = k.tenant_id AND r.conversion_id = k.conversion_id
      AND (%s::timestamptz IS NULL OR r.created_at <= %s::timestamptz)
    ORDER BY r.version DESC LIMIT 1
) AS newest
ORDER BY newest.tenant_id, newest.conversion_id
"""

_RESULTS_OF_VERSIONS = f"""
SELECT {_RESULT}
FROM unnest(%s::text[], %s::text[], %s::int8[]) AS k (tenant_id, conversion_id, version)
JOIN attribution_results r USING (tenant_id, conversion_id, version)
ORDER BY r.tenant_id, r.conversion_id, r.version
"""


def touchpoints_of_people(
    connection: psycopg.Connection, people: Sequence[PersonAndTime]
) -> list[list[StoredTouchpoint]]:
    """Return the touchpoints of people, over all identities that belong to each now.

    Args:
        connection: in a snapshot, if several calls must agree.
        people: who, and of which time. An anonymous id that belongs to a user has no touchpoints of its own.

    Returns:
        One list a person, in the order asked for; robots' touchpoints are among them.
    """
    found: list[list[StoredTouchpoint]] = [[] for _ in people]
    if people:
        columns = [list(column) for column in zip(*people, strict=True)]
        for seq, *row in connection.execute(_TOUCHPOINTS_OF_PEOPLE, [list(range(len(people))), *columns]).fetchall():
            found[seq].append(StoredTouchpoint(*row))
    return found


def touchpoints_between(
    connection: psycopg.Connection, tenant_id: str, since: int, until: int
) -> Iterator[StoredTouchpoint]:
    """Yield the touchpoints of a tenant in a range of event time; a large range costs no memory."""
    parameters = {"tenant": tenant_id, "since": since, "until": until}
    for row in _stream(connection, "touchpoints", _TOUCHPOINTS_BETWEEN, parameters):
        yield StoredTouchpoint(*row)


def conversions_between(
    connection: psycopg.Connection, tenant_id: str, since: int, until: int, types: Sequence[str] | None = None
) -> Iterator[StoredConversion]:
    """Yield the conversions of a tenant in a range of event time, of some types or of all; none that still waits."""
    parameters = {"tenant": tenant_id, "since": since, "until": until, "types": None if types is None else list(types)}
    for row in _stream(connection, "conversions", _CONVERSIONS_BETWEEN, parameters):
        yield StoredConversion(*row)


def journeys_by_key(connection: psycopg.Connection, keys: Sequence[Key]) -> list[StoredJourney]:
    """Return the journeys of (tenant, journey key), those that exist, by key."""
    return [StoredJourney(*row) for row in connection.execute(_JOURNEYS, _columns(keys, 2)).fetchall()]


def newest_results(
    connection: psycopg.Connection, keys: Sequence[Key], *, as_reported_at: datetime | None = None
) -> list[StoredResult]:
    """Return the newest result of each (tenant, conversion id) that has one, by key.

    Args:
        connection: any.
        keys: the conversions.
        as_reported_at: only results that were stored by then: what a report of that moment showed, whatever arrived
            since. None: now.
    """
    parameters = [*_columns(keys, 2), as_reported_at, as_reported_at]
    return [StoredResult(*row) for row in connection.execute(_NEWEST_RESULTS, parameters).fetchall()]


def results_of_versions(connection: psycopg.Connection, keys: Sequence[tuple[str, str, int]]) -> list[StoredResult]:
    """Return the results of (tenant, conversion id, version), those that are stored, by key."""
    return [StoredResult(*row) for row in connection.execute(_RESULTS_OF_VERSIONS, _columns(keys, 3)).fetchall()]


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]


def _stream(
    connection: psycopg.Connection, name: str, statement: str, parameters: dict[str, Any]
) -> Iterator[tuple[Any, ...]]:
    with connection.transaction(), connection.cursor(name=f"reading_{name}") as cursor:
        cursor.itersize = _ROWS_AT_ONCE
        cursor.execute(statement, parameters)
        yield from cursor
