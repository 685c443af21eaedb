"""The roll-up in memory, for the schedule model; tests/contract compares it with the one in Postgres.

Invariant: as there, a new version takes off what its conversion contributed before, and adds what it contributes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from attributary.consumers.store.rollup.apply import Applied, key_of
from attributary.consumers.store.rollup.cells import Deltas

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from attributary.consumers.store.rollup.cells import RolledResult
    from tests.model.memory_transaction import Key

Row = tuple[
    Any, ...
]  # tenant, grain, dating, day, type, currency, new, model, channel, platform, campaign id, campaign
Sums = tuple[int, ...]  # billionths, micros, journeys, squares
Held = tuple["RolledResult", bool]  # with: the first conversion of its type of the person


@dataclass(frozen=True)
class Rollup:
    """Never changed: each batch makes a new one, so that a Postgres that loses commits gives the old one back."""

    held: Mapping[Key, Held] = field(default_factory=dict)
    rows: Mapping[Row, Sums] = field(default_factory=dict)

    def applied(self, results: Sequence[RolledResult], gone: Collection[Key] = ()) -> tuple[Rollup, Applied]:
        """Return the roll-up with results and tombstones taken in, and what came of them."""
        newest = {key: result for key, (result, _) in self.held.items() if key not in gone}
        ignored = 0
        for result in results:
            key = (result.tenant_id, result.conversion_id)
            if key in newest and newest[key].version >= result.version:
                ignored += 1
            else:
                newest[key] = result
        held = marked(newest)
        changed = [key for key in self.held.keys() | held.keys() if self.held.get(key) != held.get(key)]
        rows = dict(self.rows)
        for table, sign in ((self.held, -1), (held, 1)):
            for row, sums in summed([table[key] for key in changed if key in table], sign).items():
                before = rows.pop(row, (0, 0, 0, 0))
                after = tuple(one + other for one, other in zip(before, sums, strict=True))
                if any(after):
                    rows[row] = after
        taken_off = len(self.held.keys() & set(gone))
        return Rollup(held, rows), Applied(len(results) - ignored, ignored, taken_off, len(changed))


def marked(newest: Mapping[Key, RolledResult]) -> dict[Key, Held]:
    """Say of each conversion whether it is the first of its person."""
    first: dict[tuple[str, str, str], tuple[Any, Key]] = {}
    for key, result in newest.items():
        person = (result.tenant_id, result.journey_key, result.conversion_type)
        place = ((result.converted_at, key_of(*key)[1]), key)
        first[person] = min(first.get(person, place), place)
    firsts = {key for _, key in first.values()}
    return {key: (result, key in firsts) for key, result in newest.items()}


def summed(held: Iterable[Held], sign: int = 1) -> dict[Row, Sums]:
    """Return what contributions come to, counted in UTC."""
    contributions = list(held)
    deltas = Deltas({result.tenant_id: "UTC" for result, _ in contributions})
    for result, is_new in contributions:
        assert result.parsed is not None
        shared = (result.conversion_type, result.currency, result.converted_at, is_new)
        deltas.add(result.tenant_id, shared, result.parsed, sign=sign, reported_at=result.computed_at, reason="")
    found: dict[Row, Sums] = {}
    for delta in deltas.rows():
        for dating, day in (("cash", delta.cash_day), ("accrual", delta.accrual_day)):
            if dating == "cash" or delta.grain == "touch":
                row = (delta.tenant_id, delta.grain, dating, day, *delta[6:14])
                sums = found.get(row, (0, 0, 0, 0))
                found[row] = tuple(one + other for one, other in zip(sums, delta[14:], strict=True))
    return found


def fold(newest: Mapping[Key, RolledResult]) -> dict[Row, Sums]:
    """Return the roll-up that the newest results come to, all at once."""
    return {row: sums for row, sums in summed(marked(newest).values()).items() if any(sums)}
