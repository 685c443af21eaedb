"""Amounts of erased conversions while refunds may still change them, and what they come to in the totals.

Invariant: ``attribution_removed_totals`` gains exactly what the fold over the amounts of each conversion changes by; an
event is booked once, whatever is replayed. Writers of one conversion wait for each other on its row of the ledger.
Of tenants with the erasure mode ``delete`` nothing is booked: their totals fall by what is erased.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import psycopg

from attributary.attribution_core.domain.conversion import ConversionEvent, fold
from attributary.consumers.store.events.rows import ConversionEventRow
from attributary.consumers.store.removed_totals import Removed, add_removed

from .entries import ALWAYS, Entry, Hashed, Hasher, Identifier, RequestRow
from .ledger import fetch_entries, ledger_key_id, store_requests
from .removal import StatedLink, keep_links

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class AmountRow(NamedTuple):
    """One event about an erased conversion: no id, no person; times and amounts are micros."""

    tenant_id: str
    event_hash: bytes
    conversion_hash: bytes
    kind: str
    conversion_type: str
    occurred_at: int
    value_micros: int
    currency: str
    received_at: int


def amount_of(row: ConversionEventRow, hasher: Hasher) -> AmountRow:
    """Return what stays of an event about an erased conversion."""
    conversion = hasher.hashed(Identifier(row.tenant_id, "conversion", row.conversion_id))
    return AmountRow(
        row.tenant_id, hasher.event(row.tenant_id, row.event_id), conversion.id_hash, row.kind, row.conversion_type,
        row.occurred_at, row.value_micros, row.currency, row.received_at,
    )  # fmt: skip


def change_of_totals(before: Iterable[AmountRow], after: Iterable[AmountRow]) -> list[Removed]:
    """Return what totals change by: for each conversion what it comes to after, less what it came to before."""
    changes = [row._replace(conversions=-1, gross_micros=-row.gross_micros, net_micros=-row.net_micros)
               for row in _worth(before)]  # fmt: skip
    return changes + _worth(after)


def _worth(rows: Iterable[AmountRow]) -> list[Removed]:
    """Return one row per conversion that was opened; corrections that wait for theirs are worth nothing."""
    about: dict[tuple[str, bytes], list[AmountRow]] = {}
    for row in rows:
        about.setdefault((row.tenant_id, row.conversion_hash), []).append(row)
    worth = []
    for (tenant_id, _), found in about.items():
        by_id = {row.event_hash.hex(): row for row in found}
        state = fold(
            ConversionEvent(row.occurred_at, event_id, row.kind, row.value_micros, row.currency)
            for event_id, row in by_id.items()
        )
        if state.opened_by is not None:
            opening = by_id[state.opened_by]
            day = (_EPOCH + timedelta(microseconds=opening.occurred_at)).date()
            worth.append(
                Removed(tenant_id, day, opening.conversion_type, state.currency, 1, state.gross_value_micros,
                        state.net_value_micros)
            )  # fmt: skip
    return worth


_COLUMNS = (
    "tenant_id, event_hash, conversion_hash, kind, conversion_type, occurred_at_us, value_micros, currency, "
    "received_at_us"
)
_ABOUT = f"""
SELECT {_COLUMNS} FROM unnest(%s::text[], %s::bytea[]) AS k (tenant_id, conversion_hash)
JOIN attribution_erased_amounts a USING (tenant_id, conversion_hash)
"""
_STORE = f"""
INSERT INTO attribution_erased_amounts ({_COLUMNS})
SELECT * FROM unnest(%s::text[], %s::bytea[], %s::bytea[], %s::text[], %s::text[], %s::int8[], %s::int8[], %s::text[],
                     %s::int8[])
ON CONFLICT (tenant_id, event_hash) DO NOTHING
"""
_LOCK = """
INSERT INTO attribution_erasures AS e (tenant_id, kind, id_hash, key_id, cutoffs_us, request_id)
SELECT tenant_id, 'conversion', id_hash, %s, ARRAY[%s::int8], ''
FROM unnest(%s::text[], %s::bytea[]) AS k (tenant_id, id_hash) ORDER BY tenant_id COLLATE "C", id_hash
ON CONFLICT (tenant_id, kind, id_hash) DO UPDATE SET updated_at = now()
"""


_DELETING = "SELECT tenant_id FROM attribution_tenants WHERE tenant_id = ANY (%s) AND erasure_mode = 'delete'"


def book_amounts(
    connection: psycopg.Connection,
    conversions: Collection[Identifier],
    amounts: Sequence[AmountRow],
    hasher: Hasher,
    cutoff: int,
) -> None:
    """Note conversions as erased, and book events about them, as the last writes but one of the transaction.

    Args:
        connection: in a transaction.
        conversions: those to note; with those of the amounts.
        amounts: events about them, also such that are booked already; those of tenants that delete are not booked.
        hasher: hashes conversion ids.
        cutoff: ``ALWAYS``.
    """
    keys = {(c.tenant_id, hasher.hashed(c).id_hash) for c in conversions}
    keys |= {(row.tenant_id, row.conversion_hash) for row in amounts}
    if not keys:
        return
    columns = [list(column) for column in zip(*sorted(keys), strict=True)]
    connection.execute(_LOCK, (hasher.key_id, cutoff, *columns))
    deleting = {row[0] for row in connection.execute(_DELETING, (sorted(set(columns[0])),)).fetchall()}
    amounts = [row for row in amounts if row.tenant_id not in deleting]
    before = [AmountRow(*row) for row in connection.execute(_ABOUT, columns).fetchall()]
    if amounts:
        connection.execute(_STORE, [list(column) for column in zip(*sorted(amounts), strict=True)])
    add_removed(connection, "(erased)", change_of_totals(before, merged_amounts(before, amounts).values()))


_EXPIRE = """
DELETE FROM attribution_erased_amounts
WHERE received_at_us < (extract(epoch FROM clock_timestamp() - make_interval(secs => %s)) * 1000000)::int8
"""


def expire_amounts(connection: psycopg.Connection, days: float) -> int:
    """Delete amounts that arrived longer ago; their totals stay. Return how many."""
    return connection.execute(_EXPIRE, (days * 86_400.0,)).rowcount


def merged_amounts(before: Iterable[AmountRow], amounts: Iterable[AmountRow]) -> Mapping[tuple[str, bytes], AmountRow]:
    """Return the amounts by event: what is there stays."""
    merged = {row[:2]: row for row in before}
    for row in amounts:
        merged.setdefault(row[:2], row)
    return merged


class LedgerSteps:
    """What a stitching transaction asks of the ledger of erasures, and writes of what it left out."""

    _connection: psycopg.Connection

    def erasure_key_id(self) -> str | None:
        """Return the key of the hashes in the ledger of erasures; None: nobody was ever erased."""
        return ledger_key_id(self._connection)

    def erasures(self, hashes: Collection[Hashed]) -> dict[Hashed, Entry]:
        """Return what the ledger says about identifiers."""
        return fetch_entries(self._connection, hashes)

    def store_erasure_requests(self, requests: Sequence[RequestRow]) -> None:
        """Store requests; the sweeper carries them out."""
        store_requests(self._connection, requests)

    def keep_dropped_links(self, links: Collection[StatedLink]) -> None:
        """Remember which devices users named in events that are dropped."""
        keep_links(self._connection, links)

    def book_erased(self, conversions: Collection[Identifier], booked: Sequence[AmountRow], hasher: Hasher) -> None:
        """Note conversions as erased, and move what events about them say into the totals."""
        book_amounts(self._connection, conversions, booked, hasher, ALWAYS)
