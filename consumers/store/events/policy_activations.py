"""Which policy is in force for a tenant, and the history of it.

Invariant: an activation stores its policy, and brings the trained models that it names into force, in the same
transaction, so a reader that sees the one can read the other. Rows are only added; each is in the audit, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

import psycopg

from attributary.attribution_core.domain.lookback import LookbackPolicy
from attributary.consumers.store.audit import note_action
from attributary.consumers.store.models.model_states import Activation, change_versions, in_force, restore_set

from .policies import fetch_policy, store_policy


class PolicyActivation(NamedTuple):
    """One activation of a tenant; ``policy_version`` None: the file again; ``model_set`` None: it left the models."""

    number: int
    policy_version: str | None
    activated_at: datetime
    activated_by: str
    note: str | None
    model_set: int | None = None
    model_set_before: int | None = None


class RolledBack(NamedTuple):
    """What is in force again.

    Attributes:
        policy_version: None: the file's.
        models: trained versions that were restored; None: the activation had left them as they were.
        models_stay: the activation changed them, and others came into force since: they stay.
    """

    policy_version: str | None
    models: Mapping[str, int] | None
    models_stay: bool


class NoEarlierPolicyError(ValueError):
    """There is nothing to go back to."""


_HISTORY = """
SELECT activation_number, policy_version, activated_at, activated_by, note, model_set, model_set_before
FROM attribution_policy_activations
WHERE tenant_id = %s ORDER BY activation_number DESC
"""

_LONGEST_LATENESS = """
SELECT DISTINCT ON (a.tenant_id) p.document FROM attribution_policy_activations a
JOIN attribution_policies p ON p.tenant_id = '*' AND p.policy_version = a.policy_version
ORDER BY a.tenant_id, a.activation_number DESC
"""


_ACTIVATE = """
INSERT INTO attribution_policy_activations (tenant_id, policy_version, note, model_set, model_set_before)
VALUES (%s, %s, %s, %s, %s)
"""


def activate_policy(
    connection: psycopg.Connection, tenant: str, policy: LookbackPolicy | None, note: str | None = None
) -> Activation | None:
    """Bring a policy into force for a tenant, in the caller's transaction; return what became of the trained models.

    Args:
        connection: in a transaction.
        tenant: the tenant.
        policy: None: the file's from now on.
        note: why; no personal data.

    Raises:
        ModelStateError: it names a version of a model that is not stored, or that may not be activated.
    """
    before = changed = None
    if policy is not None:
        store_policy(connection, policy)
        if policy.parts.trained:
            before = in_force(connection, tenant).model_set
            changed = change_versions(connection, tenant, policy.parts.trained)
    _note(connection, tenant, policy.version if policy else None, note, changed, before)
    return changed


def _note(
    connection: psycopg.Connection, tenant: str, version: str | None, note: str | None, changed: Activation | None,
    before: int | None,
) -> None:  # fmt: skip
    sets = (changed.model_set, before) if changed is not None and changed.changed else (None, None)
    connection.execute(_ACTIVATE, (tenant, version, note, *sets))
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


def roll_back_policy(connection: psycopg.Connection, tenant: str) -> RolledBack:
    """Bring back what was in force before the newest activation, the trained models that it changed included.

    A second call goes back again to what was in force before the first.

    Raises:
        NoEarlierPolicyError: the tenant never had an activation.
    """
    history = policy_history(connection, tenant)
    if not history:
        raise NoEarlierPolicyError(f"no policy was ever activated for {tenant}: the file's is in force")
    newest = history[0]
    version = history[1].policy_version if len(history) > 1 else None
    restored = None
    if newest.model_set is not None and newest.model_set_before is not None:
        restored = restore_set(connection, tenant, newest.model_set_before, instead_of=newest.model_set)
    note = f"rollback of activation {newest.number}"
    _note(connection, tenant, version, note, restored, newest.model_set)
    return RolledBack(
        version, None if restored is None else restored.versions, newest.model_set is not None and restored is None
    )


def longest_lateness(connection: psycopg.Connection, of_file: LookbackPolicy) -> int:
    """Return the longest lateness of all policies in force, microseconds: nothing is final before."""
    rows = connection.execute(_LONGEST_LATENESS).fetchall()
    return max([of_file.lateness_micros, *(LookbackPolicy.parse(row[0]).lateness_micros for row in rows)])
