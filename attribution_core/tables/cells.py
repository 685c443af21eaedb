"""Cells and columns of a table that somebody else made: what is empty, what is a name, what is missing or not used.

Invariants: an error names the row (1 is the first below the names of the columns), the column and the rule, and shows
the cell with control characters escaped. No column is ignored silently: a needed one that is missing, or one that
stands twice, is refused beside the names that are there; one that is not used is a note.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import InvalidOperation
from difflib import get_close_matches
from typing import Any

import numpy as np

_SHOWN = 40  # characters of a cell in an error


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
        return f"channel {quoted(channel)} begins or ends with '>'; channels are joined by ' > '"
    if any(character < " " or "\x7f" <= character <= "\x9f" for character in channel):
        return f"channel {quoted(channel)} holds a control character"
    return None


def printable(text: str) -> str:
    """Return a text with every character that does not print (escape codes, line ends, zero widths) written out."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def quoted(cell: Any) -> str:
    """Return what a cell holds as an error shows it."""
    text = str(cell)
    return repr(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}...")


_LISTED = 10  # names in a note
_NEAR = 0.75  # likeness of a misspelt name, 1 for equal ones: valeu and value have 0.8


def column_names(columns: Any) -> list[str] | None:
    """Return the names of all columns, as often as they stand there; None where the table does not tell them."""
    names: Any = columns if isinstance(columns, Mapping) else getattr(columns, "columns", None)
    return None if names is None else [str(name) for name in names]


def check_columns(
    columns: Mapping[str, Iterable[Any]], what: str, needed: Sequence[str], optional: Sequence[str]
) -> tuple[str, ...]:
    """Check the names of the columns; returns a note on those that are not used, if there are any.

    Raises:
        TableError: a needed column is missing, or a column that is used stands twice.
    """
    names = column_names(columns)
    missing = [name for name in needed if name not in (columns if names is None else names)]
    if missing:
        which = f"column {missing[0]} is" if len(missing) == 1 else f"columns {', '.join(missing)} are"
        hint = next((hint for name in missing if (hint := suggestion(name, names))), "")
        raise TableError(f"{what}: the {which} missing{listed(names)}{hint}")
    if names is None:
        return ()
    known = (*needed, *optional)
    check_once(name for name in names if name in known)
    unused = [name for name in names if name not in known]
    absent = [name for name in known if name not in names]
    said = [name + _offer(name, absent) if name else "one without a name" for name in unused]
    return (f"columns that are not used: {_joined(said)}",) if unused else ()


def check_once(names: Iterable[str]) -> None:
    """Check that no column stands twice.

    Raises:
        TableError: one does.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise TableError(f"the column {name} stands twice")
        seen.add(name)


def listed(names: Sequence[str] | None) -> str:
    """Return the names that are there as an error says them; nothing where they are not known."""
    return "" if names is None else f"; there are {_joined(names) if names else 'none'}"


def suggestion(name: str, names: Sequence[str] | None) -> str:
    """Return which of the names to rename to the one that is missing; nothing if none is near."""
    if names is None:
        return ""
    if any(each.strip().lower() == name for each in names):
        return "; names of columns are written in small letters, without blanks"
    found = get_close_matches(name, [each.strip().lower() for each in names], 1, _NEAR)
    near = next((each for each in names if each.strip().lower() in found), None)
    return "" if near is None else f" (if {printable(near)} is meant, rename it to {name})"


def _joined(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(printable(name) for name in names[:_LISTED]) + more


def _offer(name: str, names: Sequence[str]) -> str:
    found = get_close_matches(name.strip().lower(), names, 1, _NEAR)
    return f" (did you mean {found[0]}?)" if found else ""
