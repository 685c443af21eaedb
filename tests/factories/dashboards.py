"""Dashboards as files, and their queries with the variables that a person chose in Grafana."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
CHOICES: Mapping[str, Sequence[str]] = {
    "tenant": ("acme",), "currency": ("EUR",), "model": ("linear",), "models": ("linear", "last"),
    "type": ("purchase", "lead"),
}  # fmt: skip


def dashboards() -> Iterator[dict[str, Any]]:
    """Every dashboard."""
    for file in DASHBOARDS:
        yield json.loads(file.read_text(encoding="utf-8"))


def panels() -> Iterator[dict[str, Any]]:
    """Every panel with a query, also those of folded rows."""
    for dashboard in dashboards():
        for panel in dashboard["panels"]:
            yield from panel["panels"] if panel["type"] == "row" else [panel]


def plain_sql(query: str, choices: Mapping[str, Sequence[str]] = CHOICES) -> str:
    """Return a query as Grafana sends it: variables as SQL strings, the time filter as a condition."""

    def chosen(found: re.Match[str]) -> str:
        return ", ".join("'" + value.replace("'", "''") + "'" for value in choices[found[1]])

    text = re.sub(r"\$\{(\w+):sqlstring\}", chosen, query)
    text = re.sub(
        r"\$__timeFilter\(([\w.]+)\)", r"(\1 BETWEEN '2026-10-01T00:00:00Z' AND '2026-12-01T00:00:00Z')", text
    )
    assert "$" not in text, text
    return text
