"""Migrations, and the rules that every table keeps."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

import psycopg
import pytest

from attributary.consumers.store import migrate as migrate_module
from attributary.consumers.store.connection import StoreUnavailable, connect, with_timeouts
from attributary.consumers.store.events import attribution_inputs as attribution_reads
from attributary.consumers.store.events import bulk_reads as reading
from attributary.consumers.store.events import stitch_sql as stitching_sql
from attributary.consumers.store.migrate import (
    NO_TRANSACTION,
    Migration,
    MigrationError,
    check_migrated,
    migrate,
    migrations,
    status,
)
from attributary.consumers.store.models import timelines as training
from attributary.consumers.store.offsets import record_positions
from attributary.consumers.store.repair import journey_rebuild as rebuilding
from attributary.consumers.store.session import StoreSession

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

NAMES = tuple(migration.name for migration in migrations())


def opened(dsn: str) -> psycopg.Connection:
    return connect(dsn, application_name="tests")


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    with opened(database) as found:
        yield found


def test_a_fresh_database_gets_everything_once(blank_database: str) -> None:
    with opened(blank_database) as connection:
        assert status(connection).pending == NAMES
        connection.rollback()
        with pytest.raises(MigrationError, match=rf"lacks {len(NAMES)} migration\(s\); run `attributary db migrate`"):
            check_migrated(connection)
        assert migrate(connection) == NAMES
        assert migrate(connection) == ()
        assert status(connection).applied == NAMES
        check_migrated(connection)


def test_two_that_migrate_at_once_take_turns(blank_database: str) -> None:
    done: list[tuple[str, ...]] = []

    def run() -> None:
        with opened(blank_database) as connection:
            done.append(migrate(connection))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(done) == [(), (), NAMES]


def test_a_database_that_is_newer_than_the_code_is_refused(connection: psycopg.Connection, database: str) -> None:
    connection.execute("INSERT INTO attribution_migrations (number, name, sha256) VALUES (9000, '9000_later.sql', '')")
    connection.commit()
    for refuse in (status, migrate, check_migrated):
        with pytest.raises(MigrationError, match="9000, which this code does not know: it is newer than the code"):
            refuse(connection)
        connection.rollback()
    with pytest.raises(MigrationError, match="newer"):
        StoreSession(database, "tests").connection()


def test_a_file_that_was_changed_after_its_application_is_refused(connection: psycopg.Connection) -> None:
    connection.execute("UPDATE attribution_migrations SET sha256 = 'other' WHERE number = 1")
    connection.commit()
    with pytest.raises(MigrationError, match=r"0001_core\.sql was changed after it had been applied"):
        migrate(connection)


def test_a_migration_that_fails_leaves_nothing_and_no_lock(blank_database: str) -> None:
    with opened(blank_database) as connection, opened(blank_database) as other:
        connection.execute("CREATE SCHEMA reporting")  # in the way of a later file
        connection.commit()
        with pytest.raises(psycopg.errors.DuplicateSchema):
            migrate(connection)
        connection.execute("DROP SCHEMA reporting")
        connection.commit()
        found = status(other)
        assert found.applied
        assert "0004_reporting.sql" in found.pending
        other.rollback()
        assert migrate(other) == found.pending  # nobody holds the lock


def with_file(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    later = Migration(9_001, "9001_later.sql", text)
    monkeypatch.setattr(migrate_module, "migrations", lambda: [*migrations(), later])


def test_s17_a_migration_waits_for_a_lock_only_shortly_and_tries_again(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate_module, "LOCK_SECONDS", 0.2)
    monkeypatch.setattr(migrate_module, "_PAUSE_SECONDS", 0.1)
    with_file(monkeypatch, "ALTER TABLE attribution_touchpoints ADD COLUMN later text;")
    with opened(database) as report, opened(database) as reader, opened(database) as connection:
        report.execute("SELECT count(*) FROM attribution_touchpoints")  # its lock lasts until its end
        monkeypatch.setattr(migrate_module, "_TRIES", 2)
        with pytest.raises(MigrationError, match=r"9001_later\.sql: others hold a lock .*pg_stat_activity"):
            migrate(connection)
        assert status(reader).pending == ("9001_later.sql",)
        reader.rollback()

        monkeypatch.setattr(migrate_module, "_TRIES", 200)
        done: list[tuple[str, ...]] = []
        thread = threading.Thread(target=lambda: done.append(migrate(connection)))
        thread.start()
        reader.execute("SET statement_timeout = '60s'")
        for _ in range(10):  # nobody queues behind the migration for longer than its own wait
            reader.execute("SELECT count(*) FROM attribution_touchpoints")
            reader.rollback()
        assert done == []
        report.rollback()
        thread.join(120)
        assert done == [("9001_later.sql",)]


def test_s17_an_index_is_built_while_others_write(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_file(
        monkeypatch,
        f"{NO_TRANSACTION}\n-- Says why; a semicolon here is none.\n"
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS later_one ON attribution_positions (tenant_id, updated_at);\n"
        "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS later_two\n"
        "  ON attribution_positions (tenant_id, next_offset);\n",
    )
    valid = "SELECT c.relname, indisvalid FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE relname ~ '^later_'"
    with opened(database) as connection, opened(database) as other:
        for topic in ("t", "u"):
            record_positions(other, "g", {(topic, 0): 5})
        other.commit()
        with pytest.raises(psycopg.errors.UniqueViolation):
            migrate(connection)
        assert dict(other.execute(valid).fetchall()) == {"later_one": True, "later_two": False}  # the fault fired
        other.rollback()
        assert not connection.autocommit
        record_positions(other, "g", {("u", 0): 6})
        other.commit()
        assert migrate(connection) == ("9001_later.sql",)
        assert dict(other.execute(valid).fetchall()) == {"later_one": True, "later_two": True}
        other.rollback()
        assert migrate(connection) == ()


def test_s17_two_that_index_concurrently_take_turns(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with_file(
        monkeypatch,
        f"{NO_TRANSACTION}\nCREATE INDEX CONCURRENTLY IF NOT EXISTS later ON attribution_touchpoints (tenant_id);\n",
    )
    done: list[tuple[str, ...]] = []

    def run() -> None:
        with opened(database) as connection:
            done.append(migrate(connection))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(done) == [(), (), ("9001_later.sql",)]


_INDEX = re.compile(r"CREATE (?:UNIQUE )?INDEX\s+(CONCURRENTLY\s+)?(?:IF NOT EXISTS\s+)?\w+\s+ON\s+(?:ONLY\s+)?(\w+)")
_BEFORE_THE_RULE = 45


def test_s17_later_files_index_tables_that_hold_rows_concurrently() -> None:
    for migration in migrations():
        if migration.number <= _BEFORE_THE_RULE:
            continue
        own = set(re.findall(r"CREATE (?:UNLOGGED )?TABLE (?:IF NOT EXISTS )?(\w+)", migration.sql))
        locking = {table for concurrently, table in _INDEX.findall(migration.sql) if not concurrently} - own
        assert not locking, f"{migration.name}: index {locking} in a file that begins with {NO_TRANSACTION}"


def test_files_are_numbered_without_repeats() -> None:
    numbers = [migration.number for migration in migrations()]
    assert numbers == sorted(set(numbers))
    assert all(re.fullmatch(r"\d{4}_[a-z_]+\.sql", name) for name in NAMES)


_TABLES = """
SELECT n.nspname, c.relname, c.relkind, obj_description(c.oid, 'pg_class'),
       array_agg(a.attname::text), array_agg(a.attname::text) FILTER (WHERE col_description(c.oid, a.attnum) IS NULL)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE n.nspname IN ('public', 'reporting') AND c.relkind IN ('r', 'p', 'v', 'm')
