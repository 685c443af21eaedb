"""What an erasure reads and removes, as sets, under the locks of the people concerned.

Invariant: removed is exactly what ``Entry.covers`` says of an event that comes in now, and every row that hangs on it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import psycopg

from attributary.attribution_core.domain.identity import USER_PREFIX
from attributary.consumers.store.events.rows import ConversionEventRow
from attributary.consumers.store.identity_sql import touchpoints_of
from attributary.consumers.store.models.changed_people import change_note_sql

from .entries import Entry, to_multirange

Key = tuple[str, str]


class StatedLink(NamedTuple):
    """A statement that an anonymous id is a user's, with when it arrived; times are microseconds UTC."""

    tenant_id: str
    anonymous_id: str
    user_id: str
    linked_at: int
    event_id: str
    received_at: int

    @property
    def order(self) -> tuple[int, str, str]:
        """The smallest decides (attribution_core.domain.identity)."""
        return self.linked_at, self.event_id, self.user_id


_EVENT_LINKS = """
    SELECT t.tenant_id, t.anonymous_id, substr(t.identity_key, 3), t.occurred_at_us, t.event_id, t.received_at_us
    FROM {keys} JOIN {table} t ON {on} WHERE t.anonymous_id IS NOT NULL AND t.identity_key > 'a;'
"""
_TABLES = ("attribution_touchpoints", "attribution_conversion_events")
_OF_DEVICE = "t.tenant_id = k.tenant_id AND t.anonymous_id = k.anonymous_id"
_OF_USER = {
    "attribution_touchpoints": touchpoints_of("t", "k.tenant_id", "k.identity_key"),
    "attribution_conversion_events": "t.tenant_id = k.tenant_id AND t.identity_key = k.identity_key",
}
_BY_DEVICE = "unnest(%(tenants)s::text[], %(ids)s::text[]) AS k (tenant_id, anonymous_id)"
_BY_USER = "unnest(%(tenants)s::text[], %(keys)s::text[]) AS k (tenant_id, identity_key)"
_LINK = "l.tenant_id, l.anonymous_id, l.user_id, l.linked_at_us, l.event_id, l.received_at_us"
_LINKS_OF_DEVICES = " UNION ".join(
    [
        f"SELECT {_LINK} FROM {_BY_DEVICE} JOIN attribution_identity_links l USING (tenant_id, anonymous_id)",
        f"SELECT {_LINK} FROM {_BY_DEVICE} JOIN attribution_dropped_links l USING (tenant_id, anonymous_id)",
        *(_EVENT_LINKS.format(keys=_BY_DEVICE, table=table, on=_OF_DEVICE) for table in _TABLES),
    ]
)
_LINKS_OF_USERS = " UNION ".join(
    [
        f"""SELECT {_LINK} FROM {_BY_USER} JOIN attribution_identity_links l
            ON l.tenant_id = k.tenant_id AND l.user_id = substr(k.identity_key, 3)""",
        f"""SELECT {_LINK} FROM {_BY_USER} JOIN attribution_dropped_links l
            ON l.tenant_id = k.tenant_id AND l.user_id = substr(k.identity_key, 3)""",
        *(_EVENT_LINKS.format(keys=_BY_USER, table=table, on=on) for table, on in _OF_USER.items()),
    ]
)

_CONVERSION_EVENT = (
    "e.tenant_id, e.event_id, e.conversion_id, e.kind, e.conversion_type, e.identity_key, e.anonymous_id, "
    "e.occurred_at_us, e.received_at_us, e.value_micros, e.currency, e.order_id, '', e.content_hash, e.source_topic, "
    "e.source_partition, e.source_offset"
)
_EVENTS_ABOUT = f"""
SELECT {_CONVERSION_EVENT} FROM unnest(%s::text[], %s::text[]) AS k (tenant_id, conversion_id)
JOIN attribution_conversion_events e USING (tenant_id, conversion_id)
"""
_EVENTS_OF_ORDER = f"""
SELECT {_CONVERSION_EVENT} FROM attribution_conversion_events e WHERE e.tenant_id = %s AND e.order_id = %s
UNION
SELECT {_CONVERSION_EVENT} FROM attribution_conversion_events e WHERE e.tenant_id = %s AND e.conversion_id = %s
"""

_SCOPES = """
unnest(%(tenants)s::text[], %(keys)s::text[], %(untils)s::int8[], %(ranges)s::text[])
    AS k (tenant_id, identity_key, until_us, suppressed)
"""


