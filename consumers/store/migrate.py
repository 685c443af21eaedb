"""Migrations: plain SQL files, applied in order, each in a transaction of its own, under one advisory lock.

Invariants: a file that was applied is never changed (its hash is kept and compared); a database that is newer than the
code is refused; two migrating processes wait for each other. There is no way back but a new file.

Stages go on working meanwhile. A statement waits for a lock for ``LOCK_SECONDS`` at most, because all who come later
queue behind it; then the file is rolled back and tried again. A file that begins with ``-- no transaction`` holds
statements that cannot stand in one and that may be repeated (``CREATE INDEX CONCURRENTLY IF NOT EXISTS``): a large
table is indexed so, without a lock against writers. An index that a failed try left behind is dropped first.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import psycopg
from psycopg import errors, sql

LOCK_SECONDS = 5.0
_TRIES = 60
_PAUSE_SECONDS = 5.0  # between two tries: those who queued behind us have their turn
_LOCK_POLL_SECONDS = 0.2
NO_TRANSACTION = "-- no transaction"

_CONCURRENT_INDEX = re.compile(r"CREATE (?:UNIQUE )?INDEX CONCURRENTLY IF NOT EXISTS (\w+)", re.IGNORECASE)
_LEFT_BEHIND = """
SELECT 1 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE c.relname = %s AND c.relnamespace = current_schema()::regnamespace AND NOT i.indisvalid
"""

# An arbitrary constant: the name "attributary migrations" as far as Postgres is concerned.
_LOCK = 0x61747472

_TABLE = """
CREATE TABLE IF NOT EXISTS attribution_migrations (
    tenant_id  text        NOT NULL DEFAULT '*',
    number     integer     NOT NULL,
    name       text        NOT NULL,
    sha256     text        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, number)
);
COMMENT ON TABLE attribution_migrations IS 'Which migrations this database has had.';
COMMENT ON COLUMN attribution_migrations.tenant_id IS 'Always *.';
COMMENT ON COLUMN attribution_migrations.number IS 'Number of the file.';
COMMENT ON COLUMN attribution_migrations.name IS 'Name of the file.';
COMMENT ON COLUMN attribution_migrations.sha256 IS 'Hash of the file as it was applied.';
COMMENT ON COLUMN attribution_migrations.created_at IS 'When it was applied.';
COMMENT ON COLUMN attribution_migrations.updated_at IS 'When the row was last changed.';
"""


class MigrationError(Exception):
    """The database and the code do not fit; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One migration file."""

    number: int
    name: str
    sql: str

    @property
    def is_transactional(self) -> bool:
        """Whether the file is applied as one transaction."""
        return not self.sql.startswith(NO_TRANSACTION)

    @property
    def statements(self) -> list[str]:
        """The statements of a file without a transaction; each ends with a semicolon at the end of a line."""
        return [part for part in re.split(r";[ \t]*(?:\n|\Z)", self.sql) if _without_comments(part)]

    @property
    def sha256(self) -> str:
        """Hash of the file's text, hex."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Status:
    """Where a database stands: migrations applied and still to apply, by name, in order."""

    applied: tuple[str, ...]
    pending: tuple[str, ...]


def migrations() -> Sequence[Migration]:
    """Return the migrations of this code in order."""
    folder = resources.files(__package__) / "migrations"
    files = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [Migration(int(name[:4]), name, (folder / name).read_text(encoding="utf-8")) for name in files]


def status(connection: psycopg.Connection, *, may_be_newer: bool = False) -> Status:
    """Compare database and code.

    Args:
        connection: to the database.
        may_be_newer: migrations that this code does not know are no error.

    Raises:
        MigrationError: the database is newer than the code, or an applied file was changed.
    """
    known = migrations()
    applied = _applied(connection)
    numbers = {migration.number for migration in known}
    newer = sorted(number for number in applied if number not in numbers)
    if newer and not may_be_newer:
        raise MigrationError(
            f"the database has migration {newer[-1]:04d}, which this code does not know: it is newer than the code. "
            "Upgrade Attributary before starting it on this database."
        )
    for migration in known:
        if migration.number in applied and applied[migration.number] != migration.sha256:
            raise MigrationError(f"{migration.name} was changed after it had been applied; restore it, add a new file")
    return Status(
        tuple(migration.name for migration in known if migration.number in applied),
        tuple(migration.name for migration in known if migration.number not in applied),
    )


