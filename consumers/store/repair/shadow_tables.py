"""A shadow of the tables that stitching writes: the same definitions, empty, in the session's own temporary schema.

Invariant: on a connection that was prepared here every table name means the shadow's, nothing else is on the search
path, and Postgres itself refuses any write to a table that is not temporary (``default_transaction_read_only``). So the
real stitching statements run unchanged, need no privilege but SELECT and TEMPORARY, and cannot touch what is stored;
when the session ends, however it ends, the shadow is gone (docs/decisions/0015).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import psycopg
from psycopg import sql

from attributary.consumers.store.events.rows import ConversionEventRow, EventRow, LinkRow, TouchpointRow
from attributary.consumers.store.events.staging import create_staging

# What a replay fills and a comparison reads. Stitching may write to further tables: all of ours get a shadow.
TABLES = (
    "attribution_touchpoints",
    "attribution_conversion_events",
    "attribution_identity_links",
    "attribution_identities",
    "attribution_journeys",
    "attribution_conversions",
)
# What decides how events are stitched: a replay decides by the same. What was erased is erased in the shadow, too.
_DECIDING = (
    "attribution_retention",
    "attribution_retired_conversions",
    "attribution_erasures",
    "attribution_policy_activations",
)
_OURS = """
SELECT relname FROM pg_class
WHERE relnamespace = %s::regnamespace AND relkind IN ('r', 'p') AND relname LIKE 'attribution\\_%%'
"""
_EVENT = "source_topic, source_partition, source_offset"
_TOUCHPOINT = (
    "tenant_id, event_id, identity_key, anonymous_id, occurred_at_us, received_at_us, platform, channel, interaction, "
    f"campaign, is_bot, details::text, content_hash, {_EVENT}"
)
_CONVERSION_EVENT = (
    "tenant_id, event_id, conversion_id, kind, conversion_type, identity_key, anonymous_id, occurred_at_us, "
    f"received_at_us, value_micros, currency, order_id, details::text, content_hash, {_EVENT}"
)
_LINK = f"tenant_id, event_id, anonymous_id, user_id, linked_at_us, source, received_at_us, content_hash, {_EVENT}"
_OLDER: tuple[tuple[str, Callable[..., EventRow], str], ...] = (
    ("attribution_touchpoints", TouchpointRow, _TOUCHPOINT),
    ("attribution_conversion_events", ConversionEventRow, _CONVERSION_EVENT),
    ("attribution_identity_links", LinkRow, _LINK),
)
_OLDER_EVENTS = """
SELECT {names} FROM {table} t WHERE NOT EXISTS (
    SELECT FROM unnest(%s::text[], %s::int4[], %s::int8[]) AS s (topic, partition, start)
    WHERE s.topic = t.source_topic AND s.partition = t.source_partition AND t.source_offset >= s.start
)
"""


def home(connection: psycopg.Connection) -> str:
    """Return the schema in which the stored tables stand for this session."""
    row = connection.execute(
        "SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = to_regclass('attribution_conversions')"
    ).fetchone()
    return str(row[0]) if row else "public"


def create_shadow(connection: psycopg.Connection, schema: str) -> None:
    """Make the shadow of a schema's tables, and the staging tables; from here on the session sees only them.

    Args:
        connection: a new one, outside a transaction.
        schema: where the stored tables stand.
    """
    for (table,) in connection.execute(_OURS, (schema,)).fetchall():
        connection.execute(
            sql.SQL("CREATE TEMP TABLE {} (LIKE {} INCLUDING ALL)").format(
                sql.Identifier(table), sql.Identifier(schema, table)
            )
        )
    for table in _DECIDING:
        connection.execute(
            sql.SQL("INSERT INTO pg_temp.{} OVERRIDING SYSTEM VALUE SELECT * FROM {}").format(
                sql.Identifier(table), sql.Identifier(schema, table)
            )
        )
    create_staging(connection)
    connection.execute("SET search_path = pg_temp")
    connection.execute("SET default_transaction_read_only = on")
    connection.execute("SET idle_in_transaction_session_timeout = 0")
    connection.commit()


def analyze_shadow(connection: psycopg.Connection) -> None:
    """Let the planner know how big the shadow's tables are: autovacuum never looks at temporary ones."""
    for table in TABLES:
        connection.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(table)))
    connection.commit()


def keep_shadow(connection: psycopg.Connection, schema: str) -> None:
    """Copy the shadow to a new, permanent schema, for people to look at; needs CREATE on the database.

    Args:
        connection: the shadow's.
        schema: its name; there must be none yet.
    """
    connection.commit()
    with connection.transaction():
        connection.execute("SET TRANSACTION READ WRITE")
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        for table in TABLES:
            connection.execute(
                sql.SQL("CREATE TABLE {} AS TABLE {}").format(sql.Identifier(schema, table), sql.Identifier(table))
            )


def older_events(
    connection: psycopg.Connection, starts: Mapping[tuple[str, int], int], size: int
) -> Iterator[Sequence[EventRow]]:
    """Yield the stored events that stand in the log before the given offsets, or in partitions that are not named.

    Args:
        connection: the snapshot of what is stored.
        starts: for each (topic, partition), the first offset that is read from the log itself.
        size: rows of a batch.
    """
    places = sorted(starts)
    columns = ([place[0] for place in places], [place[1] for place in places], [starts[place] for place in places])
    for table, make_row, names in _OLDER:
        with connection.cursor(name=f"older_{table}") as cursor:
            cursor.itersize = size
            statement = sql.SQL(_OLDER_EVENTS).format(names=sql.SQL(names), table=sql.Identifier(table))
            cursor.execute(statement, columns)
            while rows := cursor.fetchmany(size):
                yield [make_row(*row) for row in rows]
