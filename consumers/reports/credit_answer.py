"""Credit by dimensions, for `attributary results` and the read API: from the roll-up where it can answer exactly.

Invariant: the answer is the same from either source; what it is from, and why not from the roll-up, stands beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attributary.consumers.store.results.credit_report import is_by_touch, read_report
from attributary.consumers.store.results.report_reads import ReportRequest
from attributary.consumers.store.rollup.rolled_report import is_answerable, read_rolled_report
from attributary.consumers.store.rollup.rolled_up import days_of

from .origin import Origin, obstacle, rollup_state

if TYPE_CHECKING:
    import psycopg

    from attributary.consumers.store.results.credit_report import Report, ReportQuery


def read_credit(connection: psycopg.Connection, query: ReportQuery) -> tuple[Report, Origin]:
    """Return credit by dimensions, and what it was computed from.

    Args:
        connection: in a snapshot.
        query: what is asked; days of its zone are those of the period as well.

    Raises:
        ValueError: a dimension is not known.
    """
    state = rollup_state(connection, query.tenant_id)
    request = ReportRequest(
        query.tenant_id, query.models, "channel", query.period_us, query.as_of_us, 0, query.currency or "",
        query.conversion_types, query.zone,
    )  # fmt: skip
    reason = _own_obstacle(query) or obstacle(request, state)
    days = None if reason else days_of(query.period_us, query.zone)
    if days is None or state is None:
        return read_report(connection, query), Origin("results", reason=reason)
    return read_rolled_report(connection, query, days), Origin("rollup", state.reported_until_us, state.behind)


def _own_obstacle(query: ReportQuery) -> str:
    if is_answerable(query.by):
        return ""
    if {"source", "medium"} & set(query.by):
        return "the roll-up has no source and medium"
    return "the roll-up has one of channel, platform and campaign at a time" if is_by_touch(query.by) else ""
