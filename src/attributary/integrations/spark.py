"""The statistics of training on a Spark cluster (extra ``spark``): journeys that one machine cannot hold.

    from attributary.integrations.spark import fit_state
    state = fit_state(spark.read.parquet("s3a://journeys/2026"))

Invariant: the state is the one that `JourneyState.fit` makes of the whole table on one machine, bit by bit. It is a sum
of whole numbers over journeys, so each partition is counted where it lies, and the sums of partitions are added in
whatever order the cluster likes. Partitions pass through Arrow batch by batch (``mapInArrow``); a worker holds one
batch and one state, never its partition. The workers need this package, too.
"""

from __future__ import annotations

import importlib
import json
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from attributary.attribution_core.statistics.state import JourneyState
from attributary.attribution_core.tables.cells import TableError, check_columns
from attributary.attribution_core.tables.paths import NEEDED_OF_PATHS, OPTIONAL_OF_PATHS, read_paths

if TYPE_CHECKING:
    from pyarrow import RecordBatch

__all__ = ["SparkExtraMissingError", "fit_state"]

_SCHEMA = "state binary, error string"
_HELD = 16  # states of batches, before they become one


class SparkExtraMissingError(ImportError):
    """The extra ``spark`` is not installed."""


def fit_state(frame: Any, *, merge_tasks: int = 16) -> JourneyState:
    """Count the journeys of a frame on its cluster.

    Args:
        frame: a DataFrame of Spark with the columns of a table of paths: path (channels joined by ' > '),
            total_conversions, and, if known, total_conversion_value (units of currency) and total_null. One journey a
            row, or one distinct path a row. Values of several currencies must not be mixed.
        merge_tasks: so many tasks add up the states of all partitions; the driver adds up theirs.

    Returns:
        The state, from which models are built as from any other (``bounded().to_document()``).

    Raises:
        SparkExtraMissingError: PySpark or pyarrow is not installed.
        TableError: a column is missing, or a row breaks a rule; rows of a cluster have no number.
        ValueError: ``merge_tasks`` is below 1.
    """
    _check_installed()
    if merge_tasks < 1:
        raise ValueError(f"merge_tasks: must be at least 1, not {merge_tasks}")
    names = list(frame.columns)
    check_columns(dict.fromkeys(names, ()), "paths", NEEDED_OF_PATHS, OPTIONAL_OF_PATHS)
    used = frame.select(*[f"`{name}`" for name in (*NEEDED_OF_PATHS, *OPTIONAL_OF_PATHS) if name in names])
    counted = used.mapInArrow(_count, _SCHEMA)
    merged = counted.repartition(merge_tasks).mapInArrow(_merge, _SCHEMA)
    rows = merged.collect()
    if broken := sorted(row["error"] for row in rows if row["error"] is not None):
        raise TableError(broken[0])
    return _sum(_read(row["state"]) for row in rows)


def _check_installed() -> None:
    for name in ("pyspark", "pyarrow"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise SparkExtraMissingError(
                f"training on Spark needs the extra: pip install 'attributary[spark]' (missing: {error.name})"
            ) from None


def _count(batches: Iterator[RecordBatch]) -> Iterator[RecordBatch]:
    """Yield the state of a partition, or what is wrong with its first bad row."""
    held = [JourneyState.empty()]
    try:
        for batch in batches:
            table = read_paths(batch.to_pydict())
            held.append(JourneyState.fit(table.batch, table.outcomes))
            if len(held) > _HELD:
                held = [_sum(held)]
        total = _sum(held)
    except TableError as error:
        yield _row(None, error.rule)
    except ValueError as error:  # sums beyond 64 bits, or too many channels
        yield _row(None, str(error))
    else:
        yield _row(total)


def _merge(batches: Iterator[RecordBatch]) -> Iterator[RecordBatch]:
    """Yield the sum of some states; what is wrong with one of them is passed on."""
    total = JourneyState.empty()
    try:
        for batch in batches:
            for row in batch.to_pylist():
                if row["error"] is not None:
                    yield _row(None, row["error"])
                    return
                total = total.add(_read(row["state"]))
    except ValueError as error:
        yield _row(None, str(error))
    else:
        yield _row(total)


def _sum(states: Iterable[JourneyState]) -> JourneyState:
    return JourneyState.weighted_sum((1, state) for state in states)


def _row(state: JourneyState | None, error: str | None = None) -> RecordBatch:
    import pyarrow as pa  # noqa: PLC0415  # on the worker, which has it because Spark's Arrow needs it

    data = None if state is None else zlib.compress(json.dumps(state.to_document()).encode(), 1)
    return pa.RecordBatch.from_pydict({"state": pa.array([data], pa.binary()), "error": pa.array([error], pa.string())})


def _read(data: bytes) -> JourneyState:
    return JourneyState.from_document(json.loads(zlib.decompress(bytes(data))))
