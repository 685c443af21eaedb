"""What the stored events say, computed anew, beside what is stored: reads only, in one snapshot, in pages.

Invariant: nothing that stitching derived is trusted: owners, values and persons are computed from the events alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import psycopg

from attributary.attribution_core.domain.conversion import ConversionEvent, fold
from attributary.attribution_core.domain.identity import journey_key
from attributary.consumers.store.retention.boundaries import not_retired

_PAGE = 2_000


class Difference(NamedTuple):
    """One thing that is not as it must be."""

    tenant_id: str
    what: str  # for example "conversion order-1"
    stored: str
    expected: str


_LINKS = """
    SELECT tenant_id, anonymous_id, user_id, linked_at_us AS at_us, event_id FROM attribution_identity_links
    UNION ALL
    SELECT tenant_id, anonymous_id, substr(identity_key, 3), occurred_at_us, event_id FROM attribution_touchpoints
    WHERE anonymous_id IS NOT NULL
    UNION ALL
    SELECT tenant_id, anonymous_id, substr(identity_key, 3), occurred_at_us, event_id
    FROM attribution_conversion_events WHERE anonymous_id IS NOT NULL
"""

_OWNERS = f"""
WITH best AS (
    SELECT DISTINCT ON (tenant_id, anonymous_id) tenant_id, anonymous_id, user_id, at_us, event_id
    FROM ({_LINKS}) AS links
    ORDER BY tenant_id, anonymous_id, at_us, event_id COLLATE "C", user_id COLLATE "C"
)
SELECT COALESCE(b.tenant_id, i.tenant_id), COALESCE(b.anonymous_id, i.anonymous_id), i.user_id, b.user_id,
       COALESCE(b.at_us, i.linked_at_us)
FROM best b FULL JOIN attribution_identities i
  ON i.tenant_id = b.tenant_id AND i.anonymous_id = b.anonymous_id COLLATE "C"
WHERE i.user_id IS DISTINCT FROM b.user_id OR i.linked_at_us <> b.at_us OR i.link_event_id <> b.event_id
"""

_EVENTS = f"""
SELECT e.tenant_id, e.conversion_id, e.occurred_at_us, e.event_id, e.kind, e.value_micros, e.currency, e.identity_key,
       e.received_at_us, i.user_id,
       c.journey_key, c.converted_at_us, c.received_at_us, c.gross_value_micros, c.net_value_micros, c.currency
FROM attribution_conversion_events e
LEFT JOIN attribution_identities i
  ON e.identity_key < 'a;' COLLATE "C" AND i.tenant_id = e.tenant_id AND i.anonymous_id = substr(e.identity_key, 3)
LEFT JOIN attribution_conversions c
  ON c.tenant_id = e.tenant_id AND c.conversion_id = e.conversion_id AND c.version > 0
WHERE {not_retired("e")}
ORDER BY e.tenant_id, e.conversion_id
"""

_HELD = """
SELECT t.tenant_id, t.event_id, t.received_at_us, t.source_topic, t.source_partition, t.source_offset
FROM unnest(%s::text[], %s::text[]) AS k (tenant_id, event_id) JOIN {table} t USING (tenant_id, event_id)
"""

_NEWEST = """
SELECT c.tenant_id, c.conversion_id FROM attribution_conversions c
WHERE c.version > 0 AND (c.tenant_id, c.conversion_id) > (%s, %s)
ORDER BY c.tenant_id, c.conversion_id LIMIT %s
"""

_RESULTS = """
SELECT r.tenant_id, r.conversion_id, r.net_value_micros, r.journey_key, r.touchpoints, r.models
FROM unnest(%s::text[], %s::text[], %s::int8[]) AS k (tenant_id, conversion_id, version)
JOIN attribution_results r USING (tenant_id, conversion_id, version)
"""


def wrong_owners(connection: psycopg.Connection) -> Iterator[Difference]:
    """Yield the anonymous ids with a stored owner other than that of their earliest link."""
    for tenant, anonymous_id, stored, expected, _ in misplaced_ids(connection):
        yield Difference(tenant, f"anonymous id {anonymous_id}", str(stored), str(expected))


def misplaced_ids(connection: psycopg.Connection) -> Iterator[tuple[str, str, str | None, str | None, int]]:
    """Yield the anonymous ids with a stored owner other than that of their earliest link.

    Yields:
        Tenant, anonymous id, stored and true user, time of the deciding link in microseconds UTC.
    """
    with connection.cursor(name="misplaced_ids") as cursor:
        cursor.itersize = _PAGE
        cursor.execute(_OWNERS)
        yield from cursor


def wrong_conversions(connection: psycopg.Connection) -> Iterator[Difference]:
    """Yield the conversions with a stored value, time or person that differs from their events."""
    with connection.cursor(name="verify_events") as cursor:
        cursor.itersize = _PAGE
        cursor.execute(_EVENTS)
        for key, rows in groupby(cursor, key=itemgetter(0, 1)):
            yield from _compared(key, [row[2:] for row in rows])


def _compared(key: tuple[str, str], events: Sequence[tuple[Any, ...]]) -> Iterator[Difference]:
    state = fold(ConversionEvent(*event[:5]) for event in events)
    stored = None if events[0][8] is None else events[0][8:]
    if state.opened_by is None:
        expected: tuple[Any, ...] | None = None
    else:
        opening = next(event for event in events if event[1] == state.opened_by)
        person = journey_key(opening[5], opening[7])
        expected = (person, opening[0], opening[6], state.gross_value_micros, state.net_value_micros, state.currency)
    withdrawn = expected is None and stored is not None and stored[3:5] == (0, 0)
    if stored != expected and not withdrawn:
        yield Difference(key[0], f"conversion {key[1]}", str(stored), str(expected))


def held(
    connection: psycopg.Connection, table: str, keys: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], tuple[int, str, int, int]]:
    """Return where in the log the stored events among (tenant, event id) stand: append time, topic, partition, offset.

    Args:
        connection: open.
        table: one of the three tables of events.
        keys: which.
    """
    columns = ([key[0] for key in keys], [key[1] for key in keys])
    rows = connection.execute(_HELD.format(table=table), columns).fetchall()
    return {(row[0], row[1]): tuple(row[2:]) for row in rows}


def conversion_pages(connection: psycopg.Connection, size: int = 500) -> Iterator[list[tuple[str, str]]]:
    """Yield (tenant, conversion id) of all conversions that have a version, in pages."""
    after = ("", "")
    while page := connection.execute(_NEWEST, (*after, size)).fetchall():
        yield page
        after = page[-1]


def stored_results(
    connection: psycopg.Connection, versions: Mapping[tuple[str, str], int]
) -> dict[tuple[str, str], tuple[int, str, Any, Any]]:
    """Return net value, person, touchpoints and models of the stored results of these versions."""
    keys = list(versions)
    columns = ([key[0] for key in keys], [key[1] for key in keys], [versions[key] for key in keys])
    return {(row[0], row[1]): tuple(row[2:]) for row in connection.execute(_RESULTS, columns).fetchall()}
