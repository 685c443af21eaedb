"""The field's path format: one row per distinct path, with how often it ended how.

Columns ``path`` (channels joined by `` > ``), ``total_conversions``, and optionally ``total_conversion_value``
(currency units) and ``total_null``. Invariant: a row is either encoded exactly as it stands or refused with its number
and the rule; an empty path is a journey without touches, its conversions are kept as unattributed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import chain
from typing import Any

import numpy as np

from attributary.attribution_core.journeys import DIRECT, ChannelIndex, Codes, Ints, JourneyBatch, Outcomes

SEPARATOR = " > "
_MICROS = 1_000_000
_MAX_COUNT = 2**53


class TableError(ValueError):
    """A table of journeys that cannot be read; the text names row, column and rule."""


@dataclass(frozen=True, eq=False)
class JourneyTable:
    """Journeys and how they ended, ready for every model.

    Attributes:
        batch: the journeys; several rows may hold the same path.
        outcomes: conversions, journeys without, value.
        watched_until: int64[n], until when each journey was watched: its conversion, or as far as the data reach;
            microseconds UTC. None without real times, as in a path file: no model that needs time can be used.
    """

    batch: JourneyBatch
    outcomes: Outcomes
    watched_until: Ints | None = None

    @property
    def timed(self) -> bool:
        """Whether the times are real."""
        return self.watched_until is not None


def read_paths(columns: Mapping[str, Iterable[Any]], separator: str = SEPARATOR) -> JourneyTable:
    """Encode the columns of a path table.

    Args:
        columns: by name; any mapping of columns, so a dict of lists as well as a pandas or polars frame.
        separator: between the channels of a path.

    Raises:
        TableError: when a column is missing or a value is no count, no amount or no path.
    """
    if "path" not in columns or "total_conversions" not in columns:
        raise TableError("paths: the columns path and total_conversions are needed")
    texts = ["" if _missing(path) else path for path in columns["path"]]
    for row, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise TableError(f"row {row}: path must be text")
    conversions = _counts(columns, "total_conversions", len(texts))
    nulls = _counts(columns, "total_null", len(texts))
    values = _amounts(columns, "total_conversion_value", len(texts))
    if bool(((conversions == 0) & (values != 0)).any()):
        row = int(np.flatnonzero((conversions == 0) & (values != 0))[0]) + 1
        raise TableError(f"row {row}: total_conversion_value without total_conversions")
    return JourneyTable(encode_paths(texts, separator), Outcomes(conversions, nulls, values))


def encode_paths(texts: Sequence[str], separator: str = SEPARATOR) -> JourneyBatch:
    """Encode joined paths; the touches get the times 0, 1, 2, ..., for the order is all that is known."""
    tokens = [text.split(separator) if text else [] for text in texts]
    lengths = np.fromiter(map(len, tokens), dtype=np.int64, count=len(tokens))
    offsets = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)))
    touches = int(offsets[-1])
    index = ChannelIndex.of(set(chain.from_iterable(tokens)))
    if "" in index.names:
        raise TableError(f"row {next(row for row, path in enumerate(tokens, start=1) if '' in path)}: empty channel")
    codes: Codes = np.fromiter(map(index.codes.__getitem__, chain.from_iterable(tokens)), dtype=np.int32, count=touches)
    return JourneyBatch(
        offsets=offsets,
        channels=codes,
        times=np.arange(touches, dtype=np.int64) - np.repeat(offsets[:-1], lengths),
        converted_at=np.maximum(lengths - 1, 0),
        direct=codes == index.code(DIRECT),
        index=index,
    )


def _missing(value: Any) -> bool:
    """Tell whether a cell is empty: None, or the NaN that frames put in its place."""
    return value is None or (isinstance(value, float) and value != value)  # noqa: PLR0124  # NaN is not itself


def _counts(columns: Mapping[str, Iterable[Any]], name: str, rows: int) -> Ints:
    if name not in columns:
        return np.zeros(rows, dtype=np.int64)
    counts = np.zeros(rows, dtype=np.int64)
    for row, (cell, place) in enumerate(zip(columns[name], range(rows), strict=True), start=1):
        try:
            number = Decimal(0) if _missing(cell) or cell == "" else Decimal(str(cell))
            whole = int(number)
        except (InvalidOperation, ValueError, OverflowError) as error:
            raise TableError(f"row {row}: {name} must be a whole number") from error
        if whole != number or not 0 <= whole <= _MAX_COUNT:
            raise TableError(f"row {row}: {name} must be a whole number, not negative")
        counts[place] = whole
    return counts


def _amounts(columns: Mapping[str, Iterable[Any]], name: str, rows: int) -> Ints:
    if name not in columns:
        return np.zeros(rows, dtype=np.int64)
    amounts = np.zeros(rows, dtype=np.int64)
    for row, (cell, place) in enumerate(zip(columns[name], range(rows), strict=True), start=1):
        amounts[place] = amount_micros(cell, f"row {row}: {name}")
    return amounts


def amount_micros(cell: Any, place: str) -> int:
    """Return an amount of currency units in micros, rounded half to even beyond the sixth decimal; 0 for an empty cell.

    Raises:
        TableError: when the cell is no finite number, or too large for 64 bits.
    """
    try:
        number = Decimal(0) if _missing(cell) or cell == "" else Decimal(str(cell))
        micros = int((number * _MICROS).to_integral_value())
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise TableError(f"{place} must be a number") from error
    if abs(micros) > 2**62:
        raise TableError(f"{place} is too large")
    return micros
