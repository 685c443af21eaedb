"""The stitcher's port in memory: the same answers as Postgres gives (tests/contract compares them).

Rows are immutable, so a copy of the tables costs a few dictionary copies, and commits can be taken back.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from attributary.attribution_core.domain.conversion import ConversionEvent
from attributary.attribution_core.domain.identity import ANONYMOUS_PREFIX, USER_PREFIX
from attributary.consumers.store.erasure.amounts import AmountRow, change_of_totals, merged_amounts
from attributary.consumers.store.erasure.entries import ALWAYS, Entry, Hashed, Hasher, Identifier, RequestRow
from attributary.consumers.store.erasure.removal import StatedLink
from attributary.consumers.store.events.reopenings import PutOff
from attributary.consumers.store.events.rows import (
    ConflictRow,
    ConversionEventRow,
    ConversionRow,
    EventRow,
    IdentityMove,
    LinkCandidate,
    LinkRow,
    Place,
    Positions,
    Raise,
    RaisedVersion,
    StoredEvent,
    TouchedConversion,
    TouchedPerson,
    TouchpointRow,
)
from tests.model.memory_rollup import Rollup

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

Key = tuple[str, str]
Row = TypeVar("Row", bound=EventRow)
NOBODY = Place("", 0, 0)


class Owner(NamedTuple):
    """Whose an anonymous id is."""

    user_id: str
    linked_at: int
    event_id: str


@dataclass(frozen=True, slots=True)
class Conversion:
    """A row of attribution_conversions."""

    state: ConversionRow
    version: int = 0
    reason: str = "waiting"
    previous_net: int = 0
    policy_version: str = ""
    is_final: bool = False
    owner: Place = NOBODY
    published_at: int = 0
    versioned_at: int = 0
    raised_at: int = 0  # another number in each transaction
    observed: int = 0

    @property
    def raised(self) -> RaisedVersion:
        return RaisedVersion(
            self.state.tenant_id, self.state.conversion_id, self.version, self.reason, self.published_at
        )


@dataclass(frozen=True, slots=True)
class Reopening:
    """A row of attribution_reopenings: what was noted since the pass under way began, that pass, and where it is."""

    noted: tuple[PutOff, ...] = ()
    passing: tuple[PutOff, ...] = ()
    after: tuple[int, str] | None = None


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A row of attribution_tombstones."""

    version: int
    request_id: str
    published_at: int
    asked_at: int
    observed: bool = False


@dataclass(slots=True)
class Tables:
    """All tables."""

    touchpoints: dict[Key, TouchpointRow] = field(default_factory=dict)
    conversion_events: dict[Key, ConversionEventRow] = field(default_factory=dict)
    links: dict[Key, LinkRow] = field(default_factory=dict)
    identities: dict[Key, Owner] = field(default_factory=dict)
    journeys: set[Key] = field(default_factory=set)
    conversions: dict[Key, Conversion] = field(default_factory=dict)
    results: dict[tuple[str, str, int], str] = field(default_factory=dict)
    positions: dict[tuple[str, str, int], int] = field(default_factory=dict)
    conflicts: dict[tuple[str, str, str, int], ConflictRow] = field(default_factory=dict)
    reopenings: dict[Key, Reopening] = field(default_factory=dict)
    requests: dict[Key, tuple[RequestRow, str]] = field(default_factory=dict)  # with the state
    erasures: dict[Hashed, tuple[Entry, str]] = field(default_factory=dict)  # with the key's id
    amounts: dict[tuple[str, bytes], AmountRow] = field(default_factory=dict)
    removed: dict[tuple[str, str], int] = field(default_factory=dict)  # net micros by tenant and currency
    tombstones: dict[Key, Tombstone] = field(default_factory=dict)
    dropped_links: dict[Key, StatedLink] = field(default_factory=dict)
    rollup: Rollup = field(default_factory=Rollup)

    def copy(self) -> Tables:
        return Tables(
            dict(self.touchpoints), dict(self.conversion_events), dict(self.links), dict(self.identities),
            set(self.journeys), dict(self.conversions), dict(self.results), dict(self.positions),
            dict(self.conflicts), dict(self.reopenings), dict(self.requests), dict(self.erasures), dict(self.amounts),
            dict(self.removed), dict(self.tombstones), dict(self.dropped_links),
            self.rollup,
        )  # fmt: skip

    def person(self, tenant: str, identity_key: str) -> str:
        """The journey that an identity key belongs to now."""
        owner = self.identities.get((tenant, identity_key[2:])) if identity_key < "a;" else None
        return identity_key if owner is None else USER_PREFIX + owner.user_id

    def with_something(self) -> set[Key]:
        """Who owns, is owned or has a conversion: nobody may take them for new people."""
        people = {(key[0], row.state.journey_key) for key, row in self.conversions.items() if row.state.journey_key}
        for (tenant, anonymous_id), owner in self.identities.items():
            people |= {(tenant, ANONYMOUS_PREFIX + anonymous_id), (tenant, USER_PREFIX + owner.user_id)}
        return people


