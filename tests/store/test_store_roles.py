"""Roles: what the catalogue says is what Postgres does, role by role, table by table and verb by verb."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from attributary.attribution_core.spend.slices import Given, SliceKey, SpendRow
from attributary.consumers.store.access.catalogue import REPORTING, ROLES, VIEW_SCHEMAS, Role
from attributary.consumers.store.access.plan import apply, plan, wanted_grants
from attributary.consumers.store.access.state import read_state
from attributary.consumers.store.events import stitch_sql
from attributary.consumers.store.spend.campaigns import may_read
from attributary.consumers.store.spend.slices import Slice, store_slices

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.postgres

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "roles.md"
LETTERS = {"S": "SELECT", "I": "INSERT", "U": "UPDATE", "D": "DELETE"}


@pytest.fixture(scope="module")
def applied(module_database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(module_database, autocommit=True) as connection:
        apply(connection)
        yield connection


def rights(role: Role) -> dict[str, dict[str, tuple[str, ...]]]:
    """The grants of a role and of the roles that it has the rights of, over the tables of the catalogue."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for each in [role, *(other for other in ROLES if other.name in role.members_of)]:
        own = rights(each) if each is not role else each.grants()
        for table, verbs in own.items():
            for verb, columns in verbs.items():
                known = found.setdefault(table, {}).get(verb)
                found[table][verb] = () if known == () or not columns else tuple(sorted({*(known or ()), *columns}))
    return found


def test_a_second_run_finds_nothing_to_do(applied: psycopg.Connection) -> None:
    assert plan(applied) == []


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_role_may_do_what_the_catalogue_says_on_every_table_and_no_other_verb(
    role: Role, applied: psycopg.Connection
) -> None:
    tables = list(read_state(applied, VIEW_SCHEMAS).tables)
    assert len(tables) > 20
    wanted = rights(role)
    for_all = wanted.pop("attribution_*", {})
    wrong = []
    applied.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role.name)))
    try:
        for table in tables:
            may = {**for_all, **wanted.get(table, {})}
            for verb, statement in statements(table, may).items():
                expected = verb in may
                with applied.transaction(force_rollback=True):
                    try:
                        with applied.transaction():
                            applied.execute(statement)
                        done = True
                    except psycopg.errors.InsufficientPrivilege:
                        done = False
                    except psycopg.errors.Error:  # allowed, and refused for another reason: a column must be given
                        done = True
                if done is not expected:
                    wrong.append(f"{verb} on {table}: {'may' if done else 'may not'}")
    finally:
        applied.execute("RESET ROLE")
    assert not wrong, "\n".join(wrong)


def statements(table: str, may: dict[str, tuple[str, ...]]) -> dict[str, sql.Composed]:
    """A statement for each verb, of which no row comes and nothing but the verb's right is needed."""
    column = (may.get("UPDATE") or ("updated_at",))[0]
    name = sql.Identifier(table)
    return {
        "SELECT": sql.SQL("SELECT tenant_id FROM {} LIMIT 0").format(name),
        "INSERT": sql.SQL("INSERT INTO {} (tenant_id) VALUES ('acme')").format(name),
        "UPDATE": sql.SQL("UPDATE {} SET {} = DEFAULT WHERE false").format(name, sql.Identifier(column)),
        "DELETE": sql.SQL("DELETE FROM {} WHERE false").format(name),
        "TRUNCATE": sql.SQL("TRUNCATE {}").format(name),
        "DROP": sql.SQL("DROP TABLE {}").format(name),
        "REFERENCES": sql.SQL("ALTER TABLE {} ADD COLUMN mine integer").format(name),
        "TRIGGER": sql.SQL("ALTER TABLE {} DISABLE ROW LEVEL SECURITY").format(name),
    }


