"""Staging tables of a stitching session: a batch is copied in once, and every statement after that works on sets.

Invariant: the tables are temporary, of this session, and empty at the start of each transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import psycopg

_EVENT = "source_topic text, source_partition integer, source_offset bigint"
STAGING_SQL = f"""
CREATE TEMP TABLE stg_touch (
    seq integer, tenant_id text COLLATE "C", event_id text COLLATE "C", identity_key text COLLATE "C",
    anonymous_id text COLLATE "C", occurred_at_us bigint, received_at_us bigint, platform text, channel text,
    interaction text, campaign text, is_bot boolean, details text, content_hash bigint, {_EVENT}
) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE stg_conv (
    seq integer, tenant_id text COLLATE "C", event_id text COLLATE "C", conversion_id text COLLATE "C", kind text,
    conversion_type text, identity_key text COLLATE "C", anonymous_id text COLLATE "C", occurred_at_us bigint,
    received_at_us bigint, value_micros bigint, currency text, order_id text, details text, content_hash bigint,
    {_EVENT}
) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE stg_link (
    seq integer, tenant_id text COLLATE "C", event_id text COLLATE "C", anonymous_id text COLLATE "C",
    user_id text COLLATE "C", linked_at_us bigint, source text, received_at_us bigint, content_hash bigint, {_EVENT}
) ON COMMIT DELETE ROWS;
-- Staging tables have no statistics; every join from them is a look-up by index in
-- the order in which it is written, whatever the planner would guess.
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET enable_seqscan = off;
SET enable_memoize = off;
SET jit = off;
SET join_collapse_limit = 1;
SET from_collapse_limit = 1;
SET plan_cache_mode = force_custom_plan;
-- A row that is read only to be left out is dear: while a table has few pages, its index by tenant and date seems as
-- good as the one by key, and reads every row of a tenant for each key (decision 4).
SET cpu_tuple_cost = 1;
SET cpu_index_tuple_cost = 1;
-- A process that was stopped in the middle of a batch must not keep its people locked for the one that took over.
SET idle_in_transaction_session_timeout = '20s';
"""

_PLACE_TYPES = ["text", "int4", "int8"]
_TYPES: dict[str, Sequence[str]] = {
    "stg_touch": ["int4", "text", "text", "text", "text", "int8", "int8", "text", "text", "text", "text", "bool",
                  "text", "int8", *_PLACE_TYPES],
    "stg_conv": ["int4", "text", "text", "text", "text", "text", "text", "text", "int8", "int8", "int8", "text",
                 "text", "text", "int8", *_PLACE_TYPES],
    "stg_link": ["int4", "text", "text", "text", "text", "int8", "text", "int8", "int8", *_PLACE_TYPES],
}  # fmt: skip


def create_staging(connection: psycopg.Connection) -> None:
    """Create the staging tables of a new session and fix its planner settings."""
    connection.execute(STAGING_SQL)


def copy_into(connection: psycopg.Connection, table: str, rows: Iterable[Sequence[Any]]) -> None:
    """Copy rows into a staging table in binary form, the index of each before it as ``seq``.

    Args:
        connection: in a transaction.
        table: one of the staging tables.
        rows: tuples in the order of the table's columns, without ``seq``.
    """
    with connection.cursor().copy(f"COPY {table} FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(_TYPES[table])
        write = copy.write_row
        for seq, row in enumerate(rows):
            write((seq, *row))
