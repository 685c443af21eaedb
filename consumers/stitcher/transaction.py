"""The store as one batch sees it: the port through which ``stitch`` reads and writes.

The order of the calls and of the locks stands in ``consumers.store.events.stitch``, the store on Postgres; the schedule
model of the tests has the one in memory, and tests/contract compares the two.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from attributary.attribution_core.domain.conversion import ConversionEvent
from attributary.consumers.store.erasure.amounts import AmountRow
from attributary.consumers.store.erasure.entries import Entry, Hashed, Hasher, Identifier, RequestRow
from attributary.consumers.store.erasure.removal import StatedLink
from attributary.consumers.store.events.reopenings import PutOff
from attributary.consumers.store.events.rows import (
    Bounds,
    ConflictRow,
    ConversionRow,
    IdentityMove,
    Key,
    LinkCandidate,
    Place,
    Positions,
    Raise,
    RaisedVersion,
    StoredEvent,
    TouchedConversion,
    TouchedPerson,
)


class Transaction(Protocol):
    """One batch's transaction; its methods are described at ``StitchTransaction``, the one on Postgres, hence D102."""

    def lock_people(self, keys: Mapping[Key, Bounds]) -> None: ...  # noqa: D102
    def insert_touchpoints(self) -> list[int]: ...  # noqa: D102
    def insert_conversion_events(self) -> list[int]: ...  # noqa: D102
    def insert_links(self) -> list[int]: ...  # noqa: D102
    def stored_touchpoints(self, keys: Sequence[Key]) -> dict[Key, StoredEvent]: ...  # noqa: D102
    def stored_conversion_events(self, keys: Sequence[Key]) -> dict[Key, StoredEvent]: ...  # noqa: D102
    def stored_links(self, keys: Sequence[Key]) -> dict[Key, StoredEvent]: ...  # noqa: D102
    def store_conflicts(self, rows: Sequence[ConflictRow]) -> list[tuple[str, str, str, int]]: ...  # noqa: D102
    def anonymous_ids_of(self, events: Sequence[Key]) -> list[Key]: ...  # noqa: D102
    def replace_touchpoints(self, seqs: Sequence[int]) -> None: ...  # noqa: D102
    def replace_conversion_events(self, seqs: Sequence[int]) -> list[Key]: ...  # noqa: D102
    def replace_links(self, seqs: Sequence[int]) -> None: ...  # noqa: D102
    def users_linked(self, anonymous_ids: Sequence[Key]) -> list[Key]: ...  # noqa: D102
    def apply_links(self, candidates: Sequence[LinkCandidate]) -> list[IdentityMove]: ...  # noqa: D102
    def recompute_owners(self, anonymous_ids: Sequence[Key]) -> list[IdentityMove]: ...  # noqa: D102
    def people_touched(  # noqa: D102
        self, longest_window_micros: int, skip: Collection[int], most: int
    ) -> list[TouchedPerson]: ...
    def put_off(self, people: Sequence[PutOff]) -> None: ...  # noqa: D102
    def conversions_touched(  # noqa: D102
        self, people: Sequence[TouchedPerson], longest_window_micros: int
    ) -> list[TouchedConversion]: ...
    def conversions_of_people(self, keys: Collection[Key]) -> list[Key]: ...  # noqa: D102
    def conversions_counted(self, keys: Collection[Key], most: int) -> dict[Key, int]: ...  # noqa: D102
    def owners_of(self, identities: Collection[Key]) -> dict[Key, Key]: ...  # noqa: D102
    def lock_conversions(  # noqa: D102
        self, opening: Collection[Key], others: Collection[Key], moves: Sequence[IdentityMove] = ()
    ) -> None: ...
    def stored_conversions(self, conversions: Collection[Key]) -> dict[Key, tuple[int, ConversionRow]]: ...  # noqa: D102
    def events_of(self, conversions: Collection[Key]) -> dict[Key, list[tuple[ConversionEvent, ConversionRow]]]: ...  # noqa: D102
    def orders_shared(self) -> int: ...  # noqa: D102
    def move_conversions(self, moves: Sequence[IdentityMove]) -> None: ...  # noqa: D102
    def raise_versions(  # noqa: D102  # as in ``StitchTransaction``
        self, raises: Sequence[Raise], policy_version: str, states: Sequence[ConversionRow] = ()
    ) -> list[RaisedVersion]: ...
    def versions_caused_by(self, places: Sequence[Place]) -> list[RaisedVersion]: ...  # noqa: D102
    def erasure_key_id(self) -> str | None: ...  # noqa: D102
    def erasures(self, hashes: Collection[Hashed]) -> dict[Hashed, Entry]: ...  # noqa: D102
    def store_erasure_requests(self, requests: Sequence[RequestRow]) -> None: ...  # noqa: D102
    def keep_dropped_links(self, links: Collection[StatedLink]) -> None: ...  # noqa: D102
    def book_erased(  # noqa: D102
        self, conversions: Collection[Identifier], booked: Sequence[AmountRow], hasher: Hasher
    ) -> None: ...
    def record_positions(self, group: str, positions: Positions) -> Positions: ...  # noqa: D102


class LockSetGrewError(Exception):
    """The batch concerns people without locked rows: roll back and lock these as well."""

    def __init__(self, keys: Mapping[Key, Bounds]) -> None:
        super().__init__(f"{len(keys)} more people to lock")
        self.keys = keys


class BatchTooCostlyError(Exception):
    """The batch's touchpoints are in reach of too many conversions: roll back and stitch a smaller batch."""
