"""People with very many conversions: what changes their results is noted by the stitcher, and the sweeper raises pages.

Late touchpoints, links that move an anonymous id, and contents that give way to another.

Invariants: a note is written in the transaction that stores the events, and goes in the transaction that raises the
last version which it asks for, so each conversion that a noted event may count for gets a version above the one that
was computed without it. A pass takes what was noted before it began; what is noted during a pass is for the next one.
Several events between two passes lead to one version a conversion.

Locks: a row here comes after the events and before the conversions (decision 16); the stitcher locks its rows in sorted
order, the sweeper one row a transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import psycopg

from .policies import policy_in_force_sql
from .rows import RaisedVersion

# A person with more conversions in reach of what a batch changes is put off.
MAX_REOPENED = 100
# So many versions are raised in a page: a result of such a person may take the attributor 40 ms.
PAGE = 500
# The next page waits until the last result of the page before is stored, but no longer than this.
_PATIENCE_SECONDS = 60.0


class PutOff(NamedTuple):
    """What changed of a person, and which of the conversions it may count for; times in microseconds UTC."""

    tenant_id: str
    journey_key: str
    first_at: int  # event time of the conversions, first and last included
    until_at: int
    received_from: int  # and their arrival
    published_at: int
    touchpoints: int
    conversions: int
    changes: int = 0  # links that moved an anonymous id, and contents that gave way
    reason: str = "late_touchpoint"  # or identity

    def with_another(self, other: PutOff) -> PutOff:
        """Return both notes of the person as one."""
        return PutOff(
            self.tenant_id, self.journey_key, min(self.first_at, other.first_at), max(self.until_at, other.until_at),
            min(self.received_from, other.received_from), max(self.published_at, other.published_at),
            self.touchpoints + other.touchpoints, max(self.conversions, other.conversions),
            self.changes + other.changes, min(self.reason, other.reason),
        )  # fmt: skip


class Reopened(NamedTuple):
    """What a page raised."""

    tenant_id: str
    journey_key: str
    versions: list[RaisedVersion]


class HotPerson(NamedTuple):
    """A person that is put off, as an operator sees it."""

    tenant_id: str
    journey_key: str
    touchpoints: int
    changes: int
    conversions: int
    reopened: int
    waiting_seconds: float
    is_under_way: bool


class Waiting(NamedTuple):
    """How many people are put off, and since when the oldest waits for the end of its pass; seconds."""

    people: int
    oldest_seconds: float


_NOTE = """
INSERT INTO attribution_reopenings AS r (
    tenant_id, journey_key, first_us, until_us, received_from_us, published_us, touchpoints, conversions,
    changes, reason)
SELECT * FROM unnest(%s::text[], %s::text[], %s::int8[], %s::int8[], %s::int8[], %s::int8[], %s::int8[], %s::int8[],
                     %s::int8[], %s::text[])
ON CONFLICT (tenant_id, journey_key) DO UPDATE SET
    first_us = LEAST(r.first_us, excluded.first_us), until_us = GREATEST(r.until_us, excluded.until_us),
    received_from_us = LEAST(r.received_from_us, excluded.received_from_us),
    published_us = GREATEST(r.published_us, excluded.published_us),
    touchpoints = r.touchpoints + excluded.touchpoints, conversions = excluded.conversions,
    changes = r.changes + excluded.changes, reason = LEAST(r.reason, excluded.reason),
    marked_at = CASE WHEN r.first_us IS NULL THEN now() ELSE r.marked_at END, updated_at = now()
"""

_TAKE = """
SELECT tenant_id, journey_key, after_id IS NOT NULL FROM attribution_reopenings r
WHERE CASE WHEN after_id IS NULL THEN marked_at <= now() - make_interval(secs => %(after)s)
      ELSE served_at < now() - make_interval(secs => %(patience)s) OR EXISTS (
          SELECT FROM attribution_conversions c
          WHERE c.tenant_id = r.tenant_id AND c.conversion_id = r.after_id AND c.observed_version >= c.version) END
ORDER BY served_at NULLS FIRST, marked_at, tenant_id, journey_key LIMIT 1 FOR UPDATE SKIP LOCKED
"""

_BEGIN = """
UPDATE attribution_reopenings SET
    pass_first_us = first_us, pass_until_us = until_us, pass_received_from_us = received_from_us,
    pass_published_us = published_us, pass_reason = reason, after_us = first_us, after_id = '',
    reason = 'late_touchpoint', first_us = NULL, until_us = NULL, received_from_us = NULL, published_us = NULL
WHERE tenant_id = %s AND journey_key = %s
"""

_BOUNDS = """
SELECT after_us, pass_until_us, pass_received_from_us, after_id FROM attribution_reopenings
WHERE tenant_id = %s AND journey_key = %s
"""

# The bounds are parameters, so that a page begins in the index where the page before ended.
_NEXT = """
SELECT c.converted_at_us, c.conversion_id FROM attribution_conversions c
WHERE c.tenant_id = %(tenant)s AND c.journey_key = %(person)s
  AND c.converted_at_us BETWEEN %(after_us)s AND %(until_us)s AND c.received_at_us >= %(received_from_us)s
  AND (c.converted_at_us, c.conversion_id) > (%(after_us)s, %(after_id)s) AND c.version > 0
