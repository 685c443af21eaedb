"""The numbers of the report page, read in one snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import TYPE_CHECKING

from attributary.attribution_core.domain.time_grammar import END
from attributary.consumers.store.removed_totals import RemovedSum, read_removed
from attributary.consumers.store.results.credit_report import UNATTRIBUTED, CreditRow, ModelUse, ReportQuery
from attributary.consumers.store.results.report_reads import CurrencyTotal, Path, ReportRequest

from .answer import Answer, ReportOptions, answers, tenant_zone, week_before
from .catalog import BY_NAME
from .definition import OTHER
from .origin import Origin, choose, rollup_state
from .page_spend import SpendFacts, read_spend
from .page_sums import Change, Day, changes_of, credit_rows, days_of

if TYPE_CHECKING:
    import psycopg


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
        channels: by channel and model.
        uses: by which versions and rules the models credited.
        campaigns: by campaign, of the one model.
        days: in order; of months when their name is YYYY-MM.
        paths: the most frequent first; runs of one channel stand once.
        several: conversions with more than one touchpoint.
        changed_since: microseconds UTC.
        changes: what stood then, and changes since.
        others: totals in other currencies.
        zone: IANA name of the zone in which days begin: the tenant's.
        answers: reports of the catalogue.
        origin: what credit, days and paths are from.
        changes_origin: what the changes are from.
        spend: what ads cost and brought; None: no spend is in the period, or the login may not read it.
    """

    query: ReportQuery
    model: str
    models: Sequence[str]
    total: CurrencyTotal
    removed: Sequence[RemovedSum]
    channels: Sequence[CreditRow]
    uses: Sequence[ModelUse]
    campaigns: Sequence[CreditRow]
    days: Sequence[Day]
    paths: Sequence[Path]
    several: int
    changed_since: int
    changes: Sequence[Change]
    others: Sequence[CurrencyTotal]
    zone: str
    answers: Sequence[Answer]
    origin: Origin
    changes_origin: Origin
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
    zone = tenant_zone(connection, query.tenant_id)
    changed_since = week_before(query.as_of_us, zone) if changed_since is None else changed_since
    request = ReportRequest(
        query.tenant_id, (), "channel", query.period_us, END, changed_since, query.currency or "",
        query.conversion_types, zone, 0,
    )  # fmt: skip
    state = rollup_state(connection, query.tenant_id)
    totals = [
        total
        for total in choose(connection, request, state, "any")[0].totals()
        if query.currency in {None, total.currency}
    ]
    if not totals:
        return None
    chosen = next((total for total in totals if total.net_micros), totals[0])
    request = replace(request, currency=chosen.currency)
    models = choose(connection, request, state, "any")[0].known_models()
    if model not in models:
        return None
    query = replace(query, currency=chosen.currency, models=models, by=("channel",))
    one = replace(request, models=(model,))
    every, origin = choose(connection, replace(request, models=models), state, "any")
    of_one = choose(connection, one, state, "any")[0]
    of_campaigns = choose(connection, replace(one, by="campaign"), state, "any")[0]
    changed, changes_origin = choose(connection, one, state, "any", BY_NAME["restatements"])
    removed_period = (query.period_us[0], min(query.period_us[1], query.as_of_us))
    return PageFacts(
        query,
        model,
        models,
        chosen,
        read_removed(
            connection, query.tenant_id, removed_period, currency=query.currency,
            conversion_types=query.conversion_types,
        ),
        _pooled_rows(credit_rows(every, chosen.currency), model, _MAX_CHANNELS),
        every.uses(),
        _pooled_rows(credit_rows(of_campaigns, chosen.currency), model, _MAX_CAMPAIGNS),
        _months(days_of(of_one)),
        _pooled_paths(of_one.paths()),
        sum(conversions for length, conversions, _ in of_one.lengths().touches if length > 1),
        changed_since,
        changes_of(changed, chosen),
        [total for total in totals if total.currency != chosen.currency],
        zone,
        _answers(connection, query, model, changed_since, zone),
        origin,
        changes_origin,
        read_spend(connection, query, model, zone),
    )  # fmt: skip


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
        found += answers(connection, reports, query.tenant_id, query.period_us, END, query.as_of_us, options)
    order = list(BY_NAME)
    return sorted(found, key=lambda each: order.index(each.report.name))


def _pooled_rows(rows: Sequence[CreditRow], model: str, limit: int) -> list[CreditRow]:
    """Return rows with the names beyond a number summed up, for each model; the most credited by one model stay."""
    rows = [row for row in rows if row.bucket in {None, UNATTRIBUTED}]  # removed ones stand in a sentence of their own
    mine = sorted(
        (row for row in rows if row.model == model and row.is_touch),
        key=lambda row: (-abs(round(row.conversions, 6)), row.keys),
    )
    kept = {row.keys for row in mine[:limit]}
    found = [row for row in rows if not row.is_touch or row.keys in kept]
    rare = [row for row in rows if row.is_touch and row.keys not in kept]
    for name in dict.fromkeys(row.model for row in rare):
        parts = [row for row in rare if row.model == name]
        credit, micros = sum(row.conversions for row in parts), sum(row.value_micros for row in parts)
        found.append(parts[0]._replace(keys=(OTHER,), journeys=0, conversions=credit, value_micros=micros, share=None))
    return found


def _pooled_paths(paths: Sequence[Path]) -> list[Path]:
    found = sorted(paths, key=lambda path: (-path.conversions, -path.micros, path.steps, path.names))
    rare = found[_MAX_PATHS:]
    if not rare:
        return found
    pool = Path((OTHER,), 1, sum(path.conversions for path in rare), sum(path.micros for path in rare))
    return [*found[:_MAX_PATHS], pool]


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
