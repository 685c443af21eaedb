"""Boundaries of retention, by tenant: event times before which things retire.

Invariant: a boundary only rises, and it rises before anything is removed. Rows go when every transaction that may have
read an older boundary has ended: so no stitcher opens a conversion that the touchpoints are about to be taken from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import psycopg

# Source of a link that an event left behind which decided the owner of an anonymous id.
KEPT_LINK = "retention"
Step = Literal["conversions", "touchpoints", "links", "done"]


class Boundaries(NamedTuple):
    """Event times of a tenant, microseconds UTC; 0: nothing goes."""

    tenant_id: str
    conversions_before: int
    touchpoints_before: int
    links_before: int


class Progress(NamedTuple):
    """How far a tenant has come."""

    tenant_id: str
    conversions_before: int
    touchpoints_before: int
    links_before: int
    step: Step
    after_us: int
    after_id: str
    conversions_retired: int
    touchpoints_removed: int
    links_removed: int
    seconds_since_raised: float


_COLUMNS = """
tenant_id, conversions_before_us, touchpoints_before_us, links_before_us, step, after_us, after_id,
conversions_retired, touchpoints_removed, links_removed, EXTRACT(epoch FROM clock_timestamp() - raised_at)::float8
"""
_RAISE = """
INSERT INTO attribution_retention AS r (tenant_id, conversions_before_us, touchpoints_before_us, links_before_us)
VALUES (%s, %s, %s, %s)
ON CONFLICT (tenant_id) DO UPDATE SET
    conversions_before_us = GREATEST(r.conversions_before_us, excluded.conversions_before_us),
    touchpoints_before_us = GREATEST(r.touchpoints_before_us, excluded.touchpoints_before_us),
    links_before_us = GREATEST(r.links_before_us, excluded.links_before_us),
    seen_by_all_from = NULL, step = 'conversions', after_us = 0, after_id = '', raised_at = now(), updated_at = now()
WHERE r.conversions_before_us < excluded.conversions_before_us
   OR r.touchpoints_before_us < excluded.touchpoints_before_us OR r.links_before_us < excluded.links_before_us
"""
# The snapshot is of a transaction that began after the one that raised had committed. A number above all that the
# server has given out came from another server: the database was restored.
_SETTLE = """
UPDATE attribution_retention SET seen_by_all_from = pg_snapshot_xmax(pg_current_snapshot())::text::bigint
WHERE seen_by_all_from IS NULL OR seen_by_all_from > pg_snapshot_xmax(pg_current_snapshot())::text::bigint
"""
_NEXT = f"""
SELECT {_COLUMNS} FROM attribution_retention
WHERE step <> 'done' AND seen_by_all_from <= pg_snapshot_xmin(pg_current_snapshot())::text::bigint
ORDER BY updated_at LIMIT 1 FOR UPDATE SKIP LOCKED
"""
_STORE = """
UPDATE attribution_retention SET step = %s, after_us = %s, after_id = %s,
    conversions_retired = conversions_retired + %s, touchpoints_removed = touchpoints_removed + %s,
    links_removed = links_removed + %s, updated_at = clock_timestamp()
