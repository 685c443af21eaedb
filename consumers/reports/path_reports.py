"""Reports of whole journeys: paths, their lengths, and the time that they take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from attributary.consumers.store.results.report_reads import LONGEST_PATH, Path

from .definition import OTHER, Asked, Column, ReportTable, Source, counted, percent

NO_TOUCHPOINT = "(no touchpoint)"
PATH_COLUMNS = (
    Column("path", "name", "Names in the order of time, joined by ' > '; runs of one name stand once."),
    Column("steps", "count", "Names in it; not additive."),
    Column("conversions", "count", "Conversions with it.", is_additive=True),
    Column("value", "micros", "Their net value.", is_additive=True),
    Column("share", "share", "Of all conversions.", is_additive=True),
)
LENGTH_COLUMNS = (
    Column("touches", "count", "Touchpoints in the lookback windows; of the last row at least so many."),
    Column("conversions", "count", "Conversions with so many.", is_additive=True),
    Column("value", "micros", "Their net value.", is_additive=True),
    Column("share", "share", "Of all conversions.", is_additive=True),
    Column(
        "collapsed_conversions", "count", "Conversions with so many when runs of one name count once.", is_additive=True
    ),
)
LAG_COLUMNS = (
    Column("days", "days", "Whole days (24 hours) before the conversion; of the last row at least so many."),
    Column("conversions", "count", "Conversions with their first touch so long before.", is_additive=True),
    Column("value", "micros", "Their net value.", is_additive=True),
    Column("share", "share", "Of all conversions with a touchpoint.", is_additive=True),
    Column("reached", "share", "Share with the first touch at most so long before; not additive."),
    Column("last_conversions", "count", "Conversions with their last touch so long before.", is_additive=True),
)


def paths(source: Source, asked: Asked) -> ReportTable:
    """Return the most frequent paths, runs of one name collapsed."""
    found = source.paths()
    whole = sum(path.conversions for path in found)
    rows: list[Any] = [
        (_label(path), path.steps, path.conversions, path.micros, path.conversions / whole) for path in found
    ]
    rows.sort(key=lambda row: (-row[2], -row[3], row[0]))
    limit = asked.request.limit or len(rows)
    shown: list[Any] = list(rows[:limit])
    if rare := rows[limit:]:
        shown.append((OTHER, None, *(sum(row[place] for row in rare) for place in (2, 3)), _share(rare, whole)))
    several = sum(row[2] for row in rows if row[1] > 1)
    finding = (
        f"{percent(several / whole)} of the conversions have more than one {asked.request.by} on their path; there are "
        f"{counted(len(rows), 'path')}."
        if whole
        else "There is no conversion."
    )
    return ReportTable(shown, finding)


def lengths(source: Source, asked: Asked) -> ReportTable:
    """Return how many touchpoints journeys have."""
    found = source.lengths()
    plain = {length: (conversions, micros) for length, conversions, micros in found.touches}
    runs = dict(found.steps)
    whole = sum(sums[0] for sums in plain.values())
    rows: list[Any] = []
    for length in _upto(plain.keys() | runs.keys(), asked.request.limit):
        is_last = length == _last(plain.keys() | runs.keys(), asked.request.limit)
        count, micros = (
            sum(sums[place] for key, sums in plain.items() if _in(key, length, is_last)) for place in (0, 1)
        )
        both = sum(conversions for key, conversions in runs.items() if _in(key, length, is_last))
        rows.append((length, count, micros, count / whole, both))
    values = [(length, sums[0]) for length, sums in plain.items() if length]
    finding = (
        f"Half of the conversions with a touchpoint have at most {quantile(values, 0.5)}, nine in ten at most "
        f"{quantile(values, 0.9)}; {counted(plain.get(0, (0, 0))[0], 'conversion')} have none."
        if values
        else "No conversion has a touchpoint."
    )
    return ReportTable(rows, finding)


def lags(source: Source, asked: Asked) -> ReportTable:
    """Return the time from first and from last touch to the conversion."""
    found = source.lags()
    first = {days: (conversions, micros) for days, conversions, micros in found.first}
    last = dict(found.last)
    whole = sum(sums[0] for sums in first.values())
    rows: list[Any] = []
    reached = 0
    for days in _upto(first.keys() | last.keys(), asked.request.limit):
        is_last = days == _last(first.keys() | last.keys(), asked.request.limit)
        count, micros = (sum(sums[place] for key, sums in first.items() if _in(key, days, is_last)) for place in (0, 1))
        reached += count
        ends = sum(conversions for key, conversions in last.items() if _in(key, days, is_last))
        rows.append((days, count, micros, count / whole, reached / whole, ends))
    values = [(days, sums[0]) for days, sums in first.items()]
    untouched = asked.total.conversions - whole
    finding = (
        f"Half of the conversions come within {counted(quantile(values, 0.5) + 1, 'day')} of the first touch, nine in "
        f"ten within {counted(quantile(values, 0.9) + 1, 'day')}."
        if values
        else "No conversion has a touchpoint."
    )
    return ReportTable(
        rows, finding, [f"{counted(untouched, 'conversion')} have no touchpoint and are not counted here."]
    )


def _label(path: Path) -> str:
    if path.steps > LONGEST_PATH:
        return f"({path.steps} steps)"
    return " > ".join(path.names) if path.steps else NO_TOUCHPOINT


def quantile(values: Sequence[tuple[int, int]], part: float) -> int:
    """Return the smallest value that at least a part of the weight is at or below."""
    whole = sum(weight for _, weight in values)
    reached = 0
    for value, weight in sorted(values):
        reached += weight
        if reached >= part * whole:
            return value
    raise ValueError("there is no value")


def _upto(keys: Iterable[int], limit: int) -> list[int]:
    """Return the keys that have a row of their own, and the last one, which holds all above."""
    every = sorted(keys)
    return every if not limit else every[:limit]


def _last(keys: Iterable[int], limit: int) -> int:
    return _upto(keys, limit)[-1]


def _in(key: int, row: int, is_last: bool) -> bool:
    return key == row or (is_last and key > row)


def _share(rows: Sequence[Any], whole: int) -> float:
    return float(sum(row[2] for row in rows)) / whole
