"""What a batch changes in the roll-up, added up as arrays: one row a combination, with a slot for each model.

Every contribution is laid out once: a line for each touchpoint and one for what no touchpoint gets, with billionths and
micros by the model's slot. What is taken off or added then names contributions, and lines with equal keys are summed.

Invariants: a contribution says the same whatever else is in the batch, so it can be taken off exactly. Rows that come
to zero are not written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .batch_sums import Codes, Integers, Rows, Texts, grouped, hashes, integers, numerals, ranges, summed
from .cells import UNATTRIBUTED, campaign_names, day_number
from .counts import Counts
from .layout import Layout
from .names import Names

if TYPE_CHECKING:
    from .apply import Held
    from .counts import Bought

_DATINGS = Texts([("cash",), ("accrual",)])
_NEW = Texts([("f",), ("t",)])
_REST = (UNATTRIBUTED, UNATTRIBUTED, "", "", UNATTRIBUTED)


class Slots:
    """The slots of each tenant's models, from 0; Postgres counts them from 1.

    Args:
        known: tenant, model and number, as they are stored.
    """

    def __init__(self, known: Iterable[tuple[str, str, int]] = ()) -> None:
        self.by_tenant: dict[str, dict[str, int]] = {}
        self.new: list[tuple[str, str, int]] = []
        for tenant_id, model, number in known:
            self.by_tenant.setdefault(tenant_id, {})[model] = number - 1

    def of(self, tenant_id: str, models: Sequence[str]) -> list[int]:
        """Return the slots of models; a new one gets the next."""
        slots = self.by_tenant.setdefault(tenant_id, {})
        for model in models:
            if model not in slots:
                slots[model] = len(slots)
                self.new.append((tenant_id, model, len(slots)))
        return [slots[model] for model in models]

    @property
    def width(self) -> int:
        """How many slots a row needs."""
        return max((len(slots) for slots in self.by_tenant.values()), default=0) or 1


class Fold:
    """Adds contributions up.

    Args:
        zones: time zone by tenant.
        slots: of the models.
    """

    def __init__(self, zones: Mapping[str, str], slots: Slots) -> None:
        self._zones, self._slots = zones, slots
        self._shared, self._facts, self._reasons = Codes(), Codes(), Codes()
        self._known: dict[int, tuple[int, Held]] = {}
        self._lines: tuple[list[int], list[int]] = ([], [])  # facts and days, line by line
        self._heads: list[tuple[int, int, int, int]] = []  # shared, day, days until it was reported, touchpoints
        self._models: list[int] = []  # how many each contribution has
        self._slot: list[int] = []
        self._numbers: tuple[list[int], list[int]] = ([], [])  # billionths and micros
        # Contribution, weight, new or not, reported day, reason, step.
        self._changes: list[tuple[int, int, bool, int, int, int]] = []
        self._steps: list[bool] = []  # whether it is another version
        self._counts = Counts(zones, self._shared)

    def keep(self, held: Held, cells: Mapping[str, Any], *, weight: int) -> None:
        """Count a contribution among those that are there, or take it out.

        Args:
            held: the conversion.
            cells: what it contributes, parsed.
            weight: 1 or -1.
        """
        self._counts.add(self._take(held, cells), held, cells, weight=weight)

    def people(self, tenant_id: str, conversion_type: str, bought: Iterable[Bought], *, weight: int) -> None:
        """Add all that one person bought to the person's cohorts, or take it off."""
        self._counts.people(tenant_id, conversion_type, bought, weight=weight)

    def change(
        self, sides: Sequence[tuple[Held, Mapping[str, Any], bool, int]], at: int, reason: str, *, is_version: bool
    ) -> None:
        """Change the sums by what a step takes off and adds.

        Args:
            sides: contributions with their cells, whether they are the first of the person, and 1 or -1.
            at: when it was reported, microseconds UTC.
            reason: why.
            is_version: it is a version, to be counted for the names in it.
        """
        step = len(self._steps)
        self._steps.append(is_version)
        for held, cells, is_new, weight in sides:
            day = day_number(at, self._zones[held.tenant_id])
            self._changes.append((self._take(held, cells), weight, is_new, day, self._reasons[reason], step))

    def _take(self, held: Held, cells: Mapping[str, Any]) -> int:
        """Lay a contribution out, once."""
        if (known := self._known.get(id(held))) is not None:
            return known[0]
        number = len(self._heads)
        self._known[id(held)] = number, held
        zone, touches, models = self._zones[held.tenant_id], cells["t"], cells["m"]
        day = day_number(held.converted_at, zone)
        shared = self._shared[held.tenant_id, held.conversion_type, held.currency]
        self._heads.append((shared, day, day_number(held.first_reported_at, zone) - day, len(touches)))
        facts, days = self._lines
        codes = self._facts
        facts += [codes[(*touch[:4], name)] for touch, name in zip(touches, campaign_names(cells), strict=True)]
        days += [day_number(touch[4], zone) for touch in touches]
        facts.append(codes[_REST])
        days.append(day)
        self._models.append(len(models))
        self._slot += self._slots.of(held.tenant_id, [model[0] for model in models])
        parts, values = self._numbers
        for _, billionths, micros, rest, rest_micros in models:
            parts += billionths
            parts.append(rest)
            values += micros
            values.append(rest_micros)
        return number

    def rows(self) -> dict[str, list[Rows]]:
        """Return the rows of each table that change."""
        layout = Layout(self._heads, self._lines, self._models, self._slot, self._numbers, self._slots.width)
        names = Names(layout, self._shared, self._facts)
        changes = integers(self._changes).reshape(-1, 6).T
        return {
            "days": [self._days(layout, changes)],
            "names": [names.rows(self._counts.kept())],
            "restatements": [names.restatements(changes, self._steps, list(self._reasons))],
            "counts": self._counts.rows(layout),
        }

    def _days(self, layout: Layout, changes: Integers) -> Rows:
        """Return what credit by day changes by."""
        of, weight, is_new = (changes[place] for place in range(3))
        lines = ranges(layout.start[of], layout.length[of])
        by = np.repeat(np.arange(len(of)), layout.length[of])
        sums = np.concatenate((layout.parts[lines], layout.micros[lines]), axis=1) * weight[by, None]
        there = np.flatnonzero(sums.any(axis=1))
        lines, by, sums = lines[there], by[there], sums[there]
        touches = Codes()
        touch = integers([touches[each[:4]] for each in self._facts])[layout.facts[lines]]
        shared, zero = layout.shared[of[by]], np.zeros(len(by), np.int64)
        pairs = (
            (shared, shared), (is_new[by], is_new[by]), (zero, zero + 1), (layout.day[of[by]], layout.line_day[lines]),
            (touch, touch),
        )  # fmt: skip
        keys = [np.concatenate(pair) for pair in pairs]
        order, starts = grouped(*keys)
        sums = summed(np.concatenate((sums, sums))[order], starts)
        row = np.flatnonzero(sums.any(axis=1))
        first = order[starts[row]]
        return self._named([key[first] for key in keys], touches, sums[row])

    def _named(self, row: Sequence[Integers], touches: Codes, sums: Integers) -> Rows:
        shared, is_new, dating, day, touch = row
        texts, touch_texts = Texts(list(self._shared), begin=1), Texts(list(touches))
        ids = hashes(texts.pieces(shared), _NEW.pieces(is_new), _DATINGS.pieces(dating), numerals(day),
                     touch_texts.pieces(touch))  # fmt: skip
        keys = {
            "dating": _DATINGS.column(dating, 0), "day": day.tolist(), "conversion_type": texts.column(shared, 1),
            "currency": texts.column(shared, 2), "is_new": _NEW.column(is_new, 0),
        }  # fmt: skip
        for place, name in enumerate(("channel", "platform", "campaign_id", "campaign")):
            keys[name] = touch_texts.column(touch, place)
        return Rows(texts.column(shared, 0), ids, keys, _halves(sums))


def _halves(sums: Integers) -> dict[str, Integers]:
    width = sums.shape[1] // 2
    return {"credit_billionths": sums[:, :width], "value_micros": sums[:, width:]}
