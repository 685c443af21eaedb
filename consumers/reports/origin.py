"""What a report is computed from: the roll-up where it can answer exactly, else the results one by one.

Invariant: the roll-up answers for whole days of its own time zone, as things are now. Everything else, and a tenant
with a roll-up that is far behind, is read from the results with the reason, or refused where only it was allowed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from attributary.consumers.store.results.report_reads import StoredResults
from attributary.consumers.store.rollup.rolled_up import (
    MAX_BEHIND,
    RolledUp,
    RollupState,
    days_of,
    is_midnight,
    read_state,
)

if TYPE_CHECKING:
    import psycopg

    from attributary.consumers.store.results.report_reads import ReportRequest

    from .definition import Report, Source

Allowed = Literal["any", "rollup", "results"]
SOURCES: tuple[Allowed, ...] = get_args(Allowed)


class Origin(NamedTuple):
    """What a report was computed from.

    Attributes:
        source: rollup or results.
        complete_to_us: computing time of the newest result in the roll-up, microseconds UTC; None: from the results.
        behind: results at most that are stored and not in the roll-up; None: from the results.
        reason: why it is not from the roll-up; empty: it is, or the results were asked for.
    """

    source: Literal["rollup", "results"]
    complete_to_us: int | None = None
    behind: int | None = None
    reason: str = ""


class OnlyRollupError(LookupError):
    """Only the roll-up was allowed, and it cannot answer; says why."""


def rollup_state(connection: psycopg.Connection, tenant_id: str) -> RollupState | None:
    """Return how far the roll-up of a tenant is; None: it has none."""
    return read_state(connection, tenant_id)


def choose(
    connection: psycopg.Connection,
    request: ReportRequest,
    state: RollupState | None,
    allowed: Allowed,
    report: Report | None = None,
) -> tuple[RolledUp | StoredResults, Origin]:
    """Return what answers a request, and what it is.

    Args:
        connection: in a snapshot.
        request: what is asked.
        state: of the tenant's roll-up.
        allowed: any: the roll-up where it can.
        report: None: totals and names of models alone.

    Raises:
        OnlyRollupError: it cannot, and nothing else is allowed.
    """
    if allowed == "results":
        return StoredResults(connection, request), Origin("results")
    reason = obstacle(request, state) or (_own_obstacle(request, report) if report is not None else "")
    days = None if reason else days_of(request.period_us, request.time_zone)
    if days is None or state is None:
        if allowed == "rollup":
            raise OnlyRollupError(reason)
        return StoredResults(connection, request), Origin("results", reason=reason)
    return RolledUp(connection, request, days), Origin("rollup", state.reported_until_us, state.behind)


def obstacle(request: ReportRequest, state: RollupState | None) -> str:
    """Return why the roll-up cannot answer a request, whatever the report; empty: it can."""
    if state is None:
        return "the tenant has no roll-up: start the reporter, or run attributary rebuild --rollup"
    zone = request.time_zone
    obstacles = (
        (not state.is_counted, "the roll-up was made by an earlier version: run attributary rebuild --rollup"),
        (state.behind > MAX_BEHIND, f"the roll-up is {state.behind:,} results behind, see attributary status"),
        (state.time_zone != zone, f"the roll-up has days of {state.time_zone}, the report of {zone}"),
        (request.as_of_us < state.reported_until_us, "the roll-up has no earlier state of this report"),
        (days_of(request.period_us, zone) is None, f"the period begins or ends between two midnights of {zone}"),
    )
    return next((text for is_there, text in obstacles if is_there), "")


def _own_obstacle(request: ReportRequest, report: Report) -> str:
    if report.name == "paths" and request.by == "campaign":
        return "the roll-up has no paths of campaigns"
    if "since" in report.options and not is_midnight(request.since_us, request.time_zone):
        return f"the moment of the changes is between two midnights of {request.time_zone}"
    return ""


def origin_text(origin: Origin, time_text: str) -> str:
    """Return a sentence about what a report was computed from; empty: the results were asked for.

    Args:
        origin: what it was.
        time_text: its ``complete_to_us`` in RFC 3339; not used without.
    """
    if origin.source == "rollup":
        behind = f", {origin.behind:,} results behind at most" if origin.behind else ""
        return f"From the roll-up, complete to {time_text}{behind}."
    return f"From the results one by one, because {origin.reason}." if origin.reason else ""


if TYPE_CHECKING:  # both answer all questions of a report

    def _sources(rolled_up: RolledUp, stored: StoredResults) -> tuple[Source, Source]:
        return rolled_up, stored
