"""The people of a stitching transaction: locked with the bounds of their events, asked for their conversions.

Invariant: the owners of the batch's anonymous ids are read once, when the ids are locked and nobody else can give them
another; what the batch itself links is taken in by ``moved``.

Who has an owner, a device or a conversion has a row of ``attribution_journeys`` (migration 0114; an erasure leaves such
rows). So nothing is stored of a person that had no row before this transaction, and nothing is asked: no owner, no
conversion. What the transaction itself stores about such a person takes the person out again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import psycopg

from attributary.attribution_core.domain.identity import ANONYMOUS_PREFIX, USER_PREFIX

from . import stitch_sql as sql
from .rows import LOCKS_ONLY, Bounds, IdentityMove, Key, TouchedConversion, TouchedPerson, TouchpointRow, widen


def columns_of(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    """Return the columns of rows; no columns of no rows."""
    return [list(column) for column in zip(*rows, strict=True)]


def _reach(people: Sequence[tuple[str, str, int, int]], longest_window_micros: int) -> dict[str, Any]:
    """Return the parameters for people with the event times of the earliest and the latest of their touchpoints."""
    columns = dict(zip(("tenants", "keys", "first", "last"), columns_of(people), strict=True))
    return {"window": longest_window_micros, **columns}


class PeopleSteps:
    """The steps of ``StitchTransaction`` that are about people.

    Args:
        connection: in a transaction.
        touchpoints: the distinct touchpoints of the batch.
    """

    def __init__(self, connection: psycopg.Connection, touchpoints: Sequence[TouchpointRow]) -> None:
        self._connection = connection
        self._touchpoints = touchpoints
        self._touched: dict[Key, list[int]] = {}  # indexes of the touchpoints by identity key
        self._new: set[Key] = set()  # people without a row before, and without a conversion since
        self._owners: dict[Key, str] = {}  # journey keys of the locked anonymous ids that belong to somebody

    def lock_people(self, keys: Mapping[Key, Bounds]) -> None:
        """Lock (and create, or widen) the journeys of the batch's people, and lock the owners of their anonymous ids.

        A journey has the bounds of the events that name its own key: those of its owner's other ids are found there.
        So they depend on the records alone, not on whether a link was read before or after them.

        Args:
            keys: further identity keys that the batch touches (of conversions, links, displaced rows) by (tenant, key),
                with earliest and latest event time and latest arrival, microseconds UTC.
        """
        bounds = dict(keys)
        for seq, row in enumerate(self._touchpoints):
            self._touched.setdefault((row.tenant_id, row.identity_key), []).append(seq)
        for key, seqs in self._touched.items():
            for seq in seqs:
                row = self._touchpoints[seq]
                widen(bounds, key, row.occurred_at, row.received_at)
        self._lock({key: found for key, found in bounds.items() if key[1] < USER_PREFIX})
        known = (key for key in bounds if key[1] < USER_PREFIX and key not in self._new)
        ids = [(tenant, key.removeprefix(ANONYMOUS_PREFIX)) for tenant, key in known]
        if ids:
            owned = self._connection.execute(sql.OWNERS_LOCKED, columns_of(ids)).fetchall()
            self._owners |= {(tenant, key): user for tenant, key, user in owned}
        users = {key: found for key, found in bounds.items() if key[1] >= USER_PREFIX}
        self._lock({(tenant, user): LOCKS_ONLY for (tenant, _), user in self._owners.items()} | users)

    def _lock(self, bounds: Mapping[Key, Bounds]) -> None:
        if bounds:
            keys = sorted(bounds)
            columns = ([bounds[key][place] for key in keys] for place in range(3))
            made = self._connection.execute(sql.LOCK_PEOPLE, [*columns_of(keys), *columns]).fetchall()
            self._new.update(made)

    def have_conversions(self, people: Iterable[Key]) -> None:
        """Know that (tenant, journey key) may have conversions from now on, by this transaction."""
        self._new.difference_update(people)

    def moved(self, moves: list[IdentityMove]) -> list[IdentityMove]:
        """Know the owners that anonymous ids have from now on."""
        for move in moves:
            self._owners[move.tenant_id, ANONYMOUS_PREFIX + move.anonymous_id] = move.new_key
        return moves

    def people_touched(self, longest_window_micros: int, skip: Collection[int], most: int) -> list[TouchedPerson]:
        """Return the people of the staged touchpoints that have conversions in their reach.

        Args:
            longest_window_micros: no window is longer, microseconds.
            skip: indexes of touchpoints that brought nothing new.
            most: count no further than to one more than this.
        """
        left_out = {seq for seq, row in enumerate(self._touchpoints) if row.is_bot}.union(skip)
        people: dict[Key, list[int]] = {}
        for key, seqs in self._touched.items():
            person = (key[0], self._owners.get(key, key[1]))
            if person not in self._new and (touches := [seq for seq in seqs if seq not in left_out]):
                people.setdefault(person, []).extend(touches)
        if not people:
            return []
        at = [row.occurred_at for row in self._touchpoints]
        touched = [
            (*key, min(times), max(times))
            for key, times in ((key, [at[seq] for seq in seqs]) for key, seqs in people.items())
        ]
        parameters = _reach(touched, longest_window_micros) | {"most": most}
        seqs_of = list(people.values())
        return [
            TouchedPerson(*touched[number], sorted(seqs_of[number]), conversions)
            for number, conversions in self._connection.execute(sql.PEOPLE_TOUCHED, parameters).fetchall()
        ]

    def conversions_touched(
        self, people: Sequence[TouchedPerson], longest_window_micros: int
    ) -> list[TouchedConversion]:
        """Return the conversions of people in reach of their new touchpoints, by person.

        Args:
            people: as ``people_touched`` returned them.
            longest_window_micros: as it was asked there.
        """
        if not people:
            return []
        parameters = _reach([person[:4] for person in people], longest_window_micros)
        rows = self._connection.execute(sql.CONVERSIONS_TOUCHED, parameters).fetchall()
        return [TouchedConversion(*row) for row in rows]

    def conversions_of_people(self, keys: Collection[Key]) -> list[Key]:
        """Return (tenant, conversion id) of all conversions of a journey among (tenant, journey key)."""
        known = set(keys) - self._new
        if not known:
            return []
        return self._connection.execute(sql.CONVERSIONS_OF_PEOPLE, columns_of(sorted(known))).fetchall()

    def conversions_counted(self, keys: Collection[Key], most: int) -> dict[Key, int]:
        """Return how many conversions have a journey of (tenant, journey key), for those that have any.

        Args:
            keys: the people.
            most: count no further than to one more than this.
        """
        known = set(keys) - self._new
        if not known:
            return {}
        tenants, journeys = columns_of(sorted(known))
        parameters = {"tenants": tenants, "keys": journeys, "most": most}
        rows = self._connection.execute(sql.CONVERSIONS_COUNTED, parameters).fetchall()
        return {(tenant, key): number for tenant, key, number in rows}

    def owners_of(self, identities: Collection[Key]) -> dict[Key, Key]:
        """Return (tenant, journey key) of the people that own (tenant, identity key) now; all of them locked."""
        return {(tenant, key): (tenant, self._owners.get((tenant, key), key)) for tenant, key in identities}
