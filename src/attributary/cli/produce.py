"""`attributary produce FILE`: publish the rows of a file."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attributary.cli import exits
from attributary.cli.event_producer import open_producer
from attributary.cli.import_report import print_report
from attributary.cli.mapping_options import (
    ConstantOption,
    DecimalCommaOption,
    DelimiterOption,
    EncodingOption,
    FormatOption,
    GroupByOption,
    Kind,
    MapOption,
    MappingOption,
    PresetOption,
    SkipLinesOption,
    ThousandsOption,
    TimeFormatOption,
    TimezoneOption,
    WhereOption,
    command_line,
)
from attributary.cli.outcome import say
from attributary.cli.tables import safe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from attributary.producers.client import AttributaryProducer
    from attributary.producers.importer.rows import SourceFile
    from attributary.producers.importer.run import FileImport, Progress

EXIT_SOME_REJECTED = 3
_PROGRESS_ROWS = 500


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(produce)


def produce(
    file: Annotated[Path, typer.Argument(help="CSV, TSV, JSON lines (each also .gz) or an Avro container.")],
    *,
    kind: Annotated[Kind | None, typer.Option(help="What a row is. Default: touchpoint, or the preset's.")] = None,
    tenant: Annotated[str, typer.Option(help="Tenant of rows that name none. Default: ATTRIBUTION_TENANT.")] = "",
    preset: PresetOption = None,
    map_: MapOption = None,
    constant: ConstantOption = None,
    mapping: MappingOption = None,
    where: WhereOption = None,
    time_format: TimeFormatOption = None,
    timezone: TimezoneOption = None,
    decimal_comma: DecimalCommaOption = False,
    thousands: ThousandsOption = None,
    group_by: GroupByOption = None,
    sum_values: Annotated[
        bool, typer.Option("--sum-values", help="With --group-by: the value of an order is the sum over its rows.")
    ] = False,
    items_total: Annotated[
        list[str] | None, typer.Option(help="Column of what the items cost; several are added. A difference is said.")
    ] = None,
    refunded: Annotated[str | None, typer.Option(help="Column of what was refunded: the order is restated.")] = None,
    refunded_at: Annotated[str | None, typer.Option(help="Column of the time of the refund.")] = None,
    own_domain: Annotated[
        list[str] | None,
        typer.Option(help="A domain of yours; may be repeated. Views that come from it are no touch."),
    ] = None,
    region: Annotated[str | None, typer.Option(help="Country of phone numbers without a country code: DE.")] = None,
    file_format: FormatOption = None,
    delimiter: DelimiterOption = None,
    encoding: EncodingOption = None,
    skip_lines: SkipLinesOption = 0,
    skip: Annotated[int, typer.Option(min=0, help="Rows to leave out at the start: go on behind them.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Import so many rows at most.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every row, publish nothing.")] = False,
) -> None:
    """Publish the rows of a file as touchpoints, conversions or identity links.

    Columns with the name of a field of the schema are taken as they are; name the others with --map. Rows that break a
    rule go to FILE.rejects.jsonl with their line, the field and the rule, and the import carries on. A file without
    event ids gets them from its rows, so that importing it twice stores nothing twice.

    Kafka is the one that KAFKA_BOOTSTRAP_SERVERS names. Exit codes: 0 all rows are in Kafka, 3 some were rejected,
    2 the mapping or the file cannot be used, 69 Kafka is away, 78 a setting is wrong.

    Example: attributary produce orders.csv --kind conversion --tenant acme --map value=total --map order_id=number
    --map occurred_at=date --timezone Europe/Berlin --constant currency=EUR --constant conversion_type=purchase
    """
    from attributary.producers.importer.open_file import open_file
    from attributary.producers.importer.plan import PlanError, listed
    from attributary.producers.importer.rows import FileError
    from attributary.producers.importer.run import FileImport, RejectsFile

    options = command_line(
        map_, kind=kind, preset=preset, constant=constant, mapping=mapping, where=where, time_format=time_format,
        timezone=timezone, decimal_comma=decimal_comma, thousands=thousands, group_by=group_by, sum_values=sum_values,
        items_total=items_total, refunded=refunded, refunded_at=refunded_at, own_domains=own_domain,
        delimiter=delimiter, encoding=encoding, skip_lines=skip_lines,
    )  # fmt: skip
    with ExitStack() as opened:
        try:
            source, plan, mapper, document = open_file(file, options, file_format)
        except (PlanError, FileError) as error:
            say(str(error))
            raise typer.Exit(exits.USAGE) from None
        opened.callback(source.close)
        chosen = _tenant(tenant or str(document.get("tenant", "")))
        if not chosen and source.columns is not None and "tenant_id" not in {*mapper.given_fields(), *plan.constants}:
            say("no tenant: name it with --tenant NAME, or set ATTRIBUTION_TENANT")
            raise typer.Exit(exits.USAGE)
        if unused := mapper.unused_columns():
            typer.echo(f"columns that are not used: {safe(listed(unused))}", err=True)
        if mapper.reads_referrers and not plan.own_domains:
            typer.echo("no --own-domain: only referrers of the landing page's own domain count as internal", err=True)
        producer = _open_producer(chosen, region or document.get("region"), dry_run=dry_run)
        rejects = opened.enter_context(
            RejectsFile(file.with_name(file.name + ".rejects.jsonl"), append=skip > 0, source=file.name)
        )
        show = opened.enter_context(_progress(source, file.name))
        job = FileImport(mapper, plan.kind, producer, rejects, show)
        status = _run(job, source, producer, file.name, skip=skip, limit=limit)
    print_report(job, file, rejects.path, dry_run=dry_run, key_column=plan.group_by)
    raise typer.Exit(status or (EXIT_SOME_REJECTED if job.progress.rejected else 0))


def _tenant(given: str) -> str:
    """Return the tenant that an option, a mapping file or else the setting names; empty where none does."""
    from attributary.cli.tenant_option import usual_tenant
    from attributary.schemas.limits import is_tenant

    if given and not is_tenant(given):
        say("tenant: must be 1 to 64 characters of a-z, 0-9, dot, dash and underscore")
        raise typer.Exit(exits.USAGE)
    return usual_tenant(given)


def _open_producer(tenant: str, region: str | None, *, dry_run: bool) -> AttributaryProducer:
    from attributary.consumers.adapters.policy_settings import IdentitySettings
    from attributary.consumers.runtime.errors import ConfigError
    from attributary.consumers.runtime.settings import load
    from attributary.producers.client import AttributaryProducer
    from attributary.producers.config import ProducerConfig
    from attributary.producers.memory_transport import CheckOnly

    try:
        identities = load(IdentitySettings).rules()
    except ConfigError as error:
        say(str(error))
        raise typer.Exit(exits.CONFIG) from None
    config = ProducerConfig(
        source="attributary-produce", default_tenant=tenant, default_region=region, identities=identities
    )
    if dry_run:
        return AttributaryProducer(config, transport=CheckOnly())

    return open_producer(config)


def _run(
    job: FileImport, source: SourceFile, producer: AttributaryProducer, name: str, *, skip: int, limit: int | None
) -> int:
    """Run the import; return the exit status, 0 when it came to its end."""
    from attributary.producers.errors import ProducerError
    from attributary.producers.importer.rows import FileError

    try:
        with producer:
            job.run(source.rows(), skip=skip, limit=limit)
    except KeyboardInterrupt:
        say(f"stopped; go on with --skip {job.progress.resume_at}")
        return exits.INTERRUPTED
    except FileError as error:
        named = "" if str(error).startswith(name) else f"{name}: "
        say(f"{named}{error}; go on behind it with --skip {job.progress.resume_at}")
        return exits.USAGE
    except ProducerError as error:
        say(f"{error}; go on with --skip {job.progress.resume_at}")
        return exits.DEPENDENCY_DOWN
    return 0


@contextmanager
def _progress(source: SourceFile, name: str) -> Iterator[Callable[[Progress], None] | None]:
    """Show a bar by bytes read; silent where the output is not a terminal."""
    from rich import progress as bars
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (
        bars.TextColumn(name),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TextColumn("{task.fields[rows]}"),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=console) as bar:
        task = bar.add_task(name, total=source.size, rows="")

        shown = 0

        def show(progress: Progress) -> None:
            nonlocal shown
            if progress.rows - shown >= _PROGRESS_ROWS:  # an order may have several rows
                shown = progress.rows
                text = f"{progress.rows:,} rows, {progress.rejected:,} rejected"
                bar.update(task, completed=source.position(), rows=text)

        yield show
        bar.update(task, completed=source.position())
