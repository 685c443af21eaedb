"""What a result contributes to the roll-up: pure.

Invariants: for every model the billionths of a conversion's touchpoints and of the rest sum to 1,000,000,000, and the
micros to its net value. A contribution says the same whatever else is in the batch, so it can be taken off exactly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

UNATTRIBUTED, NO_TOUCHPOINT, NO_CAMPAIGN = "(unattributed)", "(no touchpoint)", "(none)"
WHOLE = 1_000_000_000
# The offsets of all time zones since 2000 are whole quarters of an hour, and change at one.
_QUARTER_US = 900_000_000
_TO_MILLIONTHS = 1_000
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode

Touch = tuple[str, str, str, str, int]  # channel, platform, campaign id, campaign without an id, microseconds UTC
ModelCells = tuple[str, Sequence[int], Sequence[int], int, int]  # model, billionths, micros, the rest of both


class RolledResult(NamedTuple):
    """One version of a conversion's result, as the roll-up needs it. Times in microseconds UTC."""

    tenant_id: str
    conversion_id: str
    version: int
    reason: str
    conversion_type: str
    currency: str
    converted_at: int
    journey_key: str
    net_micros: int
    computed_at: int
    cells: str
    names: Sequence[tuple[str, str, str, int]]  # platform, campaign id, campaign, time
    first_channel: str  # of the first touchpoint; NO_TOUCHPOINT: it has none
    parsed: Mapping[str, Any] | None = None  # the cells before they became text, where the reader has them


class Delta(NamedTuple):
    """One summand of the roll-up: a row of the staging table; days are days of the tenant's time zone."""

    tenant_id: str
    reported_day: date
    reason: str
    grain: str
    cash_day: date
    accrual_day: date
    conversion_type: str
    currency: str
    is_new: bool
    model: str
    channel: str
    platform: str
    campaign_id: str
    campaign: str
    credit_billionths: int
    value_micros: int
    journeys: int
    squares: int


def billionths(credits_: Sequence[float]) -> tuple[list[int], int]:
    """Return credits in billionths and what is left of the whole.

    Rounding alone leaves no rest: what it leaves goes to the touchpoints it was taken from, the largest first, and of
    equal ones to the earliest.
    """
    parts = [round(credit * WHOLE) for credit in credits_]
    rest = WHOLE - sum(parts)
    if rest and parts and abs(rest) <= len(parts):
        step = 1 if rest > 0 else -1
        lost = [step * (credit * WHOLE - part) for credit, part in zip(credits_, parts, strict=True)]
        for place in sorted(range(len(parts)), key=lambda number: (-lost[number], number))[: abs(rest)]:
            parts[place] += step
        rest = 0
    return parts, rest


