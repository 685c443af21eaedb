"""The field's path format: one row per distinct path, with how often it ended how.

Columns ``path`` (channels joined by `` > ``), ``total_conversions``, and optionally ``total_conversion_value``
(currency units) and ``total_null``. Invariant: a row is either encoded as it stands, without the blanks around each
channel, or refused with its number, the column and the rule; an empty path is a journey without touches, its
conversions are kept as unattributed; an empty count or amount is 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from attributary.attribution_core.domain.amounts import is_plain, plain_decimal
from attributary.attribution_core.domain.journeys import (
    ChannelIndex,
    Codes,
    Ints,
    JourneyBatch,
    JourneyError,
    Outcomes,
)
from attributary.attribution_core.domain.limits import LARGEST
from attributary.attribution_core.domain.money import MAX_VALUE_MICROS
from attributary.attribution_core.tables.cells import (
    TableError,
    broken_rule,
    cells_of,
    check_columns,
    is_missing,
    quoted,
)
from attributary.attribution_core.tables.table_checks import path_notes

__all__ = ["SEPARATOR", "JourneyTable", "PathSums", "TableError", "amount_micros", "encode_paths", "read_paths"]

SEPARATOR = " > "
NEEDED_OF_PATHS = ("path", "total_conversions")
OPTIONAL_OF_PATHS = ("total_conversion_value", "total_null")
_MICROS = 1_000_000
_MAX_COUNT = 2**53
_CLEAR_MICROS = 1e15
_PATHS = 4096  # cut at a time


@dataclass(frozen=True, eq=False)
class JourneyTable:
    """Journeys and how they ended, ready for every model.

    Attributes:
        batch: the journeys; several rows may hold the same path.
        outcomes: conversions, journeys without, value.
        watched_until: int64[n], until when each journey was watched: its conversion, or as far as the data reach;
            microseconds UTC. None without real times, as in a path file: no model that needs time can be used.
        notes: what a reader of the numbers should know about how the table was read.
        lookback_micros: touches older than this at the end of their journey were left out; None: none were.
    """

    batch: JourneyBatch
    outcomes: Outcomes
    watched_until: Ints | None = None
    notes: tuple[str, ...] = ()
    lookback_micros: int | None = None

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
    texts, outcomes, notes = _read_columns(columns)
    batch = encode_paths(texts, separator)
    return JourneyTable(batch, outcomes, notes=(*notes, *path_notes(batch, outcomes, separator)))


class PathSums:
    """The sums of a path table by distinct path, for tables that do not fit into memory.

    Every model is a function of how often each path ended how, so the sums give the numbers of the whole table. What is
    held grows with the distinct paths, not with the rows. Rows are added in parts; the order of the parts only decides
    the order of the paths.
    """

    def __init__(self) -> None:
        self._places = _Numbering()
        self._sums = np.zeros((3, 1_024), dtype=np.int64)
        self._all = [0, 0, 0]  # beyond 64 bits, so that a sum that does not fit is refused before it is made
        self._notes: dict[str, None] = {}

    def __len__(self) -> int:
        """Return the number of distinct paths."""
        return len(self._places)

    def add(self, columns: Mapping[str, Iterable[Any]]) -> int:
        """Add some rows of the table, as columns of `read_paths`; return their number.

        Raises:
            TableError: as `read_paths` does; rows are counted from the first of these.
        """
        texts, outcomes, notes = _read_columns(columns)
        if new := [text for text in dict.fromkeys(texts) if text not in self._places]:
            try:
                encode_paths(new)
            except TableError:
                encode_paths(texts)  # says which row
                raise
        parts = (outcomes.conversions, outcomes.nulls, outcomes.value_micros)
        counted = [before + int(np.abs(part).sum()) for before, part in zip(self._all, parts, strict=True)]
        if max(counted) > LARGEST:
            raise TableError("paths: all of them together are more than 64 bits hold")
        places = np.fromiter(map(self._places.__getitem__, texts), dtype=np.int64, count=len(texts))
        if (missing := len(self._places) - self._sums.shape[1]) > 0:
            grown = max(missing, self._sums.shape[1])
            self._sums = np.concatenate((self._sums, np.zeros((3, grown), dtype=np.int64)), axis=1)
        for sums, part in zip(self._sums, parts, strict=True):
            np.add.at(sums, places, part)
        self._all = counted
        self._notes |= dict.fromkeys(notes)
        return len(texts)

    def table(self) -> JourneyTable:
        """Return the table with one row a distinct path.

        Raises:
            TableError: the sums are more than the models take.
        """
        try:
            outcomes = Outcomes(*(part[: len(self)].copy() for part in self._sums))
        except JourneyError as error:
            raise TableError(f"paths: {error}") from error
        batch = encode_paths(list(self._places))
        return JourneyTable(batch, outcomes, notes=(*self._notes, *path_notes(batch, outcomes, SEPARATOR)))


def _read_columns(columns: Mapping[str, Iterable[Any]]) -> tuple[list[str], Outcomes, tuple[str, ...]]:
    """Return the paths as text, how they ended, and notes on the columns."""
    notes = check_columns(columns, "paths", NEEDED_OF_PATHS, OPTIONAL_OF_PATHS)
    texts = cells_of(columns, "path")
    if set(map(type, texts)) - {str}:
        texts = ["" if is_missing(path) else str(path) if isinstance(path, str) else path for path in texts]
    if set(map(type, texts)) - {str}:
        row = next(row for row, text in enumerate(texts, start=1) if not isinstance(text, str))
        raise TableError(f"path: must be text, not {quoted(texts[row - 1])}", row=row)
    conversions = _counts(columns, "total_conversions", len(texts))
    nulls = _counts(columns, "total_null", len(texts))
    values = _amounts(columns, "total_conversion_value", len(texts))
    if bool(((conversions == 0) & (values != 0)).any()):
        row = int(np.flatnonzero((conversions == 0) & (values != 0))[0]) + 1
        raise TableError("total_conversion_value: without total_conversions", row=row)
    try:
        return texts, Outcomes(conversions, nulls, values), tuple(notes)
    except JourneyError as error:
        raise TableError(f"paths: {error}") from error


class _Numbering(dict[str, int]):
    """Numbers names in the order in which they are asked for."""

    def __missing__(self, name: str) -> int:
        number = self[name] = len(self)
        return number


def encode_paths(texts: Sequence[str], separator: str = SEPARATOR) -> JourneyBatch:
    """Encode joined paths; the touches get the times 0, 1, 2, ..., for the order is all that is known.

    Some thousand paths are cut at a time, so that no more than these exist as single names.

    Raises:
        TableError: when a channel is empty, begins or ends with ">", or holds a control character.
    """
    lengths = np.fromiter((text.count(separator) + 1 if text else 0 for text in texts), np.int64, len(texts))
    offsets = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(lengths, dtype=np.int64)))
    touches = int(offsets[-1])
    numbers = _Numbering()
    found = np.empty(touches, dtype=np.int32)
    for start in range(0, len(texts), _PATHS):
        low, high = int(offsets[start]), int(offsets[min(start + _PATHS, len(texts))])
        names = _cut([text for text in texts[start : start + _PATHS] if text], separator)
        if len(names) != high - low:
            raise _broken_path(texts, separator)
        found[low:high] = np.fromiter(map(numbers.__getitem__, names), dtype=np.int32, count=high - low)
    channels = [name.strip() for name in numbers]
    if any(map(broken_rule, channels)):
        raise _broken_path(texts, separator)
    index = ChannelIndex.of(channels)
    codes: Codes = index.encode(channels)[found] if touches else found
    return JourneyBatch(
        offsets=offsets,
        channels=codes,
        times=np.arange(touches, dtype=np.int64) - np.repeat(offsets[:-1], lengths),
        converted_at=np.maximum(lengths - 1, 0),
        direct=index.direct(codes),
        index=index,
    )


def _cut(texts: list[str], separator: str) -> list[str]:
    """Return the channels of paths that are not empty, one path after the other.

    All at once is twice as fast as one by one, and the same for ``" > "`` save where a path ends with ``" >"``: then
    the next name begins with ">", which no name may. Another separator may overlap with itself in other ways.
    """
    if separator == SEPARATOR:
        return separator.join(texts).split(separator) if texts else []
    return [name for text in texts for name in text.split(separator)]


def _broken_path(texts: Sequence[str], separator: str) -> TableError:
    """Return what is wrong with the first path that cannot be used."""
    for row, text in enumerate(texts, start=1):
        for name in text.split(separator) if text else ():
            if rule := broken_rule(name.strip()):
                return TableError(f"path: {rule}", row=row)
    return TableError(f"path: the paths cannot be cut at {separator!r}")


def _counts(columns: Mapping[str, Iterable[Any]], name: str, rows: int) -> Ints:
    if name not in columns:
        return np.zeros(rows, dtype=np.int64)
    cells = cells_of(columns, name)
    if len(cells) != rows:
        raise TableError(f"{name} must have one entry per row")
    try:
        if not set(map(type, cells)) <= {int, str} or not _all_plain(cells):
            raise ValueError  # noqa: TRY301  # floats and missing cells are looked at one by one
        counts = np.fromiter(map(int, cells), dtype=np.int64, count=rows)
    except (ValueError, OverflowError):
        counts = np.array([_count(cell, name, row) for row, cell in enumerate(cells, 1)], dtype=np.int64)
    wrong = (counts < 0) | (counts > _MAX_COUNT)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0]) + 1
        raise _no_count(cells[row - 1], name, row)
    return counts


def _count(cell: Any, name: str, row: int) -> int:
    try:
        number = _number(cell)
        whole = int(number)
    except ValueError as error:
        raise _no_count(cell, name, row) from error
    if whole != number or not 0 <= whole <= _MAX_COUNT:
        raise _no_count(cell, name, row)
    return whole


def _no_count(cell: Any, name: str, row: int) -> TableError:
    return TableError(f"{name}: {quoted(cell)} must be a whole number from 0 to {_MAX_COUNT:,}", row=row)


def _number(cell: Any) -> Decimal:
    """Return the number in a cell, 0 for an empty one."""
    if is_missing(cell) or (isinstance(cell, str) and not cell.strip()):
        return Decimal(0)
    return plain_decimal(str(cell))


def _all_plain(cells: list[Any]) -> bool:
    """Tell whether all text is plain, at once: a look at each cell would take longer than reading it."""
    return is_plain("".join([cell for cell in cells if isinstance(cell, str)]))


def _amounts(columns: Mapping[str, Iterable[Any]], name: str, rows: int) -> Ints:
    if name not in columns:
        return np.zeros(rows, dtype=np.int64)
    cells = cells_of(columns, name)
    if len(cells) != rows:
        raise TableError(f"{name} must have one entry per row")
    try:
        if not _all_plain(cells):
            raise ValueError  # noqa: TRY301  # the first that is not plain is named below
        scaled = np.fromiter(map(float, cells), dtype=np.float64, count=rows) * _MICROS
    except (TypeError, ValueError):
        return np.array([amount_micros(cell, name, row) for row, cell in enumerate(cells, 1)], dtype=np.int64)
    # A float holds an amount below a billion with up to six decimals closely enough to tell its micros. What is larger,
    # or has more decimals, or is no number, is looked at as it is written.
    with np.errstate(invalid="ignore"):
        micros = np.rint(scaled)
        clear = (np.abs(scaled) < _CLEAR_MICROS) & (np.abs(scaled - micros) < 1e-3)
    amounts = np.where(clear, micros, 0).astype(np.int64)
    for place in np.flatnonzero(~clear).tolist():
        amounts[place] = amount_micros(cells[place], name, place + 1)
    return amounts


def amount_micros(cell: Any, name: str, row: int) -> int:
    """Return an amount of currency units in micros, rounded half to even beyond the sixth decimal; 0 for an empty cell.

    Args:
        cell: what the table holds.
        name: of the column, for errors.
        row: from 1, for errors.

    Raises:
        TableError: when the cell is no finite number, or beyond 2^62 micros.
    """
    try:
        micros = int((_number(cell) * _MICROS).to_integral_value())
    except ValueError as error:
        raise TableError(f"{name}: {quoted(cell)} {error}", row=row) from error
    if abs(micros) > MAX_VALUE_MICROS:
        raise TableError(
            f"{name}: {quoted(cell)} is too large: more than 2^62 micros, 4.6e12 units of currency", row=row
        )
    return micros
