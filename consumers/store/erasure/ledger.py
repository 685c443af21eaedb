"""The ledger of erasures and the requests, in Postgres.

Invariant: the ledger is read under the locks of the people concerned, and written under them (decision 16), so that of
an erasure and an event of one person the later one sees what the earlier one did.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import psycopg
from psycopg.types.json import Jsonb

from .entries import Entry, Hashed, RequestRow, from_multirange, to_array, to_multirange

_KEY_ID = "SELECT key_id FROM attribution_erasures LIMIT 1"

_ENTRIES = """
SELECT e.tenant_id, e.kind, e.id_hash, e.cutoffs_us, e.suppressed::text
FROM unnest(%s::text[], %s::text[], %s::bytea[]) AS k (tenant_id, kind, id_hash)
JOIN attribution_erasures e USING (tenant_id, kind, id_hash)
"""

_STORE_ENTRIES = """
INSERT INTO attribution_erasures AS e (tenant_id, kind, id_hash, key_id, cutoffs_us, suppressed, request_id)
SELECT tenant_id, kind, id_hash, %s, cutoffs_us::int8[], suppressed::int8multirange, request_id
FROM unnest(%s::text[], %s::text[], %s::bytea[], %s::text[], %s::text[], %s::text[])
    AS n (tenant_id, kind, id_hash, cutoffs_us, suppressed, request_id)
ORDER BY tenant_id COLLATE "C", kind COLLATE "C", id_hash
ON CONFLICT (tenant_id, kind, id_hash) DO UPDATE SET
    cutoffs_us = excluded.cutoffs_us, suppressed = excluded.suppressed,
    key_id = excluded.key_id, request_id = excluded.request_id, published_at = NULL, updated_at = now()
"""

_STORE_REQUESTS = """
INSERT INTO attribution_erasure_requests (
    tenant_id, request_id, kind, mode, identifier, received_at_us, cutoff_us, derived_from,
    source_partition, source_offset, state)
SELECT *, 'pending' FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::int8[], %s::int8[],
                                %s::text[], %s::int4[], %s::int8[])
ON CONFLICT (tenant_id, request_id) DO NOTHING
"""
_REQUEST = (
    "tenant_id, request_id, kind, mode, COALESCE(identifier, '') AS identifier, received_at_us, cutoff_us, derived_from"
)
# One after the other, in the order of the log, whatever the number of sweepers: who finds the first one locked waits.
# Of one millisecond first those that follow from an event, then by partition and offset: suppress and unsuppress of one
# person end as they were asked for. Ids of requests decide last, for what was stored before places were kept.
_FIRST = f"""
SELECT {_REQUEST} FROM attribution_erasure_requests WHERE state = 'pending' AND received_at_us < %s
ORDER BY received_at_us, derived_from IS NULL, source_partition, source_offset, tenant_id, request_id LIMIT 1
"""
_CLAIM = """
SELECT FROM attribution_erasure_requests WHERE tenant_id = %s AND request_id = %s AND state = 'pending'
FOR UPDATE SKIP LOCKED
"""
_FINISH = """
UPDATE attribution_erasure_requests SET state = 'in_progress', identifier = NULL, id_hash = %s, removed = %s,
    executed_at = clock_timestamp(), updated_at = now()
WHERE tenant_id = %s AND request_id = %s
"""
_COMPLETE = """
UPDATE attribution_erasure_requests r SET state = 'completed', completed_at = clock_timestamp(), updated_at = now()
WHERE r.state = 'in_progress'
  AND NOT EXISTS (SELECT FROM attribution_tombstones t
                  WHERE t.tenant_id = r.tenant_id AND t.request_id = r.request_id AND t.observed_at IS NULL
                    AND t.repeat_after IS NOT NULL)
  AND NOT EXISTS (SELECT FROM attribution_erasures e WHERE e.published_at IS NULL)
