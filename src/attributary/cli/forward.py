"""`attributary forwarder`: the process; `attributary forward`: dry runs and questions to the ledger."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from attributary import __version__
from attributary.cli.command_line import load_plainly
from attributary.cli.forward_map import map_file
from attributary.cli.mapping_options import (
    ConstantOption,
    DecimalCommaOption,
    DelimiterOption,
    EncodingOption,
    GroupByOption,
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
from attributary.cli.tenant_option import AnyTenant, RowTenant
from attributary.cli.times import time_option

if TYPE_CHECKING:
    from attributary.consumers.store.deliveries.delivery import Delivery, ReceivedRequest
    from attributary.consumers.store.deliveries.ledger import PostgresLedger

Name = Literal[
    "meta", "ga4", "tiktok", "linkedin", "x", "reddit", "pinterest", "snap", "google", "microsoft", "bingads"
]
_ONE_OF = "meta, ga4, tiktok, linkedin, x, reddit, pinterest, snap, google, microsoft or bingads"
State = Literal["pending", "held", "uncertain", "rejected", "expired", "skipped"]

_NOT_FOUND = 1
_USAGE = 2
_SOME_REFUSED = 3


def register(app: typer.Typer) -> None:
    """Add `forwarder` and the group `forward`."""
    app.command("forwarder", rich_help_panel="Processes")(_forwarder)
    group = typer.Typer(invoke_without_command=True)
    group.callback()(_dry_run)
    group.command("status")(_status)
    group.command("retry")(_retry)
    group.command("explain")(_explain)
    group.command("prune")(_prune)
    group.command("map")(map_file)
    app.add_typer(
        group, name="forward", short_help="Deliveries to destinations: dry run, map, status, explain, retry, prune."
    )


def _forwarder(
    name: Annotated[Name | None, typer.Argument(help=f"{_ONE_OF}.", metavar="DESTINATION")] = None,
    destination: Annotated[Name | None, typer.Option(help=f"{_ONE_OF}; the same as the argument.")] = None,
) -> None:
    """Forward conversions to one destination, until SIGTERM. One process (and consumer group) a destination.

    Needs KAFKA_BOOTSTRAP_SERVERS, DATABASE_URL and the destination's credentials; without credentials the destination
    is off: it says so and ends. All settings: docs/reference/settings.md.

    Example: META_PIXEL_ID=123 META_ACCESS_TOKEN_FILE=/run/secrets/meta attributary forwarder --destination meta
    """
    chosen = destination or name
    if chosen is None or (name and destination and name != destination):
        raise typer.BadParameter(f"say once where to: {_ONE_OF}", param_hint="--destination")
    load_plainly("structlog", "httpx")
    from attributary.consumers.forwarder.process import main

    raise typer.Exit(main(chosen, __version__))


def _dry_run(
    context: typer.Context,
    dry_run: Annotated[Name | None, typer.Option(help=f"Show the requests for this destination: {_ONE_OF}.")] = None,
    file: Annotated[
        Path | None, typer.Option("--input", help="Conversions as `attributary produce` takes them.")
    ] = None,
    tenant: RowTenant = "",
    at: Annotated[str, typer.Option(help="The time now: 2026-11-01, 3d, ... (docs/reference/times.md).")] = "now",
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
    delimiter: DelimiterOption = None,
    encoding: EncodingOption = None,
    skip_lines: SkipLinesOption = 0,
) -> None:
    """Print the exact body of every request that would be sent, one JSON a line; no network, no credentials needed.

    What would not be sent goes to standard error with its reason; exit code 3 when there is any. The file holds
    conversions as `attributary produce` takes them, with the same options: JSON lines, CSV or Avro.

    Example: attributary forward --dry-run meta --input conversions.jsonl
    """
    if context.invoked_subcommand is not None:
        return
    if dry_run is None or file is None:
        typer.echo(context.get_help())
        raise typer.Exit(_USAGE)
    from attributary.cli.conversion_file import read_conversions
    from attributary.cli.outcome import exit_codes
    from attributary.consumers.destinations.catalog import read_setup
    from attributary.consumers.destinations.dry_run import DryRun

    options = command_line(
        map_, preset=preset, constant=constant, mapping=mapping, where=where, time_format=time_format,
        timezone=timezone, decimal_comma=decimal_comma, thousands=thousands, group_by=group_by, delimiter=delimiter,
        encoding=encoding, skip_lines=skip_lines,
    )  # fmt: skip
    with exit_codes():
        setup = read_setup(dry_run, warns=False)
        now = time_option(at, "--at")
        run = DryRun(setup.destination, setup.shared.consent_unknown, now, setup.credentials, setup.properties)
        broken: list[str] = []
        for body in run.bodies(read_conversions(file, options, broken, tenant)):
            print(body.decode())
    for line in broken:
        typer.echo(line, err=True)
    for event_id, refused in run.refusals:
        field = f" ({refused.field})" if refused.field else ""
        typer.echo(f"{event_id}: {refused.state.value}: {refused.reason}{field}", err=True)
    for event_id, remark in run.remarks:
        typer.echo(f"{event_id}: sent, but {remark}", err=True)
    if run.refusals or broken:
        raise typer.Exit(_SOME_REFUSED)


@contextmanager
def _ledger() -> Iterator[PostgresLedger]:
    from attributary.cli.outcome import exit_codes
    from attributary.consumers.forwarder.process import open_ledger

    with exit_codes():
        ledger = open_ledger("attributary-forward")
        try:
            yield ledger
        finally:
            ledger.close()


def _status(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Count deliveries by destination, state and reason, with the age of the oldest.

    Example: DATABASE_URL=postgresql://localhost/attribution attributary forward status
    """
    from attributary.consumers.maintenance.status.report import duration

    with _ledger() as ledger:
        counts = [count for count in ledger.counts() if not count.destination.endswith(".secret")]
        verdicts, stopped = ledger.verdicts(), ledger.stopped_names()
    now = time.time_ns() // 1_000
    if not counts and not as_json:
        print("the ledger is empty")
    for count in counts:
        hours = (now - count.oldest_at) / 3.6e9
        if as_json:
            print(json.dumps(count._asdict() | {"oldest_hours": round(hours, 2)}))
            continue
        reason = f"  {count.reason}" if count.reason else ""
        oldest = f"oldest {duration(hours * 3_600):<9}"
        print(f"{count.destination:<12} {count.state.value:<10} {count.deliveries:>10,}  {oldest}{reason}".rstrip())
    for name in () if as_json else stopped:
        since = f"for {duration((now - name.stopped_at) / 1e6)}"
        what = f"event name {name.event_name} of {name.tenant_id}"
        print(f"{name.destination:<12} {'stopped':<10} {what}, {since}: {name.reason}")
    for destination, verdict, requests, events, received_at in () if as_json else verdicts:
        oldest = f"oldest {duration((now - received_at) / 1e6):<9}"
        print(f"{destination:<12} {'verdict':<10} {events:>10,}  {oldest}  {verdict.value}, {requests:,} requests")


