"""Stored events of records that the rules refuse by now: taken out, so that what is derived can be put right.

Invariant: only rows that were made of the very record are taken out (its place in the log), never another event with
the same id. The caller has put the record into a dead-letter topic before: an event is never nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from attributary.schemas.topics import CONVERSIONS, IDENTITIES, TOUCHPOINTS

TABLES = {
    TOUCHPOINTS: "attribution_touchpoints",
    CONVERSIONS: "attribution_conversion_events",
    IDENTITIES: "attribution_identity_links",
}
Event = tuple[str, str, int, int]  # tenant, event id, partition, offset

_NAMED = """
FROM {table} t
JOIN unnest(%(tenants)s::text[], %(ids)s::text[], %(partitions)s::int4[], %(offsets)s::int8[])
     AS n (tenant_id, event_id, source_partition, source_offset)
  USING (tenant_id, event_id, source_partition, source_offset)
WHERE t.source_topic = %(topic)s
"""


def stored_events(connection: psycopg.Connection, topic: str, events: Sequence[Event]) -> set[Event]:
    """Return which records of a topic are stored events.

    Args:
        connection: any.
        topic: one of ``TABLES``.
        events: candidates.
    """
    found = _NAMED.format(table=TABLES[topic])
    rows = connection.execute(
        f"SELECT t.tenant_id, t.event_id, t.source_partition, t.source_offset {found}", _parameters(topic, events)
    ).fetchall()
    return set(rows)


def withdraw(connection: psycopg.Connection, topic: str, events: Sequence[Event]) -> int:
    """Delete stored events, in the caller's transaction; return how many.

    Args:
        connection: in a transaction; nobody else stitches.
        topic: one of ``TABLES``.
        events: as ``stored_events`` returned them.
    """
    found = _NAMED.format(table=TABLES[topic])
    return connection.execute(
        f"DELETE FROM {TABLES[topic]} d USING (SELECT t.tenant_id, t.event_id {found}) AS gone "
        "WHERE d.tenant_id = gone.tenant_id AND d.event_id = gone.event_id",
        _parameters(topic, events),
    ).rowcount


def _parameters(topic: str, events: Sequence[Event]) -> dict[str, object]:
    tenants, ids, partitions, offsets = (list(column) for column in zip(*sorted(events), strict=True))
    return {"topic": topic, "tenants": tenants, "ids": ids, "partitions": partitions, "offsets": offsets}
