"""`attributary results`: conversions and revenue by channel, campaign, day, ...; now, or as reported earlier."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from attributary.attribution_core.domain.time_grammar import END
from attributary.cli import exits
from attributary.cli.tenant_option import Tenant
from attributary.cli.times import LOCAL_SINCE_HELP, LOCAL_UNTIL_HELP, local_time_option

if TYPE_CHECKING:
    import psycopg

    from attributary.consumers.store.results.credit_report import ReportQuery

_SHOWN = 12


def register(app: typer.Typer) -> None:
    """Add the command `results`."""
    app.command("results")(_results)


def _results(
    *,
    tenant: Tenant = "",
    by: Annotated[
        str,
        typer.Option(
            help="One or several, with commas: channel, platform, campaign, source, medium, day, week, month, "
            "conversion_type, currency."
        ),
    ] = "channel",
    models: Annotated[
        str, typer.Option("--models", "--model", help="Models side by side, with commas: last,linear,markov.")
    ] = "linear",
    since: Annotated[str, typer.Option("--from", help=f"Conversions. {LOCAL_SINCE_HELP}")] = "beginning",
    until: Annotated[str, typer.Option("--to", help=f"Conversions. {LOCAL_UNTIL_HELP}")] = "end",
    currency: Annotated[str | None, typer.Option(help="Conversions in this currency only.")] = None,
    conversion_type: Annotated[
        list[str] | None, typer.Option(help="Conversions of this type only; may be repeated.")
    ] = None,
    as_of: Annotated[
        str, typer.Option("--as-of", help="As it was reported then: 3d, 2026-11-01, ... Default: as it is now.")
    ] = "end",
    limit: Annotated[int, typer.Option(min=0, help="Rows of a table; 0: all. CSV and JSON have all.")] = 50,
    output: Annotated[
        Literal["table", "csv", "json"], typer.Option("--format", help="json has money in micros.")
    ] = "table",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Show how many conversions and how much net revenue each model credits, with totals that add up.

    Conversions are credit: a conversion with two touchpoints counts half in each by linear. "journeys with it" counts
    conversions with at least one touchpoint of the row, which cannot be added up. What no touchpoint gets is
    (unattributed). What was erased or retired is counted in (erased) and (retired), by its day in UTC, so that no sum
    of the whole changes by it. Currencies are never added. Days, weeks and months are the tenant's, by the time of the
    conversion.

    The roll-up answers where it can: whole days as things are now, and one of channel, platform and campaign. Anything
    else is read from every result, and the last note says so.

    Every published version is kept (ATTRIBUTION_VERSIONS_KEPT_DAYS), so --as-of repeats the report of an earlier day.
    Needs DATABASE_URL.

    Example: attributary results --tenant acme --from 30d --by campaign --models last,linear,markov

    Example: attributary results --tenant acme --from 2026-11-01 --by day,channel --format csv
    """
    from attributary.cli.outcome import database
    from attributary.cli.result_tables import csv_text, document, table_text
    from attributary.cli.tables import print_json, safe, width
    from attributary.consumers.reports.answer import PeriodError, local_micros, local_period, tenant_zone
    from attributary.consumers.reports.credit_answer import read_credit
    from attributary.consumers.store.results.credit_report import DIMENSIONS, ReportQuery
    from attributary.schemas.limits import MINOR_UNIT_MICROS, NO_CURRENCY

    names, dimensions = _list(models, "--models"), _list(by, "--by")
    bounds = local_time_option(since, "--from"), local_time_option(until, "--to")
    moment = local_time_option(as_of, "--as-of")
    for name in dimensions:
        if name not in DIMENSIONS:
            raise typer.BadParameter(f"'{safe(name)}' must be one of {', '.join(DIMENSIONS)}", param_hint="--by")
    if currency is not None and currency not in MINOR_UNIT_MICROS and currency != NO_CURRENCY:
        raise typer.BadParameter(f"'{safe(currency)}' is no ISO 4217 code, such as EUR", param_hint="--currency")
    with database("attributary-results") as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        zone = tenant_zone(connection, tenant)
        try:
            period = local_period(bounds, zone)
        except PeriodError:
            raise typer.BadParameter(f"{until} must be later than --from {since}", param_hint="--to") from None
        query = ReportQuery(
            tenant, names, dimensions, period, local_micros(moment, zone), currency, tuple(conversion_type or ()), zone
        )
        report, origin = read_credit(connection, query)
        is_gone = bool(report.rows) and not report.uses  # all of it was erased or retired: no model to check
        nothing = "" if is_gone else check_known(connection, query, {use.model for use in report.uses})
    if nothing:
        sys.stderr.write(f"{nothing}\n")
    if as_json or output == "json":
        print_json(document(query, report, origin))
    elif output == "csv":
        sys.stdout.write(csv_text(query, report))
    elif not nothing:
        print(table_text(query, report, width() or 160, limit, origin))


def _list(text: str, option: str) -> tuple[str, ...]:
    """Return the names of a list, each once."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise typer.BadParameter("must name at least one", param_hint=option)
    return names


def check_known(connection: psycopg.Connection, query: ReportQuery, credited: set[str]) -> str:
    """Refuse what is not known of the tenant. Return what exists instead where nothing is to be shown, else nothing.

    Raises:
        typer.Exit: 2; tenant, model, currency or type is unknown: standard error names the known ones.
    """
    from attributary.cli.tables import plural
    from attributary.consumers.store.results.credit_report import known_models, stored_extent
    from attributary.consumers.store.tenants import UnknownTenantError, check_tenant, known_tenants

    if credited.issuperset(query.models):
        return ""
    extents = stored_extent(connection, query.tenant_id)
    if not extents:
        try:
            check_tenant(connection, query.tenant_id)
        except UnknownTenantError:
            _refuse("tenant", query.tenant_id, known_tenants(connection))
        return f"{query.tenant_id} has no results yet: see how far the stages are with attributary status"
    currencies = sorted({extent.currency for extent in extents})
    if query.currency is not None and query.currency not in currencies:
        _refuse("currency", query.currency, currencies)
    types = sorted({extent.conversion_type for extent in extents})
    for name in query.conversion_types:
        if name not in types:
            _refuse("conversion type", name, types)
    if not credited:
        models = known_models(connection, query)
        if models:
            _refuse("model", next(iter(query.models)), models)
        first, last = min(extent.first_at for extent in extents), max(extent.last_at for extent in extents)
        whole = sum(extent.conversions for extent in extents)
        then = "" if query.as_of_us == END else f" had been reported by {_moment(query.as_of_us)}"
        there = f"there {'is' if whole == 1 else 'are'} {plural(whole, 'conversion')}"
        return (
            f"no conversion of {query.tenant_id} in this period{then}; {there}, from {_moment(first)} to "
            f"{_moment(last)} UTC"
        )
    missing = [name for name in query.models if name not in credited]
    return _refuse("model", missing[0], known_models(connection, query))


def _refuse(kind: str, name: str, known: Sequence[str]) -> NoReturn:
    from attributary.cli.tables import safe

    more = f", and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    there = f"there are {', '.join(map(safe, known[:_SHOWN]))}{more}" if known else "nothing is stored"
    sys.stderr.write(f"attributary: no {kind} '{safe(name)}'; {there}\n")
    raise typer.Exit(exits.USAGE)


def _moment(micros: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(micros / 1e6, UTC).strftime("%Y-%m-%d %H:%M")
