"""Numbers and tables as the command line shows them."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, Literal

from attributary.consumers.reports.cells import amount, csv_cell, money, safe

__all__ = [
    "amount", "count", "csv_cell", "money", "number", "plural", "print_json", "print_table", "safe", "share", "width",
]  # fmt: skip

_MIN_WIDTH, _WHOLE_LINES = 20, 10_000
_NARROWEST = 12  # letters of a text column that can be read
_LONGEST_ID = 160  # a place in a dead-letter topic, an event id


def share(part: float | None, interval: Sequence[float | None] | None = None) -> str:
    """Return a share in percent, with its interval when there is one."""
    text = number(part, ".2%")
    if interval and None not in interval:
        text += f" [{number(interval[0], '.2%')}, {number(interval[1], '.2%')}]"
    return text


def number(value: float | None, form: str) -> str:
    """Return a number in a format of Python's, or n/a."""
    return "n/a" if value is None else format(value, form)


def count(value: float | None) -> str:
    """Return a whole number with thousands apart, or n/a."""
    return number(value, ",.0f")


def plural(value: float, noun: str) -> str:
    """Return a number with its noun: 1 journey, 2 journeys."""
    return f"{count(value)} {noun}{'' if value == 1 else 's'}"


def print_json(value: Any) -> None:
    """Print JSON of full precision."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> None:
    """Print rows as a table, as wide as the terminal or as COLUMNS says; without both, a pipe gets whole lines.

    No cell is cut: what does not fit goes on in the next line. Where the columns would become too narrow to read, each
    row is a block of lines with its titles instead.

    Args:
        columns: titles.
        rows: cells.
        numbers: places of the columns that are set to the right.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    places = width()
    if places is not None and _needed(columns, rows, numbers) > places:
        print(_blocks(columns, rows, places))
        return
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="")
    for place, name in enumerate(columns):
        is_whole = place in numbers or _is_whole(rows, place)
        justify: Literal["left", "right"] = "right" if place in numbers else "left"
        table.add_column(name, justify=justify, no_wrap=is_whole, overflow="fold")
    for row in rows:
        table.add_row(*(Text(safe(cell)) for cell in row))  # ids and names come from events
    lines = io.StringIO()
    Console(file=lines, width=places or _WHOLE_LINES, color_system=None).print(table)
    print("\n".join(line.rstrip() for line in lines.getvalue().splitlines()))


def _is_whole(rows: Sequence[Sequence[str]], place: int) -> bool:
    """Return whether a column holds ids, which can be copied only in one piece: one word each, of some length."""
    cells = [safe(row[place]) for row in rows]
    return all(" " not in cell for cell in cells) and _NARROWEST < max(map(len, cells), default=0) <= _LONGEST_ID


def _needed(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> int:
    """Return how many places a table needs to be read: numbers whole, texts in columns of a few letters."""
    total = 0
    for place, title in enumerate(columns):
        longest = max((len(safe(row[place])) for row in rows), default=0)
        widest_word = max((len(word) for word in title.split()), default=0)
        is_whole = place in numbers or _is_whole(rows, place)
        total += max(longest, len(title)) if is_whole else min(max(longest, widest_word), _NARROWEST)
    return total + 3 * len(columns)


def _blocks(columns: Sequence[str], rows: Sequence[Sequence[str]], places: int) -> str:
    """Return every row as lines of title and cell; empty cells are left out."""
    label = max(map(len, columns))
    indent = " " * (label + 2)
    found = []
    for row in rows:
        lines = []
        for title, cell in zip(columns, row, strict=True):
            if cell:
                parts = textwrap.wrap(safe(cell), max(places - len(indent), _NARROWEST)) or [""]
                lines += [f"{title:<{label}}  {parts[0]}", *(f"{indent}{part}" for part in parts[1:])]
        found.append("\n".join(lines))
    return "\n\n".join(found)


def width() -> int | None:
    """Return how many columns there are: COLUMNS, else the terminal's; None in a pipe, which has no width to fit."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdigit() and int(columns) > 0:
        return max(int(columns), _MIN_WIDTH)
    return max(shutil.get_terminal_size().columns, _MIN_WIDTH) if sys.stdout.isatty() else None
