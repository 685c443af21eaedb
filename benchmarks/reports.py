"""`python -m benchmarks.reports`: what every report of the catalogue costs over a month of synthetic results.

A Postgres of its own gets the results by COPY: eight models, none to seven touchpoints, every third conversion with two
versions. Each report is asked several times. CPU is that of the server's process, wall is beside it: on a machine that
does other things, only CPU says something.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from typing import TYPE_CHECKING, Any

from attributary.attribution_core.domain.time_grammar import BEGINNING, END
from attributary.consumers.reports.answer import ReportOptions, answer
from attributary.consumers.reports.catalog import REPORTS
from attributary.consumers.store.connection import connect
from attributary.consumers.store.migrate import migrate
from attributary.consumers.store.results.results import RESULT_COLUMNS
from attributary.local.postgres import embedded_postgres
from benchmarks.cpu import CpuMeter
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
    arguments = parser.parse_args()
    names = set(filter(None, arguments.only.split(",")))
    with embedded_postgres(durable=False) as server, connect(server.dsn, application_name="benchmark") as connection:
        migrate(connection)
        started = time.monotonic()
        stored = load(connection, arguments.conversions)
        seconds = time.monotonic() - started
        loaded = f"{stored:,} versions of {arguments.conversions:,} conversions"
        print(f"{loaded}, copied in {seconds:.0f} s")
        print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
        print(f"{'report':14}{'wall, median':>14}{'wall, p95':>12}{'server CPU':>12}  rows")
        for report in REPORTS:
            if not names or report.name in names:
                measure(connection, report, arguments.times)
        print(f"\nload of the machine at the end: {os.getloadavg()[0]:.1f}; the aim is {AIM_MS:.0f} ms for p95")
    return 0


def measure(connection: psycopg.Connection, report: Any, times: int) -> None:
    """Print one line about a report."""
    meter = CpuMeter({"server": connection.info.backend_pid})
    connection.execute("SET max_parallel_workers_per_gather = 0")  # so that one process has all of the CPU time
    walls, before, rows = [], meter.read().by_name["server"], 0
    for _ in range(times):
        started = time.perf_counter()
        found = answer(
            connection,
            report,
            "acme",
            (BEGINNING, END),
            END,
            BEGIN + 31 * DAY,
            ReportOptions(since_us=BEGIN + 24 * DAY),
        )
        walls.append(time.perf_counter() - started)
        rows = len(found.table.rows) if found.table else 0
        connection.commit()
    cpu = (meter.read().by_name["server"] - before) / times
    walls.sort()
    p95 = walls[min(len(walls) - 1, round(0.95 * len(walls)))]
    print(
        f"{report.name:14}{walls[len(walls) // 2] * 1e3:>11,.0f} ms{p95 * 1e3:>9,.0f} ms{cpu * 1e3:>9,.0f} ms  {rows}"
    )
    sys.stdout.flush()


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