def _covered(event_time: str) -> str:
    return f"""({event_time} <= k.until_us OR t.received_at_us <= k.until_us
     OR t.received_at_us <@ k.suppressed::int8multirange)"""


_NAMED_IN_SCOPE = f"""
SELECT DISTINCT t.tenant_id, t.conversion_id
FROM {_SCOPES} JOIN attribution_conversion_events t USING (tenant_id, identity_key)
WHERE {_covered("t.occurred_at_us")}
"""
_NOTE_CHANGES = change_note_sql(
    "p.tenant_id, p.journey_key",
    f"""FROM {_SCOPES} JOIN attribution_training_people p
    ON p.tenant_id = k.tenant_id AND p.journey_key = k.identity_key""",
)
_ABOUT = "unnest(%(c_tenants)s::text[], %(c_ids)s::text[]) AS c (tenant_id, conversion_id)"


# Each statement removes rows and what hangs on them; its row count is reported under its name.
_STEPS: Mapping[str, str] = {
    "touchpoints": f"""
        WITH gone AS (
            DELETE FROM attribution_touchpoints t USING {_SCOPES}
            WHERE {touchpoints_of("t", "k.tenant_id", "k.identity_key")} AND {_covered("t.occurred_at_us")}
            RETURNING t.tenant_id, t.event_id
        ), conflicts AS (
            DELETE FROM attribution_event_conflicts f USING gone
            WHERE f.tenant_id = gone.tenant_id AND f.record_name = 'touchpoint' AND f.event_id = gone.event_id
        )
        SELECT count(*) FROM gone""",
    "conversion_events": f"""
        WITH gone AS (
            DELETE FROM attribution_conversion_events e USING {_ABOUT}
            WHERE e.tenant_id = c.tenant_id AND e.conversion_id = c.conversion_id
            RETURNING e.tenant_id, e.event_id
        ), conflicts AS (
            DELETE FROM attribution_event_conflicts f USING gone
            WHERE f.tenant_id = gone.tenant_id AND f.record_name = 'conversion' AND f.event_id = gone.event_id
        )
        SELECT count(*) FROM gone""",
    "links_of_user": f"""
        WITH gone AS (
            DELETE FROM attribution_identity_links t USING {_SCOPES}
            WHERE t.tenant_id = k.tenant_id AND k.identity_key > 'a;' COLLATE "C"
              AND t.user_id = substr(k.identity_key, 3)
              AND {_covered("t.linked_at_us")}
            RETURNING t.tenant_id, t.event_id
        ), conflicts AS (
            DELETE FROM attribution_event_conflicts f USING gone
            WHERE f.tenant_id = gone.tenant_id AND f.record_name = 'identity_link' AND f.event_id = gone.event_id
        )
        SELECT count(*) FROM gone""",
    "links_of_device": f"""
        WITH gone AS (
            DELETE FROM attribution_identity_links t USING {_SCOPES}
            WHERE t.tenant_id = k.tenant_id AND k.identity_key < 'a;' COLLATE "C"
              AND t.anonymous_id = substr(k.identity_key, 3) AND {_covered("t.linked_at_us")}
            RETURNING t.tenant_id, t.event_id
        ), conflicts AS (
            DELETE FROM attribution_event_conflicts f USING gone
            WHERE f.tenant_id = gone.tenant_id AND f.record_name = 'identity_link' AND f.event_id = gone.event_id
        )
        SELECT count(*) FROM gone""",
    "results": f"""
        WITH gone AS (
            DELETE FROM attribution_results r USING {_ABOUT}
            WHERE r.tenant_id = c.tenant_id AND r.conversion_id = c.conversion_id RETURNING 1
        ) SELECT count(*) FROM gone""",
    "conversions": f"""
        WITH gone AS (
            DELETE FROM attribution_conversions r USING {_ABOUT}
            WHERE r.tenant_id = c.tenant_id AND r.conversion_id = c.conversion_id RETURNING r.version
        ) SELECT count(*) FROM gone WHERE version > 0""",
}
# An event of somebody else on an erased device stays that person's, and no longer names the device.
_STRIP = tuple(
    f"""
    UPDATE {table} t SET anonymous_id = NULL, updated_at = now() FROM {_SCOPES}
    WHERE t.tenant_id = k.tenant_id AND k.identity_key < 'a;' COLLATE "C" AND t.anonymous_id = substr(k.identity_key, 3)
      AND {_covered("t.occurred_at_us")}
    """
    for table in _TABLES
)
_REOPENINGS = f"""
DELETE FROM attribution_reopenings r USING {_SCOPES}
WHERE r.tenant_id = k.tenant_id AND r.journey_key = k.identity_key
"""
# Who had conversions before they retired, by MD5 of the person: a hash that can be guessed names the person, too.
_ROLLED_UP = f"""
DELETE FROM attribution_rollup_people p USING {_SCOPES}
WHERE p.tenant_id = k.tenant_id AND k.until_us > 0 AND p.person_md5 = md5(k.identity_key)::uuid
"""
_JOBS = f"""
DELETE FROM attribution_batch_jobs j USING {_ABOUT}
WHERE j.tenant_id = c.tenant_id AND j.kind = 'analyze_journey' AND j.parameters ->> 'conversion_id' = c.conversion_id
"""
# The row of a person with nothing left still names the person: it goes. Who waits for it makes it anew. One who owns,
# is owned or has a conversion keeps it: stitching takes people without a row for new ones.
_JOURNEYS = f"""
DELETE FROM attribution_journeys j USING {_SCOPES}
WHERE j.tenant_id = k.tenant_id AND j.journey_key = k.identity_key
  AND NOT EXISTS (SELECT FROM attribution_touchpoints t
                  WHERE {touchpoints_of("t", "j.tenant_id", "j.journey_key")})
  AND NOT EXISTS (SELECT FROM attribution_conversion_events e
                  WHERE e.tenant_id = j.tenant_id AND e.identity_key = j.journey_key)
  AND NOT EXISTS (SELECT FROM attribution_conversions c
                  WHERE c.tenant_id = j.tenant_id AND c.journey_key = j.journey_key)
  AND NOT EXISTS (SELECT FROM attribution_identity_links l
                  WHERE l.tenant_id = j.tenant_id AND j.journey_key > 'a;' AND l.user_id = substr(j.journey_key, 3))
  AND NOT EXISTS (SELECT FROM attribution_identity_links l
                  WHERE l.tenant_id = j.tenant_id AND j.journey_key < 'a;'
                    AND l.anonymous_id = substr(j.journey_key, 3))
  AND NOT EXISTS (SELECT FROM attribution_identities i
                  WHERE i.tenant_id = j.tenant_id AND j.journey_key > 'a;' AND i.user_id = substr(j.journey_key, 3))
  AND NOT EXISTS (SELECT FROM attribution_identities i
                  WHERE i.tenant_id = j.tenant_id AND j.journey_key < 'a;'
                    AND i.anonymous_id = substr(j.journey_key, 3))
"""
# One look into the index per destination of the tenant: the key has the destination before the event.
_DELIVERIES = """
WITH RECURSIVE destinations AS (
    (SELECT min(destination) AS destination FROM attribution_deliveries WHERE tenant_id = %(tenant)s)
    UNION ALL
    SELECT (SELECT min(d.destination) FROM attribution_deliveries d
            WHERE d.tenant_id = %(tenant)s AND d.destination > p.destination)
    FROM destinations p WHERE p.destination IS NOT NULL
)
DELETE FROM attribution_deliveries d USING destinations p, unnest(%(ids)s::text[]) AS k (event_id)
WHERE d.tenant_id = %(tenant)s AND d.destination = p.destination AND d.event_id = k.event_id
"""
_VERSIONS = f"""
SELECT v.tenant_id, v.conversion_id, v.version FROM {_ABOUT}
JOIN attribution_conversions v USING (tenant_id, conversion_id) WHERE v.version > 0
"""


