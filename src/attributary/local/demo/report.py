"""What the demo shows at its end, read from the store and from what the subscriber saw.

Invariant: names of channels and models are never cut: a table that is too wide for the terminal is shown in parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from attributary.local.demo.http_traffic import TENANT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import psycopg

    from attributary.local.demo.http_traffic import SenderRow
    from attributary.local.demo.promises import Promise
    from attributary.local.demo.subscriber import Seen
    from attributary.producers.simulator.truth import Truth

TRUTH, NOBODY = "truth", "(nobody)"
_MODELS = (
    "poisson", "markov", "shapley", "linear", "first", "last",
    "last_non_direct", "position_based", "time_decay",
)  # fmt: skip
_CREDIT = """
SELECT name, model, sum(credit)::float8 FROM reporting.credit
WHERE tenant_id = ANY(%s) AND dimension = 'channel' GROUP BY name, model
"""
_REVENUE = """
SELECT tenant_id, CASE currency WHEN 'XXX' THEN 'no value' ELSE currency END, count(*), sum(net_value)
FROM reporting.conversions GROUP BY tenant_id, currency ORDER BY tenant_id, currency = 'XXX', count(*) DESC
"""

# Credited conversions by channel, by model.
Credits = dict[str, dict[str, float]]


def credits_of(connection: psycopg.Connection, tenants: Sequence[str]) -> Credits:
    """Return credited conversions of some tenants: by model, then by channel; all currencies and types."""
    found: Credits = {}
    for name, model, credit in connection.execute(_CREDIT, (list(tenants),)).fetchall():
        channel = NOBODY if name == "(unattributed)" else name
        found.setdefault(model, {})[channel] = credit
    return found


def with_truth(credit: Credits, truth: Truth) -> Credits:
    """Return the credits with what each channel caused beside them; the rest of the conversions nobody caused."""
    caused = {name: channel.caused for name, channel in truth.channels.items()}
    return {TRUTH: caused | {NOBODY: truth.caused_by_nothing}, **credit}


def misplaced(credit: Credits) -> dict[str, float]:
    """Return the share of all conversions, 0 to 1, that each model credits to a channel that did not cause them."""
    truth = credit[TRUTH]
    total = sum(truth.values())
    return {
        model: sum(max(0.0, each - truth.get(channel, 0.0)) for channel, each in cells.items()) / total
        for model, cells in credit.items()
        if model != TRUTH
    }


def credit_tables(credit: Credits, title: str, width: int) -> Iterator[Table]:
    """Yield channels x models in credited conversions, in as many tables as the width needs.

    Args:
        credit: by model, then by channel.
        title: of the first table.
        width: of the terminal, characters.
    """
    order = [model for model in (TRUTH, *_MODELS) if model in credit] + sorted(set(credit) - {TRUTH, *_MODELS})
    key = TRUTH if TRUTH in credit else "linear"
    channels = sorted({name for cells in credit.values() for name in cells}, key=lambda name: -_of(credit, key, name))
    wrong = misplaced(credit) if TRUTH in credit else {}
    first = "credited wrong" if wrong else "total"
    name_width = max(len(first), *(len(name) for name in channels))
    for number, models in enumerate(_parts(order, width - name_width - 2)):
        table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title if number == 0 else None, title_justify="left")
        table.add_column("channel", no_wrap=True, min_width=name_width)
        for model in models:
            table.add_column(model, justify="right", no_wrap=True)
        for name in channels:
            table.add_row(name, *(f"{_of(credit, model, name):,.1f}" for model in models))
        table.add_section()
        table.add_row("total", *(f"{sum(credit[model].values()):,.1f}" for model in models))
        if wrong:
            table.add_row("credited wrong", *("" if model == TRUTH else f"{wrong[model]:.0%}" for model in models))
        yield table


def _of(credit: Credits, model: str, channel: str) -> float:
    return credit.get(model, {}).get(channel, 0.0)


def _parts(models: Sequence[str], width: int) -> Iterator[list[str]]:
    """Yield the models in parts that fit, each column as wide as its name or a number."""
    part: list[str] = []
    used = 0
    for model in models:
        wide = max(len(model), 7) + 3  # rich puts three spaces between columns
        if part and used + wide > width:
            yield part
            part, used = [], 0
        part.append(model)
        used += wide
    yield part


def finding(credit: Credits) -> str:
    """Return one sentence: the channel that counting touches misjudges most, and which models come closest."""
    wrong = misplaced(credit)
    ranked = sorted(wrong, key=lambda model: wrong[model])
    truth = credit[TRUTH]
    channel = max(
        (name for name in truth if name != NOBODY), key=lambda name: abs(truth[name] - _of(credit, "last", name))
    )
    said = ", ".join(
        f"{model} {_of(credit, model, channel):,.0f}" for model in ("last", "linear", "markov", "poisson")
        if model in credit
    )  # fmt: skip
    return (
        f"Finding: {channel} caused {truth[channel]:,.0f} of {sum(truth.values()):,.0f} conversions; credited: {said}. "
        f"Closest to the truth over all channels is {ranked[0]} ({wrong[ranked[0]]:.0%} credited wrong), farthest "
        f"{ranked[-1]} ({wrong[ranked[-1]]:.0%})."
    )


def revenue_table(connection: psycopg.Connection) -> Table:
    """Return tenants x currencies: conversions and net revenue, refunds taken off."""
    table = Table(
        "tenant", "currency", box=SIMPLE_HEAD, pad_edge=False,
        title="Net revenue (leads, sign-ups and the like have no value)", title_justify="left",
    )  # fmt: skip
    table.add_column("conversions", justify="right")
    table.add_column("net revenue", justify="right")
    for tenant, currency, conversions, net in connection.execute(_REVENUE).fetchall():
        amount = "" if currency == "no value" else f"{net:,.{0 if currency == 'JPY' else 2}f}"
        table.add_row(tenant, currency, f"{conversions:,}", amount)
    return table


def http_table(rows: Sequence[SenderRow]) -> Table:
    """Return what came over HTTP: requests, acknowledged records and time to the answer by sender."""
    table = Table(
        "sender", box=SIMPLE_HEAD, pad_edge=False,
        title=f"Over HTTP, tenant {TENANT}: acknowledged after Kafka's acknowledgement", title_justify="left",
    )  # fmt: skip
    for heading in ("requests", "records", "refused", "p50 ms", "p95 ms"):
        table.add_column(heading, justify="right")
    for row in rows:
        p50, p95 = (float(value) * 1_000 for value in np.percentile(row.seconds, (50, 95)))
        table.add_row(row.name, f"{row.requests:,}", f"{row.records:,}", f"{row.refused:,}", f"{p50:.1f}", f"{p95:.1f}")
    return table


def latency_line(
    seen: Sequence[Seen], live_at: Mapping[tuple[str, str], float], per_second: float
) -> tuple[str, dict[str, float]]:
    """Return a sentence, and p50, p95 and p99 in milliseconds: conversion published -> first result seen."""
    first: dict[tuple[str, str], float] = {}
    for result in seen:
        key = (result.tenant_id, result.conversion_id)
        if key in live_at:
            first[key] = min(first.get(key, np.inf), result.seen_at)
    waits = np.array([first[key] - live_at[key] for key in first]) * 1_000
    if waits.size == 0:
        return "Latency: no live conversion was measured", {}
    p50, p95, p99 = (float(value) for value in np.percentile(waits, (50, 95, 99)))
    line = (
        f"Latency: p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms, from publishing a conversion until a "
        f"read_committed subscriber has its result; {waits.size:,} conversions at {per_second:.0f} events/s after a "
        "warm-up, broker, database, all stages and both ends on this machine"
    )
    return line, {"p50": p50, "p95": p95, "p99": p99}


def forwarded_table(connection: psycopg.Connection, meta: Mapping[str, Any], ga4: Mapping[str, Any]) -> Table:
    """Return what the ledger says of each destination, beside what the fake services received."""
    table = Table(
        "destination", "state", "reason", box=SIMPLE_HEAD, pad_edge=False,
        title="Forwarded (delivery ledger)", title_justify="left",
    )  # fmt: skip
    table.add_column("events", justify="right")
    rows = connection.execute(
        "SELECT destination, state, COALESCE(reason, ''), count(*) FROM attribution_deliveries "
        "WHERE destination IN ('meta', 'ga4') GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    ).fetchall()
    for destination, state, reason, events in rows:
        table.add_row(destination, state, reason, f"{events:,}")
    table.add_section()
    for name, fake in (("meta", meta), ("ga4", ga4)):
        table.add_row(name, "received", f"by the fake service, in {fake['calls']:,} calls", f"{fake['events']:,}")
    return table


def promises_table(promises: Sequence[Promise]) -> Table:
    """Return the promises with their evidence."""
    table = Table("promise", "", "evidence", box=SIMPLE_HEAD, pad_edge=False, title="Promises", title_justify="left")
    for promise in promises:
        table.add_row(promise.text, "[green]held[/]" if promise.held else "[red]BROKEN[/]", promise.evidence)
    return table
