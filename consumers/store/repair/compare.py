"""What is stored beside what a replay made of the same log, key by key: two sorted streams, so in bounded memory.

Invariant: both sides stand at the same offsets (the stored one is a snapshot, the replay stopped where it stands), so
whatever differs is a fault. Compared is what the set of events decides: events, owners, and each conversion's person,
time and value. Versions, and the bounds of journeys, also depend on the order of arrival and are judged elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

from attributary.attribution_core.domain.conversion import ConversionEvent, fold
from attributary.consumers.store.events.rows import LOCKS_ONLY
from attributary.consumers.store.identity_sql import device_key, user_key
from attributary.consumers.store.retention.boundaries import KEPT_LINK, kept_no_longer

from .verify_reads import Difference

_PAGE = 5_000
_EVENT = ("content_hash", "source_topic", "source_partition", "source_offset", "received_at_us")


class _Table(NamedTuple):
    """A table that is compared: what a row of it is called, its key after the tenant, and the columns that count."""

    name: str
    noun: str
    key: str
    columns: tuple[str, ...]
    condition: sql.SQL = sql.SQL("true")


_CONVERSIONS = _Table(
    "attribution_conversions", "conversion", "conversion_id",
    ("conversion_type", "identity_key", "journey_key", "converted_at_us", "received_at_us", "gross_value_micros",
     "net_value_micros", "currency", "order_id"),
    sql.SQL("version > 0"),
)  # fmt: skip
_TABLES = (
    _Table(
        "attribution_touchpoints", "touchpoint", "event_id",
        ("identity_key", "anonymous_id", "occurred_at_us", "platform", "channel", "interaction", "campaign", "is_bot",
         "details", *_EVENT),
    ),
    _Table(
        "attribution_conversion_events", "conversion event", "event_id",
        ("conversion_id", "kind", "conversion_type", "identity_key", "anonymous_id", "occurred_at_us", "value_micros",
         "currency", "order_id", "details", *_EVENT),
    ),
    _Table(
        "attribution_identity_links", "identity link", "event_id",
        ("anonymous_id", "user_id", "linked_at_us", "source", *_EVENT),
    ),
    _Table("attribution_identities", "anonymous id", "anonymous_id", ("user_id", "linked_at_us", "link_event_id")),
    _CONVERSIONS,
)  # fmt: skip

_EVENTS_OF = """
SELECT occurred_at_us, event_id, kind, value_micros, currency FROM attribution_conversion_events
WHERE tenant_id = %s AND conversion_id = %s
"""

# A journey's row must be there for each person that an event names, and reach as far as the events do; and for who owns
# or is owned, however far: the stitcher takes people without one for new.
_NARROW_JOURNEYS = f"""
WITH known AS (
    SELECT tenant_id, identity_key, min(first_us) AS first_us, max(last_us) AS last_us, max(received_us) AS received_us
    FROM (
        SELECT tenant_id, identity_key, occurred_at_us AS first_us, occurred_at_us AS last_us,
               received_at_us AS received_us
        FROM attribution_touchpoints
        UNION ALL
        SELECT tenant_id, identity_key, occurred_at_us, occurred_at_us, received_at_us
        FROM attribution_conversion_events
        UNION ALL
        SELECT tenant_id, {device_key("anonymous_id")}, {LOCKS_ONLY[0]}, {LOCKS_ONLY[1]}, {LOCKS_ONLY[2]}
        FROM attribution_identities
        UNION ALL
        SELECT tenant_id, {user_key("user_id")}, {LOCKS_ONLY[0]}, {LOCKS_ONLY[1]}, {LOCKS_ONLY[2]}
        FROM attribution_identities
    ) AS events GROUP BY tenant_id, identity_key
)
SELECT k.tenant_id, k.identity_key, k.first_us, k.last_us, k.received_us,
       j.first_event_us, j.last_event_us, j.last_received_us
FROM known k LEFT JOIN attribution_journeys j ON j.tenant_id = k.tenant_id AND j.journey_key = k.identity_key
WHERE (j.first_event_us <= k.first_us AND j.last_event_us >= k.last_us AND j.last_received_us >= k.received_us)
      IS NOT TRUE
