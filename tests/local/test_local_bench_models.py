"""The figures of the models can be measured, at a thousandth of their size and without any peer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.figures import Figure, Report
from benchmarks.models import PEERS, Case, Rival, measure_models

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_the_models_are_measured_without_broker_database_or_peer(tmp_path: Path) -> None:
    report = Report(scale=0.001)
    measure_models(tmp_path, report, sizes=((100_000, 200), (1_000_000, 50)), peers=())
    assert report.missing == {}
    values = {figure.name: figure.value for figure in report.figures}
    kinds = ("encoded", "memory", "memory strings", "memory order 2")
    assert list(values)[:10] == [
        *(f"100x200 {kind}" for kind in kinds),
        *(f"1,000x50 {kind}" for kind in kinds),
        "all models, batches of 1,000",
        "all models, batches of 100,000",
    ]
    assert all(value > 0 for name, value in values.items() if "memory" not in name)
    assert all(0 <= value < 300 for name, value in values.items() if "memory" in name)
    assert report.figures[4].detail["second_seconds"] > 0
    assert [figure.met for figure in report.figures[4:8]] == [None, True, True, True]  # times: of a million alone
    scored = [name for name in values if name.startswith("truth: ")]
    assert "truth: markov_shapley + baseline" in scored
    assert all(0 <= values[name] <= 1 for name in scored)
    assert list(tmp_path.iterdir()) == []  # nothing stays behind


def test_a_peer_is_not_asked_again_for_what_took_too_long(tmp_path: Path) -> None:
    rival = Rival(PEERS[0], "python", most=500_000, late=[(2, 10_000, 200)])
    asked = {
        (order, journeys, channels): rival.refusal(order, Case(tmp_path, journeys, channels, {}), 60.0)
        for order, journeys, channels in ((1, 10_000, 200), (2, 10_000, 50), (2, 100_000, 200), (1, 1_000_000, 10))
    }
    assert list(asked.values()) == [None, None, "left out, fewer took too long", "left out, it needs too much memory"]
    small = Case(tmp_path, 10, 10, {})
    assert rival.refusal(1, small, 0.5) == "left out, the time for peers is over"


def test_a_line_says_whether_its_aim_was_met_and_the_table_counts_them() -> None:
    report = Report(scale=1.0)
    for name, met in (("fast", True), ("small", False), ("plain", None)):
        report.figures.append(Figure(name, 1.0, "ms", "", None, "" if met is None else "<= 2", {}, met))
    lines = report.table().splitlines()
    assert [line.split()[-1] for line in lines[2:5]] == ["PASS", "MISS", "ms"]
    assert lines[5:] == ["aims met: 1 of 2", "missed: small"]
