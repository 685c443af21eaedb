"""Event names that a destination does not take, and what is held for them (table attribution_stopped_names).

Contract: functions on a connection; `PostgresLedger` calls them in its own transactions. Invariants: a name stands here
from the refusal of the destination until it takes the name again, a person resumes it, or the settings name it no more;
what is held says for which name. No event and no person stands here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attributary.consumers.store.deliveries.delivery import HeldEvents, Queue, StoppedName, micros_of, time_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psycopg


_NAMES = "unnest(%(tenants)s::text[], %(destinations)s::text[], %(names)s::text[])"
_STOP = """
INSERT INTO attribution_stopped_names AS s
    (tenant_id, destination, event_name, reason, response_code, stopped_at, retry_at)
SELECT tenant_id, destination, event_name, reason, response_code, stopped_at, retry_at
FROM unnest(%(tenants)s::text[], %(destinations)s::text[], %(names)s::text[], %(reasons)s::text[], %(codes)s::text[],
            %(times)s::timestamptz[], %(retries)s::timestamptz[])
     AS n (tenant_id, destination, event_name, reason, response_code, stopped_at, retry_at)
ON CONFLICT (tenant_id, destination, event_name) DO UPDATE
SET reason = excluded.reason, response_code = excluded.response_code, retry_at = excluded.retry_at,
    refusals = s.refusals + 1, updated_at = now()
"""
_FIND = """
SELECT tenant_id, destination, event_name, reason, response_code, stopped_at, retry_at, refusals
FROM attribution_stopped_names
WHERE %(destination)s::text IS NULL OR destination = %(destination)s
   OR starts_with(destination, %(destination)s || ':')
ORDER BY tenant_id, destination, event_name
"""
_RESUME = f"""
DELETE FROM attribution_stopped_names s USING {_NAMES} AS n (tenant_id, destination, event_name)
WHERE (s.tenant_id, s.destination, s.event_name) = (n.tenant_id, n.destination, n.event_name)
"""
# A delivery that Kafka will not bring again; `ledger` uses it, too.
IS_BEHIND = "d.source_offset < (%(positions)s::jsonb -> d.source_topic ->> d.source_partition::text)::bigint"
_HELD = f"""
SELECT d.tenant_id, d.destination, d.event_name, count(*), min(d.occurred_at) FROM attribution_deliveries d
WHERE (d.destination = %(destination)s OR starts_with(d.destination, %(destination)s || ':')) AND d.state = 'held'
  AND (%(positions)s::jsonb IS NULL OR {IS_BEHIND})
GROUP BY d.tenant_id, d.destination, d.event_name ORDER BY d.tenant_id, d.destination, d.event_name
"""
# The newest are found first, then locked in the order in which all writers of the ledger lock.
_RELEASE = f"""
WITH newest AS MATERIALIZED (
    SELECT d.tenant_id, d.destination, d.event_id FROM attribution_deliveries d
    WHERE d.destination = %(destination)s AND d.tenant_id = %(tenant)s AND d.state = 'held'
      AND d.event_name = %(name)s AND {IS_BEHIND}
    ORDER BY d.occurred_at DESC, d.event_id LIMIT %(limit)s
), free AS (
    SELECT d.tenant_id, d.destination, d.event_id
    FROM newest JOIN attribution_deliveries d USING (tenant_id, destination, event_id)
    WHERE d.state = 'held' AND d.event_name = %(name)s
    ORDER BY d.tenant_id, d.destination, d.event_id FOR UPDATE OF d
)
UPDATE attribution_deliveries d
SET state = 'pending', reason = 'was held; goes now', event_name = NULL, updated_at = now()
FROM free WHERE (d.tenant_id, d.destination, d.event_id) = (free.tenant_id, free.destination, free.event_id)
"""


def stop(connection: psycopg.Connection[Any], names: Sequence[StoppedName]) -> None:
    """Note names that a destination has refused; one that is known is one refusal more."""
    if not names:
        return
    rows = sorted(names, key=lambda each: each[:3])
    values = _keys(rows) | {
        "reasons": [row.reason for row in rows],
        "codes": [row.response_code for row in rows],
        "times": [time_of(row.stopped_at) for row in rows],
        "retries": [time_of(row.retry_at) for row in rows],
    }
    connection.execute(_STOP, values)


def find(connection: psycopg.Connection[Any], destination: str | None) -> Sequence[StoppedName]:
    """Return the names that a destination with all its accounts does not take; without one those of all."""
    found = connection.execute(_FIND, {"destination": destination}).fetchall()
    return [
        StoppedName(row[0], row[1], row[2], row[3], row[4], micros_of(row[5]), micros_of(row[6]), row[7])
        for row in found
    ]


def resume(connection: psycopg.Connection[Any], names: Sequence[StoppedName]) -> None:
    """Forget names; a forwarder lets go of what it holds for them."""
    connection.execute(_RESUME, _keys(sorted(names, key=lambda each: each[:3])))


def held(connection: psycopg.Connection[Any], destination: str, places: Mapping[str, Any]) -> Sequence[HeldEvents]:
    """Count what is held before the given places of Kafka, or, without any, all that is, by queue and name."""
    found = connection.execute(_HELD, {**places, "destination": destination}).fetchall()
    return [HeldEvents(Queue(row[0], row[1]), row[2], row[3], micros_of(row[4])) for row in found]


def release(
    connection: psycopg.Connection[Any], queue: Queue, event_name: str, places: Mapping[str, Any], limit: int | None
) -> int:
    """Make what is held for a name pending, the newest first; returns how many."""
    values = {"tenant": queue.tenant_id, "destination": queue.destination, "name": event_name, "limit": limit}
    return connection.execute(_RELEASE, {**places, **values}).rowcount


def _keys(rows: Sequence[StoppedName]) -> dict[str, Any]:
    return {
        "tenants": [row.tenant_id for row in rows],
        "destinations": [row.destination for row in rows],
        "names": [row.event_name for row in rows],
    }