def rounded(
    credits_: npt.NDArray[np.float64], segment: npt.NDArray[np.intp], sizes: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return what ``billionths`` returns for many models at once: parts of each credit, rests of each model.

    Args:
        credits_: of all models, one after the other.
        segment: the number of the model of each credit.
        sizes: how many credits each model has.
    """
    exact = credits_ * WHOLE
    parts = np.rint(exact).astype(np.int64)
    total = np.zeros(len(sizes), np.int64)
    np.add.at(total, segment, parts)
    rest = WHOLE - total
    is_split = (rest != 0) & (np.abs(rest) <= sizes)
    if is_split.any():
        place = np.flatnonzero(is_split[segment])
        of_place = segment[place]
        step = np.sign(rest)
        lost = step[of_place] * (exact[place] - parts[place])
        order = np.lexsort((-lost, of_place))  # stable: of equal ones the earliest is first
        begin = np.cumsum(sizes[is_split]) - sizes[is_split]
        rank = np.arange(len(place)) - np.repeat(begin, sizes[is_split])
        chosen = order[rank < np.abs(rest)[of_place]]  # in each model the places stand together, sorted or not
        parts[place[chosen]] += step[of_place[chosen]]
        rest[is_split] = 0
    return parts, rest


def cells_text(cells: Mapping[str, Any]) -> str:
    """Return a contribution as it is stored."""
    return _encode(cells)


def cells_of(
    touchpoints: Sequence[Mapping[str, Any]], models: Sequence[Mapping[str, Any]], *, is_final: bool
) -> tuple[str, list[tuple[str, str, str, int]], str]:
    """Return the contribution of a stored result as JSON, the names of its campaigns, and the first channel.

    Args:
        touchpoints: as stored, in the order of time.
        models: as stored, with credits and micros in the order of the touchpoints.
        is_final: touchpoints cannot change it any more.
    """
    touches: list[Touch] = []
    names = []
    named: dict[str, str] = {}
    for place, touch in enumerate(touchpoints):
        campaign_id, campaign = touch.get("campaign_id") or "", touch.get("campaign") or ""
        if campaign_id:
            names.append((touch["platform"], campaign_id, campaign, touch["occurred_at"]))
            named[str(place)] = campaign
            campaign = ""
        touches.append((touch["channel"], touch["platform"], campaign_id, campaign, touch["occurred_at"]))
    found, uses = [], []
    for model in models:
        parts, rest = billionths(model["credits"])
        found.append((model["model"], parts, model["micros"], rest, model["unattributed_micros"]))
        uses.append((model.get("model_version") or "", model.get("fallback") or ""))
    cells = {"t": touches, "m": found, "n": named, "u": uses, "f": int(is_final)}
    return cells_text(cells), names, touches[0][0] if touches else NO_TOUCHPOINT


def is_counted(cells: Mapping[str, Any]) -> bool:
    """Tell whether a contribution is in the counts for reports: it is older than they are where it says no names."""
    return "n" in cells


def campaign_names(cells: Mapping[str, Any]) -> list[str]:
    """Return the names of the touchpoints' campaigns as their events say them."""
    named = cells["n"]
    return [
        (named.get(str(place), touch[3]) if touch[2] else touch[3]) or NO_CAMPAIGN
        for place, touch in enumerate(cells["t"])
    ]


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


@lru_cache(maxsize=1 << 17)
def _day(quarter: int, zone: str) -> date:
    return datetime.fromtimestamp(quarter * _QUARTER_US // 1_000_000, UTC).astimezone(_zone(zone)).date()


def local_day(micros: int, zone: str) -> date:
    """Return the day of a time in a time zone.

    Args:
        micros: microseconds UTC, from 2000 on.
        zone: IANA name.
    """
    return _day(micros // _QUARTER_US, zone)


ByModel = dict[str, list[int]]
# What all rows of a result share -> what one of them has of its own -> model -> sums. The long keys are hashed once a
# result, not once a model.
Sums = dict[tuple[Any, ...], dict[tuple[Any, ...], ByModel]]


class Deltas:
    """Adds contributions up, and says what changes.

    Args:
        zones: time zone by tenant.
    """

    def __init__(self, zones: Mapping[str, str]) -> None:
        self._zones = zones
        self._sums: Sums = {}

    def add(
        self,
        tenant_id: str,
        shared: tuple[str, str, int, bool],
        cells: Mapping[str, Any],
        *,
        sign: int,
        reported_at: int,
        reason: str,
    ) -> None:
        """Add a contribution, or take it off.

        Args:
            tenant_id: of the conversion.
            shared: its type, currency, event time and whether it is the first of the person.
            cells: what it contributes, parsed.
            sign: 1 or -1.
            reported_at: when the version was computed, microseconds UTC.
            reason: why there is one.
        """
        conversion_type, currency, converted_at, is_new = shared
        zone = self._zones[tenant_id]
        cash = local_day(converted_at, zone)
        group = self._sums.setdefault(
            (tenant_id, local_day(reported_at, zone), reason, cash, conversion_type, currency, is_new), {}
        )
        touches = [
            group.setdefault(("touch", local_day(at, zone), channel, platform, campaign_id, campaign), {})
            for channel, platform, campaign_id, campaign, at in cells["t"]
        ]
        coarse = [(group.setdefault(row, {}), places) for row, places in _coarse(cells, cash)]
        for model, parts, micros, rest, rest_micros in cells["m"]:
            for sums, part, value in zip(touches, parts, micros, strict=True):
                if part or value:
                    _add(sums, model, sign * part, sign * value)
            for sums, places in coarse:
                if len(places) == 1:
                    part, value = parts[places[0]], micros[places[0]]
                else:
                    part, value = sum([parts[place] for place in places]), sum([micros[place] for place in places])
                _add(sums, model, sign * part, sign * value, sign, sign * (part // _TO_MILLIONTHS) ** 2)
            if rest or rest_micros:
                touch, *coarse_rows = _rests(cash, with_campaign=is_counted(cells))
                _add(group.setdefault(touch, {}), model, sign * rest, sign * rest_micros)
                square = sign * (rest // _TO_MILLIONTHS) ** 2
                for row in coarse_rows:
                    _add(group.setdefault(row, {}), model, sign * rest, sign * rest_micros, sign, square)

    def rows(self) -> list[Delta]:
        """Return what is not zero."""
        found = []
        for (tenant, reported, reason, cash, conversion_type, currency, is_new), group in self._sums.items():
            for (grain, accrual, channel, platform, campaign_id, campaign), by_model in group.items():
                for model, sums in by_model.items():
                    if any(sums):
                        found.append(
                            Delta(
                                tenant, reported, reason, grain, cash, accrual, conversion_type, currency, is_new,
                                model, channel, platform, campaign_id, campaign, *sums,
                            )
                        )  # fmt: skip
        return found


def _coarse(cells: Mapping[str, Any], cash: date) -> list[tuple[tuple[Any, ...], list[int]]]:
    """Return the rows by channel, platform and campaign alone, each with the places of its touchpoints."""
    found: dict[tuple[Any, ...], list[int]] = {}
    for place, touch in enumerate(cells["t"]):
        found.setdefault(("channel", cash, touch[0], "", "", ""), []).append(place)
        found.setdefault(("platform", cash, "", touch[1], "", ""), []).append(place)
    if is_counted(cells):
        for place, name in enumerate(campaign_names(cells)):
            found.setdefault(("campaign", cash, "", "", "", name), []).append(place)
    return list(found.items())


@lru_cache(maxsize=1024)
def _rests(cash: date, *, with_campaign: bool) -> tuple[tuple[Any, ...], ...]:
    """Return the rows of what no touchpoint has: by touch, by channel, by platform, by campaign."""
    rows = (
        ("touch", cash, UNATTRIBUTED, UNATTRIBUTED, "", ""),
        ("channel", cash, UNATTRIBUTED, "", "", ""),
        ("platform", cash, "", UNATTRIBUTED, "", ""),
        ("campaign", cash, "", "", "", UNATTRIBUTED),
    )
    return rows if with_campaign else rows[:3]


def _add(by_model: ByModel, model: str, part: int, value: int, journeys: int = 0, squares: int = 0) -> None:
    sums = by_model.get(model)
    if sums is None:
        by_model[model] = [part, value, journeys, squares]
        return
    sums[0] += part
    sums[1] += value
    sums[2] += journeys
    sums[3] += squares
