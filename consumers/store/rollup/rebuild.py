"""The roll-up made anew from the stored results.

Invariants: a rebuild is one transaction a tenant, in which its roll-up is locked, so readers see the old one or the new
one. It takes the reporter back to where the auditor is, since results that are not stored yet are not in it. The bridge
reaches as far back as versions are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

from .apply import apply_results, lock_rollups
from .cells import RolledResult, cells_of

_PAGE = 2_000
_TENANTS = """
WITH RECURSIVE t AS (
    (SELECT tenant_id FROM attribution_results ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT r.tenant_id FROM attribution_results r WHERE r.tenant_id > t.tenant_id ORDER BY r.tenant_id LIMIT 1)
    FROM t WHERE t.tenant_id IS NOT NULL
)
SELECT tenant_id FROM t WHERE tenant_id IS NOT NULL
UNION SELECT tenant_id FROM attribution_rollup_state ORDER BY 1
"""
_FORGET = tuple(
    f"DELETE FROM attribution_rollup_{table} WHERE tenant_id = %s"
    for table in ("conversions", "days", "names", "campaigns", "counts", "restatements")
)
_BEGIN = """
UPDATE attribution_rollup_state s SET reported_until_us = 0, is_counted = true, rebuilt_at = now(), updated_at = now(),
    time_zone = COALESCE((SELECT t.time_zone FROM attribution_tenants t WHERE t.tenant_id = s.tenant_id), 'UTC')
WHERE s.tenant_id = %s
"""
FACTS = (
    "tenant_id, conversion_id, version, version_reason, conversion_type, currency, converted_at_us, journey_key, "
    "net_value_micros, computed_at_us, touchpoints, models, is_final"
)
_RESULTS = f"""
SELECT {FACTS} FROM attribution_results WHERE tenant_id = %s AND (conversion_id, version) > (%s, %s)
ORDER BY conversion_id, version LIMIT {_PAGE}
"""
_FOLLOW = """
UPDATE attribution_positions p SET next_offset = a.next_offset, updated_at = now()
FROM attribution_positions a
WHERE p.tenant_id = '*' AND p.consumer_group = %s AND a.tenant_id = '*' AND a.consumer_group = %s
  AND a.topic = p.topic AND a.partition = p.partition AND a.next_offset < p.next_offset
"""


def rollup_tenants(connection: psycopg.Connection) -> list[str]:
    """Return the tenants that have results or a roll-up."""
    return [row[0] for row in connection.execute(_TENANTS).fetchall()]


def rebuild_rollup(
    connection: psycopg.Connection,
    tenant_id: str,
    groups: tuple[str, str],
    advance: Callable[[int], None] = lambda _: None,
) -> int:
    """Make the roll-up of a tenant anew, in the time zone that it has now.

    Args:
        connection: in a transaction, on a prepared session.
        tenant_id: the tenant.
        groups: of the reporter and of the auditor.
        advance: told how many results were read.

    Returns:
        How many results were read.
    """
    # Between two pages Python adds up: on a busy machine for longer than a stage's transaction may rest.
    connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
    lock_rollups(connection, [tenant_id])
    for statement in _FORGET:
        connection.execute(statement.encode(), (tenant_id,))
    connection.execute(_BEGIN, (tenant_id,))
    read, place = 0, ("", 0)
    while rows := connection.execute(_RESULTS, (tenant_id, *place)).fetchall():
        results = [rolled_of(row) for row in rows]
        apply_results(connection, results)
        read += len(rows)
        advance(len(rows))
        place = (results[-1].conversion_id, results[-1].version)
    connection.execute(_FOLLOW, groups)
    return read


def rolled_of(row: tuple[Any, ...]) -> RolledResult:
    """Return what a stored result contributes; its columns are ``FACTS``."""
    return RolledResult._make((*row[:10], *cells_of(row[10], row[11], is_final=row[12]), None))
