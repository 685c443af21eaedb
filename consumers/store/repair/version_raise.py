"""Raising the versions of conversions so that they are attributed again, by the models and the policy in force now.

Invariant: only conversions that pin another model set or another policy are raised, so a refit that is cut short and
started again ends in the same state; the sweeper asks for the results.
"""

from __future__ import annotations

import psycopg

from attributary.consumers.store.models.changed_people import change_note_sql

_DUE = """
FROM attribution_conversions c
WHERE c.tenant_id = %(tenant)s AND c.version > 0
  AND c.converted_at_us >= %(from_us)s AND c.converted_at_us < %(to_us)s
  AND (c.policy_version <> %(policy)s
       OR c.model_set <> COALESCE(
           (SELECT max(s.model_set) FROM attribution_model_sets s WHERE s.tenant_id = %(tenant)s), 0))
"""

_REFIT = f"""
WITH due AS (
    SELECT c.tenant_id, c.conversion_id, c.journey_key, c.policy_version AS pinned {_DUE}
    ORDER BY c.tenant_id, c.conversion_id LIMIT %(limit)s FOR UPDATE
), told AS (
    {change_note_sql("tenant_id, journey_key", "FROM due WHERE pinned <> %(policy)s")}
)
UPDATE attribution_conversions AS c SET
    version = c.version + 1, version_reason = 'model_refit', previous_net_micros = c.net_value_micros,
    policy_version = %(policy)s,
    model_set = COALESCE((SELECT max(s.model_set) FROM attribution_model_sets s WHERE s.tenant_id = %(tenant)s), 0),
    owner_topic = '', owner_partition = 0, owner_offset = 0, event_published_us = %(now_us)s,
    versioned_at = now(), updated_at = now()
FROM due WHERE c.tenant_id = due.tenant_id AND c.conversion_id = due.conversion_id
"""


def _parameters(tenant: str, period_us: tuple[int, int], policy_version: str) -> dict[str, object]:
    return {"tenant": tenant, "from_us": period_us[0], "to_us": period_us[1], "policy": policy_version}


def count_refit(connection: psycopg.Connection, tenant: str, period_us: tuple[int, int], policy_version: str) -> int:
    """Return how many conversions a refit would raise.

    Args:
        connection: any.
        tenant: the tenant.
        period_us: event time of the conversions, from (included) to (excluded), microseconds UTC.
        policy_version: the lookback policy in force.
    """
    row = connection.execute(f"SELECT count(*) {_DUE}", _parameters(tenant, period_us, policy_version)).fetchone()
    return int(row[0]) if row else 0


def refit(
    connection: psycopg.Connection,
    tenant: str,
    period_us: tuple[int, int],
    policy_version: str,
    *,
    now_us: int,
    limit: int,
) -> int:
    """Raise the versions of at most ``limit`` conversions in the caller's transaction; return how many.

    Args:
        connection: in a transaction.
        tenant: the tenant.
        period_us: event time of the conversions, from (included) to (excluded), microseconds UTC.
        policy_version: the lookback policy in force; stored already.
        now_us: the time, microseconds UTC.
        limit: most conversions of this call.
    """
    parameters = _parameters(tenant, period_us, policy_version) | {"now_us": now_us, "limit": limit}
    return connection.execute(_REFIT, parameters).rowcount
