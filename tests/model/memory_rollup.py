"""The roll-up in memory, for the schedule model; tests/contract compares it with the one in Postgres.

Invariant: as there, a new version takes off what its conversion contributed before, and adds what it contributes; and
what changed, when and why is kept beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attributary.consumers.store.rollup.apply import ERASURE, NEW_CUSTOMER, Applied, Held, held_of
from attributary.consumers.store.rollup.counts import Bought
from attributary.consumers.store.rollup.fold import Fold, Slots
from attributary.consumers.store.rollup.statements import KEYS

if TYPE_CHECKING:
    from attributary.consumers.store.rollup.cells import RolledResult
    from tests.model.memory_transaction import Key

BY_MODEL = ("accrual", "rest", "use")  # kinds of counts
Cell = tuple[Any, ...]  # table, tenant, keys of the row, column, model or number: one sum
Contribution = tuple[Held, Mapping[str, Any]]  # with the cells
Step = tuple[Contribution | None, Contribution | None, int, str]


@dataclass(frozen=True)
class Rollup:
    """Never changed: each batch makes a new one, so that a Postgres that loses commits gives the old one back."""

    held: Mapping[Key, Contribution] = field(default_factory=dict)
    sums: Mapping[Cell, int] = field(default_factory=dict)

    def applied(
        self, results: Sequence[RolledResult], gone: Collection[Key] = (), now_us: int = 0
    ) -> tuple[Rollup, Applied]:
        """Return the roll-up with results and tombstones taken in, and what came of them."""
        held = {key: each for key, each in self.held.items() if key not in gone}
        steps: list[Step] = [
            (each, None, max(now_us, each[0].reported_at), ERASURE)
            for key, each in self.held.items()
            if key in gone
        ]  # fmt: skip
        taken_off, ignored = len(steps), 0
        for result in results:
            key = (result.tenant_id, result.conversion_id)
            before = held.get(key)
            if before is not None and before[0].version >= result.version:
                ignored += 1
                if result.computed_at >= before[0].first_reported_at:
                    continue
                after = before[0]._replace(first_reported_at=result.computed_at), before[1]
                steps.append((before, after, before[0].reported_at, result.reason))
            else:
                assert result.parsed is not None
                after = held_of(result, before[0] if before else None), result.parsed
                steps.append((before, after, after[0].reported_at, result.reason if before else "new"))
            held[key] = after
        held = marked(held)
        sums = Counter(self.sums)
        for cell, change in self._changed(held, steps).items():
            sums[cell] += change
        applied = Applied(len(results) - ignored, ignored, taken_off, 0)
        return Rollup(held, {cell: each for cell, each in sums.items() if each}), applied

    def _changed(self, held: Mapping[Key, Contribution], steps: Sequence[Step]) -> dict[Cell, int]:
        fold, slots = new_fold(each for table in (self.held, held) for each in table.values())
        is_new = {each.key: each.is_new for each, _ in held.values()}
        stored = {id(each[0]) for each in self.held.values()}
        told: dict[tuple[Any, ...], int] = {}
        for before, after, at, reason in steps:
            sides = []
            if before is not None:
                was_new = before[0].is_new if id(before[0]) in stored else is_new[before[0].key]
                sides.append((*before, was_new, -1))
            if after is not None:
                sides.append((*after, is_new[after[0].key], 1))
            versions = {each[0].version for each in (before, after) if each is not None}
            fold.change(sides, at, reason, is_version=None in (before, after) or len(versions) == 2)
            for each in filter(None, (before, after)):
                told[each[0].person] = max(told.get(each[0].person, 0), at)
        touched = {each[0].key for before, after, *_ in steps for each in (before, after) if each is not None}
        for table, weight in ((self.held, -1), (held, 1)):
            kept = [each for each in table.values() if each[0].key in touched]
            for each in kept:
                fold.keep(*each, weight=weight)
            of_people(fold, (each for each in table.values() if each[0].person in told), weight)
        for key, (other, cells) in held.items():
            if other.key not in touched and self.held[key][0].is_new != other.is_new:
                sides = [(other, cells, not other.is_new, -1), (other, cells, other.is_new, 1)]
                fold.change(sides, told[other.person], NEW_CUSTOMER, is_version=False)
        return cells_of_rows(fold, slots)


def marked(held: Mapping[Key, Contribution]) -> dict[Key, Contribution]:
    """Say of each conversion whether it is the first of its person."""
    first: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for each, _ in held.values():
        place = (each.converted_at, each.conversion_md5)
        first[each.person] = min(first.get(each.person, place), place)
    found = {}
    for key, (each, cells) in held.items():
        is_new = first[each.person] == (each.converted_at, each.conversion_md5)
        found[key] = (each if each.is_new == is_new else each._replace(is_new=is_new)), cells
    return found


def new_fold(contributions: Iterable[Contribution]) -> tuple[Fold, Slots]:
    """Return what adds contributions up, counted in UTC."""
    slots = Slots()
    return Fold({each.tenant_id: "UTC" for each, _ in contributions}, slots), slots


def of_people(fold: Fold, contributions: Iterable[Contribution], weight: int) -> None:
    """Add people's cohorts, or take them off."""
    people: dict[tuple[Any, ...], list[Bought]] = {}
    for each, _ in contributions:
        bought = Bought(
            each.converted_at, each.conversion_md5, each.currency, each.net_micros, each.first_channel
        )  # fmt: skip
        people.setdefault(each.person, []).append(bought)
    for (tenant, _, kind), mine in people.items():
        fold.people(tenant, kind, mine, weight=weight)