def test_the_auditor_changes_only_the_columns_of_versions(applied: psycopg.Connection) -> None:
    applied.execute("SET ROLE attributary_auditor")
    try:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            applied.execute("UPDATE attribution_conversions SET net_value_micros = 0")
        applied.execute("UPDATE attribution_conversions SET observed_version = 1")
    finally:
        applied.execute("RESET ROLE")


def test_the_page_says_what_postgres_says(applied: psycopg.Connection) -> None:
    state = read_state(applied, VIEW_SCHEMAS)
    documented: set[tuple[str, str, str]] = set()
    for section in PAGE.read_text("utf-8").split("\n## ")[1:]:
        role = section.splitlines()[0]
        for table, letters in re.findall(r"^\| `([^`]+)` \| (\w+)", section, re.MULTILINE):
            tables = state.tables if table == "*" else [f"attribution_{table}"]
            documented |= {(each, role, LETTERS[letter]) for each in tables for letter in letters}
    ours = {role.name for role in ROLES}
    columns = {(table, role, verb) for schema, table, role, verb, _ in state.column_grants if schema == state.schema}
    assert {grant for grant in state.grants | columns if grant[1] in ours} == documented


def test_nobody_of_ours_owns_a_table_logs_in_or_passes_row_security(applied: psycopg.Connection) -> None:
    rows = applied.execute(
        "SELECT rolname FROM pg_roles WHERE rolname = ANY (%s) AND (rolcanlogin OR rolsuper OR rolbypassrls OR "
        "rolcreaterole OR rolcreatedb)",
        ([role.name for role in ROLES],),
    ).fetchall()
    assert rows == []
    state = read_state(applied, VIEW_SCHEMAS)
    assert not state.table_owners & {role.name for role in ROLES}
    assert {view.owner for view in state.views} == {REPORTING}
    assert all(secured or table == "attribution_tenant_readers" for table, secured in state.tables.items())
    assert (state.is_public_open, state.is_temporary_open) == (False, False)


def test_every_table_that_the_catalogue_names_is_there(applied: psycopg.Connection) -> None:
    tables = read_state(applied, VIEW_SCHEMAS).tables
    named = {table for role in ROLES for table in role.grants()} - {"attribution_*"}
    assert named <= tables.keys()
    assert wanted_grants(ROLES[0], tables).keys() <= tables.keys()


