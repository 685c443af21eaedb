"""What a tenant still owes before its rows can be set aside, and what its deliveries wait for."""

from __future__ import annotations

from collections.abc import Mapping

import psycopg

_OWED = """
SELECT (SELECT count(*) FROM attribution_conversions WHERE tenant_id = %(tenant)s AND observed_version < version),
       (SELECT count(*) FROM attribution_batch_jobs WHERE tenant_id = %(tenant)s AND state = 'running')
"""
_POSITIONS = """
SELECT partition, next_offset FROM attribution_positions
WHERE tenant_id = '*' AND consumer_group = %s AND topic = %s
"""
_OPEN = """
SELECT source_partition, min(source_offset) FROM attribution_deliveries
WHERE tenant_id = %s AND source_topic = %s AND state IN ('pending', 'held', 'uncertain') GROUP BY source_partition
"""
_REPLACE = """
UPDATE attribution_deliveries AS d
SET source_topic = %(topic)s, source_partition = n.new_partition, source_offset = n.new_offset, updated_at = now()
FROM unnest(%(partitions)s::int4[], %(offsets)s::int8[], %(new_partitions)s::int4[], %(new_offsets)s::int8[])
     AS n (old_partition, old_offset, new_partition, new_offset)
WHERE d.tenant_id = %(tenant)s AND d.source_topic = %(before)s AND d.state IN ('pending', 'held', 'uncertain')
  AND (d.source_partition, d.source_offset) = (n.old_partition, n.old_offset)
"""
_EXPIRE = """
UPDATE attribution_deliveries
SET state = CASE WHEN in_flight THEN 'uncertain' ELSE 'expired' END, event_name = NULL, updated_at = now(),
    reason = 'Kafka does not hold the event any more'
WHERE tenant_id = %s AND source_topic = %s AND state IN ('pending', 'held')
"""
Place = tuple[int, int]


def owed(connection: psycopg.Connection, tenant_id: str) -> dict[str, int]:
    """Return what a tenant waits for: results that were not observed, jobs that run; nothing where it is drained."""
    row = connection.execute(_OWED, {"tenant": tenant_id}).fetchone() or (0, 0)
    return {name: number for name, number in zip(("results", "running jobs"), row, strict=True) if number}


def read_up_to(connection: psycopg.Connection, group: str, topic: str) -> dict[int, int]:
    """Return how far a group has read a topic, by partition, as Postgres has it."""
    return dict(connection.execute(_POSITIONS, (group, topic)).fetchall())


def open_deliveries(connection: psycopg.Connection, tenant_id: str, topic: str) -> dict[int, int]:
    """Return, by partition, the first offset of a delivery that waits or is in doubt: its record is needed again."""
    return dict(connection.execute(_OPEN, (tenant_id, topic)).fetchall())


def expire_left(connection: psycopg.Connection, tenant_id: str, topic: str) -> int:
    """Settle deliveries that wait for a record which was not relayed: removed, or its person erased; returns how many.

    Args:
        connection: to the database that the tenant came to.
        tenant_id: the tenant.
        topic: of the installation that it left; all that it holds has been relayed.
    """
    return connection.execute(_EXPIRE, (tenant_id, topic)).rowcount


def replace_places(
    connection: psycopg.Connection, tenant_id: str, topics: tuple[str, str], places: Mapping[Place, Place]
) -> int:
    """Let deliveries that wait name where their records stand now; returns how many did.

    Args:
        connection: to the database that the tenant came to.
        tenant_id: the tenant.
        topics: that the records were in, and that they are in.
        places: partition and offset before, and now.
    """
    if not places:
        return 0
    ordered = sorted(places.items())
    values = {
        "tenant": tenant_id, "before": topics[0], "topic": topics[1],
        "partitions": [before[0] for before, _ in ordered], "offsets": [before[1] for before, _ in ordered],
        "new_partitions": [now[0] for _, now in ordered], "new_offsets": [now[1] for _, now in ordered],
    }  # fmt: skip
    return connection.execute(_REPLACE, values).rowcount
