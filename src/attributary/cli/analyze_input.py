"""What `attributary analyze` reads: a CSV or Parquet file as a table of journeys, or its columns."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attributary.attribution_core.paths import JourneyTable

_MICROS_PER_DAY = 86_400_000_000


def read_journeys(file: Path, lookback_days: float | None) -> "JourneyTable":
    """Return the journeys of a CSV or Parquet file, a table of paths or of events.

    Args:
        file: which.
        lookback_days: event tables: older touches do not count; None: no limit.

    Raises:
        TableError: it cannot be read as either.
    """
    from attributary.attribution_core.events import read_events
    from attributary.attribution_core.paths import TableError, read_paths

    columns = _parquet(file) if file.suffix.lower() in {".parquet", ".pq"} else read_csv(file)
    if "path" in columns:
        if lookback_days is not None:
            raise TableError("--lookback-days needs times; a table of paths has none")
        return read_paths(columns)
    if {"user", "time", "channel"} <= set(columns):
        lookback = None if lookback_days is None else round(lookback_days * _MICROS_PER_DAY)
        return read_events(columns, lookback_micros=lookback)
    raise TableError("columns must be path and total_conversions, or user, time and channel")


def read_csv(file: Path) -> dict[str, list[Any]]:
    """Return the columns of a CSV file.

    Raises:
        TableError: a row has more or fewer cells than there are columns.
    """
    from attributary.attribution_core.paths import TableError

    with file.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.reader(lines)
        names = [name.strip() for name in next(reader, [])]
        rows = [row for row in reader if row]
    for number, row in enumerate(rows, start=1):
        if len(row) != len(names):
            raise TableError(f"row {number}: {len(row)} cells, but {len(names)} columns")
    cells = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    return {name: list(column) for name, column in zip(names, cells, strict=True)}


def _parquet(file: Path) -> dict[str, list[Any]]:
    from attributary.attribution_core.paths import TableError

    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise TableError("Parquet needs pyarrow: install attributary[parquet]") from error
    try:
        columns: dict[str, list[Any]] = parquet.read_table(file).to_pydict()
    except ArrowException as error:
        raise TableError(f"no Parquet file ({error})") from error
    return columns
