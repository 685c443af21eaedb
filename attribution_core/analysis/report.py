"""The answer of one model: a row per channel, and diagnostics.

Invariant: numbers are not rounded here. What is unknown is None, never 0. Rows of a model sum to the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

ChannelRow = dict[str, Any]

UNATTRIBUTED, BASELINE = "(unattributed)", "(baseline)"


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
