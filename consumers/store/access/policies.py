"""Row security: which rows a role sees.

Invariant: the roles of stages see every row, by policies that the planner folds away; whoever reads through a view of
``reporting`` sees the rows of the tenants that ``attribution_tenant_readers`` gives to *that login*, because the views
belong to a role that owns no table and is no superuser. Inside of a view ``current_user`` still is the reader.

The read API's login sees one tenant at a time, in the view of the spend as well: the one that the transaction says it
reads for, and none before it says so. It is no wall against whoever writes SQL, and nobody who asks the API does: it is
one against a statement of ours that forgets its tenant (decision 32).

All conditions on ``tenant_id`` are leakproof, so they are index conditions and come before any function of the reader.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from .catalogue import REPORTING, ROLES, VIEWED_TABLES

STAGES_POLICY = "attributary_stages"
API, API_POLICY = "attributary_api", "attributary_request"
TENANT_SETTING = "attributary.tenant"
# Their rows are of no one tenant.
_OF_ALL_TENANTS = frozenset(
    {"attribution_migrations", "attribution_policies", "attribution_positions", "attribution_fx_rates"}
)
READERS_POLICY = "attributary_readers"
# Logins that may read the tables anyway see every tenant in the views as well.
READS_TABLES = "attributary_verifier"

# "*", all tenants, sorts before every tenant's name and "~" behind it: so one range is right for one tenant and for
# all, and a further condition picks from it the tenants of a login that has several.
_LIST = f"""
    SELECT r.tenant_id FROM attribution_tenant_readers r WHERE r.role_name = current_user
    UNION ALL SELECT '*' WHERE pg_has_role(current_user, '{READS_TABLES}', 'USAGE')
    UNION ALL SELECT s.tenant_id COLLATE "C" FROM (SELECT current_setting('{TENANT_SETTING}', true) AS tenant_id) AS s
    WHERE s.tenant_id NOT IN ('', '*') AND pg_has_role(current_user, '{API}', 'USAGE')
"""
_READERS = f"""
    tenant_id >= (SELECT min(l.tenant_id) FROM ({_LIST}) AS l)
    AND tenant_id <= (
        SELECT CASE WHEN bool_or(l.tenant_id = '*') THEN '~' ELSE max(l.tenant_id) END FROM ({_LIST}) AS l
    )
    AND ('*' = ANY (ARRAY({_LIST})) OR tenant_id = ANY (ARRAY({_LIST})))
"""


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy of a table.

    Attributes:
        table: its table.
        name: its name, the same on every table.
        command: ALL or SELECT.
        roles: the roles that it is for.
        condition: SQL.
    """

    table: str
    name: str
    command: str
    roles: Sequence[str]
    condition: str

    @property
    def fingerprint(self) -> str:
        """What is written into the policy's comment: Postgres prints conditions in its own form."""
        text = "|".join([self.command, *sorted(self.roles), self.condition])
        return f"attributary {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def stage_roles() -> list[str]:
    """Return the roles that see every row of the tables that they have a grant on: all but readers and the read API."""
    return [role.name for role in ROLES if role.tables and role.name not in {REPORTING, API}]


def policies(tables: Sequence[str]) -> list[Policy]:
    """Return the policies of tables with tenants."""
    found = [Policy(table, STAGES_POLICY, "ALL", stage_roles(), "true") for table in tables]
    granted = next(role for role in ROLES if role.name == API).grants()
    one = f"tenant_id = current_setting('{TENANT_SETTING}', true)"
    found += [
        Policy(table, API_POLICY, "SELECT", [API], "true" if table in _OF_ALL_TENANTS else one)
        for table in tables
        if table in granted
    ]
    return found + [
        Policy(table, READERS_POLICY, "SELECT", [REPORTING], _READERS) for table in tables if table in VIEWED_TABLES
    ]