def _explain(
    event_id: Annotated[str, typer.Argument(help="The event.")],
    tenant: AnyTenant = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for each destination.")] = False,
) -> None:
    """Tell what became of an event at every destination, and what can be done. Exit 1 when it is not in the ledger.

    Example: attributary forward explain order-1001
    """
    with _ledger() as ledger:
        found = ledger.find(event_id, tenant_id=tenant)
        requests = ledger.requests_of([row for row in found if row.trace_id])
    if not found:
        say(f"{event_id}: not in the ledger: not forwarded yet, or its tenant has no destination")
        raise typer.Exit(_NOT_FOUND)
    for row in found:
        request = requests.get(row.key)
        print(json.dumps(_document(row, request)) if as_json else "\n".join(_explained(row, request)))


def _document(row: Delivery, request: ReceivedRequest | None) -> dict[str, Any]:
    """Return a delivery for JSON, with the later verdict on its request; times in microseconds UTC."""
    names = (
        "reason",
        "occurred_at",
        "match_keys",
        "in_flight",
        "attempts",
        "first_sent_at",
        "request_hash",
        "event_name",
    )
    rest = {name: getattr(row, name) for name in (*names, "response_code", "trace_id")}
    verdict = None if request is None else {**request._asdict(), "verdict": request.verdict.value}
    return {**row.key._asdict(), "state": row.state.value, "source": row.source._asdict(), **rest, "request": verdict}


def _verdict_text(request: ReceivedRequest) -> str:
    """Say what the destination says of the request that carried an event."""
    from datetime import UTC, datetime

    from attributary.consumers.store.deliveries.delivery import Verdict

    if request.verdict is Verdict.PENDING:
        asks = datetime.fromtimestamp(request.ask_at / 1e6, UTC).isoformat(timespec="seconds")
        return f"received with {request.events} events; the verdict comes later, asked again at {asks}"
    if request.verdict is Verdict.ACCEPTED:
        return f"all {request.events} events of the request were accepted"
    if request.verdict is Verdict.UNKNOWN:
        return f"the destination never told what became of the request of {request.events} events"
    reasons = ", ".join(f"{reason} {number}" for reason, number in sorted(request.refused.items())) or "no reason given"
    if request.verdict is Verdict.REFUSED:
        return f"all {request.events} events of the request were refused later: {reasons}"
    number = sum(request.refused.values())
    return f"{number} of the request's {request.events} events were refused later: {reasons}; it does not say which"