# Of copies of one event the first in the log counts, as everywhere.
_KEEP_LINKS = """
INSERT INTO attribution_dropped_links AS l (
    tenant_id, anonymous_id, user_id, linked_at_us, event_id, received_at_us)
SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::int8[], %s::text[], %s::int8[])
    AS n (tenant_id, anonymous_id, user_id, linked_at_us, event_id, received_at_us)
ORDER BY tenant_id COLLATE "C", event_id COLLATE "C"
ON CONFLICT (tenant_id, event_id) DO UPDATE SET received_at_us = excluded.received_at_us, updated_at = now()
    WHERE excluded.received_at_us < l.received_at_us
"""
_FORGET_LINKS = """
DELETE FROM attribution_dropped_links l USING unnest(%s::text[], %s::text[]) AS k (tenant_id, event_id)
WHERE l.tenant_id = k.tenant_id AND l.event_id = k.event_id
"""


class Removal(NamedTuple):
    """What was removed: rows by table, and the versions that conversions had."""

    rows: dict[str, int]
    versions: list[tuple[str, str, int]]


def links_of_devices(connection: psycopg.Connection, devices: Collection[Key]) -> list[StatedLink]:
    """Return all statements about (tenant, anonymous id)."""
    if not devices:
        return []
    tenants, ids = (list(column) for column in zip(*devices, strict=True))
    rows = connection.execute(_LINKS_OF_DEVICES, {"tenants": tenants, "ids": ids}).fetchall()
    return [StatedLink(*row) for row in rows]


