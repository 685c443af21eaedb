"""The statements that bring a database to the catalogue of roles; none where it is there already.

Invariant: statements of the plan touch our roles, our tables, the schemas for readers and what PUBLIC may do in this
database, and nothing else. What a role has and the catalogue does not give is taken away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

import psycopg
from psycopg import sql

from .catalogue import PERSONAL_COLUMNS, REPORTING, ROLES, VIEW_SCHEMAS, Role
from .policies import READS_TABLES, policies
from .state import State, View, read_state

Statement = sql.Composed
_SELECT = "SELECT"


def plan(connection: psycopg.Connection) -> list[str]:
    """Return the statements that are missing, in order, without their semicolons.

    Args:
        connection: to a migrated database; the role that applies the plan must own the tables and may create roles.
    """
    state = read_state(connection, VIEW_SCHEMAS)
    parts = (_roles(state), _database(state), _tables(state), _policies(state), _views(state))
    return [statement.as_string(connection) for part in parts for statement in part]


def apply(connection: psycopg.Connection) -> list[str]:
    """Bring the database to the catalogue, in the caller's transaction; return what was done.

    Raises:
        psycopg.errors.InsufficientPrivilege: the connection's role owns not everything, or may create no roles.
    """
    statements = plan(connection)
    for statement in statements:
        connection.execute(statement.encode())
    return statements


def _names(names: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _roles(state: State) -> Iterator[Statement]:
    missing = [role.name for role in ROLES if role.name not in state.roles]
    for name in missing:
        yield sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(name))
    for role in ROLES:
        for group in role.members_of:
            if (group, role.name) not in state.members:
                yield sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), sql.Identifier(role.name))
    # Migrations replace views, which only a member of their owner may do; and the owner sees all tenants in them.
    for name in () if state.is_superuser else (REPORTING, READS_TABLES):
        if (name, state.user) not in state.members:
            yield sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(name))


def _database(state: State) -> Iterator[Statement]:
    database, schema = sql.Identifier(state.database), sql.Identifier(state.schema)
    if state.is_public_open:
        yield sql.SQL("REVOKE CREATE ON SCHEMA {} FROM PUBLIC").format(schema)
    if state.is_temporary_open:
        yield sql.SQL("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC").format(database)
    ours = [role.name for role in ROLES]
    without = [name for name in ours if name != REPORTING and (name, "CONNECT") not in state.database_grants]
    if without:
        yield sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, _names(without))
    staging = {role.name for role in ROLES if role.is_staging}
    lacking = sorted(name for name in staging if (name, "TEMPORARY") not in state.database_grants)
    if lacking:
        yield sql.SQL("GRANT TEMPORARY ON DATABASE {} TO {}").format(database, _names(lacking))
    readers_of_tables = [role.name for role in ROLES if role.tables]
    blind = [name for name in readers_of_tables if (state.schema, name, "USAGE") not in state.schema_grants]
    if blind:
        yield sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, _names(blind))


def wanted_grants(role: Role, tables: Iterable[str]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the grants of a role by table, with ``*`` put in full; a table that is not there yet is left out."""
    tables, found = list(tables), role.grants()
    for_all = found.pop("attribution_*", {})
    return {table: {**for_all, **found.get(table, {})} for table in tables if for_all or table in found}


def _tables(state: State) -> Iterator[Statement]:
    for role in ROLES:
        wanted = wanted_grants(role, state.tables)
        whole = {(table, verb) for table, verbs in wanted.items() for verb, columns in verbs.items() if not columns}
        parts = {
            (table, verb, column)
            for table, verbs in wanted.items() for verb, columns in verbs.items() for column in columns
        }  # fmt: skip
        has = {(table, verb) for table, name, verb in state.grants if name == role.name}
        has_parts = {
            (table, verb, column)
            for schema, table, name, verb, column in state.column_grants
            if name == role.name and schema == state.schema
        }
        yield from _whole("REVOKE {} ON {} FROM {}", has - whole, role.name, state.schema)
        yield from _columns("REVOKE {} ({}) ON {} FROM {}", has_parts - parts, role.name, state.schema)
        yield from _whole("GRANT {} ON {} TO {}", whole - has, role.name, state.schema)
        yield from _columns("GRANT {} ({}) ON {} TO {}", parts - has_parts, role.name, state.schema)


