"""`python -m benchmarks`: print a table, keep `.attributary/bench/latest.json`. See docs/reference/bench.md."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg

from attributary.local.paths import state_dir
from attributary.local.process import ProcessFailedError
from benchmarks.environment import PeerUnavailableError
from benchmarks.environment_setup import ROOT, BenchServers, JobError, find_servers, run_job
from benchmarks.figures import Figure, Report, say
from benchmarks.growth import measure_growth
from benchmarks.models import measure_models
from benchmarks.peer import run_peer
from benchmarks.pipeline import Pipeline, PipelineError, Run, run_pipeline
from benchmarks.revision import Revision, RevisionError, measure_against, unpack
from benchmarks.scale_out import measure_scale_out
from benchmarks.streams_peer import run_streams
from benchmarks.whole_stack import measure_stack
from benchmarks.workload import Message, draw, encode, load
from tests.fixtures.topics import recreate_topics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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

STREAMS, QUIX = "peer: Kafka Streams", "peer: Quix Streams 3"
CPU_SHARES = {STREAMS: 0.75, QUIX: 0.65}  # of a peer's cost of an event

# What each measures, and about how long it takes alone at scale 1.
FIGURES = {
    "models": "the models as a library beside three peers; no Kafka, no Postgres; 6 minutes",
    "stack": "CPU an event of the whole stack as `attributary up` runs it, and its cores without traffic; 4 minutes",
    "publish": "records a second of the publishing client beside the bare library; half a minute",
    "floor": "the job of November 2026 that only decodes and stores; half a minute",
    "peer": "the same join in Quix Streams 3 (pip installs it once); a minute",
    "streams": "the same join in Kafka Streams with RocksDB (Java and Maven; its jars are fetched once); a minute",
    "pipeline": "CPU an event by process, bytes an event, rates, promises; a minute",
    "profile": "where each stage spent its seconds",
    "latency": "conversion to result at 1,000 events a second; a minute",
    "idle": "cores of broker, server and three stages without traffic; 20 s",
    "scale-out": "CPU an event with 2 and 4 processes of each stage against one; 4 minutes",
    "growth": "CPU an event on 3 million stored touchpoints against none; 6 minutes, 4 GB of disk",
}
_ON_ALL_RECORDS = {"floor", "peer", "streams", "pipeline", "latency", "profile", "idle"}
_EXAMPLES = """examples:
  make bench                                               everything
  make bench ARGS="--only pipeline,idle --scale 0.25"      a quick look at CPU and bytes
  make bench ARGS="--only stack"                           what a laptop pays for `attributary up`
  make bench ARGS="--only pipeline --against HEAD~3"       the rate beside that of an earlier commit

