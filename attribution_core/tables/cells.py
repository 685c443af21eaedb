"""A cell of a table that somebody else made: when nothing is in it, what a name is, and how an error names it.

Invariant: an error names the row (1 is the first below the names of the columns), the column and the rule, and shows
what the cell holds, control characters escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np

_SHOWN = 40  # characters of a cell in an error
_DIGITS = 50  # of the largest number that is looked at


class TableError(ValueError):
    """A table of journeys that cannot be read; the text names row, column and rule.

    Attributes:
        rule: column and rule, without the row.
        row: from 1, without the names of the columns; None where no single row is wrong. A reader of files makes a
            line number of it.
    """

    def __init__(self, rule: str, *, row: int | None = None) -> None:
        super().__init__(rule if row is None else f"row {row}: {rule}")
        self.rule, self.row = rule, row


def is_missing(cell: Any) -> bool:
    """Tell whether a cell is empty: None, or what frames put in its place, which does not equal itself (NaN, NaT, NA).

    A cell that is an array or a list is not empty, whatever it holds.
    """
    if cell is None:
        return True
    try:
        same = cell == cell  # noqa: PLR0124  # NaN is what differs from itself; pandas' NA answers with NA
    except InvalidOperation:  # how Decimal's signalling NaN says that it is none
        return True
    if same is True:
        return False
    return not same if isinstance(same, (bool, np.bool_)) else not isinstance(same, np.ndarray)


def column_of(columns: Mapping[str, Iterable[Any]], name: str) -> Iterable[Any]:
    """Return a column as it is held.

    Raises:
        TypeError: it is no column.
    """
    column: Any = columns[name]
    if isinstance(column, (str, bytes)) or not isinstance(column, Iterable):
        raise TypeError(
            f"{name}: must be a column, as a list is, not {type(column).__name__}; a table of one row is [row]"
        )
    found: Iterable[Any] = column
    return found


def cells_of(columns: Mapping[str, Iterable[Any]], name: str) -> list[Any]:
    """Return the cells of a column, those of numpy as Python's.

    Raises:
        TypeError: it is no column.
    """
    column = column_of(columns, name)
    return column.tolist() if isinstance(column, np.ndarray) and column.ndim == 1 else list(column)


def names_in(found: list[Any]) -> list[str]:
    """Return cells as names: text without blanks around it, empty where the cell is missing."""
    if set(map(type, found)) <= {str}:
        return list(map(str.strip, found))
    return ["" if is_missing(cell) else str(cell).strip() for cell in found]


def broken_rule(channel: str) -> str | None:
    """Return the rule that the name of a channel breaks, or None; blanks around it are gone already."""
    if not channel:
        return "empty channel"
    if channel[0] == ">" or channel[-1] == ">":
        return f"channel {shown(channel)} begins or ends with '>'; channels are joined by ' > '"
    if any(character < " " or "\x7f" <= character <= "\x9f" for character in channel):
        return f"channel {shown(channel)} holds a control character"
    return None


def number_in(text: str) -> Decimal:
    """Return the number that text is, as a table means it: without what Python reads besides (1_000, other digits).

    Raises:
        ValueError: it is none.
        ArithmeticError: it is none, or has more digits than any cell means: 1e999999999 as an integer is a gigabyte.
    """
    if not is_plain(text):
        raise ValueError(text)
    number = Decimal(text)
    if number.is_finite() and number.adjusted() > _DIGITS:
        raise OverflowError(text)
    return number


def is_plain(text: str) -> bool:
    """Tell whether text is free of what Python reads as a number and no table means: 1_000, digits of other scripts."""
    return text.isascii() and "_" not in text


def shown(cell: Any) -> str:
    """Return what a cell holds as an error shows it."""
    text = str(cell)
    return repr(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}...")
