"""Charts of the report page: HTML text beside small drawings in SVG, with a table behind each.

Invariants: names and numbers are text, so that they can be read aloud, searched and enlarged; places along a line are
percentages, so that a chart fits 320 pixels and a sheet of paper; every text from events is escaped and isolated, so
that no name changes what stands beside it.
"""

from __future__ import annotations

import html
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from .cells import safe


class Bar(NamedTuple):
    """A line of a chart: a name, a text at its end, and a share of the longest line.

    Attributes:
        name: what it is about.
        text: the number in words.
        part: -1 to 1, of the longest bar; negative ones are drawn in the other colour.
        span: lower and upper end of a thin line around it, 0 to 1; None: none.
        is_open: hatched, because the number may still change.
        interval: lower and upper end of the sampling interval, drawn below it, 0 to 1; None: none.
    """

    name: str
    text: str
    part: float
    span: tuple[float, float] | None = None
    is_open: bool = False
    interval: tuple[float, float] | None = None


def text(value: str) -> str:
    """Return a text from events for HTML: escaped, unprintable characters written out, isolated by direction."""
    return f"<bdi>{html.escape(safe(value)) or '(empty)'}</bdi>"


def section(anchor: str, title: str, sentence: str, *parts: str) -> str:
    """Return a part of the page: its title, one sentence of finding, then charts and tables."""
    return (
        f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{title}</h2><p class="finding">{sentence}</p>'
        f"{''.join(parts)}</section>"
    )


def bars(bars_: Iterable[Bar], label: str) -> str:
    """Return a list of bars; each has its name and number as text above it."""
    rows = []
    for bar in bars_:
        width = min(abs(bar.part), 1.0) * 100
        kind = "neg" if bar.part < 0 else "open" if bar.is_open else "bar"
        drawn = f'<rect class="{kind}" x="0" y="2" width="{width:.2f}%" height="10"/>'
        if bar.span is not None:
            low, high = (min(max(end, 0.0), 1.0) * 100 for end in bar.span)
            drawn += f'<line class="span" x1="{low:.2f}%" x2="{high:.2f}%" y1="7" y2="7"/>'
            drawn += "".join(f'<line class="span" x1="{x:.2f}%" x2="{x:.2f}%" y1="3" y2="11"/>' for x in (low, high))
        if bar.interval is not None:
            low, high = (min(max(end, 0.0), 1.0) * 100 for end in bar.interval)
            drawn += f'<line class="interval" x1="{low:.2f}%" x2="{high:.2f}%" y1="16" y2="16"/>'
        rows.append(
            f'<li><span class="name">{text(bar.name)}</span><span class="num">{html.escape(bar.text)}</span>'
            f'<svg aria-hidden="true" width="100%" height="{14 if bar.interval is None else 19}">{drawn}</svg></li>'
        )
    return f'<ul class="bars" aria-label="{html.escape(label)}">{"".join(rows)}</ul>'


def columns(bars_: Sequence[Bar], label: str, finding: str) -> str:
    """Return upright bars side by side, for days; a picture with a name, its numbers stand in the table."""
    count = max(len(bars_), 1)
    most = max((bar.part for bar in bars_), default=0.0)
    least = min(0.0, min((bar.part for bar in bars_), default=0.0))
    reach = (max(most, 0.0) - least) or 1.0
    zero = 5 + 130 * max(most, 0.0) / reach
    drawn = []
    for place, bar in enumerate(bars_):
        height = max(130 * abs(bar.part) / reach, 1.0 if bar.part else 0.0)
        top = zero - height if bar.part >= 0 else zero
        kind = "neg" if bar.part < 0 else "open" if bar.is_open else "bar"
        drawn.append(
            f'<rect class="{kind}" x="{100 * place / count + 10 / count:.3f}%" y="{top:.1f}" '
            f'width="{80 / count:.3f}%" height="{height:.1f}"/>'
        )
    ends = (bars_[0].name, bars_[-1].name) if bars_ else ("", "")
    return (
        f'<svg role="img" aria-label="{html.escape(f"{label}. {finding}")}" width="100%" height="150">'
        f'{"".join(drawn)}<line class="axis" x1="0" x2="100%" y1="{zero:.1f}" y2="{zero:.1f}"/></svg>'
        f'<p class="ends"><span>{html.escape(ends[0])}</span><span>{html.escape(ends[1])}</span></p>'
    )


def table(
    title: str,
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    is_open: bool = False,
    numbers: Collection[int] | None = None,
) -> str:
    """Return a table that can be opened; the first column has names, the others numbers.

    Args:
        title: of the table, HTML.
        head: titles of columns, HTML.
        rows: cells, HTML.
        is_open: shown at once.
        numbers: places of columns of numbers; None: all but the first.
    """
    right = set(range(1, len(head))) if numbers is None else numbers
    top = "".join(f'<th scope="col"{_number(place, right)}>{cell}</th>' for place, cell in enumerate(head))
    body = "".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{cell}</th>' if place == 0 else f"<td{_number(place, right)}>{cell}</td>"
            for place, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f"<details{' open' if is_open else ''}><summary>{title}</summary>"
        f'<div class="wide" role="region" aria-label="Table: {html.escape(title)}" tabindex="0">'
        f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div></details>"
    )


def _number(place: int, numbers: Collection[int]) -> str:
    return ' class="n"' if place in numbers else ""
