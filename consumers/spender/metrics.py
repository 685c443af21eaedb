"""The metrics of the spender."""

from __future__ import annotations

from attributary.consumers.runtime.metrics import counter

spend_rows = counter(
    "attribution_spend_rows",
    "Rows of spend from the topic, by outcome: new, changed, unchanged, removed (a complete report lacks them), "
    "late (a newer report is stored already).",
    "outcome",
)
