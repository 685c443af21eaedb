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

    from attributary.consumers.runtime.settings import KafkaSettings


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
        from attributary.consumers.runtime.errors import EXIT_CONFIG
        from attributary.consumers.store.connection import StoreUnavailable

        cause = error.__cause__
        code = EXIT_CONFIG if isinstance(cause, StoreUnavailable) and cause.is_setting else error.exit_code
        advice = ""
        if isinstance(cause, StoreUnavailable) and "Postgres at " in str(cause):
            advice = ". Correct DATABASE_URL" if cause.is_setting else ". Start it, or correct DATABASE_URL"
        sys.stderr.write(f"attributary: {error}{advice}\n")
        raise typer.Exit(code) from None


@contextmanager
def database(application_name: str, *, is_migrated: bool = True) -> Iterator[psycopg.Connection]:
    """Open the database that DATABASE_URL names, with ``exit_codes``; committed at the end.

    Args:
        application_name: shown in ``pg_stat_activity``.
        is_migrated: refuse a database that lacks a migration, with the command that cures it.
    """
    from attributary.consumers.runtime.settings import DatabaseSettings, load
    from attributary.consumers.store.connection import connect
    from attributary.consumers.store.migrate import check_migrated

    with exit_codes():
        dsn = load(DatabaseSettings).url.get_secret_value()
        with connect(dsn, application_name=application_name) as connection:
            if is_migrated:
                check_migrated(connection, may_be_newer=True)
            yield connection


def kafka_settings() -> KafkaSettings:
    """Return how to reach Kafka, after a broker has answered. A user without a broker is told within seconds.

    Raises:
        Fatal: no broker answers; says which were tried and why.
        ConfigError: a setting is missing or wrong.
    """
    from attributary.consumers.runtime.kafka_errors import check_reachable
    from attributary.consumers.runtime.settings import KafkaSettings

    settings = KafkaSettings.load()
    check_reachable(settings)
    # What librdkafka has to say about a broker that goes away later would flood the terminal.
    return settings.model_copy(update={"extra": {"log_level": 0, **settings.extra}})
