"""Results that are taken back: which tombstones are owed, and which were seen in the results topic.

Invariant: a tombstone's row stays until the tombstone was written a second time, after compaction of the first was due:
only then a quiet partition has rolled, and the old value is gone from the log.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import psycopg

from attributary.consumers.store.events.rows import RaisedVersion

Key = tuple[str, str]

REASON = "erasure"

_ADD = """
INSERT INTO attribution_tombstones AS t (tenant_id, conversion_id, version, request_id, published_us, repeat_after)
SELECT tenant_id, conversion_id, version, %s, %s, now() + make_interval(secs => %s)
FROM unnest(%s::text[], %s::text[], %s::int8[]) AS n (tenant_id, conversion_id, version)
ORDER BY tenant_id COLLATE "C", conversion_id COLLATE "C"
ON CONFLICT (tenant_id, conversion_id) DO UPDATE SET
    version = GREATEST(t.version + 1, excluded.version), request_id = excluded.request_id, observed_at = NULL,
    repeat_after = excluded.repeat_after, asked_at = now(), updated_at = now()
"""
_OWED = """
SELECT t.tenant_id, t.conversion_id, t.version, t.published_us
FROM unnest(%s::text[], %s::text[]) AS k (tenant_id, conversion_id)
JOIN attribution_tombstones t USING (tenant_id, conversion_id) WHERE t.observed_at IS NULL
"""
_FORGET = """
DELETE FROM attribution_results r USING unnest(%s::text[], %s::text[]) AS k (tenant_id, conversion_id)
WHERE r.tenant_id = k.tenant_id AND r.conversion_id = k.conversion_id
"""
_OBSERVE = """
UPDATE attribution_tombstones t SET observed_at = clock_timestamp(), updated_at = now()
FROM unnest(%s::text[], %s::text[]) AS k (tenant_id, conversion_id)
WHERE t.tenant_id = k.tenant_id AND t.conversion_id = k.conversion_id AND t.observed_at IS NULL
"""
_OVERDUE = """
UPDATE attribution_tombstones t SET asked_at = clock_timestamp(), updated_at = now()
FROM (SELECT tenant_id, conversion_id FROM attribution_tombstones
      WHERE observed_at IS NULL AND asked_at < clock_timestamp() - make_interval(secs => %s)
      ORDER BY asked_at LIMIT %s FOR UPDATE SKIP LOCKED) AS due
WHERE t.tenant_id = due.tenant_id AND t.conversion_id = due.conversion_id
RETURNING t.tenant_id, t.conversion_id, t.version, t.published_us
"""
_DONE = "DELETE FROM attribution_tombstones WHERE observed_at IS NOT NULL AND repeat_after IS NULL"
_REPEAT = """
UPDATE attribution_tombstones SET version = version + 1, observed_at = NULL, repeat_after = NULL,
    asked_at = '-infinity', updated_at = now()
WHERE observed_at IS NOT NULL AND repeat_after < clock_timestamp()
"""


def add_tombstones(
    connection: psycopg.Connection, versions: Sequence[RaisedVersion], request_id: str, repeat_seconds: float
) -> None:
    """Owe tombstones.

    Args:
        connection: in a transaction.
        versions: of one request, above those that may be published.
        request_id: the request.
        repeat_seconds: write them again so much later.
    """
    if versions:
        rows = [(v.tenant_id, v.conversion_id, v.version) for v in versions]
        columns = [list(column) for column in zip(*rows, strict=True)]
        connection.execute(_ADD, (request_id, versions[0].published_at, repeat_seconds, *columns))


def tombstones_owed(connection: psycopg.Connection, keys: Collection[Key]) -> list[RaisedVersion]:
    """Return the tombstones among (tenant, conversion id) that were not seen in the topic yet."""
    if not keys:
        return []
    columns = [list(column) for column in zip(*keys, strict=True)]
    return [_raised(row) for row in connection.execute(_OWED, columns).fetchall()]


def observe_tombstones(connection: psycopg.Connection, keys: Collection[Key]) -> None:
    """Forget the results of (tenant, conversion id), and note that their tombstones were seen."""
    if keys:
        columns = [list(column) for column in zip(*sorted(keys), strict=True)]
        connection.execute(_FORGET, columns)
        connection.execute(_OBSERVE, columns)


def overdue_tombstones(connection: psycopg.Connection, after_seconds: float, limit: int) -> list[RaisedVersion]:
    """Return tombstones to ask for again; forgets those that were repeated, and begins the repetition of old ones."""
    connection.execute(_DONE)
    connection.execute(_REPEAT)
    return [_raised(row) for row in connection.execute(_OVERDUE, (after_seconds, limit)).fetchall()]


def _raised(row: Sequence[object]) -> RaisedVersion:
    tenant_id, conversion_id, version, published = row
    return RaisedVersion(str(tenant_id), str(conversion_id), int(str(version)), REASON, int(str(published)))
