"""A table of names and numbers that fits a width: numbers that do not fit beside the others form a block below.

Invariant: no cell is cut. A name that is too long goes on in the next line; each block begins with the names again.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len, chop_cells

_GAP = "  "
_MIN_NAME = 12
MIN_WIDTH = 40


class Column(NamedTuple):
    """A column: its title (lines are allowed), its cells, and what stands below the line at the end."""

    title: str
    cells: Sequence[str]
    foot: str = ""

    @property
    def width(self) -> int:
        """The places that its longest text takes."""
        return max(map(cell_len, [*self.title.split("\n"), *self.cells, self.foot]))


def block_table(names: Sequence[Column], numbers: Sequence[Column], width: int) -> str:
    """Return the table as text, without blanks at the ends of lines.

    Args:
        names: columns that are set to the left, and repeated in every block.
        numbers: columns that are set to the right.
        width: places in a line.
    """
    width = max(width, MIN_WIDTH)
    return "\n\n".join("\n".join(_drawn(names, block, width)) for block in _blocks(names, numbers, width))


def wrapped(text: str, width: int) -> str:
    """Return a sentence in lines that fit; commands and ids are not broken."""
    lines = textwrap.wrap(text, max(width, MIN_WIDTH), break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)


def _blocks(names: Sequence[Column], numbers: Sequence[Column], width: int) -> Iterator[list[Column]]:
    least = sum(min(column.width, _MIN_NAME) for column in names) + len(_GAP) * (len(names) - 1)
    wanted = min(sum(column.width for column in names) + len(_GAP) * (len(names) - 1), max(least, width // 2))
    block: list[Column] = []
    taken = wanted
    for column in numbers:
        wider = len(_GAP) + column.width
        if block and taken + wider > width:
            yield block
            block, taken = [], wanted
        block.append(column)
        taken += wider
    yield block


def _drawn(names: Sequence[Column], numbers: Sequence[Column], width: int) -> Iterator[str]:
    room = width - sum(len(_GAP) + column.width for column in numbers) - len(_GAP) * (len(names) - 1)
    widths = _name_widths([column.width for column in names], room)
    columns = [*names, *numbers]
    widths += [column.width for column in numbers]
    titles = [column.title.split("\n") for column in columns]
    height = max(map(len, titles))
    yield from _lines([[""] * (height - len(title)) + title for title in titles], widths, len(names))
    rule = "-" * (sum(widths) + len(_GAP) * (len(widths) - 1))
    yield rule
    for row in zip(*(column.cells for column in columns), strict=True):
        yield from _lines([_folded(cell, width) for cell, width in zip(row, widths, strict=True)], widths, len(names))
    if any(column.foot for column in columns):
        yield rule
        yield from _lines([[column.foot] for column in columns], widths, len(names))


def _name_widths(widths: list[int], room: int) -> list[int]:
    """Take places from the widest name until all fit."""
    while sum(widths) > room and max(widths) > _MIN_NAME:
        widths[widths.index(max(widths))] -= 1
    return widths


def _folded(text: str, width: int) -> list[str]:
    """Return a text in lines that fit: cut between words, and where a word is too long inside it."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".lstrip(" ")
        if cell_len(longer) <= width:
            lines[-1] = longer
        else:
            lines += chop_cells(word, width)
    return [line for line in lines if line] or [""]


def _lines(cells: Sequence[Sequence[str]], widths: Sequence[int], names: int) -> Iterator[str]:
    """Yield the lines of a row of cells of one or more lines each."""
    for number in range(max(map(len, cells))):
        parts = []
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True)):
            text = cell[number] if number < len(cell) else ""
            blanks = " " * (width - cell_len(text))
            parts.append(text + blanks if place < names else blanks + text)
        yield _GAP.join(parts).rstrip()
