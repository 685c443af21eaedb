"""An erasure's transaction in Postgres: the steps of ``consumers.erasure.execute``, each on sets.

Locks climb as everywhere (decision 16): the people, the conversions, the results, then the rows of tombstones, ledger
and requests, and the totals last. The request's own row is locked before all of them; nobody who holds another waits
for it, because another that wants it skips it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import psycopg

from attributary.consumers.store.audit import note_action
from attributary.consumers.store.events.rows import (
    LOCKS_ONLY,
    ConversionEventRow,
    IdentityMove,
    Key,
    Raise,
    RaisedVersion,
)
from attributary.consumers.store.events.stitch import StitchTransaction

from . import amounts, ledger, removal, tombstones
from .amounts import AmountRow
from .entries import ALWAYS, Entry, Hashed, Hasher, Identifier, RequestRow
from .removal import Removal, StatedLink


class ErasureTransaction:
    """One erasure.

    Args:
        connection: in a transaction, with staging tables.
        repeat_seconds: tombstones are written again so much later.
    """

    def __init__(self, connection: psycopg.Connection, repeat_seconds: float) -> None:
        self._connection = connection
        self._stitch = StitchTransaction(connection, (), (), ())
        self._repeat_seconds = repeat_seconds

    def lock_people(self, keys: Collection[Key]) -> None:
        """Lock the people, in the one order."""
        if keys:
            self._stitch.lock_people(dict.fromkeys(keys, LOCKS_ONLY))

    def links_of_devices(self, devices: Collection[Key]) -> list[StatedLink]:
        """Return all statements about (tenant, anonymous id)."""
        return removal.links_of_devices(self._connection, devices)

    def links_of_users(self, users: Collection[Key]) -> list[StatedLink]:
        """Return all statements that name (tenant, user id)."""
        return removal.links_of_users(self._connection, users)

    def events_of_order(self, tenant_id: str, order: str) -> list[ConversionEventRow]:
        """Return the conversion events that name an order."""
        return removal.events_of_order(self._connection, tenant_id, order)

    def events_about(self, conversions: Collection[Key]) -> list[ConversionEventRow]:
        """Return all events about (tenant, conversion id)."""
        return removal.events_about(self._connection, conversions)

    def entries(self, hashes: Collection[Hashed]) -> dict[Hashed, Entry]:
        """Return what the ledger says."""
        return ledger.fetch_entries(self._connection, hashes)

    def conversions_in_scope(self, entries: Mapping[Key, Entry]) -> list[Key]:
        """Return the conversions that events in scope name."""
        return removal.conversions_in_scope(self._connection, entries)

    def conversions_of_people(self, keys: Collection[Key]) -> list[Key]:
        """Return the conversions of people."""
        return self._stitch.conversions_of_people(keys)

    def lock_conversions(self, opening: Collection[Key], others: Collection[Key]) -> None:
        """Lock conversions; those that go also where they are not stored, so that nobody stores them meanwhile."""
        self._stitch.lock_conversions(opening, others)

    def remove(
        self,
        tenant_id: str,
        entries: Mapping[Key, Entry],
        events: Sequence[ConversionEventRow],
        conversions: Collection[Key],
    ) -> Removal:
        """Remove what is in scope, and conversions with everything about them."""
        return removal.remove(self._connection, tenant_id, entries, events, conversions)

    def recompute_owners(self, anonymous_ids: Sequence[Key]) -> list[IdentityMove]:
        """Decide anew who owns the anonymous ids."""
        return self._stitch.recompute_owners(anonymous_ids)

    def move_conversions(self, moves: Sequence[IdentityMove]) -> None:
        """Give conversions to the new owners."""
        self._stitch.move_conversions(moves)

    def raise_versions(self, raises: Sequence[Raise], policy_version: str) -> list[RaisedVersion]:
        """Raise versions of conversions of which something was taken away."""
        return self._stitch.raise_versions(raises, policy_version)

    def remove_journeys(self, entries: Mapping[Key, Entry]) -> None:
        """Remove the rows of people with nothing left."""
        removal.remove_journeys(self._connection, entries)

    def store_entries(self, entries: Mapping[Hashed, Entry], key_id: str, request_id: str) -> None:
        """Write the ledger."""
        ledger.store_entries(self._connection, entries, key_id, request_id)

    def book(self, conversions: Collection[Identifier], booked: Sequence[AmountRow], hasher: Hasher) -> None:
        """Note conversions as erased, and move their money into the totals."""
        amounts.book_amounts(self._connection, conversions, booked, hasher, ALWAYS)

    def store_requests(self, requests: Sequence[RequestRow]) -> None:
        """Store requests that follow from this one."""
        ledger.store_requests(self._connection, requests)

    def add_tombstones(self, versions: Sequence[RaisedVersion], request_id: str) -> None:
        """Owe tombstones."""
        tombstones.add_tombstones(self._connection, versions, request_id, self._repeat_seconds)

    def keep_links(self, links: Collection[StatedLink]) -> None:
        """Remember which devices users named in events that go."""
        removal.keep_links(self._connection, links)

    def forget_links(self, links: Collection[StatedLink]) -> None:
        """Forget what was remembered of these events."""
        removal.forget_links(self._connection, links)

    def finish(self, request: RequestRow, id_hash: bytes, removed: Mapping[str, int]) -> None:
        """Note that the request was carried out, also in the audit."""
        ledger.finish_request(self._connection, request, id_hash, removed)
        subject = request.request_id if request.derived_from is None else f"derived {request.kind}"
        note_action(
            self._connection, request.tenant_id, "erasure.executed", subject,
            {"mode": request.mode, "kind": request.kind, "removed": dict(removed)}, actor="sweeper",
        )  # fmt: skip
