"""The delivery ledger in Postgres (table attribution_deliveries).

Contract: `delivery.Ledger`. Invariants: a row, once there, is never written anew by `claim`; what is sent stays sent,
whatever a process that lost its partition meanwhile still has to say; keys are sorted before
they are locked, so two processes never wait for each other in a circle; a few statements a call, whatever the number of
events; every call is a transaction of its own.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from attributary.consumers.store.deliveries import requests, stopped_names
from attributary.consumers.store.deliveries.delivery import (
    Count,
    Delivery,
    DeliveryKey,
    DeliveryState,
    Queue,
    Source,
    Waiting,
    micros_of,
    time_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from attributary.consumers.store.deliveries.delivery import (
        DeliveryOutcome,
        HeldEvents,
        NewDelivery,
        Positions,
        ReceivedRequest,
        StoppedName,
        Verdict,
    )
    from attributary.consumers.store.session import StoreSession


_COLUMNS = (
    "d.tenant_id, d.destination, d.event_id, d.state, d.reason, d.occurred_at, d.source_topic, d.source_partition,"
    " d.source_offset, d.match_keys, d.in_flight, d.attempts, d.first_sent_at, d.request_hash, d.response_code,"
    " d.trace_id, d.event_name"
)
_KEYS = "unnest(%(tenants)s::text[], %(destinations)s::text[], %(events)s::text[])"

# Match keys travel as one text per row: unnest takes apart arrays of arrays.
_CLAIM = """
INSERT INTO attribution_deliveries
    (tenant_id, destination, event_id, state, reason, occurred_at,
     source_topic, source_partition, source_offset, match_keys)
SELECT tenant_id, destination, event_id, state, reason, occurred_at, topic, part, off, string_to_array(keys, ' ')
FROM unnest(%(tenants)s::text[], %(destinations)s::text[], %(events)s::text[], %(states)s::text[],
            %(reasons)s::text[], %(times)s::timestamptz[], %(topics)s::text[], %(partitions)s::int[],
            %(offsets)s::bigint[], %(match_keys)s::text[])
     AS n (tenant_id, destination, event_id, state, reason, occurred_at, topic, part, off, keys)
ON CONFLICT DO NOTHING
RETURNING tenant_id, destination, event_id
"""
_LOAD = f"""
SELECT {_COLUMNS}
FROM {_KEYS} AS k (tenant_id, destination, event_id)
JOIN attribution_deliveries d USING (tenant_id, destination, event_id)
"""
_LOCK = f"""
WITH locked AS (
    SELECT d.tenant_id, d.destination, d.event_id
    FROM {_KEYS} AS k (tenant_id, destination, event_id)
    JOIN attribution_deliveries d USING (tenant_id, destination, event_id)
    ORDER BY d.tenant_id, d.destination, d.event_id
    FOR UPDATE OF d
)"""
_BEGIN = f"""{_LOCK}
UPDATE attribution_deliveries d
SET in_flight = true, attempts = attempts + 1, first_sent_at = coalesce(first_sent_at, %(now)s), updated_at = now()
FROM locked
WHERE (d.tenant_id, d.destination, d.event_id) = (locked.tenant_id, locked.destination, locked.event_id)
"""
_SETTLE = f"""{_LOCK}
UPDATE attribution_deliveries d
SET state = n.state, reason = n.reason, in_flight = n.in_flight, updated_at = now(),
    first_sent_at = CASE WHEN n.state IN ('pending', 'held') AND NOT n.in_flight THEN NULL ELSE d.first_sent_at END,
    event_name = n.event_name,
    request_hash = coalesce(n.request_hash, d.request_hash),
    response_code = coalesce(n.response_code, d.response_code), trace_id = coalesce(n.trace_id, d.trace_id)
