"""`python -m benchmarks.reports`: what every report of the catalogue costs over a month of synthetic results.

A Postgres of its own gets the results by COPY: eight models, none to seven touchpoints, every third conversion with two
versions. Each report is asked several times. CPU is that of the server's process, wall is beside it: on a machine that
does other things, only CPU says something.

With `--rollup` the sums of the roll-up are written in place of the results: some journeys on each of 30 days, each as
often as it takes, added up by the code of the reporter; then the reports are asked of it, and once more over HTTP.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attributary.attribution_core.domain.time_grammar import BEGINNING, END
from attributary.consumers.reports.answer import ReportOptions, answer
from attributary.consumers.reports.catalog import REPORTS
from attributary.consumers.store.connection import connect
from attributary.consumers.store.migrate import migrate
from attributary.consumers.store.results.results import RESULT_COLUMNS
from attributary.consumers.store.rollup.apply import Held, add_sums, prepare_rollup
from attributary.consumers.store.rollup.cells import cells_of
from attributary.consumers.store.rollup.counts import Bought
from attributary.consumers.store.rollup.fold import Fold, Slots
from attributary.local.postgres import embedded_postgres
from benchmarks.cpu import CpuMeter
from benchmarks.http_targets import API, read_api
from tests.factories.report_results import BEGIN, CHANNELS, DAY, HOUR, reported

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

MODELS = ("linear", "last", "first", "baseline", "position_based", "time_decay", "markov", "shapley")
AIM_MS = 300.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reports", description=__doc__)
    parser.add_argument("--conversions", type=int, default=100_000, help="of the month")
    parser.add_argument("--times", type=int, default=5, help="how often each report is asked")
    parser.add_argument("--only", default="", help="reports, separated by commas; all by default")
    parser.add_argument("--rollup", action="store_true", help="ask the roll-up, which is written without results")
    parser.add_argument("--journeys", type=int, default=2_000, help="different ones of a day, with --rollup")
    arguments = parser.parse_args()
    names = set(filter(None, arguments.only.split(",")))
    if arguments.rollup:
        return main_rollup(arguments.conversions, arguments.journeys, arguments.times, names)
    with embedded_postgres(durable=False) as server, connect(server.dsn, application_name="benchmark") as connection:
        migrate(connection)
        started = time.monotonic()
        stored = load(connection, arguments.conversions)
        seconds = time.monotonic() - started
        loaded = f"{stored:,} versions of {arguments.conversions:,} conversions"
        print(f"{loaded}, copied in {seconds:.0f} s")
        print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
        print(f"{'report':22}{'wall, median':>14}{'wall, p95':>12}{'server CPU':>12}  rows")
        for report in REPORTS:
            if not names or report.name in names:
                measure(connection, report, arguments.times)
        print(f"\nload of the machine at the end: {os.getloadavg()[0]:.1f}; the aim is {AIM_MS:.0f} ms for p95")
    return 0


def main_rollup(conversions: int, journeys: int, times: int, names: set[str]) -> int:
    """Measure what the roll-up answers; 1 where a report takes longer than the aim."""
    with embedded_postgres(durable=False) as server, connect(server.dsn, application_name="benchmark") as connection:
        migrate(connection)
        started = time.monotonic()
        rows = load_rollup(connection, conversions, journeys)
        print(f"roll-up of {conversions:,} conversions: {rows}; {time.monotonic() - started:.0f} s")
        print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
        print(f"{'report':22}{'wall, median':>14}{'wall, p95':>12}{'server CPU':>12}  rows")
        asked = [(report, by) for report in REPORTS if not names or report.name in names
                 for by in (("channel", "campaign") if "by" in report.options and report.name != "paths"
                            else ("channel",))]  # fmt: skip
        slow = [report.name for report, by in asked if measure(connection, report, times, by) > AIM_MS]
        with tempfile.TemporaryDirectory() as folder, read_api(Path(folder), server.dsn) as api:
            print(f"\n{'over HTTP':22}{'wall, median':>14}{'wall, p95':>12}")
            for report, by in asked:
                measure_http(api.port, api.key, report.name, by, times)
    print(
        f"\nload of the machine at the end: {os.getloadavg()[0]:.1f}; above {AIM_MS:.0f} ms: {', '.join(slow) or '-'}"
    )
    return 1 if slow else 0


def measure_http(port: int, key: str, name: str, by: str, times: int) -> None:
    """Print one line about a report over HTTP, from the request to the last byte."""
    walls = []
    listener = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    for _ in range(times):
        started = time.perf_counter()
        listener.request(
            "GET", f"{API}/reports/{name}?by={by}&source=rollup", headers={"Authorization": f"Bearer {key}"}
        )
        answered = listener.getresponse()
        body = answered.read()
        walls.append(time.perf_counter() - started)
        if answered.status != 200:
            raise SystemExit(f"{name}: {answered.status} {body[:300]!r}")
    median, p95 = _quantiles(walls)
    print(f"{f'{name} {by}':22}{median:>11,.0f} ms{p95:>9,.0f} ms")
    sys.stdout.flush()


def _quantiles(walls: list[float]) -> tuple[float, float]:
    """Return median and p95 in milliseconds."""
    walls.sort()
    return walls[len(walls) // 2] * 1e3, walls[min(len(walls) - 1, round(0.95 * len(walls)))] * 1e3


def load_rollup(connection: psycopg.Connection, conversions: int, pool: int, days: int = 30) -> str:
    """Write the sums of a month; returns how many rows of which table there are."""
    zones, model_free = {"acme": "UTC"}, 0
    draw = random.Random(1)
    journeys = [_journey(draw, number) for number in range(pool)]
    slots = Slots()
    fold = Fold(zones, slots)
    weight, rest = divmod(conversions, pool * days)
    for number in range(pool * days):
        base, day = journeys[number % pool], number // pool
        at = BEGIN + day * DAY + draw.randrange(DAY)
        shift = at - base["converted_at_us"]
        touches = [{**touch, "occurred_at": touch["occurred_at"] + shift} for touch in base["touches"]]
        text, _, channel = cells_of(touches, json.loads(base["models"]), is_final=number % 3 == 0)
        cells, often = json.loads(text), weight + (number < rest)
        held = Held("acme", uuid.UUID(int=number), uuid.UUID(int=number), 1, at + HOUR, "purchase", "EUR", at, True,
                    base["net_value_micros"], text, at + HOUR, channel)  # fmt: skip
        fold.change([(held, cells, True, often)], at + HOUR, "new", is_version=True)
        if number % 3 == 0:  # a late touchpoint: the first one is not credited any more
            later, cut = at + 6 * DAY, cells_of(touches[1:], _without_first(base["models"]), is_final=True)
            again, second = json.loads(cut[0]), held._replace(version=2, cells=cut[0], first_channel=cut[2])
            sides = [(held, cells, True, -often), (second, again, True, often)]
            fold.change(sides, later, "late_touchpoint", is_version=True)
            held, cells = second, again
        fold.keep(held, cells, weight=often)
        again_at = at + draw.randrange(1, 9) * DAY
        bought = [Bought(at, 1, "EUR", held.net_micros, channel), Bought(again_at, 2, "EUR", held.net_micros, channel)]
        fold.people("acme", "purchase", bought[: 1 + (number % 4 == 0)], weight=often)
        model_free += often
    connection.execute("INSERT INTO attribution_rollup_state (tenant_id, time_zone) VALUES ('acme', 'UTC')")
    prepare_rollup(connection)
    connection.execute("RESET ALL")  # a batch of a month is no batch of the reporter
    add_sums(connection, fold.rows(), slots)
    connection.execute(_SALES, {"begin": BEGIN, "many": min(conversions, 200_000)})
    connection.execute(_TOUCHES, {"begin": BEGIN, "many": min(conversions, 200_000)})
    connection.commit()
    connection.autocommit = True
    connection.execute("VACUUM ANALYZE")
    connection.execute("RESET ALL")
    connection.autocommit = False
    found = []
    for table in ("days", "names", "counts", "restatements"):
        row = connection.execute(f"SELECT count(*) FROM attribution_rollup_{table}".encode()).fetchone()
        found.append(f"{table} {row[0] if row else 0:,}")
    connection.commit()
    return f"{model_free:,} counted; rows: {', '.join(found)}"


def _without_first(models: str) -> list[dict[str, Any]]:
    """Return the models' credits without the first touchpoint: what it had is unattributed."""
    return [
        {**model, "credits": model["credits"][1:], "micros": model["micros"][1:],
         "unattributed_micros": model["unattributed_micros"] + sum(model["micros"][:1])}
        for model in json.loads(models)
    ]  # fmt: skip


