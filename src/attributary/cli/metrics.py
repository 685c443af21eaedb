"""`attributary metrics`: every metric that a process can show, in one table made from the catalogue."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attributary.cli.generated_page import compare_page, print_page

if TYPE_CHECKING:
    from attributary.consumers.runtime.metrics import MetricDefinition

_HEAD = """# Metrics

Every process serves these at `/metrics` on METRICS_PORT; each shows those that concern it. No label has an id, a URL or
personal data in it. This page is made by `attributary metrics --markdown`; `make check` compares it.

| Metric | Type | Labels | Meaning |
|---|---|---|---|
"""


_REGISTERING = ("stitcher", "attributor", "auditor", "sweeper", "destinations", "trainer", "api")


def register(app: typer.Typer) -> None:
    """Add the command `metrics`."""
    app.command("metrics")(_metrics)


def _metrics(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/reference/metrics.md.")] = False,
    check: Annotated[Path | None, typer.Option(help="Exit 1 if this file differs from the page.")] = None,
) -> None:
    """Show every metric with its type, labels and meaning.

    Example: attributary metrics

    Example: attributary metrics --check docs/reference/metrics.md
    """
    page = _page()
    if check is not None:
        compare_page(page, check, "attributary metrics --markdown")
        return
    if markdown:
        print_page(page)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("Metric", "Type", "Labels", "Meaning", title="Metrics")
    for metric in all_metrics():
        table.add_row(metric.name, metric.kind, ", ".join(metric.labels), metric.help)
    Console().print(table)


def all_metrics() -> list[MetricDefinition]:
    """Return the metrics of all processes: those that each has, those that the stages register, the collector's."""
    from attributary.consumers.runtime.metrics import CATALOGUE, MetricDefinition
    from attributary.producers.collector.metrics import METRICS

    for module in _REGISTERING:
        importlib.import_module(f"attributary.consumers.{module}.metrics")
    return [*CATALOGUE, *(MetricDefinition(*metric) for metric in METRICS)]


def _page() -> str:
    rows = (f"| `{m.name}` | {m.kind} | {', '.join(m.labels)} | {m.help} |\n" for m in all_metrics())
    return _HEAD + "".join(rows)
