"""A tenant's reader sends any SQL it likes: nothing of another tenant comes back, in rows, errors, notices or plans.

All texts of the other tenant hold a word that no query holds, so whatever holds it has leaked.
"""

from __future__ import annotations

from contextlib import ExitStack
from datetime import date
from typing import TYPE_CHECKING, NamedTuple, Self

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from attributary.attribution_core.spend.slices import Given, SliceKey, SpendRow
from attributary.consumers.store.access.catalogue import PERSONAL_COLUMNS, ROLES, VIEW_SCHEMAS
from attributary.consumers.store.access.plan import apply
from attributary.consumers.store.access.readers import (
    ALL_TENANTS,
    LoginTakenError,
    RolesMissingError,
    drop_reader,
    readers,
    store_reader,
)
from attributary.consumers.store.access.state import View, read_state
from attributary.consumers.store.connection import connect
from attributary.consumers.store.removed_totals import Removed, add_removed
from attributary.consumers.store.spend.slices import Slice, store_slices
from tests.factories.rolled_results import roll_up
from tests.factories.samples import sale, touch
from tests.pipeline_harness import run

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.postgres

HUSH = "hushhush"
DAY = date(2026, 11, 1)
SPLIT = "'hush' || 'hush'"  # the word as SQL makes it, so that no error quotes it back
SPY = """
CREATE FUNCTION pg_temp.spy(text) RETURNS bool COST 0.0000001 LANGUAGE plpgsql AS
$$ BEGIN RAISE NOTICE '%', $1; RETURN true; END $$
"""


class Readers(NamedTuple):
    """Addresses of logins."""

    owner: str
    plain: str
    people: str
    everybody: str
    views: tuple[View, ...]
    tables: tuple[str, ...]


@pytest.fixture(scope="module")
def logins(module_database: str) -> Iterator[Readers]:
    rival = {"tenant_id": "rival", "campaign_name": HUSH, "landing_url": f"https://{HUSH}.example/"}
    run(
        module_database,
        [
            [touch("t1", 1), touch("t2", 2, channel="social"), sale("c1", 3, order_id="o-1")],
            [
                touch(f"{HUSH}-t", 1, who=f"u:{HUSH}", channel=HUSH, **rival),
                *(
                    sale(f"{HUSH}-{n}", 3, who=f"u:{HUSH}", tenant_id="rival", order_id=f"{HUSH}{n}", value=77_000_000,
                         conversion_type=HUSH)
                    for n in range(30)
                ),
            ],
        ],
    )  # fmt: skip
    with psycopg.connect(module_database, autocommit=True) as connection:
        for tenant, kind in (("acme", "purchase"), ("rival", HUSH)):
            add_removed(connection, "(erased)", [Removed(tenant, date(2026, 11, 1), kind, "EUR", 1, 2, 3)])
            connection.execute(
                "INSERT INTO attribution_retired_credits "
                "VALUES (%s, '2026-11-01', %s, 'EUR', 'linear', %s, 'p', '', 1, 2)",
                (tenant, kind, kind),
            )
    with connect(module_database, application_name="tests") as connection:
        for tenant, campaign in (("acme", "spring"), ("rival", HUSH)):
            rows = [SpendRow(campaign, "EUR", 1_000_000, campaign_id=campaign, campaign_name=campaign)]
            store_slices(connection, tenant, [Slice(SliceKey("meta", campaign, DAY, "campaign"), Given(rows))])
        roll_up(connection, "acme", "rival")
    names = {"plain": "reader_one", "people": "reader_people", "everybody": "reader_all"}
    with psycopg.connect(module_database, autocommit=True) as connection:
        apply(connection)
        connection.execute("ANALYZE")
        for kind, name in names.items():
            tenant = ALL_TENANTS if kind == "everybody" else "acme"
            store_reader(connection, name, tenant, "secret", sees_people=kind != "plain")
        state = read_state(connection, VIEW_SCHEMAS)
        addresses = {kind: make_conninfo(module_database, user=name, password="secret") for kind, name in names.items()}
        yield Readers(module_database, **addresses, views=state.views, tables=tuple(state.tables))
        for name in names.values():
            assert drop_reader(connection, name)


