"""The field's path format: one row per distinct path, with how often it ended how.

Columns ``path`` (channels joined by `` > ``), ``total_conversions``, and optionally ``total_conversion_value``
(currency units) and ``total_null``. Invariant: a row is either encoded exactly as it stands or refused with its number
and the rule; an empty path is a journey without touches, its conversions are kept as unattributed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np

from attributary.attribution_core.cells import is_missing
from attributary.attribution_core.journeys import (
    DIRECT,
    ChannelIndex,
    Codes,
    Ints,
    JourneyBatch,
    JourneyError,
    Outcomes,
)
from attributary.attribution_core.money import MAX_VALUE_MICROS

SEPARATOR = " > "
_MICROS = 1_000_000
_MAX_COUNT = 2**53
_CLEAR_MICROS = 1e15
_PATHS = 4096  # cut at a time


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
        TableError: when a column is missing, a value is no count, no amount or no path, or all of them together are
            more than 64 bits hold.
    """
    if "path" not in columns or "total_conversions" not in columns:
        raise TableError("paths: the columns path and total_conversions are needed")
    texts = list(columns["path"])
    if set(map(type, texts)) - {str}:
        texts = ["" if is_missing(path) else path for path in texts]
    if set(map(type, texts)) - {str}:
        row = next(row for row, text in enumerate(texts, start=1) if not isinstance(text, str))
        raise TableError(f"row {row}: path must be text")
    conversions = _counts(columns, "total_conversions", len(texts))
    nulls = _counts(columns, "total_null", len(texts))
    values = _amounts(columns, "total_conversion_value", len(texts))
    if bool(((conversions == 0) & (values != 0)).any()):
        row = int(np.flatnonzero((conversions == 0) & (values != 0))[0]) + 1
        raise TableError(f"row {row}: total_conversion_value without total_conversions")
    try:
        outcomes = Outcomes(conversions, nulls, values)
    except JourneyError as error:
        raise TableError(f"paths: {error}") from error
    return JourneyTable(encode_paths(texts, separator), outcomes)


class _Numbering(dict[str, int]):
    """Numbers names in the order in which they are asked for."""

    def __missing__(self, name: str) -> int:
        number = self[name] = len(self)
        return number


def encode_paths(texts: Sequence[str], separator: str = SEPARATOR) -> JourneyBatch:
    """Encode joined paths; the touches get the times 0, 1, 2, ..., for the order is all that is known.

    Some thousand paths are cut at a time, so that no more than these exist as single names.

    Raises:
        TableError: when a channel is empty.
    """
    lengths = np.fromiter((text.count(separator) + 1 if text else 0 for text in texts), np.int64, len(texts))
    offsets = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)))
    touches = int(offsets[-1])
    numbers = _Numbering()
    found = np.empty(touches, dtype=np.int32)
    for start in range(0, len(texts), _PATHS):
        low, high = int(offsets[start]), int(offsets[min(start + _PATHS, len(texts))])
        if high > low:
            names = separator.join([text for text in texts[start : start + _PATHS] if text]).split(separator)
            found[low:high] = np.fromiter(map(numbers.__getitem__, names), dtype=np.int32, count=high - low)
    if "" in numbers:
        place = int(np.flatnonzero(found == numbers[""])[0])
        raise TableError(f"row {int(np.searchsorted(offsets, place, side='right'))}: empty channel")
    index = ChannelIndex.of(numbers)
    codes: Codes = index.encode(list(numbers))[found] if touches else found
    return JourneyBatch(
        offsets=offsets,
        channels=codes,
        times=np.arange(touches, dtype=np.int64) - np.repeat(offsets[:-1], lengths),
        converted_at=np.maximum(lengths - 1, 0),
        direct=codes == index.code(DIRECT),
        index=index,
    )


def _counts(columns: Mapping[str, Iterable[Any]], name: str, rows: int) -> Ints:
    if name not in columns:
        return np.zeros(rows, dtype=np.int64)
    cells = list(columns[name])
    if len(cells) != rows:
        raise TableError(f"{name} must have one entry per row")
    try:
        if not set(map(type, cells)) <= {int, str}:
            raise ValueError  # noqa: TRY301  # floats and missing cells are looked at one by one
        counts = np.fromiter(map(int, cells), dtype=np.int64, count=rows)
    except (ValueError, OverflowError):
        counts = np.array([_count(cell, f"row {row}: {name}") for row, cell in enumerate(cells, 1)], dtype=np.int64)
    wrong = (counts < 0) | (counts > _MAX_COUNT)
    if wrong.any():
        raise TableError(f"row {int(np.flatnonzero(wrong)[0]) + 1}: {name} must be a whole number, not negative")
    return counts


def _count(cell: Any, place: str) -> int:
    try:
        number = Decimal(0) if is_missing(cell) or cell == "" else Decimal(str(cell))
        whole = int(number)
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise TableError(f"{place} must be a whole number") from error
    if whole != number or not 0 <= whole <= _MAX_COUNT:
        raise TableError(f"{place} must be a whole number, not negative")
    return whole


def _amounts(columns: Mapping[str, Iterable[Any]], name: str, rows: int) -> Ints:
    if name not in columns:
        return np.zeros(rows, dtype=np.int64)
    cells = list(columns[name])
    if len(cells) != rows:
        raise TableError(f"{name} must have one entry per row")
    try:
        scaled = np.fromiter(map(float, cells), dtype=np.float64, count=rows) * _MICROS
    except (TypeError, ValueError):
        return np.array(
            [amount_micros(cell, f"row {row}: {name}") for row, cell in enumerate(cells, 1)], dtype=np.int64
        )
    # A float holds an amount below a billion with up to six decimals closely enough to tell its micros. What is larger,
    # or has more decimals, or is no number, is looked at as it is written.
    with np.errstate(invalid="ignore"):
        micros = np.rint(scaled)
        clear = (np.abs(scaled) < _CLEAR_MICROS) & (np.abs(scaled - micros) < 1e-3)
    amounts = np.where(clear, micros, 0).astype(np.int64)
    for place in np.flatnonzero(~clear).tolist():
        amounts[place] = amount_micros(cells[place], f"row {place + 1}: {name}")
    return amounts


def amount_micros(cell: Any, place: str) -> int:
    """Return an amount of currency units in micros, rounded half to even beyond the sixth decimal; 0 for an empty cell.

    Raises:
        TableError: when the cell is no finite number, or beyond 2^62 micros.
    """
    try:
        number = Decimal(0) if is_missing(cell) or cell == "" else Decimal(str(cell))
        micros = int((number * _MICROS).to_integral_value())
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise TableError(f"{place} must be a number") from error
    if abs(micros) > MAX_VALUE_MICROS:
        raise TableError(f"{place} is too large: more than 2^62 micros, 4.6e12 units of currency")
    return micros
