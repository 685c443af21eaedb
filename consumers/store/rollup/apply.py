"""Results into the roll-up: what a conversion contributed before is taken off, what it contributes now is added.

Invariants: the roll-up is a function of the set of results that were applied (of each conversion the highest version)
and of those that were taken off; lost, doubled and reordered versions change nothing that a later version does not
make right. All changes of a row sum to the row. Who changes the roll-up of a tenant locks its row of
``attribution_rollup_state`` first and waits for nothing of others after that, so nobody waits in a circle.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import md5
from typing import Any, NamedTuple
from uuid import UUID

import psycopg

from . import statements
from .batch_sums import Rows, packed, packed_ids, use_packed
from .cells import RolledResult
from .counts import Bought
from .fold import Fold, Slots

Key = tuple[str, UUID]  # tenant, MD5 of the conversion id
Person = tuple[str, UUID, str]  # tenant, MD5 of the journey key, conversion type

ERASURE = "erasure"
RETIREMENT = "retirement"
NEW_CUSTOMER = "new_customer"
_NEW = "new"


class Held(NamedTuple):
    """What a conversion contributes."""

    tenant_id: str
    conversion_md5: UUID
    person_md5: UUID
    version: int
    reported_at: int
    conversion_type: str
    currency: str
    converted_at: int
    is_new: bool
    net_micros: int
    cells: str
    first_reported_at: int  # when the earliest version was computed
    first_channel: str

    @property
    def key(self) -> Key:
        """Which conversion it is."""
        return self.tenant_id, self.conversion_md5

    @property
    def person(self) -> Person:
        """In which order of conversions it stands."""
        return self.tenant_id, self.person_md5, self.conversion_type

    @property
    def shared(self) -> tuple[str, str, int, bool]:
        """What all of its cells share."""
        return self.conversion_type, self.currency, self.converted_at, self.is_new


class Applied(NamedTuple):
    """What came of a batch."""

    applied: int  # versions that are in the roll-up now, or were for a moment
    ignored: int  # not above the version that is in it, or retired
    taken_off: int  # conversions
    rows: int  # of the roll-up that were written


@dataclass(slots=True)
class _Steps:
    """The contributions of a batch, each with what came before it; the reason and the time of the change."""

    steps: list[tuple[Held | None, Held | None, int, str]] = field(default_factory=list)
    told: dict[Person, int] = field(default_factory=dict)  # when something about the person was last reported

    def add(self, before: Held | None, after: Held | None, at: int, reason: str) -> None:
        self.steps.append((before, after, at, reason))
        for each in (before, after):
            if each is not None:
                self.told[each.person] = max(self.told.get(each.person, 0), at)


def key_of(tenant_id: str, conversion_id: str) -> Key:
    """Return the key of a conversion in the roll-up."""
    return tenant_id, _md5(conversion_id)


def held_of(result: RolledResult, before: Held | None) -> Held:
    """Return what a conversion contributes by a result; whether it is the first of the person is decided later.

    Args:
        result: the result.
        before: what it contributed.
    """
    at = result.computed_at
    return Held(
        *key_of(result.tenant_id, result.conversion_id), _md5(result.journey_key), result.version,
        max(at, before.reported_at if before else 0), result.conversion_type, result.currency, result.converted_at,
        False, result.net_micros, result.cells, min(at, before.first_reported_at if before else at),
        result.first_channel,
    )  # fmt: skip


def _md5(text: str) -> UUID:
    return UUID(bytes=md5(text.encode(), usedforsecurity=False).digest())


def prepare_rollup(connection: psycopg.Connection) -> None:
    """Set what plans need on a new session."""
    connection.execute(statements.SETTINGS)


def apply_results(
    connection: psycopg.Connection,
    results: Sequence[RolledResult],
    tombstones: Collection[tuple[str, str]] = (),
    *,
    now_us: int = 0,
) -> Applied:
    """Take results into the roll-up, and take off what tombstones take back.

    Args:
        connection: in a transaction, on a prepared session.
        results: in the order of the log for each conversion, none that a tombstone of the batch follows.
        tombstones: tenant and conversion id; they come before the results.
        now_us: when the tombstones were written, microseconds UTC.
    """
    tenants = sorted({r.tenant_id for r in results} | {tenant for tenant, _ in tombstones})
    if not tenants:
        return Applied(0, 0, 0, 0)
    zones = lock_rollups(connection, tenants)
    gone = {key_of(*each) for each in tombstones}
    keys = [key_of(r.tenant_id, r.conversion_id) for r in results]
    held = _held(connection, gone.union(keys))
    retired = set(connection.execute(statements.RETIRED, _columns(set(keys), 2)).fetchall()) if keys else set()
    steps = _Steps()
    for key in sorted(gone & held.keys()):
        steps.add(held[key], None, max(now_us, held[key].reported_at), ERASURE)
    now_held = {key: each for key, each in held.items() if key not in gone}
    ignored = 0
    for key, result in zip(keys, results, strict=True):
        before = now_held.get(key)
        if key in retired or (before is not None and before.version >= result.version):
            ignored += 1
            if before is not None and key not in retired and result.computed_at < before.first_reported_at:
                # A late lower version: it is not counted, but it was reported first.
                now_held[key] = before._replace(first_reported_at=result.computed_at, is_new=False)
                steps.add(before, now_held[key], before.reported_at, result.reason)
            continue
        after = held_of(result, before)
        steps.add(before, after, after.reported_at, result.reason if before else _NEW)
        now_held[key] = after
    changed = {key: each for key, each in now_held.items() if each is not held.get(key)}
    parsed = _Parsed({each.cells: each.parsed for each in results if each.parsed is not None})
    rows = _carry_out(connection, steps, held, changed, [key for key in gone if key in held], zones, parsed)
    _name_campaigns(connection, results)
    _revise(connection, tenants, results)
    return Applied(len(results) - ignored, ignored, len(gone & held.keys()), rows)


def take_off_retired(connection: psycopg.Connection, tenant_id: str, conversion_ids: Sequence[str], now_us: int) -> int:
    """Take conversions off that retire, in the transaction that retires them; their credits stand in totals from then.

    Args:
        connection: in a transaction.
        tenant_id: the tenant.
        conversion_ids: those that retire.
        now_us: the time, microseconds UTC.

    Returns:
        How many were in the roll-up.
    """
    if connection.execute("SELECT FROM attribution_rollup_state WHERE tenant_id = %s", (tenant_id,)).fetchone() is None:
        return 0
    zones = lock_rollups(connection, [tenant_id])
    held = _held(connection, {key_of(tenant_id, each) for each in conversion_ids})
    steps = _Steps()
    for key in sorted(held):
        steps.add(held[key], None, max(now_us, held[key].reported_at), RETIREMENT)
    people = {each.person for each in held.values() if each.is_new}
    connection.execute(
        "INSERT INTO attribution_rollup_people (tenant_id, person_md5, conversion_type) "
        "SELECT * FROM unnest(%s::text[], %s::uuid[], %s::text[]) ON CONFLICT DO NOTHING",
        _columns(people, 3),
    )
    _carry_out(connection, steps, held, {}, list(held), zones, _Parsed({}))
    _revise(connection, [tenant_id], ())
    return len(held)


def lock_rollups(connection: psycopg.Connection, tenants: Sequence[str]) -> dict[str, str]:
    """Lock the roll-ups of tenants, in order; returns the time zone that each is counted in."""
    connection.execute(statements.OPEN, (list(tenants),))
    return dict(connection.execute(statements.LOCK, (list(tenants),)).fetchall())


def _place(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what a row is sorted by: ids as numbers, since UUIDs compare in Python."""
    return row[0], row[1].int if isinstance(row[1], UUID) else row[1]


