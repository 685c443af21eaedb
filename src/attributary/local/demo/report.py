"""What the demo shows at its end, read from the store and from what the subscriber saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psycopg

    from attributary.local.demo.promises import Promise
    from attributary.local.demo.subscriber import Seen

_CREDIT = """
SELECT name, model, sum(credit)::float8, sum(value)::float8 FROM reporting.credit
WHERE tenant_id = %s AND dimension = 'channel' AND currency = %s GROUP BY name, model
"""
_CURRENCY = """
SELECT currency, count(*), sum(net_value) FROM reporting.conversions WHERE tenant_id = %s
GROUP BY currency ORDER BY count(*) DESC, currency LIMIT 1
"""
_TRAINED = """
SELECT DISTINCT m ->> 'model_version', count(*) FROM attribution_results, jsonb_array_elements(models) AS m
WHERE m ->> 'model' = 'markov' GROUP BY 1 ORDER BY 2 DESC
"""


def credit_table(connection: psycopg.Connection, tenant: str) -> Table:
    """Return channels x models: credited conversions and value, for the tenant's most frequent currency."""
    found = connection.execute(_CURRENCY, (tenant,)).fetchone()
    currency, conversions, revenue = found or ("XXX", 0, 0)
    cells: dict[str, dict[str, tuple[float, float]]] = {}
    models: list[str] = []
    for name, model, credit, value in connection.execute(_CREDIT, (tenant, currency)).fetchall():
        cells.setdefault(name, {})[model] = (credit, value)
        if model not in models:
            models.append(model)
    order = [m for m in _MODEL_ORDER if m in models] + sorted(set(models) - set(_MODEL_ORDER))
    table = Table(
        "channel",
        *order,
        title=f"{tenant}: {conversions:,} conversions, {revenue:,.2f} {currency} net (conversions / {currency})",
    )
    for name in sorted(cells, key=lambda name: -cells[name].get("linear", (0.0, 0.0))[0]):
        table.add_row(name, *(_cell(cells[name].get(model)) for model in order))
    totals = [
        tuple(sum(cell[model][part] for cell in cells.values() if model in cell) for part in (0, 1)) for model in order
    ]
    table.add_section()
    table.add_row("total", *(_cell((credit, value)) for credit, value in totals))
    return table


_MODEL_ORDER = ("first", "last", "last_non_direct", "linear", "position_based", "time_decay", "markov", "shapley")


def _cell(pair: tuple[float, float] | None) -> str:
    return "" if pair is None else f"{pair[0]:,.1f} / {pair[1]:,.0f}"


def latency_line(seen: Sequence[Seen], live_at: Mapping[tuple[str, str], float]) -> tuple[str, dict[str, float]]:
    """Return one line, and p50, p95 and p99 in milliseconds: conversion published -> first result seen."""
    first: dict[tuple[str, str], float] = {}
    for result in seen:
        key = (result.tenant_id, result.conversion_id)
        if key in live_at:
            first[key] = min(first.get(key, np.inf), result.seen_at)
    waits = np.array([first[key] - live_at[key] for key in first]) * 1_000
    if waits.size == 0:
        return "no live conversion was measured", {}
    p50, p95, p99 = (float(value) for value in np.percentile(waits, (50, 95, 99)))
    line = (
        f"{waits.size} conversions published live, until a read_committed subscriber had the result: "
        f"p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms"
    )
    return line, {"p50": p50, "p95": p95, "p99": p99}


def forwarded_table(connection: psycopg.Connection, meta: Mapping[str, Any], ga4: Mapping[str, Any]) -> Table:
    """Return what the ledger says of each destination, beside what the stand-ins received."""
    table = Table("destination", "state", "reason", "events", title="Forwarded (delivery ledger)")
    rows = connection.execute(
        "SELECT destination, state, COALESCE(reason, ''), count(*) FROM attribution_deliveries "
        "WHERE destination IN ('meta', 'ga4') GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    ).fetchall()
    for destination, state, reason, events in rows:
        table.add_row(destination, state, reason, f"{events:,}")
    table.add_section()
    for name, fake in (("meta", meta), ("ga4", ga4)):
        table.add_row(name, "received by the stand-in", f"in {fake['calls']:,} calls", f"{fake['events']:,}")
    return table


def promises_table(promises: Sequence[Promise]) -> Table:
    """Return the promises with their evidence."""
    table = Table("promise", "", "evidence", title="Promises")
    for promise in promises:
        table.add_row(promise.text, "[green]held[/]" if promise.held else "[red]BROKEN[/]", promise.evidence)
    return table


def markov_versions(connection: psycopg.Connection) -> str:
    """Return which versions of the Markov model credited how many results."""
    rows = connection.execute(_TRAINED).fetchall()
    return ", ".join(f"{version} ({count:,})" for version, count in rows)