ORDER BY k.tenant_id, k.identity_key
"""

Journey = tuple[str, str, int, int, int]  # tenant, identity key, first and last event time, latest arrival


def differences(snapshot: psycopg.Connection, shadow: psycopg.Connection) -> Iterator[Difference]:
    """Yield every event, owner and conversion that is not stored as the replay has it.

    Args:
        snapshot: in the REPEATABLE READ transaction with the offsets at which the replay ended.
        shadow: the replay's.
    """
    for table in _TABLES:
        for tenant, key in _differing(snapshot, shadow, table):
            found = _difference(snapshot, shadow, table, tenant, key)
            if found is not None:
                yield found


def narrow_journeys(connection: psycopg.Connection) -> Iterator[tuple[Journey, str]]:
    """Yield the journeys that are missing or do not reach as far as their events, and how each is stored."""
    with connection.cursor(name="narrow_journeys") as cursor:
        cursor.itersize = _PAGE
        cursor.execute(_NARROW_JOURNEYS)
        for tenant, key, first, last, received, *stored in cursor:
            yield (tenant, key, first, last, received), "no row" if None in stored else str(tuple(stored))


def _differing(snapshot: psycopg.Connection, shadow: psycopg.Connection, table: _Table) -> Iterator[tuple[str, str]]:
    """Merge the two sorted streams of (tenant, key, digest of the row); yield the keys with different digests."""
    stored, replayed = _stream(snapshot, table), _stream(shadow, table)
    one, other = next(stored, None), next(replayed, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one[:2] < other[:2]):
            assert one is not None  # noqa: S101  # the loop's condition, for the type checker
            yield one[0], one[1]
            one = next(stored, None)
        elif one is None or other[:2] < one[:2]:
            yield other[0], other[1]
            other = next(replayed, None)
        else:
            if one[2] != other[2]:
                yield one[0], one[1]
            one, other = next(stored, None), next(replayed, None)


def _stream(connection: psycopg.Connection, table: _Table) -> Iterator[tuple[str, str, int]]:
    with connection.cursor(name=f"compare_{table.name}") as cursor:
        cursor.itersize = _PAGE
        cursor.execute(
            sql.SQL(
                "SELECT tenant_id, {key}, hashtextextended(ROW({columns})::text, 0) FROM {table} WHERE {condition} "
                "ORDER BY tenant_id, {key}"
            ).format(
                key=sql.Identifier(table.key),
                columns=sql.SQL(", ").join(map(_comparable, table.columns)),
                table=sql.Identifier(table.name),
                condition=table.condition,
            )
        )
        yield from cursor


def _comparable(column: str) -> sql.Composable:
    """Return a column as it is compared: details as what they say, however they were written."""
    return sql.SQL("details::jsonb") if column == "details" else sql.Identifier(column)


def _difference(
    snapshot: psycopg.Connection, shadow: psycopg.Connection, table: _Table, tenant: str, key: str
) -> Difference | None:
    stored, replayed = _row(snapshot, table, tenant, key), _row(shadow, table, tenant, key)
    if table is _CONVERSIONS and _is_withdrawn(shadow, tenant, key) and _worth(stored) == _worth(replayed) == (0, 0):
        return None
    if _is_kept_no_longer(snapshot, table, tenant, stored, replayed):
        return None
    both = stored is not None and replayed is not None
    fields = [name for name in table.columns if not both or stored[name] != replayed[name]]  # type: ignore[index]
    return Difference(tenant, f"{table.noun} {key}", _shown(stored, fields), _shown(replayed, fields))


def _is_kept_no_longer(
    snapshot: psycopg.Connection,
    table: _Table,
    tenant: str,
    stored: dict[str, Any] | None,
    replayed: dict[str, Any] | None,
) -> bool:
    """Whether retention removed what the log still has, or left a link behind in the place of an event."""
    if stored is not None and replayed is None:
        return stored.get("source") == KEPT_LINK
    if stored is not None or replayed is None:
        return False
    at = replayed.get("occurred_at_us", replayed.get("linked_at_us"))
    return bool(kept_no_longer(snapshot, table.name, [(tenant, replayed.get("conversion_id", ""), at or 0)]))


def _row(connection: psycopg.Connection, table: _Table, tenant: str, key: str) -> dict[str, Any] | None:
    found = connection.execute(
        sql.SQL("SELECT {columns} FROM {table} WHERE tenant_id = %s AND {key} = %s AND {condition}").format(
            columns=sql.SQL(", ").join(map(sql.Identifier, table.columns)),
            table=sql.Identifier(table.name),
            key=sql.Identifier(table.key),
            condition=table.condition,
        ),
        (tenant, key),
    ).fetchone()
    return None if found is None else dict(zip(table.columns, found, strict=True))


def _worth(row: dict[str, Any] | None) -> tuple[int, int]:
    return (0, 0) if row is None else (row["gross_value_micros"], row["net_value_micros"])


def _is_withdrawn(shadow: psycopg.Connection, tenant: str, conversion_id: str) -> bool:
    """Whether no stored event opens the conversion: its person then depends on what arrived first; its worth is 0."""
    rows = shadow.execute(_EVENTS_OF, (tenant, conversion_id)).fetchall()
    return fold(ConversionEvent(*row) for row in rows).opened_by is None


def _shown(row: dict[str, Any] | None, fields: list[str]) -> str:
    return "nothing" if row is None else ", ".join(f"{name} {row[name]}" for name in fields if name != "details")