def _explained(row: Delivery, request: ReceivedRequest | None) -> Iterator[str]:
    from datetime import UTC, datetime

    from attributary.consumers.store.deliveries.delivery import DeliveryState

    yield f"{row.key.tenant_id}  {row.key.destination}  {row.key.event_id}: {row.state.value}"
    if row.reason:
        yield f"  because      {row.reason}"
    yield f"  event time   {datetime.fromtimestamp(row.occurred_at / 1e6, UTC).isoformat()}"
    yield f"  in Kafka     {row.source.topic}[{row.source.partition}]@{row.source.offset}"
    yield f"  attempts     {row.attempts}{', one without an answer' if row.in_flight else ''}"
    for name, value in (
        ("match keys", ", ".join(row.match_keys)),
        ("last answer", row.response_code),
        ("trace id", row.trace_id),
        ("request", row.request_hash),
        ("verdict", _verdict_text(request) if request else None),
        ("event name", row.event_name),
    ):
        if value:
            yield f"  {name:<12} {value}"
    advice = {
        DeliveryState.PENDING: "waits for its destination and goes by itself; `attributary forward retry` tries it now",
        DeliveryState.HELD: "its event name is not taken: correct the setting, or `attributary destinations resume`",
        DeliveryState.REJECTED: "in the dead-letter topic; after a fix, `attributary forward retry` sends it again",
        DeliveryState.UNCERTAIN: "perhaps counted; `attributary forward retry` sends it again and may count it twice",
    }
    if text := advice.get(row.state):
        yield f"  {text}"


def _prune(
    days: Annotated[
        int, typer.Option(min=63, max=36_500, help="Keep events of so many days; 62 is Meta's longest age limit.")
    ] = 90,
) -> None:
    """Delete settled deliveries of old events from the ledger, in small steps; pending ones stay.

    Example: attributary forward prune --days 90
    """
    total, before = 0, time.time_ns() // 1_000 - days * 86_400_000_000
    with _ledger() as ledger:
        while deleted := ledger.prune(before):
            total += deleted
    print(f"deleted {total:,} deliveries of events older than {days} days")


def _retry(
    event_id: Annotated[str | None, typer.Argument(help="One event; without it, all in a state.")] = None,
    destination: Annotated[Name | None, typer.Option(help=f"{_ONE_OF}; needed without an event.")] = None,
    state: Annotated[State, typer.Option(help="Which deliveries, without an event.")] = "pending",
    tenant: AnyTenant = None,
    limit: Annotated[int, typer.Option(min=1, help="So many at most.")] = 10_000,
) -> None:
    """Send events again that are not sent: reads them from Kafka, where the ledger says that they are.

    For rejected events after a fix, and uncertain ones that you want sent at the risk of counting twice. Pending ones
    go by themselves. What is sent is never sent again, what cannot be sent now stays as it is. Stop the forwarder of
    the destination first, or be sure that it does not work on the same events. Exit 1: the event is not in the ledger.

    Example: attributary forward retry order-1001

    Example: attributary forward retry --destination meta --state pending --tenant acme
    """
    if event_id is None and destination is None:
        raise typer.BadParameter("say which: an event, or --destination", param_hint="EVENT_ID")
    from attributary.consumers.destinations.catalog import NAMES
    from attributary.consumers.store.deliveries.delivery import DeliveryState

    with _ledger() as ledger:
        if event_id is not None:
            rows = [row for row in ledger.find(event_id, tenant_id=tenant) if row.source.topic]
        else:
            rows = [
                row
                for row in ledger.open_deliveries(destination or "", DeliveryState(state), limit=limit)
                if tenant in {None, row.key.tenant_id}
            ]
        wanted = {row.key.destination.partition(":")[0] for row in rows} & (
            {destination} if destination else set(NAMES)
        )
        if not rows and event_id is not None:
            say(f"{event_id}: not in the ledger: not forwarded yet, or its tenant has no destination")
            raise typer.Exit(_NOT_FOUND)
        if not wanted:
            print("nothing to send again")
        for name in sorted(wanted):
            _retry_one(ledger, name, [row for row in rows if row.key.destination.partition(":")[0] == name])


def _keep_logs_quiet() -> None:
    """Leave out the log lines of a stage: a command says in a sentence what they say."""
    import logging

    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def _retry_one(ledger: PostgresLedger, name: str, rows: list[Delivery]) -> None:
    from attributary.cli.outcome import kafka_settings
    from attributary.consumers.destinations.catalog import CATALOG, read_setup
    from attributary.consumers.forwarder.process import build_stage, open_erased
    from attributary.consumers.forwarder.record_reader import KafkaRecordReader
    from attributary.consumers.forwarder.redelivery import again, publish_letters
    from attributary.consumers.runtime.errors import ConfigError

    _keep_logs_quiet()
    kafka = kafka_settings()
    reader = KafkaRecordReader(kafka)
    stage = build_stage(read_setup(name), ledger, reader, erased=open_erased("attributary-forward-retry"))
    try:
        result = again(rows, stage, reader, lambda letters: publish_letters(kafka, letters))
    finally:
        stage.close()
    states: dict[str, int] = {}
    for row in rows:
        for now in ledger.find(row.key.event_id, tenant_id=row.key.tenant_id):
            if now.key == row.key:
                states[now.state.value] = states.get(now.state.value, 0) + 1
    summary = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    print(f"{name}: {result.tried} tried; now {summary}")
    for event_id in result.gone:
        typer.echo(f"{event_id}: not in Kafka any more", err=True)
    if result.without_account:
        raise ConfigError(
            CATALOG[name].variables,
            f"must name the account of {result.without_account:,} of these events, or FORWARD_CREDENTIALS_FILE must; "
            "they were left as they are",
        )
