"""`attributary spend report`: return on spend, cost of a conversion and of a customer, with intervals."""

from __future__ import annotations

import csv
import io
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from attributary.attribution_core.domain.time_grammar import END
from attributary.cli.spend_days import days_option, tenant_zone
from attributary.cli.tenant_option import Tenant
from attributary.cli.times import SINCE_HELP, UNTIL_HELP, time_option
from attributary.consumers.reports.cells import estimate, return_label, units

if TYPE_CHECKING:
    import psycopg

    from attributary.consumers.spend.returns import ReturnQuery, ReturnRow, Returns

LEGEND = (
    "ROAS: credited net value per unit of spend. CPA: spend per conversion; CAC: per conversion of a new customer, a "
    "person's first of its type. In brackets 90 % intervals for who converts; spend is taken as exact. Attributed "
    "return says who is credited, not what would be missing without the ads."
)
CSV_COLUMNS = (
    "platform", "account", "campaign_id", "campaign", "period", "model", "currency", "spend", "net_value", "roas",
    "roas_low", "roas_high", "conversions", "cpa", "cpa_low", "cpa_high", "new_conversions", "cac", "cac_low",
    "cac_high", "claimed_conversions", "claimed_value", "note", "channel",
)  # fmt: skip


def report_query(
    connection: psycopg.Connection, tenant: str, since: str, until: str, zone: str | None, **more: Any
) -> ReturnQuery:
    """Return the query of the options of a report over spend.

    Raises:
        typer.BadParameter: an option has no meaning.
    """
    from attributary.consumers.spend.returns import ReturnQuery
    from attributary.consumers.store.tenants import fetch_tenant
    from attributary.producers.importer.plan import PlanError, parse_timezone
    from attributary.schemas.limits import MINOR_UNIT_MICROS

    try:
        parse_timezone(zone)
    except PlanError as error:
        raise typer.BadParameter(str(error), param_hint="--timezone") from None
    days = days_option(since, until, zone or tenant_zone(connection, tenant))
    currency = more.pop("currency")
    if currency is None:
        settings = fetch_tenant(connection, tenant)
        currency = None if settings is None else settings.reporting_currency
    elif currency == "each":
        currency = None
    elif currency not in MINOR_UNIT_MICROS:
        raise typer.BadParameter("must be an ISO 4217 code, such as EUR, or: each", param_hint="--currency")
    as_of = time_option(more.pop("as_of"), "--as-of")
    moment = None if as_of == END else datetime.fromtimestamp(as_of / 1e6, UTC)
    return ReturnQuery(
        tenant, days=days[:2], period_us=days.micros, zone=days.zone, currency=currency, as_of=moment, **more
    )


