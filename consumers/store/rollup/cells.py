"""What a result contributes to the roll-up: pure.

Invariants: for every model the billionths of a conversion's touchpoints and of the rest sum to 1,000,000,000, and the
micros to its net value. A contribution says the same whatever else is in the batch, so it can be taken off exactly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

UNATTRIBUTED, NO_TOUCHPOINT, NO_CAMPAIGN = "(unattributed)", "(no touchpoint)", "(none)"
WHOLE = 1_000_000_000
FIRST_DAY = date(2000, 1, 1)
# The offsets of all time zones since 2000 are whole quarters of an hour, and change at one.
_QUARTER_US = 900_000_000
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


@lru_cache(maxsize=256)
def _quoted(model: str) -> str:
    return _encode(model)


@lru_cache(maxsize=256)
def _encoded(uses: tuple[tuple[str, str], ...]) -> str:
    return _encode(uses)


def cells_text(cells: Mapping[str, Any]) -> str:
    """Return a contribution as it is stored: JSON without spaces."""
    # Nine tenths of it are numbers, which Python writes faster than its encoder does.
    models = ",".join(
        [
            f"[{_quoted(model)},{f'{list(parts)},{list(micros)},{rest},{rest_micros}'.replace(' ', '')}]"
            for model, parts, micros, rest, rest_micros in cells["m"]
        ]
    )
    touches, names = _encode(cells["t"]), _encode(cells["n"])
    uses = _encoded(tuple([tuple(use) for use in cells["u"]]))  # nearly always those of the result before
    return f'{{"t":{touches},"m":[{models}],"n":{names},"u":{uses},"f":{cells["f"]}}}'


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


def day_number(micros: int, zone: str) -> int:
    """Return the day of a time in a time zone, in days since 2000-01-01."""
    return _number(micros // _QUARTER_US, zone)


@lru_cache(maxsize=1 << 17)
def _number(quarter: int, zone: str) -> int:
    return _day(quarter, zone).toordinal() - FIRST_DAY.toordinal()


@lru_cache(maxsize=1 << 14)
def month_number(day: int) -> int:
    """Return the month of a day, given in days since 2000-01-01, in months since the year 0."""
    found = FIRST_DAY + timedelta(days=day)
    return found.year * 12 + found.month
