"""`attributary produce FILE`: publish the rows of a file."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from attributary.cli import exits
from attributary.cli.import_report import print_report
from attributary.cli.publishing import open_producer
from attributary.cli.tables import safe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from attributary.producers.client import AttributaryProducer
    from attributary.producers.importer.rows import SourceFile
    from attributary.producers.importer.run import FileImport, Progress

EXIT_SOME_REJECTED = 3
_PROGRESS_ROWS = 500

Kind = Literal["touchpoint", "conversion", "identity_link"]
Format = Literal["csv", "tsv", "jsonl", "avro"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(produce)


def produce(
    file: Annotated[Path, typer.Argument(help="CSV, TSV, JSON lines (each also .gz) or an Avro container.")],
    *,
    kind: Annotated[Kind | None, typer.Option(help="What a row is. Default: touchpoint.")] = None,
    tenant: Annotated[str, typer.Option(help="Tenant of rows that name none.")] = "",
    map_: Annotated[
        list[str] | None,
        typer.Option("--map", help="our_field=their_column; may be repeated. See docs/how-to/publish.md."),
    ] = None,
    constant: Annotated[
        list[str] | None, typer.Option(help="our_field=text for rows that have no value; may be repeated.")
    ] = None,
    mapping: Annotated[Path | None, typer.Option(help="YAML file with map, constant, time_format, ...")] = None,
    time_format: Annotated[
        str | None, typer.Option(help="iso, s, ms, us (since 1970), or a pattern: '%d.%m.%Y %H:%M'. Default: iso.")
    ] = None,
    timezone: Annotated[str | None, typer.Option(help="Zone of times that name none, e.g. Europe/Berlin.")] = None,
    decimal_comma: Annotated[bool, typer.Option("--decimal-comma", help="Amounts are written 19,99.")] = False,
    own_domain: Annotated[
        list[str] | None,
        typer.Option(help="A domain of yours; may be repeated. Views that come from it are no touch."),
    ] = None,
    group_by: Annotated[
        str | None, typer.Option(help="Column of the order number: adjacent rows with one number are one conversion.")
    ] = None,
    sum_values: Annotated[
        bool, typer.Option("--sum-values", help="With --group-by: the value of an order is the sum over its rows.")
    ] = False,
    where: Annotated[
        list[str] | None, typer.Option(help="COLUMN=VALUE or COLUMN!=VALUE: rows that count. May be repeated.")
    ] = None,
    refunded: Annotated[str | None, typer.Option(help="Column of what was refunded: the order is restated.")] = None,
    refunded_at: Annotated[str | None, typer.Option(help="Column of the time of the refund.")] = None,
    thousands: Annotated[
        str | None, typer.Option(help="Separator of thousands in amounts: a comma, a point, an apostrophe, or: space.")
    ] = None,
    items_total: Annotated[
        list[str] | None, typer.Option(help="Column of what the items cost; several are added. A difference is said.")
    ] = None,
    region: Annotated[str | None, typer.Option(help="Country of phone numbers without a country code: DE.")] = None,
    file_format: Annotated[Format | None, typer.Option("--format", help="Default: by the file's name.")] = None,
    delimiter: Annotated[str | None, typer.Option(help="Between the cells of CSV. Default: comma.")] = None,
    encoding: Annotated[
        str | None,
        typer.Option(help="Of CSV and JSON lines, e.g. cp1252. Default: by its byte order mark, else UTF-8."),
    ] = None,
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
    from attributary.producers.importer.mapping import RowMapper
    from attributary.producers.importer.plan import PlanError, plan_from, read_mapping_file
    from attributary.producers.importer.rows import FileError, SourceFile
    from attributary.producers.importer.run import FileImport, RejectsFile

    command_line = {
        "kind": kind,
        "map": map_,
        "constant": constant,
        "time_format": time_format,
        "timezone": timezone,
        "decimal_comma": decimal_comma,
        "own_domains": own_domain,
        "group_by": group_by,
        "sum_values": sum_values,
        "items_total": items_total,
        "where": where,
        "refunded": refunded,
        "refunded_at": refunded_at,
        "thousands": thousands,
    }
    with ExitStack() as opened:
        try:
            document = read_mapping_file(mapping) if mapping else {}
            plan = plan_from(document, command_line)
            source = opened.enter_context(SourceFile(file, file_format, delimiter, encoding))
            mapper = RowMapper(plan, source.columns)
        except (PlanError, FileError) as error:
            typer.echo(safe(str(error)), err=True)
            raise typer.Exit(exits.USAGE) from None
        if unused := mapper.unused_columns():
            typer.echo(f"columns that are not used: {', '.join(map(safe, unused))}", err=True)
        if mapper.reads_referrers and not plan.own_domains:
            typer.echo("no --own-domain: only referrers of the landing page's own domain count as internal", err=True)
        producer = _open_producer(
            tenant or str(document.get("tenant", "")), region or document.get("region"), dry_run=dry_run
        )
        rejects = opened.enter_context(
            RejectsFile(file.with_name(file.name + ".rejects.jsonl"), append=skip > 0, source=file.name)
        )
        show = opened.enter_context(_progress(source, file.name))
        job = FileImport(mapper, plan.kind, producer, rejects, show)
        status = _run(job, source, producer, skip=skip, limit=limit)
    print_report(job, file, rejects.path, dry_run=dry_run, key_column=plan.group_by)
    raise typer.Exit(status or (EXIT_SOME_REJECTED if job.progress.rejected else 0))


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
        typer.echo(str(error), err=True)
        raise typer.Exit(exits.CONFIG) from None
    config = ProducerConfig(
        source="attributary-produce", default_tenant=tenant, default_region=region, identities=identities
    )
    if dry_run:
        return AttributaryProducer(config, transport=CheckOnly())

    return open_producer(config)


def _run(job: FileImport, source: SourceFile, producer: AttributaryProducer, *, skip: int, limit: int | None) -> int:
    """Run the import; return the exit status, 0 when it came to its end."""
    from attributary.producers.errors import ProducerError
    from attributary.producers.importer.rows import FileError

    try:
        with producer:
            job.run(source.rows(), skip=skip, limit=limit)
    except KeyboardInterrupt:
        typer.echo(f"stopped; go on with --skip {job.progress.resume_at}", err=True)
        return exits.INTERRUPTED
    except FileError as error:
        typer.echo(safe(str(error)), err=True)
        return exits.USAGE
    except ProducerError as error:
        typer.echo(f"{error}; go on with --skip {job.progress.resume_at}", err=True)
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

        def show(progress: Progress) -> None:
            if progress.rows % _PROGRESS_ROWS == 0:
                text = f"{progress.rows:,} rows, {progress.rejected:,} rejected"
                bar.update(task, completed=source.position(), rows=text)

        yield show
        bar.update(task, completed=source.position())
