"""Which lookback policy is in force for a tenant, and the history of it.

Invariant: an activation stores its policy in the same transaction, so whoever sees the one can read the other. Rows are
only added; each is in the audit, too.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import psycopg

from attributary.attribution_core.domain.lookback import LookbackPolicy
from attributary.consumers.store.audit import note_action

from .policies import fetch_policy, store_policy


class PolicyActivation(NamedTuple):
    """One activation of a tenant; ``policy_version`` None: the file again."""

    number: int
    policy_version: str | None
    activated_at: datetime
    activated_by: str
    note: str | None


class NoEarlierPolicyError(ValueError):
    """There is nothing to go back to."""


_HISTORY = """
SELECT activation_number, policy_version, activated_at, activated_by, note FROM attribution_policy_activations
WHERE tenant_id = %s ORDER BY activation_number DESC
"""

_LONGEST_LATENESS = """
SELECT DISTINCT ON (a.tenant_id) p.document FROM attribution_policy_activations a
JOIN attribution_policies p ON p.tenant_id = '*' AND p.policy_version = a.policy_version
ORDER BY a.tenant_id, a.activation_number DESC
"""


def activate_policy(
    connection: psycopg.Connection, tenant: str, policy: LookbackPolicy | None, note: str | None = None
) -> None:
    """Bring a policy into force for a tenant, in the caller's transaction.

    Args:
        connection: in a transaction.
        tenant: the tenant.
        policy: None: the file's from now on.
        note: why; no personal data.
    """
    if policy is not None:
        store_policy(connection, policy)
    version = policy.version if policy else None
    connection.execute(
        "INSERT INTO attribution_policy_activations (tenant_id, policy_version, note) VALUES (%s, %s, %s)",
        (tenant, version, note),
    )
    note_action(connection, tenant, "policy.activated", version or "(file)", {"note": note} if note else None)


def policy_history(connection: psycopg.Connection, tenant: str) -> list[PolicyActivation]:
    """Return the activations of a tenant, the newest first."""
    return [PolicyActivation(*row) for row in connection.execute(_HISTORY, (tenant,)).fetchall()]


def policy_in_force(connection: psycopg.Connection, tenant: str, of_file: LookbackPolicy) -> LookbackPolicy:
    """Return the policy that versions of a tenant pin which are raised now.

    Args:
        connection: any.
        tenant: the tenant.
        of_file: in force for tenants without an activation.
    """
    newest = next(iter(policy_history(connection, tenant)), None)
    if newest is None or newest.policy_version is None:
        return of_file
    return fetch_policy(connection, newest.policy_version) or of_file


def roll_back_policy(connection: psycopg.Connection, tenant: str) -> str | None:
    """Bring back what was in force before the newest activation; return its version, None: the file's.

    A second call goes back again to what was in force before the first.

    Raises:
        NoEarlierPolicyError: the tenant never had an activation.
    """
    history = policy_history(connection, tenant)
    if not history:
        raise NoEarlierPolicyError(f"no policy was ever activated for {tenant}: the file's is in force")
    before = history[1].policy_version if len(history) > 1 else None
    policy = fetch_policy(connection, before) if before is not None else None
    activate_policy(connection, tenant, policy, f"rollback of activation {history[0].number}")
    return before


def longest_lateness(connection: psycopg.Connection, of_file: LookbackPolicy) -> int:
    """Return the longest lateness of all policies in force, microseconds: nothing is final before."""
    rows = connection.execute(_LONGEST_LATENESS).fetchall()
    return max([of_file.lateness_micros, *(LookbackPolicy.parse(row[0]).lateness_micros for row in rows)])
