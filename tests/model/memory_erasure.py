"""An erasure's transaction in memory: the same answers as Postgres gives (tests/contract compares them)."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from attributary.attribution_core.domain.identity import USER_PREFIX
from attributary.consumers.store.erasure.removal import Removal, StatedLink
from attributary.consumers.store.events.rows import (
    ConversionEventRow,
    IdentityMove,
    LinkRow,
    Raise,
    RaisedVersion,
    TouchpointRow,
)
from tests.model.memory_transaction import Tombstone

Row = TypeVar("Row", TouchpointRow, ConversionEventRow)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from attributary.consumers.store.erasure.amounts import AmountRow
    from attributary.consumers.store.erasure.entries import Entry, Hashed, Hasher, Identifier, RequestRow
    from tests.model.memory_transaction import Key, MemoryTransaction, Tables


class MemoryErasure:
    """Steps of `consumers.erasure.execute` on a transaction in memory."""

    def __init__(self, transaction: MemoryTransaction, now: int) -> None:
        self._transaction = transaction
        self._now = now

    def lock_people(self, keys: Collection[Key]) -> None:
        self._transaction.lock_people(dict.fromkeys(keys, (0, 0, 0)))

    def claim(self, before_us: int) -> RequestRow | None:
        due = [
            row
            for row, state in self._transaction._read().requests.values()
            if state == "pending" and row.received_at < before_us
        ]
        return min(due, key=lambda row: row.turn, default=None)

    def _links(self) -> list[StatedLink]:
        tables = self._transaction._read()
        found = [StatedLink(row.tenant_id, row.anonymous_id, row.user_id, row.linked_at, row.event_id, row.received_at)
                 for row in tables.links.values()]  # fmt: skip
        found += tables.dropped_links.values()
        both: list[TouchpointRow | ConversionEventRow] = [
            *tables.touchpoints.values(),
            *tables.conversion_events.values(),
        ]
        found += [
            StatedLink(row.tenant_id, row.anonymous_id, row.identity_key[2:], row.occurred_at, row.event_id,
                       row.received_at)
            for row in both
            if row.anonymous_id is not None
        ]  # fmt: skip
        return found

    def links_of_devices(self, devices: Collection[Key]) -> list[StatedLink]:
        wanted = set(devices)
        return [link for link in self._links() if link[:2] in wanted]

    def links_of_users(self, users: Collection[Key]) -> list[StatedLink]:
        wanted = set(users)
        return [link for link in self._links() if (link.tenant_id, link.user_id) in wanted]

    def _events(self) -> list[ConversionEventRow]:
        return list(self._transaction._read().conversion_events.values())

    def events_of_order(self, tenant_id: str, order: str) -> list[ConversionEventRow]:
        return [
            row for row in self._events() if row.tenant_id == tenant_id and order in {row.order_id, row.conversion_id}
        ]

    def events_about(self, conversions: Collection[Key]) -> list[ConversionEventRow]:
        wanted = set(conversions)
        return [row for row in self._events() if (row.tenant_id, row.conversion_id) in wanted]

    def entries(self, hashes: Collection[Hashed]) -> dict[Hashed, Entry]:
        return self._transaction.erasures(hashes)

    def conversions_in_scope(self, entries: Mapping[Key, Entry]) -> list[Key]:
        return sorted({(row.tenant_id, row.conversion_id) for row in self._events() if _covered(row, entries)})

    def conversions_of_people(self, keys: Collection[Key]) -> list[Key]:
        return self._transaction.conversions_of_people(keys)

    def lock_conversions(self, opening: Collection[Key], others: Collection[Key]) -> None:
        self._transaction.lock_conversions(opening, others)

    def remove(
        self,
        tenant_id: str,
        entries: Mapping[Key, Entry],
        events: Sequence[ConversionEventRow],
        conversions: Collection[Key],
    ) -> Removal:
        assert all(event.tenant_id == tenant_id for event in events)
        there = self._transaction._read()
        versions = [(*key, there.conversions[key].version) for key in sorted(conversions) if key in there.conversions]
        counts: dict[str, int] = {}

        def change(tables: Tables) -> None:
            touches = {key: row for key, row in tables.touchpoints.items() if not _covered(row, entries)}
            counts["touchpoints"] = len(tables.touchpoints) - len(touches)
            tables.touchpoints = {key: _stripped(row, entries) for key, row in touches.items()}
            tables.conversion_events = {
                key: _stripped(row, entries)
                for key, row in tables.conversion_events.items()
                if (row.tenant_id, row.conversion_id) not in conversions
            }
            tables.links = {key: row for key, row in tables.links.items() if not _link_covered(row, entries)}
            tables.results = {key: row for key, row in tables.results.items() if key[:2] not in conversions}
            tables.conversions = {key: row for key, row in tables.conversions.items() if key not in conversions}
            tables.reopenings = {key: row for key, row in tables.reopenings.items() if key not in entries}

        self._transaction._write(change)
        return Removal(counts, [each for each in versions if each[2] > 0])

    def recompute_owners(self, anonymous_ids: Sequence[Key]) -> list[IdentityMove]:
        return self._transaction.recompute_owners(anonymous_ids)

    def move_conversions(self, moves: Sequence[IdentityMove]) -> None:
        self._transaction.move_conversions(moves)

    def raise_versions(self, raises: Sequence[Raise], policy_version: str) -> list[RaisedVersion]:
        return self._transaction.raise_versions(raises, policy_version)

    def remove_journeys(self, entries: Mapping[Key, Entry]) -> None:
        tables = self._transaction._read()
        events: list[TouchpointRow | ConversionEventRow] = [
            *tables.touchpoints.values(),
            *tables.conversion_events.values(),
        ]
        left = {(row.tenant_id, row.identity_key) for row in events} | tables.with_something()
        for link in tables.links.values():
            left |= {(link.tenant_id, USER_PREFIX + link.user_id), (link.tenant_id, "a:" + link.anonymous_id)}
        self._transaction._write(lambda tables: tables.journeys.difference_update(entries.keys() - left))

    def store_entries(self, entries: Mapping[Hashed, Entry], key_id: str, request_id: str) -> None:  # noqa: ARG002  # as in Postgres
        self._transaction._write(
            lambda tables: tables.erasures.update({each: (entry, key_id) for each, entry in entries.items()})
        )

    def book(self, conversions: Collection[Identifier], amounts: Sequence[AmountRow], hasher: Hasher) -> None:
        self._transaction.book_erased(conversions, amounts, hasher)

    def store_requests(self, requests: Sequence[RequestRow]) -> None:
        self._transaction.store_erasure_requests(requests)

    def add_tombstones(self, versions: Sequence[RaisedVersion], request_id: str) -> None:
        there = self._transaction._read().tombstones
        new = {}
        for each in versions:
            key = (each.tenant_id, each.conversion_id)
            version = max(each.version, there[key].version + 1) if key in there else each.version
            new[key] = Tombstone(version, request_id, each.published_at, self._now)
        self._transaction._write(lambda tables: tables.tombstones.update(new))

    def keep_links(self, links: Collection[StatedLink]) -> None:
        self._transaction.keep_dropped_links(links)

    def forget_links(self, links: Collection[StatedLink]) -> None:
        keys = {(link.tenant_id, link.event_id) for link in links}

        def forget(tables: Tables) -> None:
            tables.dropped_links = {key: row for key, row in tables.dropped_links.items() if key not in keys}

        if keys:
            self._transaction._write(forget)

    def finish(self, request: RequestRow, id_hash: bytes, removed: Mapping[str, int]) -> None:  # noqa: ARG002  # as in Postgres
        self._transaction._write(
            lambda tables: tables.requests.update({request[:2]: (request._replace(identifier=""), "in_progress")})
        )


def _covered(row: TouchpointRow | ConversionEventRow, entries: Mapping[Key, Entry]) -> bool:
    entry = entries.get((row.tenant_id, row.identity_key))
    return entry is not None and entry.covers(row.occurred_at, row.received_at)


def _link_covered(row: LinkRow, entries: Mapping[Key, Entry]) -> bool:
    found = (entries.get((row.tenant_id, key)) for key in (USER_PREFIX + row.user_id, "a:" + row.anonymous_id))
    return any(entry is not None and entry.covers(row.linked_at, row.received_at) for entry in found)


def _stripped(row: Row, entries: Mapping[Key, Entry]) -> Row:
    if row.anonymous_id is None:
        return row
    entry = entries.get((row.tenant_id, "a:" + row.anonymous_id))
    covered = entry is not None and entry.covers(row.occurred_at, row.received_at)
    return row._replace(anonymous_id=None) if covered else row
