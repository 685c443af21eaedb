"""Conversions retire: events, results and row go, and their worth and credits stay in totals.

Invariant: in one transaction a conversion leaves the tables and enters the totals, so revenue by tenant and currency is
the same before and after. One retires only when it is final and its newest result is stored. A correction that comes
later waits as one without a conversion does (``EVENTS_OF_CONVERSIONS`` leaves retired ones out), and is booked here.

Locks: events, then conversions, each skipped where another holds it; roll-up and totals last. Only those are waited
for.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any, NamedTuple

import psycopg

from attributary.attribution_core.domain.conversion import ConversionEvent, Kind, fold
from attributary.consumers.store.models.changed_people import change_note_sql
from attributary.consumers.store.removed_totals import Removed, add_removed
from attributary.consumers.store.rollup.apply import take_off_retired

from .boundaries import KEPT_LINK

ALL_MODELS = "*"
RETIRED = "(retired)"
_UNATTRIBUTED = "(unattributed)"


class Page(NamedTuple):
    """What a page did: how many retired, and where it ended; None: the step is done."""

    retired: int
    last: tuple[int, str] | None


class Marker(NamedTuple):
    """What is left of a conversion that retired."""

    day: date
    conversion_type: str
    currency: str
    gross_micros: int
    net_micros: int


_CANDIDATES = """
SELECT conversion_id, converted_at_us FROM attribution_conversions
WHERE tenant_id = %(tenant)s AND converted_at_us < %(before)s AND converted_at_us >= %(after)s
  AND (converted_at_us, conversion_id) > (%(after)s, %(id)s)
ORDER BY converted_at_us, conversion_id LIMIT %(limit)s
"""
_LOCK_EVENTS = """
SELECT conversion_id, occurred_at_us, event_id, kind, value_micros, currency, conversion_type
FROM attribution_conversion_events WHERE tenant_id = %s AND conversion_id = ANY (%s::text[])
ORDER BY event_id FOR UPDATE SKIP LOCKED
"""
_COUNT_EVENTS = """
SELECT conversion_id, count(*) FROM attribution_conversion_events
WHERE tenant_id = %s AND conversion_id = ANY (%s::text[]) GROUP BY conversion_id
"""
_LOCK_CONVERSIONS = """
SELECT c.conversion_id, c.version FROM attribution_conversions c
WHERE c.tenant_id = %s AND c.conversion_id = ANY (%s::text[]) AND (
    c.version = 0
    OR (c.is_final AND c.observed_version = c.version
        AND NOT EXISTS (SELECT FROM attribution_reopenings o
                        WHERE o.tenant_id = c.tenant_id AND o.journey_key = c.journey_key)
        AND EXISTS (SELECT FROM attribution_results r WHERE r.tenant_id = c.tenant_id
                    AND r.conversion_id = c.conversion_id AND r.version = c.version
                    AND r.net_value_micros = c.net_value_micros)))
ORDER BY c.conversion_id FOR UPDATE SKIP LOCKED
"""
_DAY = "(to_timestamp(c.converted_at_us / 1000000) AT TIME ZONE 'UTC')::date"
_MARK = f"""
INSERT INTO attribution_retired_conversions (
    tenant_id, conversion_md5, day, conversion_type, currency, gross_micros, net_micros)
SELECT c.tenant_id, md5(c.conversion_id)::uuid, {_DAY}, c.conversion_type, c.currency, c.gross_value_micros,
       c.net_value_micros
FROM attribution_conversions c WHERE c.tenant_id = %s AND c.conversion_id = ANY (%s::text[])
RETURNING tenant_id, day, conversion_type, currency, 1, gross_micros, net_micros
"""
_CREDITS = f"""
WITH gone AS MATERIALIZED (
    SELECT c.conversion_id, {_DAY} AS day, c.conversion_type, c.currency, r.touchpoints, m.*
    FROM attribution_conversions c
    JOIN attribution_results r
      ON r.tenant_id = c.tenant_id AND r.conversion_id = c.conversion_id AND r.version = c.version
    CROSS JOIN LATERAL jsonb_to_recordset(r.models)
        AS m (model text, credits jsonb, micros jsonb, unattributed_micros bigint)
    WHERE c.tenant_id = %(tenant)s AND c.conversion_id = ANY (%(ids)s::text[])
), parts AS (
    SELECT g.day, g.conversion_type, g.currency, g.model, t.touch ->> 'channel' AS channel,
           t.touch ->> 'platform' AS platform, COALESCE(t.touch ->> 'campaign', '') AS campaign,
           round((g.credits ->> (t.number::int - 1))::numeric * 1e9)::int8 AS credit,
           (g.micros ->> (t.number::int - 1))::int8 AS micros
    FROM gone g CROSS JOIN LATERAL jsonb_array_elements(g.touchpoints) WITH ORDINALITY AS t (touch, number)
    UNION ALL
    SELECT g.day, g.conversion_type, g.currency, g.model, '{_UNATTRIBUTED}', '{_UNATTRIBUTED}', '{_UNATTRIBUTED}',
           1000000000 - COALESCE((SELECT sum(round(x.credit::numeric * 1e9))::int8
                                  FROM jsonb_array_elements_text(g.credits) AS x (credit)), 0),
           g.unattributed_micros
    FROM gone g
)
INSERT INTO attribution_retired_credits AS c (
    tenant_id, day, conversion_type, currency, model, channel, platform, campaign, credit_billionths, value_micros)