def _whole(form: str, pairs: Iterable[tuple[str, str]], role: str, schema: str) -> Iterator[Statement]:
    """Yield a statement for each list of verbs, with all tables that have it."""
    by_table = {
        table: tuple(verb for _, verb in rows) for table, rows in groupby(sorted(pairs), key=lambda row: row[0])
    }
    by_verbs: dict[tuple[str, ...], list[str]] = {}
    for table, verbs in by_table.items():
        by_verbs.setdefault(verbs, []).append(table)
    for verbs, tables in sorted(by_verbs.items()):
        named = sql.SQL(", ").join(sql.Identifier(schema, table) for table in tables)
        yield sql.SQL(form).format(sql.SQL(", ".join(verbs)), named, sql.Identifier(role))


def _columns(form: str, rows: Iterable[tuple[str, str, str]], role: str, schema: str) -> Iterator[Statement]:
    for (table, verb), group in groupby(sorted(rows), key=lambda row: row[:2]):
        yield sql.SQL(form).format(
            sql.SQL(verb),
            _names(row[2] for row in group),
            sql.Identifier(schema, table),
            sql.Identifier(role),
        )


def _policies(state: State) -> Iterator[Statement]:
    tables = [table for table in state.tables if table != "attribution_tenant_readers"]
    for table in tables:
        if not state.tables[table]:
            place = sql.Identifier(state.schema, table)
            yield sql.SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(place)
    for policy in policies(tables):
        known = state.policies.get((policy.table, policy.name))
        if known == policy.fingerprint:
            continue
        name, place = sql.Identifier(policy.name), sql.Identifier(state.schema, policy.table)
        if known is not None:
            yield sql.SQL("DROP POLICY {} ON {}").format(name, place)
        check = " WITH CHECK (true)" if policy.command == "ALL" else ""
        yield sql.SQL("CREATE POLICY {} ON {} FOR {} TO {} USING ({})" + check).format(
            name, place, sql.SQL(policy.command), _names(policy.roles), sql.SQL(policy.condition)
        )  # fmt: skip
        yield sql.SQL("COMMENT ON POLICY {} ON {} IS {}").format(name, place, sql.Literal(policy.fingerprint))


def _views(state: State) -> Iterator[Statement]:
    for schema in VIEW_SCHEMAS:
        if state.schema_owners[schema] != REPORTING:
            yield sql.SQL("ALTER SCHEMA {} OWNER TO {}").format(sql.Identifier(schema), sql.Identifier(REPORTING))
    for view in state.views:
        if view.owner != REPORTING:
            yield sql.SQL("ALTER VIEW {} OWNER TO {}").format(
                sql.Identifier(view.schema, view.name), sql.Identifier(REPORTING)
            )
    for role in ROLES:
        for schema in dict.fromkeys((*role.views, *VIEW_SCHEMAS[: bool(role.single_views)])):
            if (schema, role.name, "USAGE") not in state.schema_grants:
                yield sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(
                    sql.Identifier(schema), sql.Identifier(role.name)
                )
        for view in state.views:
            yield from _view(state, role, view)


def readable_columns(view: View) -> tuple[str, ...] | None:
    """Return the columns that a reader of the view's schema gets; None: the whole view."""
    personal = PERSONAL_COLUMNS.get(view.name, frozenset()) if view.schema == VIEW_SCHEMAS[0] else frozenset()
    return tuple(column for column in view.columns if column not in personal) if personal else None


def _view(state: State, role: Role, view: View) -> Iterator[Statement]:
    if role.name == REPORTING:
        return
    is_single = view.schema == VIEW_SCHEMAS[0] and view.name in role.single_views
    is_read = is_single or view.schema in role.views
    columns = readable_columns(view) if is_read else ()
    name, grantee = sql.Identifier(view.schema, view.name), sql.Identifier(role.name)
    verbs = {verb for schema, known, who, verb in state.view_grants
             if (schema, known, who) == (view.schema, view.name, role.name)}  # fmt: skip
    wants_whole = is_read and columns is None
    for verb in sorted(verbs - ({_SELECT} if wants_whole else set())):
        yield sql.SQL("REVOKE {} ON {} FROM {}").format(sql.SQL(verb), name, grantee)
    if wants_whole and _SELECT not in verbs:
        yield sql.SQL("GRANT SELECT ON {} TO {}").format(name, grantee)
    has = {column for schema, known, who, _, column in state.column_grants
           if (schema, known, who) == (view.schema, view.name, role.name)}  # fmt: skip
    if extra := sorted(has - set(columns or ())):
        yield sql.SQL("REVOKE SELECT ({}) ON {} FROM {}").format(_names(extra), name, grantee)
    if lacking := [column for column in columns or () if column not in has or verbs]:
        yield sql.SQL("GRANT SELECT ({}) ON {} TO {}").format(_names(lacking), name, grantee)
