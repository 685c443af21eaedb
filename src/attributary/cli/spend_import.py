"""`attributary spend import`: a platform's report into Postgres in one transaction, or onto the topic of spend.

Contract: both ways leave the same revisions, since the spender stores what is published by the same code.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from attributary.cli import exits
from attributary.cli.mapping_options import DecimalCommaOption, DelimiterOption, EncodingOption, FormatOption
from attributary.cli.tables import plural
from attributary.cli.tenant_option import Tenant
from attributary.schemas.limits import AHEAD_MICROS, EARLIEST_MICROS

if TYPE_CHECKING:
    from attributary.consumers.spend.file_rows import SpendFile
    from attributary.consumers.store.spend.slices import Imported, Slice

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
    reported_at: Annotated[
        str, typer.Option(help="When the platform made the report: the newer of two counts. docs/reference/times.md")
    ] = "now",
    publish: Annotated[
        bool, typer.Option("--publish", help="Put it on the topic attribution.spend.v1; the spender stores it.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check everything, store nothing.")] = False,
) -> None:
    """Store what ads cost, from a report of an ad platform.

    A newer report of the same account, day and level replaces what it names; every revision is kept. Rows of one
    campaign and day are added up. Import several levels if you have them: one of them counts. Nothing is fetched, and
    nothing is sent to a platform. Needs DATABASE_URL; with --publish KAFKA_BOOTSTRAP_SERVERS instead.

    Exit codes: 0 all rows are stored or published, 3 some were rejected (with --complete nothing is stored then), 2 the
    file or the mapping cannot be used.

    Example: attributary spend import google.csv --mapping google --tenant acme --complete

    Example: attributary spend import ads.csv --mapping fivetran --currency EUR --tenant acme
    """
    from attributary.cli.outcome import say
    from attributary.cli.spend_files import open_report
    from attributary.cli.times import time_option
    from attributary.consumers.spend.file_rows import read_spend
    from attributary.consumers.spend.mapping import read_mapping
    from attributary.producers.importer.plan import PlanError
    from attributary.producers.importer.rows import FileError
    from attributary.producers.importer.run import RejectsFile

    options = {
        "map": map_, "platform": platform, "account": account, "level": level, "currency": currency,
        "time_zone": time_zone, "tax": tax, "decimal_comma": decimal_comma, "thousands": thousands,
        "delimiter": delimiter, "encoding": encoding, "skip_lines": skip_lines, "day_formats": day_format,
    }  # fmt: skip
    reported_at_us = _moment(time_option(reported_at, "--reported-at"))
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
    stored, sent = None, 0
    if may_store:
        slices = list(found.as_slices(report_id or file.name, reported_at_us, is_complete=complete))
        if publish:
            sent = _publish(tenant, slices)
        else:
            stored = _store(tenant, slices, report_id or file.name, found.rows)
    _print(found, stored, file, rejects, is_complete=complete, dry_run=dry_run)
    if sent:
        typer.echo(f"published: {plural(sent, 'record')}, one an account's day; the spender stores them")
    raise typer.Exit(EXIT_SOME_REJECTED if found.rejected else 0)


def _moment(micros: int) -> int:
    """Return when a report was made; ``now`` and ``end`` are now, microseconds UTC."""
    from attributary.attribution_core.domain.time_grammar import END

    now = time.time_ns() // 1_000
    if micros != END and not EARLIEST_MICROS <= micros <= now + AHEAD_MICROS:
        raise typer.BadParameter("must be between 2000 and one day from now", param_hint="--reported-at")
    return now if micros == END else micros


def _store(tenant: str, slices: Sequence[Slice], name: str, rows: int) -> Imported:
    from attributary.cli.outcome import database
    from attributary.consumers.store.audit import note_action
    from attributary.consumers.store.spend.slices import store_slices

    with database("attributary-spend") as connection:
        stored = store_slices(connection, tenant, slices)
        note_action(connection, tenant, "spend.imported", name, {**stored._asdict(), "rows": rows})
    return stored


def _publish(tenant: str, slices: Sequence[Slice]) -> int:
    """Put slices on the topic and wait for the brokers; return how many records they were.

    A slice that lacks nothing is one record, since what a record lacks becomes 0: it has a bound. Others are divided.

    Raises:
        typer.Exit: 2 for a complete slice of too many rows, before anything is published; 69 or 78 for the brokers.
    """
    from attributary.cli.event_producer import open_producer
    from attributary.cli.outcome import exit_codes, say
    from attributary.consumers.spend.spend_record import record_of, within_rows
    from attributary.producers.config import ProducerConfig
    from attributary.producers.errors import ProducerError

    try:
        records = [record_of(tenant, part) for piece in slices for part in within_rows(piece)]
    except ValueError as error:
        say(f"{error}. Import it without --publish")
        raise typer.Exit(exits.USAGE) from None
    producer = open_producer(ProducerConfig(source="attributary-spend-import"), ("spend",))
    try:
        with exit_codes(), producer:
            for record in records:
                producer.publish_mapping("spend", record)
    except ProducerError as error:
        say(f"not everything was published: {error}. Publish the same file again: what is there stays as it is")
        raise typer.Exit(exits.DEPENDENCY_DOWN) from None
    return len(records)


def _print(
    found: SpendFile, stored: Imported | None, file: Path, rejects: Path, *, is_complete: bool, dry_run: bool
) -> None:
    from attributary.cli.tables import amount, safe

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
        _print_stored(stored, is_complete=is_complete)
    elif dry_run:
        typer.echo("nothing is stored: --dry-run")
    if found.rejected:
        _print_rejected(found, rejects, is_complete=is_complete)


def _print_stored(stored: Imported, *, is_complete: bool) -> None:
    typer.echo(
        f"stored: {stored.new:,} new, {stored.changed:,} changed, {stored.unchanged:,} as before"
        + (f", {stored.removed:,} no longer there: they cost nothing now" if is_complete else "")
    )
    if stored.late:
        typer.echo(f"  {plural(stored.late, 'row')} left out: a report that was made later is stored already")


def _print_rejected(found: SpendFile, rejects: Path, *, is_complete: bool) -> None:
    from attributary.cli.tables import safe

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
