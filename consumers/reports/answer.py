"""Answers a report of the catalogue: what is not named is chosen, what is not known is refused with the known names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import psycopg

from attributary.attribution_core.domain.time_grammar import BEGINNING, END, LocalTime, midnight
from attributary.consumers.store.results.report_reads import DIMENSIONS, CurrencyTotal, ReportRequest
from attributary.consumers.store.tenants import fetch_tenant

from .definition import Asked, Report, ReportTable
from .origin import SOURCES, Allowed, Origin, choose, origin_text, rollup_state

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DEFAULT_MODEL = "linear"
_CHANGED_WITHIN = timedelta(days=7)


class UnknownNameError(LookupError):
    """A name of the request is none of the tenant's.

    Args:
        parameter: models, by or time_zone.
        name: as it was asked for.
        known: what there is; empty: too many to name.
    """

    def __init__(self, parameter: str, name: str, known: Sequence[str]) -> None:
        super().__init__(f"{parameter}: there are {', '.join(known)}" if known else f"{parameter}: not known")
        self.parameter = parameter
        self.name = name
        self.known = list(known)


class PeriodError(ValueError):
    """A period that ends before it begins; says in which time zone."""


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """What may be left out of a request; None: the usual.

    Attributes:
        models: None: all for a report that compares models, else linear, or the only one that there is.
        by: channel, platform or campaign.
        since: changes after it, microseconds UTC or as it was typed; None: the midnight a week before the day of
            the report.
        currency: None: the one with the most conversions that has a value.
        conversion_types: empty: all.
        time_zone: IANA; None: the tenant's.
        limit: None: 50.
        source: any, rollup or results.
    """

    models: Sequence[str] | None = None
    by: str = "channel"
    since: int | LocalTime | None = None
    currency: str | None = None
    conversion_types: Sequence[str] = ()
    time_zone: str | None = None
    limit: int | None = None
    source: Allowed = "any"


class Answer(NamedTuple):
    """A report's answer: what was asked in the end, all totals by currency, and the rows.

    ``table`` is None where no conversion is in the report.
    """

    report: Report
    request: ReportRequest
    now_us: int
    totals: Sequence[CurrencyTotal]
    table: ReportTable | None
    origin: Origin = Origin("results")

    @property
    def notes(self) -> list[str]:
        """What a reader of the numbers needs, last of all where they are from."""
        complete_to = self.origin.complete_to_us
        origin = origin_text(self.origin, "" if complete_to is None else time_text(complete_to))
        return [*(self.table.notes if self.table else []), *([origin] if origin else [])]

    @property
    def total(self) -> CurrencyTotal:
        """Return conversions and net value of the report's currency."""
        return _of(self.totals, self.request.currency)

    @property
    def others(self) -> Sequence[CurrencyTotal]:
        """Return what stands in other currencies, which are never added."""
        return [each for each in self.totals if each.currency != self.request.currency]


def answer(
    connection: psycopg.Connection,
    report: Report,
    tenant_id: str,
    period: tuple[int | LocalTime, int | LocalTime],
    as_of: int | LocalTime,
    now_us: int,
    options: ReportOptions,
) -> Answer:
    """Answer one report.

    Args:
        connection: in a snapshot.
        report: of the catalogue.
        tenant_id: the tenant.
        period: event time of the conversions, from (included) to (excluded): microseconds UTC, or as it was typed.
        as_of: versions that were computed later are not looked at; the same.
        now_us: the present, microseconds UTC.
        options: the rest.

    Raises:
        UnknownNameError: a model, dimension, time zone or source is not known.
        PeriodError: the period ends before it begins, in the report's time zone.
        OnlyRollupError: only the roll-up is allowed, and it cannot answer.
    """
    return answers(connection, [report], tenant_id, period, as_of, now_us, options)[0]


def answers(
    connection: psycopg.Connection,
    reports: Sequence[Report],
    tenant_id: str,
    period: tuple[int | LocalTime, int | LocalTime],
    as_of: int | LocalTime,
    now_us: int,
    options: ReportOptions,
) -> list[Answer]:
    """Answer several reports of one request; see ``answer``."""
    if options.by not in DIMENSIONS:
        raise UnknownNameError("by", options.by, DIMENSIONS)
    if options.source not in SOURCES:
        raise UnknownNameError("source", options.source, SOURCES)
    zone = _zone(connection, tenant_id, options.time_zone)
    period_us, as_of_us = local_period(period, zone), local_micros(as_of, zone)
    since_us = week_before(min(as_of_us, now_us), zone) if options.since is None else local_micros(options.since, zone)
    request = ReportRequest(
        tenant_id, (), options.by, period_us, as_of_us, since_us, options.currency or "", options.conversion_types,
        zone, 50 if options.limit is None else options.limit,
    )  # fmt: skip
    state = rollup_state(connection, tenant_id) if options.source != "results" else None
    totals = choose(connection, request, state, options.source)[0].totals()
    if not options.currency and totals:
        chosen = next((each for each in totals if each.currency != "XXX" and each.net_micros), totals[0])
        request = replace(request, currency=chosen.currency)
    asks_models = totals and any(map(_has_models, reports))  # it may open every result: not for reports without models
    known = choose(connection, request, state, options.source)[0].known_models() if asks_models else []
    found = []
    for report in reports:
        mine = replace(request, models=_models(report, options.models, known))
        source, origin = choose(connection, mine, state, options.source, report)
        total = _of(totals, mine.currency)
        is_empty = not total.conversions and report.name not in {"unattributed", "quality", "restatements"}
        if _has_models(report) and not known:
            is_empty = True
        table = None if is_empty else report.compute(source, Asked(mine, total, now_us))
        found.append(Answer(report, mine, now_us, totals, table, origin))
    return found