RETURNING extract(epoch FROM clock_timestamp() - to_timestamp(received_at_us / 1e6))::float8
"""
_OPEN = """
SELECT count(*), COALESCE(extract(epoch FROM clock_timestamp()) - min(received_at_us) / 1e6, 0)::float8
FROM attribution_erasure_requests WHERE state IN ('pending', 'in_progress')
"""
_STATE = """
SELECT request_id, kind, mode, state, received_at_us, executed_at, completed_at, removed
FROM attribution_erasure_requests WHERE tenant_id = %s AND request_id = %s AND derived_from IS NULL
"""
_UNPUBLISHED = """
SELECT tenant_id, kind, id_hash, key_id, cutoffs_us, suppressed::text, request_id, updated_at
FROM attribution_erasures WHERE published_at IS NULL ORDER BY tenant_id, kind, id_hash LIMIT %s
"""
_PUBLISHED = """
UPDATE attribution_erasures e SET published_at = clock_timestamp()
FROM unnest(%s::text[], %s::text[], %s::bytea[], %s::timestamptz[]) AS k (tenant_id, kind, id_hash, updated_at)
WHERE e.tenant_id = k.tenant_id AND e.kind = k.kind AND e.id_hash = k.id_hash AND e.updated_at = k.updated_at
"""


class RequestState(NamedTuple):
    """Where a request stands, without its identifier; ``removed`` counts rows by table."""

    request_id: str
    kind: str
    mode: str
    state: str
    received_at_us: int
    executed_at: datetime | None
    completed_at: datetime | None
    removed: Mapping[str, int]


class LedgerRow(NamedTuple):
    """A row of the ledger as its topic carries it; times are microseconds UTC."""

    hashed: Hashed
    key_id: str
    entry: Entry
    request_id: str


def ledger_key_id(connection: psycopg.Connection) -> str | None:
    """Return the key of the ledger's hashes; None: the ledger is empty."""
    row = connection.execute(_KEY_ID).fetchone()
    return None if row is None else str(row[0])


def fetch_entries(connection: psycopg.Connection, hashes: Collection[Hashed]) -> dict[Hashed, Entry]:
    """Return what the ledger says about identifiers, by one statement."""
    if not hashes:
        return {}
    columns = [list(column) for column in zip(*hashes, strict=True)]
    return {
        Hashed(tenant, kind, id_hash): Entry(tuple(cutoffs), from_multirange(suppressed))
        for tenant, kind, id_hash, cutoffs, suppressed in connection.execute(_ENTRIES, columns).fetchall()
    }


def store_entries(
    connection: psycopg.Connection, entries: Mapping[Hashed, Entry], key_id: str, request_id: str
) -> None:
    """Write entries, in place of those that were read under the same locks."""
    if entries:
        rows = [(*h, to_array(e.cutoffs), to_multirange(e.suppressed), request_id) for h, e in sorted(entries.items())]
        connection.execute(_STORE_ENTRIES, [key_id, *(list(column) for column in zip(*rows, strict=True))])


def store_requests(connection: psycopg.Connection, requests: Sequence[RequestRow]) -> None:
    """Store requests that are not stored yet."""
    if requests:
        rows = sorted(
            ((*request[:8], request.partition, request.offset) for request in requests), key=lambda row: row[:2]
        )
        columns = zip(*rows, strict=True)
        connection.execute(_STORE_REQUESTS, [list(column) for column in columns])


def claim_request(connection: psycopg.Connection, before_us: int) -> RequestRow | None:
    """Lock the first pending request that arrived before a time; None: there is none, or somebody has it in hand."""
    row = connection.execute(_FIRST, (before_us,)).fetchone()
    if row is None or connection.execute(_CLAIM, row[:2]).fetchone() is None:
        return None
    return RequestRow(*row)


def finish_request(
    connection: psycopg.Connection, request: RequestRow, id_hash: bytes, removed: Mapping[str, int]
) -> None:
    """Note that a request was carried out; its identifier goes."""
    connection.execute(_FINISH, (id_hash, Jsonb(dict(removed)), request.tenant_id, request.request_id))


def complete_requests(connection: psycopg.Connection) -> list[float]:
    """Complete requests with results that are all taken back; return how long each took, seconds."""
    return [row[0] for row in connection.execute(_COMPLETE).fetchall()]


def open_requests(connection: psycopg.Connection) -> tuple[int, float]:
    """Return how many requests are not completed, and the age of the oldest in seconds."""
    row = connection.execute(_OPEN).fetchone()
    return (int(row[0]), float(row[1])) if row else (0, 0.0)


def show_request(connection: psycopg.Connection, tenant_id: str, request_id: str) -> RequestState | None:
    """Return where a request of its own stands; None: none is stored."""
    row = connection.execute(_STATE, (tenant_id, request_id)).fetchone()
    return None if row is None else RequestState(*row)


def unpublished(connection: psycopg.Connection, limit: int) -> list[tuple[LedgerRow, tuple[object, ...]]]:
    """Return rows of the ledger that are not on its topic, each with what ``mark_published`` takes."""
    found = connection.execute(_UNPUBLISHED, (limit,)).fetchall()
    return [
        (
            LedgerRow(Hashed(*row[:3]), row[3], Entry(tuple(row[4]), from_multirange(row[5])), row[6]),
            (*row[:3], row[7]),
        )
        for row in found
    ]


def mark_published(connection: psycopg.Connection, marks: Sequence[tuple[object, ...]]) -> None:
    """Note that rows are on the topic; one that has changed since stays to be written again."""
    if marks:
        connection.execute(_PUBLISHED, [list(column) for column in zip(*marks, strict=True)])
