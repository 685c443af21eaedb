"""`python -m benchmarks`: print a table, keep `.attributary/bench/latest.json`. See docs/reference/bench.md."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from attributary.local.paths import state_dir
from attributary.local.process import ProcessFailedError
from benchmarks.environment import PeerUnavailableError
from benchmarks.environment_setup import ROOT, BenchServers, JobError, find_servers, run_job
from benchmarks.figures import Figure, Report, say
from benchmarks.models import measure_models
from benchmarks.peer import run_peer
from benchmarks.pipeline import Pipeline, PipelineError, Run, run_pipeline
from benchmarks.revision import Revision, RevisionError, measure_against, unpack
from benchmarks.workload import Message, draw, encode, load
from tests.fixtures.topics import recreate_topics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attributary.producers.simulator import Truth

RATE = 1_000.0  # events a second of the latency figure
RATE_SECONDS = 30.0
# Aims of this stage of the project; see docs/reference/bench.md.
FLOOR_SHARE, PEER_SHARE = 0.4, 0.5

# CPU of everything, broker and server included; see the figures of docs/reference/bench.md.
CPU_AIM_US, IDLE_AIM_CORES = 110.0, 0.1
IDLE_SECONDS = 20.0
BUSY_CORES = 0.3  # of other processes: wall figures are then not judged
BUSY_SECONDS = 3.0
WARM_UP = 60_000  # records, at most; the broker's compiler takes half of a short run otherwise
RESULT_AIM_US = 250.0
WAL_AIM, STORED_AIM = 900.0, 800.0  # bytes an event
FLOOR = "floor 2026-11"

FIGURES = ("models", "publish", "floor", "peer", "pipeline", "latency", "profile", "idle")


@dataclass(frozen=True)
class Work:
    """What lies in the input topics."""

    records: int
    truth: Truth


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", default=",".join(FIGURES), help=f"figures to measure, of {','.join(FIGURES)}")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the work; 1: 200,000 touchpoints")
    parser.add_argument(
        "--against",
        metavar="REVISION",
        help="also run the pipeline of this commit or tag, in turns with the one at hand",
    )
    arguments = parser.parse_args()
    wanted = tuple(arguments.only.split(","))
    if unknown := set(wanted) - set(FIGURES):
        parser.error(f"--only: {min(unknown)} is not one of {', '.join(FIGURES)}")
    if arguments.scale <= 0:
        parser.error("--scale: must be above 0")
    folder = state_dir("bench")
    report = Report(scale=arguments.scale)
    try:
        revision = unpack(arguments.against, folder / "revision") if arguments.against else None
    except RevisionError as error:
        parser.error(f"--against: {error}")
    if "models" in wanted:  # while neither Kafka nor Postgres runs beside them
        measure_models(folder, report)
    if set(wanted) - {"models"} or revision:
        with find_servers() as servers:
            report.servers = servers.describe()
            say(report.servers)
            measure(servers, report, wanted)
            if revision:
                measure_revision(servers, report, revision)
    say()
    say(report.table())
    report.write(folder / "latest.json")
    return 1 if report.missing else 0


def measure(servers: BenchServers, report: Report, wanted: Sequence[str]) -> None:
    """Measure what is wanted, in the order in which the figures need each other."""
    bootstrap = servers.broker.bootstrap
    if "publish" in wanted:
        recreate_topics(bootstrap)
        measure_publish(servers, report)
    if not set(wanted) & {"floor", "peer", "pipeline", "latency", "profile", "idle"}:
        return
    traffic = draw(report.scale)
    messages = encode(traffic)
    warm_up(servers, messages[:WARM_UP])
    load(bootstrap, messages)
    if "floor" in wanted:
        measure_floor(servers, report, len(messages))
    if "peer" in wanted:
        measure_peer(servers, report, messages)
    if set(wanted) & {"pipeline", "latency", "profile", "idle"}:
        measure_pipeline(servers, report, wanted, Work(len(messages), traffic.truth))


def measure_publish(servers: BenchServers, report: Report) -> None:
    done = run_job("publish_job", {"bootstrap": servers.broker.bootstrap, "scale": report.scale / 2})
    bare, client = done["records"] / done["bare_seconds"], done["records"] / done["client_seconds"]
    report.add(Figure("publish: bare library", bare, "records/s"))
    report.add(Figure("publish: client", client, "records/s", "bare library", client / bare, detail=done))


def warm_up(servers: BenchServers, messages: Sequence[Message]) -> None:
    """Let the broker compile itself over a part of the records; nothing of it is counted."""
    say("warming up the broker")
    load(servers.broker.bootstrap, messages)
    try:
        with run_pipeline(servers, servers.new_database("bench_warm_up")) as pipeline:
            pipeline.work_through(len(messages))
    except (PipelineError, ProcessFailedError) as error:
        say(f"the warm-up failed: {error}")


def measure_floor(servers: BenchServers, report: Report, records: int) -> None:
    dsn = servers.empty_database("bench_floor")
    with psycopg.connect(dsn) as connection:
        connection.execute((ROOT / "benchmarks" / "floor_tables.sql").read_bytes())
    done = run_job("floor_job", {"bootstrap": servers.broker.bootstrap, "dsn": dsn, "records": records})
    report.add(Figure(FLOOR, records / done["seconds"], "events/s", detail=done | {"records": records}))


def measure_peer(servers: BenchServers, report: Report, messages: Sequence[Message]) -> None:
    try:
        done = run_peer(servers, messages)
    except (PeerUnavailableError, JobError) as error:
        report.miss("peer: Quix Streams 3", str(error))
        return
    rate = done["records"] / done["seconds"]
    report.add(Figure("peer: Quix Streams 3", rate, "events/s", detail=done))


def measure_pipeline(servers: BenchServers, report: Report, wanted: Sequence[str], work: Work) -> None:
    """Run the pipeline once over the input topics, then, still running, at a steady rate."""
    try:
        with run_pipeline(servers, servers.new_database("bench_pipeline")) as pipeline:
            run = pipeline.work_through(work.records)
            if "pipeline" in wanted:
                is_busy = add_cpu(report, run, work.records)
                add_throughput(report, run, work.records, is_judged=not is_busy)
                add_result_cost(report, run, pipeline)
                add_bytes(report, servers, run, work.records)
                for broken in pipeline.broken_promises(work.truth):
                    report.miss("promise", broken)
            if "profile" in wanted:
                add_profile(report, pipeline, work.truth.conversions)
            if "latency" in wanted:
                measure_latency(servers, report, pipeline)
            if "idle" in wanted:
                add_idle(report, pipeline)
    except (PipelineError, ProcessFailedError, JobError) as error:
        report.miss("pipeline", str(error))


def add_throughput(report: Report, run: Run, records: int, *, is_judged: bool) -> None:
    for name, seconds in (("stitcher", run.stitched_seconds), ("pipeline", run.observed_seconds)):
        rate = records / seconds
        for baseline, figure, share in ((FLOOR, FLOOR, FLOOR_SHARE), ("peer", "peer: Quix Streams 3", PEER_SHARE)):
            against = report.value(figure)
            if against is None:
                continue
            aim = f">= {share}" if name == "pipeline" and is_judged else ""
            report.add(
                Figure(f"{name} / {baseline}", rate, "events/s", figure, rate / against, aim, {"seconds": seconds})
            )
        if report.value(FLOOR) is None and report.value("peer: Quix Streams 3") is None:
            report.add(Figure(name, rate, "events/s", detail={"seconds": seconds}))


def add_cpu(report: Report, run: Run, records: int) -> bool:
    """CPU microseconds an event by process and in all; returns whether others kept the machine busy meanwhile."""
    if not run.cpu_seconds:
        report.miss("CPU", "this system has no /proc")
        return False
    for name, seconds in sorted(run.cpu_seconds.items(), key=lambda item: -item[1]):
        report.add(Figure(f"CPU: {name}", seconds * 1e6 / records, "us/event"))
    total = sum(run.cpu_seconds.values()) * 1e6 / records
    report.add(Figure("CPU: all", total, "us/event", aim=f"<= {CPU_AIM_US:.0f}", met=total <= CPU_AIM_US))
    cores = run.other_cpu_seconds / run.observed_seconds
    report.add(Figure("CPU: other processes", cores, "cores"))
    return says_busy(cores)


def says_busy(cores: float) -> bool:
    """Tell whether other processes use so much that rates and latencies are not judged, and say so."""
    if cores > BUSY_CORES:
        say(f"this machine is busy: other processes use {cores:.1f} cores. Rates and latencies are not judged, CPU is.")
    return cores > BUSY_CORES


def add_result_cost(report: Report, run: Run, pipeline: Pipeline) -> None:
    """CPU of attributor and auditor by result; Postgres' part is among that of all."""
    emitted = pipeline.total("attributor", "attribution_results_emitted_total")
    if run.cpu_seconds and emitted:
        cost = (run.cpu_seconds["attributor"] + run.cpu_seconds["auditor"]) * 1e6 / emitted
        aim = f"<= {RESULT_AIM_US:.0f}"
        report.add(Figure("CPU: a result", cost, "us/result", aim=aim, met=cost <= RESULT_AIM_US))


