"""Parts of the page that are made from the catalogue: each report with its sentence, a chart and its table.

Invariants: a report without a number is shown as a sentence and never as a chart; a table that leaves rows out says so;
cells from events are escaped.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .answer import Answer
from .cells import cell_text, moment
from .definition import OTHER, Column, counted, percent
from .origin import Origin, origin_text
from .page_changes import restatement_bars
from .page_charts import Bar, bars, section, table, text

Rows = Sequence[Sequence[Any]]
MAX_ROWS = 150
_SHOWN = 14
_CHART_DAYS = 14


def report_section(found: Answer, end: str = "") -> str:
    """Return one report as a part of the page; the end is HTML."""
    report = found.report
    if found.table is None:
        return section(report.name, report.title, "No conversion is in this report.")
    rows = found.table.rows
    draw = _CHARTS.get(report.name)
    chart = bars(draw(rows), f"{report.title}: {report.question}") if draw and rows else ""
    shown = rows[:MAX_ROWS]
    notes = [*found.table.notes]
    if len(rows) > MAX_ROWS:
        notes.append(
            f"{len(rows) - MAX_ROWS:,} more rows: attributary report {report.name} --tenant {found.request.tenant_id}."
        )
    return section(
        report.name,
        report.title,
        html.escape(found.table.finding),
        f"<p>{html.escape(report.question)}{html.escape(_of(found))}</p>",
        chart,
        report_table(found, shown),
        "".join(f"<p>{html.escape(note)}</p>" for note in notes),
        end,
    )


def origin_line(origin: Origin) -> str:
    """Return what numbers are from, HTML."""
    complete_to = origin.complete_to_us
    said = origin_text(origin, "" if complete_to is None else f"{moment(complete_to, clock=True)} UTC")
    return f"<p>{html.escape(said)}</p>" if said else ""


def _of(found: Answer) -> str:
    return f" By {found.request.models[0]}." if "model" in found.report.options else ""


def report_table(found: Answer, rows: Rows) -> str:
    """Return the rows of a report as a table that can be opened."""
    currency = found.request.currency
    columns = found.report.columns
    head = [
        html.escape(column.name.replace("_", " ") + (f" {currency}" if column.unit == "micros" else ""))
        for column in columns
    ]
    cells = [[_cell(cell, column, currency) for cell, column in zip(row, columns, strict=True)] for row in rows]
    numbers = {place for place, column in enumerate(columns) if column.unit not in {"name", "text", "date"}}
    return table(f"{found.report.title}: every number", head, cells, numbers=numbers)


def _cell(cell: Any, column: Column, currency: str) -> str:
    shown = cell_text(cell, column.unit, currency)
    return text(shown) if column.unit == "name" or (column.unit in {"text", "date"} and shown) else shown


def _part(value: float, rows: Rows, place: int) -> float:
    most = max((abs(row[place] or 0) for row in rows), default=0) or 1
    return value / most


def _maturity(rows: Rows) -> list[Bar]:
    """Return the youngest days: share of the touches' credit that has arrived, with its interval."""
    found = []
    for row in rows[-_CHART_DAYS:]:
        if row[7] is None:
            continue
        share, low, high = row[7:10]
        words = f"{percent(share)} ({100 * low:.0f} to {100 * high:.0f}) has arrived: {row[6]:,.1f} conversions so far"
        found.append(Bar(row[0], words, share, (low, high), is_open=share < 0.995))
    return found


def _lengths(rows: Rows) -> list[Bar]:
    return [
        Bar(f"{counted(row[0], 'touchpoint')}{_last(row, rows)}", counted(row[1], "conversion"), _part(row[1], rows, 1))
        for row in rows[:_SHOWN]
    ]


def _lags(rows: Rows) -> list[Bar]:
    return [
        Bar(f"{counted(row[0], 'day')}{_last(row, rows)}",
            f"{counted(row[1], 'conversion')}, {percent(row[4])} reached", _part(row[1], rows, 1))
        for row in rows[:_SHOWN]
    ]  # fmt: skip


def _last(row: Sequence[Any], rows: Rows) -> str:
    return " or more" if row is rows[-1] and len(rows) > 1 else ""


def _assists(rows: Rows) -> list[Bar]:
    return [
        Bar(row[0], f"assists {row[2]:,}, closes {row[3]:,}" + (f", ratio {row[5]:.2f}" if row[5] is not None else ""),
            _part(row[2], [each for each in rows if each[0] != OTHER], 2))
        for row in rows[:_SHOWN] if row[0] != OTHER
    ]  # fmt: skip


def _positions(rows: Rows) -> list[Bar]:
    return [
        Bar(
            row[0],
            f"early {row[1]:,.1f}, mid {row[2]:,.1f}, late {row[3]:,.1f}",
            row[1] / row[4],
        )
        for row in rows[:_SHOWN]
        if row[4] > 1e-9
    ]


def _unattributed(rows: Rows) -> list[Bar]:
    missing = [row for row in rows if row[1] != "touchpoints"]
    return [
        Bar(f"{row[0]}: {row[1]}", f"{row[2]:,.1f} conversions, {percent(row[4] or 0.0)}", row[4] or 0.0)
        for row in missing[:_SHOWN]
    ]


_CHARTS: Mapping[str, Callable[[Rows], list[Bar]]] = {
    "maturity": _maturity, "path-lengths": _lengths, "lag": _lags, "assists": _assists, "positions": _positions,
    "unattributed": _unattributed, "restatements": restatement_bars,
}  # fmt: skip