_SALES = """
INSERT INTO attribution_conversions (
    tenant_id, conversion_id, conversion_type, identity_key, journey_key, converted_at_us, received_at_us,
    gross_value_micros, net_value_micros, previous_net_micros, currency, version, version_reason, policy_version,
    owner_topic, owner_partition, owner_offset, event_published_us)
SELECT 'acme', 'o' || n, 'purchase', 'u:' || n, 'u:' || n, n + %(begin)s, n + %(begin)s, 1, 1, 0,
       'EUR', 1, 'new', 'p', 't', 0, n, 0
FROM generate_series(1, %(many)s) AS n
"""
_TOUCHES = """
INSERT INTO attribution_touchpoints (
    tenant_id, event_id, identity_key, occurred_at_us, received_at_us, platform, channel, interaction, campaign, is_bot,
    details, content_hash, source_topic, source_partition, source_offset)
SELECT 'acme', 't' || n, 'u:' || n, n + %(begin)s, n + %(begin)s, 'p', 'email', 'click', '', false,
       '{}', n, 't', 0, n
FROM generate_series(1, %(many)s) AS n
"""


def measure(connection: psycopg.Connection, report: Any, times: int, by: str = "channel") -> float:
    """Print one line about a report; returns p95 in milliseconds."""
    meter = CpuMeter({"server": connection.info.backend_pid})
    connection.execute("SET max_parallel_workers_per_gather = 0")  # so that one process has all of the CPU time
    walls, before, rows, source = [], meter.read().by_name["server"], 0, ""
    options = ReportOptions(since=BEGIN + 24 * DAY, by=by)
    for _ in range(times):
        started = time.perf_counter()
        found = answer(connection, report, "acme", (BEGINNING, END), END, BEGIN + 31 * DAY, options)
        walls.append(time.perf_counter() - started)
        rows, source = len(found.table.rows) if found.table else 0, found.origin.source
        connection.commit()
    cpu = (meter.read().by_name["server"] - before) / times
    median, p95 = _quantiles(walls)
    print(
        f"{f'{report.name} {by}':22}{median:>11,.0f} ms{p95:>9,.0f} ms{cpu * 1e3:>9,.0f} ms  {rows} from the {source}"
    )
    sys.stdout.flush()
    return p95


