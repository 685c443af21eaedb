"""The demo from start to end."""

from __future__ import annotations

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from attributary.consumers.store.connection import connect
from attributary.local.demo import report
from attributary.local.demo.environment import DemoEnvironment, demo_environment
from attributary.local.demo.http_traffic import HttpTraffic, SenderRow
from attributary.local.demo.promises import check_promises
from attributary.local.demo.publish import Pace, Published
from attributary.local.demo.subscriber import ResultsWatcher
from attributary.local.demo.traffic import SHOPS, Traffic, demo_traffic
from attributary.local.process import run as run_program
from attributary.local.stages import command_line
from attributary.schemas.topics import group_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import psycopg

LIVE_PER_SECOND = 200.0
_MAX_WARM_UP = 1_000  # events, 5 s
_DRAIN_SECONDS = 300.0
_TRAINED = ("markov", "poisson")
_MARKER = ".attributary-demo"
_PAGE = "report.html"


class NotOurFolderError(ValueError):
    """Emptying this folder would delete what no demo made."""


def run_demo(
    *,
    touchpoints: int,
    keep: bool,
    kinds: Sequence[str] | None,
    folder: Path,
    report_file: Path | None,
    write_page: Callable[[psycopg.Connection, str, Path], None],
) -> int:
    """Run the demo.

    Args:
        touchpoints: about how many to replay.
        keep: leave everything running until Ctrl-C.
        kinds: brokers that are acceptable, best first; all when None.
        folder: for data and logs; emptied first if a demo made it.
        report_file: where to write the figures as JSON.
        write_page: writes the report page of a tenant to a file.

    Returns:
        0 when every promise held, 1 when one did not.
    """
    console = Console()
    started = time.monotonic()
    _empty(folder)
    with demo_environment(folder, dict(os.environ), console.print, kinds) as found:
        traffic = demo_traffic(time.time_ns() // 1_000, touchpoints)
        for line in traffic.about:
            console.print(line)
        watcher = ResultsWatcher(found.broker)
        watcher.start()
        published = Published()
        with (
            connect(found.dsn, application_name="attributary-demo", autocommit=True) as connection,
            _progress() as bars,
        ):
            _publish(found, traffic, published, bars, live=False)
            _drain(found, connection, published, bars)
            _train(found, traffic.tenants)
            _drain(found, connection, published, bars)
            http_rows = [] if found.senders is None else HttpTraffic(found.senders, published).send()
            _publish(found, traffic, published, bars, live=True)
            _drain(found, connection, published, bars)
        watcher.stop()
        with connect(found.dsn, application_name="attributary-demo", autocommit=True) as connection:
            held = _show(console, connection, found, traffic, published, watcher, http_rows, report_file)
            write_page(connection, SHOPS[0], folder / _PAGE)
        console.print(f"took {time.monotonic() - started:.0f} s")
        _next_steps(console, found, folder, keep=keep)
        if keep:
            console.print("everything keeps running; Ctrl-C stops it")
            _wait()
    return 0 if held else 1


def _empty(folder: Path) -> None:
    """Empty the demo's own folder; somebody else's is left alone.

    Raises:
        NotOurFolderError: the folder holds something and was not made by a demo.
    """
    marker = folder / _MARKER
    if folder.exists() and any(folder.iterdir()) and not marker.exists():
        raise NotOurFolderError(f"{folder} is not empty and was not made by a demo: name another one")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    marker.touch()


def _progress() -> Progress:
    return Progress(TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())


def _publish(found: DemoEnvironment, traffic: Traffic, published: Published, bars: Progress, *, live: bool) -> None:
    events = traffic.live if live else traffic.history
    name = f"live, {LIVE_PER_SECOND:.0f} events/s" if live else "publish"
    task = bars.add_task(name, total=len(events))
    advance: Callable[[int], None] = lambda count: bars.advance(task, count)  # noqa: E731
    published.publish(
        found.broker, events, advance, Pace(LIVE_PER_SECOND, min(_MAX_WARM_UP, len(events) // 4)) if live else None
    )
    bars.update(task, completed=len(events))


_LEFT = """
SELECT (SELECT COALESCE(sum(next_offset), 0) FROM attribution_positions WHERE consumer_group = %s),
       (SELECT count(*) FROM attribution_conversions WHERE observed_version < version),
       (SELECT count(*) FROM attribution_conversion_events),
       (SELECT count(*) FROM attribution_deliveries WHERE state <> 'pending'
           AND destination IN ('meta', 'ga4'))
"""


def _drain(found: DemoEnvironment, connection: psycopg.Connection, published: Published, bars: Progress) -> None:
    """Wait until all events are stored, every result was seen and every conversion was offered to both destinations."""
    stored = bars.add_task("stitch", total=published.sent)
    results = bars.add_task("attribute", total=None)
    forwarded = bars.add_task("forward", total=None)
    deadline = time.monotonic() + _DRAIN_SECONDS
    while True:
        found.fail_if_ended()
        row = connection.execute(_LEFT, (group_name("stitcher"),)).fetchone() or (0, 0, 0, 0)
        offsets, waiting, events, deliveries = (int(value) for value in row)
        total = connection.execute("SELECT count(*) FROM attribution_conversions WHERE version > 0").fetchone() or (0,)
        bars.update(stored, completed=min(offsets, published.sent))
        bars.update(results, total=total[0], completed=total[0] - waiting)
        bars.update(forwarded, total=2 * events, completed=deliveries)
        if offsets >= published.sent and waiting == 0 and deliveries >= 2 * events:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"after {_DRAIN_SECONDS:.0f} s: {offsets} of {published.sent} records stitched, {waiting} results "
                f"missing, {deliveries} of {2 * events} deliveries decided; see {found.logs}"
            )
        time.sleep(0.1)


def _train(found: DemoEnvironment, tenants: Sequence[str]) -> None:
    """Train and activate the trained models on what is stored, and attribute all again, as an operator would.

    Forced: of a small demo's few conversions no channel may be in enough, and its results say so themselves.
    """

    def train(tenant: str) -> None:
        for model in _TRAINED:
            _attributary(
                found, "models", "train", "--tenant", tenant, "--model", model, "--closing", "all", "--activate",
                "--force",
            )  # fmt: skip
        if found.broker.real:  # the mock forgets committed offsets, so a wait for new results might never end
            _attributary(found, "refit", "--tenant", tenant)

    with ThreadPoolExecutor(len(tenants)) as at_once:
        list(at_once.map(train, tenants))


def _attributary(found: DemoEnvironment, *arguments: str) -> None:
    run_program(
        command_line(*arguments),
        name=f"attributary {' '.join(arguments[:2])}",
        timeout_seconds=180.0,
        env=found.environment,
    )


def _show(
    console: Console,
    connection: psycopg.Connection,
    found: DemoEnvironment,
    traffic: Traffic,
    published: Published,
    watcher: ResultsWatcher,
    http_rows: Sequence[SenderRow],
    report_file: Path | None,
) -> bool:
    console.rule("Results")
    credit = report.with_truth(report.credits_of(connection, SHOPS), traffic.truth)
    title = "Conversions by channel and model, beside what the channels truly caused"
    for table in report.credit_tables(credit, title, console.width):
        console.print(table)
    console.print(report.finding(credit), highlight=False)
    console.print()
    for tenant in traffic.tenants[len(SHOPS) :]:
        for table in report.credit_tables(report.credits_of(connection, [tenant]), tenant, console.width):
            console.print(table)
    if http_rows:
        console.print(report.http_table(http_rows))
    console.print(report.revenue_table(connection))
    console.print(report.forwarded_table(connection, found.meta.events(), found.ga4.events()))
    line, latency = report.latency_line(watcher.seen, published.live_at, LIVE_PER_SECOND)
    console.print(line, highlight=False)
    console.print()
    promises = check_promises(connection, published, watcher.seen)
    console.print(report.promises_table(promises))
    if not found.broker.real:
        console.print("[yellow]on the mock broker transactions mean little: these figures are no proof[/]")
    if report_file is not None:
        figures = {
            "broker": found.broker.kind,
            "sent": published.sent,
            "latency_ms": latency,
            "http": [{"sender": row.name, "requests": row.requests, "records": row.records} for row in http_rows],
            "promises": [vars(promise) for promise in promises],
        }
        report_file.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return all(promise.held for promise in promises)


def _next_steps(console: Console, found: DemoEnvironment, folder: Path, *, keep: bool) -> None:
    steps = (
        ("make up", "the same stack, kept: publish to it, subscribe to it"),
        ("attributary tail results", "what subscribers see"),
        ("docs/how-to/publish.md", "publish events from a service"),
        ("docs/how-to/subscribe.md", "read results from a service"),
    )
    console.print(f"\nThe results of {SHOPS[0]} as a page, open it in a browser:", highlight=False)
    console.print(f"  {folder / _PAGE}", highlight=False, soft_wrap=True)
    console.print("\nWhere to look next:")
    for what, why in steps:
        console.print(f"  {what:<26}{why}", highlight=False)
    console.print(f"  logs of the stages: {folder}/logs", highlight=False, soft_wrap=True)
    if keep:
        ports = ", ".join(f"{name} :{port}" for name, port in found.ports.items())
        console.print(f"  metrics: {ports}", highlight=False)


def _wait() -> None:
    try:
        while True:
            time.sleep(3_600)
    except KeyboardInterrupt:
        return