def questions(views: tuple[View, ...], tables: tuple[str, ...]) -> list[str]:
    """SQL of somebody who wants to see more."""
    found: list[str] = []
    for view in views:
        name = f"{view.schema}.{view.name}"
        found += [
            f"SELECT * FROM {name}",
            f"SELECT v::text FROM {name} v",
            f"SELECT row_to_json(v) FROM {name} v WHERE tenant_id = 'rival'",
            f"SELECT query_to_xml('SELECT * FROM {name}', true, false, '')",
            f"SELECT table_to_xml('{name}', true, false, '')",
            f"COPY {name} TO STDOUT",
            f"COPY (SELECT * FROM {name} WHERE tenant_id <> 'acme') TO STDOUT",
            f"TABLE {name}",
            f"DECLARE c CURSOR WITH HOLD FOR SELECT * FROM {name}; FETCH ALL FROM c",
            f"PREPARE p AS SELECT * FROM {name}; SET plan_cache_mode = force_generic_plan; EXECUTE p",
            f"DO $$ DECLARE r record; BEGIN FOR r IN SELECT * FROM {name} LOOP RAISE NOTICE '%', r; END LOOP; END $$",
            f"CREATE MATERIALIZED VIEW mine AS SELECT * FROM {name}",
            f"CREATE TEMP TABLE mine AS SELECT * FROM {name}",
            f"CREATE OR REPLACE VIEW {name} AS SELECT 1",
            f"INSERT INTO {name} (tenant_id) VALUES ('acme')",
            f"UPDATE {name} SET tenant_id = 'acme' WHERE tenant_id = 'rival' RETURNING *",
            f"DELETE FROM {name} RETURNING *",
            f"SELECT * FROM {name} FOR UPDATE",
        ]
        for column in view.columns:
            found += [
                f"SELECT {column} FROM {name} WHERE tenant_id > 'acme' OR true",
                f"SELECT CAST({column}::text AS integer) FROM {name} WHERE tenant_id <> 'acme'",
                f"SELECT 1 / (CASE WHEN {column}::text LIKE '%' || {SPLIT} || '%' THEN 0 ELSE 1 END) FROM {name}",
                f"SELECT set_config('application_name', string_agg({column}::text, ''), false) FROM {name}",
                f"EXPLAIN (ANALYZE, VERBOSE, BUFFERS) SELECT {column} FROM {name} WHERE {column}::text ~ 'h.sh'",
                f"SELECT max({column}::text), min({column}::text), count(DISTINCT {column}::text) FROM {name}",
                f"SELECT lo_from_bytea(0, convert_to(string_agg({column}::text, ','), 'UTF8')) FROM {name}",
            ]
    for table in tables:
        found += [
            f"SELECT * FROM {table}",
            f"COPY {table} TO STDOUT",
            f"SELECT most_common_vals FROM pg_stats WHERE tablename = '{table}'",
            f"SELECT table_to_xml('{table}', true, false, '')",
            f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE",
            f"TRUNCATE {table}",
            f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
            f"DROP POLICY attributary_readers ON {table}",
            f"CREATE POLICY mine ON {table} USING (true)",
        ]
    for role in (*(role.name for role in ROLES), "reader_all", "postgres", "attributary", "none"):
        found += [
            f"SET ROLE {role}; SELECT * FROM attribution_results",
            f"SET SESSION AUTHORIZATION {role}; SELECT * FROM reporting.results",
            f"GRANT {role} TO CURRENT_USER",
        ]
    return [
        *found,
        "SET row_security = off; SELECT * FROM reporting.credit",
        "SET default_transaction_read_only = off; INSERT INTO attribution_tenant_readers VALUES ('rival', 'me')",
        "SELECT database_to_xml(true, false, '')",
        "SELECT schema_to_xml('public', true, false, '')",
        "SELECT schema_to_xml('reporting', true, false, '')",
        "SELECT * FROM pg_statistic",
        "SELECT * FROM pg_stats",
        "SELECT * FROM pg_stats_ext",
        "SELECT * FROM pg_largeobject",
        "SELECT lo_get(oid) FROM pg_largeobject_metadata",
        "SELECT lo_import('/etc/passwd')",
        "SELECT query FROM pg_stat_activity",
        "SELECT pg_read_file('postgresql.conf')",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "SELECT pg_ls_dir('.')",
        f"{SPY}; SELECT * FROM reporting.touchpoints WHERE pg_temp.spy(campaign)",
        "CREATE FUNCTION reporting.spy() RETURNS int AS 'SELECT 1' LANGUAGE sql",
        "CREATE FUNCTION public.spy() RETURNS int AS 'SELECT 1' LANGUAGE sql",
        "CREATE OPERATOR public.=== (leftarg = text, rightarg = text, function = texteq)",
        "CREATE EXTENSION dblink",
        "ALTER ROLE CURRENT_USER SUPERUSER",
        "ALTER ROLE CURRENT_USER BYPASSRLS",
        "SELECT pg_get_policydef(1)",
        "SELECT set_config('role', 'attributary_reporting', false); SELECT * FROM attribution_results",
        "SELECT * FROM reporting.results r, LATERAL (SELECT * FROM reporting.results) s",
        "WITH RECURSIVE w AS (SELECT tenant_id FROM reporting.credit UNION SELECT tenant_id FROM w) SELECT * FROM w",
        "SELECT * FROM reporting.credit TABLESAMPLE SYSTEM (100)",
        "SELECT ctid, * FROM reporting.touchpoints",
        "SELECT tableoid::regclass, xmin FROM reporting.touchpoints",
    ]


