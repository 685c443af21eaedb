"""A stage's connection: opened when needed, checked for migrations, re-opened after an outage, asked for its health."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import psycopg

from .connection import StoreUnavailable, connect, translated_errors
from .migrate import check_migrated

# A plan that was made while a table was small must not be used when it has grown (decision 4): none is kept before
# every table has so many bytes, and none for longer than this.
_GROWN_BYTES = 1 << 20
_PLANS_KEPT_SECONDS = 10.0
_SMALLEST = """
SELECT min(pg_relation_size(name::regclass)) FROM unnest(ARRAY[
    'attribution_touchpoints', 'attribution_journeys', 'attribution_identities', 'attribution_conversions',
    'attribution_conversion_events', 'attribution_identity_links', 'attribution_results']) AS t (name)
"""
# A batch of fewer rows costs less to run than to plan; a larger one is planned for what it holds.
FEW_ROWS = 250


def _nothing(_connection: psycopg.Connection) -> None:
    pass


class StoreSession:
    """One connection of one stage, used by one thread.

    Args:
        dsn: where Postgres is; never logged.
        application_name: shown in ``pg_stat_activity``.
        prepare: called on every new connection, for example to create temporary tables.
    """

    def __init__(
        self, dsn: str, application_name: str, prepare: Callable[[psycopg.Connection], None] = _nothing
    ) -> None:
        self._dsn = dsn
        self._application_name = application_name
        self._prepare = prepare
        self._connection: psycopg.Connection | None = None
        self._reachable = True
        self._has_started = False
        self._plans_since: float | None = None  # monotonic seconds
        self._has_grown = False

    def connection(self) -> psycopg.Connection:
        """Return the live connection, opening a new one if there is none.

        Raises:
            StoreUnavailable: Postgres does not answer.
            MigrationError: the schema is older than the code; at the first connection, also newer.
            DsnError: the address is none.
        """
        if self._connection is None or self._connection.closed:
            self._reachable = False
            connection = connect(self._dsn, application_name=self._application_name)
            self._plans_since = None
            with ExitStack() as undo, translated_errors():
                undo.callback(connection.close)
                # A newer database is refused at the start only: a stage that runs lives through a migration.
                check_migrated(connection, may_be_newer=self._has_started)
                self._prepare(connection)
                connection.commit()
                undo.pop_all()  # it is good: keep it open
            self._connection = connection
            self._has_started = True
            self._reachable = True
        return self._connection

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection]:
        """Run one transaction at READ COMMITTED: committed at the end, rolled back on any exception.

        Raises:
            StoreUnavailable: Postgres did not take it, or took it and could not say so: replay decides.
        """
        connection = self.connection()
        try:
            # A statement without parameters that is prepared keeps its plan whatever the session's setting says.
            connection.prepare_threshold = None
            with translated_errors(), connection.transaction():
                yield connection
        except StoreUnavailable:
            self.drop()  # whatever state it is in, the next transaction starts on a new one
            self._reachable = False
            raise

    def keep_plans(self) -> None:
        """Run the statements of the transaction in hand by plans that are kept for some seconds; for small batches.

        Not while a table is small: what is planned for it would be wrong a moment later.
        """
        connection = self.connection()
        if self._plans_since is None or time.monotonic() - self._plans_since > _PLANS_KEPT_SECONDS:
            connection.execute("DISCARD PLANS")
            row = connection.execute(_SMALLEST).fetchone()
            self._has_grown = row is not None and row[0] >= _GROWN_BYTES
            self._plans_since = time.monotonic()
        if self._has_grown:
            connection.prepare_threshold = 1
            connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")

    @contextmanager
    def plain(self) -> Iterator[psycopg.Connection]:
        """Lend the connection outside of a transaction, to who makes transactions of their own.

        Raises:
            StoreUnavailable: Postgres does not answer, or did not take one of them.
        """
        connection = self.connection()
        try:
            with translated_errors():
                yield connection
        except StoreUnavailable:
            self.drop()
            self._reachable = False
            raise

    @contextmanager
    def snapshot(self) -> Iterator[psycopg.Connection]:
        """Run one read-only transaction in which every statement sees the same state (REPEATABLE READ).

        Raises:
            StoreUnavailable: Postgres does not answer.
        """
        with self.transaction() as connection:
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            yield connection

    def is_reachable(self) -> bool:
        """Tell whether the last attempt reached Postgres. Safe to call from any thread; asks nothing."""
        return self._reachable

    def drop(self) -> None:
        """Close the connection; the next use opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    close = drop
