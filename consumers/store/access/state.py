"""What a database says about roles, grants and policies: read from its catalogue, never guessed."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

_ME = """
SELECT current_user::text, rolsuper, current_schema()::text, current_database()::text FROM pg_roles
WHERE rolname = current_user
"""
_TABLES = """
SELECT relname, relrowsecurity, pg_get_userbyid(relowner) FROM pg_class
WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') AND relname LIKE 'attribution\\_%%'
ORDER BY relname
"""
_TABLE_GRANTS = """
SELECT c.relname, pg_get_userbyid(a.grantee), a.privilege_type FROM pg_class c, aclexplode(c.relacl) AS a
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND a.grantee <> 0
"""
_COLUMN_GRANTS = """
SELECT n.nspname, c.relname, pg_get_userbyid(a.grantee), a.privilege_type, t.attname
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute t ON t.attrelid = c.oid,
     aclexplode(t.attacl) AS a
WHERE t.attacl IS NOT NULL AND a.grantee <> 0 AND (n.oid = current_schema()::regnamespace OR n.nspname = ANY (%s))
"""
_VIEWS = """
SELECT n.nspname, c.relname, pg_get_userbyid(c.relowner),
       ARRAY(SELECT attname FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
             ORDER BY attnum)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY (%s) AND c.relkind IN ('v', 'm') ORDER BY 1, 2
"""
_VIEW_GRANTS = """
SELECT n.nspname, c.relname, pg_get_userbyid(a.grantee), a.privilege_type
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) AS a
WHERE n.nspname = ANY (%s) AND c.relkind IN ('v', 'm') AND a.grantee <> 0 AND a.grantee <> c.relowner
"""
_SCHEMAS = """
SELECT n.nspname, pg_get_userbyid(n.nspowner),
       ARRAY(SELECT pg_get_userbyid(a.grantee)::text || ':' || a.privilege_type FROM aclexplode(n.nspacl) AS a
             WHERE a.grantee <> 0),
       EXISTS (SELECT FROM aclexplode(n.nspacl) AS a WHERE a.grantee = 0 AND a.privilege_type = 'CREATE')
FROM pg_namespace n WHERE n.nspname = ANY (%s) OR n.oid = current_schema()::regnamespace
"""
_MEMBERS = """
SELECT pg_get_userbyid(roleid), pg_get_userbyid(member) FROM pg_auth_members WHERE inherit_option
"""
_POLICIES = """
SELECT c.relname, p.polname, COALESCE(obj_description(p.oid, 'pg_policy'), '')
FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE c.relnamespace = current_schema()::regnamespace
"""
_DATABASE = """
SELECT ARRAY(SELECT pg_get_userbyid(a.grantee)::text || ':' || a.privilege_type
             FROM aclexplode(COALESCE(d.datacl, acldefault('d', d.datdba))) AS a WHERE a.grantee <> 0),
       EXISTS (SELECT FROM aclexplode(COALESCE(d.datacl, acldefault('d', d.datdba))) AS a
               WHERE a.grantee = 0 AND a.privilege_type = 'TEMPORARY')
FROM pg_database d WHERE d.datname = current_database()
"""


@dataclass(frozen=True, slots=True)
class View:
    """A view of a schema for readers."""

    schema: str
    name: str
    owner: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class State:
    """What the database says.

    Attributes:
        user: who asks.
        is_superuser: whether that is a superuser.
        schema: where the tables stand.
        database: its name.
        roles: all roles of the server.
        members: (role, member) with inheritance.
        tables: row security by table.
        table_owners: the owners of the tables.
        grants: (table, role, verb), of whole tables.
        column_grants: (schema, table or view, role, verb, column).
        views: of the schemas for readers.
        view_grants: (schema, view, role, verb), of whole views.
        schema_owners: by schema.
        schema_grants: (schema, role, privilege).
        is_public_open: whether everybody may create in the schema of the tables.
        policies: comments by (table, policy).
        database_grants: (role, privilege).
        is_temporary_open: whether everybody may make temporary tables and functions.
    """

    user: str
    is_superuser: bool
    schema: str
    database: str
    roles: frozenset[str]
    members: frozenset[tuple[str, str]]
    tables: dict[str, bool]
    table_owners: frozenset[str]
    grants: frozenset[tuple[str, str, str]]
    column_grants: frozenset[tuple[str, str, str, str, str]]
    views: tuple[View, ...]
    view_grants: frozenset[tuple[str, str, str, str]]
    schema_owners: dict[str, str]
    schema_grants: frozenset[tuple[str, str, str]]
    is_public_open: bool
    policies: dict[tuple[str, str], str]
    database_grants: frozenset[tuple[str, str]]
    is_temporary_open: bool


def read_state(connection: psycopg.Connection, view_schemas: tuple[str, ...]) -> State:
    """Read everything that the catalogue of roles is compared with."""
    schemas = list(view_schemas)
    user, is_superuser, schema, name = connection.execute(_ME).fetchall()[0]
    tables = connection.execute(_TABLES).fetchall()
    schema_rows = connection.execute(_SCHEMAS, (schemas,)).fetchall()
    database = connection.execute(_DATABASE).fetchall()[0]
    return State(
        user=user,
        is_superuser=is_superuser,
        schema=schema,
        database=name,
        roles=frozenset(row[0] for row in connection.execute("SELECT rolname FROM pg_roles")),
        members=frozenset((row[0], row[1]) for row in connection.execute(_MEMBERS)),
        tables={row[0]: row[1] for row in tables},
        table_owners=frozenset(row[2] for row in tables),
        grants=frozenset((row[0], row[1], row[2]) for row in connection.execute(_TABLE_GRANTS)),
        column_grants=frozenset(
            (row[0], row[1], row[2], row[3], row[4]) for row in connection.execute(_COLUMN_GRANTS, (schemas,))
        ),
        views=tuple(View(row[0], row[1], row[2], tuple(row[3])) for row in connection.execute(_VIEWS, (schemas,))),
        view_grants=frozenset((row[0], row[1], row[2], row[3]) for row in connection.execute(_VIEW_GRANTS, (schemas,))),
        schema_owners={row[0]: row[1] for row in schema_rows},
        schema_grants=frozenset((row[0], *_split(grant)) for row in schema_rows for grant in row[2]),
        is_public_open=any(row[3] for row in schema_rows if row[0] == schema),
        policies={(row[0], row[1]): row[2] for row in connection.execute(_POLICIES)},
        database_grants=frozenset(_split(grant) for grant in database[0]),
        is_temporary_open=database[1],
    )


def _split(grant: str) -> tuple[str, str]:
    role, _, privilege = grant.rpartition(":")
    return role, privilege