WHERE tenant_id = %s
"""


def not_retired(key: str) -> str:
    """Return the condition that a conversion may have a result, for a WHERE.

    Events about conversions that retired open nothing a second time, nor do conversions that come when touchpoints
    may be gone: they wait, and retention books them. A conversion that is open stays so until it retires itself.

    Args:
        key: alias of a row with tenant_id and conversion_id.
    """
    return f"""NOT EXISTS (
    SELECT FROM attribution_retired_conversions m
    WHERE m.tenant_id = {key}.tenant_id AND m.conversion_md5 = md5({key}.conversion_id)::uuid
) AND NOT EXISTS (
    SELECT FROM attribution_retention r
    JOIN attribution_conversion_events o
      ON o.tenant_id = r.tenant_id AND o.conversion_id = {key}.conversion_id COLLATE "C" AND o.kind = 'conversion'
     AND o.occurred_at_us < r.conversions_before_us
    WHERE r.tenant_id = {key}.tenant_id AND NOT EXISTS (
        SELECT FROM attribution_conversions x
        WHERE x.tenant_id = {key}.tenant_id AND x.conversion_id = {key}.conversion_id COLLATE "C" AND x.version > 0
    )
)"""


def raise_boundaries(connection: psycopg.Connection, wanted: Boundaries) -> bool:
    """Raise the boundaries of a tenant in a transaction of its own; False: they were there already."""
    return connection.execute(_RAISE, wanted).rowcount > 0


def note_seen(connection: psycopg.Connection) -> None:
    """Note from which transaction on the raised boundaries are seen; in a transaction after the one that raised."""
    connection.execute(_SETTLE)


def next_tenant(connection: psycopg.Connection) -> Progress | None:
    """Return the tenant that waited longest and has something left, and lock its row; None: nobody has."""
    row = connection.execute(_NEXT).fetchone()
    return Progress(*row) if row else None


def store_progress(
    connection: psycopg.Connection, tenant_id: str, place: tuple[Step, int, str], removed: tuple[int, int, int]
) -> None:
    """Store how far a step has come, in the transaction of its page.

    Args:
        connection: in that transaction.
        tenant_id: the tenant.
        place: the step, and event time and id behind which it goes on.
        removed: conversions, touchpoints and links of this page.
    """
    connection.execute(_STORE, (*place, *removed, tenant_id))


# Conversion events of what retired go whatever their own time is; those of nothing that was opened by their time.
_KEPT_NO_LONGER = {
    "attribution_touchpoints": "k.at_us < r.touchpoints_before_us",
    "attribution_identity_links": "k.at_us < r.links_before_us",
    "attribution_identities": "k.at_us < r.links_before_us",
    "attribution_conversion_events": """k.at_us < r.conversions_before_us OR EXISTS (
        SELECT FROM attribution_retired_conversions m
        WHERE m.tenant_id = k.tenant_id AND m.conversion_md5 = md5(k.conversion_id)::uuid)""",
}


def kept_no_longer(
    connection: psycopg.Connection, table: str, rows: Sequence[tuple[str, str, int]]
) -> set[tuple[str, str, int]]:
    """Return those of (tenant, conversion id or empty, event time) that retention may have removed from a table."""
    condition = _KEPT_NO_LONGER.get(table)
    if condition is None or not rows:
        return set()
    columns = [list(column) for column in zip(*rows, strict=True)]
    statement = f"""
    SELECT k.tenant_id, k.conversion_id, k.at_us
    FROM unnest(%s::text[], %s::text[], %s::int8[]) AS k (tenant_id, conversion_id, at_us)
    JOIN attribution_retention r ON r.tenant_id = k.tenant_id WHERE {condition}
    """
    return {(row[0], row[1], row[2]) for row in connection.execute(statement.encode(), columns).fetchall()}


def all_progress(connection: psycopg.Connection, tenant_id: str | None = None) -> list[Progress]:
    """Return how far all tenants, or one, have come, by name."""
    statement = f"SELECT {_COLUMNS} FROM attribution_retention WHERE %s::text IS NULL OR tenant_id = %s ORDER BY 1"
    return [Progress(*row) for row in connection.execute(statement, (tenant_id, tenant_id)).fetchall()]


class Due(NamedTuple):
    """What lies before boundaries."""

    conversions: int
    net_micros: dict[str, int]  # by currency
    touchpoints: int


def due(connection: psycopg.Connection, boundaries: Boundaries) -> Due:
    """Count what a tenant's boundaries would remove; reads, by index where there is one, all of it."""
    rows = connection.execute(
        "SELECT currency, count(*), sum(net_value_micros)::int8 FROM attribution_conversions "
        "WHERE tenant_id = %s AND converted_at_us < %s AND version > 0 GROUP BY currency",
        (boundaries.tenant_id, boundaries.conversions_before),
    ).fetchall()
    touchpoints = connection.execute(
        "SELECT count(*) FROM attribution_touchpoints WHERE tenant_id = %s AND occurred_at_us < %s",
        (boundaries.tenant_id, boundaries.touchpoints_before),
    ).fetchall()
    return Due(sum(row[1] for row in rows), {row[0]: row[2] for row in rows}, touchpoints[0][0])
