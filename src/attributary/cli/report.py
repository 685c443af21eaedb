"""`attributary report`: the catalogue of reports, and one file that a browser shows without a network."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attributary.cli import exits
from attributary.cli.report_answers import add_reports
from attributary.cli.tenant_option import Tenant
from attributary.cli.times import LOCAL_SINCE_HELP, LOCAL_UNTIL_HELP, local_time_option

if TYPE_CHECKING:
    import psycopg

    from attributary.consumers.reports.page_facts import PageFacts
    from attributary.consumers.store.results.credit_report import ReportQuery


def register(app: typer.Typer) -> None:
    """Add the group `report`."""
    group = typer.Typer(
        no_args_is_help=True, help="Reports: models, days, paths, changes and more; html: a page of all."
    )
    group.command("html")(_html)
    add_reports(group)
    group.callback()(lambda: None)
    app.add_typer(group, name="report")


def _html(
    *,
    tenant: Tenant = "",
    out: Annotated[Path, typer.Option("--out", help="File to write; an older one is replaced.")] = Path("report.html"),
    model: Annotated[str, typer.Option(help="Model of the bars and campaigns. All models stand beside it.")] = "linear",
    since: Annotated[str, typer.Option("--from", help=f"Conversions. {LOCAL_SINCE_HELP}")] = "beginning",
    until: Annotated[str, typer.Option("--to", help=f"Conversions. {LOCAL_UNTIL_HELP}")] = "end",
    currency: Annotated[
        str | None, typer.Option(help="Conversions in this currency. Default: the most common one.")
    ] = None,
    changed_since: Annotated[
        str,
        typer.Option(
            "--changed-since",
            help="Show what changed since then, and why: 2026-11-01, ... Default: the midnight a week ago.",
        ),
    ] = "",
) -> None:
    """Write one self-contained HTML file: channels by model, days, campaigns, spend, paths, changes, quality.

    Nothing is loaded from a network, and there is no script in it: it can be mailed, printed and kept. Every chart has
    a sentence and a table. Needs DATABASE_URL.

    Example: attributary report html --tenant acme --from 30d --out report.html
    """
    from attributary.cli.outcome import database
    from attributary.consumers.reports.answer import PeriodError, local_micros, local_period, tenant_zone
    from attributary.consumers.reports.page import page_text
    from attributary.consumers.store.results.credit_report import ReportQuery

    changed = local_time_option(changed_since, "--changed-since") if changed_since else None
    bounds = local_time_option(since, "--from"), local_time_option(until, "--to")
    with database("attributary-report") as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        zone = tenant_zone(connection, tenant)
        try:
            period = local_period(bounds, zone)
        except PeriodError:
            raise typer.BadParameter(f"{until} must be later than --from {since}", param_hint="--to") from None
        query = ReportQuery(tenant, (model,), ("channel",), period, time.time_ns() // 1_000, currency)
        facts = _facts(connection, query, model, None if changed is None else local_micros(changed, zone))
    text = page_text(facts)
    try:
        write_whole(out, text)
    except OSError as error:
        sys.stderr.write(f"attributary: {out} cannot be written: {error.strerror}; name another file with --out\n")
        raise typer.Exit(exits.OUTPUT) from None
    print(f"{out}: {len(text.encode()) / 1_000:,.0f} kB, open it in a browser")


def write_report(connection: psycopg.Connection, tenant: str, model: str, out: Path) -> None:
    """Write the page about all conversions of a tenant, and what changed within a week; nothing where there is none.

    Args:
        connection: outside of a transaction.
        tenant: the tenant.
        model: of the bars.
        out: the file.
    """
    from attributary.attribution_core.domain.time_grammar import BEGINNING, END
    from attributary.consumers.reports.page import page_text
    from attributary.consumers.reports.page_facts import read_facts
    from attributary.consumers.store.results.credit_report import ReportQuery

    now = time.time_ns() // 1_000
    query = ReportQuery(tenant, (model,), ("channel",), (BEGINNING, END), now)
    with connection.transaction():
        facts = read_facts(connection, query, model, None)
    if facts is not None:
        write_whole(out, page_text(facts))


def _facts(connection: psycopg.Connection, query: ReportQuery, model: str, moment: int | None) -> PageFacts:
    from attributary.cli.results import check_known
    from attributary.consumers.reports.page_facts import read_facts

    facts = read_facts(connection, query, model, moment)
    nothing = check_known(connection, query, {use.model for use in facts.uses} if facts else set())
    if facts is None or nothing:
        sys.stderr.write(f"attributary: {nothing or 'there is nothing to show'}; no file was written\n")
        raise typer.Exit(exits.FAILED)
    return facts


def write_whole(out: Path, text: str) -> None:
    """Write a file whole or not at all."""
    handle, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(out)
    finally:
        Path(name).unlink(missing_ok=True)  # there only where writing failed
