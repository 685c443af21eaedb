"""What an analysis says: rows per channel, diagnostics per model, as plain values for JSON, CSV and tables.

Invariant: numbers are not rounded here; what is unknown is None, never 0. JSON holds no NaN. Rows
of a model sum to the data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from attributary.attribution_core.analysis.report_table import WIDTH, table_text

ChannelRow = dict[str, Any]

UNATTRIBUTED, BASELINE = "(unattributed)", "(baseline)"

CSV_COLUMNS = (
    "model", "version", "model_status", "value_status", "channel", "conversions", "value",
    "share", "interval_low", "interval_high", "standard_error",
    "value_share", "value_interval_low", "value_interval_high",
    "removal_effect", "shapley", "conversions_with", "status", "fallback_model", "fallback_share", "spread_over_models",
    "calibrated_conversions", "calibrated_low", "calibrated_high", "calibrated_by",
    "calibrated_value", "calibrated_value_low", "calibrated_value_high", "calibrated_value_by",
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

    def rest(self) -> list[ChannelRow]:
        """Return what no channel gets: the model's baseline, if it has one, and the journeys without a touch.

        Shares are of the journeys with touches, as those of the channels are, so the latter have none.
        """
        said, found = self.diagnostics, []
        if "baseline" in said:
            row: ChannelRow = {"channel": BASELINE}
            for of, key in (("conversions", "share"), ("value", "value_share")):
                part = row[key] = said[f"baseline_{key}"]
                row[of] = None if part is None else part * (said[of] - said[f"unattributed_{of}"])
            found.append(row)
        lost = {of: said[f"unattributed_{of}"] for of in ("conversions", "value")}
        return [*found, {"channel": UNATTRIBUTED, **lost, "share": None, "value_share": None}]

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

    def table(self, width: int = WIDTH) -> str:
        """Return a text table: channels by models, shares in percent, with intervals where they were computed.

        Args:
            width: places in a line; models that do not fit beside the others go into a block below.
        """
        return table_text(self.models, width)


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
