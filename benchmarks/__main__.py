"""`python -m benchmarks`: print a table, keep `.attributary/bench/latest.json`. See docs/reference/bench.md."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attributary.local.paths import state_dir
from attributary.local.process import ProcessFailedError
from benchmarks.environment import PeerUnavailableError
from benchmarks.environment_setup import BenchServers, JobError, find_servers, run_job
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
BUSY_CORES = 0.3  # of other processes: wall figures then say little

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


def measure_floor(servers: BenchServers, report: Report, records: int) -> None:
    dsn = servers.new_database("bench_floor")
    done = run_job("floor_job", {"bootstrap": servers.broker.bootstrap, "dsn": dsn, "records": records})
    report.add(Figure("floor", records / done["seconds"], "events/s", detail=done | {"records": records}))


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
                add_throughput(report, run, work.records)
                add_cpu(report, run, work.records)
                for broken in pipeline.broken_promises(work.truth):
                    report.miss("promise", broken)
            if "profile" in wanted:
                add_profile(report, pipeline, work.truth.conversions)
            if "latency" in wanted:
                measure_latency(servers, report)
            if "idle" in wanted:
                add_idle(report, pipeline)
    except (PipelineError, ProcessFailedError, JobError) as error:
        report.miss("pipeline", str(error))


def add_throughput(report: Report, run: Run, records: int) -> None:
    for name, seconds in (("stitcher", run.stitched_seconds), ("pipeline", run.observed_seconds)):
        rate = records / seconds
        for baseline, figure, share in (("floor", "floor", FLOOR_SHARE), ("peer", "peer: Quix Streams 3", PEER_SHARE)):
            against = report.value(figure)
            if against is None:
                continue
            aim = f">= {share}" if name == "pipeline" else ""
            report.add(
                Figure(f"{name} / {baseline}", rate, "events/s", figure, rate / against, aim, {"seconds": seconds})
            )
        if report.value("floor") is None and report.value("peer: Quix Streams 3") is None:
            report.add(Figure(name, rate, "events/s", detail={"seconds": seconds}))


def add_cpu(report: Report, run: Run, records: int) -> None:
    """CPU microseconds an event by process and in all, and what the rest of the machine did meanwhile."""
    if not run.cpu_seconds:
        report.miss("CPU", "this system has no /proc")
        return
    for name, seconds in sorted(run.cpu_seconds.items(), key=lambda item: -item[1]):
        report.add(Figure(f"CPU: {name}", seconds * 1e6 / records, "us/event"))
    total = sum(run.cpu_seconds.values()) * 1e6 / records
    report.add(Figure("CPU: all", total, "us/event", aim=f"<= {CPU_AIM_US:.0f}", met=total <= CPU_AIM_US))
    cores = run.other_cpu_seconds / run.observed_seconds
    report.add(Figure("CPU: other processes", cores, "cores"))
    if cores > BUSY_CORES:
        say(f"this machine is busy: other processes used {cores:.1f} cores. Rates and latencies say little, CPU does.")


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


def measure_latency(servers: BenchServers, report: Report) -> None:
    done = run_job("latency_job", {"bootstrap": servers.broker.bootstrap, "rate": RATE, "seconds": RATE_SECONDS})
    if done["answered"] < done["conversions"]:
        report.miss("latency", f"{done['conversions'] - done['answered']} conversions had no result in time")
    at = f"{done['events_per_second']:,.0f} events/s"
    for name, aim in (("p50", "< 150 ms"), ("p95", "< 500 ms"), ("p99", "")):
        if f"{name}_ms" in done:
            report.add(Figure(f"latency {name}", done[f"{name}_ms"], "ms", f"at {at}", None, aim, done))


if __name__ == "__main__":
    sys.exit(main())
