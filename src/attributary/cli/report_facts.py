"""The numbers of the report page, read in one snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from attributary.consumers.store.results.credit_report import (
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

if TYPE_CHECKING:
    import psycopg


@dataclass(frozen=True, slots=True)
class PageFacts:
    """What the page shows; all of it is of one tenant and one currency.

    Attributes:
        query: which conversions.
        model: of bars and campaigns.
        models: all that credit the conversions.
        total: conversions and net value.
        report: by channel and model.
        campaigns: by campaign, of the one model.
        days: in order.
        paths: the most frequent first.
        changed_since: microseconds UTC.
        changes: what stood then, and changes since.
        others: totals in other currencies.
    """

    query: ReportQuery
    model: str
    models: Sequence[str]
    total: ReportTotal
    report: Report
    campaigns: Sequence[CreditRow]
    days: Sequence[Day]
    paths: Sequence[Path]
    changed_since: int
    changes: Sequence[Change]
    others: Sequence[ReportTotal]


def read_facts(connection: psycopg.Connection, query: ReportQuery, model: str, changed_since: int) -> PageFacts | None:
    """Read the numbers of a page; None: there is no such conversion, or no such model.

    Args:
        connection: in a snapshot.
        query: which conversions; without a currency the most common one that has a value is taken.
        model: of bars and campaigns.
        changed_since: changes after this moment are listed by reason, microseconds UTC.
    """
    models = known_models(connection, query)
    if model not in models:
        return None
    totals = read_report(connection, replace(query, by=("currency",), models=(model,))).totals
    chosen = next((total for total in totals if total.net_micros), totals[0])
    query = replace(query, currency=chosen.currency, models=models, by=("channel",))
    one = replace(query, models=(model,), by=("campaign",))
    return PageFacts(
        query,
        model,
        models,
        chosen,
        read_report(connection, query),
        read_report(connection, one).rows,
        read_days(connection, query),
        read_paths(connection, query),
        changed_since,
        read_changes(connection, query, changed_since),
        [total for total in totals if total.currency != chosen.currency],
    )
