"""The text table of `attributary analyze`: channels by models, in blocks that fit the width of a terminal.

Invariant: no line of a block is wider than asked, unless a single column beside the names is. Widths are those of a
terminal: East Asian wide letters take two places, combining marks none.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.box import Box
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from attributary.attribution_core.analysis.result import Analysis, TextColumn

_GAP = 2
_MIN_NAME = 12
_CUT = "…"
_LINES = Box("    \n    \n----\n    \n    \n----\n    \n    \n", ascii=True)


def table_text(found: Analysis, width: int) -> str:
    """Return the table of an analysis, and below it the sentences that a reader of the numbers needs.

    Args:
        found: the analysis.
        width: places in a line, of a fixed-width font. Models that do not fit beside the others form a block below.
    """
    columns = found.text_columns()
    blocks = [_drawn(block) for block in _blocks(columns, width)] if columns else [[]]
    if sizes := found.sizes():
        line = ["-" * max(map(cell_len, blocks[-1]))] if columns else []
        blocks[-1] += line + _wrapped(sizes, width)
    return "\n\n".join("\n".join(lines) for lines in [*blocks, *(_wrapped(lines, width) for lines in found.notes())])


def shortened(name: str, most: int) -> str:
    """Return a name in at most so many places; the middle is left out, for names differ at their ends."""
    if cell_len(name) <= most:
        return name
    tail = set_cell_size(name[::-1], (most - 1) // 2).strip()[::-1]
    return set_cell_size(name, most - 1 - cell_len(tail)).strip() + _CUT + tail


def _blocks(columns: Sequence[TextColumn], width: int) -> Iterator[list[TextColumn]]:
    """Cut the columns into blocks; each begins with the names. The spread stays beside the last model."""
    names = replace(columns[0], cells=[shortened(name, max(_MIN_NAME, width // 3)) for name in columns[0].cells])
    block, taken = [names], _width(names)
    for together in [*([column] for column in columns[1:-2]), columns[-2:]]:
        wider = sum(_GAP + _width(column) for column in together)
        if len(block) > 1 and taken + wider > width:
            yield block
            block, taken = [names], _width(names)
        block += together
        taken += wider
    yield block


def _width(column: TextColumn) -> int:
    return max(map(cell_len, [column.title, *column.cells, *column.foot]))


def _drawn(block: Sequence[TextColumn]) -> list[str]:
    foot = bool(block[0].foot)
    table = Table(box=_LINES, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0), show_footer=foot)
    padded = [block[0], *map(_to_the_right, block[1:])]
    for column in padded:
        table.add_column(Text(column.title), Text("\n".join(column.foot)), no_wrap=True)
    for cells in zip(*(column.cells for column in padded), strict=True):
        table.add_row(*map(Text, cells))
    width = sum(_width(column) + _GAP for column in block)
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]


def _to_the_right(column: TextColumn) -> TextColumn:
    """Pad on the left; rich would cut off the blanks that stand in the place of a star."""
    width = _width(column)

    def pad(text: str) -> str:
        return " " * (width - cell_len(text)) + text

    return replace(column, title=pad(column.title), cells=[*map(pad, column.cells)], foot=[*map(pad, column.foot)])


def _wrapped(lines: Sequence[str], width: int) -> list[str]:
    return [
        part.replace("\0", " ")
        for text in lines
        for part in textwrap.wrap(
            text.replace(" %", "\0%"),  # a number and its sign stay together
            max(width, _MIN_NAME),
            subsequent_indent=" " * (len(text) - len(text.lstrip()) + 2),
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]
