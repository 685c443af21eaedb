"""What reports need beside credit by day and by name: counts of journeys, and credit by when it was reported.

Invariants: as with the roll-up, a contribution says the same whatever else is in the batch, so it can be taken off
exactly. Cohorts are of people: all conversions of a person and type are taken off and added together. Counts that are
the same for every model have one slot; cohorts have two, conversions and people.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from attributary.consumers.store.results.report_reads import LONGEST_PATH, collapsed

from .batch_sums import Codes, Integers, Rows, Texts, grouped, hashes, integers, numerals, ranges, summed
from .cells import campaign_names, day_number, month_number

if TYPE_CHECKING:
    from .apply import Held
    from .layout import Layout

COUNT_SUMS = ("conversions", "value_micros", "credit_billionths")
_DAY_US = 86_400_000_000
_NO_NUMBER = np.zeros(0, np.int64)


class Bought(NamedTuple):
    """A conversion of a person, as cohorts need it."""

    converted_at: int
    conversion_md5: Any
    currency: str
    net_micros: int
    first_channel: str


class Counts:
    """Adds counts up, and says what changes.

    Args:
        zones: time zone by tenant.
        shared: numbers of what contributions share: tenant, type, currency.
    """

    def __init__(self, zones: Mapping[str, str], shared: Codes) -> None:
        self._zones, self._shared = zones, shared
        self._kept: list[tuple[int, int]] = []  # contribution, weight
        self._uses, self._use = Codes(), Codes()
        self._use_of: list[int] = []  # of each that was kept: the versions and fallback rules of its models
        # Shared, day, kind, name, part, number, days until it was reported: conversions, people and micros.
        self._sums: dict[tuple[Any, ...], list[int]] = {}

    def add(self, number: int, held: Held, cells: Mapping[str, Any], *, weight: int) -> None:
        """Add what a conversion contributes, or take it off.

        Args:
            number: of its contribution.
            held: the conversion.
            cells: what it contributes, parsed.
            weight: 1 or -1.
        """
        self._kept.append((number, weight))
        self._use_of.append(self._uses[tuple([tuple(use) for use in cells["u"]])])
        zone, net = self._zones[held.tenant_id], weight * held.net_micros
        day = day_number(held.converted_at, zone)
        shared = self._shared[held.tenant_id, held.conversion_type, held.currency]
        late = day_number(held.first_reported_at, zone) - day
        touches, sums = cells["t"], self._sums
        found: list[tuple[str, str, str, int, int]] = [
            ("conversion", "", "final" if cells["f"] else "open", 0, late), ("length", "", "", len(touches), 0)
        ]  # fmt: skip
        if touches:
            found.append(("lag:first", "", "", (held.converted_at - touches[0][4]) // _DAY_US, 0))
            found.append(("lag:last", "", "", (held.converted_at - touches[-1][4]) // _DAY_US, 0))
        for kind, place in (("path:channel", 0), ("path:platform", 1)):
            runs = collapsed([touch[place] for touch in touches])
            found.append((kind, _path(runs), "", len(runs), 0))
        # Nearly every journey has a path of campaigns of its own: only its length is kept.
        found.append(("length:campaign", "", "", len(collapsed(campaign_names(cells))), 0))
        for each in found:
            key = (shared, day, *each)
            if (row := sums.get(key)) is None:
                sums[key] = [weight, 0, net]
            else:
                row[0] += weight
                row[2] += net

    def people(self, tenant_id: str, conversion_type: str, bought: Iterable[Bought], *, weight: int) -> None:
        """Add all that one person bought to the person's cohorts, or take it off: a cohort is of one currency.

        Args:
            tenant_id: the tenant.
            conversion_type: of all of it.
            bought: the conversions.
            weight: 1 or -1.
        """
        zone = self._zones[tenant_id]
        by_currency: dict[str, list[Bought]] = {}
        for each in bought:
            by_currency.setdefault(each.currency, []).append(each)
        for currency, mine in by_currency.items():
            first = min(mine) if len(mine) > 1 else mine[0]
            began = day_number(first.converted_at, zone)
            shared, month = self._shared[tenant_id, conversion_type, currency], month_number(began)
            months = set()
            for each in mine:
                since = month_number(day_number(each.converted_at, zone)) - month
                key = (shared, began, "cohort", first.first_channel, "", since, 0)
                row = self._sums.setdefault(key, [0, 0, 0])
                row[0] += weight
                row[1] += 0 if since in months else weight
                row[2] += weight * each.net_micros
                months.add(since)

    def kept(self) -> Integers:
        """Return contributions and their weights."""
        return integers(self._kept).reshape(-1, 2).T

    def rows(self, layout: Layout) -> list[Rows]:
        """Return what changes: counts by model, and those that are the same for every model."""
        return [_joined([self._accrual(layout), self._rest(layout), self._uses_of(layout)]), self._plain()]

    def _accrual(self, layout: Layout) -> Rows:
        """Return credit by the days of conversion and touchpoint, and by when the conversion was reported."""
        of, weight = self.kept()
        lines = ranges(layout.start[of], layout.touches[of])
        weights = np.repeat(weight, layout.touches[of])[:, None]
        each = layout.contribution[lines]
        keys = (
            layout.shared[each], layout.day[each], layout.line_day[lines] - layout.day[each], layout.late[each],
        )  # fmt: skip
        sums = (layout.has[each] * weights, layout.micros[lines] * weights, layout.parts[lines] * weights)
        shared, day, number, late, *found = _by_keys(keys, sums)
        return self._numbered("accrual", (shared, day), found, number=number, late=late)

    def _rest(self, layout: Layout) -> Rows:
        """Return what no touchpoint gets, of conversions with touchpoints and of others."""
        of, weight = self.kept()
        lines = layout.start[of] + layout.touches[of]
        keys = (layout.shared[of], layout.day[of], (layout.touches[of] > 0).astype(np.int64))
        parts, micros = layout.parts[lines] * weight[:, None], layout.micros[lines] * weight[:, None]
        shared, day, has_touches, *found = _by_keys(keys, (parts * 0, micros, parts))
        parts_of = Texts([("", "untouched"), ("", "baseline")])
        return self._numbered("rest", (shared, day), found, texts=(parts_of, has_touches))

    def _uses_of(self, layout: Layout) -> Rows:
        """Return which versions of models were used, and which fallback rules."""
        of, weight = self.kept()
        models = np.bincount(layout.of_model, minlength=len(layout.start))
        first = np.cumsum(models) - models
        which = ranges(first[of], models[of])
        weights = np.repeat(weight, models[of])
        # Versions and rules of the models of a contribution stand in the order of its models.
        known = [[self._use[use] for use in uses] for uses in self._uses]
        begin = np.cumsum([0, *(len(each) for each in known)])[:-1]
        use_of = integers([use for uses in known for use in uses])
        use = use_of[ranges(begin[integers(self._use_of)], models[of])]
        each = layout.of_model[which]
        sums = np.zeros((len(which), layout.has.shape[1]), np.int64)
        sums[np.arange(len(which)), layout.slot[which]] = weights
        shared, day, use, *found = _by_keys((layout.shared[each], layout.day[each], use), (sums, sums * 0, sums * 0))
        return self._numbered("use", (shared, day), found, texts=(Texts(list(self._use)), use))

    def _numbered(
        self,
        kind: str,
        keys: tuple[Integers, Integers],
        sums: Sequence[Integers],
        *,
        texts: tuple[Texts, Integers] | None = None,
        number: Integers = _NO_NUMBER,
        late: Integers = _NO_NUMBER,
    ) -> Rows:
        """Return rows of one kind; texts are name and part."""
        shared, day = keys
        zero = np.zeros(len(shared), np.int64)
        number, late = (each if len(each) else zero for each in (number, late))
        names, which = texts or (Texts([("", "")]), zero)
        return self._rows(shared, day, ([kind] * len(shared), names.column(which, 0), names.column(which, 1)),
                          number, late, sums)  # fmt: skip

    def _plain(self) -> Rows:
        """Return counts that are the same for every model."""
        found = [(key, sums) for key, sums in self._sums.items() if any(sums)]
        sums = integers([row for _, row in found]).reshape(-1, 3)
        shared, day, number, late = integers([(*key[:2], *key[5:]) for key, _ in found]).reshape(-1, 4).T
        texts = ([key[2] for key, _ in found], [key[3] for key, _ in found], [key[4] for key, _ in found])
        # One slot of micros and none of credits, beside two of conversions and people.
        zero = np.zeros((len(found), 1), np.int64)
        micros = np.concatenate((sums[:, 2:], zero), axis=1)
        return self._rows(shared, day, texts, number, late, (sums[:, :2], micros, np.repeat(zero, 2, axis=1)))

    def _rows(
        self,
        shared: Integers,
        day: Integers,
        texts: tuple[list[str], list[str], list[str]],
        number: Integers,
        late: Integers,
        sums: Sequence[Integers],
    ) -> Rows:
        share = Texts(list(self._shared), begin=1)
        pieces = [f"{len(a)}:{a}{len(b)}:{b}{len(c)}:{c}".encode() for a, b, c in zip(*texts, strict=True)]
        ids = hashes(pieces, numerals(day), share.pieces(shared), numerals(number), numerals(late))
        keys = {
            "kind": texts[0], "day": day.tolist(), "conversion_type": share.column(shared, 1),
            "currency": share.column(shared, 2), "name": texts[1], "part": texts[2], "number": number.tolist(),
            "delay": late.tolist(),
        }  # fmt: skip
        rows = Rows(share.column(shared, 0), ids, keys, dict(zip(COUNT_SUMS, sums, strict=True)))
        return rows.chosen(np.flatnonzero(np.concatenate(sums, axis=1).any(axis=1)))


def _by_keys(keys: Sequence[Integers], sums: Sequence[Integers]) -> list[Integers]:
    """Return keys and sums of the rows with equal keys."""
    order, starts = grouped(*keys)
    first = order[starts]
    return [*(key[first] for key in keys), *(summed(each[order], starts) for each in sums)]


def _joined(parts: Sequence[Rows]) -> Rows:
    return Rows(
        [tenant for each in parts for tenant in each.tenants], [row for each in parts for row in each.ids],
        {name: [value for each in parts for value in each.keys[name]] for name in parts[0].keys},
        {name: np.concatenate([each.sums[name] for each in parts]) for name in COUNT_SUMS},
    )  # fmt: skip


@lru_cache(maxsize=1 << 14)
def _path(runs: tuple[str, ...]) -> str:
    return json.dumps(runs, ensure_ascii=False) if len(runs) <= LONGEST_PATH else ""
