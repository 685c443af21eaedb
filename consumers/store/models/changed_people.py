"""The people who changed since the incremental state was last brought up to date.

Two sources, and together they are complete. *New events*: the rows that the stitcher inserts or replaces are found by
a search for rows written since the last time; nothing is added to its hot path. *Other changes* happen to a person
without an event of that person: an anonymous id or a conversion moves away, a replaced touchpoint, the sweeper closes a
journey or pins another policy, a refit, a repair. Each of them writes a row of ``attribution_training_changes`` in its
own transaction (`change_note_sql`).

Invariant: a change that a snapshot sees is in the table, or `note_new_events` finds it in that snapshot, in whatever
order transactions commit. A row is new when its transaction had not surely ended at the last search
(``snapshot_xmin``); that test is exact. Only rows *written* since a time are searched, and that time is safe: it
advances only when every transaction that ran at it has ended, and the ``now()`` of a transaction is the time of its
start. After a restart or a replacement of the server, or when its clock went back, all rows are searched once.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import psycopg

from attributary.consumers.store.identity_sql import device_key, user_key

# Between the start of a transaction's clock and its entry among those that run are a few instructions of the server.
_MARGIN = timedelta(seconds=60)
# Ages of transactions are compared modulo 2^32; long before that becomes ambiguous, all people are noted again.
_OLDEST_AGE = 1_000_000_000


class ServerActivity(NamedTuple):
    """Clock and running transactions of the server, read just before a snapshot is taken."""

    looked_at: datetime
    server_started: datetime
    running: frozenset[str]


_RUNNING = "SELECT virtualxid FROM pg_locks WHERE locktype = 'virtualxid' AND granted AND pid <> pg_backend_pid()"

_WATERMARK = """
SELECT age((snapshot_xmin & 4294967295)::text::xid), (snapshot_xmin & 4294967295)::text, written_since, looked_at,
       running, found_at, server_started
FROM attribution_training_watermark WHERE tenant_id = '*'
"""

_EVERYBODY = """
INSERT INTO attribution_training_changes (tenant_id, identity_key)
SELECT tenant_id, journey_key FROM (
    SELECT tenant_id, journey_key FROM attribution_journeys
    UNION
    SELECT tenant_id, journey_key FROM attribution_training_people
) AS known
WHERE %(tenant)s::text IS NULL OR tenant_id = %(tenant)s
ORDER BY tenant_id, journey_key
"""


def _new(row: str) -> str:
    return f"""(%(since)s::timestamptz IS NULL OR {row}.updated_at >= %(since)s)
      AND age({row}.xmin) <= age(%(xmin)s::text::xid)"""


_NEW_EVENTS = f"""
INSERT INTO attribution_training_changes (tenant_id, identity_key)
SELECT DISTINCT tenant_id, identity_key FROM (
    SELECT t.tenant_id, k.identity_key FROM attribution_touchpoints t
    CROSS JOIN LATERAL (VALUES (t.identity_key), ({device_key("t.anonymous_id")})) AS k (identity_key)
    WHERE {_new("t")}
    UNION ALL
    SELECT e.tenant_id, k.identity_key FROM attribution_conversion_events e
    LEFT JOIN attribution_conversions c ON c.tenant_id = e.tenant_id AND c.conversion_id = e.conversion_id
    CROSS JOIN LATERAL (VALUES (e.identity_key), ({device_key("e.anonymous_id")}), (c.journey_key)) AS k (identity_key)
    WHERE {_new("e")}
    UNION ALL
    SELECT l.tenant_id, k.identity_key FROM attribution_identity_links l
    CROSS JOIN LATERAL (VALUES ({device_key("l.anonymous_id")}), ({user_key("l.user_id")})) AS k (identity_key)
    WHERE {_new("l")}
) AS found
WHERE identity_key <> ''
ORDER BY tenant_id, identity_key
"""

_STORE_WATERMARK = """
INSERT INTO attribution_training_watermark AS w (
    snapshot_xmin, written_since, looked_at, running, found_at, server_started)
VALUES (pg_snapshot_xmin(pg_current_snapshot())::text::bigint, %(since)s, %(looked_at)s, %(running)s, %(found_at)s,
        %(server_started)s)
ON CONFLICT (tenant_id) DO UPDATE SET
    snapshot_xmin = excluded.snapshot_xmin, written_since = excluded.written_since, looked_at = excluded.looked_at,
    running = excluded.running, found_at = excluded.found_at, server_started = excluded.server_started,
    updated_at = now()
