"""Tenants: what each decides for itself (``attribution_tenants``), and which of them anything is stored of.

Invariant: a tenant without a row has every default; times kept are whole days of 24 hours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

_KNOWN = """
SELECT EXISTS (SELECT FROM attribution_journeys WHERE tenant_id = %(tenant)s)
    OR EXISTS (SELECT FROM attribution_conversion_events WHERE tenant_id = %(tenant)s)
    OR EXISTS (SELECT FROM attribution_touchpoints WHERE tenant_id = %(tenant)s)
    OR EXISTS (SELECT FROM attribution_batch_jobs WHERE tenant_id = %(tenant)s)
    OR EXISTS (SELECT FROM attribution_model_states WHERE tenant_id = %(tenant)s)
    OR EXISTS (SELECT FROM attribution_tenants WHERE tenant_id = %(tenant)s)
"""
# What a login of spend alone may read, too: spend and experiments may be there before the first event.
_KNOWN_BY_SPEND = """
SELECT EXISTS (SELECT 1 FROM attribution_spend_slices WHERE tenant_id = %(tenant)s)
    OR EXISTS (SELECT 1 FROM attribution_experiments WHERE tenant_id = %(tenant)s)
    OR EXISTS (SELECT 1 FROM attribution_tenants WHERE tenant_id = %(tenant)s)
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


@dataclass(frozen=True, slots=True)
class Tenant:
    """What a tenant decides for itself; the defaults are those of a tenant without a row.

    Attributes:
        tenant_id: the tenant.
        time_zone: IANA name of the zone in which its days begin.
        reporting_currency: ISO 4217, into which its reports convert; None: each currency apart.
        touchpoints_kept_days: None: kept for good; so are the three below.
        conversions_kept_days: after their event time they retire, with their events and results.
        links_kept_days: of identity links, once nothing else of the anonymous id is stored.
        versions_kept_days: of versions that others replaced; None: as ATTRIBUTION_VERSIONS_KEPT_DAYS says.
        erasure_mode: what becomes of an erased person's conversions: `anonymise`, their amounts stay in the totals
            `(erased)`; `delete`, they go.
        generic_ids: further ids that name nobody.
        real_ids: ids that a built-in rule refuses and that are real here.
        consent_defaults: consent by purpose where an event does not mention the purpose.
    """

    tenant_id: str
    time_zone: str = "UTC"
    reporting_currency: str | None = None
    touchpoints_kept_days: int | None = None
    conversions_kept_days: int | None = None
    links_kept_days: int | None = None
    versions_kept_days: int | None = None
    erasure_mode: Literal["anonymise", "delete"] = "anonymise"
    generic_ids: tuple[str, ...] | list[str] = ()
    real_ids: tuple[str, ...] | list[str] = ()
    consent_defaults: Mapping[str, bool] = field(default_factory=dict)


_COLUMNS = tuple(each.name for each in fields(Tenant))
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM attribution_tenants"
_STORE = f"""
INSERT INTO attribution_tenants ({", ".join(_COLUMNS)}) VALUES ({", ".join(f"%({name})s" for name in _COLUMNS)})
ON CONFLICT (tenant_id) DO UPDATE SET
    {", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])}, updated_at = now()
"""


def known_tenants(connection: psycopg.Connection) -> list[str]:
    """Return the tenants with a result, in order."""
    return [row[0] for row in connection.execute(_ALL).fetchall()]


def check_tenant(connection: psycopg.Connection, tenant_id: str) -> None:
    """Check that something of a tenant is stored: a setting, an event, a job, a model, spend or an experiment.

    Raises:
        UnknownTenantError: nothing is, as far as the login may look.
    """
    if any(_is_there(connection, statement, tenant_id) for statement in (_KNOWN_BY_SPEND, _KNOWN)):
        return
    try:
        with connection.transaction():
            known = f"; tenants with results: {', '.join(known_tenants(connection)[:12]) or 'none'}"
    except psycopg.errors.InsufficientPrivilege:
        known = ""
    raise UnknownTenantError(
        f"tenant {tenant_id} is unknown: no event, job or model of it is stored, and no spend{known}"
    )


def _is_there(connection: psycopg.Connection, statement: str, tenant_id: str) -> bool:
    """Return whether a statement finds the tenant; not so if the login may not ask."""
    try:
        with connection.transaction():
            return bool(connection.execute(statement, {"tenant": tenant_id}).fetchall()[0][0])
    except psycopg.errors.InsufficientPrivilege:
        return False


def tenants_with_settings(connection: psycopg.Connection) -> list[Tenant]:
    """Return all tenants that have a row, in order."""
    with connection.cursor(row_factory=class_row(Tenant)) as cursor:
        return cursor.execute(f"{_SELECT} ORDER BY tenant_id").fetchall()


def fetch_tenant(connection: psycopg.Connection, tenant_id: str) -> Tenant | None:
    """Return a tenant's settings; None: it has no row, and so every default."""
    with connection.cursor(row_factory=class_row(Tenant)) as cursor:
        return cursor.execute(f"{_SELECT} WHERE tenant_id = %s", (tenant_id,)).fetchone()


def store_tenant(connection: psycopg.Connection, tenant: Tenant) -> None:
    """Store a tenant's settings in place of those that it had."""
    row: dict[str, Any] = {name: getattr(tenant, name) for name in _COLUMNS}
    row["consent_defaults"] = Jsonb(dict(tenant.consent_defaults))
    row["generic_ids"], row["real_ids"] = list(tenant.generic_ids), list(tenant.real_ids)
    connection.execute(_STORE, row)


def tenant_ids(connection: psycopg.Connection) -> dict[str, tuple[list[str], list[str]]]:
    """Return generic and real ids of all tenants that have a row, by tenant."""
    rows = connection.execute("SELECT tenant_id, generic_ids, real_ids FROM attribution_tenants").fetchall()
    return {tenant: (generic, real) for tenant, generic, real in rows}


def consent_defaults(connection: psycopg.Connection) -> dict[str, dict[str, bool]]:
    """Return consent by purpose where an event does not mention the purpose, by tenant."""
    statement = "SELECT tenant_id, consent_defaults FROM attribution_tenants WHERE consent_defaults <> '{}'"
    return dict(connection.execute(statement).fetchall())


def versions_kept_days(connection: psycopg.Connection) -> dict[str, int]:
    """Return for how many days replaced versions are kept, of tenants that decide it themselves."""
    return dict(
        connection.execute(
            "SELECT tenant_id, versions_kept_days FROM attribution_tenants WHERE versions_kept_days IS NOT NULL"
        ).fetchall()
    )
