"""Reports over time: days by conversion and by touch, cohorts, how mature recent days are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from .definition import OTHER, Asked, Column, ReportTable, Source, counted, percent
from .maturity import Arrived, arrived_by_age

DAY_COLUMNS = (
    Column("day", "date", "Day in the report's time zone."),
    Column("conversions", "count", "Conversions of the day.", is_additive=True),
    Column("value", "micros", "Their net value.", is_additive=True),
    Column("final", "count", "Those that touchpoints cannot change any more.", is_additive=True),
    Column("cash", "credit", "Credit of touchpoints, on the day of the conversion.", is_additive=True),
    Column("cash_value", "micros", "Its net value.", is_additive=True),
    Column("accrual", "credit", "The same credit, on the day of each touch.", is_additive=True),
    Column("accrual_value", "micros", "Its net value.", is_additive=True),
    Column("unattributed", "credit", "What no touchpoint gets, on the day of the conversion.", is_additive=True),
    Column("unattributed_value", "micros", "Its net value.", is_additive=True),
)
COHORT_COLUMNS = (
    Column("month", "date", "First day of the month of a person's first conversion of a type."),
    Column("channel", "name", "Channel of the first touchpoint before that conversion."),
    Column("months_since", "months", "Calendar months after it; 0: the same month."),
    Column("people", "count", "People with a conversion then; not additive over months_since."),
    Column("conversions", "count", "Their conversions then.", is_additive=True),
    Column("value", "micros", "Their net value: a refund lowers the month of its order.", is_additive=True),
    Column("value_per_person", "micros", "value / people of the cohort (at months_since 0)."),
)
MATURITY_COLUMNS = (
    Column("day", "date", "Day in the report's time zone."),
    Column("age", "days", "Calendar days between it and the newest complete day."),
    Column("cash", "count", "Conversions of the day that have been reported.", is_additive=True),
    Column("cash_arrived", "share", "Share of its final number that this is; null: it cannot be told."),
    Column("cash_low", "share", "Lower end of the 90 % interval."),
    Column("cash_high", "share", "Upper end."),
    Column("accrual", "credit", "Credit of touches of the day that has been reported.", is_additive=True),
    Column("accrual_arrived", "share", "Share of its final credit that this is; null: it cannot be told."),
    Column("accrual_low", "share", "Lower end of the 90 % interval."),
    Column("accrual_high", "share", "Upper end."),
)
MAX_AGE = 90
_SHOWN_AGES = 35
_MATURITY_NOTE = (
    f"From how late the days of the last {MAX_AGE} days came in. Cash counts conversions by when they were first "
    "reported; refunds and restatements come later and are in the report restatements."
)


def days(source: Source, asked: Asked) -> ReportTable:
    """Return every day by both datings; the sums over all days are equal."""
    found: dict[date, list[Any]] = {}

    def sums(day: date) -> list[Any]:
        return found.setdefault(day, [0, 0, 0, 0.0, 0, 0.0, 0, 0.0, 0])

    for day, conversions, final, net, rest_micros, rest in source.conversion_days():
        sums(day)[:3] = [conversions, net, final]
        sums(day)[7:] = [rest, rest_micros]
    for cash, accrual, credit, micros in source.days():
        place = 3 if accrual is None else 5
        sums(cash or accrual)[place : place + 2] = [credit, micros]
    rows: list[Any] = [(day.isoformat(), *found[day]) for day in sorted(found)]
    with_some = [row for row in rows if row[1]]
    most = max(with_some, key=lambda row: (row[1], row[0]), default=None)
    finding = (
        f"{counted(sum(row[1] for row in rows), 'conversion')} on {counted(len(with_some), 'day')}; most on {most[0]}: "
        f"{most[1]:,}."
        if most
        else "There is no conversion."
    )
    limit = asked.request.limit
    if limit and len(rows) > limit:
        older, rows = rows[:-limit], rows[-limit:]
        rows.insert(0, ("(earlier)", *(sum(row[place] for row in older) for place in range(1, 10))))
    note = (
        "Cash is dated by the conversion, accrual by each touch; over all days both are the same credit. Days of "
        "accrual before the period are of touches that led to conversions in it."
    )
    return ReportTable(rows, finding, [note])


def cohorts(source: Source, asked: Asked) -> ReportTable:
    """Return people by month and channel of their first conversion, and what they brought since."""
    found: dict[tuple[date, str], dict[int, tuple[int, int, int]]] = {}
    sizes: dict[str, int] = {}
    for month, channel, since, people, conversions, micros in source.cohorts():
        found.setdefault((month, channel), {})[since] = (people, conversions, micros)
        if since == 0:
            sizes[channel] = sizes.get(channel, 0) + people
    kept = set(sorted(sizes, key=lambda name: (-sizes[name], name))[: asked.request.limit or None])
    pooled: dict[tuple[date, str], dict[int, list[int]]] = {}
    for (month, channel), sums in found.items():
        target = pooled.setdefault((month, channel if channel in kept else OTHER), {})
        for since, parts in sums.items():
            cells = target.setdefault(since, [0, 0, 0])
            for place, part in enumerate(parts):
                cells[place] += part
    rows = []
    ordered = sorted(pooled.items(), key=lambda item: (item[0][0], item[0][1] == OTHER, item[0][1]))
    for (month, channel), by_month in ordered:
        size = by_month[0][0]
        rows += [
            (month.isoformat(), channel, since, people, conversions, micros, round(micros / size))
            for since, (people, conversions, micros) in sorted(by_month.items())
        ]
    people = sum(sizes.values())
    back = sum(row[4] for row in rows) - people
    finding = (
        f"{counted(people, 'first conversion')} in {counted(len({row[0] for row in rows}), 'month')}; the same people "
        f"converted {back:,} times more."
        if people
        else "There is no conversion."
    )
    note = (
        "First means first in what is stored: in the first months of a history old customers look new. Every later "
        "conversion of a person is in the person's cohort, also after the period."
    )
    return ReportTable(rows, finding, [note])


def maturity(source: Source, asked: Asked) -> ReportTable:
    """Return how much of each recent day has arrived, by both datings."""
    moment = datetime.fromtimestamp(min(asked.request.as_of_us, asked.now_us, asked.request.period_us[1]) / 1e6, UTC)
    newest = moment.astimezone(ZoneInfo(asked.request.time_zone)).date() - timedelta(days=1)
    cash = [((newest - day).days, delay, weight) for day, delay, weight in source.cash_delays()]
    accrual = [((newest - day).days, delay, weight) for day, delay, weight in source.accrual_delays()]
    # Of days before the first conversion only the late arrivals are there: they would make every day look slow.
    oldest = max((age for age, _, _ in cash), default=0)
    shares = (
        arrived_by_age(cash, MAX_AGE),
        arrived_by_age([each for each in accrual if each[0] <= oldest], MAX_AGE),
    )
    so_far = _so_far(cash), _so_far(accrual)
    ages = sorted((age for age in so_far[0].keys() | so_far[1].keys() if 0 <= age < _SHOWN_AGES), reverse=True)
    rows = []
    for age in ages:
        cells: list[Any] = [(newest - timedelta(days=age)).isoformat(), age]
        for sums, share in zip(so_far, shares, strict=True):
            one = share[age]
            cells += [sums.get(age, 0.0), one.share, one.low, one.high]
        cells[2] = round(cells[2])
        rows.append(cells)
    notes = [
        _MATURITY_NOTE,
        "A day is never scaled up: the share says how much is still to come.",
    ]
    return ReportTable(rows, _maturity_finding(shares[1]), notes)


def _so_far(arrivals: Iterable[tuple[int, int, float]]) -> dict[int, float]:
    found: dict[int, float] = {}
    for age, delay, weight in arrivals:
        if delay <= age:
            found[age] = found.get(age, 0.0) + weight
    return found


def _maturity_finding(shares: Mapping[int, Arrived]) -> str:
    yesterday = shares[0]
    if yesterday.share is None or yesterday.low is None or yesterday.high is None:
        return "How much of recent days is still to come cannot be told: too few days were reported as they happened."
    ready = next(age for age, each in sorted(shares.items()) if each.share is not None and each.share >= 0.95)
    return (
        f"On the newest complete day {percent(yesterday.share)} ({percent(yesterday.low)} to {percent(yesterday.high)})"
        f" of the touches' credit has arrived; 95 % has after {counted(ready, 'day')}."
    )
