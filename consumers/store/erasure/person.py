"""Everything that is stored about a person, and where a text still stands: for access requests and for proof.

Every table of ours is looked at, also those that a later migration adds: they are taken from the catalogue. Reads only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
from psycopg import sql

from attributary.attribution_core.domain.identity import ANONYMOUS_PREFIX, USER_PREFIX
from attributary.consumers.store.identity_sql import identity_hash

from .entries import Identifier

_ESCAPED = r"\\\1"
_TABLES = """
SELECT c.relname FROM pg_class c
WHERE c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'attribution_conversions'::regclass)
  AND c.relkind IN ('r', 'p') AND c.relname LIKE 'attribution\\_%' ORDER BY c.relname
"""
_DEVICES = "SELECT anonymous_id FROM attribution_identities WHERE tenant_id = %s AND user_id = %s ORDER BY 1"
_OWNER = "SELECT user_id FROM attribution_identities WHERE tenant_id = %s AND anonymous_id = %s"
_OF_KEYS = (
    f"identity_hash = ANY (ARRAY(SELECT {identity_hash('k')} FROM unnest(%(keys)s::text[]) AS k)) "
    "AND identity_key = ANY (%(keys)s)"
)
# Each question is answered by an index; %(keys)s are identity keys, %(ids)s anonymous ids.
_QUESTIONS = {
    "identities": "attribution_identities WHERE tenant_id = %(tenant)s AND anonymous_id = ANY (%(ids)s)",
    "identity_links": "attribution_identity_links WHERE tenant_id = %(tenant)s AND (anonymous_id = ANY (%(ids)s) "
    "OR user_id = %(user)s)",
    "dropped_links": "attribution_dropped_links WHERE tenant_id = %(tenant)s AND (anonymous_id = ANY (%(ids)s) "
    "OR user_id = %(user)s)",
    "journeys": "attribution_journeys WHERE tenant_id = %(tenant)s AND journey_key = ANY (%(keys)s)",
    "touchpoints": f"attribution_touchpoints WHERE tenant_id = %(tenant)s AND (({_OF_KEYS}) "
    "OR anonymous_id = ANY (%(ids)s)) ORDER BY occurred_at_us",
    "conversion_events": "attribution_conversion_events WHERE tenant_id = %(tenant)s "
    "AND conversion_id = ANY (%(conversions)s) ORDER BY occurred_at_us",
    "conversions": "attribution_conversions WHERE tenant_id = %(tenant)s AND conversion_id = ANY (%(conversions)s)",
    "results": "attribution_results WHERE tenant_id = %(tenant)s AND conversion_id = ANY (%(conversions)s) "
    "ORDER BY conversion_id, version",
    "deliveries": "attribution_deliveries WHERE tenant_id = %(tenant)s AND event_id = ANY (%(events)s)",
    "put_off": "attribution_reopenings WHERE tenant_id = %(tenant)s AND journey_key = ANY (%(keys)s)",
    "event_conflicts": "attribution_event_conflicts WHERE tenant_id = %(tenant)s "
    "AND (conversion_id = ANY (%(conversions)s) OR event_id = ANY (%(events)s) OR event_id IN ("
    "SELECT e.event_id FROM attribution_touchpoints e "
    f"WHERE e.tenant_id = %(tenant)s AND {_OF_KEYS}))",
    "rollup_conversions": "attribution_rollup_conversions WHERE tenant_id = %(tenant)s AND conversion_md5 = ANY ("
    "SELECT md5(c)::uuid FROM unnest(%(conversions)s::text[]) AS c)",
    "rollup_people": "attribution_rollup_people WHERE tenant_id = %(tenant)s AND person_md5 = ANY ("
    "SELECT md5(k)::uuid FROM unnest(%(keys)s::text[]) AS k)",
    "jobs": "attribution_batch_jobs WHERE tenant_id = %(tenant)s AND kind = 'analyze_journey' "
    "AND parameters ->> 'conversion_id' = ANY (%(conversions)s)",
    "erasure_requests": "attribution_erasure_requests WHERE tenant_id = %(tenant)s AND ((kind = 'user' "
    "AND identifier = %(user)s) OR (kind = 'anonymous' AND identifier = ANY (%(ids)s)))",
    "tombstones": "attribution_tombstones WHERE tenant_id = %(tenant)s AND conversion_id = ANY (%(conversions)s)",
    "training": "attribution_training_people WHERE tenant_id = %(tenant)s AND journey_key = ANY (%(keys)s)",
}
_CONVERSIONS = """
SELECT conversion_id, event_id FROM attribution_conversion_events
WHERE tenant_id = %(tenant)s AND identity_key = ANY (%(keys)s)
UNION
SELECT conversion_id, '' FROM attribution_conversions WHERE tenant_id = %(tenant)s AND journey_key = ANY (%(keys)s)
"""


def person_of(connection: psycopg.Connection, named: Identifier) -> tuple[str | None, list[str]]:
    """Return the user that an identifier means, None without one, and the anonymous ids of that person."""
    user: str | None = named.value if named.kind == "user" else None
    devices: list[str] = []
    if named.kind == "anonymous":
        row = connection.execute(_OWNER, (named.tenant_id, named.value)).fetchone()
        user, devices = (None if row is None else str(row[0])), [named.value]
    if user is not None:
        devices = sorted({*devices, *(row[0] for row in connection.execute(_DEVICES, (named.tenant_id, user)))})
    return user, devices


def person_rows(connection: psycopg.Connection, named: Identifier) -> dict[str, Any]:
    """Return everything that is stored about a person, by table, in the words of the tables' columns.

    Args:
        connection: in a snapshot.
        named: a user or an anonymous id.
    """
    user, devices = person_of(connection, named)
    keys = [ANONYMOUS_PREFIX + device for device in devices] + ([USER_PREFIX + user] if user is not None else [])
    values: dict[str, Any] = {"tenant": named.tenant_id, "ids": devices, "keys": keys, "user": user}
    found = connection.execute(_CONVERSIONS, values).fetchall()
    values |= {"conversions": sorted({row[0] for row in found}), "events": sorted({row[1] for row in found})}
    person: dict[str, Any] = {"tenant_id": named.tenant_id, "user_id": user, "anonymous_ids": devices}
    for name, rest in _QUESTIONS.items():
        table, _, where = rest.partition(" ")
        statement = f"SELECT to_jsonb(t) FROM {table} AS t {where}"
        person[name] = [row[0] for row in connection.execute(statement, values).fetchall()]
    return person


def rows_with(
    connection: psycopg.Connection, texts: Sequence[str], tenant_id: str | None = None
) -> Iterator[tuple[str, int]]:
    """Yield every table of ours with how many of its rows hold one of the texts as a whole word, anywhere in the row.

    Args:
        connection: in a snapshot.
        texts: identifiers, and what else may give the person away; ``user-1`` is not found in ``user-12``.
        tenant_id: rows of this tenant alone; None: of all.
    """
    patterns = [f"(^|[^[:alnum:]_-]){re.sub(r'([^a-zA-Z0-9])', _ESCAPED, text)}($|[^[:alnum:]_-])" for text in texts]
    for (table,) in connection.execute(_TABLES).fetchall():
        statement = sql.SQL(
            "SELECT count(*) FROM {} AS t WHERE (%s::text IS NULL OR t.tenant_id = %s) AND t::text ~ ANY (%s::text[])"
        ).format(sql.Identifier(table))
        row = connection.execute(statement, (tenant_id, tenant_id, patterns)).fetchone()
        yield table, int(row[0]) if row else 0
