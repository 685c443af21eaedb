"""The numbers of the report page, read in one snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING

from attributary.consumers.store.removed_totals import RemovedSum, read_removed
from attributary.consumers.store.results.credit_report import (
    UNATTRIBUTED,
    CreditRow,
    Report,
    ReportQuery,
    ReportTotal,
    known_models,
    read_report,
)
from attributary.consumers.store.results.page_reads import (
    Change,
    Day,
    Path,
    read_changes,
    read_days,
    read_paths,
)
from attributary.consumers.store.tenants import fetch_tenant

from .answer import Answer, ReportOptions, answers, week_before
from .catalog import BY_NAME
from .page_spend import SpendFacts, read_spend

if TYPE_CHECKING:
    import psycopg


OTHER = "(other)"
_OF_ALL = ("models", "unattributed", "quality")
_OF_ONE = ("maturity", "path-lengths", "lag", "assists", "positions", "restatements")
_MAX_CHANNELS, _MAX_CAMPAIGNS, _MAX_PATHS, _MAX_DAYS = 60, 150, 60, 120


@dataclass(frozen=True, slots=True)
class PageFacts:
    """What the page shows; all of it is of one tenant and one currency.

    What is rare is summed up, so that the page stays small whatever a tenant sends: channels, campaigns and paths
    beyond a number as `OTHER`, and days of more than `_MAX_DAYS` as months.

    Attributes:
        query: which conversions.
        model: of bars and campaigns.
        models: all that credit the conversions.
        total: conversions that are stored one by one, and their net value.
        removed: what was erased and retired in the period.
        report: by channel and model.
        campaigns: by campaign, of the one model.
        days: in order; of months when their name is YYYY-MM.
        paths: the most frequent first.
        changed_since: microseconds UTC.
        changes: what stood then, and changes since.
        others: totals in other currencies.
        zone: IANA name of the zone in which days begin: the tenant's.
        answers: reports of the catalogue.
        spend: what ads cost and brought; None: no spend is in the period, or the login may not read it.
    """

    query: ReportQuery
    model: str
    models: Sequence[str]
    total: ReportTotal
    removed: Sequence[RemovedSum]
    report: Report
    campaigns: Sequence[CreditRow]
    days: Sequence[Day]
    paths: Sequence[Path]
    changed_since: int
    changes: Sequence[Change]
    others: Sequence[ReportTotal]
    zone: str
    answers: Sequence[Answer]
    spend: SpendFacts | None = None


def read_facts(
    connection: psycopg.Connection, query: ReportQuery, model: str, changed_since: int | None
) -> PageFacts | None:
    """Read the numbers of a page; None: there is no such conversion, or no such model.

    Args:
        connection: in a snapshot.
        query: which conversions; without a currency the most common one that has a value is taken.
        model: of bars and campaigns.
        changed_since: changes after this moment are listed by reason, microseconds UTC; None: the midnight a week ago.
    """
    models = known_models(connection, query)
    if model not in models:
        return None
    reported = read_report(connection, replace(query, by=("currency",), models=(model,))).totals
    totals = [total.kept for total in reported if total.kept.conversions]
    chosen = next((total for total in totals if total.net_micros), totals[0])
    query = replace(query, currency=chosen.currency, models=models, by=("channel",))
    one = replace(query, models=(model,), by=("campaign",))
    tenant = fetch_tenant(connection, query.tenant_id)
    zone = tenant.time_zone if tenant is not None else "UTC"
    report = read_report(connection, query)
    changed_since = week_before(query.as_of_us, zone) if changed_since is None else changed_since
    return PageFacts(
        query,
        model,
        models,
        chosen,
        read_removed(
            connection,
            query.tenant_id,
            (query.period_us[0], min(query.period_us[1], query.as_of_us)),
            currency=query.currency,
            conversion_types=query.conversion_types,
        ),
        report._replace(rows=_pooled_rows(report.rows, model, _MAX_CHANNELS)),
        _pooled_rows(read_report(connection, one).rows, model, _MAX_CAMPAIGNS),
        _months(read_days(connection, query, zone)),
        _pooled_paths(read_paths(connection, query)),
        changed_since,
        read_changes(connection, query, changed_since),
        [total for total in totals if total.currency != chosen.currency],
        zone,
        _answers(connection, query, model, changed_since, zone),
        read_spend(connection, query, model, zone),
    )


def _answers(
    connection: psycopg.Connection, query: ReportQuery, model: str, changed_since: int, zone: str
) -> list[Answer]:
    """Return the reports of the catalogue that the page shows beside its own parts."""
    found = []
    for names, models, limit in ((_OF_ALL, None, 12), (_OF_ONE, (model,), 12), (("cohorts",), (model,), 3)):
        options = ReportOptions(
            models, "channel", changed_since, query.currency, tuple(query.conversion_types), zone, limit
        )
        reports = [BY_NAME[name] for name in names]
        found += answers(connection, reports, query.tenant_id, query.period_us, query.as_of_us, query.as_of_us, options)
    order = list(BY_NAME)
    return sorted(found, key=lambda each: order.index(each.report.name))


def _pooled_rows(rows: Sequence[CreditRow], model: str, limit: int) -> list[CreditRow]:
    """Return rows with the names beyond a number summed up, for each model; the most credited by one model stay."""
    rows = [row for row in rows if row.bucket in {None, UNATTRIBUTED}]  # removed ones stand in a sentence of their own
    mine = sorted((row for row in rows if row.model == model and row.is_touch), key=lambda row: -abs(row.conversions))
    kept = {row.keys for row in mine[:limit]}
    found = [row for row in rows if not row.is_touch or row.keys in kept]
    rare = [row for row in rows if row.is_touch and row.keys not in kept]
    for name in dict.fromkeys(row.model for row in rare):
        parts = [row for row in rare if row.model == name]
        credit, micros = sum(row.conversions for row in parts), sum(row.value_micros for row in parts)
        found.append(parts[0]._replace(keys=(OTHER,), journeys=0, conversions=credit, value_micros=micros, share=None))
    return found


def _pooled_paths(paths: Sequence[Path]) -> list[Path]:
    rare = paths[_MAX_PATHS:]
    if not rare:
        return list(paths)
    pool = Path((OTHER,), sum(path.conversions for path in rare), sum(path.net_micros for path in rare))
    return [*paths[:_MAX_PATHS], pool]


def _months(days: Sequence[Day]) -> list[Day]:
    """Return days as months where their span is long."""
    if not days or (date.fromisoformat(days[-1].day) - date.fromisoformat(days[0].day)).days <= _MAX_DAYS:
        return list(days)
    found: dict[str, Day] = {}
    for day in days:
        month = day.day[:7]
        before = found.get(month, Day(month, 0, 0, 0))
        found[month] = Day(
            month, before.conversions + day.conversions, before.net_micros + day.net_micros, before.final + day.final
        )
    return list(found.values())
