"""Finding stored events that are not what their record says any more, while a batch of records is staged.

Invariant: only rows of the staged events are looked at, and only those that were made of the same record (its place, or
its content) with other columns are taken out; two records with one event id are not this module's affair.
"""

from __future__ import annotations

import psycopg

_EVENT = ("received_at_us", "content_hash", "source_topic", "source_partition", "source_offset")
_COLUMNS = (
    (
        "attribution_touchpoints",
        "stg_touch",
        ("identity_key", "anonymous_id", "occurred_at_us", "platform", "channel", "interaction", "campaign", "is_bot"),
        True,
    ),
    (
        "attribution_conversion_events",
        "stg_conv",
        ("conversion_id", "kind", "conversion_type", "identity_key", "anonymous_id", "occurred_at_us", "value_micros",
         "currency", "order_id"),
        True,
    ),
    ("attribution_identity_links", "stg_link", ("anonymous_id", "user_id", "linked_at_us", "source"), False),
)  # fmt: skip


def _statement(table: str, staging: str, columns: tuple[str, ...], *, has_details: bool) -> str:
    names = (*columns, *_EVENT)
    stored = ", ".join(f"t.{name}" for name in names) + (", t.details::jsonb" if has_details else "")
    staged = ", ".join(f"s.{name}" for name in names) + (", s.details::jsonb" if has_details else "")
    return f"""
    DELETE FROM {table} t USING {staging} s
    WHERE t.tenant_id = s.tenant_id AND t.event_id = s.event_id
      AND (t.source_topic, t.source_partition, t.source_offset) = (s.source_topic, s.source_partition, s.source_offset)
      AND ROW({stored}) IS DISTINCT FROM ROW({staged})
    """


_STATEMENTS = tuple(
    _statement(table, staging, columns, has_details=has_details) for table, staging, columns, has_details in _COLUMNS
)


def drop_altered(connection: psycopg.Connection) -> int:
    """Delete stored events that differ from their own record among the staged ones; return how many.

    Args:
        connection: in a stitching transaction, after the batch was staged and before it is stored.
    """
    return sum(connection.execute(statement).rowcount for statement in _STATEMENTS)
