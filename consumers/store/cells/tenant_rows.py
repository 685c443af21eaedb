"""The rows of one tenant, taken out of one database and put into another.

Invariant: every table with a tenant is named here (a test compares the lists with the catalogue of Postgres). Rows are
taken out in one transaction and put in in one, so they are in exactly one of: the tables, the holding schema.

What is not moved: rows that say where this installation reads, what was done in it and who may read its views; and what
the trainer derives, which it makes anew from the moved events.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import psycopg
from psycopg import sql

EVENTS = ("touchpoints", "conversion_events", "identity_links")
MOVED = (
    *EVENTS,
    "batch_jobs", "campaign_aliases", "conversions", "deliveries", "delivery_requests", "dropped_links",
    "erased_amounts", "erasure_requests", "erasures", "event_conflicts", "experiments", "fx_rates", "identities",
    "journeys", "model_sets", "model_states", "policies", "policy_activations", "removed_totals", "reopenings",
    "results", "retention", "retired_conversions", "retired_credits", "rollup_campaigns",
    "rollup_conversions", "rollup_counts", "rollup_days", "rollup_models", "rollup_names", "rollup_people",
    "rollup_restatements", "rollup_state", "spend", "spend_slices", "stopped_names", "tenants", "tombstones",
)  # fmt: skip
DERIVED = ("training_changes", "training_people", "training_periods", "training_upkeep")
STAYING = ("audit", "migrations", "positions", "rebuilds", "tenant_moves", "tenant_readers", "training_watermark")
# Offsets of another log mean nothing here: minus one stands before the beginning of every partition.
_REPLACED = {
    ("event", "source_offset"): "-1",
    ("conversions", "owner_topic"): "''",
    ("conversions", "owner_partition"): "0",
    ("conversions", "owner_offset"): "0",
    ("results", "source_offset"): "-1",
    ("retention", "seen_by_all_from"): "NULL::bigint",  # a transaction of the other server
}
_COLUMNS = """
SELECT attname, attidentity <> '' FROM pg_attribute
WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum
"""


class Summary(NamedTuple):
    """What a table holds of a tenant: the number of rows, and a sum over their contents that any order gives alike."""

    rows: int
    digest: int


class RowsDifferError(Exception):
    """What was put in is not what was taken out; the text names the table."""


def holding_schema(tenant_id: str) -> str:
    """Return the schema in which a tenant's rows wait."""
    return f"attribution_moving_{hashlib.sha256(tenant_id.encode()).hexdigest()[:16]}"


def count_rows(connection: psycopg.Connection, tenant_id: str) -> dict[str, int]:
    """Return how many rows of a tenant each table holds that would move; tables without any are left out."""
    found = {}
    for name in MOVED:
        statement = sql.SQL("SELECT count(*) FROM {} WHERE tenant_id = %s").format(_table(name))
        row = connection.execute(statement, (tenant_id,)).fetchone()
        if row is not None and row[0]:
            found[name] = int(row[0])
    return found


def hold_rows(connection: psycopg.Connection, tenant_id: str, advance: Callable[[int], None]) -> dict[str, int]:
    """Set the rows of a tenant aside: from the tables into a schema of their own, in the transaction in hand.

    Returns:
        The number of rows by table.
    """
    schema = holding_schema(tenant_id)
    connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    counts = {}
    for name in MOVED:
        held = sql.Identifier(schema, name)
        connection.execute(sql.SQL("CREATE TABLE {} (LIKE {})").format(held, _table(name)))
        statement = "WITH gone AS (DELETE FROM {} WHERE tenant_id = %s RETURNING *) INSERT INTO {} SELECT * FROM gone"
        counts[name] = connection.execute(sql.SQL(statement).format(_table(name), held), (tenant_id,)).rowcount
        advance(1)
    _delete(connection, tenant_id, DERIVED)
    return {name: number for name, number in counts.items() if number}


def holds_rollup(connection: psycopg.Connection, tenant_id: str) -> bool:
    """Tell whether a roll-up is among the rows that were set aside: a reporter ran here."""
    held = sql.Identifier(holding_schema(tenant_id), "rollup_state")
    row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(held)).fetchone()
    return row is not None and row[0] > 0


def drop_held(connection: psycopg.Connection, tenant_id: str) -> None:
    """Drop the rows that were set aside."""
    schema = sql.Identifier(holding_schema(tenant_id))
    connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(schema))


def delete_rows(connection: psycopg.Connection, tenant_id: str) -> int:
    """Delete what the tables hold of a tenant; returns how many rows that were."""
    return _delete(connection, tenant_id, (*MOVED, *DERIVED))


def stored_events(connection: psycopg.Connection, tenant_id: str, name: str, event_ids: Sequence[str]) -> set[str]:
    """Return which of these events a table of ``EVENTS`` holds."""
    statement = sql.SQL("SELECT event_id FROM {} WHERE tenant_id = %s AND event_id = ANY (%s)").format(_table(name))
    return {row[0] for row in connection.execute(statement, (tenant_id, list(event_ids))).fetchall()}


def published_rows(connection: psycopg.Connection, tenant_id: str) -> list[str]:
    """Return the tables with rows that only records of publishers leave behind, where the tenant has any."""
    tables = (*EVENTS, "spend")
    statement = sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE tenant_id = %s)")
    asked = [(name, connection.execute(statement.format(_table(name)), (tenant_id,)).fetchone()) for name in tables]
    return [name for name, row in asked if row is not None and row[0]]


