"""Small tables in which conversions and value are shared unequally, so that neither can stand for the other."""

from __future__ import annotations

from typing import Any

Columns = dict[str, list[Any]]

UNEQUAL: Columns = {
    "path": ["a > b", "b", "a", "c > a", "c"],
    "total_conversions": [60, 45, 40, 50, 35],
    "total_conversion_value": [60, 450, 4000, 50, 7],
    "total_null": [140, 200, 400, 900, 300],
}


def single() -> Columns:
    """The same journeys, each conversion in a row of its own: so its value is known."""
    rows: list[tuple[str, int, float, int]] = []
    for path, conversions, value, nulls in zip(*UNEQUAL.values(), strict=True):
        rows += [(path, 1, round(value / conversions, 2), 0)] * conversions + [(path, 0, 0, nulls)]
    return {name: [row[place] for row in rows] for place, name in enumerate(UNEQUAL)}
