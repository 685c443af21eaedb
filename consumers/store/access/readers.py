"""Logins that read the views: one a tenant, for dashboards and BI.

Invariant: a reader is a member of the reader roles and of nothing else; what it sees is a row of
``attribution_tenant_readers``, which it cannot change.
"""

from __future__ import annotations

import psycopg
from psycopg import sql

ALL_TENANTS = "*"
_STATEMENT_TIMEOUT = "30s"
READER_ROLE, PEOPLE_ROLE = "attributary_analyst", "attributary_people_analyst"


class RolesMissingError(Exception):
    """`attributary roles apply` was not run on this database; the text says so."""


class LoginTakenError(Exception):
    """A role of that name exists and is no reader; the text names it."""


def reader_name(tenant_id: str) -> str:
    """Return the name of a tenant's login; Postgres keeps 63 bytes of a name."""
    return f"reader_{tenant_id}"[:63]


def store_reader(
    connection: psycopg.Connection, login: str, tenant_id: str, password: str, *, sees_people: bool
) -> None:
    """Make a login that reads one tenant, or all; one that exists gets the new password and what it may see.

    Args:
        connection: in a transaction; its role may create roles.
        login: name of the login.
        tenant_id: the tenant, or ``ALL_TENANTS``.
        password: of the login.
        sees_people: the views with people as well.

    Raises:
        RolesMissingError: the database has not these roles yet.
        LoginTakenError: the name belongs to somebody else.
    """
    if len(connection.execute(_KNOWN, ([READER_ROLE, PEOPLE_ROLE],)).fetchall()) < 2:
        raise RolesMissingError("the roles of readers are missing: run `attributary roles apply` first")
    name = sql.Identifier(login)
    if connection.execute(_KNOWN, ([login],)).fetchall():
        if not connection.execute(_IS_READER, (login,)).fetchall():
            raise LoginTakenError(f"role {login} exists and is no reader of views; choose another name with --login")
        connection.execute(sql.SQL("REVOKE {} FROM {}").format(sql.Identifier(PEOPLE_ROLE), name))
    else:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(name))
    connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(name, sql.Literal(password)))
    for setting, value in (("default_transaction_read_only", "on"), ("statement_timeout", _STATEMENT_TIMEOUT)):
        connection.execute(sql.SQL("ALTER ROLE {} SET {} = {}").format(name, sql.SQL(setting), sql.Literal(value)))
    granted = PEOPLE_ROLE if sees_people else READER_ROLE
    connection.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(granted), name))
    connection.execute("DELETE FROM attribution_tenant_readers WHERE role_name = %s", (login,))
    connection.execute(
        "INSERT INTO attribution_tenant_readers (tenant_id, role_name) VALUES (%s, %s)", (tenant_id, login)
    )


def drop_reader(connection: psycopg.Connection, login: str) -> bool:
    """Take a login away; False: there was no reader of that name."""
    gone = connection.execute("DELETE FROM attribution_tenant_readers WHERE role_name = %s", (login,)).rowcount
    if gone:
        connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(login)))
    return bool(gone)


def readers(connection: psycopg.Connection) -> list[tuple[str, str]]:
    """Return login and tenant of all readers, in order."""
    return connection.execute(
        "SELECT role_name::text, tenant_id FROM attribution_tenant_readers ORDER BY role_name, tenant_id"
    ).fetchall()


_KNOWN = "SELECT rolname FROM pg_roles WHERE rolname = ANY (%s)"
_IS_READER = "SELECT FROM attribution_tenant_readers WHERE role_name = %s"