def load_rows(
    source: psycopg.Connection,
    target: psycopg.Connection,
    tenant_id: str,
    prefixes: tuple[str, str],
    advance: Callable[[int], None],
) -> None:
    """Put the rows that are set aside into another database, in place of what it has of the tenant.

    Args:
        source: has the holding schema.
        target: in a transaction that locks the tenant's roll-up, where one comes.
        tenant_id: the tenant.
        prefixes: of the topics of source and target.
        advance: told of each table.

    Raises:
        RowsDifferError: a table does not hold what was taken out.
    """
    for connection in (source, target):  # rows are compared as text
        connection.execute("SET LOCAL TimeZone = 'UTC'")
    # Where no reporter ever ran here, the one there counts the results that it reads.
    has_rollup = holds_rollup(source, tenant_id)
    others = [name for name in MOVED if name != "rollup_state" and (has_rollup or not name.startswith("rollup_"))]
    _delete(target, tenant_id, (*others, *DERIVED))
    for name in others:
        _copy(source, target, tenant_id, name, prefixes)
        advance(1)
    if has_rollup:
        _copy_state(source, target, tenant_id)
    _copy_shared_policies(source, target)


def _copy(
    source: psycopg.Connection, target: psycopg.Connection, tenant_id: str, name: str, prefixes: tuple[str, str]
) -> None:
    columns = _columns(target, name)
    if columns != _columns(source, name):
        raise RowsDifferError(f"attribution_{name}: the two databases have other columns; migrate both")
    taken = [column for column, is_number in columns if not is_number and column != "updated_at"]
    order = sql.SQL("").join(
        sql.SQL(" ORDER BY {}").format(sql.Identifier(column)) for column, is_number in columns if is_number
    )
    held = sql.Identifier(holding_schema(tenant_id), name)
    kind = "event" if name in EVENTS or name == "event_conflicts" else name
    read = [_replaced(kind, column, prefixes) for column in taken]
    query = sql.SQL("SELECT {} FROM {}{}").format(sql.SQL(", ").join(read), held, order)
    names = sql.SQL(", ").join(sql.Identifier(column) for column in taken)
    with (
        source.cursor().copy(sql.SQL("COPY ({}) TO STDOUT").format(query)) as rows,
        target.cursor().copy(sql.SQL("COPY {} ({}) FROM STDIN").format(_table(name), names)) as into,
    ):
        for data in rows:
            into.write(data)
    taken_out = _summary(source, query)
    stored = sql.SQL("SELECT {} FROM {} WHERE tenant_id = {}").format(names, _table(name), sql.Literal(tenant_id))
    if taken_out != (there := _summary(target, stored)):
        raise RowsDifferError(f"attribution_{name}: {taken_out.rows} rows were taken out, {there.rows} were put in")


def _summary(connection: psycopg.Connection, query: sql.Composable) -> Summary:
    statement = sql.SQL(
        "SELECT count(*), COALESCE(sum(('x' || left(md5(r::text), 15))::bit(60)::bigint), 0) FROM ({}) AS r"
    ).format(query)
    row = connection.execute(statement).fetchone()
    return Summary(*row) if row else Summary(0, 0)


def _replaced(kind: str, column: str, prefixes: tuple[str, str]) -> sql.Composable:
    """Return what is put in for a column: the column, or what stands for it in another installation."""
    name = sql.Identifier(column)
    if (kind, column) == ("event", "source_topic"):
        before, after = prefixes
        return sql.SQL("{} || substr({}, {}) AS {}").format(
            sql.Literal(after), name, sql.Literal(len(before) + 1), name
        )
    text = _REPLACED.get((kind, column))
    return name if text is None else sql.SQL("{} AS {}").format(sql.SQL(text), name)


def _copy_state(source: psycopg.Connection, target: psycopg.Connection, tenant_id: str) -> None:
    """Put the roll-up's state over the row that is locked: who waits for the lock finds it."""
    names = [column for column, _ in _columns(target, "rollup_state") if column not in {"tenant_id", "updated_at"}]
    columns = sql.SQL(", ").join(map(sql.Identifier, names))
    held = sql.Identifier(holding_schema(tenant_id), "rollup_state")
    row = source.execute(sql.SQL("SELECT {} FROM {}").format(columns, held)).fetchone()
    if row is None:
        return
    values = sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in names)
    statement = sql.SQL("UPDATE {} SET {}, updated_at = now() WHERE tenant_id = %s")
    target.execute(statement.format(_table("rollup_state"), values), (*row, tenant_id))


def _copy_shared_policies(source: psycopg.Connection, target: psycopg.Connection) -> None:
    """Add the policies of everybody that the target lacks: versions of the tenant pin them."""
    rows = source.execute(
        "SELECT policy_version, document::text FROM attribution_policies WHERE tenant_id = '*' ORDER BY 1"
    ).fetchall()
    target.cursor().executemany(
        "INSERT INTO attribution_policies (policy_version, document) VALUES (%s, %s::jsonb) ON CONFLICT DO NOTHING",
        rows,
    )


def _columns(connection: psycopg.Connection, name: str) -> list[tuple[str, bool]]:
    """Return a table's columns, each with whether Postgres numbers it, in the order of their names."""
    return sorted(connection.execute(_COLUMNS, (f"attribution_{name}",)).fetchall())


def _delete(connection: psycopg.Connection, tenant_id: str, names: tuple[str, ...] | list[str]) -> int:
    number = 0
    for name in names:
        statement = sql.SQL("DELETE FROM {} WHERE tenant_id = %s").format(_table(name))
        number += connection.execute(statement, (tenant_id,)).rowcount
    return number


def _table(name: str) -> sql.Identifier:
    return sql.Identifier(f"attribution_{name}")
