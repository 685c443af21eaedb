"""Requests with a verdict that comes later, in Postgres (table attribution_delivery_requests).

Contract: functions on a connection; `PostgresLedger` calls them in its own transactions. Invariants: a verdict that is
final stays so; no event and no person stands here, only counts by the destination's reasons.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from attributary.consumers.store.deliveries.delivery import ReceivedRequest, Verdict, micros_of, time_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psycopg


_RECEIVE = """
INSERT INTO attribution_delivery_requests (tenant_id, destination, request_id, events, received_at, ask_at)
SELECT tenant_id, destination, request_id, events, received_at, ask_at
FROM unnest(%(tenants)s::text[], %(destinations)s::text[], %(requests)s::text[], %(events)s::int[],
            %(times)s::timestamptz[], %(asks)s::timestamptz[])
     AS n (tenant_id, destination, request_id, events, received_at, ask_at)
ON CONFLICT DO NOTHING
"""
_COLUMNS = "tenant_id, destination, request_id, events, received_at, ask_at, verdict, asked, refused, warned"
_DUE = f"""
SELECT {_COLUMNS} FROM attribution_delivery_requests
WHERE (destination = %(destination)s OR starts_with(destination, %(destination)s || ':'))
  AND verdict = 'pending' AND ask_at <= %(now)s
ORDER BY ask_at LIMIT %(limit)s
"""
_JUDGE = """
UPDATE attribution_delivery_requests r
SET verdict = n.verdict, refused = n.refused, warned = n.warned, asked = r.asked + 1, ask_at = n.ask_at,
    updated_at = %(now)s
FROM unnest(%(tenants)s::text[], %(destinations)s::text[], %(requests)s::text[], %(verdicts)s::text[],
            %(refused)s::jsonb[], %(warned)s::jsonb[], %(asks)s::timestamptz[])
     AS n (tenant_id, destination, request_id, verdict, refused, warned, ask_at)
WHERE (r.tenant_id, r.destination, r.request_id) = (n.tenant_id, n.destination, n.request_id) AND r.verdict = 'pending'
"""
_FIND = f"""
SELECT {_COLUMNS} FROM attribution_delivery_requests
WHERE (tenant_id, destination, request_id) IN (
    SELECT * FROM unnest(%(tenants)s::text[], %(destinations)s::text[], %(requests)s::text[]))
"""
_COUNTS = """
SELECT destination, verdict, count(*), sum(events), min(received_at)
FROM attribution_delivery_requests GROUP BY destination, verdict ORDER BY destination, verdict
"""
_PRUNE = """
WITH old AS (
    SELECT tenant_id, destination, request_id FROM attribution_delivery_requests
    WHERE received_at < %(before)s AND verdict <> 'pending'
    ORDER BY tenant_id, destination, request_id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM attribution_delivery_requests r USING old
WHERE (r.tenant_id, r.destination, r.request_id) = (old.tenant_id, old.destination, old.request_id)
"""


def receive(connection: psycopg.Connection[Any], requests: Sequence[ReceivedRequest]) -> None:
    """Note requests that a destination has received."""
    if not requests:
        return
    rows = sorted(requests, key=lambda each: each[:3])
    values = _keys(rows) | {
        "events": [row.events for row in rows],
        "times": [time_of(row.received_at) for row in rows],
        "asks": [time_of(row.ask_at) for row in rows],
    }
    connection.execute(_RECEIVE, values)


def due(
    connection: psycopg.Connection[Any], destination: str, now_micros: int, limit: int
) -> Sequence[ReceivedRequest]:
    """Return requests that are due to be asked about, longest waiting first."""
    values = {"destination": destination, "now": time_of(now_micros), "limit": limit}
    return [_request(row) for row in connection.execute(_DUE, values).fetchall()]


def judge(connection: psycopg.Connection[Any], requests: Sequence[ReceivedRequest], now_micros: int) -> None:
    """Note what a destination says of requests."""
    if not requests:
        return
    rows = sorted(requests, key=lambda each: each[:3])
    values = _keys(rows) | {
        "verdicts": [row.verdict.value for row in rows],
        "refused": [json.dumps(dict(row.refused)) for row in rows],
        "warned": [json.dumps(dict(row.warned)) for row in rows],
        "asks": [time_of(row.ask_at) for row in rows],
        "now": time_of(now_micros),
    }
    connection.execute(_JUDGE, values)


def find(
    connection: psycopg.Connection[Any], keys: Sequence[tuple[str, str, str]]
) -> Mapping[tuple[str, str, str], ReceivedRequest]:
    """Return requests by tenant, destination and request id."""
    values = {
        "tenants": [key[0] for key in keys],
        "destinations": [key[1] for key in keys],
        "requests": [key[2] for key in keys],
    }
    return {(row[0], row[1], row[2]): _request(row) for row in connection.execute(_FIND, values).fetchall()}


def counts(connection: psycopg.Connection[Any]) -> Sequence[tuple[str, Verdict, int, int, int]]:
    """Count requests: destination, verdict, requests, events, and when the oldest was received in microseconds."""
    found = connection.execute(_COUNTS).fetchall()
    return [(row[0], Verdict(row[1]), row[2], row[3], micros_of(row[4])) for row in found]


def prune(connection: psycopg.Connection[Any], before_micros: int, limit: int) -> int:
    """Delete requests that were received before a time and have a verdict; returns how many."""
    return connection.execute(_PRUNE, {"before": time_of(before_micros), "limit": limit}).rowcount


def _keys(rows: Sequence[ReceivedRequest]) -> dict[str, Any]:
    return {
        "tenants": [row.tenant_id for row in rows],
        "destinations": [row.destination for row in rows],
        "requests": [row.request_id for row in rows],
    }


def _request(row: Sequence[Any]) -> ReceivedRequest:
    return ReceivedRequest(
        row[0], row[1], row[2], row[3], micros_of(row[4]), micros_of(row[5]), Verdict(row[6]), row[7], row[8], row[9]
    )
