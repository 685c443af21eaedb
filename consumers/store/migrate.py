"""Migrations: plain SQL files, applied in order, each in a transaction of its own, under one advisory lock.

Invariants: a file that was applied is never changed (its hash is kept and compared); a database that is newer than the
code is refused; two migrating processes wait for each other. There is no way back but a new file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import psycopg

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
        MigrationError: as in ``status``; nothing was changed then.
    """
    connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
    connection.commit()
    try:
        connection.execute(_TABLE)
        connection.commit()
        pending = set(status(connection).pending)
        connection.rollback()  # what follows must be transactions of their own, not savepoints of this one
        done = []
        for migration in migrations():
            if migration.name not in pending:
                continue
            with connection.transaction():
                connection.execute(migration.sql)
                connection.execute(
                    "INSERT INTO attribution_migrations (number, name, sha256) VALUES (%s, %s, %s)",
                    (migration.number, migration.name, migration.sha256),
                )
            done.append(migration.name)
        return tuple(done)
    finally:
        connection.rollback()
        connection.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))
        connection.commit()


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