SELECT %(tenant)s, day, conversion_type, currency, model, channel, platform, campaign, sum(credit), sum(micros)
FROM parts GROUP BY day, conversion_type, currency, model, channel, platform, campaign
ORDER BY day, conversion_type COLLATE "C", currency COLLATE "C", model COLLATE "C", channel COLLATE "C",
         platform COLLATE "C", campaign COLLATE "C"
ON CONFLICT (tenant_id, day, conversion_type, currency, model, channel, platform, campaign) DO UPDATE SET
    credit_billionths = c.credit_billionths + excluded.credit_billionths,
    value_micros = c.value_micros + excluded.value_micros, updated_at = now()
"""
# An event that decides the owner of an anonymous id leaves that behind as a link.
KEEP_LINKS = f"""
INSERT INTO attribution_identity_links (
    tenant_id, event_id, anonymous_id, user_id, linked_at_us, source, received_at_us, content_hash, source_topic,
    source_partition, source_offset)
SELECT e.tenant_id, e.event_id, e.anonymous_id, i.user_id, e.occurred_at_us, '{KEPT_LINK}', e.received_at_us,
       e.content_hash, e.source_topic, e.source_partition, e.source_offset
FROM {{table}} e
JOIN attribution_identities i
  ON i.tenant_id = e.tenant_id AND i.anonymous_id = e.anonymous_id COLLATE "C" AND i.link_event_id = e.event_id
WHERE e.tenant_id = %s AND e.{{key}} = ANY (%s::text[]) AND e.anonymous_id IS NOT NULL
ON CONFLICT (tenant_id, event_id) DO NOTHING
"""
_TOLD = change_note_sql(
    "tenant_id, journey_key",
    "FROM attribution_conversions WHERE tenant_id = %s AND conversion_id = ANY (%s::text[]) AND journey_key <> ''",
)
_DELETE = tuple(
    f"DELETE FROM {table} WHERE tenant_id = %s AND conversion_id = ANY (%s::text[])"
    for table in (
        "attribution_results",
        "attribution_event_conflicts",
        "attribution_conversion_events",
        "attribution_conversions",
    )
)
_MARKERS = """
SELECT k.id, m.day, m.conversion_type, m.currency, m.gross_micros, m.net_micros FROM unnest(%s::text[]) AS k (id)
JOIN attribution_retired_conversions m ON m.tenant_id = %s AND m.conversion_md5 = md5(k.id)::uuid
"""
_STORE_MARKER = """
INSERT INTO attribution_retired_conversions (
    tenant_id, conversion_md5, day, conversion_type, currency, gross_micros, net_micros)
VALUES (%s, md5(%s)::uuid, %s, %s, %s, %s, %s)
ON CONFLICT (tenant_id, conversion_md5) DO UPDATE SET
    gross_micros = excluded.gross_micros, net_micros = excluded.net_micros, updated_at = now()
"""
_BOOK = f"""
INSERT INTO attribution_retired_credits AS c (
    tenant_id, day, conversion_type, currency, model, channel, platform, campaign, credit_billionths, value_micros)
VALUES (%s, %s, %s, %s, '{ALL_MODELS}', '{RETIRED}', '{RETIRED}', '{RETIRED}', %s, %s)
ON CONFLICT (tenant_id, day, conversion_type, currency, model, channel, platform, campaign) DO UPDATE SET
    credit_billionths = c.credit_billionths + excluded.credit_billionths,
    value_micros = c.value_micros + excluded.value_micros, updated_at = now()
