"""The names of a table's columns: which are missing, stand twice or are not used.

Invariant: a column is never ignored silently. What is needed and missing, or stands twice, is refused beside the names
that are there; what is not used is a note, with the name that was probably meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from attributary.attribution_core.tables.cells import TableError

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
        hint = next((hint for name in missing if (hint := instead(name, names))), "")
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


def instead(name: str, names: Sequence[str] | None) -> str:
    """Return what was probably meant by another name than the one that is missing; nothing if nothing is near."""
    if names is None:
        return ""
    if any(each.strip().lower() == name for each in names):
        return "; names of columns are written in small letters, without blanks"
    return _offer(name, names)


def _joined(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(name if name.isprintable() else repr(name) for name in names[:_LISTED]) + more


def _offer(name: str, names: Sequence[str]) -> str:
    found = get_close_matches(name.strip().lower(), names, 1, _NEAR)
    return f" (did you mean {found[0]}?)" if found else ""