"""

_TAKE = f"""
WITH taken AS (
    DELETE FROM attribution_training_changes
    WHERE tenant_id = %(tenant)s AND change_number = ANY (ARRAY(
        SELECT change_number FROM attribution_training_changes WHERE tenant_id = %(tenant)s
        ORDER BY change_number LIMIT %(limit)s))
    RETURNING identity_key
)
SELECT identity_key FROM taken
UNION
SELECT {user_key("i.user_id")} FROM taken
JOIN attribution_identities i ON i.tenant_id = %(tenant)s AND i.anonymous_id = substr(taken.identity_key, 3)
WHERE taken.identity_key < 'a;' COLLATE "C"
"""

_NEXT_TENANT = """
SELECT tenant_id FROM attribution_training_changes WHERE tenant_id > %s COLLATE "C" ORDER BY tenant_id LIMIT 1
"""

_PENDING = """
SELECT count(*), COALESCE(EXTRACT(epoch FROM clock_timestamp() - min(created_at)), 0)::float8
FROM attribution_training_changes WHERE %(tenant)s::text IS NULL OR tenant_id = %(tenant)s
"""

_SINCE_LOOK = """
SELECT EXTRACT(epoch FROM clock_timestamp() - found_at)::float8
FROM attribution_training_watermark WHERE tenant_id = '*'
"""


def change_note_sql(columns: str, source: str) -> str:
    """Return the statement that notes changed people, for a CTE of the statement that changes them.

    Args:
        columns: expressions for the tenant and the identity key.
        source: the rest of the query, from its FROM on.
    """
    return f"INSERT INTO attribution_training_changes (tenant_id, identity_key) SELECT DISTINCT {columns} {source}"


def server_activity(connection: psycopg.Connection) -> ServerActivity:
    """Return the activity of the server; in a transaction that ends before the snapshot of `note_new_events` begins."""
    looked_at, started = connection.execute("SELECT clock_timestamp(), pg_postmaster_start_time()").fetchall()[0]
    running = connection.execute(_RUNNING).fetchall()  # after the clock: includes those that start between the two
    return ServerActivity(looked_at, started, frozenset(each[0] for each in running))


def note_new_events(connection: psycopg.Connection, activity: ServerActivity) -> int:
    """Note the people of events that were written since the last call. Return how many.

    Args:
        connection: in a snapshot (REPEATABLE READ) that was taken after the activity; under the state lock.
        activity: of just before.
    """
    known = connection.execute(_WATERMARK).fetchone()
    if known is None or not 0 <= known[0] < _OLDEST_AGE:
        found = note_all_people(connection, None)
        _store_watermark(connection, None, activity.looked_at, activity.running, activity)
        return found
    _, xmin, since, looked_at, running, found_at, server_started = known
    distrusted = server_started != activity.server_started or activity.looked_at < max(found_at, looked_at)
    bound = None if since is None or distrusted else since - _MARGIN
    found = connection.execute(_NEW_EVENTS, {"since": bound, "xmin": xmin}).rowcount
    if distrusted:
        _store_watermark(connection, None, activity.looked_at, activity.running, activity)
    elif activity.running.isdisjoint(running):  # all that ran then has ended, and this snapshot sees it
        _store_watermark(connection, looked_at, activity.looked_at, activity.running, activity)
    else:
        _store_watermark(connection, since, looked_at, frozenset(running), activity)
    return found


def _store_watermark(
    connection: psycopg.Connection,
    since: datetime | None,
    looked_at: datetime,
    running: frozenset[str],
    activity: ServerActivity,
) -> None:
    values = {"since": since, "looked_at": looked_at, "running": sorted(running)}
    values |= {"found_at": activity.looked_at, "server_started": activity.server_started}
    connection.execute(_STORE_WATERMARK, values)


def note_all_people(connection: psycopg.Connection, tenant_id: str | None) -> int:
    """Note all people of one tenant or of all tenants. Return the number of identity keys."""
    return connection.execute(_EVERYBODY, {"tenant": tenant_id}).rowcount


def take_changes(connection: psycopg.Connection, tenant_id: str, limit: int) -> Sequence[str]:
    """Remove some pending changes, the oldest first. Return the journey keys that they concern now, sorted."""
    rows = connection.execute(_TAKE, {"tenant": tenant_id, "limit": limit}).fetchall()
    return sorted(row[0] for row in rows)


def next_tenant_with_changes(connection: psycopg.Connection, after: str) -> str | None:
    """Return the next tenant with changes in the order of names, the first again after the last; None without any."""
    for bound in (after, ""):
        row = connection.execute(_NEXT_TENANT, (bound,)).fetchone()
        if row is not None:
            return str(row[0])
    return None


def pending_changes(connection: psycopg.Connection, tenant_id: str | None = None) -> tuple[int, float]:
    """Return the number of pending changes, and the age of the oldest in seconds."""
    row = connection.execute(_PENDING, {"tenant": tenant_id}).fetchone()
    return (int(row[0]), float(row[1])) if row else (0, 0.0)


def state_lag(connection: psycopg.Connection) -> tuple[int, float]:
    """Return the number of pending changes, and the longest time that the state may have lacked something, seconds.

    While no trainer searches for new events nobody notes them, so the time since the last search counts as well. It is
    0 before the first search: there is no state yet.
    """
    waiting, age = pending_changes(connection)
    row = connection.execute(_SINCE_LOOK).fetchone()
    return waiting, max(age, float(row[0]) if row else 0.0)


def last_search(connection: psycopg.Connection) -> datetime | None:
    """Return the time of the last search for new events."""
    row = connection.execute("SELECT found_at FROM attribution_training_watermark WHERE tenant_id = '*'").fetchone()
    return row[0] if row else None