def _columns(rows: Iterable[tuple[Any, ...]], width: int) -> list[list[Any]]:
    ordered = sorted(rows, key=_place)
    return [list(column) for column in zip(*ordered, strict=True)] if ordered else [[] for _ in range(width)]


def _keys(connection: psycopg.Connection, keys: Iterable[Key]) -> list[Any]:
    """Return keys as parameters."""
    use_packed(connection)
    ordered = sorted(keys, key=_place)
    return [[tenant for tenant, _ in ordered], packed_ids([conversion.bytes for _, conversion in ordered])]


def _held(connection: psycopg.Connection, keys: Collection[Key]) -> dict[Key, Held]:
    if not keys:
        return {}
    found = (Held(*row) for row in connection.execute(statements.HELD, _keys(connection, keys)).fetchall())
    return {each.key: each for each in found}


def _carry_out(
    connection: psycopg.Connection,
    steps: _Steps,
    held: dict[Key, Held],
    changed: dict[Key, Held],
    removed: Sequence[Key],
    zones: dict[str, str],
    parsed: _Parsed,
) -> int:
    """Store contributions, decide who is new, and add up what changes; returns the number of rows."""
    slots = read_slots(connection, sorted(zones))
    fold = Fold(zones, slots)
    people = _People.of(connection, steps.told)
    _count(people.bought, held, changed, removed, fold, parsed)
    flips = people.flips(changed.keys() | set(removed))
    # Of the batch's own conversions the newest contribution is new or not; others move from one to the other.
    is_new = {key: flips.get(key, False) for key in changed}
    others = {key: value for key, value in flips.items() if key not in changed}
    moved = _held(connection, others.keys())
    gone = [key for key in removed if key not in changed]
    if gone:
        connection.execute(statements.DELETE, _keys(connection, gone))
    if changed:
        _store(connection, sorted(changed.values(), key=_place), is_new)
    if others:
        connection.execute(statements.MARK, _columns([(*key, value) for key, value in others.items()], 3))
    for before, after, at, reason in steps.steps:
        sides = []
        if before is not None:
            was_new = before.is_new if held.get(before.key) is before else is_new[before.key]
            sides.append((before, parsed(before), was_new, -1))
        if after is not None:
            sides.append((after, parsed(after), is_new[after.key], 1))
        is_version = before is None or after is None or before.version != after.version
        fold.change(sides, at, reason, is_version=is_version)
    for key, value in others.items():
        other = moved[key]
        sides = [(other, parsed(other), not value, -1), (other, parsed(other), value, 1)]
        fold.change(sides, steps.told[other.person], NEW_CUSTOMER, is_version=False)
    return add_sums(connection, fold.rows(), slots)


