"""The statistics of training on Spark are those of one machine, bit by bit.

PySpark is 400 MB and no part of the development requirements: without the extra these tests are skipped, and say so.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from attributary.attribution_core.models.model_set import TrainedState, model_set
from attributary.attribution_core.statistics.state import JourneyState
from attributary.attribution_core.tables.paths import TableError, read_paths
from attributary.integrations.spark import SparkExtraMissingError, fit_state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMES = ["ads", "mail", "direct", "shop", "social", "video"]


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("attributary.integrations.spark.importlib.import_module", missing)
    with pytest.raises(SparkExtraMissingError, match=r"pip install 'attributary\[spark\]' \(missing: pyspark\)"):
        fit_state(None)


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    sql = pytest.importorskip("pyspark.sql", reason="NOT TESTED: the extra spark is not installed (attributary[spark])")
    if shutil.which("java") is None:
        pytest.skip("NOT TESTED: Spark needs Java")
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # the workers need this package, too
    builder = sql.SparkSession.builder.master("local[2]").appName("attributary-tests")
    settings = {
        "spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "4", "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1", "spark.sql.execution.arrow.maxRecordsPerBatch": "500",
    }  # fmt: skip
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    yield session
    session.stop()


def journeys(number: int, seed: int) -> dict[str, list[Any]]:
    rng = np.random.default_rng(seed)
    ended = rng.integers(0, 2, size=number)
    return {
        "path": [" > ".join(rng.choice(NAMES, size=rng.integers(0, 7))) for _ in range(number)],
        "total_conversions": ended.tolist(),
        "total_conversion_value": (rng.integers(1, 10**9, size=number) / 1e6 * ended).round(6).tolist(),
        "total_null": (1 - ended).tolist(),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    home = tmp_path / "journeys"
    home.mkdir()
    for part in range(5):
        parquet.write_table(
            arrow.table(journeys(3_000 + part, part)), home / f"part-{part}.parquet", row_group_size=700
        )
    return home


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tasks", [1, 5])
def test_a_cluster_and_one_machine_count_the_same_bits(spark: Any, folder: Path, tasks: int) -> None:
    frame = spark.read.parquet(str(folder)).repartition(7)
    assert frame.rdd.getNumPartitions() == 7
    state = fit_state(frame, merge_tasks=tasks)
    parts = [journeys(3_000 + part, part) for part in range(5)]
    whole = read_paths({name: [cell for part in parts for cell in part[name]] for name in parts[0]})
    local = JourneyState.fit(whole.batch, whole.outcomes)
    assert json.dumps(state.to_document()) == json.dumps(local.to_document())
    assert state.conversions + state.nulls == sum(3_000 + part for part in range(5))
    model_set(["markov"], {"markov": TrainedState("1", state.bounded().to_document(), {})})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_is_wrong_with_a_row_comes_back_as_our_error(spark: Any) -> None:
    rows = [("a > b", 1), ("a", 0)] * 50 + [("a >  > b", 1)]
    with pytest.raises(TableError, match=r"^path: "):
        fit_state(spark.createDataFrame(rows, "path string, total_conversions int"))
    with pytest.raises(TableError, match="column path is missing"):
        fit_state(spark.createDataFrame([(1,)], "total_conversions int"))
    with pytest.raises(ValueError, match="merge_tasks"):
        fit_state(spark.createDataFrame(rows, "path string, total_conversions int"), merge_tasks=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_no_journeys_are_the_empty_state(spark: Any) -> None:
    empty = spark.createDataFrame([], "path string, total_conversions int")
    assert fit_state(empty) == JourneyState.empty()
