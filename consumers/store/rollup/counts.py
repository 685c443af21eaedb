"""What a conversion contributes to the counts that reports need beside credit by day: pure.

Invariants: as with the roll-up, a contribution says the same whatever else is in the batch, so it can be taken off
exactly. Cohorts are of people: all conversions of a person and type are taken off and added together.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from attributary.consumers.store.results.report_reads import LONGEST_PATH, collapsed, place_of

from .cells import UNATTRIBUTED, Touch, campaign_names, is_counted, local_day

if TYPE_CHECKING:
    from .apply import Held

_DAY_US = 86_400_000_000


class Count(NamedTuple):
    """One summand of the counts: a row of the staging table."""

    tenant_id: str
    kind: str
    day: date
    conversion_type: str
    currency: str
    model: str
    name: str
    part: str
    number: int
    delay: int
    conversions: int
    value_micros: int
    credit_billionths: int


class Bought(NamedTuple):
    """A conversion of a person, as cohorts need it."""

    converted_at: int
    conversion_md5: Any
    currency: str
    net_micros: int
    first_channel: str


# What the rows share -> kind, name, part, number, delay -> model -> conversions, micros, billionths.
Sums = dict[tuple[str, str, str, date], dict[tuple[Any, ...], dict[str, list[int]]]]


class Counts:
    """Adds counts up, and says what changes.

    Args:
        zones: time zone by tenant.
    """

    def __init__(self, zones: Mapping[str, str]) -> None:
        self._zones = zones
        self._sums: Sums = {}

    def add(self, held: Held, cells: Mapping[str, Any], *, sign: int) -> None:
        """Add what a conversion contributes, or take it off; nothing where it is older than the counts.

        Args:
            held: the conversion.
            cells: what it contributes, parsed.
            sign: 1 or -1.
        """
        if not is_counted(cells):
            return
        zone, net = self._zones[held.tenant_id], sign * held.net_micros
        day = local_day(held.converted_at, zone)
        late = (local_day(held.first_reported_at, zone) - day).days
        group = self._group(held, day)
        _bump(group, ("conversion", "", "final" if cells["f"] else "open", 0, late), "", sign, net)
        touches = cells["t"]
        _journey(group, cells, held.converted_at, sign, net)
        credited = [(group.setdefault(key, {}), places) for key, places in _credited(cells, day, late, zone).items()]
        rest_row = group.setdefault(("rest", "", "baseline" if touches else "untouched", 0, 0), {})
        for (model, parts, micros, rest, rest_micros), (version, fallback) in zip(cells["m"], cells["u"], strict=True):
            _bump(group, ("use", version, fallback, 0, 0), model, sign)
            if rest or rest_micros:
                _add(rest_row, model, 0, sign * rest_micros, sign * rest)
            for sums, places in credited:
                if len(places) == 1:
                    part, value = parts[places[0]], micros[places[0]]
                else:
                    part, value = sum([parts[place] for place in places]), sum([micros[place] for place in places])
                _add(sums, model, sign * len(places), sign * value, sign * part)

    def changed(
        self, before: Held | None, after: Held | None, cells: Sequence[Mapping[str, Any] | None], at: int, reason: str
    ) -> None:
        """Count a change of the names that stand in the version before or in the one after it, each once.

        Args:
            before: what the conversion contributed.
            after: what it contributes.
            cells: of both, parsed.
            at: when the change was reported, microseconds UTC.
            reason: of the change.
        """
        names: dict[tuple[Any, ...], set[tuple[str, str]]] = {}
        for held, parsed in zip((before, after), cells, strict=True):
            if held is not None and parsed is not None and is_counted(parsed):
                day = local_day(held.converted_at, self._zones[held.tenant_id])
                found = names.setdefault((held.tenant_id, held.conversion_type, held.currency, day), set())
                for dimension, each in _dimensions(parsed):
                    found.update((dimension, name) for name in each)
                    found.add((dimension, UNATTRIBUTED))
        for shared, found in names.items():
            delay = (local_day(at, self._zones[shared[0]]) - shared[3]).days
            group = self._sums.setdefault(shared, {})
            for dimension, name in found:
                _bump(group, (f"touched:{dimension}", name, reason, 0, delay), "", 1)

    def people(self, tenant_id: str, conversion_type: str, bought: Iterable[Bought], *, sign: int) -> None:
        """Add all that one person bought to the person's cohorts, or take it off: a cohort is of one currency.

        Args:
            tenant_id: the tenant.
            conversion_type: of all of it.
            bought: the conversions.
            sign: 1 or -1.
        """
        zone = self._zones[tenant_id]
        by_currency: dict[str, list[Bought]] = {}
        for each in bought:
            by_currency.setdefault(each.currency, []).append(each)
        for currency, mine in by_currency.items():
            first = min(mine) if len(mine) > 1 else mine[0]
            began = local_day(first.converted_at, zone)
            group = self._sums.setdefault((tenant_id, conversion_type, currency, began), {})
            months = set()
            for each in mine:
                day = local_day(each.converted_at, zone)
                since = (day.year - began.year) * 12 + day.month - began.month
                months.add(since)
                _bump(group, ("cohort", first.first_channel, "conversion", since, 0), "", sign, sign * each.net_micros)
            for since in months:
                _bump(group, ("cohort", first.first_channel, "person", since, 0), "", sign)

    def rows(self) -> list[Count]:
        """Return what is not zero."""
        return [
            Count(tenant, kind, day, conversion_type, currency, model, name, part, number, delay, *sums)
            for (tenant, conversion_type, currency, day), group in self._sums.items()
            for (kind, name, part, number, delay), by_model in group.items()
            for model, sums in by_model.items()
            if any(sums)
        ]

    def _group(self, held: Held, day: date) -> dict[tuple[Any, ...], dict[str, list[int]]]:
        return self._sums.setdefault((held.tenant_id, held.conversion_type, held.currency, day), {})


def _dimensions(cells: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return the names along the journey by channel, platform and campaign."""
    touches: Sequence[Touch] = cells["t"]
    return [
        ("channel", [touch[0] for touch in touches]),
        ("platform", [touch[1] for touch in touches]),
        ("campaign", campaign_names(cells)),
    ]