def week_before(micros: int, zone: str) -> int:
    """Return the midnight that begins the day a week before a moment, microseconds UTC: the roll-up changes by days."""
    day = (_EPOCH + timedelta(microseconds=micros)).astimezone(ZoneInfo(zone)).date() - _CHANGED_WITHIN
    return midnight(day, ZoneInfo(zone))


def local_micros(moment: int | LocalTime, zone: str) -> int:
    """Return a moment in microseconds UTC: a time that was typed has the days of the zone."""
    return moment if isinstance(moment, int) else moment.micros(ZoneInfo(zone))


def local_period(period: tuple[int | LocalTime, int | LocalTime], zone: str) -> tuple[int, int]:
    """Return a period in microseconds UTC.

    Raises:
        PeriodError: it is empty.
    """
    start, end = (local_micros(bound, zone) for bound in period)
    if start >= end:
        raise PeriodError(f"the period must end after its beginning; days begin in {zone}")
    return start, end


def tenant_zone(connection: psycopg.Connection, tenant_id: str) -> str:
    """Return the IANA name of the zone in which a tenant's days begin."""
    tenant = fetch_tenant(connection, tenant_id)
    return tenant.time_zone if tenant is not None else "UTC"


def _has_models(report: Report) -> bool:
    return bool({"model", "models"} & set(report.options))


def _models(report: Report, asked: Sequence[str] | None, known: Sequence[str]) -> tuple[str, ...]:
    if not _has_models(report):
        return ()
    if asked and known and not set(asked) <= set(known):
        raise UnknownNameError("models", next(name for name in asked if name not in known), known)
    if asked:
        return tuple(asked) if "models" in report.options else tuple(asked[:1])
    if "models" in report.options:
        first = [name for name in known if name == DEFAULT_MODEL]
        return (*first, *(name for name in known if name not in first))
    return (DEFAULT_MODEL if DEFAULT_MODEL in known or not known else known[0],)


def _zone(connection: psycopg.Connection, tenant_id: str, asked: str | None) -> str:
    if asked is None:
        return tenant_zone(connection, tenant_id)
    if asked not in _zones():
        raise UnknownNameError("time_zone", asked, ())
    try:
        ZoneInfo(asked)
    except (ZoneInfoNotFoundError, ValueError):
        raise UnknownNameError("time_zone", asked, ()) from None
    return asked


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _of(totals: Sequence[CurrencyTotal], currency: str) -> CurrencyTotal:
    return next((each for each in totals if each.currency == currency), CurrencyTotal(currency, 0, 0, 0))


def time_text(micros: int) -> str:
    """Return microseconds since 1970 UTC as RFC 3339."""
    return (_EPOCH + timedelta(microseconds=micros)).isoformat().replace("+00:00", "Z")


def origin_document(origin: Origin) -> dict[str, Any]:
    """Return what an answer was computed from, as JSON has it."""
    return {
        "from": origin.source,
        "complete_to": None if origin.complete_to_us is None else time_text(origin.complete_to_us),
        "results_behind": origin.behind,
        "reason": origin.reason or None,
    }


def document(found: Answer) -> dict[str, Any]:
    """Return an answer as JSON has it: money in micros, times in RFC 3339 and UTC; null: no bound."""
    request, total = found.request, found.total
    start, end = request.period_us
    table = found.table
    return {
        "report": found.report.name,
        "question": found.report.question,
        "tenant": request.tenant_id,
        "from": None if start == BEGINNING else time_text(start),
        "to": None if end == END else time_text(end),
        "as_of": time_text(request.as_of_us) if request.as_of_us < found.now_us else None,
        "since": time_text(request.since_us) if "since" in found.report.options else None,
        "time_zone": request.time_zone,
        "currency": request.currency,
        "conversion_types": list(request.conversion_types),
        "models": list(request.models),
        "by": request.by,
        "total": {
            "conversions": total.conversions,
            "net_value_micros": total.net_micros,
            "final_conversions": total.final,
        },
        "other_currencies": [
            {"currency": each.currency, "conversions": each.conversions, "net_value_micros": each.net_micros}
            for each in found.others
        ],
        "columns": [
            {"name": each.name, "unit": each.unit, "is_additive": each.is_additive} for each in found.report.columns
        ],
        "rows": [list(row) for row in table.rows] if table else [],
        "finding": table.finding if table else "No conversion is in this report.",
        "notes": found.notes,
        "source": origin_document(found.origin),
    }