def report_spend(
    *,
    tenant: Tenant = "",
    by: Annotated[
        Literal["channel", "platform", "account", "campaign"],
        typer.Option(help="What a row is of. A campaign's spend has the channel of the touchpoints that point at it."),
    ] = "platform",
    per: Annotated[
        Literal["day", "week", "month"] | None, typer.Option("--per", help="Rows a day, week or month as well.")
    ] = None,
    models: Annotated[str, typer.Option("--models", "--model", help="Models, with commas: last,linear.")] = "linear",
    since: Annotated[str, typer.Option("--from", help=f"Days. {SINCE_HELP}")] = "30d",
    until: Annotated[str, typer.Option("--to", help=f"Days. {UNTIL_HELP}")] = "end",
    dating: Annotated[
        Literal["accrual", "cash"],
        typer.Option(help="Where value lies: accrual, on the day of each touchpoint; cash, on that of the order."),
    ] = "accrual",
    currency: Annotated[
        str | None,
        typer.Option(help="Convert into it. Default: the tenant's reporting currency; each: currencies apart."),
    ] = None,
    stale_days: Annotated[int, typer.Option(min=0, help="Say so where a rate is older, days.")] = 7,
    time_zone: Annotated[str | None, typer.Option("--timezone", help="Default: the tenant's.")] = None,
    conversion_type: Annotated[
        list[str] | None, typer.Option(help="Conversions of this type only; may be repeated.")
    ] = None,
    as_of: Annotated[str, typer.Option("--as-of", help="As it was known then. Default: as it is now.")] = "end",
    with_tax: Annotated[bool, typer.Option("--with-tax", help="Spend with the tax that reports included.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="Rows of a table; 0: all. CSV and JSON have all.")] = 50,
    output: Annotated[Literal["table", "csv", "json"], typer.Option("--format", help="Amounts in units.")] = "table",
) -> None:
    """Show what ads cost beside what models credit them with.

    Spend comes first: a campaign that brought nothing is in the total, with a return of 0 and a cost of "at least" so
    much. Credit that belongs to no spend is (unmatched) or (no spend). Ratios are sums over sums. Amounts are converted
    by the last known rate of their own day (attributary fx import). Needs DATABASE_URL.

    Example: attributary spend report --tenant acme --by campaign --from 2026-11-01 --currency EUR

    Example: attributary spend report --tenant acme --per week --models last,linear --format csv
    """
    from attributary.cli.outcome import database
    from attributary.cli.tables import print_json
    from attributary.consumers.spend.returns import read_returns

    names = tuple(dict.fromkeys(part.strip() for part in models.split(",") if part.strip()))
    if not names:
        raise typer.BadParameter("must name at least one", param_hint="--models")
    with database("attributary-spend", tenant=tenant) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        query = report_query(
            connection, tenant, since, until, time_zone, models=names, dating=dating, by=by, bucket=per or "",
            currency=currency, stale_days=stale_days, as_of=as_of, conversion_types=tuple(conversion_type or ()),
            is_gross=with_tax,
        )  # fmt: skip
        found = read_returns(connection, query)
    if output == "json":
        print_json(document(query, found))
    elif output == "csv":
        sys.stdout.write(csv_text(found.rows))
    else:
        print_report(query, found, limit)


def print_report(query: ReturnQuery, found: Returns, limit: int) -> None:
    """Print the table of a report, its totals, and the sentences that a reader needs."""
    from attributary.cli.block_table import wrapped
    from attributary.cli.tables import print_table, width

    places = width() or 160
    print(
        wrapped(
            f"{query.days[0]} to {query.days[1]} (not included), days of {query.zone}; value by "
            f"{'the day of the order (cash)' if query.dating == 'cash' else 'the day of the touchpoint (accrual)'}",
            places,
        )
    )
    if not found.rows:
        print(f"{query.tenant_id} has neither spend nor credit on these days: see attributary spend accounts")
        return
    print()
    rows = found.rows[:limit] if limit else found.rows
    names = ("", *(("period",) if query.bucket else ()), *(("model",) if len(query.models) > 1 else ()))
    titles = (*names, "spend", "net value", "", "ROAS", "conv.", "CPA", "new", "CAC", "note")
    numbers = tuple(range(len(names), len(names) + 2)) + tuple(range(len(names) + 3, len(names) + 8))
    print_table(titles, [_cells(query, row, return_label(row)) for row in [*rows, *found.totals]], numbers)
    if len(found.rows) > len(rows):
        print(f"and {len(found.rows) - len(rows):,} rows more: raise --limit, or take --format csv")
    print()
    for mer in found.mer:
        ratio = "none: there is no spend" if mer.ratio is None else f"{mer.ratio:,.2f}"
        print(
            wrapped(
                f"MER {mer.currency}: {ratio} = {units(mer.revenue, mer.currency)} of all net revenue / "
                f"{units(mer.spend, mer.currency)} of all spend; {mer.open_conversions:,} of {mer.conversions:,} "
                "conversions are not final yet",
                places,
            )
        )
    for note in (*found.notes, LEGEND):
        print(wrapped(note, places))


def _cells(query: ReturnQuery, row: ReturnRow, name: str) -> list[str]:
    return [
        name,
        *([row.bucket] if query.bucket else []),
        *([row.model] if len(query.models) > 1 else []),
        units(row.spend, row.currency), units(row.value, row.currency), row.currency,
        estimate(row.roas), f"{row.conversions:,.2f}", estimate(row.cpa),
        f"{row.new_conversions:,.2f}", estimate(row.cac), row.note,
    ]  # fmt: skip


def csv_text(rows: list[ReturnRow]) -> str:
    """Return one line a row, without totals; no cell is a formula to a spreadsheet."""
    from attributary.cli.tables import csv_cell

    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for row in rows:
        writer.writerow(
            [
                *map(csv_cell, (*row.key[:3], row.name, row.bucket, row.model, row.currency)),
                units(row.spend, row.currency, group=False), units(row.value, row.currency, group=False),
                *map(_number, row.roas), f"{row.conversions:.9g}", *map(_number, row.cpa),
                f"{row.new_conversions:.9g}", *map(_number, row.cac), f"{row.claimed_conversions.normalize():f}",
                units(row.claimed_value, row.currency, group=False), row.note, csv_cell(row.key.channel),
            ]
        )  # fmt: skip
    return lines.getvalue()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def document(query: ReturnQuery, found: Returns) -> dict[str, Any]:
    """Return a report for JSON; amounts in units, as exact texts."""
    return {
        "tenant": query.tenant_id, "from": str(query.days[0]), "to": str(query.days[1]), "time_zone": query.zone,
        "dating": query.dating, "by": query.by, "currency": query.currency,
        "as_of": None if query.as_of is None else query.as_of.isoformat(),
        "rows": [_entry(row) for row in found.rows],
        "totals": [
            {name: part for name, part in _entry(row).items() if not name.startswith("claimed")} for row in found.totals
        ],
        "mer": [
            {**mer._asdict(), "revenue": units(mer.revenue, mer.currency, group=False),
             "spend": units(mer.spend, mer.currency, group=False)}
            for mer in found.mer
        ],
        "notes": found.notes,
    }  # fmt: skip


def _entry(row: ReturnRow) -> dict[str, Any]:
    return {
        **row.key._asdict(), "campaign": row.name, "period": row.bucket, "model": row.model, "currency": row.currency,
        "spend": units(row.spend, row.currency, group=False), "net_value": units(row.value, row.currency, group=False),
        "roas": row.roas._asdict(), "conversions": row.conversions, "cpa": row.cpa._asdict(),
        "new_conversions": row.new_conversions, "cac": row.cac._asdict(),
        "claimed_conversions": f"{row.claimed_conversions.normalize():f}",
        "claimed_value": units(row.claimed_value, row.currency, group=False), "note": row.note,
    }  # fmt: skip