GROUP BY n.nspname, c.oid, c.relname, c.relkind ORDER BY 2
"""
_KEYS = """
SELECT i.indexrelid::regclass::text, a.attname::text
FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
WHERE i.indisunique AND n.nspname = 'public'
"""
_FOREIGN = """
SELECT f.conname::text, a.attname::text FROM pg_constraint f
JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = f.conkey[1]
JOIN pg_namespace n ON n.oid = f.connamespace WHERE f.contype = 'f' AND n.nspname = 'public'
"""


def test_every_table_says_whose_a_row_is_and_when_it_changed(connection: psycopg.Connection) -> None:
    tables = [row for row in connection.execute(_TABLES).fetchall() if row[2] in "rp"]
    assert len(tables) >= 12
    for _, name, _, _, columns, _ in tables:
        assert name.startswith("attribution_")
        assert {"tenant_id", "created_at", "updated_at"} <= set(columns), name


def test_every_table_column_and_view_is_explained(connection: psycopg.Connection) -> None:
    for schema, name, kind, comment, _, bare in connection.execute(_TABLES).fetchall():
        assert comment, f"{schema}.{name} has no comment"
        if kind in "rp":
            assert bare is None, f"{name}: no comment on {bare}"


def test_every_key_begins_with_the_tenant(connection: psycopg.Connection) -> None:
    keys = connection.execute(_KEYS).fetchall() + connection.execute(_FOREIGN).fetchall()
    assert len(keys) >= 12
    assert [key for key in keys if key[1] != "tenant_id"] == []


def test_every_table_of_the_domain_exists(connection: psycopg.Connection) -> None:
    found = {row[1] for row in connection.execute(_TABLES).fetchall()}
    domain = {"touchpoints", "conversions", "journeys", "results", "model_states", "batch_jobs"}
    assert {f"attribution_{name}" for name in domain} <= found


@pytest.mark.parametrize("module", [attribution_reads, reading, rebuilding, stitching_sql, training])
def test_a_range_on_a_parameter_names_its_collation(module: ModuleType) -> None:
    """Only columns sort by bytes in every database; 'a:x' < 'a;' is false where punctuation sorts another way."""
    for name, statement in vars(module).items():
        if not isinstance(statement, str) or name.startswith("__"):
            continue
        aliases = set(re.findall(r"unnest\([^)]*\)\s+AS (\w+) \(", statement))
        for alias, rest in re.findall(r"(\w+)\.\w+ [<>] 'a;'( COLLATE \"C\")?", statement):
            assert alias not in aliases or rest, f"{module.__name__}.{name}: {alias}"


def test_sessions_are_at_read_committed_in_utc(connection: psycopg.Connection) -> None:
    assert connection.execute("SHOW transaction_isolation").fetchone() == ("read committed",)
    assert connection.execute("SHOW timezone").fetchone() == ("UTC",)


def test_a_server_that_does_not_answer_is_an_outage_without_user_or_password(free_port: int) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        connect(f"postgresql://jane:hunter2@127.0.0.1:{free_port}/shop", application_name="tests")
    assert not re.search("jane|hunter2", str(caught.value))
    assert str(caught.value) == f"Postgres at 127.0.0.1:{free_port}, database shop: nothing listens there"


def test_s11_a_session_that_has_started_lives_through_a_newer_migration(database: str) -> None:
    session = StoreSession(database, "tests-newer")
    session.connection()
    with opened(database) as other:
        other.execute("INSERT INTO attribution_migrations (number, name, sha256) VALUES (9001, '9001_new.sql', 'x')")
        other.commit()
        try:
            session.drop()  # a failover, a deadlock, an idle time-out
            with session.transaction() as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
            with pytest.raises(MigrationError, match="newer"):
                StoreSession(database, "tests-new-process").connection()
        finally:
            other.execute("DELETE FROM attribution_migrations WHERE number = 9001")
            other.commit()
            session.close()


def test_s16_a_stage_has_limits_for_statements_locks_and_tcp(database: str) -> None:
    session = StoreSession(with_timeouts(database, statement_seconds=2.0, lock_seconds=1.0), "tests-limits")
    with session.transaction() as connection:
        shown = [connection.execute(f"SHOW {name}").fetchone() for name in ("statement_timeout", "lock_timeout")]
        assert shown == [("2s",), ("1s",)]
        assert connection.info.get_parameters()["keepalives_idle"] == "20"
        assert connection.info.get_parameters()["tcp_user_timeout"] == "30000"
    with pytest.raises(StoreUnavailable), session.transaction() as connection:
        connection.execute("SELECT pg_sleep(60)")
    with opened(database) as holder:
        holder.execute("LOCK TABLE attribution_migrations IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailable):  # as a re-opened connection reads that table: an outage, not a hang
            session.connection()
        holder.rollback()
    with session.transaction() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    session.close()


def test_a_session_comes_back_after_its_connection_was_cut(database: str) -> None:
    session = StoreSession(database, "tests-cut")
    with session.transaction() as connection:
        connection.execute("SELECT 1")
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tests-cut'"
    with opened(database) as killer:
        assert killer.execute(cut).fetchone() == (True,)
    with pytest.raises(StoreUnavailable), session.transaction() as connection:
        connection.execute("SELECT 1")
    assert not session.is_reachable()
    with session.snapshot() as connection:
        assert connection.execute("SHOW transaction_isolation").fetchone() == ("repeatable read",)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), connection.transaction():
            connection.execute("CREATE TABLE x ()")
    assert session.is_reachable()
    session.close()