class Asker:
    """One session, as new for each question."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._said: list[str] = []
        self._connection: psycopg.Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()

    def _session(self) -> psycopg.Connection:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self._dsn, autocommit=True, prepare_threshold=None)
            self._connection.add_notice_handler(lambda notice: self._said.append(f"{notice.message_primary}"))
        else:
            self._connection.execute("DISCARD ALL")
        return self._connection

    def ask(self, question: str) -> str:
        """Return all that comes back: rows, notices, errors, copied bytes."""
        connection = self._session()
        self._said.clear()
        try:
            if "COPY" in question and "STDOUT" in question:
                with connection.cursor().copy(question.encode()) as copy:
                    self._said += [bytes(part).decode() for part in copy]
            else:
                self._answers(connection, question)
        except psycopg.Error as error:
            self._said.append(f"{error} {error.diag.message_detail} {error.diag.context} {error.diag.message_hint}")
        return "\n".join(self._said)

    def _answers(self, connection: psycopg.Connection, question: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(question.encode())
            more: bool | None = True
            while more:
                self._said += [str(row) for row in (cursor.fetchall() if cursor.description else [])]
                more = cursor.nextset()
            if "set_config('application_name'" in question:
                self._said.append(str(cursor.execute("SHOW application_name").fetchall()))


@pytest.mark.parametrize("kind", ["plain", "people"])
def test_a_reader_of_one_tenant_sees_nothing_of_another_whatever_it_asks(logins: Readers, kind: str) -> None:
    asked = questions(logins.views, logins.tables)
    assert len(asked) > 200
    leaks, answers = [], 0
    with Asker(getattr(logins, kind)) as reader:
        for question in asked:
            said = reader.ask(question)
            answers += "acme" in said
            if HUSH in said:
                leaks.append(f"{question}: {said[:300]}")
    assert not leaks, f"{len(leaks)} leaks\n" + "\n".join(leaks)
    assert answers > 20  # some of them are answered, with what is one's own
    # And the questions are good ones: who may see all tenants is told the word by many of them.
    with Asker(logins.everybody) as everybody:
        assert sum(HUSH in everybody.ask(question) for question in asked[:40]) > 5


def test_counts_and_sums_are_those_of_the_own_tenant(logins: Readers) -> None:
    for view in (f"{view.schema}.{view.name}" for view in logins.views):
        with psycopg.connect(logins.owner) as owner:
            own, others = owner.execute(
                sql.SQL("SELECT count(*) FILTER (WHERE tenant_id = 'acme'), count(*) FROM ") + sql.SQL(view)
            ).fetchall()[0]
        assert 0 < own < others
        with psycopg.connect(logins.people) as reader:
            assert reader.execute(sql.SQL("SELECT count(*) FROM ") + sql.SQL(view)).fetchall() == [(own,)]
        with psycopg.connect(logins.everybody) as reader:
            assert reader.execute(sql.SQL("SELECT count(*) FROM ") + sql.SQL(view)).fetchall() == [(others,)]


def test_people_are_shown_only_to_whom_they_were_granted(logins: Readers) -> None:
    for view, columns in PERSONAL_COLUMNS.items():
        for column in columns:
            with psycopg.connect(logins.plain) as reader, pytest.raises(psycopg.errors.InsufficientPrivilege):
                reader.execute(f"SELECT {column} FROM reporting.{view}".encode())
            with psycopg.connect(logins.people) as reader:
                assert reader.execute(f"SELECT {column} FROM reporting_people.{view}".encode()).fetchall()
    with psycopg.connect(logins.plain) as reader:
        shown = reader.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = 'reporting' AND table_name = "
            "'conversions'"
        ).fetchall()
    assert {name for (name,) in shown}.isdisjoint(PERSONAL_COLUMNS["conversions"])
    assert ("net_value",) in shown


def test_the_condition_on_the_tenant_is_one_of_the_index(logins: Readers) -> None:
    with psycopg.connect(logins.people) as reader:
        reader.execute("SET enable_seqscan = off")
        plan = "\n".join(
            str(row[0]) for row in reader.execute("EXPLAIN SELECT * FROM reporting_people.conversions").fetchall()
        )
    assert "Index Cond: ((tenant_id >=" in plan, plan


def test_a_login_is_no_readers_by_accident_and_can_be_changed_and_dropped(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection, ExitStack() as undo:
        apply(connection)
        connection.execute("CREATE ROLE somebody_else")
        undo.callback(connection.execute, "DROP ROLE somebody_else")
        with pytest.raises(LoginTakenError, match="somebody_else exists and is no reader"):
            store_reader(connection, "somebody_else", "acme", "secret", sees_people=False)
        store_reader(connection, "reader_x", "acme", "secret", sees_people=True)
        store_reader(connection, "reader_x", "shop", "secret", sees_people=False)
        assert readers(connection) == [("reader_x", "shop")]
        dsn = make_conninfo(database, user="reader_x", password="secret")
        with psycopg.connect(dsn) as reader, pytest.raises(psycopg.errors.InsufficientPrivilege):
            reader.execute("SELECT * FROM reporting_people.results")
        assert drop_reader(connection, "reader_x")
        assert not drop_reader(connection, "reader_x")


def test_without_the_roles_a_reader_is_refused_with_the_cure(blank_database: str) -> None:
    with psycopg.connect(blank_database, autocommit=True) as connection:
        missing = connection.execute("SELECT count(*) FROM pg_roles WHERE rolname = 'attributary_analyst'").fetchall()
        if missing == [(0,)]:  # roles are of the server, and other tests make them
            with pytest.raises(RolesMissingError, match="attributary roles apply"):
                store_reader(connection, "reader_y", "acme", "secret", sees_people=False)
