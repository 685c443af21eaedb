"""Touchpoints and links that nothing rests on any more.

Invariant: a touchpoint goes only when it lies before everything that a stored conversion may credit. An event that
decides the owner of an anonymous id leaves a link behind. A link goes only when nothing else of that id is stored.

Touchpoints are found by slices of time, which the block-range index reads without the rest of the table (decision 3).
"""

from __future__ import annotations

from typing import NamedTuple

import psycopg

from attributary.consumers.store.identity_sql import device_key, touchpoints_of, user_key
from attributary.consumers.store.models.changed_people import change_note_sql

from .conversions import KEEP_LINKS

_HOUR_US = 3_600_000_000
_FIRST_US = 946_684_800_000_000  # 2000-01-01: no event is older
_WIDEST_US = 400 * 24 * _HOUR_US


class Slice(NamedTuple):
    """What a slice of time did: how many went, where to go on (None: the step is done), and how wide it was."""

    removed: int
    after: tuple[int, str] | None
    width_us: int


# "|| ''" keeps the tenant out of the choice of an index: its index would lead through all rows of the tenant.
_PAGE = """
SELECT event_id, occurred_at_us FROM attribution_touchpoints
WHERE tenant_id || '' = %(tenant)s AND occurred_at_us >= %(after)s AND occurred_at_us < %(until)s
  AND (occurred_at_us > %(after)s OR event_id > %(id)s)
ORDER BY occurred_at_us, event_id LIMIT %(limit)s
"""
_LOCK = """
SELECT event_id FROM attribution_touchpoints WHERE tenant_id = %s AND event_id = ANY (%s::text[])
ORDER BY event_id FOR UPDATE SKIP LOCKED
"""
_TOLD = change_note_sql(
    "tenant_id, identity_key", "FROM attribution_touchpoints WHERE tenant_id = %s AND event_id = ANY (%s::text[])"
)
_DELETE = "DELETE FROM attribution_touchpoints WHERE tenant_id = %s AND event_id = ANY (%s::text[])"

_IDS = """
SELECT DISTINCT anonymous_id FROM attribution_identity_links WHERE tenant_id = %s AND anonymous_id > %s
ORDER BY anonymous_id LIMIT %s
"""
_LAST_ID = "\U0010ffff"
# The journey of the anonymous id is the lock that every writer of its links holds.
_LOCK_IDS = """
SELECT substr(journey_key, 3) FROM attribution_journeys
WHERE tenant_id = %s AND journey_key = ANY (%s::text[]) AND last_event_us < %s
ORDER BY journey_key FOR UPDATE SKIP LOCKED
"""
_UNUSED = f"""
SELECT k.id FROM unnest(%(ids)s::text[]) AS k (id)
WHERE NOT EXISTS (SELECT FROM attribution_identity_links l
                  WHERE l.tenant_id = %(tenant)s AND l.anonymous_id = k.id AND l.linked_at_us >= %(before)s)
  AND NOT EXISTS (SELECT FROM attribution_touchpoints t
                  WHERE {touchpoints_of("t", "%(tenant)s", device_key("k.id"))})
  AND NOT EXISTS (SELECT FROM attribution_touchpoints t
                  WHERE t.tenant_id = %(tenant)s AND t.anonymous_id = k.id)
  AND NOT EXISTS (SELECT FROM attribution_conversion_events e
                  WHERE e.tenant_id = %(tenant)s AND e.anonymous_id = k.id)
  AND NOT EXISTS (SELECT FROM attribution_identities i
                  JOIN attribution_conversions c
                    ON c.tenant_id = i.tenant_id AND c.journey_key = {user_key("i.user_id")}
                  WHERE i.tenant_id = %(tenant)s AND i.anonymous_id = k.id AND c.identity_key = {device_key("k.id")})
"""
# Pairs of decision 35. No lock of the person: a pair decides nothing but whom a later erasure concerns, and one that is
# added again by a replay goes again at the next turn.
_PAIRS = f"""
DELETE FROM attribution_dropped_links l USING (
    SELECT d.tenant_id, d.event_id FROM attribution_dropped_links d
    WHERE d.tenant_id = %(tenant)s AND d.received_at_us < %(before)s AND d.linked_at_us < %(before)s
      AND NOT EXISTS (SELECT 1 FROM attribution_touchpoints t
                      WHERE {touchpoints_of("t", "d.tenant_id", device_key("d.anonymous_id"))})
      AND NOT EXISTS (SELECT 1 FROM attribution_touchpoints t
                      WHERE t.tenant_id = d.tenant_id AND t.anonymous_id = d.anonymous_id)
      AND NOT EXISTS (SELECT 1 FROM attribution_conversion_events e
                      WHERE e.tenant_id = d.tenant_id AND e.anonymous_id = d.anonymous_id)
      AND NOT EXISTS (SELECT 1 FROM attribution_conversion_events e
                      WHERE e.tenant_id = d.tenant_id AND e.identity_key = {device_key("d.anonymous_id")})
    ORDER BY d.event_id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
) AS gone
WHERE l.tenant_id = gone.tenant_id AND l.event_id = gone.event_id
"""
_DELETE_OWNERS = "DELETE FROM attribution_identities WHERE tenant_id = %s AND anonymous_id = ANY (%s::text[])"
_DELETE_LINKS = "DELETE FROM attribution_identity_links WHERE tenant_id = %s AND anonymous_id = ANY (%s::text[])"