def load(connection: psycopg.Connection, conversions: int) -> int:
    """Copy results of a month; returns how many versions."""
    count = 0
    columns = ", ".join([*RESULT_COLUMNS, "source_partition", "source_offset"])
    with connection.cursor().copy(f"COPY attribution_results ({columns}) FROM STDIN") as copy:
        for row in results(conversions):
            copy.write_row([*(row[name] for name in RESULT_COLUMNS), 0, count])
            count += 1
    connection.commit()
    connection.autocommit = True
    connection.execute("VACUUM ANALYZE attribution_results")
    connection.autocommit = False
    return count


def results(conversions: int, pool: int = 2_000) -> Iterator[dict[str, Any]]:
    """Yield versions: journeys of a pool, at times of their own."""
    draw = random.Random(1)
    journeys = [_journey(draw, number) for number in range(pool)]
    for number in range(conversions):
        at = BEGIN + draw.randrange(30 * DAY)
        base = journeys[number % pool]
        shift = at - base["converted_at_us"]
        touches = [{**touch, "occurred_at": touch["occurred_at"] + shift} for touch in base["touches"]]
        for version in (1, 2) if number % 3 == 0 else (1,):
            yield base | {
                "conversion_id": f"o{number:08}", "version": version, "converted_at_us": at,
                "touchpoints": json.dumps(touches), "computed_at_us": at + HOUR + (version - 1) * 6 * DAY,
                "journey_key": f"u:{draw.randrange(conversions)}",
                "version_reason": "new" if version == 1 else "final",
            }  # fmt: skip


def _journey(draw: random.Random, number: int) -> dict[str, Any]:
    befores = sorted((draw.randrange(1, 20 * DAY) for _ in range(draw.choice((0, 1, 2, 3, 4, 4, 5, 7)))), reverse=True)
    touches = [(draw.choice(CHANNELS), f"campaign {draw.randrange(40)}", before) for before in befores]
    row = reported(f"j{number}", touches=touches, net=draw.randrange(1, 200) * 1_000_000, models=MODELS)
    return row | {"touches": json.loads(row["touchpoints"])}


if __name__ == "__main__":
    sys.exit(main())
