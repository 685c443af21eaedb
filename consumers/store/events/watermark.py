"""How far the events of a tenant reach."""

from __future__ import annotations

import psycopg

_REACH = """
SELECT LEAST(max(last_event_us), max(last_received_us)) FROM attribution_journeys WHERE tenant_id = %s
"""


def event_time_watermark(connection: psycopg.Connection, tenant_id: str) -> int | None:
    """Return the time up to which the tenant's events are known, microseconds UTC; None without any.

    It is that of the latest event, but no later than the latest arrival: one clock that runs ahead must not make
    everybody look watched into the future.
    """
    row = connection.execute(_REACH, (tenant_id,)).fetchone()
    return row[0] if row else None
