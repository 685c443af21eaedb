"""Figure `scale-out`: what an event costs with two and with four processes of each stage, against one.

Contract: the stages run and have their partitions before the first record is published, as they would when load comes;
the same records each time, on empty topics and an empty database. The order is 1, 2, 4, 4, 2, 1 and the lesser cost of
two runs counts, so that a machine that is disturbed for a while favours no side. CPU is that of stages and server; the
broker is left out, because its compiler makes its part differ from run to run.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from benchmarks.figures import Figure, Report
from benchmarks.pipeline import Pipeline, run_pipeline
from benchmarks.workload import draw, encode, load, produce

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.environment_setup import BenchServers
    from benchmarks.workload import Message

SCALE = 0.4  # of the pipeline's work: six runs
ORDER = (1, 2, 4, 4, 2, 1)
AIMS = {2: 1.05, 4: 1.1}  # times the cost of one process of each stage
MOST_OF_ONE = 0.6  # of the records, of two stitchers
RESULTS_AIM = 1.1  # times the results a conversion of one process


def measure_scale_out(servers: BenchServers, report: Report) -> None:
    """Add cost, share of the busiest stitcher and results per conversion for each number of processes."""
    traffic = draw(SCALE * report.scale)
    messages = encode(traffic)
    costs: dict[int, list[float]] = defaultdict(list)
    results: dict[int, list[float]] = defaultdict(list)
    shares: dict[int, list[float]] = defaultdict(list)
    for processes in ORDER:
        cost, emitted, share = _run(servers, messages, processes)
        costs[processes].append(cost)
        results[processes].append(emitted / traffic.truth.conversions)
        shares[processes].append(share)
    add_scale_out(report, costs, results, shares)


def add_scale_out(
    report: Report,
    costs: dict[int, list[float]],
    results: dict[int, list[float]],
    shares: dict[int, list[float]],
) -> None:
    """Add the figures of what was measured: by number of processes one value a run."""
    one = min(costs[1])
    report.add(Figure("scale-out: 1 process a stage", one, "us/event", detail={"runs": costs[1]}))
    for processes, aim in AIMS.items():
        value = min(costs[processes])
        name = f"scale-out: {processes} processes"
        detail = {"runs": costs[processes], "results per conversion": results[processes]}
        ratio = value / one
        report.add(Figure(name, value, "us/event", "1 process a stage", ratio, f"<= {aim}", detail, met=ratio <= aim))
        ratio = min(results[processes]) / min(results[1])
        report.add(
            Figure(
                f"scale-out: {processes}, results",
                min(results[processes]),
                "/conversion",
                "1 process a stage",
                ratio,
                f"<= {RESULTS_AIM}",
                met=ratio <= RESULTS_AIM,
            )
        )
    busiest = max(shares[2])
    report.add(
        Figure(
            "scale-out: busier of 2 stitchers",
            busiest,
            "of records",
            aim=f"<= {MOST_OF_ONE}",
            detail={"of 4": shares[4]},
            met=busiest <= MOST_OF_ONE,
        )
    )


def _run(servers: BenchServers, messages: Sequence[Message], processes: int) -> tuple[float, float, float]:
    """Microseconds of CPU an event without the broker, results emitted, share of the busiest stitcher."""
    bootstrap = servers.broker.bootstrap
    load(bootstrap, ())  # empty topics
    with run_pipeline(servers, servers.new_database("bench_scale_out"), processes=processes) as pipeline:
        pipeline.wait_for_partitions(bootstrap, processes)
        run = pipeline.work_through(len(messages), lambda: produce(bootstrap, messages))
        seconds = sum(used for name, used in run.cpu_seconds.items() if not name.startswith("Kafka"))
        emitted = pipeline.total("attributor", "attribution_results_emitted_total")
        return seconds * 1e6 / len(messages), emitted, _busiest(pipeline, processes)


def _busiest(pipeline: Pipeline, processes: int) -> float:
    names = ["stitcher", *(f"stitcher-{number}" for number in range(1, processes))]
    read = [pipeline.own_total(name, "attribution_records_consumed_total") for name in names]
    return max(read) / sum(read)