def links_of_users(connection: psycopg.Connection, users: Collection[Key]) -> list[StatedLink]:
    """Return all statements that name (tenant, user id)."""
    if not users:
        return []
    tenants, ids = (list(column) for column in zip(*users, strict=True))
    keys = [USER_PREFIX + user_id for user_id in ids]
    rows = connection.execute(_LINKS_OF_USERS, {"tenants": tenants, "keys": keys}).fetchall()
    return [StatedLink(*row) for row in rows]


def events_about(connection: psycopg.Connection, conversions: Collection[Key]) -> list[ConversionEventRow]:
    """Return the events about (tenant, conversion id), without their details."""
    if not conversions:
        return []
    columns = [list(column) for column in zip(*conversions, strict=True)]
    return [ConversionEventRow(*row) for row in connection.execute(_EVENTS_ABOUT, columns).fetchall()]


def events_of_order(connection: psycopg.Connection, tenant_id: str, order: str) -> list[ConversionEventRow]:
    """Return the events that name an order, by its order id or by its conversion id."""
    rows = connection.execute(_EVENTS_OF_ORDER, (tenant_id, order, tenant_id, order)).fetchall()
    return [ConversionEventRow(*row) for row in rows]


def keep_links(connection: psycopg.Connection, links: Collection[StatedLink]) -> None:
    """Remember which devices users named in events that were dropped, for erasures that come later."""
    if links:
        first = {(link.tenant_id, link.event_id): link for link in sorted(links, key=lambda each: -each.received_at)}
        connection.execute(_KEEP_LINKS, [list(column) for column in zip(*first.values(), strict=True)])


def forget_links(connection: psycopg.Connection, links: Collection[StatedLink]) -> None:
    """Forget them."""
    if links:
        columns = zip(*((link.tenant_id, link.event_id) for link in links), strict=True)
        connection.execute(_FORGET_LINKS, [list(column) for column in columns])


def _scopes(entries: Mapping[Key, Entry]) -> dict[str, list[object]]:
    items = sorted(entries.items())
    return {
        "tenants": [key[0] for key, _ in items],
        "keys": [key[1] for key, _ in items],
        "untils": [entry.erased_until for _, entry in items],
        "ranges": [to_multirange(entry.suppressed) for _, entry in items],
    }


def conversions_in_scope(connection: psycopg.Connection, entries: Mapping[Key, Entry]) -> list[Key]:
    """Return (tenant, conversion id) that an event in the scope of (tenant, identity key) names."""
    return connection.execute(_NAMED_IN_SCOPE, _scopes(entries)).fetchall() if entries else []


def remove(
    connection: psycopg.Connection, tenant_id: str, entries: Mapping[Key, Entry], events: Sequence[ConversionEventRow],
    conversions: Collection[Key],
) -> Removal:  # fmt: skip
    """Remove the events in the scope of identity keys, and conversions with everything about them.

    Args:
        connection: in a transaction that has locked the people and the conversions.
        tenant_id: the tenant of all of them.
        entries: by (tenant, identity key).
        events: all events about the conversions.
        conversions: by (tenant, conversion id).
    """
    values = _scopes(entries)
    ordered = sorted(conversions)
    values |= {"c_tenants": [key[0] for key in ordered], "c_ids": [key[1] for key in ordered]}
    versions = connection.execute(_VERSIONS, values).fetchall()
    connection.execute(_NOTE_CHANGES, values)
    removed = {}
    for name, statement in _STEPS.items():
        row = connection.execute(statement, values).fetchone()
        removed[name] = int(row[0]) if row else 0
    for statement in _STRIP:
        connection.execute(statement, values)
    removed["deliveries"] = connection.execute(
        _DELIVERIES, {"tenant": tenant_id, "ids": [event.event_id for event in events]}
    ).rowcount
    connection.execute(_REOPENINGS, values)
    connection.execute(_ROLLED_UP, values)
    connection.execute(_JOBS, values)
    return Removal(removed, versions)


def remove_journeys(connection: psycopg.Connection, entries: Mapping[Key, Entry]) -> int:
    """Remove the rows of people with nothing left, at the end; return how many."""
    return connection.execute(_JOURNEYS, _scopes(entries)).rowcount
