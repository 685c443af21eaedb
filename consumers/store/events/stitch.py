"""What a stitching transaction does in Postgres, one method a step, each on the whole batch.

The order of the calls is the contract (the stitcher's ``stitch`` keeps it, and a test of both backends checks it):
``lock_people`` before anything is read that depends on the people; ``insert_*``, ``store_conflicts``, ``replace_*``;
``apply_links``; ``conversions_*``; ``put_off``; ``lock_conversions``; ``move_conversions``; ``raise_versions``;
``keep_dropped_links``, ``store_erasure_requests``, ``book_erased``; ``record_positions``; then the
transaction is committed.

Locks: one row of ``attribution_journeys`` per identity key, all ``a:`` keys in sorted order first, then, with the
owners of those known and fixed, all ``u:`` keys in sorted order. Touch and link, touch and conversion, conversion and
link of one person always share a key. Then new event ids, table by table, in sorted order (a transaction that inserts
the same id waits for the end of the other); then contents that are set aside, in sorted order; then notes of people
that are put off, in sorted order; then all conversions that change, in sorted order; then the ledger of erasures, its
totals, positions. Every writer climbs in this order (decision 16).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from attributary.attribution_core.domain.conversion import ConversionEvent
from attributary.attribution_core.domain.identity import ANONYMOUS_PREFIX
from attributary.consumers.store.erasure.amounts import LedgerSteps
from attributary.consumers.store.offsets import record_positions
from attributary.consumers.store.session import FEW_ROWS, StoreSession

from . import stitch_sql as sql
from .people import PeopleSteps, columns_of
from .reopenings import PutOff, put_off
from .rows import (
    ConflictRow,
    ConversionEventRow,
    ConversionRow,
    EventRow,
    IdentityMove,
    Key,
    LinkCandidate,
    LinkRow,
    Place,
    Positions,
    Raise,
    RaisedVersion,
    StoredEvent,
    TouchpointRow,
)
from .staging import copy_into


def _moved(moves: Sequence[IdentityMove]) -> list[list[Any]]:
    """Return tenants, identity keys, old and new journey keys."""
    return columns_of(
        [(move.tenant_id, ANONYMOUS_PREFIX + move.anonymous_id, move.old_key, move.new_key) for move in moves]
    )


class StitchTransaction(PeopleSteps, LedgerSteps):
    """One batch's transaction. See the module for the order of calls.

    Args:
        connection: in a transaction, with staging tables.
        touchpoints, conversion_events, links: the distinct events of the batch.
    """

    def __init__(
        self,
        connection: psycopg.Connection,
        touchpoints: Sequence[TouchpointRow],
        conversion_events: Sequence[ConversionEventRow],
        links: Sequence[LinkRow],
    ) -> None:
        super().__init__(connection, touchpoints)
        self._conversion_events, self._links = conversion_events, links
        if touchpoints:
            copy_into(connection, "stg_touch", touchpoints)
        if conversion_events:
            copy_into(connection, "stg_conv", conversion_events)
        if links:
            copy_into(connection, "stg_link", links)

    def insert_touchpoints(self) -> list[int]:
        """Store the staged touchpoints; return the indexes of those with an event id that was there already."""
        return self._insert(sql.INSERT_TOUCHPOINTS, self._touchpoints)

    def insert_conversion_events(self) -> list[int]:
        """Store the staged conversion events; return the indexes of those with an event id that was there already."""
        return self._insert(sql.INSERT_CONVERSION_EVENTS, self._conversion_events)

    def insert_links(self) -> list[int]:
        """Store the staged links; return the indexes of those with an event id that was there already."""
        return self._insert(sql.INSERT_LINKS, self._links)

    def _insert(self, statement: str, rows: Sequence[EventRow]) -> list[int]:
        if not rows:
            return []
        new = set(self._connection.execute(statement).fetchall())
        if len(new) == len(rows):
            return []
        return [seq for seq, row in enumerate(rows) if (row.topic, row.partition, row.offset) not in new]

    def stored_touchpoints(self, keys: Sequence[Key]) -> dict[Key, StoredEvent]:
        """Return what is stored under (tenant, event id) of touchpoints."""
        return self._stored(sql.STORED_TOUCHPOINTS, keys)

    def stored_conversion_events(self, keys: Sequence[Key]) -> dict[Key, StoredEvent]:
        """Return what is stored under (tenant, event id) of conversion events."""
        return self._stored(sql.STORED_CONVERSION_EVENTS, keys)

    def stored_links(self, keys: Sequence[Key]) -> dict[Key, StoredEvent]:
        """Return what is stored under (tenant, event id) of links."""
        return self._stored(sql.STORED_LINKS, keys)

    def _stored(self, statement: str, keys: Sequence[Key]) -> dict[Key, StoredEvent]:
        if not keys:
            return {}
        found = self._connection.execute(statement, columns_of(keys)).fetchall()
        return {(row[1], row[0]): StoredEvent(*row) for row in found}

    def store_conflicts(self, rows: Sequence[ConflictRow]) -> list[tuple[str, str, str, int]]:
        """Note contents that were set aside; return the keys of those that were not known before.

        Args:
            rows: at most one per tenant, record name, event id and content.

        Returns:
            Tenant, record name, event id and content hash of the new ones.
        """
        if not rows:
            return []
        return self._connection.execute(sql.STORE_CONFLICTS, columns_of(sorted(rows, key=lambda r: r[:4]))).fetchall()

    def replace_touchpoints(self, seqs: Sequence[int]) -> None:
        """Put the staged touchpoints in place of those stored under their event ids."""
        if seqs:
            self._connection.execute(sql.REPLACE_TOUCHPOINTS, (list(seqs),))

    def replace_conversion_events(self, seqs: Sequence[int]) -> list[Key]:
        """Put the staged conversion events in place; return (tenant, conversion id) of what the old ones were about."""
        if not seqs:
            return []
        old = self._connection.execute(sql.CONVERSIONS_OF_REPLACED, (list(seqs),)).fetchall()
        self._connection.execute(sql.REPLACE_CONVERSION_EVENTS, (list(seqs),))
        return old

    def replace_links(self, seqs: Sequence[int]) -> None:
        """Put the staged links in place of those stored under their event ids."""
        if seqs:
            self._connection.execute(sql.REPLACE_LINKS, (list(seqs),))

    def anonymous_ids_of(self, events: Sequence[Key]) -> list[Key]:
        """Return (tenant, anonymous id) that the stored events link to a user, for events about to be replaced."""
        if not events:
            return []
        tenants, ids = columns_of(events)
        return self._connection.execute(sql.ANONYMOUS_IDS_OF, {"tenants": tenants, "ids": ids}).fetchall()

    def users_linked(self, anonymous_ids: Sequence[Key]) -> list[Key]:
        """Return (tenant, user's identity key) of all users that a stored link gives one of (tenant, anonymous id)."""
        if not anonymous_ids:
            return []
        tenants, ids = columns_of(sorted(set(anonymous_ids)))
        return self._connection.execute(sql.USERS_LINKED, {"tenants": tenants, "ids": ids}).fetchall()

    def apply_links(self, candidates: Sequence[LinkCandidate]) -> list[IdentityMove]:
        """Let new links decide the owners of anonymous ids; return those with a new owner."""
        if not candidates:
            return []
        best: dict[Key, LinkCandidate] = {}
        for candidate in candidates:
            key = (candidate.tenant_id, candidate.anonymous_id)
            known = best.get(key)
            if known is None or candidate.order < known.order:
                best[key] = candidate
        columns = columns_of([best[key] for key in sorted(best)])
        moves = [IdentityMove(*row) for row in self._connection.execute(sql.APPLY_LINKS, columns).fetchall()]
        return self.moved(moves)

    def recompute_owners(self, anonymous_ids: Sequence[Key]) -> list[IdentityMove]:
        """Decide the owners of anonymous ids anew, over all stored links and events; return what changed.

        Needed only after an event's content was replaced, which may withdraw a link. An id that loses its last link
        becomes its own person again; ``new_user_id`` is then empty.
        """
        if not anonymous_ids:
            return []
        tenants, ids = columns_of(sorted(set(anonymous_ids)))
        parameters = {"tenants": tenants, "ids": ids}
        moves = [IdentityMove(*row) for row in self._connection.execute(sql.OWNERS_ANEW, parameters).fetchall()]
        self._connection.execute(sql.STORE_OWNERS_ANEW, parameters)
        return self.moved(moves)

    def put_off(self, people: Sequence[PutOff]) -> None:
        """Leave the conversions of people to the sweeper: too many to raise at once; at most one entry a person."""
        put_off(self._connection, people)

    def lock_conversions(
        self, opening: Collection[Key], others: Collection[Key], moves: Sequence[IdentityMove] = ()
    ) -> None:
        """Lock all conversions that the batch changes, in one order, before the first of them is changed.

        Args:
            opening: those that events of the batch are about; created where they are new.
            others: those that change for another reason; none is created.
            moves: take conversions along that are not among these; they may be very many, and are not read.
        """
        keys = columns_of(sorted([*((*key, True) for key in opening), *((*key, False) for key in others)]))
        if moves:
            self._connection.execute(sql.LOCK_MOVED_CONVERSIONS, [*(keys or ([], [], [])), *_moved(moves)[:3]])
        elif keys:
            self._connection.execute(sql.LOCK_CONVERSIONS, keys)

    def stored_conversions(self, conversions: Collection[Key]) -> dict[Key, tuple[int, ConversionRow]]:
        """Return version (0: only just opened) and row of each conversion."""
        if not conversions:
            return {}
        keys = columns_of(sorted(conversions))
        rows = self._connection.execute(sql.STORED_CONVERSIONS, keys).fetchall()
        return {(row[1], row[2]): (row[0], ConversionRow(*row[1:])) for row in rows}

    def events_of(self, conversions: Collection[Key]) -> dict[Key, list[tuple[ConversionEvent, ConversionRow]]]:
        """Return all stored events about each conversion.

        Every event comes with the row that it would make of the conversion if it opened it; values are still those of
        the event, to be replaced by the folded state.
        """
        found: dict[Key, list[tuple[ConversionEvent, ConversionRow]]] = {}
        if conversions:
            keys = columns_of(sorted(conversions))
            for row in self._connection.execute(sql.EVENTS_OF_CONVERSIONS, keys).fetchall():
                event = ConversionEvent(*row[:5])
                found.setdefault((row[5], row[6]), []).append((event, ConversionRow(*row[5:])))
        return found

    def orders_shared(self) -> int:
        """Return how many staged conversions name an order under which another conversion is stored."""
        row = self._connection.execute(sql.ORDERS_SHARED).fetchone()
        return int(row[0]) if row else 0

    def store_states(self, rows: Sequence[ConversionRow]) -> None:
        """Write what conversions are worth and who owns them, and raise no version."""
        if rows:
            self.have_conversions((row.tenant_id, row.journey_key) for row in rows)
            self._connection.execute(sql.STORE_STATES, columns_of(rows))

    def move_conversions(self, moves: Sequence[IdentityMove]) -> None:
        """Give the conversions of moved anonymous ids to their new owner's journey."""
        moving = [move for move in moves if (move.tenant_id, move.old_key) not in self._new]
        if moving:
            self._connection.execute(sql.MOVE_CONVERSIONS, _moved(moving))
            self.have_conversions((move.tenant_id, move.new_key) for move in moving)

    def raise_versions(
        self, raises: Sequence[Raise], policy_version: str, states: Sequence[ConversionRow] = ()
    ) -> list[RaisedVersion]:
        """Raise the versions of conversions, pinning the policy and the model set in force.

        Args:
            raises: at most one per conversion; conversions that still wait for their opening event are left out.
            policy_version: the lookback policy.
            states: what conversions among them are worth and who owns them, written with the version.
        """
        if not raises:
            return []
        stated = {row[:2]: row[2:] for row in states}
        nothing = (None,) * len(ConversionRow._fields[2:])
        rows = [(*r[:3], *r.cause, r.published_at, *stated.get(r[:2], nothing)) for r in sorted(raises)]
        self.have_conversions((row.tenant_id, row.journey_key) for row in states)
        raised = self._connection.execute(sql.RAISE_VERSIONS, [*columns_of(rows), policy_version]).fetchall()
        return [RaisedVersion(*row) for row in raised]

    def versions_caused_by(self, places: Sequence[Place]) -> list[RaisedVersion]:
        """Return the newest versions that the records at these places raised: their commands are issued again."""
        if not places:
            return []
        rows = self._connection.execute(sql.VERSIONS_CAUSED_BY, columns_of(places)).fetchall()
        return [RaisedVersion(*row) for row in rows]

    def record_positions(self, group: str, positions: Positions) -> Positions:
        """Store the next offsets of the group in this transaction; return what was stored before."""
        return record_positions(self._connection, group, positions)


class PostgresStitchStore:
    """Opens stitching transactions on the session's connection, which must have the staging tables.

    Args:
        session: prepared with ``create_staging``.
    """

    def __init__(self, session: StoreSession) -> None:
        self._session = session

    @contextmanager
    def transaction(
        self,
        touchpoints: Sequence[TouchpointRow],
        conversion_events: Sequence[ConversionEventRow],
        links: Sequence[LinkRow],
    ) -> Iterator[StitchTransaction]:
        """Run one batch in one transaction: committed at the end, rolled back on any exception.

        Raises:
            StoreUnavailable: Postgres did not take it; the same batch may be tried again.
            psycopg.DataError: a value of the batch cannot be stored.
        """
        with self._session.transaction() as connection:
            if len(touchpoints) + len(conversion_events) + len(links) < FEW_ROWS:
                self._session.keep_plans()
            yield StitchTransaction(connection, touchpoints, conversion_events, links)
