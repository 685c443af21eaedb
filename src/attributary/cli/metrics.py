"""`attributary metrics`: every metric that a process can show, in one table made from the catalogue."""

from __future__ import annotations

import importlib
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attributary.cli.generated_page import compare_page, print_page
from attributary.cli.tables import print_json, width

if TYPE_CHECKING:
    from attributary.consumers.runtime.metrics import MetricDefinition

_HEAD = """# Metrics

Every process serves these at `/metrics` on METRICS_PORT; each shows those that concern it. No label has an id, a URL or
personal data in it. This page is made by `attributary metrics --markdown`; `make check` compares it.

| Metric | Type | Labels | Meaning |
|---|---|---|---|
"""


_COLUMNS = 100
_REGISTERING = (
    "stitcher", "attributor", "auditor", "reporter", "spender", "sweeper", "destinations", "trainer", "api",
)  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the command `metrics`."""
    app.command("metrics")(_metrics)


def _metrics(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/reference/metrics.md.")] = False,
    check: Annotated[Path | None, typer.Option(help="Exit 1 if this file differs from the page.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list.")] = False,
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
    if as_json:
        print_json([{"name": m.name, "type": m.kind, "labels": list(m.labels), "help": m.help} for m in all_metrics()])
        return
    # No table: the names are long, and each must be whole, to be copied.
    for metric in all_metrics():
        print(f"{metric.name} ({metric.kind}{' by ' if metric.labels else ''}{', '.join(metric.labels)})")
        print(textwrap.fill(metric.help, width() or _COLUMNS, initial_indent="    ", subsequent_indent="    "))


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
