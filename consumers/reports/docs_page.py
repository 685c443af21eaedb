"""The page docs/reference/reports.md, made from the catalogue."""

from __future__ import annotations

from .catalog import REPORTS
from .definition import UNITS, Report

_HEAD = """# Reports

Each report is a command, `attributary report NAME`, and an address of the
[read API](../how-to/read-api.md), `GET /api/v1/attribution/reports/NAME`; `attributary report html` writes all of them
into one page. This page is made by `attributary report list --markdown`; `make check` compares it.

A report is about one tenant and one currency: the one that is asked for, else the most common one that has a value. It
names what stands in other currencies, which are never added. Of every conversion its newest version counts, or with
`--as-of` the one that was the newest then. `--from` and `--to` are times of conversions; windows of touchpoints belong
to the conversion and never to the question. Days and months begin in the tenant's time zone (`attributary tenants
set`), or in `--time-zone`. Names beyond `--limit` are one row, `(other)`, so additive columns sum to the total whatever
the limit. Every report has one sentence of finding; where a number has no support there is none.

A report is answered from the roll-up that the reporter keeps, where it asks for whole days of the tenant's time zone as
things are now; its last note says to when that is complete and how many results it lacks at most. Anything else is read
from every result, which takes up to minutes, and the note says why. `--source rollup` refuses in place of that,
`--source results` reads every result. What it costs: [measured](bench.md#reports-from-the-roll-up).

"""
_OPTIONS = {
    "model": "`--model` (HTTP: `models` with one name)",
    "models": "`--models` (HTTP: `models`), all by default",
    "by": "`--by` channel, platform or campaign (HTTP: `by`)",
    "since": "`--changed-since` (HTTP: `since`), the midnight a week ago by default",
}


def page() -> str:
    """Return the page."""
    units = "".join(f"| {unit} | {text} |\n" for unit, text in UNITS.items())
    names = "".join(f"| [`{each.name}`](#{each.name}) | {each.question} |\n" for each in REPORTS)
    return (
        f"{_HEAD}| Report | Question |\n|---|---|\n{names}\n" + "".join(map(_section, REPORTS))
        + f"## Units\n\n| Unit | Cells |\n|---|---|\n{units}"
    )  # fmt: skip


def _section(report: Report) -> str:
    rows = "".join(
        f"| `{column.name}` | {column.unit} | {'yes' if column.is_additive else 'no'} | {column.text} |\n"
        for column in report.columns
    )
    own = "; ".join(_OPTIONS[option] for option in report.options)
    options = f"Options of its own: {own}.\n\n" if own else ""
    return (
        f"## {report.name}\n\n**{report.title}.** {report.question}\n\n{report.text}\n\n{options}"
        f"| Column | Unit | Additive | What it is |\n|---|---|---|---|\n{rows}\n"
    )
