"""Lookback policies by version: what a conversion's version pins can be read again for as long as it is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping

import psycopg
from psycopg.types.json import Jsonb

from attributary.attribution_core.domain.lookback import LookbackPolicy
from attributary.consumers.store.session import StoreSession

_COUNT = "SELECT count(*) FROM attribution_policies WHERE tenant_id = '*'"


def store_policy(connection: psycopg.Connection, policy: LookbackPolicy) -> None:
    """Keep a policy under its version; one that is there already stays as it is."""
    connection.execute(
        "INSERT INTO attribution_policies (policy_version, document) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        (policy.version, Jsonb(dict(policy.document), dumps=json.dumps)),
    )


def fetch_policies(connection: psycopg.Connection) -> dict[str, LookbackPolicy]:
    """Return all policies that are kept, by version."""
    rows = connection.execute(
        "SELECT policy_version, document FROM attribution_policies WHERE tenant_id = '*' ORDER BY policy_version"
    ).fetchall()
    return {version: LookbackPolicy.parse(document) for version, document in rows}


def fetch_policy(connection: psycopg.Connection, version: str) -> LookbackPolicy | None:
    """Return the policy of a version, or None if there never was one."""
    row = connection.execute(
        "SELECT document FROM attribution_policies WHERE tenant_id = '*' AND policy_version = %s", (version,)
    ).fetchone()
    return LookbackPolicy.parse(row[0]) if row else None


def known_policies(session: StoreSession, known: Mapping[str, LookbackPolicy]) -> Mapping[str, LookbackPolicy]:
    """Return all policies that are kept: those known, unless others were stored since.

    Args:
        session: in a transaction; its newest statement sees what was committed by then.
        known: from before.
    """
    connection = session.connection()
    row = connection.execute(_COUNT).fetchone()
    return known if row is not None and row[0] == len(known) else fetch_policies(connection)


def policy_in_force_sql(tenant: str, of_file: str) -> str:
    """Return the version that a version of a result pins when it is raised now, as an expression.

    It stands in the statement that raises it, and is no function of Postgres: a replay's shadow has no functions.

    Args:
        tenant: expression of the tenant, such as ``c.tenant_id``.
        of_file: placeholder of the version in force without an activation.
    """
    return (
        "COALESCE((SELECT a.policy_version FROM attribution_policy_activations a "
        f"WHERE a.tenant_id = {tenant} ORDER BY a.activation_number DESC LIMIT 1), {of_file})"
    )
