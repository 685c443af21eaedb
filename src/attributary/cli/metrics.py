"""`attributary metrics`: every metric that a process can show, in one table made from the catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attributary.cli.generated_page import compare_page, print_page

_HEAD = """# Metrics

Every process serves these at `/metrics` on METRICS_PORT; each shows those that concern it. No label has an id, a URL or
personal data in it. This page is made by `attributary metrics --markdown`; `make check` compares it.

| Metric | Type | Labels | Meaning |
|---|---|---|---|
"""


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

    from attributary.consumers.runtime.metrics import CATALOGUE

    table = Table("Metric", "Type", "Labels", "Meaning", title="Metrics")
    for metric in CATALOGUE:
        table.add_row(metric.name, metric.kind, ", ".join(metric.labels), metric.help)
    Console().print(table)


def _page() -> str:
    from attributary.consumers.runtime.metrics import CATALOGUE

    rows = (
        f"| `{metric.name}` | {metric.kind} | {', '.join(metric.labels)} | {metric.help} |\n" for metric in CATALOGUE
    )
    return _HEAD + "".join(rows)
