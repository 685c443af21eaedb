"""The result of an analysis: the reports of all models, as plain values, flat rows, JSON and text.

Invariant: JSON holds no NaN. In text, what is unknown reads "n/a", never 0, and no character of a name steers a
terminal. Text is cells and sentences here; `attributary analyze` fits them to a terminal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attributary.attribution_core.analysis.experiment_lifts import calibration_notes
from attributary.attribution_core.analysis.report import ModelReport, plain
from attributary.attribution_core.tables.cells import printable

CSV_COLUMNS = (
    "model", "version", "model_status", "value_status", "channel", "conversions", "value",
    "share", "interval_low", "interval_high", "standard_error",
    "value_share", "value_interval_low", "value_interval_high",
    "removal_effect", "shapley", "conversions_with", "status", "fallback_model", "fallback_share", "spread_over_models",
    "calibrated_conversions", "calibrated_low", "calibrated_high", "calibrated_by",
    "calibrated_value", "calibrated_value_low", "calibrated_value_high", "calibrated_value_by",
)  # fmt: skip


@dataclass(frozen=True)
class TextColumn:
    """A column of the text table.

    Attributes:
        title: its name.
        cells: one per channel.
        foot: one each for baseline, unattributed and all; none where several models stand side by side.
    """

    title: str
    cells: list[str]
    foot: list[str]


@dataclass(frozen=True, eq=False)
class Analysis:
    """The answers of all models that were asked for, side by side."""

    models: tuple[ModelReport, ...]

    def __getitem__(self, model: str) -> ModelReport:
        """Return the answer of a model.

        Raises:
            KeyError: when it was not asked for.
        """
        for report in self.models:
            if report.model == model:
                return report
        raise KeyError(model)

    def __iter__(self) -> Iterator[ModelReport]:
        return iter(self.models)

    def __str__(self) -> str:
        return self.summary()

    def to_list(self) -> list[dict[str, Any]]:
        """Return plain values, one entry per model."""
        return [report.to_dict() for report in self.models]

    def to_json(self, indent: int | None = 2, *, ensure_ascii: bool = False) -> str:
        """Return JSON of full float precision: the object of one model, or an array of them when there are several."""
        found = self.to_list()
        document = found[0] if len(found) == 1 else found
        return json.dumps(document, indent=indent, allow_nan=False, ensure_ascii=ensure_ascii)

    def rows(self) -> list[dict[str, Any]]:
        """Return flat rows with the fields of `CSV_COLUMNS`: what a frame is made of.

        For every model one row per channel, then "(baseline)" where the model has one, and "(unattributed)": over
        these, conversions and value sum to those of the data, and shares to 1; but for what is unknown.
        """
        flat = []
        for report in self.models:
            head = {
                "model": report.model,
                "version": report.version,
                "model_status": report.diagnostics["status"],
                "value_status": report.diagnostics["value_status"],
            }
            rows = [{**plain(row), **head} for row in report.channels] + [{**row, **head} for row in report.rest()]
            for row in rows:
                fallback = row.get("fallback") or {"model": None, "share": None}
                row["fallback_model"], row["fallback_share"] = fallback["model"], fallback["share"]
                row["interval_low"], row["interval_high"] = row.get("interval") or (None, None)
                row["value_interval_low"], row["value_interval_high"] = row.get("value_interval") or (None, None)
                for of, prefix in (("conversions", "calibrated"), ("value", "calibrated_value")):
                    found = row.get(f"calibrated_{of}") or {"calibrated": None, "interval": None, "basis": None}
                    row[f"calibrated_{of}"], row[f"{prefix}_by"] = found["calibrated"], found["basis"]
                    row[f"{prefix}_low"], row[f"{prefix}_high"] = found["interval"] or (None, None)
                flat.append({name: row.get(name) for name in CSV_COLUMNS})
        return flat

    def summary(self) -> str:
        """Return plain text: a line per channel with the share of each model, then the notes.

        Lines are as long as their content.
        """
        columns = self.text_columns()
        widths = [max(map(len, [column.title, *column.cells, *column.foot])) for column in columns]
        lines = [
            "  ".join([cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])]).rstrip()
            for cells in zip(*((column.title, *column.cells, *column.foot) for column in columns), strict=True)
        ]
        blocks = [[*lines, *self.sizes()], *self.notes()]
        return "\n\n".join("\n".join(block) for block in blocks)

    def text_columns(self) -> list[TextColumn]:
        """Return channels, their support, the share of each model, and the spread over the models where it is known.

        A single model has conversions and value, too. No column where there is no channel.
        """
        if not self.models or not self.models[0].channels:
            return []
        first = self.models[0]
        rest = first.rest() if len(self.models) == 1 else []
        foot = [row["channel"] for row in rest] + ["all"] * bool(rest)
        columns = [
            TextColumn("channel", [printable(name) for name in first.column("channel")], foot),
            TextColumn("support", [f"{number:,.0f}" for number in first.column("conversions_with")], [""] * len(foot)),
        ]
        for key, form in (("conversions", ",.1f"), ("value", ",.2f")) if rest else ():
            below = [*(row[key] for row in rest), first.diagnostics[key]]
            columns.append(
                TextColumn(key, *([_number(each, form) for each in part] for part in (first.column(key), below)))
            )
        for report in self.models:
            kept = [_share(row) if row["share"] is not None else ("", "", "") for row in rest] + [("", "", "")] * bool(
                rest
            )
            cells = _aligned([_share(row) for row in report.channels] + kept)
            columns.append(TextColumn(report.model, cells[: len(report.channels)], cells[len(report.channels) :]))
        spreads = first.column("spread_over_models")
        if any(spread is not None for spread in spreads):
            cells = ["" if each is None else percent(each) for each in spreads]
            columns.append(TextColumn("spread", cells, [""] * len(foot)))
        return columns

    def sizes(self) -> list[str]:
        """Return sentences on what there was in the data; none for a single model: its table says it."""
        if not self.models:
            return ["no models"]
        first = self.models[0]
        if not first.channels:
            empty = "no channels: no journey has a touch" if first.diagnostics["journeys"] else "no rows"
            return [empty, _whole(first.diagnostics)]
        return [_whole(first.diagnostics)] if len(self.models) > 1 else []

    def notes(self) -> list[list[str]]:
        """Return the sentences that a reader of the numbers needs, in groups: status, calibration, insights."""
        return [[printable(line) for line in lines] for lines in _notes(self.models) if lines]


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
        *(f"  {line}" for line in calibration_notes(found)),
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
