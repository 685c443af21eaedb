"""What a batch of events means: which rows are new, whose they are, which conversions get a new version.

Pure decisions over a transaction port: ``stitch`` reads and writes only through ``transaction``, so the same code runs
on Postgres and, in the schedule model of the tests, on memory. Invariant: what is stored and which versions are owed
after any sequence of batches depends on the set of events alone, not on order, repetition or the batches' boundaries
(the number of versions may differ, the newest one's result does not).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, Protocol, TypeVar

from attributary.attribution_core.domain.conversion import ConversionEvent, Kind, fold
from attributary.attribution_core.domain.identity import ANONYMOUS_PREFIX, USER_PREFIX
from attributary.attribution_core.domain.lookback import LookbackPolicy
from attributary.consumers.store.events.rows import (
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
    TouchpointRow,
)

from .decode import StitchBatch, link_candidates, preference
from .policies import Policies

Key = tuple[str, str]
Bounds = tuple[int, int, int]
Row = TypeVar("Row", bound=EventRow)

# Earliest and latest event time and latest arrival of a person who is locked for an event of somebody else: no bound of
# a journey is widened by them. (The end of the year 9999: what every timestamp can show.)
LOCKS_ONLY: Bounds = (253_402_300_799_999_999, 0, 0)


class Transaction(Protocol):
    """The store as one batch sees it; ``consumers.store.stitching.StitchTransaction`` is the one on Postgres.

    Its methods are described there, hence D102.
    """

    def lock_people(self, keys: Mapping[Key, Bounds]) -> None: ...  # noqa: D102
    def insert_touchpoints(self) -> list[int]: ...  # noqa: D102
    def insert_conversion_events(self) -> list[int]: ...  # noqa: D102
    def insert_links(self) -> list[int]: ...  # noqa: D102
    def stored_touchpoints(self, keys: Sequence[Key]) -> dict[Key, StoredEvent]: ...  # noqa: D102
    def stored_conversion_events(self, keys: Sequence[Key]) -> dict[Key, StoredEvent]: ...  # noqa: D102
    def stored_links(self, keys: Sequence[Key]) -> dict[Key, StoredEvent]: ...  # noqa: D102
    def anonymous_ids_of(self, events: Sequence[Key]) -> list[Key]: ...  # noqa: D102
    def replace_touchpoints(self, seqs: Sequence[int]) -> None: ...  # noqa: D102
    def replace_conversion_events(self, seqs: Sequence[int]) -> list[Key]: ...  # noqa: D102
    def replace_links(self, seqs: Sequence[int]) -> None: ...  # noqa: D102
    def users_linked(self, anonymous_ids: Sequence[Key]) -> list[Key]: ...  # noqa: D102
    def apply_links(self, candidates: Sequence[LinkCandidate]) -> list[IdentityMove]: ...  # noqa: D102
    def recompute_owners(self, anonymous_ids: Sequence[Key]) -> list[IdentityMove]: ...  # noqa: D102
    def conversions_touched(self, longest_window_micros: int, skip: Collection[int]) -> list[TouchedConversion]: ...  # noqa: D102
    def conversions_of_people(self, keys: Collection[Key]) -> list[Key]: ...  # noqa: D102
    def conversions_of_identities(self, keys: Collection[Key]) -> list[Key]: ...  # noqa: D102
    def lock_conversions(self, opening: Collection[Key], others: Collection[Key]) -> None: ...  # noqa: D102
    def stored_conversions(self, conversions: Collection[Key]) -> dict[Key, tuple[int, ConversionRow]]: ...  # noqa: D102
    def events_of(self, conversions: Collection[Key]) -> dict[Key, list[tuple[ConversionEvent, ConversionRow]]]: ...  # noqa: D102
    def store_states(self, rows: Sequence[ConversionRow]) -> None: ...  # noqa: D102
    def move_conversions(self, moves: Sequence[IdentityMove]) -> None: ...  # noqa: D102
    def raise_versions(self, raises: Sequence[Raise], policy_version: str) -> list[RaisedVersion]: ...  # noqa: D102
    def versions_caused_by(self, places: Sequence[Place]) -> list[RaisedVersion]: ...  # noqa: D102
    def record_positions(self, group: str, positions: Positions) -> Positions: ...  # noqa: D102


class LockSetGrewError(Exception):
    """The batch concerns people whose rows are not locked yet: roll back and lock these as well."""

    def __init__(self, keys: Mapping[Key, Bounds]) -> None:
        super().__init__(f"{len(keys)} more people to lock")
        self.keys = keys


@dataclass(slots=True)
class Stitched:
    """What came of a batch: versions owed a result, and what to count."""

    versions: list[RaisedVersion] = field(default_factory=list)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)  # (kind, outcome) -> events
    moves: int = 0
    too_late: int = 0

    def count(self, kind: str, outcome: str, number: int = 1) -> None:
        """Add to a count."""
        if number:
            self.counts[kind, outcome] = self.counts.get((kind, outcome), 0) + number


class _Sorted(NamedTuple):
    """The events of one kind after insertion: indexes that brought something new, that displace, that did neither.

    ``displaced`` holds the identities of the contents that give way, with the row that displaces each.
    """

    fresh: set[int]
    displacing: list[int]
    idle: list[int]
    displaced: list[tuple[Key, EventRow]]


def stitch(
    transaction: Transaction,
    batch: StitchBatch,
    policy: LookbackPolicy,
    more_keys: Mapping[Key, Bounds],
    pinned: Mapping[str, LookbackPolicy] = MappingProxyType({}),
) -> Stitched:
    """Stitch one batch inside a transaction.

    Args:
        transaction: opened for the batch's events.
        batch: the distinct events.
        policy: the lookback policy in force.
        more_keys: people to lock beyond those of the batch, from a try before.
        pinned: policies that versions may pin, by version.

    Raises:
        LockSetGrewError: try again in a new transaction, with its keys added to ``more_keys``.
    """
    out = Stitched()
    candidates = link_candidates([*batch.touchpoints, *batch.conversion_events, *batch.links])
    locked = _keys_to_lock(batch, candidates)
    transaction.lock_people({**locked, **more_keys})
    held = set(locked) | set(more_keys) | {(row.tenant_id, row.identity_key) for row in batch.touchpoints}

    touches = _settle(out, "touchpoint", batch.touchpoints, transaction.insert_touchpoints(),
                      transaction.stored_touchpoints, held)  # fmt: skip
    events = _settle(out, "conversion", batch.conversion_events, transaction.insert_conversion_events(),
                     transaction.stored_conversion_events, held)  # fmt: skip
    links = _settle(out, "identity_link", batch.links, transaction.insert_links(), transaction.stored_links, held)

    # Displaced contents first say what they linked, then give way.
    displaced = [
        *((row.tenant_id, row.event_id) for row in _pick(batch.touchpoints, touches.displacing)),
        *((row.tenant_id, row.event_id) for row in _pick(batch.conversion_events, events.displacing)),
        *((row.tenant_id, row.event_id) for row in _pick(batch.links, links.displacing)),
    ]
    unsettled = transaction.anonymous_ids_of(displaced)
    _demand_links_locked(transaction, unsettled, held)
    transaction.replace_touchpoints(touches.displacing)
    changed_conversions = set(transaction.replace_conversion_events(events.displacing))
    transaction.replace_links(links.displacing)

    fresh_rows: list[EventRow] = [
        *_pick(batch.touchpoints, touches.fresh),
        *_pick(batch.conversion_events, events.fresh),
        *_pick(batch.links, links.fresh),
    ]
    moves = transaction.apply_links(link_candidates(fresh_rows))
    if displaced:
        fresh_ids = [(c.tenant_id, c.anonymous_id) for c in link_candidates(fresh_rows)]
        moves += transaction.recompute_owners([*unsettled, *fresh_ids])
    out.moves = len(moves)

    causes = _Causes()
    _by_moves(transaction, moves, fresh_rows, causes)
    _by_displacement(transaction, touches.displaced, causes)
    _by_touchpoints(transaction, batch.touchpoints, touches, Policies(policy, pinned), causes, out)
    latest = _latest(_pick(batch.conversion_events, events.fresh))
    about = latest.keys() | changed_conversions
    transaction.lock_conversions(about, causes.conversions() - about)  # all of them at once: see the store's module
    transaction.move_conversions(moves)
    states = _by_events(transaction, about, latest, causes, held)
    raises = causes.raises()
    raised = transaction.raise_versions(raises, policy.version)
    transaction.store_states(states)

    idle: list[EventRow] = [
        *_pick(batch.touchpoints, touches.idle),
        *_pick(batch.conversion_events, events.idle),
        *_pick(batch.links, links.idle),
    ]
    idle += [repeat for repeat, _ in batch.repeats]  # stored by an earlier batch, it may own a version all the same
    again = transaction.versions_caused_by([Place(row.topic, row.partition, row.offset) for row in idle])
    newest = {(version.tenant_id, version.conversion_id): version for version in [*again, *raised]}
    out.versions = list(newest.values())
    for repeat, differs in batch.repeats:
        kind = {TouchpointRow: "touchpoint", ConversionEventRow: "conversion", LinkRow: "identity_link"}[type(repeat)]
        out.count(kind, "conflict_kept" if differs else "duplicate")
    return out


def _keys_to_lock(batch: StitchBatch, candidates: Sequence[LinkCandidate]) -> dict[Key, Bounds]:
    """Return the identity keys of conversion events and links; the touchpoints' are taken from the staged rows."""
    keys: dict[Key, Bounds] = {}

    def add(key: Key, occurred_at: int, received_at: int) -> None:
        known = keys.get(key, (occurred_at, occurred_at, received_at))
        keys[key] = (min(known[0], occurred_at), max(known[1], occurred_at), max(known[2], received_at))

    for row in batch.conversion_events:
        add((row.tenant_id, row.identity_key), row.occurred_at, row.received_at)
    for candidate in candidates:
        # A link is no activity of the person: it widens nothing beyond its own time.
        add((candidate.tenant_id, ANONYMOUS_PREFIX + candidate.anonymous_id), candidate.linked_at, 0)
        add((candidate.tenant_id, USER_PREFIX + candidate.user_id), candidate.linked_at, 0)
    return keys


