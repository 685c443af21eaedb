"""How a command line says what went wrong: one sentence on standard error, and the exit code of its kind."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.runtime.errors import AttributaryError

if TYPE_CHECKING:
    import psycopg


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn the project's errors into a sentence and an exit code.

    Raises:
        typer.Exit: 69 when something outside is down, 78 for a bad setting or schema, 70 for what should not happen.
    """
    try:
        with map_errors():
            yield
    except AttributaryError as error:
        sys.stderr.write(f"attributary: {error}\n")
        raise typer.Exit(error.exit_code) from None


@contextmanager
def database(application_name: str) -> Iterator[psycopg.Connection]:
    """Open the database that DATABASE_URL names, with ``exit_codes``; committed at the end."""
    from attributary.consumers.runtime.settings import DatabaseSettings, load
    from attributary.consumers.store.connection import connect

    with exit_codes():
        dsn = load(DatabaseSettings).url.get_secret_value()
        with connect(dsn, application_name=application_name) as connection:
            yield connection
