"""What was accepted and changes nothing: contents that were set aside, ignored events, orders of several conversions.

Reads only. Invariant: the verdicts are those of ``attribution_core``; nothing personal but the tenant's own ids is
returned. Times are microseconds UTC, money is micros of the currency.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import psycopg

from attributary.attribution_core.domain.conversion import (
    IGNORED_VERDICTS,
    ConversionEvent,
    EventVerdict,
    judge_events,
)
from attributary.consumers.store.identity_sql import person_key

_ROWS_AT_ONCE = 2_000


class EventConflict(NamedTuple):
    """A content that was set aside, beside the record that is stored under its event id."""

    tenant_id: str
    record: str  # touchpoint, conversion, identity_link
    event_id: str
    conversion_id: str | None
    value_micros: int | None
    currency: str | None
    received_at: int
    set_aside: str  # topic[partition]@offset
    stored: str  # topic[partition]@offset; empty: it is not stored any more
    stored_value_micros: int | None
    stored_currency: str | None


class IgnoredEvent(NamedTuple):
    """An event about a conversion that changes nothing of its worth, and why."""

    tenant_id: str
    conversion_id: str
    event_id: str
    kind: str
    verdict: str
    value_micros: int
    currency: str
    occurred_at: int
    record: str  # topic[partition]@offset
    counts_instead: str | None  # the event that opened the conversion


class SharedOrder(NamedTuple):
    """An order that came under several conversions."""

    tenant_id: str
    order_id: str
    conversions: Sequence[str]
    net_value_micros: int
    currency: str


def _place(alias: str) -> str:
    return f"{alias}.source_topic || '[' || {alias}.source_partition || ']@' || {alias}.source_offset"


def _conflicts(record: str, table: str, worth: str) -> str:
    return f"""
    SELECT c.tenant_id, c.record_name, c.event_id, c.conversion_id, c.value_micros, c.currency, c.received_at_us,
           {_place("c")}, COALESCE({_place("t")}, ''), {worth}
    FROM attribution_event_conflicts c
    LEFT JOIN {table} t ON t.tenant_id = c.tenant_id AND t.event_id = c.event_id
    WHERE c.record_name = '{record}' AND c.content_hash IS DISTINCT FROM t.content_hash
      AND (%(tenant)s::text IS NULL OR c.tenant_id = %(tenant)s)
    """


_ALL_CONFLICTS = " UNION ALL ".join(
    (
        _conflicts("touchpoint", "attribution_touchpoints", "NULL::int8, NULL::text"),
        _conflicts("conversion", "attribution_conversion_events", "t.value_micros, t.currency"),
        _conflicts("identity_link", "attribution_identity_links", "NULL::int8, NULL::text"),
    )
)
_CONFLICTS = f"SELECT * FROM ({_ALL_CONFLICTS}) AS found ORDER BY 7, 1, 2, 3 LIMIT %(limit)s"
_CONFLICTS_OF = f"""
SELECT * FROM ({_ALL_CONFLICTS}) AS found (tenant_id, record_name, event_id, conversion_id)
WHERE (record_name = 'conversion' AND (conversion_id = %(conversion)s OR event_id = ANY (%(events)s::text[])))
   OR (record_name = 'touchpoint' AND event_id = ANY (%(touches)s::text[]))
   OR (record_name = 'identity_link' AND event_id = ANY (%(links)s::text[]))
ORDER BY 7, 2, 3
"""

_SEVERAL_EVENTS = f"""
WITH several AS (
    SELECT tenant_id, conversion_id FROM attribution_conversion_events
    WHERE %(tenant)s::text IS NULL OR tenant_id = %(tenant)s
    GROUP BY tenant_id, conversion_id HAVING count(*) > 1 OR bool_and(kind <> 'conversion')
)
SELECT e.tenant_id, e.conversion_id, e.occurred_at_us, e.event_id, e.kind, e.value_micros, e.currency,
       {person_key("e.identity_key")}, {_place("e")}
FROM several s
JOIN attribution_conversion_events e ON e.tenant_id = s.tenant_id AND e.conversion_id = s.conversion_id
LEFT JOIN attribution_identities i
  ON e.identity_key < 'a;' COLLATE "C" AND i.tenant_id = e.tenant_id AND i.anonymous_id = substr(e.identity_key, 3)
ORDER BY e.tenant_id, e.conversion_id, e.occurred_at_us, e.event_id
"""

_SHARED_ORDERS = """
SELECT tenant_id, order_id, array_agg(conversion_id ORDER BY converted_at_us, conversion_id),
       sum(net_value_micros)::int8, min(currency)
FROM attribution_conversions
WHERE order_id IS NOT NULL AND version > 0 AND (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
GROUP BY tenant_id, order_id HAVING count(*) > 1
ORDER BY tenant_id, order_id LIMIT %(limit)s
"""


def event_conflicts(connection: psycopg.Connection, tenant_id: str | None, limit: int) -> list[EventConflict]:
    """Return the contents that were set aside, in the order of the log; of one tenant or (None) of all."""
    rows = connection.execute(_CONFLICTS, {"tenant": tenant_id, "limit": limit}).fetchall()
    return [EventConflict(*row) for row in rows]


def conflicts_of_conversion(
    connection: psycopg.Connection,
    tenant_id: str,
    conversion_id: str,
    *,
    events: Sequence[str],
    touches: Sequence[str],
    links: Sequence[str],
) -> list[EventConflict]:
    """Return the contents that were set aside under the event ids of one conversion, or that name it."""
    parameters = {
        "tenant": tenant_id, "conversion": conversion_id, "events": list(events), "touches": list(touches),
        "links": list(links),
    }  # fmt: skip
    return [EventConflict(*row) for row in connection.execute(_CONFLICTS_OF, parameters).fetchall()]


def ignored_events(connection: psycopg.Connection, tenant_id: str | None) -> Iterator[IgnoredEvent]:
    """Yield the events that change nothing, by conversion and time; of one tenant or (None) of all.

    Yields:
        Repeats, conversions of other people, corrections in another currency, and corrections of a conversion that has
        not arrived.
    """
    reported = IGNORED_VERDICTS | {EventVerdict.NOT_OPENED}
    with connection.cursor(name="ignored_events") as cursor:
        cursor.itersize = _ROWS_AT_ONCE
        cursor.execute(_SEVERAL_EVENTS, {"tenant": tenant_id})
        for (tenant, conversion_id), rows in groupby(cursor, key=itemgetter(0, 1)):
            events = [(ConversionEvent(*row[2:7]), row[7], row[8]) for row in rows]
            verdicts = judge_events([(event, person) for event, person, _ in events])
            opening = next(
                (e[0].event_id for e, v in zip(events, verdicts, strict=True) if v is EventVerdict.OPENS), None
            )
            for (event, _, place), verdict in zip(events, verdicts, strict=True):
                if verdict in reported:
                    yield IgnoredEvent(
                        tenant, conversion_id, event.event_id, event.kind, str(verdict), event.value_micros,
                        event.currency, event.occurred_at, place, opening,
                    )  # fmt: skip


def shared_orders(connection: psycopg.Connection, tenant_id: str | None, limit: int) -> list[SharedOrder]:
    """Return the orders that came under several conversions, by order; of one tenant or (None) of all."""
    rows = connection.execute(_SHARED_ORDERS, {"tenant": tenant_id, "limit": limit}).fetchall()
    return [SharedOrder(*row) for row in rows]
