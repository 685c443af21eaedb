"""`python -m tests.bench`: measure, print a table, keep `.attributary/bench/latest.json`. See docs/bench.md."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from tests.bench.figures import Figure, Report, say
from tests.bench.ground import Ground, JobError, find_ground, run_job
from tests.bench.peer import PeerUnavailableError, run_peer
from tests.bench.workload import Message, draw, encode, load
from tests.fixtures.topics import recreate_topics

if TYPE_CHECKING:
    from collections.abc import Sequence

FIGURES = ("publish", "floor", "peer", "pipeline", "latency", "profile")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", default=",".join(FIGURES), help=f"figures to measure, of {','.join(FIGURES)}")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the work; 1: 200,000 touchpoints")
    arguments = parser.parse_args()
    wanted = tuple(arguments.only.split(","))
    if unknown := set(wanted) - set(FIGURES):
        parser.error(f"--only: {min(unknown)} is not one of {', '.join(FIGURES)}")
    if arguments.scale <= 0:
        parser.error("--scale: must be above 0")
    with find_ground() as ground:
        say(ground.describe())
        report = Report(scale=arguments.scale, ground=ground.describe())
        measure(ground, report, wanted)
        say()
        say(report.table())
        report.write(ground.folder / "latest.json")
    return 1 if report.missing else 0


def measure(ground: Ground, report: Report, wanted: Sequence[str]) -> None:
    """Measure what is wanted, in the order in which the figures need each other."""
    bootstrap = ground.broker.bootstrap
    if "publish" in wanted:
        recreate_topics(bootstrap)
        measure_publish(ground, report)
    if not set(wanted) & {"floor", "peer", "pipeline", "latency", "profile"}:
        return
    messages = encode(draw(report.scale))
    load(bootstrap, messages)
    if "floor" in wanted:
        measure_floor(ground, report, len(messages))
    if "peer" in wanted:
        measure_peer(ground, report, messages)


def measure_publish(ground: Ground, report: Report) -> None:
    done = run_job("publish_job", {"bootstrap": ground.broker.bootstrap, "scale": report.scale / 2})
    bare, client = done["records"] / done["bare_seconds"], done["records"] / done["client_seconds"]
    report.add(Figure("publish: bare library", bare, "records/s"))
    report.add(Figure("publish: client", client, "records/s", "bare library", client / bare, detail=done))


def measure_floor(ground: Ground, report: Report, records: int) -> None:
    dsn = ground.new_database("bench_floor")
    done = run_job("floor_job", {"bootstrap": ground.broker.bootstrap, "dsn": dsn, "records": records})
    report.add(Figure("floor", records / done["seconds"], "events/s", detail=done | {"records": records}))


def measure_peer(ground: Ground, report: Report, messages: Sequence[Message]) -> None:
    try:
        done = run_peer(ground, messages)
    except (PeerUnavailableError, JobError) as error:
        report.miss("peer: Quix Streams 3", str(error))
        return
    rate = done["records"] / done["seconds"]
    report.add(Figure("peer: Quix Streams 3", rate, "events/s", detail=done))


if __name__ == "__main__":
    sys.exit(main())
