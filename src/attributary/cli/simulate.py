"""`attributary simulate`: publish seeded traffic, or write it to a file, with the truth behind it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attributary.cli import exits
from attributary.cli.event_producer import open_producer
from attributary.cli.outcome import say
from attributary.cli.tenant_option import usual_tenant

if TYPE_CHECKING:
    from attributary.producers.simulator import Event, Traffic

_MICROS = 1_000_000
_MAX_RATE = 1e9


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(simulate)


def simulate(
    *,
    tenant: Annotated[
        str,
        typer.Option(
            help="Name of the tenant; several: NAME-1, NAME-2. Default: ATTRIBUTION_TENANT, else tenant-1.",
            callback=usual_tenant,
        ),
    ] = "",
    tenants: Annotated[int, typer.Option(help="Tenants that share the traffic evenly.")] = 1,
    touchpoints: Annotated[int, typer.Option(help="Distinct touchpoints, exactly.")] = 20_000,
    conversions: Annotated[int, typer.Option(help="Distinct conversions, exactly; corrections come on top.")] = 1_000,
    duplicates: Annotated[float, typer.Option(help="Share of events that arrive twice, 0 to 1.")] = 0.0,
    late: Annotated[float, typer.Option(help="Share of events that arrive a day or two late, 0 to 1.")] = 0.0,
    shuffle: Annotated[float, typer.Option(help="Events arrive up to so many seconds after they happened.")] = 0.0,
    rate: Annotated[float, typer.Option(help="Events a second; 0: as fast as Kafka takes them.")] = 0.0,
    seed: Annotated[int, typer.Option(help="The same seed and --now give the same bytes.")] = 0,
    days: Annotated[float, typer.Option(help="Days over which journeys end.")] = 30.0,
    people: Annotated[int | None, typer.Option(help="Persons; fewer than journeys: some come back.")] = None,
    now: Annotated[str, typer.Option(help="End of simulated time: 2026-11-01, ..., or Unix seconds.")] = "now",
    truth: Annotated[Path | None, typer.Option(help="Write the truth to this JSON file.")] = None,
    dry_run: Annotated[Path | None, typer.Option(help="Write the events to this JSONL file, publish nothing.")] = None,
) -> None:
    """Publish marketing traffic with known causes.

    Channels have true causal effects, people have devices that become known before or after they buy, orders are
    refunded, and events arrive twice, late and out of order. The truth file says which channel caused how many
    conversions, who owns each device and what each conversion is worth, to compare the results with.

    Kafka is the one that KAFKA_BOOTSTRAP_SERVERS names; the topics must exist (`attributary topics apply`). Ctrl-C
    stops early; what was queued is still delivered.

    Example: attributary simulate --touchpoints 200000 --conversions 10000 --duplicates 0.05 --late 0.05 --shuffle 3600
    --rate 1000 --seed 7 --truth truth.json
    """
    from attributary.producers.simulator import Disorder, SimulatorConfig, SimulatorConfigError, Volume, pace
    from attributary.producers.simulator import simulate as draw

    if not 0 <= rate <= _MAX_RATE:
        raise typer.BadParameter(f"must be from 0 to {_MAX_RATE:,.0f} events a second", param_hint="--rate")
    try:
        config = SimulatorConfig(
            now_micros=_moment(now),
            seed=seed,
            volume=Volume(touchpoints, conversions, tenants, people, days, tenant or None),
            disorder=Disorder(duplicates=duplicates, late=late, shuffle_seconds=shuffle),
        )
    except SimulatorConfigError as error:
        raise typer.BadParameter(str(error)) from None
    traffic = draw(config)
    if truth is not None:
        truth.write_text(json.dumps(traffic.truth.document()), encoding="utf-8")
    events = _with_progress(pace(traffic, rate), len(traffic))
    if dry_run is not None:
        _write(events, dry_run)
    else:
        _publish(events)
    _report(traffic)
    if dry_run is None:
        print(f"next: attributary results --tenant {config.volume.tenant_names()[0]}")


def _moment(text: str) -> int:
    """Return the microseconds UTC of a time, or of Unix seconds."""
    from attributary.cli.times import time_option

    try:
        return int(float(text) * _MICROS) if len(text) < len("1790000000000") else time_option(text, "--now")
    except (ValueError, OverflowError):
        return time_option(text, "--now")


def _write(events: Iterable[Event], file: Path) -> None:
    """One JSON object a line: topic, key, record."""
    with file.open("w", encoding="utf-8") as lines:
        for event in events:
            lines.write(json.dumps({"topic": event.topic, "key": event.key.decode(), "record": event.record}) + "\n")


def _publish(events: Iterable[Event]) -> None:
    from attributary.producers.config import ProducerConfig
    from attributary.producers.errors import ProducerError
    from attributary.schemas.topics import catalogue

    names = {topic.name: topic.record for topic in catalogue() if topic.record}
    producer = open_producer(ProducerConfig(source="attributary-simulate"))
    try:
        with producer:
            for event in events:
                producer.publish_mapping(names[event.topic], event.record)
    except KeyboardInterrupt:
        typer.echo(f"stopped: {producer.counters.delivered} events are in Kafka", err=True)
        raise typer.Exit(exits.INTERRUPTED) from None
    except ProducerError as error:
        say(str(error))
        raise typer.Exit(exits.DEPENDENCY_DOWN) from None


def _with_progress(events: Iterable[Event], count: int) -> Iterator[Event]:
    """Hand the events through and show how far they are; silent where the output is not a terminal."""
    import sys

    if not sys.stderr.isatty():
        yield from events
        return
    with typer.progressbar(length=count, label="events", file=sys.stderr, show_pos=True) as bar:
        step = max(1, count // 200)
        for number, event in enumerate(events, start=1):
            yield event
            if number % step == 0:
                bar.update(step)
        bar.update(count % step)


def _report(traffic: Traffic) -> None:
    truth = traffic.truth
    print(
        f"{len(traffic)} events: {truth.touchpoints} touchpoints, {truth.conversions} conversions, "
        f"{truth.corrections} corrections, {truth.links} identity links, {truth.duplicates} of them twice, "
        f"{truth.late} late"
    )
    print(f"{'channel':<16}{'touchpoints':>12}{'incremental conversions':>25}")
    for name, channel in truth.channels.items():
        print(f"{name:<16}{channel.touchpoints:>12}{channel.incremental:>25}")
    print(f"{'(no channel)':<16}{'':>12}{truth.baseline:>25}")