def _settle(
    out: Stitched,
    kind: str,
    rows: Sequence[Row],
    known: Sequence[int],
    stored: Callable[[Sequence[Key]], dict[Key, StoredEvent]],
    held: Collection[Key],
) -> _Sorted:
    """Sort out the rows whose event id was there already: replays, duplicates, and contents that differ."""
    displacing: list[int] = []
    idle: list[int] = []
    displaced: list[tuple[Key, EventRow]] = []
    missing: set[Key] = set()
    there = stored([(rows[seq].tenant_id, rows[seq].event_id) for seq in known])
    for seq in known:
        row = rows[seq]
        old = there[row.tenant_id, row.event_id]
        same = old.content_hash == row.content_hash
        if (old.topic, old.partition, old.offset) == (row.topic, row.partition, row.offset):
            out.count(kind, "replayed")
            idle.append(seq)
        elif preference(row) < (old.content_hash, old.received_at, old.topic, old.partition, old.offset):
            out.count(kind, "duplicate" if same else "conflict_replaced")
            displacing.append(seq)
            displaced.append(((row.tenant_id, old.identity_key), row))
            if (row.tenant_id, old.identity_key) not in held:
                missing.add((row.tenant_id, old.identity_key))
        else:
            out.count(kind, "duplicate" if same else "conflict_kept")
            idle.append(seq)
    if missing:
        raise LockSetGrewError(dict.fromkeys(missing, LOCKS_ONLY))
    fresh = set(range(len(rows))) - set(idle)
    out.count(kind, "new", len(rows) - len(known))
    return _Sorted(fresh, displacing, idle, displaced)


