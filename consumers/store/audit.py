"""The audit: who did what to data and rules. Rows are only added; a trigger of the table refuses everything else.

Invariant: nothing personal comes in here. The caller names requests, versions and numbers, never ids of people.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from psycopg.types.json import Jsonb

EVERYBODY = "*"

_NOTE = """
INSERT INTO attribution_audit (tenant_id, actor, action, subject, details)
VALUES (%s, COALESCE(%s, current_user), %s, %s, %s)
"""


def note_action(
    connection: psycopg.Connection,
    tenant_id: str,
    action: str,
    subject: str,
    details: Mapping[str, Any] | None = None,
    *,
    actor: str | None = None,
) -> None:
    """Note an action in the caller's transaction: it is there exactly if the action is.

    Args:
        connection: in a transaction.
        tenant_id: the tenant concerned; ``EVERYBODY``: the installation.
        action: what was done, ``noun.verb`` in the past: ``erasure.executed``, ``policy.activated``.
        subject: what it was done to, by a name that is no personal data.
        details: numbers and settings.
        actor: who did it; None: the database role of the connection.
    """
    connection.execute(_NOTE, (tenant_id, actor, action, subject, Jsonb(dict(details or {}))))


class AuditRow(NamedTuple):
    """One noted action."""

    at: datetime
    tenant_id: str
    actor: str
    action: str
    subject: str
    details: Mapping[str, Any]


_ROWS = """
SELECT at, tenant_id, actor, action, subject, details FROM attribution_audit
WHERE (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s)
  AND (%(action)s::text IS NULL OR starts_with(action, %(action)s))
  AND at >= to_timestamp(%(since_us)s / 1e6)
ORDER BY at DESC, audit_number DESC LIMIT %(limit)s
"""


def audit_rows(
    connection: psycopg.Connection, *, tenant: str | None, action: str | None, since_us: int, limit: int
) -> list[AuditRow]:
    """Return noted actions, the newest first.

    Args:
        connection: any.
        tenant: this tenant's only.
        action: only those that begin so.
        since_us: at or after this time, microseconds UTC.
        limit: at most so many.
    """
    parameters = {"tenant": tenant, "action": action, "since_us": since_us, "limit": limit}
    return [AuditRow(*row) for row in connection.execute(_ROWS, parameters).fetchall()]