def migrate(connection: psycopg.Connection) -> tuple[str, ...]:
    """Apply what is pending.

    Args:
        connection: not inside a transaction; its role must own the schema.

    Returns:
        The names of the files applied now.

    Raises:
        MigrationError: as in ``status``; nothing was changed then. Or others held a table locked for too long; what was
            applied before stays.
    """
    _take_turn(connection)
    try:
        connection.execute(_TABLE)
        connection.commit()
        pending = set(status(connection).pending)
        connection.rollback()  # what follows must be transactions of their own, not savepoints of this one
        done = []
        for migration in migrations():
            if migration.name not in pending:
                continue
            _apply(connection, migration)
            done.append(migration.name)
        return tuple(done)
    finally:
        connection.rollback()
        connection.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))
        connection.commit()


def _take_turn(connection: psycopg.Connection) -> None:
    """Wait until no other process migrates.

    By asking again and again: who waits inside of a statement holds a snapshot, and CREATE INDEX CONCURRENTLY of the
    other process would wait for that.
    """
    while True:
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,)).fetchone()
        connection.commit()
        if row is not None and row[0]:
            return
        time.sleep(_LOCK_POLL_SECONDS)


def _apply(connection: psycopg.Connection, migration: Migration) -> None:
    for _ in range(_TRIES):
        try:
            if migration.is_transactional:
                with connection.transaction():
                    connection.execute(
                        sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(f"{LOCK_SECONDS * 1_000:.0f}ms"))
                    )
                    connection.execute(migration.sql)
                    _note(connection, migration)
            else:
                _apply_one_by_one(connection, migration)
        except errors.LockNotAvailable:
            time.sleep(_PAUSE_SECONDS)
        else:
            return
    raise MigrationError(
        f"{migration.name}: others hold a lock for longer than {LOCK_SECONDS:.0f} s each time ({_TRIES} tries); it is "
        "not applied. Find them in pg_stat_activity (a backup, a long report), and run `attributary db migrate` again"
    )


def _apply_one_by_one(connection: psycopg.Connection, migration: Migration) -> None:
    was, connection.autocommit = connection.autocommit, True
    try:
        for statement in migration.statements:
            index = _CONCURRENT_INDEX.search(statement)
            if index and connection.execute(_LEFT_BEHIND, (index[1],)).fetchone():
                connection.execute(sql.SQL("DROP INDEX CONCURRENTLY {}").format(sql.Identifier(index[1])))
            connection.execute(statement.encode())
    finally:
        connection.autocommit = was
    with connection.transaction():
        _note(connection, migration)


def _note(connection: psycopg.Connection, migration: Migration) -> None:
    connection.execute(
        "INSERT INTO attribution_migrations (number, name, sha256) VALUES (%s, %s, %s)",
        (migration.number, migration.name, migration.sha256),
    )


def _without_comments(text: str) -> str:
    return re.sub(r"--[^\n]*", "", text).strip()


def check_migrated(connection: psycopg.Connection, *, may_be_newer: bool = False) -> None:
    """Refuse to work on a database that lacks a migration.

    Args:
        connection: to the database.
        may_be_newer: for a process that already works: every migration leaves what older code needs in place.

    Raises:
        MigrationError: says which command to run.
    """
    pending = status(connection, may_be_newer=may_be_newer).pending
    connection.rollback()
    if pending:
        raise MigrationError(f"the database lacks {len(pending)} migration(s); run `attributary db migrate`")


def _applied(connection: psycopg.Connection) -> dict[int, str]:
    exists = connection.execute("SELECT to_regclass('attribution_migrations')").fetchone()
    if exists is None or exists[0] is None:
        return {}
    return dict(connection.execute("SELECT number, sha256 FROM attribution_migrations").fetchall())