def _count(
    people: dict[Person, dict[Key, Bought]],
    held: dict[Key, Held],
    changed: dict[Key, Held],
    removed: Sequence[Key],
    fold: Fold,
    parsed: _Parsed,
) -> None:
    """Add up what changes in names and counts; what people bought is afterwards as it will be stored."""
    for (tenant, _, kind), bought in people.items():
        if bought:
            fold.people(tenant, kind, bought.values(), weight=-1)
    for key in changed.keys() | set(removed):
        if (before := held.get(key)) is not None:
            fold.keep(before, parsed(before), weight=-1)
            people[before.person].pop(key, None)
        if (after := changed.get(key)) is not None:
            fold.keep(after, parsed(after), weight=1)
            people[after.person][key] = Bought(
                after.converted_at, after.conversion_md5, after.currency, after.net_micros, after.first_channel
            )
    for (tenant, _, kind), bought in people.items():
        fold.people(tenant, kind, bought.values(), weight=1)


def _store(connection: psycopg.Connection, ordered: Sequence[Held], is_new: Mapping[Key, bool]) -> None:
    columns = [list(column) for column in zip(*ordered, strict=True)]
    for place in (1, 2):
        columns[place] = packed_ids([each.bytes for each in columns[place]])  # type: ignore[call-overload]
    columns[8] = ["t" if is_new[each.key] else "f" for each in ordered]
    connection.execute(statements.STORE, columns)