def remove_touchpoints(
    connection: psycopg.Connection, tenant_id: str, before_us: int, after: tuple[int, str], width_us: int, limit: int
) -> Slice:
    """Remove a tenant's touchpoints of the next slice of time, in the caller's transaction.

    Args:
        connection: in a transaction.
        tenant_id: the tenant.
        before_us: event time before which they go, microseconds UTC.
        after: event time and id behind which the slice begins.
        width_us: how wide it is, microseconds; 0: to begin with.
        limit: look at so many.
    """
    start = max(after[0], _FIRST_US)
    until = min(start + max(width_us, _HOUR_US), before_us)
    if start >= before_us:
        return Slice(0, None, width_us)
    connection.execute("SET LOCAL enable_seqscan = off")
    parameters = {"tenant": tenant_id, "after": start, "until": until, "id": after[1], "limit": limit}
    found = connection.execute(_PAGE, parameters).fetchall()
    ids = [row[0] for row in connection.execute(_LOCK, (tenant_id, [row[0] for row in found])).fetchall()]
    if ids:
        keep = KEEP_LINKS.format(table="attribution_touchpoints", key="event_id")
        connection.execute(keep, (tenant_id, ids))
        connection.execute(_TOLD, (tenant_id, ids))
        connection.execute(_DELETE, (tenant_id, ids))
    if len(found) == limit:
        return Slice(len(ids), (found[-1][1], found[-1][0]), max(width_us // 2, _HOUR_US))
    return Slice(len(ids), (until, "") if until < before_us else None, min(max(width_us, _HOUR_US) * 2, _WIDEST_US))


def remove_links(
    connection: psycopg.Connection, tenant_id: str, before_us: int, after_id: str, limit: int
) -> tuple[int, str | None]:
    """Remove the links of the next anonymous ids of which nothing else is stored, in the caller's transaction.

    Behind the last of them, pairs of dropped events go as well (decision 35), by the same rule.

    Returns:
        How many links went, and the id behind which to go on; None: the step is done.
    """
    if before_us == 0:
        return 0, None
    ids = [row[0] for row in connection.execute(_IDS, (tenant_id, after_id, limit)).fetchall()]
    keys = [f"a:{each}" for each in ids]
    locked = [row[0] for row in connection.execute(_LOCK_IDS, (tenant_id, keys, before_us)).fetchall()]
    parameters = {"ids": locked, "tenant": tenant_id, "before": before_us}
    unused = [row[0] for row in connection.execute(_UNUSED, parameters).fetchall()]
    connection.execute(_DELETE_OWNERS, (tenant_id, unused))
    removed = connection.execute(_DELETE_LINKS, (tenant_id, unused)).rowcount
    if len(ids) == limit:
        return removed, ids[-1]
    pairs = connection.execute(_PAIRS, {"tenant": tenant_id, "before": before_us, "limit": limit}).rowcount
    # Behind every id that there may be: only pairs are left.
    return removed + pairs, _LAST_ID if pairs == limit else None
