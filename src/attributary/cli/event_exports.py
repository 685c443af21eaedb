"""Exports of events as a table of journeys: visits and purchases of one file, for `attributary analyze --preset`.

Contract: the file is read twice as `attributary produce` reads it, for touchpoints and for conversions; a person is the
device (``anonymous_id``), else the user. Values of several currencies are no table: they are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

PRESETS = ("ga4",)
"""Presets of files that hold touchpoints and conversions."""


def event_columns(file: Path, options: Mapping[str, Any]) -> tuple[dict[str, list[Any]], list[str]]:
    """Return the columns of a table of events, and notes on what was left out.

    Args:
        file: its path.
        options: those of the command line, with the preset.

    Raises:
        ValueError: the file, the preset or an option cannot be used.
    """
    from datetime import UTC, datetime, timedelta

    from attributary.producers.importer.open_file import open_file
    from attributary.producers.importer.row_mapper import NoTouchpoint, NotWanted, RowRefused

    preset = options["preset"]
    if preset not in PRESETS:
        raise ValueError(
            f"--preset {preset}: that export has no visits beside its conversions; analyze takes {', '.join(PRESETS)}"
        )
    columns: dict[str, list[Any]] = {
        name: [] for name in ("user", "time", "channel", "conversion", "value", "event_id")
    }
    notes: dict[str, int] = {}
    currencies: set[str] = set()
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    for kind in ("touchpoint", "conversion"):
        source, _, mapper, _ = open_file(file, {**options, "kind": kind})
        with source:
            for order in mapper.orders(source.rows()):
                try:
                    record = mapper.mapped(order).records[0]
                except (NotWanted, NoTouchpoint):
                    continue
                except RowRefused as error:
                    text = f"{kind} rows left out: {error.field}: {error.rule}"
                    notes[text] = notes.get(text, 0) + 1
                    continue
                columns["user"].append(record.get("anonymous_id") or record.get("user_id") or "")
                columns["time"].append(epoch + timedelta(microseconds=record["occurred_at"]))
                columns["channel"].append(record.get("channel") or "")
                columns["conversion"].append("yes" if kind == "conversion" else "")
                columns["value"].append(record.get("value_micros", 0) / 1_000_000 if kind == "conversion" else "")
                columns["event_id"].append(record["event_id"])
                currencies |= {record["currency"]} if record.get("value_micros") else set()
    if len(currencies) > 1:
        raise ValueError(f"the values are in {', '.join(sorted(currencies))}: choose one (--where COLUMN=VALUE)")
    return columns, [f"{text} ({count:,})" for text, count in notes.items()]
