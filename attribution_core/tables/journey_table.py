"""Data as people hold it (columns, rows, frames) as one table of journeys.

Invariant: what decides between a table of paths and one of events is the names of the columns alone: with ``path`` it
is the former, with ``user``, ``time`` and ``channel`` the latter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from attributary.attribution_core.tables.cells import TableError, check_once, column_names, listed, suggestion
from attributary.attribution_core.tables.events import NEEDED_OF_EVENTS, read_events
from attributary.attribution_core.tables.paths import NEEDED_OF_PATHS, JourneyTable, read_paths

Columns = Mapping[str, Iterable[Any]]
Rows = Sequence[Mapping[str, Any]]


def read_table(data: JourneyTable | Columns | Rows, *, lookback_micros: int | None = None) -> JourneyTable:
    """Return the journeys of a table, whatever it is held in.

    Args:
        data: an encoded table (returned as it is), columns by name (a dict; a frame of pandas, polars or pyarrow), or
            rows (a list of dicts).
        lookback_micros: touches earlier than this before their journey's end do not count; for events only.

    Raises:
        TableError: when the data cannot be read; the text names the row.
        TypeError: when they are of another kind.
    """
    if isinstance(data, JourneyTable):
        return data
    columns = _of_rows(data) if isinstance(data, (list, tuple)) else _of_columns(data)
    names = column_names(columns)
    if "path" in columns:
        if lookback_micros is not None:
            raise TableError("a lookback needs times; a table of paths has none")
        return read_paths(columns)
    if all(name in columns for name in NEEDED_OF_EVENTS):
        return read_events(columns, lookback_micros=lookback_micros)
    near = [suggestion(name, names) for name in (*NEEDED_OF_PATHS, *NEEDED_OF_EVENTS) if name not in columns]
    raise TableError(
        f"columns must be path and total_conversions, or user, time and channel{listed(names)}"
        + next((hint for hint in near if hint), "")
    )


def _of_columns(data: Any) -> Columns:
    if hasattr(data, "column_names") and hasattr(data, "to_pydict"):  # pyarrow: its tables know no `in`
        names = list(data.column_names)
        check_once(names)
        found: Columns = data.to_pydict()
        return found
    text = isinstance(data, (str, bytes, bytearray, np.ndarray))
    if text or not (hasattr(data, "__contains__") and hasattr(data, "__getitem__")):
        raise TypeError(
            "data: must be columns by name (a dict, a pandas, polars or pyarrow frame) or a list of rows (dicts), not "
            f"{type(data).__name__}; files are read by `attributary analyze FILE`"
        )
    columns: Columns = data
    return columns


def _of_rows(rows: Sequence[Any]) -> Columns:
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise TypeError(f"data: row {number} must be a mapping of names to cells, not {type(row).__name__}")
    names = list(dict.fromkeys(name for row in rows for name in row))
    # What every row needs; a row of events without a channel may be a conversion, and says so if it is neither.
    needed = NEEDED_OF_PATHS if "path" in names else ("user", "time")
    for name in needed:
        for number, row in enumerate(rows, start=1):
            if name in names and name not in row:
                raise TableError(f"{name}: the key is missing; the row has {', '.join(map(str, row))}", row=number)
    return {name: [row.get(name) for row in rows] for name in names}
