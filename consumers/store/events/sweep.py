"""What the sweeper finds and writes: versions without a result, conversions to finalise, journeys to close.

All set-based and bounded by a limit; run again until nothing is left.
"""

from __future__ import annotations

from typing import NamedTuple

import psycopg

from attributary.consumers.store.models.changed_people import change_note_sql

from .policies import policy_in_force_sql
from .rows import RaisedVersion


class Backlog(NamedTuple):
    """Conversions without a result of their newest version: how many, and the age of the oldest in seconds."""

    conversions: int
    oldest_seconds: float


_BACKLOG = """
SELECT count(*), COALESCE(EXTRACT(epoch FROM now() - min(versioned_at)), 0)::float8
FROM attribution_conversions WHERE observed_version < version
"""

_OVERDUE = """
SELECT tenant_id, conversion_id, version, version_reason, event_published_us
FROM attribution_conversions
WHERE observed_version < version AND versioned_at < now() - make_interval(secs => %s)
ORDER BY versioned_at LIMIT %s
"""

_REPINNED = f"FROM due WHERE policy_version <> {policy_in_force_sql('tenant_id', '%(policy_version)s')}"

# The stitcher may hold some of these rows: they are left for the next turn. So their order does not matter, and is that
# of the index of open conversions: in the order of the key every sweep would read all conversions there are.
_FINALISE = f"""
WITH due AS (
    SELECT tenant_id, conversion_id, journey_key, policy_version FROM attribution_conversions
    WHERE NOT is_final AND version > 0 AND received_at_us < %(due_before_us)s
    ORDER BY received_at_us, tenant_id, conversion_id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), told AS (
    {change_note_sql("tenant_id, journey_key", _REPINNED)}
)
UPDATE attribution_conversions AS c
SET is_final = true, version = c.version + 1, version_reason = 'final', previous_net_micros = c.net_value_micros,
    policy_version = {policy_in_force_sql("c.tenant_id", "%(policy_version)s")},
    model_set = COALESCE((SELECT max(s.model_set) FROM attribution_model_sets s WHERE s.tenant_id = c.tenant_id), 0),
    versioned_at = now(), updated_at = now(), event_published_us = %(now_us)s,
    owner_topic = '', owner_partition = 0, owner_offset = 0
FROM due WHERE c.tenant_id = due.tenant_id AND c.conversion_id = due.conversion_id
RETURNING c.tenant_id, c.conversion_id, c.version, c.version_reason, c.event_published_us
"""

_CLOSE = f"""
WITH due AS (
    SELECT tenant_id, journey_key FROM attribution_journeys
    WHERE closed_at IS NULL AND last_received_us < %s
    ORDER BY tenant_id, journey_key LIMIT %s FOR UPDATE SKIP LOCKED
), told AS (
    {change_note_sql("tenant_id, journey_key", "FROM due")}
)
UPDATE attribution_journeys AS j SET closed_at = now(), updated_at = now()
FROM due WHERE j.tenant_id = due.tenant_id AND j.journey_key = due.journey_key
"""


def backlog(connection: psycopg.Connection) -> Backlog:
    """Return how much is owed."""
    row = connection.execute(_BACKLOG).fetchone()
    return Backlog(*row) if row else Backlog(0, 0.0)


def overdue(connection: psycopg.Connection, older_than_seconds: float, limit: int) -> list[RaisedVersion]:
    """Return versions that were raised so long ago without a result, the oldest first."""
    return [RaisedVersion(*row) for row in connection.execute(_OVERDUE, (older_than_seconds, limit)).fetchall()]


def finalise(
    connection: psycopg.Connection, *, due_before_us: int, now_us: int, policy_version: str, limit: int
) -> list[RaisedVersion]:
    """Make conversions final that arrived before a time; return their new versions, by key.

    Args:
        connection: in a transaction.
        due_before_us: log-append time of the conversion, microseconds UTC, below which no event may change it.
        now_us: time of the decision, microseconds UTC.
        policy_version: the lookback policy in force.
        limit: at most so many.
    """
    rows = connection.execute(
        _FINALISE,
        {"due_before_us": due_before_us, "now_us": now_us, "policy_version": policy_version, "limit": limit},
    ).fetchall()
    return sorted(RaisedVersion(*row) for row in rows)


def close_journeys(connection: psycopg.Connection, *, silent_since_us: int, limit: int) -> int:
    """Close journeys that received nothing since a time (microseconds UTC); return how many.

    Reads all journeys: an index that knows the open ones would be written by every event.
    """
    return connection.execute(_CLOSE, (silent_since_us, limit)).rowcount
