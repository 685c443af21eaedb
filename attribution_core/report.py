"""What an analysis says: rows per channel, diagnostics per model, as plain values for JSON, CSV and tables.

Invariant: numbers are not rounded here; what is unknown is None, never 0. JSON holds no NaN.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

ChannelRow = dict[str, Any]

CSV_COLUMNS = (
    "model", "version", "channel", "conversions", "value", "share", "interval_low", "interval_high", "value_share",
    "removal_effect", "shapley", "conversions_with", "status", "spread_over_models",
    "calibrated_conversions", "calibrated_low", "calibrated_high", "calibrated_by",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class ModelReport:
    """One model's answer.

    Attributes:
        model: name.
        version: of the method, and its parameters.
        channels: one row per channel, in the order of the names.
        diagnostics: what the numbers rest on.
    """

    model: str
    version: str
    channels: list[ChannelRow]
    diagnostics: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON."""
        return {
            "model": self.model,
            "version": self.version,
            "channels": [plain(row) for row in self.channels],
            "diagnostics": plain(self.diagnostics),
        }

    def column(self, name: str) -> list[Any]:
        """Return one field of all channels."""
        return [row.get(name) for row in self.channels]


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
        return self.table()

    def to_list(self) -> list[dict[str, Any]]:
        """Return plain values, one entry per model."""
        return [report.to_dict() for report in self.models]

    def to_json(self, indent: int | None = 2) -> str:
        """Return JSON of full float precision: the object of one model, or an array of them when there are several."""
        found = self.to_list()
        return json.dumps(found[0] if len(found) == 1 else found, indent=indent, allow_nan=False, ensure_ascii=False)

    def rows(self) -> list[dict[str, Any]]:
        """Return one flat row per model and channel, with the fields of `CSV_COLUMNS`: what a frame is made of."""
        flat = []
        for report in self.models:
            for channel in report.channels:
                row = {**plain(channel), "model": report.model, "version": report.version}
                row["interval_low"], row["interval_high"] = row.get("interval") or (None, None)
                calibrated = row.get("calibrated_conversions") or {"calibrated": None, "interval": None, "basis": None}
                row["calibrated_conversions"], row["calibrated_by"] = calibrated["calibrated"], calibrated["basis"]
                row["calibrated_low"], row["calibrated_high"] = calibrated["interval"] or (None, None)
                flat.append({name: row.get(name) for name in CSV_COLUMNS})
        return flat

    def table(self) -> str:
        """Return a text table: channels by models, shares in percent, with intervals where they were computed."""
        names = sorted({row["channel"] for report in self.models for row in report.channels})
        cells = [["channel", *(report.model for report in self.models), "apart"]]
        for name in names:
            rows = [next((row for row in report.channels if row["channel"] == name), None) for report in self.models]
            spread = next((row.get("spread_over_models") for row in rows if row is not None), None)
            cells.append([name, *map(_cell, rows), "" if spread is None else f"{100 * spread:.2f} %"])
        for title, key in (("unattributed", "unattributed_conversions"), ("conversions", "conversions")):
            cells.append([title, *(f"{report.diagnostics[key]:,.0f}" for report in self.models), ""])
        if not any(line[-1] for line in cells[1:]):
            cells = [line[:-1] for line in cells]
        widths = [max(len(line[place]) for line in cells) for place in range(len(cells[0]))]
        lines = [
            "  ".join(
                cell.ljust(width) if place == 0 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in cells
        ]
        lines.insert(1, "-" * max(map(len, lines)))
        lines.insert(-2, lines[1])
        return "\n".join([*lines, *self._notes(), *self._calibrations(), *self._insights()])

    def _notes(self) -> list[str]:
        odd = [report for report in self.models if report.diagnostics["status"] != "ok"]
        rare = any(row["status"] != "ok" for report in self.models for row in report.channels)
        notes = [f"{report.model}: {report.diagnostics['status']}" for report in odd]
        notes += [
            f"{report.model}: {100 * report.diagnostics['baseline_share']:.2f} % stay with the baseline "
            f"({', '.join(report.diagnostics['baseline'])}) and are given to nobody"
            for report in self.models
            if report.diagnostics.get("baseline_share") is not None
        ]
        tied = max((report.diagnostics.get("touches_at_equal_times", 0) for report in self.models), default=0)
        if tied:
            notes.append(
                f"{tied:,} touches are at the time of one of another channel: event_id, or else the order of rows, "
                "decides which came first"
            )
        if rare:
            notes.append("* insufficient data: too few conversions with this channel; linear: " + self._fallbacks())
        return ["", *notes] if notes else []

    def _fallbacks(self) -> str:
        found = {
            row["channel"]: plain(row["fallback"]["share"])
            for report in self.models
            for row in report.channels
            if row.get("fallback")
        }
        return ", ".join(
            f"{name} {'n/a' if share is None else f'{100 * share:.2f} %'}" for name, share in found.items()
        )

    def _calibrations(self) -> list[str]:
        """Return the totals after scaling by experiments: totals of channels, never credits of single journeys."""
        lines = []
        for report in self.models:
            for found in report.diagnostics.get("calibration", ()):
                lines += ["", f"{report.model}, {found['of']} calibrated by {len(found['experiments'])} experiments:"]
                lines += [
                    f"  {row['channel']}: {row['attributed']:,.1f} x {row['factor']:.3f} = {row['calibrated']:,.1f} "
                    f"[{row['interval'][0]:,.1f}, {row['interval'][1]:,.1f}], {row['basis']}"
                    for row in found["channels"]
                ]
                lines.append(f"  left to no channel: {found['remainder']:,.1f}")
        return lines

    def _insights(self) -> list[str]:
        found: list[dict[str, Any]] = next(
            (report.diagnostics["insights"] for report in self.models if "insights" in report.diagnostics), []
        )
        lines = ["", "associations, not causes:"] if found else []
        for each in found:
            interval = "" if each["low"] is None else f" [{each['low']:.3g}, {each['high']:.3g}]"
            lines.append(f"  {each['text']} ({each['rule_id']}: {each['estimate']:.3g}{interval}, n {each['n']:,})")
        return lines


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it: numpy's numbers as Python's, what is no number as None."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _cell(row: ChannelRow | None) -> str:
    if row is None:
        return ""
    share = plain(row["share"])
    if share is None:
        return "n/a"
    text = f"{100 * share:.2f} %"
    interval = plain(row.get("interval"))
    if interval and None not in interval:
        text += f" [{100 * interval[0]:.2f}, {100 * interval[1]:.2f}]"
    return text + ("" if row["status"] == "ok" else " *")
