"""Numbers and tables as the command line shows them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


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


def money(micros: int) -> str:
    """Return an amount of micros in units of its currency, with two decimals."""
    sign, micros = ("-", -micros) if micros < 0 else ("", micros)
    return f"{sign}{micros // 1_000_000}.{micros % 1_000_000 // 10_000:02d}"


def plural(value: float, noun: str) -> str:
    """Return a number with its noun: 1 journey, 2 journeys."""
    return f"{count(value)} {noun}{'' if value == 1 else 's'}"


def safe(text: str) -> str:
    """Return a text with its line ends, escape codes and other unprintable characters written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_json(value: Any) -> None:
    """Print JSON of full precision."""
    print(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> None:
    """Print rows as a table, as wide as the terminal; a pipe gets whole lines.

    Args:
        columns: titles.
        rows: cells.
        numbers: places of the columns that are set to the right.
    """
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE, pad_edge=False)
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place in numbers else "left", no_wrap=place in numbers)
    for row in rows:
        table.add_row(*(Text(safe(cell)) for cell in row))  # ids and names come from events
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a pipe has no width to fit
    console.print(table)
