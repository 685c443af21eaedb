"""The figures of the models can be measured, at a thousandth of their size and without any peer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.bench.figures import Report
from tests.bench.models import SECOND_ORDER_CHANNELS, measure_models

if TYPE_CHECKING:
    from pathlib import Path


def test_the_models_are_measured_without_broker_database_or_peer(tmp_path: Path) -> None:
    report = Report(scale=0.001)
    measure_models(tmp_path, report, sizes=((100_000, 200), (1_000_000, SECOND_ORDER_CHANNELS)), peers=())
    assert report.missing == {}
    values = {figure.name: figure.value for figure in report.figures}
    assert list(values) == [
        "100x200 encoded",
        "1,000x50 encoded",
        "1,000x50 memory",
        "all models, batches of 1,000",
        "all models, batches of 100,000",
    ]
    assert all(value > 0 for name, value in values.items() if "memory" not in name)
    assert 0 <= values["1,000x50 memory"] < 300
    assert report.figures[1].detail["second_seconds"] > 0
    assert list(tmp_path.iterdir()) == []  # nothing stays behind