def _journey(
    group: dict[tuple[Any, ...], dict[str, list[int]]], cells: Mapping[str, Any], converted_at: int, sign: int, net: int
) -> None:
    """Add what is the same for every model: path, length, lag and assists."""
    touches = cells["t"]
    _bump(group, ("length", "", "", len(touches), 0), "", sign, net)
    if touches:
        for kind, touch in (("lag:first", touches[0]), ("lag:last", touches[-1])):
            _bump(group, (kind, "", "", (converted_at - touch[4]) // _DAY_US, 0), "", sign, net)
    for dimension, names in _dimensions(cells):
        runs = collapsed(names)
        _bump(group, (f"length:{dimension}", "", "", len(runs), 0), "", sign, net)
        if dimension != "campaign":  # nearly every journey has a path of campaigns of its own
            _bump(group, (f"path:{dimension}", _path(runs), "", len(runs), 0), "", sign, net)
        kind, earlier = f"assist:{dimension}", set(names[:-1])
        for name in earlier.union(names[-1:]):
            _bump(group, (kind, name, "touched", 0, 0), "", sign)
            if name in earlier:
                _bump(group, (kind, name, "assisted", 0, 0), "", sign)
            if name == names[-1]:
                _bump(group, (kind, name, "closed", 0, 0), "", sign)
            else:
                _bump(group, (kind, name, "only", 0, 0), "", sign)


def _credited(cells: Mapping[str, Any], day: date, late: int, zone: str) -> dict[tuple[Any, ...], list[int]]:
    """Return the rows that get credit by model, by day of the touch and by part of the journey, with their places."""
    touches = cells["t"]
    found: dict[tuple[Any, ...], list[int]] = {}
    for place, touch in enumerate(touches):
        found.setdefault(("accrual", "", "", (local_day(touch[4], zone) - day).days, late), []).append(place)
    parts = [place_of(place, len(touches)) for place in range(1, len(touches) + 1)]
    for dimension, names in _dimensions(cells):
        kind = f"position:{dimension}"
        for place, name in enumerate(names):
            found.setdefault((kind, name, parts[place], 0, 0), []).append(place)
    return found


@lru_cache(maxsize=1 << 14)
def _path(runs: tuple[str, ...]) -> str:
    return json.dumps(runs, ensure_ascii=False) if len(runs) <= LONGEST_PATH else ""


def _bump(
    group: dict[tuple[Any, ...], dict[str, list[int]]],
    key: tuple[Any, ...],
    model: str,
    conversions: int,
    micros: int = 0,
) -> None:
    by_model = group.get(key)
    if by_model is None:
        by_model = group[key] = {}
    _add(by_model, model, conversions, micros, 0)


def _add(by_model: dict[str, list[int]], model: str, conversions: int, micros: int, credit: int) -> None:
    sums = by_model.get(model)
    if sums is None:
        by_model[model] = [conversions, micros, credit]
        return
    sums[0] += conversions
    sums[1] += micros
    sums[2] += credit
