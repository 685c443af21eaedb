"""The audit: who did what to data and rules. Rows are only added; a trigger of the table refuses everything else.

Invariant: nothing personal comes in here. The caller names requests, versions and numbers, never ids of people.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
