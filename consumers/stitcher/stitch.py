"""What a batch of events means: which rows are new, which person they belong to, which conversions get a new version.

Pure decisions over a transaction port: ``stitch`` reads and writes only through ``transaction``, so the same code runs
on Postgres and, in the schedule model of the tests, on memory. Invariant: what is stored and which versions are owed
after any sequence of batches depends on the set of events alone, not on order, repetition or the batches' boundaries
(the number of versions may differ, the newest one's result does not).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

from attributary.attribution_core.domain.conversion import (
    IGNORED_VERDICTS,
    ConversionEvent,
    EventVerdict,
    Kind,
    fold,
    judge_events,
)
from attributary.attribution_core.domain.identity import ANONYMOUS_PREFIX, USER_PREFIX
from attributary.attribution_core.domain.lookback import LookbackPolicy
from attributary.consumers.store.erasure.entries import Hasher
from attributary.consumers.store.events.rows import (
    LOCKS_ONLY,
    Bounds,
    ConflictRow,
    ConversionEventRow,
    ConversionRow,
    EventRow,
    Key,
    LinkCandidate,
    LinkRow,
    Place,
    RaisedVersion,
    widen,
)

from .causes import Causes, arrival
from .contents import Settled, settle
from .decode import StitchBatch, link_candidates
from .erasures import LedgerReader, write_erasures
from .limits import NO_LIMITS, Limits
from .policies import Policies
from .transaction import LockSetGrewError, Transaction

Row = TypeVar("Row", bound=EventRow)


@dataclass(slots=True)
class Stitched:
    """What came of a batch: versions with a pending result, and what to count.

    ``conflicts`` holds the contents that were set aside and not known before, ``ignored`` the new events that change
    nothing of their conversion's worth, ``shared_orders`` counts new conversions with an order of another conversion.
    """

    versions: list[RaisedVersion] = field(default_factory=list)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)  # (kind, outcome) -> events
    conflicts: list[ConflictRow] = field(default_factory=list)
    ignored: list[tuple[EventVerdict, ConversionEventRow]] = field(default_factory=list)
    shared_orders: int = 0
    moves: int = 0
    too_late: int = 0
    put_off: int = 0  # touchpoints
    changes_put_off: int = 0  # moves, and contents that gave way


def stitch(
    transaction: Transaction,
    batch: StitchBatch,
    policy: LookbackPolicy,
    more_keys: Mapping[Key, Bounds],
    pinned: Mapping[str, LookbackPolicy] = MappingProxyType({}),
    limits: Limits = NO_LIMITS,
    hasher: Hasher | None = None,
) -> Stitched:
    """Stitch one batch inside a transaction.

    Args:
        transaction: opened for the batch's events.
        batch: the distinct events.
        policy: the lookback policy in force.
        more_keys: people to lock beyond those of the batch, from a try before.
        pinned: policies that versions may pin, by version.
        limits: what the batch may cost.
        hasher: hashes identifiers for the ledger of erasures; None: no key is set.

    Raises:
        BatchErasedError: stitch its batch instead, in a new transaction.
        BatchTooCostlyError: stitch a smaller batch in a new transaction.
        ConfigError: people were erased, and the key is missing or another one.
        LockSetGrewError: try again in a new transaction, with its keys added to ``more_keys``.
    """
    out = Stitched()
    candidates = link_candidates([*batch.touchpoints, *batch.conversion_events, *batch.links])
    locked = _keys_to_lock(batch, candidates)
    transaction.lock_people({**locked, **more_keys})
    ledger = LedgerReader(transaction, hasher)
    ledger.check(batch)
    held = set(locked) | set(more_keys) | {(row.tenant_id, row.identity_key) for row in batch.touchpoints}

    touches = settle(batch, batch.touchpoints, transaction.insert_touchpoints(), transaction.stored_touchpoints, held)
    events = settle(
        batch, batch.conversion_events, transaction.insert_conversion_events(),
        transaction.stored_conversion_events, held,
    )  # fmt: skip
    links = settle(batch, batch.links, transaction.insert_links(), transaction.stored_links, held)
    _note(transaction, (touches, events, links), out)

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

    causes = Causes(transaction, limits)
    causes.by_moves(moves, fresh_rows)
    causes.by_displacement(touches.displaced)
    causes.by_touchpoints(batch.touchpoints, touches.idle, Policies(policy, pinned))
    causes.store_put_off()
    out.put_off, out.changes_put_off, out.too_late = (
        causes.touchpoints_put_off, causes.changes_put_off, causes.too_late
    )  # fmt: skip
    fresh_events = _pick(batch.conversion_events, events.fresh)
    latest = _latest(fresh_events)
    about = latest.keys() | changed_conversions
    # All of them at once: see the store's module.
    transaction.lock_conversions(about, causes.conversions() - about, causes.moves_put_off(moves))
    ledger.check_conversions(batch, about)
    transaction.move_conversions(moves)
    all_events = transaction.events_of(about)
    states = _by_events(transaction.stored_conversions(about), all_events, latest, causes, held)
    out.ignored = _ignored(all_events, fresh_events)
    out.shared_orders = transaction.orders_shared() if any(row.order_id for row in fresh_events) else 0
    raises = causes.raises()
    raised = transaction.raise_versions(raises, policy.version, states)

    idle: list[EventRow] = [
        *_pick(batch.touchpoints, touches.idle),
        *_pick(batch.conversion_events, events.idle),
        *_pick(batch.links, links.idle),
    ]
    idle += batch.repeats  # stored by an earlier batch, it may have caused a version all the same
    again = transaction.versions_caused_by([Place(row.topic, row.partition, row.offset) for row in idle])
    write_erasures(transaction, batch, hasher)
    out.counts |= {(kind, "erased"): number for kind, number in batch.erased.counts.items()}
    newest = {(version.tenant_id, version.conversion_id): version for version in [*again, *raised]}
    out.versions = list(newest.values())
    return out


def _note(transaction: Transaction, kinds: Sequence[Settled], out: Stitched) -> None:
    """Count the records, and keep the contents that are set aside, so that reports can show them."""
    for settled in kinds:
        for outcome, number in settled.counts.items():
            out.counts[settled.kind, outcome] = number
    found = [row for settled in kinds for row in settled.conflicts.values()]
    if found:
        new = set(transaction.store_conflicts(found))
        out.conflicts = [row for row in found if row[:4] in new]


def _keys_to_lock(batch: StitchBatch, candidates: Sequence[LinkCandidate]) -> dict[Key, Bounds]:
    """Return the identity keys of conversion events and links; the touchpoints' are taken from the staged rows.

    Repeats count, too: read in a batch of their own they would widen the journey as well.
    """
    keys: dict[Key, Bounds] = {}
    for row in (*batch.conversion_events, *batch.repeats):
        if not isinstance(row, LinkRow):
            widen(keys, (row.tenant_id, row.identity_key), row.occurred_at, row.received_at)
    for candidate in (*candidates, *link_candidates(batch.repeats)):
        # A link is no activity of the person: it widens nothing beyond its own time.
        widen(keys, (candidate.tenant_id, ANONYMOUS_PREFIX + candidate.anonymous_id), candidate.linked_at, 0)
        widen(keys, (candidate.tenant_id, USER_PREFIX + candidate.user_id), candidate.linked_at, 0)
    for link in batch.erased.links:
        keys.setdefault((link.tenant_id, ANONYMOUS_PREFIX + link.anonymous_id), LOCKS_ONLY)
        keys.setdefault((link.tenant_id, USER_PREFIX + link.user_id), LOCKS_ONLY)
    return keys


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


def _latest(rows: Sequence[ConversionEventRow]) -> dict[Key, ConversionEventRow]:
    """Return the last new event about each conversion."""
    latest: dict[Key, ConversionEventRow] = {}
    for row in rows:
        key = (row.tenant_id, row.conversion_id)
        latest[key] = max(row, latest.get(key, row), key=arrival)
    return latest


def _ignored(
    all_events: Mapping[Key, Sequence[tuple[ConversionEvent, ConversionRow]]], fresh: Sequence[ConversionEventRow]
) -> list[tuple[EventVerdict, ConversionEventRow]]:
    """Return the new events that change nothing: repeats, other people's, other currencies."""
    found = []
    verdicts: dict[Key, dict[str, EventVerdict]] = {}
    for row in fresh:
        key = (row.tenant_id, row.conversion_id)
        about = all_events.get(key, ())
        if len(about) > 1:
            if key not in verdicts:
                judged = judge_events([(event, state.journey_key) for event, state in about])
                verdicts[key] = {event.event_id: verdict for (event, _), verdict in zip(about, judged, strict=True)}
            verdict = verdicts[key][row.event_id]
            if verdict in IGNORED_VERDICTS:
                found.append((verdict, row))
    return found


def _by_events(
    stored: Mapping[Key, tuple[int, ConversionRow]],
    all_events: Mapping[Key, Sequence[tuple[ConversionEvent, ConversionRow]]],
    latest: Mapping[Key, ConversionEventRow],
    causes: Causes,
    held: Collection[Key],
) -> list[ConversionRow]:
    """New events about conversions change what they are worth; returns the rows to store.

    Raises:
        LockSetGrewError: conversions go to people without locked rows.
    """
    states = []
    missing: set[Key] = set()
    fallback = max(latest.values(), key=arrival, default=None)
    for key in sorted(stored):
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
        person = (now.tenant_id, now.identity_key)
        if now.identity_key != old.identity_key and person not in held:
            missing.add(person)
        states.append(now)
        reason = "new" if version == 0 else "refund" if state.last_kind in _TAKES_OFF else "restated"
        causes.add(key, reason, cause)
    if missing:  # all at once: a batch has a few tries, and may give thousands of conversions to somebody else
        raise LockSetGrewError(dict.fromkeys(missing, LOCKS_ONLY))
    return states


_TAKES_OFF = (Kind.REFUND, Kind.CANCELLATION)
