"""What each consumer group has stored up to, kept beside the data it belongs to."""

from collections.abc import Iterable

import psycopg

from .rows import Positions

_RECORD = """
INSERT INTO attribution_positions AS p (consumer_group, topic, partition, next_offset)
SELECT %s, topic, partition, next_offset
FROM unnest(%s::text[], %s::int4[], %s::int8[]) AS n (topic, partition, next_offset)
ORDER BY topic, partition
ON CONFLICT (tenant_id, consumer_group, topic, partition)
DO UPDATE SET next_offset = excluded.next_offset, updated_at = now() WHERE excluded.next_offset > p.next_offset
"""

_STORED = """
SELECT topic, partition, next_offset FROM attribution_positions
WHERE tenant_id = '*' AND consumer_group = %s AND (topic, partition) IN
      (SELECT * FROM unnest(%s::text[], %s::int4[]))
"""


def record_positions(connection: psycopg.Connection, group: str, positions: Positions) -> None:
    """Store the next offsets of a group, in the transaction that stores its data; a stored offset never falls."""
    places = sorted(positions)
    columns = ([topic for topic, _ in places], [number for _, number in places], [positions[place] for place in places])
    connection.execute(_RECORD, (group, *columns))


def stored_positions(
    connection: psycopg.Connection, group: str, places: Iterable[tuple[str, int]]
) -> dict[tuple[str, int], int]:
    """Return the next offsets of a group by (topic, partition), for those that are stored."""
    wanted = sorted(places)
    columns = ([topic for topic, _ in wanted], [number for _, number in wanted])
    rows = connection.execute(_STORED, (group, *columns)).fetchall()
    return {(topic, partition): offset for topic, partition, offset in rows}


def forget_positions(connection: psycopg.Connection, group: str) -> int:
    """Delete the stored offsets of a group; Kafka's alone count then. Returns how many partitions were forgotten."""
    return connection.execute(
        "DELETE FROM attribution_positions WHERE tenant_id = '*' AND consumer_group = %s", (group,)
    ).rowcount


def all_positions(connection: psycopg.Connection) -> list[tuple[str, str, int, int]]:
    """Return (group, topic, partition, next offset) of all groups, sorted."""
    return connection.execute(
        "SELECT consumer_group, topic, partition, next_offset FROM attribution_positions ORDER BY 1, 2, 3"
    ).fetchall()