def cells_of_rows(fold: Fold, slots: Slots) -> dict[Cell, int]:
    """Return what a fold comes to."""
    found: Counter[Cell] = Counter()
    tables = fold.rows()
    names = {tenant: {slot: model for model, slot in known.items()} for tenant, known in slots.by_tenant.items()}
    for table, parts in tables.items():
        for part in parts:
            for place, tenant in enumerate(part.tenants):
                keys = tuple(part.keys[name][place] for name in KEYS[table])
                columns = {name: column[place].tolist() for name, column in part.sums.items()}
                for cell, number in sums_of(table, tenant, keys, columns, names[tenant]):
                    found[cell] += number
    return {cell: each for cell, each in found.items() if each}


def sums_of(
    table: str, tenant: str, keys: tuple[Any, ...], columns: Mapping[str, Any], models: Mapping[int, str]
) -> Iterator[tuple[Cell, int]]:
    """Yield the sums of a row, told apart by model where they are kept by model.

    Args:
        table: without its prefix.
        tenant: the tenant.
        keys: of the row.
        columns: its sums, lists or one number.
        models: by slot, from 0.
    """
    is_plain = table == "counts" and keys[0] not in BY_MODEL
    for name, column in columns.items():
        for slot, number in enumerate(column if isinstance(column, list) else [column]):
            if number:
                by_slot = is_plain or name in {"assists", "versions"}
                yield (table, tenant, *keys, name, slot if by_slot else models[slot]), int(number)


def fold(newest: Mapping[Key, RolledResult], first: Mapping[Key, int]) -> dict[Cell, int]:
    """Return the roll-up that the newest results come to, all at once; without what changed when.

    Args:
        newest: the results.
        first: when the first version of each was computed.
    """
    held = {}
    for key, result in newest.items():
        assert result.parsed is not None
        held[key] = held_of(result, None)._replace(first_reported_at=first[key]), result.parsed
    added, slots = new_fold(held.values())
    for each, cells in marked(held).values():
        added.keep(each, cells, weight=1)
        added.change([(each, cells, each.is_new, 1)], each.converted_at, "", is_version=False)
    of_people(added, held.values(), 1)
    return {cell: number for cell, number in cells_of_rows(added, slots).items() if cell[0] != "restatements"}


def standing(rollup: Rollup) -> dict[Cell, int]:
    """Return the sums as they stand, without what changed when."""
    return {cell: number for cell, number in rollup.sums.items() if cell[0] != "restatements"}


def unexplained(rollup: Rollup) -> dict[Cell, int]:
    """Return what the changes of names do not sum to."""
    found: Counter[Cell] = Counter()
    names = KEYS["names"]
    for cell, number in rollup.sums.items():
        table, tenant, *rest = cell
        column, model = rest[-2:]
        if table == "names" and column in {"credit_billionths", "value_micros"}:
            found["names", tenant, *rest] += number
        elif table == "restatements" and column != "versions":
            keys = dict(zip(KEYS[table], rest, strict=False))
            found["names", tenant, *(keys[name] for name in names), column, model] -= number
    return {cell: number for cell, number in found.items() if number}
