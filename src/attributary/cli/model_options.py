"""What the commands of `attributary models` share: options, the version that is meant, times, errors."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attributary.cli import exits

if TYPE_CHECKING:
    import psycopg

    from attributary.consumers.store.models.model_states import StateSummary

_MICROS = 1_000_000

Tenant = Annotated[str, typer.Option("--tenant", help="Whose models.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON with all fields and full precision, instead of a table.")]

Force = Annotated[
    bool, typer.Option("--force", help="Bring a version into force although its status says that it is of no use.")
]


@contextmanager
def usage_errors() -> Iterator[None]:
    """Say what cannot be done as asked, exit code 2."""
    from attributary.consumers.trainer.job_handlers import JOB_ERRORS

    try:
        yield
    except JOB_ERRORS as error:
        sys.stderr.write(f"attributary: {error}\n")
        raise typer.Exit(exits.USAGE) from None


def chosen_version(connection: psycopg.Connection, tenant: str, model: str, version: int | None) -> int:
    """Return the version that is meant: the one that was named, else the active one, else the newest.

    Raises:
        ModelStateError: the model has no version.
    """
    from attributary.consumers.store.models.model_states import ModelStateError, list_states

    if version is not None:
        return version
    rows = list_states(connection, tenant, model)
    if not rows:
        raise ModelStateError(f"{model} has no version for tenant {tenant}; train it: attributary models train")
    return next((row.version for row in rows if row.is_active), rows[0].version)


def time_option(text: str | None, option: str) -> int | None:
    """Return the microseconds UTC of a time.

    Raises:
        typer.BadParameter: it is none.
    """
    from attributary.consumers.trainer.job_requests import parse_time

    try:
        return None if text is None else parse_time(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


@contextmanager
def progress_bar() -> Iterator[Any]:
    """Show how far it is, on standard error, where that is a terminal.

    What is yielded is called with what is done, of how much, and, where these are no people, with what they are.
    """
    if not sys.stderr.isatty():
        yield lambda done, total, name="": None  # noqa: ARG005  # nobody looks
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("people", total=None)
        yield lambda done, total, name="people": bars.update(task, completed=done, total=total, description=name)


def summary_document(row: StateSummary) -> dict[str, Any]:
    """Return a version as JSON shows it, without its statistics."""
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
    """Return a window of training as people read it."""
    from datetime import UTC, datetime

    ends = [
        "open" if at is None else f"{datetime.fromtimestamp(at / _MICROS, UTC):%Y-%m-%d %H:%M}"
        for at in (window["since"], window["until"])
    ]
    types = ", ".join(window["conversion_types"])
    return f"{ends[0]} to {ends[1]}" + (f", {types} only" if types else "")
