"""The text table of an analysis: channels by models, shares in percent, in blocks that fit a width.

Invariant: no line of the blocks is wider than asked, unless one model alone is (the last with "apart"); what is unknown
reads "n/a", never 0. Widths are those of a terminal: East Asian wide letters take two places, combining marks none.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any
from unicodedata import category, east_asian_width

from attributary.attribution_core.analysis.experiment_lifts import closing_lines

if TYPE_CHECKING:
    from attributary.attribution_core.analysis.report import ModelReport

WIDTH = 100
_GAP = "  "
_SHORTEST_NAME = 12
_CUT = "…"


@dataclass(frozen=True)
class _Column:
    """A column of the table: its title, the cells of the channels, and those below the line."""

    title: str
    cells: list[str]
    foot: list[str]

    @property
    def width(self) -> int:
        return max(map(display_width, [self.title, *self.cells, *self.foot]))


def table_text(models: Sequence[ModelReport], width: int = WIDTH) -> str:
    """Return the table of an analysis, and below it what must be known to read it.

    Args:
        models: the answers.
        width: places in a line, of a fixed-width font.
    """
    if not models:
        return "no models"
    names = sorted({row["channel"] for report in models for row in report.channels})
    blocks = [_drawn(block) for block in _blocks(_columns(models, names, width), width)] if names else []
    if not names:
        blocks = [["no channels: no journey has a touch" if models[0].diagnostics["journeys"] else "no rows"]]
    if len(models) > 1 or not names:
        rule = blocks[-1][1:2]
        blocks[-1] += rule + _wrapped([_whole(models[0].diagnostics)], width)
    notes = [_wrapped(lines, width) for lines in _notes(models) if lines]
    return "\n\n".join("\n".join(lines) for lines in [*blocks, *notes])


def display_width(text: str) -> int:
    """Return how many places of a terminal a text takes."""
    return sum(map(_places, text))


def shortened(name: str, most: int) -> str:
    """Return a name in at most so many places; the middle is left out, for names differ at their ends."""
    name = _printable(name)
    if display_width(name) <= most:
        return name
    tail = _beginning(name[::-1], (most - 1) // 2)[::-1]
    return _beginning(name, most - 1 - display_width(tail)) + _CUT + tail


def _printable(text: str) -> str:
    """Return a text without letters that steer a terminal: names come from files."""
    return "".join("?" if category(letter) == "Cc" else letter for letter in text)


def _places(letter: str) -> int:
    if category(letter) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if east_asian_width(letter) in "WF" else 1


def _beginning(text: str, most: int) -> str:
    widths = accumulate(map(_places, text))
    return text[: sum(1 for width in widths if width <= most)]


def _columns(models: Sequence[ModelReport], names: Sequence[str], width: int) -> list[_Column]:
    """Return the names, their support, what the models say, and how far they are apart where that is known."""
    by_name = [{row["channel"]: row for row in report.channels} for report in models]
    rows = [by_name[0][name] for name in names]
    rest = models[0].rest() if len(models) == 1 else []
    foot = [row["channel"] for row in rest] + ["all"] * bool(rest)
    columns = [
        _Column("channel", [shortened(name, max(_SHORTEST_NAME, width // 3)) for name in names], foot),
        _Column("support", [f"{row['conversions_with']:,.0f}" for row in rows], [""] * len(foot)),
    ]
    for key, form in (("conversions", ",.1f"), ("value", ",.2f")) if rest else ():
        below = [*(row[key] for row in rest), models[0].diagnostics[key]]
        columns.append(_Column(key, [_number(row[key], form) for row in rows], [_number(each, form) for each in below]))
    for report, found in zip(models, by_name, strict=True):
        kept = [_share(row) if row["share"] is not None else ("", "", "") for row in rest] + [("", "", "")] * bool(rest)
        cells = _aligned([_share(found[name]) for name in names] + kept)
        columns.append(_Column(report.model, cells[: len(names)], cells[len(names) :]))
    spreads = [row.get("spread_over_models") for row in rows]
    if any(spread is not None for spread in spreads):
        columns.append(_Column("apart", ["" if each is None else percent(each) for each in spreads], [""] * len(foot)))
    return columns


def _blocks(columns: Sequence[_Column], width: int) -> Iterator[list[_Column]]:
    """Cut the columns so that each block begins with the names and is no wider than asked.

    The last two stay together: how far the models are apart says little beside the names alone.
    """
    names = columns[0]
    block, taken = [names], names.width
    for together in [*([column] for column in columns[1:-2]), columns[-2:]]:
        wider = sum(len(_GAP) + column.width for column in together)
        if len(block) > 1 and taken + wider > width:
            yield block
            block, taken = [names], names.width
        block += together
        taken += wider
    yield block


def _drawn(block: Sequence[_Column]) -> list[str]:
    lines = []
    for cells in zip(*((column.title, *column.cells, *column.foot) for column in block), strict=True):
        pads = [" " * (column.width - display_width(cell)) for column, cell in zip(block, cells, strict=True)]
        padded = [pad + cell for pad, cell in zip(pads[1:], cells[1:], strict=True)]
        lines.append(_GAP.join([cells[0] + pads[0], *padded]).rstrip())
    rule = "-" * (sum(column.width + len(_GAP) for column in block) - len(_GAP))
    end = 1 + len(block[0].cells)
    return [lines[0], rule, *lines[1:end], *([rule] if lines[end:] else []), *lines[end:]]


def _whole(said: Mapping[str, Any]) -> str:
    """Return what there was in the data, the same for every model."""
    text = f"conversions {said['conversions']:,.0f}, of these {said['unattributed_conversions']:,.0f} unattributed"
    if said["value"] is not None:
        text += f"; value {said['value']:,.2f}, of this {said['unattributed_value']:,.2f} unattributed"
    return text + " (no touch)"


def _notes(models: Sequence[ModelReport]) -> Iterator[list[str]]:
    yield [*_statuses(models), *_baselines(models), *_tied(models), *_methods(models), *_rare(models)]
    for report in models:
        for found in report.diagnostics.get("calibration", ()):
            yield _calibration(report.model, found)
    yield _insights(models)


def _grouped(models: Sequence[ModelReport], key: str) -> dict[str, str]:
    """Return what the diagnostics have under a key, and the names of the models that say so."""
    found: dict[str, list[str]] = {}
    for report in models:
        if (text := report.diagnostics.get(key)) is not None:
            found.setdefault(str(text), []).append(report.model)
    everybody = len(models) > 1 and list(map(len, found.values())) == [len(models)]
    return {text: "all models" if everybody else ", ".join(names) for text, names in found.items()}


def _statuses(models: Sequence[ModelReport]) -> list[str]:
    lines = [f"{names}: {text}" for text, names in _grouped(models, "status").items() if text != "ok"]
    of_value = models[0].diagnostics["value_status"]  # the same for all: it is of the data
    known = models[0].diagnostics["value"] is not None
    return lines + [f"value: {of_value}"] * (known and of_value != "ok")


def _methods(models: Sequence[ModelReport]) -> list[str]:
    found = [f"{method} ({names})" for method, names in _grouped(models, "interval_method").items()]
    sure = [
        f"{report.model} {report.diagnostics['confidence']:.3f}"
        for report in models
        if report.diagnostics["confidence"] is not None
    ]
    return [f"90 % intervals: {', '.join(found)}"] * bool(found) + [f"confidence: {', '.join(sure)}"] * bool(sure)


def _baselines(models: Sequence[ModelReport]) -> list[str]:
    return [
        f"{report.model}: {percent(report.diagnostics['baseline_share'])} stay with the baseline "
        f"({', '.join(report.diagnostics['baseline'])}) and are given to nobody"
        for report in models
        if report.diagnostics.get("baseline_share") is not None
    ]


def _tied(models: Sequence[ModelReport]) -> list[str]:
    number = max((report.diagnostics.get("touches_at_equal_times", 0) for report in models), default=0)
    if not number:
        return []
    text = (
        "touches are at the time of one of another channel: event_id, or else the order of rows, decides on the first"
    )
    return [f"{number:,} {text}"]


def _rare(models: Sequence[ModelReport]) -> list[str]:
    """Return what the star means: channels with insufficient data, and what stands in for them."""
    rows = [row for report in models for row in report.channels]
    if all(row["status"] == "ok" for row in rows):
        return []
    shares = {row["channel"]: row["fallback"]["share"] for row in rows if row.get("fallback")}
    said = [f"{name} {'n/a' if share is None else percent(share)}" for name, share in shares.items()]
    return ["* insufficient data: too few conversions with this channel; linear: " + ", ".join(said)]


def _calibration(model: str, found: Mapping[str, Any]) -> list[str]:
    """Return the totals after scaling by experiments: totals of channels, never credits of single journeys."""
    number = len(found["experiments"])
    title = f"{model}, {found['of']} calibrated by {number} experiment{'s' if number > 1 else ''}:"
    if not found["channels"]:
        return [f"{title} {found['status']}"]
    return [
        title,
        *(
            f"  {row['channel']}: {row['attributed']:,.1f} x {_number(row['factor'], '.3f')} = "
            f"{row['calibrated']:,.1f} [{row['interval'][0]:,.1f}, {row['interval'][1]:,.1f}], {row['basis']}"
            for row in found["channels"]
        ),
        *(f"  {line}" for line in closing_lines(found)),
    ]


def _insights(models: Sequence[ModelReport]) -> list[str]:
    found: list[dict[str, Any]] = next(
        (report.diagnostics["insights"] for report in models if "insights" in report.diagnostics), []
    )
    lines = ["associations, not causes:"] if found else []
    for each in found:
        interval = "" if each["low"] is None else f" [{each['low']:.3g}, {each['high']:.3g}]"
        lines.append(f"  {each['text']} ({each['rule_id']}: {each['estimate']:.3g}{interval}, n {each['n']:,})")
    return lines


def _wrapped(lines: Sequence[str], width: int) -> list[str]:
    return [
        part.replace("\0", " ")
        for text in lines
        for part in textwrap.wrap(
            _printable(text).replace(" %", "\0%"),  # a number and its sign stay together
            max(width, _SHORTEST_NAME),
            subsequent_indent=" " * (len(text) - len(text.lstrip()) + 2),
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]


def percent(share: float) -> str:
    """Return a share in percent."""
    return f"{100 * share:.2f} %"


def _number(value: float | None, form: str) -> str:
    return "n/a" if value is None else format(value, form)


def _share(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return a share, its interval, and a star where it rests on too little."""
    share, interval = row["share"], row.get("interval")
    return (
        "n/a" if share is None else percent(share),
        f" [{100 * interval[0]:.2f}, {100 * interval[1]:.2f}]" if interval else "",
        " *" if row.get("status", "ok") != "ok" else "",
    )


def _aligned(cells: Sequence[tuple[str, str, str]]) -> list[str]:
    """Return shares with their intervals, so that percent signs and brackets stand below each other."""
    share, interval, star = (max(map(len, part)) for part in zip(*cells, strict=True))
    return [cell[0].rjust(share) + cell[1].rjust(interval) + cell[2].ljust(star) for cell in cells]
