"""Which rows of a file count: ``COLUMN=VALUE`` and ``COLUMN!=VALUE``.

Contract: several values of one column mean any of them, several columns mean all of them; every ``!=`` must hold. Texts
are compared without regard to case and to blanks around them. An empty VALUE means an empty cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from attributary.producers.importer import cells

FindCell = Callable[[str], Any]


class Condition(NamedTuple):
    """One condition."""

    column: str
    is_equal: bool
    value: str


def parse_condition(text: str) -> Condition:
    """Return a condition.

    Raises:
        ValueError: it has no ``=``, or names no column.
    """
    name, equals, value = text.partition("=")
    is_equal = not name.endswith("!")
    column = name.removesuffix("!").strip()
    if not equals or not column:
        raise ValueError(f"--where {text}: expected COLUMN=VALUE or COLUMN!=VALUE")
    return Condition(column, is_equal, value.strip().casefold())


def holds(conditions: Iterable[Condition], find_cell: FindCell) -> bool:
    """Tell whether conditions hold.

    Args:
        conditions: none of them: they hold.
        find_cell: gives the cell of a column.
    """
    wanted: dict[str, bool] = {}
    for column, is_equal, value in conditions:
        same = _text(find_cell(column)) == value
        if not is_equal:
            if same:
                return False
            continue
        wanted[column] = wanted.get(column, False) or same
    return all(wanted.values())


def _text(cell: Any) -> str:
    try:
        return "" if cells.is_missing(cell) else cells.text(cell).strip().casefold()
    except ValueError:  # a list or an object equals no text
        return "\0"