class MemoryTransaction:
    """One transaction: its writes are kept as functions, replayed on the committed tables when it commits.

    Args:
        committed: returns the committed tables; asked again at every statement when `statement_level`.
        statement_level: READ COMMITTED among concurrent transactions; False where none runs beside this one.
        touchpoints, conversion_events, links: the staged batch.
        now: logical time of the transaction.
        tick: a number that no other transaction has.
    """

    def __init__(
        self,
        committed: Callable[[], Tables],
        staged: tuple[Sequence[TouchpointRow], Sequence[ConversionEventRow], Sequence[LinkRow]],
        now: int,
        tick: int = 0,
        *,
        statement_level: bool = False,
        lock: Callable[[Collection[Key]], None] = lambda _keys: None,
    ) -> None:
        self._committed = committed
        self._touchpoints, self._conversion_events, self._links = staged
        self._now, self._tick = now, tick
        self._statement_level = statement_level
        self._lock = lock
        self._writes: list[Callable[[Tables], None]] = []
        self._view: Tables | None = None  # nothing is copied before the first write
        self._new: set[Key] = set()  # as in the store's `PeopleSteps`
        self._owners: dict[Key, str] = {}

    def _read(self) -> Tables:
        if self._statement_level:
            self._view = self.replayed()
        return self._committed() if self._view is None else self._view

    def written(self) -> Tables:
        """The transaction's own tables, to write to."""
        if self._view is None:
            self._view = self._committed().copy()
        return self._view

    def changed(self) -> Tables | None:
        """The tables to commit; None when nothing was written."""
        return self._view

    def _write(self, change: Callable[[Tables], None]) -> None:
        self._writes.append(change)
        change(self.written())

    def replayed(self) -> Tables:
        """The committed tables with this transaction's writes."""
        tables = self._committed().copy()
        for change in self._writes:
            change(tables)
        return tables

    def lock_people(self, keys: Mapping[Key, tuple[int, int, int]]) -> None:
        wanted = {*keys, *((row.tenant_id, row.identity_key) for row in self._touchpoints)}
        devices = {key for key in wanted if key[1] < "a;"}
        self._lock_rows(devices)
        tables = self._read()
        self._owners |= {key: tables.person(*key) for key in devices - self._new}
        self._lock_rows({(tenant, user) for (tenant, _), user in self._owners.items() if user > "a;"}
                        | (wanted - devices))  # fmt: skip

    def _lock_rows(self, keys: set[Key]) -> None:
        self._lock(sorted(keys))
        self._new |= keys - self._read().journeys
        self._write(lambda tables: tables.journeys.update(keys))

    def _moved(self, moves: list[IdentityMove]) -> list[IdentityMove]:
        self._owners |= {(move.tenant_id, ANONYMOUS_PREFIX + move.anonymous_id): move.new_key for move in moves}
        return moves

    def _insert(self, table: str, rows: Sequence[Any]) -> list[int]:
        there = getattr(self._read(), table)
        known = [seq for seq, row in enumerate(rows) if row[:2] in there]
        fresh = {row[:2]: row for row in rows if row[:2] not in there}
        self._write(lambda tables: getattr(tables, table).update(fresh))
        return known

    def insert_touchpoints(self) -> list[int]:
        return self._insert("touchpoints", self._touchpoints)

    def insert_conversion_events(self) -> list[int]:
        return self._insert("conversion_events", self._conversion_events)

    def insert_links(self) -> list[int]:
        return self._insert("links", self._links)

    def stored_touchpoints(self, keys: Sequence[Key]) -> dict[Key, StoredEvent]:
        return _stored(self._read().touchpoints, keys)

    def stored_conversion_events(self, keys: Sequence[Key]) -> dict[Key, StoredEvent]:
        return _stored(self._read().conversion_events, keys)

    def stored_links(self, keys: Sequence[Key]) -> dict[Key, StoredEvent]:
        return _stored(self._read().links, keys)

    def store_conflicts(self, rows: Sequence[ConflictRow]) -> list[tuple[str, str, str, int]]:
        there = self._read().conflicts
        changed = {row[:4]: min(row, there.get(row[:4], row), key=lambda each: each[-4:]) for row in rows}
        new = [key for key in changed if key not in there]
        self._write(lambda tables: tables.conflicts.update(changed))
        return new

    def _replace(self, table: str, rows: Sequence[Any], seqs: Sequence[int]) -> None:
        changed = {rows[seq][:2]: rows[seq] for seq in seqs}
        self._write(lambda tables: getattr(tables, table).update(changed))

    def replace_touchpoints(self, seqs: Sequence[int]) -> None:
        self._replace("touchpoints", self._touchpoints, seqs)

    def replace_conversion_events(self, seqs: Sequence[int]) -> list[Key]:
        there = self._read().conversion_events
        old = [(row[0], there[row[:2]].conversion_id) for row in (self._conversion_events[seq] for seq in seqs)]
        self._replace("conversion_events", self._conversion_events, seqs)
        return old

    def replace_links(self, seqs: Sequence[int]) -> None:
        self._replace("links", self._links, seqs)

    def anonymous_ids_of(self, events: Sequence[Key]) -> list[Key]:
        tables, wanted = self._read(), set(events)
        rows: list[EventRow] = [
            *tables.touchpoints.values(), *tables.conversion_events.values(), *tables.links.values()
        ]  # fmt: skip
        named = (row for row in rows if (row.tenant_id, row.event_id) in wanted)
        return sorted({(row.tenant_id, row.anonymous_id) for row in named if row.anonymous_id is not None})

    def _links_of(self, ids: Collection[Key]) -> list[tuple[Key, Owner]]:
        tables, wanted = self._read(), set(ids)
        found = [
            ((link.tenant_id, link.anonymous_id), Owner(link.user_id, link.linked_at, link.event_id))
            for link in tables.links.values()
            if (link.tenant_id, link.anonymous_id) in wanted
        ]
        both: list[TouchpointRow | ConversionEventRow] = [
            *tables.touchpoints.values(), *tables.conversion_events.values()
        ]  # fmt: skip
        for event in both:
            if event.anonymous_id is not None and (event.tenant_id, event.anonymous_id) in wanted:
                owner = Owner(event.identity_key[2:], event.occurred_at, event.event_id)
                found.append(((event.tenant_id, event.anonymous_id), owner))
        return found

    def users_linked(self, anonymous_ids: Sequence[Key]) -> list[Key]:
        return sorted({(key[0], USER_PREFIX + owner.user_id) for key, owner in self._links_of(anonymous_ids)})

    def apply_links(self, candidates: Sequence[LinkCandidate]) -> list[IdentityMove]:
        identities, wins = self._read().identities, dict[Key, Owner]()
        for candidate in candidates:
            key = (candidate.tenant_id, candidate.anonymous_id)
            owner = Owner(candidate.user_id, candidate.linked_at, candidate.event_id)
            known = wins.get(key, identities.get(key))
            if known is None or _order(owner) < _order(known):
                wins[key] = owner
        moves = [_move(key, identities.get(key), owner) for key, owner in sorted(wins.items())]
        self._write(lambda tables: tables.identities.update(wins))
        return self._moved([move for move in moves if move.old_user_id != move.new_user_id])

    def recompute_owners(self, anonymous_ids: Sequence[Key]) -> list[IdentityMove]:
        wanted = sorted(set(anonymous_ids))
        best: dict[Key, Owner] = {}
        for key, owner in self._links_of(wanted):
            if key not in best or _order(owner) < _order(best[key]):
                best[key] = owner
        identities = self._read().identities
        moves = [_move(key, identities.get(key), best.get(key)) for key in wanted]

        def store(tables: Tables) -> None:
            for key in wanted:
                tables.identities.pop(key, None)
            tables.identities.update(best)

        self._write(store)
        return self._moved([move for move in moves if (move.old_user_id or "") != move.new_user_id])

    def people_touched(self, longest_window_micros: int, skip: Collection[int], most: int) -> list[TouchedPerson]:
        found, skipped = dict[Key, list[int]](), set(skip)
        for seq, touch in enumerate(self._touchpoints):
            key = (touch.tenant_id, touch.identity_key)
            person = (touch.tenant_id, self._owners.get(key, touch.identity_key))
            if seq not in skipped and not touch.is_bot and person not in self._new:
                found.setdefault(person, []).append(seq)
        people = []
        for key, seqs in found.items():
            times = [self._touchpoints[seq].occurred_at for seq in seqs]
            touched = TouchedPerson(*key, min(times), max(times), seqs, 0)
            if reached := self.conversions_touched([touched], longest_window_micros):
                people.append(touched._replace(conversions=min(len(reached), most + 1)))
        return people

    def conversions_touched(
        self, people: Sequence[TouchedPerson], longest_window_micros: int
    ) -> list[TouchedConversion]:
        return [
            TouchedConversion(
                number, conversion_id, row.state.conversion_type, row.state.converted_at, row.state.received_at,
                row.policy_version,
            )
            for number, person in enumerate(people)
            for (tenant, conversion_id), row in sorted(self._read().conversions.items())
            if (tenant, row.state.journey_key) == (person.tenant_id, person.journey_key)
            and person.first_at <= row.state.converted_at <= person.last_at + longest_window_micros
        ]  # fmt: skip

    def put_off(self, people: Sequence[PutOff]) -> None:
        def note(tables: Tables) -> None:
            for person in people:
                known = tables.reopenings.get(person[:2], Reopening())
                tables.reopenings[person[:2]] = replace(known, noted=(*known.noted, person))

        if people:
            self._write(note)

    def conversions_of_people(self, keys: Collection[Key]) -> list[Key]:
        wanted = set(keys) - self._new
        return [
            key for key, row in sorted(self._read().conversions.items()) if (key[0], row.state.journey_key) in wanted
        ]

    def conversions_counted(self, keys: Collection[Key], most: int) -> dict[Key, int]:
        wanted, counted = set(keys) - self._new, dict[Key, int]()
        for key, row in self._read().conversions.items():
            person = (key[0], row.state.journey_key)
            if person in wanted:
                counted[person] = min(counted.get(person, 0) + 1, most + 1)
        return counted

    def owners_of(self, identities: Collection[Key]) -> dict[Key, Key]:
        return {key: (key[0], self._owners.get(key, key[1])) for key in identities}

    def lock_conversions(
        self,
        opening: Collection[Key],
        others: Collection[Key],
        moves: Sequence[IdentityMove] = (),  # noqa: ARG002  # one transaction at a time: nothing to lock
    ) -> None:
        there = self._read().conversions
        assert set(others) <= there.keys()
        opened = {
            key: Conversion(ConversionRow(*key, "", "", "", 0, 0, 0, 0, "XXX", None), versioned_at=self._now)
            for key in opening
            if key not in there
        }
        self._write(lambda tables: tables.conversions.update(opened))

    def stored_conversions(self, conversions: Collection[Key]) -> dict[Key, tuple[int, ConversionRow]]:
        rows = {key: self._read().conversions[key] for key in conversions}
        return {key: (row.version, row.state) for key, row in rows.items()}

    def events_of(self, conversions: Collection[Key]) -> dict[Key, list[tuple[ConversionEvent, ConversionRow]]]:
        tables, found = self._read(), dict[Key, list[tuple[ConversionEvent, ConversionRow]]]()
        for e in tables.conversion_events.values():
            key = (e.tenant_id, e.conversion_id)
            if key in conversions:
                person = tables.person(e.tenant_id, e.identity_key)
                row = ConversionRow(*key, e.conversion_type, e.identity_key, person, e.occurred_at, e.received_at,
                                    e.value_micros, e.value_micros, e.currency, e.order_id)  # fmt: skip
                event = ConversionEvent(e.occurred_at, e.event_id, e.kind, e.value_micros, e.currency)
                found.setdefault(key, []).append((event, row))
        return found

    def orders_shared(self) -> int:
        stored = [row for row in self._read().conversion_events.values() if row.kind == "conversion"]
        staged = {row for row in self._conversion_events if row.kind == "conversion" and row.order_id is not None}
        return len(
            {
                (new.tenant_id, new.order_id, new.conversion_id)
                for new in staged
                for old in stored
                if (old.tenant_id, old.order_id) == (new.tenant_id, new.order_id)
                and old.conversion_id != new.conversion_id
            }
        )

    def _update(self, changes: Mapping[Key, Callable[[Conversion], Conversion]]) -> None:
        def change(tables: Tables) -> None:
            for key, changed in changes.items():
                if key in tables.conversions:
                    tables.conversions[key] = changed(tables.conversions[key])

        self._write(change)

    def move_conversions(self, moves: Sequence[IdentityMove]) -> None:
        there = self._read().conversions
        changes: dict[Key, Callable[[Conversion], Conversion]] = {}
        for move in moves:
            if (move.tenant_id, move.old_key) in self._new:
                continue
            self._new.discard((move.tenant_id, move.new_key))
            for key, row in there.items():
                state = row.state
                mine = state.identity_key == ANONYMOUS_PREFIX + move.anonymous_id and state.journey_key == move.old_key
                if key[0] == move.tenant_id and mine:
                    moved = state._replace(journey_key=move.new_key)
                    changes[key] = lambda old, moved=moved: replace(old, state=moved)  # type: ignore[misc]
        self._update(changes)

    def raise_versions(
        self, raises: Sequence[Raise], policy_version: str, states: Sequence[ConversionRow] = ()
    ) -> list[RaisedVersion]:
        self._read()
        stated = {row[:2]: row for row in states}
        self._new.difference_update((row.tenant_id, row.journey_key) for row in states)
        self._update(
            {
                (wanted.tenant_id, wanted.conversion_id): lambda old, wanted=wanted: replace(  # type: ignore[misc]
                    old, version=old.version + 1, reason=wanted.reason, previous_net=old.state.net_value_micros,
                    policy_version=policy_version, owner=wanted.cause, published_at=wanted.published_at,
                    versioned_at=self._now, raised_at=self._tick, state=stated.get(wanted[:2], old.state),
                )
                for wanted in raises
            }
        )  # fmt: skip
        keys = [(wanted.tenant_id, wanted.conversion_id) for wanted in raises]
        conversions = self.written().conversions
        return [conversions[key].raised for key in sorted(keys) if key in conversions]

    def versions_caused_by(self, places: Sequence[Place]) -> list[RaisedVersion]:
        wanted = set(places)
        return [row.raised for row in self._read().conversions.values() if row.version > 0 and row.owner in wanted]

    def erasure_key_id(self) -> str | None:
        return next((key_id for _, key_id in self._read().erasures.values()), None)

    def erasures(self, hashes: Collection[Hashed]) -> dict[Hashed, Entry]:
        there = self._read().erasures
        return {each: there[each][0] for each in hashes if each in there}

    def store_erasure_requests(self, requests: Sequence[RequestRow]) -> None:
        there = self._read().requests
        new = {row[:2]: (row, "pending") for row in sorted(requests, reverse=True) if row[:2] not in there}
        if new:
            self._write(lambda tables: tables.requests.update(new))

    def keep_dropped_links(self, links: Collection[StatedLink]) -> None:
        there = self._read().dropped_links
        new: dict[Key, StatedLink] = {}
        for link in links:
            key = (link.tenant_id, link.event_id)
            known = new.get(key, there.get(key))
            if known is None or link.received_at < known.received_at:
                new[key] = link
        if new:
            self._write(lambda tables: tables.dropped_links.update(new))

    def book_erased(self, conversions: Collection[Identifier], booked: Sequence[AmountRow], hasher: Hasher) -> None:
        hashes = {hasher.hashed(each) for each in conversions}
        hashes |= {Hashed(row.tenant_id, "conversion", row.conversion_hash) for row in booked}
        if not hashes:
            return
        keys = {(each.tenant_id, each.id_hash) for each in hashes}
        before = [row for row in self._read().amounts.values() if (row.tenant_id, row.conversion_hash) in keys]
        after = merged_amounts(before, booked)
        changes = change_of_totals(before, after.values())

        def book(tables: Tables) -> None:
            for each in hashes:
                tables.erasures.setdefault(each, (Entry((ALWAYS,)), hasher.key_id))
            tables.amounts.update(after)
            for change in changes:
                key = (change.tenant_id, change.currency)
                tables.removed[key] = tables.removed.get(key, 0) + change.net_micros

        self._write(book)

    def record_positions(self, group: str, positions: Positions) -> Positions:
        before = {key[1:]: offset for key, offset in self._read().positions.items() if key[0] == group}
        risen = {(group, *place): max(offset, before.get(place, 0)) for place, offset in positions.items()}
        self._write(lambda tables: tables.positions.update(risen))
        return before


def _order(owner: Owner) -> tuple[int, str, str]:
    return owner.linked_at, owner.event_id, owner.user_id


def _stored(table: Mapping[Key, Any], keys: Sequence[Key]) -> dict[Key, StoredEvent]:
    found = {}
    for key in keys:
        row = table[key]
        identity = USER_PREFIX + row.user_id if isinstance(row, LinkRow) else row.identity_key
        found[key] = StoredEvent(
            row.event_id, row.tenant_id, identity, row.content_hash, row.received_at, row.topic, row.partition,
            row.offset,
            *((row.conversion_id, row.value_micros, row.currency) if isinstance(row, ConversionEventRow) else ()),
        )  # fmt: skip
    return found


def _move(key: Key, old: Owner | None, new: Owner | None) -> IdentityMove:
    return IdentityMove(*key, old.user_id if old else None, new.user_id if new else "", new.event_id if new else "")