def _demand_links_locked(transaction: Transaction, unsettled: Sequence[Key], held: Collection[Key]) -> None:
    """An anonymous id that may lose its owner must be locked, and so must everybody who may be its next owner.

    Raises:
        LockSetGrewError: the anonymous ids first; once they are locked, nobody else can link them, then the users.
    """
    if not unsettled:
        return
    ids = {(tenant, ANONYMOUS_PREFIX + anonymous_id) for tenant, anonymous_id in unsettled}
    missing = ids.difference(held) or set(transaction.users_linked(unsettled)).difference(held)
    if missing:
        raise LockSetGrewError(dict.fromkeys(missing, LOCKS_ONLY))


def _pick(rows: Sequence[Row], seqs: Collection[int]) -> list[Row]:
    return [rows[seq] for seq in sorted(seqs)]


# The strongest reason is the one that is told.
_RANK = {"new": 0, "refund": 1, "restated": 2, "identity": 3, "late_touchpoint": 4}


class _Causes:
    """Why conversions get a version: the strongest reason, and the last new event among the causes."""

    def __init__(self) -> None:
        self._found: dict[Key, tuple[str, EventRow]] = {}

    def add(self, conversion: Key, reason: str, event: EventRow) -> None:
        known = self._found.get(conversion)
        if known is not None:
            reason = min(reason, known[0], key=_RANK.__getitem__)
            event = max(event, known[1], key=_arrival)
        self._found[conversion] = (reason, event)

    def conversions(self) -> set[Key]:
        return set(self._found)

    def raises(self) -> list[Raise]:
        return [
            Raise(*conversion, reason, Place(event.topic, event.partition, event.offset), event.received_at)
            for conversion, (reason, event) in self._found.items()
        ]