ORDER BY c.converted_at_us, c.conversion_id LIMIT %(limit)s
"""

_RAISE = f"""
WITH due AS MATERIALIZED (
    SELECT c.tenant_id, c.conversion_id FROM attribution_conversions c
    WHERE c.tenant_id = %(tenant)s AND c.conversion_id = ANY (%(ids)s)
    ORDER BY c.conversion_id FOR UPDATE
)
UPDATE attribution_conversions AS c SET
    version = c.version + 1, version_reason = COALESCE(r.pass_reason, 'late_touchpoint'),
    previous_net_micros = c.net_value_micros,
    policy_version = {policy_in_force_sql("c.tenant_id", "%(policy)s")},
    model_set = COALESCE((SELECT max(s.model_set) FROM attribution_model_sets s WHERE s.tenant_id = c.tenant_id), 0),
    owner_topic = '', owner_partition = 0, owner_offset = 0, event_published_us = r.pass_published_us,
    versioned_at = now(), updated_at = now()
FROM due, attribution_reopenings r
WHERE c.tenant_id = due.tenant_id AND c.conversion_id = due.conversion_id
  AND r.tenant_id = %(tenant)s AND r.journey_key = %(person)s
RETURNING c.tenant_id, c.conversion_id, c.version, c.version_reason, c.event_published_us
"""

_PASSED = """
UPDATE attribution_reopenings SET after_us = %s, after_id = %s, reopened = reopened + %s, served_at = now(),
    updated_at = now()
WHERE tenant_id = %s AND journey_key = %s
"""

_END = """
WITH gone AS (DELETE FROM attribution_reopenings WHERE tenant_id = %(tenant)s AND journey_key = %(person)s
              AND first_us IS NULL RETURNING 1)
UPDATE attribution_reopenings SET
    pass_first_us = NULL, pass_until_us = NULL, pass_received_from_us = NULL, pass_published_us = NULL,
    pass_reason = NULL, after_us = NULL, after_id = NULL, reopened = reopened + %(raised)s, served_at = now(),
    updated_at = now()
WHERE tenant_id = %(tenant)s AND journey_key = %(person)s AND first_us IS NOT NULL
"""

_HOT = """
SELECT tenant_id, journey_key, touchpoints, changes, conversions, reopened,
       EXTRACT(epoch FROM now() - marked_at)::float8, after_id IS NOT NULL
FROM attribution_reopenings WHERE %(tenant)s::text IS NULL OR tenant_id = %(tenant)s
ORDER BY touchpoints + changes DESC, tenant_id, journey_key LIMIT %(limit)s
"""

_WAITING = """
SELECT count(*), COALESCE(EXTRACT(epoch FROM now() - min(marked_at)), 0)::float8 FROM attribution_reopenings
"""


def put_off(connection: psycopg.Connection, people: Sequence[PutOff]) -> None:
    """Note what changed for later, in the transaction that stores the events; at most one entry a person."""
    if people:
        connection.execute(_NOTE, [list(column) for column in zip(*sorted(people), strict=True)])


def reopen_page(
    connection: psycopg.Connection,
    *,
    policy_version: str,
    after_seconds: float,
    patience_seconds: float = _PATIENCE_SECONDS,
    limit: int = PAGE,
) -> Reopened | None:
    """Raise the next versions of the person that has waited longest; None: nobody is due.

    Args:
        connection: in a transaction.
        policy_version: the lookback policy in force.
        after_seconds: a pass begins so long after the first event was noted.
        patience_seconds: so long the next page of a pass waits for the results of the page before.
        limit: at most so many conversions.
    """
    taken = connection.execute(_TAKE, {"after": after_seconds, "patience": patience_seconds}).fetchone()
    if taken is None:
        return None
    *person, is_under_way = taken
    if not is_under_way:
        connection.execute(_BEGIN, person)
    names = ("after_us", "until_us", "received_from_us", "after_id")
    bounds = dict(zip(names, connection.execute(_BOUNDS, person).fetchone() or (), strict=True))
    parameters = {"tenant": person[0], "person": person[1], "policy": policy_version, "limit": limit, **bounds}
    page = connection.execute(_NEXT, parameters).fetchall()
    parameters["ids"] = [row[1] for row in page]
    rows = connection.execute(_RAISE, parameters).fetchall() if page else []
    if len(page) == limit:
        connection.execute(_PASSED, (*page[-1], len(rows), *person))
    else:
        connection.execute(_END, {**parameters, "raised": len(rows)})
    return Reopened(person[0], person[1], sorted(RaisedVersion(*row) for row in rows))


def hot_people(connection: psycopg.Connection, tenant_id: str | None, limit: int) -> list[HotPerson]:
    """Return people that are put off, of one tenant or of all, those with the most events first."""
    rows = connection.execute(_HOT, {"tenant": tenant_id, "limit": limit}).fetchall()
    return [HotPerson(*row) for row in rows]


def waiting_people(connection: psycopg.Connection) -> Waiting:
    """Return how many people are put off and how long the first has waited."""
    row = connection.execute(_WAITING).fetchone()
    return Waiting(*row) if row else Waiting(0, 0.0)


def journeys_put_off(connection: psycopg.Connection) -> set[tuple[str, str]]:
    """Return (tenant, journey key) of all people that are put off: their newest results may lack an event."""
    rows = connection.execute("SELECT tenant_id, journey_key FROM attribution_reopenings").fetchall()
    return {(tenant, key) for tenant, key in rows}
