"""What each consumer group has stored up to, kept beside the data it belongs to.

Invariant: a stored offset falls only when Postgres itself lost commits (a failover to a replica that lagged). A stage
that remembers what it stored (``OffsetCache``) notices that before it commits anything on top of the gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import psycopg

from attributary.consumers.store.events.rows import Positions

# What was there before, of all partitions: a Postgres that lost commits shows it where there is no traffic now, too.
_RECORD = """
WITH stored AS (
    INSERT INTO attribution_positions AS p (consumer_group, topic, partition, next_offset)
    SELECT %(group)s, topic, partition, next_offset
    FROM unnest(%(topics)s::text[], %(numbers)s::int4[], %(offsets)s::int8[]) AS n (topic, partition, next_offset)
    ORDER BY topic, partition
    ON CONFLICT (tenant_id, consumer_group, topic, partition)
    DO UPDATE SET next_offset = excluded.next_offset, updated_at = now() WHERE excluded.next_offset > p.next_offset
)
SELECT topic, partition, next_offset FROM attribution_positions WHERE tenant_id = '*' AND consumer_group = %(group)s
"""

_STORED = """
SELECT topic, partition, next_offset FROM attribution_positions
WHERE tenant_id = '*' AND consumer_group = %s AND (topic, partition) IN
      (SELECT * FROM unnest(%s::text[], %s::int4[]))
"""


_IDS = """
SELECT topic, partition, topic_id FROM attribution_positions
WHERE tenant_id = '*' AND consumer_group = %s AND topic_id IS NOT NULL AND (topic, partition) IN
      (SELECT * FROM unnest(%s::text[], %s::int4[]))
"""

_KEEP_IDS = """
UPDATE attribution_positions AS p SET topic_id = n.topic_id, updated_at = now()
FROM unnest(%s::text[], %s::int4[], %s::text[]) AS n (topic, partition, topic_id)
WHERE p.tenant_id = '*' AND p.consumer_group = %s AND (p.topic, p.partition) = (n.topic, n.partition)
"""

_RESTART = """
UPDATE attribution_positions AS p SET next_offset = n.next_offset, topic_id = NULL, updated_at = now()
FROM unnest(%s::text[], %s::int4[], %s::int8[]) AS n (topic, partition, next_offset)
WHERE p.tenant_id = '*' AND p.consumer_group = %s AND (p.topic, p.partition) = (n.topic, n.partition)
"""


class CommitsLostError(Exception):
    """Postgres holds less than it confirmed: it lost commits. The reader must start again from what it holds."""


class OffsetCache:
    """What one process knows to be stored: the next offset by (topic, partition)."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], int] = {}

    def learn(self, places: Iterable[tuple[str, int]], stored: Positions) -> None:
        """Take over what Postgres says about partitions: they are read from there now."""
        for place in places:
            self._known[place] = stored.get(place, 0)

    def check(self, stored: Positions) -> None:
        """Compare with what Postgres holds in the transaction in hand.

        Raises:
            CommitsLostError: it holds less than was committed before.
        """
        for place, known in self._known.items():
            offset = stored.get(place, 0)
            if offset < known:
                self._known = {each: stored.get(each, 0) for each in self._known}
                raise CommitsLostError(f"{place[0]}[{place[1]}]: Postgres fell back from {known} to {offset}")

    def committed(self, positions: Positions) -> None:
        """Note what has just been committed."""
        self._known |= positions


def record_positions(connection: psycopg.Connection, group: str, positions: Positions) -> dict[tuple[str, int], int]:
    """Store the next offsets of a group, in the transaction that stores its data; a stored offset never falls.

    Returns:
        What was stored before, of all partitions of the group.
    """
    places = sorted(positions)
    columns = {
        "group": group,
        "topics": [topic for topic, _ in places],
        "numbers": [number for _, number in places],
        "offsets": [positions[place] for place in places],
    }
    rows = connection.execute(_RECORD, columns).fetchall()
    return {(topic, number): offset for topic, number, offset in rows}


def stored_positions(
    connection: psycopg.Connection, group: str, places: Iterable[tuple[str, int]]
) -> dict[tuple[str, int], int]:
    """Return the next offsets of a group by (topic, partition), for those that are stored."""
    wanted = sorted(places)
    columns = ([topic for topic, _ in wanted], [number for _, number in wanted])
    rows = connection.execute(_STORED, (group, *columns)).fetchall()
    return {(topic, partition): offset for topic, partition, offset in rows}


def stored_topic_ids(
    connection: psycopg.Connection, group: str, places: Iterable[tuple[str, int]]
) -> dict[tuple[str, int], str]:
    """Return Kafka's ids of the topics that stored offsets belong to, for those that are known."""
    wanted = sorted(places)
    columns = ([topic for topic, _ in wanted], [number for _, number in wanted])
    rows = connection.execute(_IDS, (group, *columns)).fetchall()
    return {(topic, partition): topic_id for topic, partition, topic_id in rows}


def keep_topic_ids(connection: psycopg.Connection, group: str, ids: Mapping[tuple[str, int], str]) -> None:
    """Store ids of topics beside the offsets that are there."""
    places = sorted(ids)
    columns = ([topic for topic, _ in places], [number for _, number in places], [ids[place] for place in places])
    connection.execute(_KEEP_IDS, (*columns, group))


def restart_positions(connection: psycopg.Connection, group: str, starts: Positions) -> None:
    """Set offsets back to where partitions of a new log begin; the ids beside them are not known any more."""
    places = sorted(starts)
    columns = ([topic for topic, _ in places], [number for _, number in places], [starts[place] for place in places])
    connection.execute(_RESTART, (*columns, group))


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


def all_topic_ids(connection: psycopg.Connection) -> dict[tuple[str, str, int], str]:
    """Return Kafka's ids of topics by (group, topic, partition), where they are known."""
    rows = connection.execute(
        "SELECT consumer_group, topic, partition, topic_id FROM attribution_positions WHERE topic_id IS NOT NULL"
    ).fetchall()
    return {(group, topic, partition): topic_id for group, topic, partition, topic_id in rows}
