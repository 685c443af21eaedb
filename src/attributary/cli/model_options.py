"""Options, times, errors and progress that the commands of `attributary models` share."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attributary.cli import exits
from attributary.cli.tables import safe

if TYPE_CHECKING:
    from attributary.consumers.store.models.model_states import StateSummary

_MICROS = 1_000_000


def _model(text: str | None) -> str | None:
    from attributary.consumers.training.model_settings import check_model_name

    try:
        if text is not None:
            check_model_name(text)
    except ValueError as error:
        raise typer.BadParameter(safe(str(error))) from None
    return text


Model = Annotated[str, typer.Argument(help="markov or poisson.", callback=_model)]
ModelOption = Annotated[str, typer.Option("--model", help="markov, or the time-aware poisson.", callback=_model)]
AnyModel = Annotated[str | None, typer.Option("--model", help="This model only.", callback=_model)]
AsJson = Annotated[bool, typer.Option("--json", help="JSON with all fields and full precision, instead of a table.")]

Force = Annotated[bool, typer.Option("--force", help="Activate a version although its status is not ok.")]


@contextmanager
def usage_errors() -> Iterator[None]:
    """Print the reason why something cannot be done; exit code 2."""
    from attributary.consumers.store.tenants import UnknownTenantError
    from attributary.consumers.trainer.job_handlers import JOB_ERRORS

    try:
        yield
    except (UnknownTenantError, *JOB_ERRORS) as error:
        sys.stderr.write(f"attributary: {safe(str(error))}\n")
        raise typer.Exit(exits.USAGE) from None


@contextmanager
def progress_bar() -> Iterator[Any]:
    """Show progress on standard error, if that is a terminal.

    The yielded function takes units done, units in all, and the name of the unit (default: people).
    """
    if not sys.stderr.isatty():
        yield lambda done, total, name="": None  # noqa: ARG005  # no terminal
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("people", total=None)
        yield lambda done, total, name="people": bars.update(task, completed=done, total=total, description=name)


def summary_document(row: StateSummary) -> dict[str, Any]:
    """Return a version for JSON, without its statistics."""
    return {
        "tenant": row.tenant_id,
        "model": row.model,
        "version": row.version,
        "is_active": row.is_active,
        "trained_at": row.trained_at.isoformat(),
        "activated_at": row.activated_at.isoformat() if row.activated_at else None,
        "metadata": dict(row.metadata),
    }


def window_text(window: Mapping[str, Any]) -> str:
    """Return the window of a training as text."""
    from datetime import UTC, datetime

    ends = [
        "open" if at is None else f"{datetime.fromtimestamp(at / _MICROS, UTC):%Y-%m-%d %H:%M}"
        for at in (window["since"], window["until"])
    ]
    types = ", ".join(window["conversion_types"])
    return f"{ends[0]} to {ends[1]}" + (f", {types} only" if types else "")
