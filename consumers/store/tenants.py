"""Tenants that the store knows."""

from __future__ import annotations

import psycopg

_KNOWN = """
SELECT EXISTS (SELECT FROM attribution_journeys WHERE tenant_id = %(tenant)s)
    OR EXISTS (SELECT FROM attribution_conversion_events WHERE tenant_id = %(tenant)s)
    OR EXISTS (SELECT FROM attribution_touchpoints WHERE tenant_id = %(tenant)s)
    OR EXISTS (SELECT FROM attribution_batch_jobs WHERE tenant_id = %(tenant)s)
    OR EXISTS (SELECT FROM attribution_model_states WHERE tenant_id = %(tenant)s)
"""


# A loose scan of the index: one look-up a tenant, however many conversions there are.
_ALL = """
WITH RECURSIVE known AS (
    (SELECT tenant_id FROM attribution_results ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT (
        SELECT r.tenant_id FROM attribution_results r WHERE r.tenant_id > k.tenant_id ORDER BY r.tenant_id LIMIT 1
    ) FROM known k WHERE k.tenant_id IS NOT NULL
)
SELECT tenant_id FROM known WHERE tenant_id IS NOT NULL
"""


class UnknownTenantError(LookupError):
    """Nothing of a tenant is stored; the text names it."""


def known_tenants(connection: psycopg.Connection) -> list[str]:
    """Return the tenants with a result, in order."""
    return [row[0] for row in connection.execute(_ALL).fetchall()]


def check_tenant(connection: psycopg.Connection, tenant_id: str) -> None:
    """Check that something of a tenant is stored: an event, a job or a model.

    Raises:
        UnknownTenantError: nothing is.
    """
    if not connection.execute(_KNOWN, {"tenant": tenant_id}).fetchall()[0][0]:
        known = ", ".join(known_tenants(connection)[:12]) or "none"
        raise UnknownTenantError(
            f"tenant {tenant_id} is unknown: no event, job or model of it is stored; tenants with results: {known}"
        )