"""


def retire_page(
    connection: psycopg.Connection, tenant_id: str, before_us: int, after: tuple[int, str], limit: int
) -> Page:
    """Retire the next conversions of a tenant, in the caller's transaction.

    Args:
        connection: in a transaction.
        tenant_id: the tenant.
        before_us: event time before which conversions retire, microseconds UTC.
        after: event time and id of the last one that was looked at.
        limit: look at so many.
    """
    parameters = {"tenant": tenant_id, "before": before_us, "after": after[0], "id": after[1], "limit": limit}
    found = connection.execute(_CANDIDATES, parameters).fetchall()
    ids = [row[0] for row in found]
    last = (found[-1][1], found[-1][0]) if len(found) == limit else None
    events: dict[str, list[tuple[ConversionEvent, str]]] = {}
    for row in connection.execute(_LOCK_EVENTS, (tenant_id, ids)).fetchall():
        events.setdefault(row[0], []).append((ConversionEvent(*row[1:6]), row[6]))
    counts: dict[str, int] = dict(connection.execute(_COUNT_EVENTS, (tenant_id, ids)).fetchall())
    whole = [each for each in ids if len(events.get(each, ())) == counts.get(each, 0)]
    locked: dict[str, int] = dict(connection.execute(_LOCK_CONVERSIONS, (tenant_id, whole)).fetchall())
    living = [each for each, version in locked.items() if version > 0]
    removed: list[Removed] = []
    if living:
        removed += [Removed(*row) for row in connection.execute(_MARK, (tenant_id, living)).fetchall()]
        connection.execute(_CREDITS, {"tenant": tenant_id, "ids": living})
        connection.execute(_TOLD, (tenant_id, living))
    waiting = {each: events.get(each, []) for each, version in locked.items() if version == 0}
    booked = _book(connection, tenant_id, before_us, waiting, removed)
    gone = [*living, *booked]
    if gone:
        keep = KEEP_LINKS.format(table="attribution_conversion_events", key="conversion_id")
        connection.execute(keep, (tenant_id, gone))
        for statement in _DELETE:
            connection.execute(statement, (tenant_id, gone))
    if living:
        take_off_retired(connection, tenant_id, living, time.time_ns() // 1_000)
    add_removed(connection, "(retired)", removed)
    return Page(sum(each.conversions for each in removed), last)


def _book(
    connection: psycopg.Connection,
    tenant_id: str,
    before_us: int,
    waiting: dict[str, list[tuple[ConversionEvent, str]]],
    removed: list[Removed],
) -> list[str]:
    """Book events about conversions that retired, or that came too late to be opened; returns those that are done."""
    done: list[str] = []
    rows = connection.execute(_MARKERS, (list(waiting), tenant_id)).fetchall()
    markers = {row[0]: Marker(*row[1:]) for row in rows}
    for conversion_id, events in waiting.items():
        known = markers.get(conversion_id)
        now = _corrected(known, [event for event, _ in events]) if known else _unopened(events, before_us)
        if now is not None:
            old = known or Marker(now.day, now.conversion_type, now.currency, 0, 0)
            change = (now.gross_micros - old.gross_micros, now.net_micros - old.net_micros)
            number = 0 if known else 1
            place = (tenant_id, now.day, now.conversion_type, now.currency)
            connection.execute(_STORE_MARKER, (tenant_id, conversion_id, *now))
            connection.execute(_BOOK, (*place, number * 1_000_000_000, change[1]))
            removed.append(Removed(*place, number, *change))
        if now is not None or all(event.occurred_at < before_us for event, _ in events):
            done.append(conversion_id)
    return done


def _corrected(known: Marker, events: Sequence[ConversionEvent]) -> Marker:
    """Return what later corrections make of a conversion that retired; a second conversion event changes nothing."""
    gross, net = known.gross_micros, known.net_micros
    for event in sorted(events):
        if event.kind == Kind.CANCELLATION:
            net = 0
        elif event.kind == Kind.REFUND and event.currency == known.currency:
            net -= event.value_micros
        elif event.kind == Kind.RESTATEMENT and event.currency == known.currency:
            gross, net = event.value_micros, event.value_micros - (gross - net)
    return known._replace(gross_micros=gross, net_micros=net)


def _unopened(events: Sequence[tuple[ConversionEvent, str]], before_us: int) -> Marker | None:
    """Return the worth of a conversion that came when its touchpoints may be gone; None: it still may be opened."""
    opening = min((each for each in events if each[0].kind == Kind.CONVERSION), default=None)
    if opening is None or opening[0].occurred_at >= before_us:
        return None
    state = fold(event for event, _ in events)
    day = datetime.fromtimestamp(opening[0].occurred_at // 1_000_000, UTC).date()
    return Marker(day, opening[1], state.currency, state.gross_value_micros, state.net_value_micros)


def oldest_living(connection: psycopg.Connection, tenant_id: str) -> int | None:
    """Return the event time of a tenant's earliest conversion that has a version, microseconds UTC."""
    row: tuple[Any, ...] | None = connection.execute(
        "SELECT converted_at_us FROM attribution_conversions WHERE tenant_id = %s AND version > 0 "
        "ORDER BY converted_at_us LIMIT 1",
        (tenant_id,),
    ).fetchone()
    return row[0] if row else None