def test_what_somebody_granted_beside_the_catalogue_is_taken_away(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        apply(connection)
        connection.execute("GRANT DELETE ON attribution_results TO attributary_attributor")
        connection.execute("ALTER TABLE attribution_results DISABLE ROW LEVEL SECURITY")
        connection.execute("DROP POLICY attributary_readers ON attribution_results")
        text = "\n".join(apply(connection))
        assert 'REVOKE DELETE ON "public"."attribution_results" FROM "attributary_attributor"' in text
        assert 'ALTER TABLE "public"."attribution_results" ENABLE ROW LEVEL SECURITY' in text
        assert 'CREATE POLICY "attributary_readers" ON "public"."attribution_results" FOR SELECT' in text
        assert plan(connection) == []


def test_a_view_that_is_made_anew_belongs_to_the_role_again(database: str) -> None:
    """DROP and CREATE by a migration makes its owner the owner, whose rights would pass every policy."""
    with psycopg.connect(database, autocommit=True) as connection:
        apply(connection)
        connection.execute("CREATE VIEW reporting.later AS SELECT tenant_id FROM attribution_results")
        assert any("reporting" in each and "OWNER TO" in each for each in apply(connection))


@pytest.mark.parametrize(
    "statement", [stitch_sql.STORED_TOUCHPOINTS, stitch_sql.EVENTS_OF_CONVERSIONS, stitch_sql.CONVERSIONS_OF_PEOPLE]
)
def test_row_security_leaves_the_plans_of_stages_as_they_are(statement: str, applied: psycopg.Connection) -> None:
    question = "EXPLAIN (COSTS OFF) " + statement
    nothing: tuple[list[str], list[str]] = ([], [])
    owner = applied.execute(question.encode(), nothing).fetchall()
    applied.execute("SET ROLE attributary_stitcher")
    try:
        assert applied.execute(question.encode(), nothing).fetchall() == owner
    finally:
        applied.execute("RESET ROLE")


def test_the_read_api_sees_the_tenant_that_the_transaction_names_and_none_without(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        apply(connection)
        for tenant in ("acme", "beta"):
            connection.execute("INSERT INTO attribution_tenants (tenant_id) VALUES (%s)", (tenant,))
            connection.execute("INSERT INTO attribution_model_sets VALUES (%s, 1, '{}')", (tenant,))
        connection.execute("INSERT INTO attribution_policies (policy_version, document) VALUES ('p', '{}')")
        granted = next(role for role in ROLES if role.name == "attributary_api").grants()
        secured = {
            table
            for table in granted
            if (table, "attributary_request") in read_state(connection, VIEW_SCHEMAS).policies
        }
        assert secured == granted.keys()
        connection.execute("SET ROLE attributary_api")
        seen = []
        for said in (None, "acme", "beta", ""):
            with connection.transaction():
                if said is not None:
                    connection.execute("SELECT set_config('attributary.tenant', %s, true)", (said,))
                seen.append([
                    connection.execute(f"SELECT tenant_id FROM attribution_{table}".encode()).fetchall()
                    for table in ("tenants", "model_sets", "policies")
                ])  # fmt: skip
        everybody = [("*",)]
        assert seen == [
            [[], [], everybody], [[("acme",)], [("acme",)], everybody], [[("beta",)], [("beta",)], everybody],
            [[], [], everybody],
        ]  # fmt: skip


def test_the_read_api_sees_spend_of_the_tenant_that_the_transaction_names_and_no_other_view(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        apply(connection)
        row = SpendRow("c", "EUR", 1_000_000, campaign_id="c", campaign_name="c")
        for tenant in ("acme", "beta"):
            store_slices(
                connection, tenant, [Slice(SliceKey("meta", "a", date(2026, 11, 1), "campaign"), Given([row]))]
            )
        connection.execute("INSERT INTO attribution_positions VALUES ('*', 'auditor', 't', 0, 7)")
        connection.execute("SET ROLE attributary_api")
        assert may_read(connection)
        seen = []
        for said in (None, "acme", "beta", "", "*"):
            with connection.transaction():
                if said is not None:
                    connection.execute("SELECT set_config('attributary.tenant', %s, true)", (said,))
                seen.append(connection.execute("SELECT tenant_id, spend FROM reporting.spend").fetchall())
                # How far stages are is of no one tenant: without it no roll-up would ever be behind.
                assert connection.execute("SELECT next_offset FROM attribution_positions").fetchall() == [(7,)]
        assert seen == [[], [("acme", 1)], [("beta", 1)], [], []]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT tenant_id FROM reporting.results")
        connection.execute("SET ROLE attributary_forwarder")
        assert not may_read(connection)


@pytest.mark.parametrize("role", ["attributary_spender", "attributary_spend"])
def test_who_writes_spend_may_do_so_under_row_security(role: str, database: str) -> None:
    """Reports are added, confirmed and changed; Postgres has no COPY into a table with row security."""
    with psycopg.connect(database, autocommit=True) as connection:
        apply(connection)
        connection.execute(f"SET ROLE {role}")
        key = SliceKey("meta", "a", date(2026, 11, 1), "campaign")
        stored = []
        for at, net in ((1, 1_000_000), (2, 1_000_000), (3, 3_000_000)):
            row = SpendRow("c", "EUR", net, campaign_id="c", campaign_name="c", claimed_conversions=Decimal("1.5"))
            with connection.transaction():
                stored.append(store_slices(connection, "acme", [Slice(key, Given([row], reported_at_us=at))]))
        assert [(each.new, each.changed, each.unchanged) for each in stored] == [(1, 0, 0), (0, 0, 1), (0, 1, 0)]
