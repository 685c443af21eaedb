"""Times of a table, in whatever form it holds them, as microseconds since 1970-01-01 UTC.

Accepted: ISO 8601 text and date-times (UTC where they name no zone), dates (their midnight UTC), and numbers, or text
of one, of seconds since 1970-01-01 UTC; text of eight digits that is a date is one. Invariant: a time is within 1970
to 2099 or refused with its row, for what is outside is a slip: milliseconds taken for seconds are 50,000 years ahead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from typing import Any

import numpy as np

from attributary.attribution_core.domain.amounts import plain_decimal
from attributary.attribution_core.tables.cells import TableError, is_missing, quoted

_MICROS = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BEGIN_1990, _END = 631_152_000 * _MICROS, 4_102_444_800 * _MICROS  # 1990-01-01, 2100-01-01
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", re.ASCII)
_DATE = re.compile(r"\d{8}", re.ASCII)
_TOO_FINE = ((1_000, "milliseconds"), (1_000_000, "microseconds"), (1_000_000_000, "nanoseconds"))


def read_times(cells: Iterable[Any]) -> list[int]:
    """Return the times of a column; columns of one form, which most are, in a few steps over all rows.

    Raises:
        TableError: when a cell is empty, no time, or outside of 1970 to 2099; the text names the row.
    """
    cells = cells if hasattr(cells, "dtype") else list(cells)
    whole = _at_once(cells)
    if whole is not None and min(whole, default=0) >= 0 and max(whole, default=0) < _END:
        return whole
    return [time_micros(cell, row) for row, cell in enumerate(cells, start=1)]


def time_micros(cell: Any, row: int, name: str = "time") -> int:
    """Return one time in microseconds since 1970-01-01 UTC.

    Args:
        cell: what the table holds.
        row: from 1, for errors.
        name: of the column, for errors.

    Raises:
        TableError: when the cell is empty, no time, or outside of 1970 to 2099.
    """
    if is_missing(cell) or (isinstance(cell, str) and not cell.strip()):
        raise TableError(f"{name}: must not be empty", row=row)
    try:
        micros = _micros(cell.strip() if isinstance(cell, str) else cell)
    except (ArithmeticError, ValueError) as error:
        raise TableError(f"{name}: {quoted(cell)} must be ISO 8601 or seconds since 1970", row=row) from error
    if not 0 <= micros < _END:
        hint = next(
            (
                f"; looks like {unit}: divide by {times:,}"
                for times, unit in _TOO_FINE
                if _BEGIN_1990 <= micros // times < _END
            ),
            "",
        )
        raise TableError(f"{name}: {quoted(cell)} is outside of 1970 to 2099{hint}", row=row)
    return micros


def _micros(cell: Any) -> int:
    if isinstance(cell, np.datetime64):
        return int(cell.astype("datetime64[us]").astype(np.int64))
    if isinstance(cell, str) and not (_NUMBER.fullmatch(cell) and not _is_date(cell)):
        cell = datetime.fromisoformat(cell)
    if isinstance(cell, date) and not isinstance(cell, datetime):
        cell = datetime.combine(cell, time())
    if isinstance(cell, datetime):
        since = (cell if cell.tzinfo is not None else cell.replace(tzinfo=UTC)) - _EPOCH
        return (since.days * 86_400 + since.seconds) * _MICROS + since.microseconds
    return int((plain_decimal(str(cell)) * _MICROS).to_integral_value())


def _is_date(text: str) -> bool:
    if not _DATE.fullmatch(text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _at_once(cells: Any) -> list[int] | None:
    """Return the times of a column of one form, in range or not; None where each cell must be looked at."""
    if getattr(getattr(cells, "dtype", None), "kind", "") == "M":  # of numpy and pandas, in UTC where it names a zone
        moments = np.asarray(cells, dtype="datetime64[us]")
        return None if np.isnat(moments).any() else _integers(moments)
    found = list(cells)
    kinds = set(map(type, found))
    if kinds == {int}:
        return [seconds * _MICROS for seconds in found]
    if kinds == {str}:
        if _are_whole_numbers(found):
            return [int(seconds) * _MICROS for seconds in found]
        found = _date_times(list(map(str.strip, found)))
    return _since_epoch(found) if found and kinds in ({str}, {datetime}) else None


def _are_whole_numbers(texts: list[str]) -> bool:
    """Tell whether all text is digits, and none can be a date of eight."""
    joined = "".join(texts)
    return joined.isascii() and joined.isdigit() and all(0 < len(text) < 20 and len(text) != 8 for text in texts)


def _date_times(texts: list[str]) -> list[datetime]:
    """Return text as date-times, nothing where one of them is none; what looks like 2026-... is no number."""
    if not all(text[4:5] == "-" for text in texts):
        return []
    try:
        return list(map(datetime.fromisoformat, texts))
    except ValueError:
        return []


def _since_epoch(moments: list[datetime]) -> list[int]:
    zones = {moment.tzinfo for moment in moments}
    if zones == {None}:
        return _integers(np.array(moments, dtype="datetime64[us]"))
    if None in zones:
        moments = [moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC) for moment in moments]
    return _integers(np.array([moment - _EPOCH for moment in moments], dtype="timedelta64[us]"))


def _integers(moments: Any) -> list[int]:
    found: list[int] = moments.astype(np.int64).tolist()
    return found
