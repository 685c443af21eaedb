"""The rows of a tenant, taken out of one database and put into another: every table, every kind of column."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from attributary.consumers.maintenance.status.store_checks import check_moves
from attributary.consumers.store.cells.drain import expire_left, open_deliveries, owed, replace_places
from attributary.consumers.store.cells.moves import Move, all_moves, fetch_move, store_move
from attributary.consumers.store.cells.tenant_rows import (
    DERIVED,
    MOVED,
    STAYING,
    RowsDifferError,
    count_rows,
    delete_rows,
    drop_held,
    hold_rows,
    holds_rollup,
    load_rows,
    published_rows,
    stored_events,
)
from attributary.consumers.store.migrate import migrate
from attributary.consumers.store.rollup.apply import lock_rollups

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.postgres, pytest.mark.once]

PREFIXES = ("eu.", "north.")
_VALUES = {
    "text": "'eu.attribution.x'", "bigint": "7", "integer": "3", "boolean": "true", "jsonb": '\'{"a": [1, "x"]}\'',
    "timestamp with time zone": "'2026-03-04 05:06:07.123456+02'", "date": "'2026-03-04'", "numeric": "12.50",
    "double precision": "0.1", "uuid": "'5f0c7f3e-1e8b-4c6b-9d2e-0a1b2c3d4e5f'", "bytea": "'\\x00ff'",
    "json": "'{}'", "bigint[]": "'{1,2}'", "text[]": "'{a,b}'", "numeric[]": "'{1.5}'", "int8multirange": "'{[1,5)}'",
}  # fmt: skip
_CHECKED = {
    "batch_jobs.state": "'submitted'", "deliveries.state": "'pending'", "delivery_requests.verdict": "'pending'",
    "tenants.erasure_mode": "'delete'", "experiments.design": "'geo'", "experiments.end_day": "'2026-04-01'",
    "experiments.spend_to_micros": "8", "experiments.population_share": "0.5", "rollup_days.dating": "'cash'",
    "rollup_names.grain": "'channel'", "rollup_restatements.grain": "'channel'", "campaign_aliases.kind": "'id'",
    "spend.level": "'ad'", "spend_slices.level": "'ad'", "removed_totals.bucket": "'(erased)'",
    "erasure_requests.kind": "'user'", "erasure_requests.mode": "'delete'", "erasure_requests.state": "'pending'",
    "erasures.kind": "'user'", "fx_rates.base": "'EUR'", "fx_rates.quote": "'USD'", "retention.step": "'done'",
}  # fmt: skip
_COLUMNS = """
SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped AND attidentity = '' AND attgenerated = ''
ORDER BY attnum
"""


def fill(connection: psycopg.Connection, name: str, tenant: str) -> None:
    """Put a row into a table, with a value in every column."""
    names, values = [], []
    for column, kind in connection.execute(_COLUMNS, (f"attribution_{name}",)).fetchall():
        value = _CHECKED.get(f"{name}.{column}") or _VALUES[kind]
        names.append(column)
        values.append(f"'{tenant}'" if column == "tenant_id" else value)
    connection.execute(f"INSERT INTO attribution_{name} ({', '.join(names)}) VALUES ({', '.join(values)})")


@pytest.fixture
def databases(database: str, blank_database: str) -> Iterator[tuple[psycopg.Connection, psycopg.Connection]]:
    with psycopg.connect(blank_database) as connection:
        migrate(connection)
    with psycopg.connect(database, autocommit=True) as source, psycopg.connect(blank_database, autocommit=True) as to:
        yield source, to


def moved(source: psycopg.Connection, target: psycopg.Connection, tenant: str) -> None:
    with source.transaction(), target.transaction():
        if holds_rollup(source, tenant):
            lock_rollups(target, [tenant])
        load_rows(source, target, tenant, PREFIXES, lambda _: None)


def test_every_table_with_a_tenant_is_moved_derived_or_stays(database: str) -> None:
    with psycopg.connect(database) as connection:
        tables = connection.execute(
            "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' "
            "WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace"
        ).fetchall()
    listed = [*MOVED, *DERIVED, *STAYING]
    assert sorted(listed) == sorted(name.removeprefix("attribution_") for (name,) in tables)
    assert len(set(listed)) == len(listed)


def test_rows_of_every_table_move_and_those_of_others_stay(
    databases: tuple[psycopg.Connection, psycopg.Connection],
) -> None:
    source, target = databases
    for name in (*MOVED, *DERIVED):
        for tenant in ("acme", "globex"):
            fill(source, name, tenant)
    assert count_rows(source, "acme") == dict.fromkeys(MOVED, 1)
    with source.transaction():
        assert hold_rows(source, "acme", lambda _: None) == dict.fromkeys(MOVED, 1)
    assert count_rows(source, "acme") == {}
    assert all(
        source.execute(f"SELECT array_agg(tenant_id) FROM attribution_{name}").fetchone() == (["globex"],)
        for name in DERIVED
    )
    assert count_rows(source, "globex") == dict.fromkeys(MOVED, 1)
    fill(target, "results", "acme")  # of a run that was cut short, or of a stage that read the relayed results
    for _ in range(2):  # a second time is like the first
        moved(source, target, "acme")
        assert count_rows(target, "acme") == dict.fromkeys(MOVED, 1)
    assert count_rows(target, "globex") == {}
    read = "SELECT {} FROM attribution_{} WHERE tenant_id = 'acme'"
    assert target.execute(read.format("source_topic, source_offset", "touchpoints")).fetchone() == (
        "north.attribution.x", -1,
    )  # fmt: skip
    assert target.execute(read.format("owner_topic, owner_offset, version", "conversions")).fetchone() == ("", 0, 7)
    assert target.execute(read.format("seen_by_all_from", "retention")).fetchone() == (None,)
    assert target.execute(read.format("cutoffs_us, suppressed::text", "erasures")).fetchone() == ([1, 2], "{[1,5)}")
    assert target.execute(read.format("revision, reported_until_us", "rollup_state")).fetchone() == (7, 7)
    with source.transaction():
        drop_held(source, "acme")
    assert source.execute("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'attribution_moving%'").fetchone() == (
        0,
    )
    assert delete_rows(target, "acme") == len(MOVED)


def test_rows_that_arrive_otherwise_than_they_left_undo_the_load(
    databases: tuple[psycopg.Connection, psycopg.Connection],
) -> None:
    source, target = databases
    fill(source, "spend", "acme")
    fill(source, "conversions", "acme")
    with source.transaction():
        hold_rows(source, "acme", lambda _: None)
    target.execute(
        "CREATE FUNCTION spoilt() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN NEW.net_micros := NEW.net_micros + 1; RETURN NEW; END $$"
    )
    target.execute("CREATE TRIGGER spoils BEFORE INSERT ON attribution_spend FOR EACH ROW EXECUTE FUNCTION spoilt()")
    with pytest.raises(RowsDifferError, match="attribution_spend: 1 rows were taken out, 1 were put in"):
        moved(source, target, "acme")
    assert count_rows(target, "acme") == {}


def test_without_a_roll_up_that_of_the_other_reporter_stays(
    databases: tuple[psycopg.Connection, psycopg.Connection],
) -> None:
    source, target = databases
    fill(source, "conversions", "acme")
    for name in ("rollup_state", "rollup_days"):
        fill(target, name, "acme")
    with source.transaction():
        hold_rows(source, "acme", lambda _: None)
    moved(source, target, "acme")
    assert count_rows(target, "acme") == {"conversions": 1, "rollup_days": 1, "rollup_state": 1}


def test_what_is_owed_and_what_waits_for_a_destination(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        assert owed(connection, "acme") == {}
        fill(connection, "conversions", "acme")
        connection.execute("UPDATE attribution_conversions SET observed_version = 6")
        fill(connection, "batch_jobs", "acme")
        connection.execute("UPDATE attribution_batch_jobs SET state = 'running'")
        assert owed(connection, "acme") == {"results": 1, "running jobs": 1}
        assert owed(connection, "globex") == {}
        fill(connection, "deliveries", "acme")
        assert open_deliveries(connection, "acme", "eu.attribution.x") == {3: 7}
        topics = ("eu.attribution.x", "north.attribution.x")
        assert replace_places(connection, "acme", topics, {}) == 0
        assert replace_places(connection, "acme", topics, {(3, 8): (0, 1), (3, 7): (1, 42)}) == 1
        place = "SELECT source_topic, source_partition, source_offset FROM attribution_deliveries"
        assert connection.execute(place).fetchone() == ("north.attribution.x", 1, 42)
        assert expire_left(connection, "acme", "eu.attribution.x") == 0, "it was relayed"
        connection.execute("UPDATE attribution_deliveries SET source_topic = 'eu.attribution.x', in_flight = false")
        assert expire_left(connection, "globex", "eu.attribution.x") == 0
        assert expire_left(connection, "acme", "eu.attribution.x") == 1
        assert connection.execute("SELECT state, reason FROM attribution_deliveries").fetchone() == (
            "expired", "Kafka does not hold the event any more",
        )  # fmt: skip


def test_events_that_are_stored_are_told_from_those_that_were_refused(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        assert published_rows(connection, "acme") == []
        for name in ("touchpoints", "results", "erasures"):
            fill(connection, name, "acme")
        assert published_rows(connection, "acme") == ["touchpoints"]
        assert published_rows(connection, "globex") == []
        ids = ["eu.attribution.x", "refused"]
        assert stored_events(connection, "acme", "touchpoints", ids) == {"eu.attribution.x"}
        assert stored_events(connection, "globex", "touchpoints", ids) == set()


def test_a_move_is_kept_as_it_was_stored_and_status_tells_of_one_that_is_stuck(database: str) -> None:
    first = Move("acme", "m1", "fenced", "north.", {("t", 0): 5, ("t", 1): 0}, {("t", 0): 9}, {"results": 3},
                 decided_to={("t", 1): 7})  # fmt: skip
    with psycopg.connect(database, autocommit=True) as connection:
        assert fetch_move(connection, "acme") is None
        store_move(connection, first)
        stored = fetch_move(connection, "acme")
        assert stored is not None
        assert stored.created_at is not None
        assert (stored.relay_from, stored.relayed_to, stored.row_counts, stored.decided_to) == (
            first.relay_from, first.relayed_to, first.row_counts, first.decided_to,
        )  # fmt: skip
        store_move(connection, Move("globex", "m2", "moved", "north."))
        assert [move.tenant_id for move in all_moves(connection)] == ["acme", "globex"]
        [note] = check_moves(database)
        assert (note.level.name, note.text) == ("NOTE", "tenant acme is fenced on its way to north.")
        connection.execute("UPDATE attribution_tenant_moves SET updated_at = now() - interval '1 hour'")
        [stuck] = check_moves(database)
        assert stuck.level.name == "WARNING"
        assert stuck.cause == "the command was cut short 60 min ago; the tenant gets no results"
        connection.execute(
            "UPDATE attribution_tenant_moves SET state = 'relaying', updated_at = now() - interval '3 days'"
        )
        assert {each.cause for each in check_moves(database)} == {
            "nothing was relayed for 3.0 days; the input topics keep 7 days"
        }