def add_bytes(report: Report, servers: BenchServers, run: Run, records: int) -> None:
    """Bytes an event that Postgres logs and stores, and that lie in Kafka's topics."""
    for name, number, most in (("WAL", run.wal_bytes, WAL_AIM), ("tables", run.stored_bytes, STORED_AIM)):
        value = number / records
        report.add(Figure(f"bytes: {name}", value, "B/event", aim=f"<= {most:.0f}", met=value <= most))
    kafka = servers.kafka_bytes()
    if kafka is not None:
        report.add(Figure("bytes: Kafka", kafka / records, "B/event"))


def add_idle(report: Report, pipeline: Pipeline) -> None:
    """Cores that the pipeline uses without traffic."""
    cores = pipeline.idle_cores(IDLE_SECONDS)
    if cores is None:
        report.miss("idle", "this system has no /proc")
        return
    total = sum(cores.values())
    aim = f"<= {IDLE_AIM_CORES}"
    report.add(Figure("idle: all", total, "cores", aim=aim, detail=dict(cores), met=total <= IDLE_AIM_CORES))


def add_profile(report: Report, pipeline: Pipeline, conversions: int) -> None:
    emitted = pipeline.total("attributor", "attribution_results_emitted_total")
    report.add(Figure("results per conversion", emitted / conversions, "results"))
    for stage, steps in pipeline.stage_seconds().items():
        for step, seconds in sorted(steps.items(), key=lambda item: -item[1]):
            report.add(Figure(f"{stage}: {step}", seconds, "s"))


def measure_revision(servers: BenchServers, report: Report, revision: Revision) -> None:
    try:
        measure_against(servers, report, encode(draw(report.scale)), revision)
    except (RevisionError, PipelineError, ProcessFailedError) as error:
        report.miss(f"pipeline at {revision.name}", str(error))


def measure_latency(servers: BenchServers, report: Report, pipeline: Pipeline) -> None:
    is_busy = says_busy(pipeline.busy_cores(BUSY_SECONDS))
    done = run_job("latency_job", {"bootstrap": servers.broker.bootstrap, "rate": RATE, "seconds": RATE_SECONDS})
    if done["answered"] < done["conversions"]:
        report.miss("latency", f"{done['conversions'] - done['answered']} conversions had no result in time")
    at = f"{done['events_per_second']:,.0f} events/s"
    for name, aim in (("p50", "< 150 ms"), ("p95", "< 500 ms"), ("p99", "")):
        if f"{name}_ms" in done:
            judged = "" if is_busy else aim
            report.add(Figure(f"latency {name}", done[f"{name}_ms"], "ms", f"at {at}", None, judged, done))


if __name__ == "__main__":
    sys.exit(main())