def _arrival(event: EventRow) -> tuple[int, str, int, int]:
    return event.received_at, event.topic, event.partition, event.offset


def _by_moves(
    transaction: Transaction, moves: Sequence[IdentityMove], fresh_rows: Sequence[EventRow], causes: _Causes
) -> None:
    """An anonymous id that moved changes the conversions of the person it left and of the one it joined."""
    if not moves:
        return
    last = max(fresh_rows, key=_arrival)
    people = {(move.tenant_id, key) for move in moves for key in (move.old_key, move.new_key)}
    for conversion in transaction.conversions_of_people(people):
        causes.add(conversion, "identity", last)


def _by_displacement(transaction: Transaction, displaced: Sequence[tuple[Key, EventRow]], causes: _Causes) -> None:
    """A touchpoint whose content gave way may have counted where the new content does not."""
    for identity, row in displaced:
        for conversion in transaction.conversions_of_identities([identity]):
            causes.add(conversion, "late_touchpoint", row)


def _by_touchpoints(
    transaction: Transaction,
    rows: Sequence[TouchpointRow],
    touches: _Sorted,
    policies: Policies,
    causes: _Causes,
    out: Stitched,
) -> None:
    """A new touchpoint changes the conversions of its person that it counts for.

    Conversions that this batch moves to the person are causes by their move already.
    """
    for found in transaction.conversions_touched(policies.longest_window_micros, touches.idle):
        row = rows[found.touch]
        if policies.may_count(row, found):
            causes.add((row.tenant_id, found.conversion_id), "late_touchpoint", row)
        elif policies.is_too_late(row, found):
            out.too_late += 1


def _latest(rows: Sequence[ConversionEventRow]) -> dict[Key, ConversionEventRow]:
    """Return the last new event about each conversion."""
    latest: dict[Key, ConversionEventRow] = {}
    for row in rows:
        key = (row.tenant_id, row.conversion_id)
        latest[key] = max(row, latest.get(key, row), key=_arrival)
    return latest


def _by_events(
    transaction: Transaction,
    keys: Collection[Key],
    latest: Mapping[Key, ConversionEventRow],
    causes: _Causes,
    held: Collection[Key],
) -> list[ConversionRow]:
    """New events about conversions change what they are worth; returns the rows to store.

    Raises:
        LockSetGrewError: conversions go to people whose rows are not locked.
    """
    stored = transaction.stored_conversions(keys)
    all_events = transaction.events_of(keys)
    states = []
    missing: set[Key] = set()
    fallback = max(latest.values(), key=_arrival, default=None)
    for key in sorted(keys):
        about = all_events.get(key, [])
        state = fold(event for event, _ in about)
        version, old = stored[key]
        if state.opened_by is None:
            if version == 0:  # only corrections so far: it waits for its conversion
                continue
            opening = old  # its conversion was displaced by another content of the same event: worth nothing now
        else:
            opening = next(row for event, row in about if event.event_id == state.opened_by)
        now = opening._replace(
            gross_value_micros=state.gross_value_micros,
            net_value_micros=state.net_value_micros,
            currency=state.currency if state.opened_by else old.currency,
        )
        cause = latest.get(key, fallback)
        if now == old or cause is None:
            continue
        whose = (now.tenant_id, now.identity_key)
        if now.identity_key != old.identity_key and whose not in held:
            missing.add(whose)
        states.append(now)
        reason = "new" if version == 0 else "refund" if state.last_kind in _TAKES_OFF else "restated"
        causes.add(key, reason, cause)
    if missing:  # all at once: a batch has a few tries, and may give thousands of conversions to somebody else
        raise LockSetGrewError(dict.fromkeys(missing, LOCKS_ONLY))
    return states


_TAKES_OFF = (Kind.REFUND, Kind.CANCELLATION)
