"""How a command line says what went wrong: one sentence on standard error, and the exit code of its kind.

Contract: ``explain`` knows every failure that a user, a setting or a service can cause, whichever command meets it, and
``CommandLine`` asks it for all commands. The sentence says what was tried, what answered and what to do; it never holds
a password or a value of a setting. What it does not know is a fault of this program and keeps its traceback.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import typer

from attributary.cli import exits

if TYPE_CHECKING:
    import psycopg

    from attributary.consumers.runtime.errors import AttributaryError
    from attributary.consumers.runtime.settings import KafkaSettings

_OUTPUT_FAILS = frozenset({errno.ENOSPC, errno.EFBIG, errno.EDQUOT})


class Failure(NamedTuple):
    """What went wrong, in a sentence, and the exit code of its kind."""

    text: str
    code: int


def explain(error: BaseException) -> Failure | None:
    """Return what a failure means; None: it is none that a user, a setting or a service can cause."""
    from attributary.schemas.installation import PrefixError

    if isinstance(error, PrefixError):  # first: with a bad prefix nothing below can be imported
        return Failure(str(error), exits.CONFIG)
    from attributary.consumers.adapters.error_mapping import map_errors
    from attributary.consumers.runtime.errors import AttributaryError

    with suppress(type(error)):
        try:
            with map_errors():
                raise error
        except AttributaryError as ours:
            return _of_ours(ours)
    return _of_others(error)


def explained_kinds() -> tuple[type[Exception], ...]:
    """Return the classes of which ``explain`` knows what they mean, each error of them or some."""
    import psycopg
    from confluent_kafka import KafkaException

    from attributary.consumers.runtime.errors import AttributaryError
    from attributary.consumers.store.access.readers import LoginTakenError, RolesMissingError
    from attributary.consumers.store.connection import DsnError, StoreUnavailable
    from attributary.consumers.store.migrate import MigrationError
    from attributary.consumers.store.models.model_states import ModelStateError
    from attributary.consumers.store.offsets import CommitsLostError
    from attributary.consumers.store.repair.rebuild_progress import RebuildRunsError
    from attributary.consumers.store.tenants import UnknownTenantError
    from attributary.producers.errors import ProducerError
    from attributary.schemas.codec import RegistryUnavailableError

    return (
        AttributaryError, psycopg.Error, KafkaException, OSError, UnicodeEncodeError, ProducerError, StoreUnavailable,
        DsnError, MigrationError, ModelStateError, CommitsLostError, RegistryUnavailableError, UnknownTenantError,
        RebuildRunsError, RolesMissingError, LoginTakenError,
    )  # fmt: skip


def _of_ours(error: AttributaryError) -> Failure:
    from attributary.consumers.runtime.errors import EXIT_CONFIG
    from attributary.consumers.store.connection import StoreUnavailable
    from attributary.schemas.codec import RegistryUnavailableError

    cause = error.__cause__
    if isinstance(cause, RegistryUnavailableError):
        return Failure(f"{error}. Start it, or correct SCHEMA_REGISTRY_URL", error.exit_code)
    if isinstance(cause, StoreUnavailable) and "Postgres at " in str(cause):
        advice = "Correct DATABASE_URL" if cause.is_setting else "Start it, or correct DATABASE_URL"
        return Failure(f"{error}. {advice}", EXIT_CONFIG if cause.is_setting else error.exit_code)
    return Failure(str(error), error.exit_code)


def _of_others(error: BaseException) -> Failure | None:
    import psycopg
    from confluent_kafka import KafkaException

    from attributary.consumers.runtime.error_codes import ACCESS_REFUSED
    from attributary.consumers.store.access.readers import LoginTakenError, RolesMissingError
    from attributary.consumers.store.repair.rebuild_progress import RebuildRunsError
    from attributary.consumers.store.tenants import UnknownTenantError
    from attributary.producers.errors import ProducerError

    if isinstance(error, psycopg.Error):
        return _of_postgres(error)
    if isinstance(error, OSError):
        return _of_files(error)
    if isinstance(error, KafkaException) and error.args[0].code() in ACCESS_REFUSED:
        text = f"Kafka refuses this user a right: {error.args[0].str()}; see docs/how-to/secure.md"
        return Failure(text, exits.CONFIG)
    kinds: Sequence[tuple[type[BaseException], str, int]] = (
        (KafkaException, "Kafka does not do it: {error.args[0]}", exits.DEPENDENCY_DOWN),
        (UnknownTenantError, "{error}", exits.FAILED),
        (RebuildRunsError, "{error}", exits.FAILED),
        (RolesMissingError, "{error}", exits.CONFIG),
        (LoginTakenError, "{error}", exits.FAILED),
        (ProducerError, "{error}", exits.DEPENDENCY_DOWN),
        (UnicodeEncodeError, "an argument is no valid UTF-8", exits.USAGE),
    )
    return next(
        (Failure(text.format(error=error), code) for kind, text, code in kinds if isinstance(error, kind)), None
    )


def _of_files(error: OSError) -> Failure | None:
    if error.errno == errno.EIO:
        return Failure(f"a file or the output cannot be read or written: {error.strerror}", exits.OUTPUT)
    if error.errno in _OUTPUT_FAILS:
        return Failure(f"the output cannot be written: {error.strerror}", exits.OUTPUT)
    return None if error.filename is None else Failure(f"{error.filename}: {error.strerror}", exits.USAGE)


def _of_postgres(error: psycopg.Error) -> Failure:
    """Its own text is not passed on: it quotes rows and statements."""
    from psycopg import DataError, InterfaceError, OperationalError, errors

    lacking = "the database lacks what this command reads; run `attributary db migrate`, or correct DATABASE_URL"
    kinds: Sequence[tuple[type[psycopg.Error], str, int]] = (
        (errors.UndefinedTable, lacking, exits.CONFIG),
        (errors.UndefinedColumn, lacking, exits.CONFIG),
        (errors.UndefinedFunction, lacking, exits.CONFIG),
        (
            errors.InsufficientPrivilege,
            "the user of DATABASE_URL may not do this in Postgres; see the roles in docs/how-to/operate.md",
            exits.CONFIG,
        ),
        (errors.ReadOnlySqlTransaction, "this Postgres only reads (a replica?); correct DATABASE_URL", exits.CONFIG),
        (errors.QueryCanceled, "Postgres ended a statement that took too long; try again", exits.DEPENDENCY_DOWN),
        (errors.LockNotAvailable, "Postgres waited too long for a lock; try again", exits.DEPENDENCY_DOWN),
        (DataError, "Postgres cannot hold one of the values given", exits.USAGE),
        (OperationalError, "Postgres was lost; try again", exits.DEPENDENCY_DOWN),
        (InterfaceError, "Postgres was lost; try again", exits.DEPENDENCY_DOWN),
        (errors.Error, "Postgres refuses", exits.FAILED),
    )
    told, code = next((text, code) for kind, text, code in kinds if isinstance(error, kind))
    return Failure(f"{told} ({type(error).__name__} {error.sqlstate or 'without SQLSTATE'})", code)


def say(text: str) -> None:
    """Print a sentence on standard error, without control characters that a name may hold."""
    from attributary.cli.tables import safe

    sys.stderr.write(f"attributary: {safe(text)}\n")


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn a failure that ``explain`` knows into a sentence and an exit code, here instead of at the command's end.

    Raises:
        typer.Exit: 69 when something outside is down, 78 for a bad setting or schema, 70 for what should not happen.
    """
    from attributary.consumers.adapters.error_mapping import map_errors
    from attributary.consumers.runtime.errors import AttributaryError

    try:
        with map_errors():
            yield
    except AttributaryError as error:
        failure = _of_ours(error)
        say(failure.text)
        raise typer.Exit(failure.code) from None


@contextmanager
def database(
    application_name: str, *, is_migrated: bool = True, tenant: str | None = None
) -> Iterator[psycopg.Connection]:
    """Open the database that DATABASE_URL names, with ``exit_codes``; committed at the end.

    Args:
        application_name: shown in ``pg_stat_activity``.
        is_migrated: refuse a database that lacks a migration, with the command that cures it.
        tenant: refuse a tenant of which nothing is stored.
    """
    from attributary.consumers.runtime.settings import DatabaseSettings, load
    from attributary.consumers.store.connection import connect
    from attributary.consumers.store.migrate import check_migrated
    from attributary.consumers.store.tenants import check_tenant

    with exit_codes():
        dsn = load(DatabaseSettings).url.get_secret_value()
        with connect(dsn, application_name=application_name) as connection:
            if is_migrated:
                check_migrated(connection, may_be_newer=True)
            if tenant is not None:
                check_tenant(connection, tenant)
                connection.commit()
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
