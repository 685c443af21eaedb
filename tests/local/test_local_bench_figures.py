"""The bench's figures of many processes and of a history: which run counts, what is in a ratio, when an aim is met."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.__main__ import FIGURES, add_job_cost
from benchmarks.environment_setup import ROOT
from benchmarks.figures import Report
from benchmarks.growth import add_growth
from benchmarks.pipeline import Run, value_of
from benchmarks.revision import add_cost
from benchmarks.scale_out import add_scale_out
from benchmarks.whole_stack import add_idle, add_results, add_stack, by_process


def ratios(report: Report) -> dict[str, tuple[float, bool | None]]:
    return {each.name: (round(each.ratio, 3), each.met) for each in report.figures if each.ratio is not None}


def test_more_processes_are_compared_by_the_lesser_cost_of_their_runs() -> None:
    report = Report(1.0)
    add_scale_out(
        report,
        {1: [120.0, 100.0], 2: [104.0, 150.0], 4: [130.0, 125.0]},
        {1: [1.2, 1.2], 2: [1.26, 1.3], 4: [1.5, 1.5]},
        {1: [1.0], 2: [0.5, 0.55], 4: [0.3, 0.25]},
    )
    assert ratios(report) == {
        "scale-out: 2 processes": (1.04, True),
        "scale-out: 2, results": (1.05, True),
        "scale-out: 4 processes": (1.25, False),
        "scale-out: 4, results": (1.25, False),
    }
    assert report.value("scale-out: busier of 2 stitchers") == 0.55


def test_two_stitchers_that_share_topics_and_not_people_miss_the_aim() -> None:
    report = Report(1.0)
    add_scale_out(
        report,
        {1: [100.0], 2: [180.0], 4: [190.0]},
        {1: [1.15], 2: [3.77], 4: [2.67]},
        {1: [1.0], 2: [0.91], 4: [0.66]},
    )
    assert not any(figure.met for figure in report.figures if figure.met is not None)


def run(stitcher: float, postgres: float, wal: int) -> Run:
    return Run(1.0, 1.0, wal, 0, {"stitcher": stitcher, "Postgres": postgres, "Kafka": 9.0})


def test_growth_compares_the_lesser_costs_and_judges_postgres_alone() -> None:
    report = Report(1.0)
    add_growth(
        report,
        {False: [(run(0.2, 0.1, 1_000), 1_000), (run(0.1, 0.2, 1_500), 1_000)],
         True: [(run(0.3, 0.13, 2_000), 1_000), (run(0.11, 0.3, 4_000), 1_000)]},
    )  # fmt: skip
    assert ratios(report) == {
        "growth: Postgres": (1.3, False),
        "growth: stages": (1.1, None),
        "growth: WAL": (2.0, None),
    }


def test_an_earlier_revision_is_compared_by_the_least_cpu_of_its_turns() -> None:
    report = Report(1.0)
    add_cost(
        report,
        "abc",
        {"now": [run(0.04, 0.2, 0), run(0.02, 0.3, 0)], "then": [run(0.04, 0.2, 0), run(0.05, 0.25, 0)]},
        1_000,
    )
    assert ratios(report) == {
        "CPU: stitcher / abc": (0.5, None),
        "CPU: Postgres / abc": (1.0, None),
        "CPU: Kafka / abc": (1.0, None),
    }


def test_backends_of_a_process_are_one_figure_and_the_trainer_has_all_of_its_own() -> None:
    seconds = by_process(
        {
            "trainer": 0.1,
            "Postgres for trainer-state (12)": 0.2,
            "Postgres for trainer-state (13)": 0.3,
            "Postgres for stitcher (14)": 1.0,
            "stand-ins": 5.0,
        }
    )
    assert seconds["Postgres for trainer-state"] == pytest.approx(0.5)
    report = Report(1.0)
    add_stack(report, seconds | {"training state at the end": 0.4}, 100_000)
    assert report.value("stack: trainer, in all") == pytest.approx(10.0)
    assert report.value("stack: all") == pytest.approx(20.0), "stand-ins are no part of the stack"
    assert all(figure.met for figure in report.figures if figure.met is not None)


def test_auditor_and_reporter_stand_beside_each_other_by_result() -> None:
    report = Report(1.0)
    add_results(report, {"auditor": 0.2, "reporter": 0.3, "Postgres for reporter": 0.5}, 1_000.0)
    assert report.value("stack: auditor, a result") == pytest.approx(200.0)
    assert report.value("stack: reporter, a result") == pytest.approx(300.0)
    assert report.value("stack: Postgres for reporter, a result") == pytest.approx(500.0)


def test_idle_cores_are_judged_by_their_sum(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(1.0)
    add_idle(report, {"Kafka": 2.4, "stitcher": 1.2, "api": 0.0}, 30.0)
    assert report.value("stack: idle") == pytest.approx(0.12)
    assert report.figures[0].met is False
    assert "Kafka 0.0800" in capsys.readouterr().out


def test_the_cost_of_a_job_has_its_servers_in_it_and_is_left_out_where_nobody_tells() -> None:
    report = Report(1.0)
    add_job_cost(report, "peer: Kafka Streams", {"cpu_seconds": 1.0, "server_seconds": 0.5, "records": 10_000})
    assert report.value("CPU: Kafka Streams") == pytest.approx(150.0)
    add_job_cost(report, "peer: Quix Streams 3", {"cpu_seconds": 1.0, "records": 10_000})
    assert report.value("CPU: Quix Streams 3") is None


def test_a_counter_is_summed_over_its_labels() -> None:
    samples = {("read", (("topic", "a"),)): 2.0, ("read", (("topic", "b"),)): 3.0, ("written", ()): 7.0}
    assert value_of(samples, "read") == 5.0


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_help_names_every_figure_and_an_unknown_one_is_refused() -> None:
    told = bench("--help")
    assert told.returncode == 0
    assert all(f"\n  {name}" in told.stdout for name in FIGURES)
    refused = bench("--only", "pipeline,idel")
    assert refused.returncode == 2
    assert "idel is not one of" in refused.stderr