FROM unnest(%(tenants)s::text[], %(destinations)s::text[], %(events)s::text[], %(states)s::text[],
            %(reasons)s::text[], %(flights)s::boolean[], %(hashes)s::text[], %(codes)s::text[], %(traces)s::text[],
            %(names)s::text[])
     AS n (tenant_id, destination, event_id, state, reason, in_flight, request_hash, response_code, trace_id,
           event_name)
JOIN locked USING (tenant_id, destination, event_id)
WHERE (d.tenant_id, d.destination, d.event_id) = (n.tenant_id, n.destination, n.event_id)
  AND (d.state <> 'sent' OR n.state = 'sent')
"""
# An expression and no join: rows come in the order of the index, and LIMIT ends the scan.
_LEFT_BEHIND = f"""
SELECT DISTINCT d.tenant_id, d.destination FROM attribution_deliveries d
WHERE (d.destination = %(destination)s OR starts_with(d.destination, %(destination)s || ':')) AND d.state = 'pending'
  AND {stopped_names.IS_BEHIND}
ORDER BY d.tenant_id, d.destination
"""
_QUEUED = f"""
SELECT {_COLUMNS} FROM attribution_deliveries d
WHERE d.destination = %(destination)s AND d.state = 'pending' AND d.tenant_id = %(tenant)s AND {stopped_names.IS_BEHIND}
ORDER BY d.occurred_at, d.event_id LIMIT %(limit)s
"""
_QUEUED_NEWEST = _QUEUED.replace("d.occurred_at, d.event_id", "d.occurred_at DESC, d.event_id DESC")
_FIND = f"""
SELECT {_COLUMNS} FROM attribution_deliveries d
WHERE d.event_id = %(event)s AND (%(tenant)s::text IS NULL OR d.tenant_id = %(tenant)s)
ORDER BY d.tenant_id, d.destination
"""
_OPEN = f"""
SELECT {_COLUMNS} FROM attribution_deliveries d
WHERE (d.destination = %(destination)s OR starts_with(d.destination, %(destination)s || ':')) AND d.state = %(state)s
ORDER BY d.occurred_at, d.tenant_id, d.event_id
LIMIT %(limit)s
"""
_PRUNE = """
WITH old AS (
    SELECT tenant_id, destination, event_id FROM attribution_deliveries
    WHERE occurred_at < %(before)s AND state NOT IN ('pending', 'held') AND source_topic <> ''
    ORDER BY tenant_id, destination, event_id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
DELETE FROM attribution_deliveries d USING old
WHERE (d.tenant_id, d.destination, d.event_id) = (old.tenant_id, old.destination, old.event_id)
"""
_COUNTS = """
SELECT destination, state, reason, count(*), min(occurred_at)
FROM attribution_deliveries GROUP BY destination, state, reason ORDER BY destination, state, count(*) DESC
"""
_WAITING = """
SELECT tenant_id, destination, count(*), min(occurred_at), min(reason)
FROM attribution_deliveries WHERE state = 'pending' GROUP BY tenant_id, destination ORDER BY destination, tenant_id
"""


class PostgresLedger:
    """The ledger of all destinations.

    Every call raises `StoreUnavailable` when Postgres is away; the next one opens a new connection.

    Args:
        session: the connection.
    """

    def __init__(self, session: StoreSession) -> None:
        self._session = session

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def claim(self, entries: Sequence[NewDelivery]) -> Mapping[DeliveryKey, Delivery]:
        """Write the entries that are new; give the rows that were there already."""
        rows = sorted(entries, key=lambda entry: entry.key)
        if not rows:
            return {}
        values = _keys([row.key for row in rows]) | {
            "states": [row.state.value for row in rows],
            "reasons": [row.reason for row in rows],
            "times": [time_of(row.occurred_at) for row in rows],
            "topics": [row.source.topic for row in rows],
            "partitions": [row.source.partition for row in rows],
            "offsets": [row.source.offset for row in rows],
            "match_keys": [" ".join(row.match_keys) for row in rows],
        }
        with self._session.transaction() as connection:
            fresh = {DeliveryKey(*row) for row in connection.execute(_CLAIM, values)}
            known = [row.key for row in rows if row.key not in fresh]
            if not known:
                return {}
            found = connection.execute(_LOAD, _keys(known)).fetchall()
        return {delivery.key: delivery for delivery in map(_delivery, found)}

    def begin(self, keys: Sequence[DeliveryKey], *, now_micros: int) -> None:
        """Note that the events are about to be handed over."""
        self._write(_BEGIN, _keys(keys) | {"now": time_of(now_micros)})

    def settle(
        self,
        outcomes: Sequence[DeliveryOutcome],
        received: Sequence[ReceivedRequest] = (),
        stopped: Sequence[StoppedName] = (),
    ) -> None:
        """Note what became of an attempt, requests that are judged later, and event names that were refused."""
        if not outcomes:
            return
        values = _keys([outcome.key for outcome in outcomes]) | {
            "states": [outcome.state.value for outcome in outcomes],
            "reasons": [outcome.reason for outcome in outcomes],
            "flights": [outcome.in_flight for outcome in outcomes],
            "hashes": [outcome.request_hash for outcome in outcomes],
            "codes": [outcome.response_code for outcome in outcomes],
            "traces": [outcome.trace_id for outcome in outcomes],
            "names": [outcome.event_name for outcome in outcomes],
        }
        with self._session.transaction() as connection:
            connection.execute(_SETTLE, values)
            requests.receive(connection, received)
            stopped_names.stop(connection, stopped)

    def stopped_names(self, destination: str | None = None) -> Sequence[StoppedName]:
        """Give the event names that a destination does not take, without one those of all."""
        with self._session.transaction() as connection:
            return stopped_names.find(connection, destination)

    def resume_names(self, names: Sequence[StoppedName]) -> None:
        """Note that event names are taken again, or that nothing is sent to them any more."""
        if names:
            with self._session.transaction() as connection:
                stopped_names.resume(connection, names)

    def held(self, destination: str, positions: Positions | None = None) -> Sequence[HeldEvents]:
        """Count the held deliveries of a destination that Kafka will not bring again; without positions all of them."""
        places = {"positions": None} if positions is None else _places(positions)
        with self._session.transaction() as connection:
            return stopped_names.held(connection, destination, places)

    def release(self, queue: Queue, event_name: str, positions: Positions, *, limit: int | None = None) -> int:
        """Make held deliveries that Kafka will not bring again pending, the newest first."""
        with self._session.transaction() as connection:
            return stopped_names.release(connection, queue, event_name, _places(positions), limit)

    def due_requests(self, destination: str, now_micros: int, *, limit: int) -> Sequence[ReceivedRequest]:
        """Give requests without a verdict that are due to be asked about."""
        with self._session.transaction() as connection:
            return requests.due(connection, destination, now_micros, limit)

    def judge_requests(self, found: Sequence[ReceivedRequest], *, now_micros: int) -> None:
        """Note what the destination says of requests."""
        if found:
            with self._session.transaction() as connection:
                requests.judge(connection, found, now_micros)

    def requests_of(self, deliveries: Sequence[Delivery]) -> Mapping[DeliveryKey, ReceivedRequest]:
        """Give the requests with later verdicts that carried deliveries."""
        keys = {row.key: (row.key.tenant_id, row.key.destination, row.trace_id or "") for row in deliveries}
        with self._session.transaction() as connection:
            found = requests.find(connection, list(dict.fromkeys(keys.values())))
        return {key: found[wanted] for key, wanted in keys.items() if wanted in found}

    def verdicts(self) -> Sequence[tuple[str, Verdict, int, int, int]]:
        """Count requests by verdict: destination, verdict, requests, events, when the oldest was received."""
        with self._session.transaction() as connection:
            return requests.counts(connection)

    def find(self, event_id: str, *, tenant_id: str | None = None) -> Sequence[Delivery]:
        """Give the deliveries of an event."""
        with self._session.transaction() as connection:
            found = connection.execute(_FIND, {"event": event_id, "tenant": tenant_id}).fetchall()
        return [_delivery(row) for row in found]

    def open_deliveries(self, destination: str, state: DeliveryState, *, limit: int) -> Sequence[Delivery]:
        """Give deliveries in a state, oldest event first."""
        values = {"destination": destination, "state": state.value, "limit": limit}
        with self._session.transaction() as connection:
            found = connection.execute(_OPEN, values).fetchall()
        return [_delivery(row) for row in found]

    def left_behind(self, destination: str, positions: Positions) -> Sequence[Queue]:
        """Give the queues of a destination with pending deliveries that Kafka will not bring again."""
        with self._session.transaction() as connection:
            found = connection.execute(_LEFT_BEHIND, _places(positions) | {"destination": destination}).fetchall()
        return [Queue(*row) for row in found]

    def queued(self, queue: Queue, positions: Positions, *, limit: int, newest: bool = False) -> Sequence[Delivery]:
        """Give the pending deliveries of one queue that Kafka will not bring again: the oldest, or the newest."""
        more = {"tenant": queue.tenant_id, "destination": queue.destination, "limit": limit}
        with self._session.transaction() as connection:
            statement = _QUEUED_NEWEST if newest else _QUEUED
            found = connection.execute(statement, _places(positions) | more).fetchall()
        return [_delivery(row) for row in (reversed(found) if newest else found)]

    def counts(self) -> Sequence[Count]:
        """Count deliveries by destination, state and reason."""
        with self._session.transaction() as connection:
            found = connection.execute(_COUNTS).fetchall()
        return [Count(row[0], DeliveryState(row[1]), row[2], row[3], micros_of(row[4])) for row in found]

    def waiting(self) -> Sequence[Waiting]:
        """Count the pending deliveries of each queue."""
        with self._session.transaction() as connection:
            found = connection.execute(_WAITING).fetchall()
        return [Waiting(Queue(row[0], row[1]), row[2], micros_of(row[3]), row[4]) for row in found]

    def prune(self, before_micros: int, *, limit: int = 10_000) -> int:
        """Delete settled deliveries of events older than a time; gives how many, at most `limit`.

        A row that is gone no longer keeps a copy of its event from being sent, so the time must lie further back than
        every destination's age limit.
        """
        with self._session.transaction() as connection:
            requests.prune(connection, before_micros, limit)
            return connection.execute(_PRUNE, {"before": time_of(before_micros), "limit": limit}).rowcount

    def _write(self, statement: str, values: Mapping[str, Any]) -> int:
        if not values["tenants"]:
            return 0
        with self._session.transaction() as connection:
            return connection.execute(statement, values).rowcount


def _keys(keys: Sequence[DeliveryKey]) -> dict[str, Any]:
    return {
        "tenants": [key.tenant_id for key in keys],
        "destinations": [key.destination for key in keys],
        "events": [key.event_id for key in keys],
    }


def _places(positions: Positions) -> dict[str, Any]:
    nexts: dict[str, dict[str, int]] = {}
    for (topic, partition), offset in positions.items():
        nexts.setdefault(topic, {})[str(partition)] = offset
    return {"positions": json.dumps(nexts)}


def _delivery(row: Sequence[Any]) -> Delivery:
    return Delivery(
        key=DeliveryKey(row[0], row[1], row[2]),
        state=DeliveryState(row[3]),
        reason=row[4],
        occurred_at=micros_of(row[5]),
        source=Source(row[6], row[7], row[8]),
        match_keys=tuple(row[9]),
        in_flight=row[10],
        attempts=row[11],
        first_sent_at=None if row[12] is None else micros_of(row[12]),
        request_hash=row[13],
        response_code=row[14],
        trace_id=row[15],
        event_name=row[16],
    )