figures:
"""


@dataclass(frozen=True)
class Work:
    """What lies in the input topics."""

    records: int
    truth: Truth


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure Attributary beside a floor job and peers, print a table, and keep it as JSON in "
        ".attributary/bench/latest.json. Judge by CPU and by ratios: rates and times mean something on a quiet "
        "machine only. Ends with 1 when a figure could not be measured or a promise was broken.",
        epilog=_EXAMPLES + "\n".join(f"  {name:<11}{text}" for name, text in FIGURES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only",
        default=",".join(FIGURES),
        metavar="FIGURE[,FIGURE...]",
        help="the figures to measure, see below; default: all",
    )
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
    if "stack" in wanted:  # on servers of its own
        measure_stack(report)
    if set(wanted) - {"models", "stack"} or revision:
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
    if not set(wanted) & (_ON_ALL_RECORDS | {"scale-out", "growth"}):
        return
    traffic = draw(report.scale)
    messages = encode(traffic)
    warm_up(servers, messages[:WARM_UP])
    if set(wanted) & _ON_ALL_RECORDS:
        load(bootstrap, messages)
        measure_jobs(servers, report, wanted, messages)
    if set(wanted) & {"pipeline", "latency", "profile", "idle"}:
        measure_pipeline(servers, report, wanted, Work(len(messages), traffic.truth))
    for figure, measured in (("scale-out", measure_scale_out), ("growth", measure_growth)):
        if figure in wanted:
            measure_runs(servers, report, figure, measured)


def measure_jobs(servers: BenchServers, report: Report, wanted: Sequence[str], messages: Sequence[Message]) -> None:
    """Measure what the pipeline is compared with."""
    if "floor" in wanted:
        measure_floor(servers, report, len(messages))
    for figure, name, run in (("peer", QUIX, run_peer), ("streams", STREAMS, run_streams)):
        if figure in wanted:
            measure_peer(report, name, partial(run, servers, messages))


def measure_runs(
    servers: BenchServers, report: Report, name: str, measured: Callable[[BenchServers, Report], None]
) -> None:
    """Measure what runs the pipeline several times."""
    try:
        measured(servers, report)
    except (PipelineError, ProcessFailedError) as error:
        report.miss(name, str(error))


def measure_publish(servers: BenchServers, report: Report) -> None:
    done = run_job("publish_job", {"bootstrap": servers.broker.bootstrap, "scale": report.scale / 2})
    rates = {name: done["records"] / done[f"{name}_seconds"] for name in ("bare", "hand", "client")}
    costs = {name: 1e6 * done[f"{name}_cpu_seconds"] / done["records"] for name in rates}
    bare, hand = "bare library", "library by hand"
    report.add(Figure(f"publish: {bare}", rates["bare"], "records/s"))
    report.add(Figure(f"publish: {hand}", rates["hand"], "records/s"))
    report.add(
        Figure("publish: client", rates["client"], "records/s", bare, rates["client"] / rates["bare"], detail=done)
    )
    report.add(Figure(f"publish CPU: {bare}", costs["bare"], "us/record"))
    report.add(Figure(f"publish CPU: {hand}", costs["hand"], "us/record", bare, costs["hand"] / costs["bare"]))
    report.add(Figure("publish CPU: client", costs["client"], "us/record", hand, costs["client"] / costs["hand"]))


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
    arguments = {"bootstrap": servers.broker.bootstrap, "dsn": dsn, "records": records}
    done = servers.measured(lambda: run_job("floor_job", arguments)) | {"records": records}
    report.add(Figure(FLOOR, records / done["seconds"], "events/s", detail=done))
    add_job_cost(report, FLOOR, done)


def measure_peer(report: Report, name: str, run: Callable[[], dict[str, Any]]) -> None:
    try:
        done = run()
    except (PeerUnavailableError, JobError) as error:
        report.miss(name, str(error))
        return
    report.add(Figure(name, done["records"] / done["seconds"], "events/s", detail=done))
    add_job_cost(report, name, done)


def add_job_cost(report: Report, name: str, done: dict[str, Any]) -> None:
    """CPU an event of a job with its servers, from its first record on."""
    if "server_seconds" in done:
        cost = (done["cpu_seconds"] + done["server_seconds"]) * 1e6 / done["records"]
        report.add(Figure(f"CPU: {name.removeprefix('peer: ')}", cost, "us/event"))


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
        for baseline, figure, share in ((FLOOR, FLOOR, FLOOR_SHARE), ("peer", QUIX, PEER_SHARE)):
            against = report.value(figure)
            if against is None:
                continue
            aim = f">= {share}" if name == "pipeline" and is_judged else ""
            report.add(
                Figure(f"{name} / {baseline}", rate, "events/s", figure, rate / against, aim, {"seconds": seconds})
            )
        if report.value(FLOOR) is None and report.value(QUIX) is None:
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
    for peer, share in CPU_SHARES.items():
        name = peer.removeprefix("peer: ")
        if (cost := report.value(f"CPU: {name}")) is not None:
            ratio = total / cost
            aim = f"<= {share}"
            report.add(Figure(f"CPU: all / {name}", total, "us/event", f"CPU: {name}", ratio, aim, met=ratio <= share))
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