class _People(NamedTuple):
    """All conversions of some people."""

    bought: dict[Person, dict[Key, Bought]]  # as they are stored, until the batch changes them
    marked: set[Key]  # that are stored as the first one of their person
    retired: set[Person]  # their first one retired

    @classmethod
    def of(cls, connection: psycopg.Connection, people: Collection[Person]) -> _People:
        """Read people."""
        found = cls({person: {} for person in people}, set(), set())
        ordered = sorted(people, key=_place)
        columns = _columns(ordered, 3)
        for seq, conversion, is_marked, at, *more in connection.execute(statements.BOUGHT, columns).fetchall():
            person, key = ordered[seq - 1], (ordered[seq - 1][0], conversion)
            found.bought[person][key] = Bought(at, conversion, *more)
            if is_marked:
                found.marked.add(key)
        found.retired.update(ordered[seq - 1] for (seq,) in connection.execute(statements.RETIRED_PEOPLE, columns))
        return found

    def flips(self, changed: Collection[Key]) -> dict[Key, bool]:
        """Return the conversions that are to be marked as the first one, or no more.

        Args:
            changed: of the batch, none of them marked yet.
        """
        first = {
            (person[0], min(bought.values()).conversion_md5)
            for person, bought in self.bought.items()
            if bought and person not in self.retired
        }
        marked = self.marked.difference(changed)
        return dict.fromkeys(marked - first, False) | dict.fromkeys(first - marked, True)


class _Parsed:
    """Cells, each read once.

    Args:
        known: those that need not be read, by their text.
    """

    def __init__(self, known: dict[str, Any]) -> None:
        self._known = known

    def __call__(self, held: Held) -> Any:
        found = self._known.get(held.cells)
        if found is None:
            found = self._known[held.cells] = json.loads(held.cells)
        return found


def read_slots(connection: psycopg.Connection, tenants: Sequence[str]) -> Slots:
    """Return the slots that tenants' models have."""
    return Slots(connection.execute(statements.MODELS, (list(tenants),)).fetchall())


def add_sums(connection: psycopg.Connection, rows: Mapping[str, Sequence[Rows]], slots: Slots) -> int:
    """Add rows to the tables; returns how many there were.

    Args:
        connection: in a transaction.
        rows: by table.
        slots: of the models; new ones are stored.
    """
    use_packed(connection)
    if slots.new:
        connection.execute(statements.NEW_MODELS, _columns(slots.new, 3))
    written = 0
    for table, parts in rows.items():
        for part in parts:
            if part.ids:
                widths = tuple(column.shape[1] if column.ndim > 1 else 0 for column in part.sums.values())
                statement = statements.upsert(table, tuple(part.sums), widths)
                sums = [packed(column) for column in part.sums.values()]
                keys = [part.keys[name] for name in statements.KEYS[table]]
                connection.execute(statement, [*sums, part.tenants, packed_ids(part.ids), *keys])
                written += len(part.ids)
    return written


def _name_campaigns(connection: psycopg.Connection, results: Sequence[RolledResult]) -> None:
    newest: dict[tuple[str, str, str], tuple[int, str]] = {}
    for result in results:
        for platform, campaign_id, campaign, at in result.names:
            key = (result.tenant_id, platform, campaign_id)
            newest[key] = max(newest.get(key, (0, "")), (at, campaign))
    if newest:
        connection.execute(statements.NAME, _columns([(*key, name, at) for key, (at, name) in newest.items()], 5))


def _revise(connection: psycopg.Connection, tenants: Sequence[str], results: Sequence[RolledResult]) -> None:
    until = dict.fromkeys(tenants, 0)
    for result in results:
        until[result.tenant_id] = max(until[result.tenant_id], result.computed_at)
    connection.execute(statements.REVISE, _columns(until.items(), 2))
