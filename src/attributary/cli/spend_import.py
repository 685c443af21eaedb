"""`attributary spend import`: a platform's report into Postgres, in one transaction."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from attributary.cli import exits
from attributary.cli.mapping_options import DecimalCommaOption, DelimiterOption, EncodingOption, FormatOption
from attributary.cli.tenant_option import Tenant

if TYPE_CHECKING:
    from attributary.consumers.spend.file_rows import SpendFile
    from attributary.consumers.store.spend.slices import Stored

EXIT_SOME_REJECTED = 3
_SHOWN_REASONS = 10


def import_spend(
    file: Annotated[Path, typer.Argument(help="CSV, TSV, JSON lines (each also .gz), Avro or Parquet.")],
    *,
    mapping: Annotated[
        str,
        typer.Option(help="google, meta, tiktok, linkedin, microsoft, fivetran, airbyte, or a .yaml file of yours."),
    ],
    tenant: Tenant = "",
    platform: Annotated[
        str | None, typer.Option(help="Of rows that name none, as touchpoints have it: google, meta, ...")
    ] = None,
    account: Annotated[str | None, typer.Option(help="Id of the ad account, of rows that name none.")] = None,
    level: Annotated[
        Literal["account", "campaign", "ad_set", "ad"] | None,
        typer.Option(help="What a row is of. Default: the finest of which the file has an id."),
    ] = None,
    currency: Annotated[str | None, typer.Option(help="ISO 4217, of rows that name none. Never guessed.")] = None,
    time_zone: Annotated[
        str | None,
        typer.Option("--timezone", help="Zone of the account, e.g. Europe/Berlin, where the file names none."),
    ] = None,
    tax: Annotated[
        str | None, typer.Option(help="excluded (the default), or included:19 where amounts include 19 % tax.")
    ] = None,
    complete: Annotated[
        bool,
        typer.Option(
            "--complete", help="The report has all of each account's day that it names: what it lacks cost nothing."
        ),
    ] = False,
    map_: Annotated[
        list[str] | None,
        typer.Option("--map", help="our_field=their_column; may be repeated. See docs/how-to/spend.md."),
    ] = None,
    day_format: Annotated[
        list[str] | None, typer.Option(help="iso, or a pattern such as '%d.%m.%Y'; may be repeated.")
    ] = None,
    decimal_comma: DecimalCommaOption = False,
    thousands: Annotated[str | None, typer.Option(help="Separator of thousands: a comma, a point, or: space.")] = None,
    file_format: FormatOption = None,
    delimiter: DelimiterOption = None,
    encoding: EncodingOption = None,
    skip_lines: Annotated[int, typer.Option(min=0, help="Lines above the header of CSV to leave out.")] = 0,
    report_id: Annotated[str | None, typer.Option(help="Name of the report. Default: the file's name.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check everything, store nothing.")] = False,
) -> None:
    """Store what ads cost, from a report of an ad platform.

    A later import of the same account, day and level replaces what it names; every revision is kept. Rows of one
    campaign and day are added up. Import several levels if you have them: one of them counts. Nothing is fetched and
    nothing is sent. Needs DATABASE_URL.

    Exit codes: 0 all rows are stored, 3 some were rejected (with --complete nothing is stored then), 2 the file or the
    mapping cannot be used.

    Example: attributary spend import google.csv --mapping google --tenant acme --complete

    Example: attributary spend import ads.csv --mapping fivetran --currency EUR --tenant acme
    """
    from attributary.cli.outcome import database, say
    from attributary.cli.spend_files import open_report
    from attributary.consumers.spend.file_rows import read_spend
    from attributary.consumers.spend.mapping import read_mapping
    from attributary.consumers.store.audit import note_action
    from attributary.consumers.store.spend.slices import store_slices
    from attributary.producers.importer.plan import PlanError
    from attributary.producers.importer.rows import FileError
    from attributary.producers.importer.run import RejectsFile

    options = {
        "map": map_, "platform": platform, "account": account, "level": level, "currency": currency,
        "time_zone": time_zone, "tax": tax, "decimal_comma": decimal_comma, "thousands": thousands,
        "delimiter": delimiter, "encoding": encoding, "skip_lines": skip_lines, "day_formats": day_format,
    }  # fmt: skip
    try:
        plan = read_mapping(mapping, options)
        with open_report(file, plan, file_format) as report:
            found = read_spend(report.rows, report.columns, plan, report.zone)
    except (PlanError, FileError) as error:
        say(f"{'' if str(error).startswith(file.name) else f'{file.name}: '}{error}")
        raise typer.Exit(exits.USAGE) from None
    rejects = file.with_name(file.name + ".rejects.jsonl")
    with RejectsFile(rejects, source=file.name) as written:
        for each in found.rejected:
            written.add(each.row, each.field, each.rule)
    may_store = found.slices and not dry_run and not (complete and found.rejected)
    stored = None
    if may_store:
        name = report_id or file.name
        with database("attributary-spend") as connection:
            stored = store_slices(connection, tenant, found.as_slices(is_complete=complete), name)
            note_action(connection, tenant, "spend.imported", name, {**stored._asdict(), "rows": found.rows})
    _print(found, stored, file, rejects, is_complete=complete, dry_run=dry_run)
    raise typer.Exit(EXIT_SOME_REJECTED if found.rejected else 0)


def _print(
    found: SpendFile, stored: Stored | None, file: Path, rejects: Path, *, is_complete: bool, dry_run: bool
) -> None:
    from attributary.cli.tables import amount, plural, safe

    fit = found.fitted
    if fit is None:
        typer.echo(f"{safe(file.name)} has no rows below its header", err=True)
        return
    if fit.unused:
        typer.echo(f"columns that are not used: {safe(', '.join(fit.unused[:_SHOWN_REASONS]))}", err=True)
    days = sorted({key.day for key in found.slices})
    accounts = sorted({f"{key.platform} {key.account}" for key in found.slices})
    when = f", {days[0]} to {days[-1]}" if days else ""
    typer.echo(
        f"{plural(found.rows, 'row')}, {fit.level.replace('_', ' ')} level{when}; {plural(len(accounts), 'account')}: "
        f"{safe(', '.join(accounts[:3]))}{', ...' if len(accounts) > 3 else ''}"
    )
    for currency, (net, tax) in found.sums().items():
        included = f" and {amount(tax, currency)} tax" if tax else ""
        typer.echo(f"{amount(net, currency)} without tax{included}")
    if "" in found.zones.values():
        typer.echo(
            "the account's time zone is not known: name it with --timezone, so that reports can compare", err=True
        )
    for number, text in (
        (found.merged, "added to another row of the same entity and day"),
        (found.copies, "left out: a copy of another row, cell for cell"),
        (found.totals, "left out: a total"),
    ):
        if number:
            typer.echo(f"  {plural(number, 'row')} {text}")
    if stored is not None:
        typer.echo(
            f"stored: {stored.new:,} new, {stored.changed:,} changed, {stored.unchanged:,} as before"
            + (f", {stored.removed:,} no longer there: they cost nothing now" if is_complete else "")
        )
    elif dry_run:
        typer.echo("nothing is stored: --dry-run")
    if found.rejected:
        _print_rejected(found, rejects, is_complete=is_complete)


def _print_rejected(found: SpendFile, rejects: Path, *, is_complete: bool) -> None:
    from attributary.cli.tables import plural, safe

    typer.echo(f"{plural(len(found.rejected), 'row')} rejected:")
    reasons = Counter((each.field, each.rule) for each in found.rejected)
    lines = {(each.field, each.rule): each.row.line for each in reversed(found.rejected)}
    for reason, times in reasons.most_common(_SHOWN_REASONS):
        typer.echo(f"  {times:,} x {safe(reason[0])}: {safe(reason[1])} (first: line {lines[reason]})")
    typer.echo(f"see {safe(str(rejects))}")
    if is_complete:
        typer.echo(
            "nothing is stored: a report with rejected rows is not complete. Correct them, or leave --complete out"
        )
