"""Tenants that the store knows."""

from __future__ import annotations

import psycopg

_KNOWN = """
SELECT EXISTS (SELECT FROM attribution_journeys WHERE tenant_id = %(tenant)s)
    OR EXISTS (SELECT FROM attribution_conversion_events WHERE tenant_id = %(tenant)s)
    OR EXISTS (SELECT FROM attribution_batch_jobs WHERE tenant_id = %(tenant)s)
    OR EXISTS (SELECT FROM attribution_model_states WHERE tenant_id = %(tenant)s)
"""


class UnknownTenantError(LookupError):
    """Nothing of a tenant is stored; the text names it."""


def check_tenant(connection: psycopg.Connection, tenant_id: str) -> None:
    """Check that something of a tenant is stored: an event, a job or a model.

    Raises:
        UnknownTenantError: nothing is.
    """
    if not connection.execute(_KNOWN, {"tenant": tenant_id}).fetchall()[0][0]:
        raise UnknownTenantError(f"tenant {tenant_id} is unknown: no event, job or model of it is stored")
