"""The schema `reporting` is for people: it explains itself, keeps its names and types, and prints rounded amounts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from attributary.consumers.store.connection import connect
from attributary.consumers.store.tenants import Tenant, store_tenant
from tests.factories.rolled_results import roll_up
from tests.factories.samples import sale, touch
from tests.pipeline_harness import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

pytestmark = pytest.mark.postgres
ROOT = Path(__file__).resolve().parents[2]
# A contract: names and types change only by adding. Written down, not computed.
COLUMNS = {
    "conversions": "tenant_id text, conversion_id text, conversion_type text, journey_key text, "
    "converted_at timestamptz, gross_value numeric, net_value numeric, currency text, order_id text, version int8, "
    "version_reason text, is_final bool",
    "credit": "tenant_id text, conversion_id text, conversion_type text, converted_at timestamptz, currency text, "
    "is_final bool, model text, model_version text, dimension text, name text, credit float8, value numeric",
    "removed": "tenant_id text, bucket text, day timestamptz, conversion_type text, currency text, conversions int8, "
    "gross_value numeric, net_value numeric",
    "retired_credit": "tenant_id text, day timestamptz, conversion_type text, currency text, model text, channel text, "
    "platform text, campaign text, credit numeric, value numeric",
    "rollups": "tenant_id text, time_zone text, complete_to timestamptz, revision int8, models _text",
    "daily_conversions": "tenant_id text, day date, charted_at timestamptz, conversion_type text, currency text, "
    "conversions int8, final_conversions int8, net_value numeric",
    "daily_credit": "tenant_id text, day date, charted_at timestamptz, conversion_type text, currency text, "
    "model text, dimension text, name text, credit numeric, value numeric, journeys int8, credit_squares numeric",
    "daily_campaigns": "tenant_id text, dating text, day date, charted_at timestamptz, conversion_type text, "
    "currency text, is_new bool, model text, channel text, platform text, campaign_id text, campaign text, "
    "credit numeric, value numeric",
    "daily_changes": "tenant_id text, reported_day date, charted_at timestamptz, reason text, day date, "
    "conversion_type text, currency text, model text, dimension text, name text, credit numeric, value numeric",
    "result_versions": "tenant_id text, conversion_id text, version int8, version_reason text, is_final bool, "
    "conversion_type text, journey_key text, converted_at timestamptz, net_value numeric, gross_value numeric, "
    "delta numeric, currency text, policy_version text, touchpoint_count int4, touchpoints jsonb, models jsonb, "
    "reported_from timestamptz, reported_until timestamptz",
    "results": "tenant_id text, conversion_id text, version int8, version_reason text, is_final bool, "
    "conversion_type text, journey_key text, converted_at timestamptz, net_value numeric, gross_value numeric, "
    "currency text, policy_version text, touchpoint_count int4, touchpoints jsonb, models jsonb, insights jsonb, "
    "computed_at timestamptz",
    "touchpoints": "tenant_id text, event_id text, identity_key text, occurred_at timestamptz, platform text, "
    "channel text, interaction text, campaign text, is_bot bool, utm_source text, utm_medium text, utm_campaign text, "
    "utm_term text, utm_content text, landing_url text, referrer text, country text, device text, details jsonb",
}


@pytest.fixture(scope="module")
def connection(module_database: str) -> Iterator[psycopg.Connection]:
    refund = {"kind": "refund", "conversion_id": "c2"}
    run(
        module_database,
        [
            [touch("t1", 1), touch("t2", 2, channel="social", campaign_name="spring"), sale("c1", 3, value=54_800_000)],
            [touch("t3", 2, who="a:d2"), sale("c2", 3, who="a:d2", value=7_029_000_000, currency="JPY")],
            [sale("r2", 4, who="a:d2", value=1_000_000_000, currency="JPY", **refund), sale("c3", 4, who="u:ann")],
        ],
    )
    with connect(module_database, application_name="tests", autocommit=True) as connection:
        yield connection


def test_names_and_types_change_only_by_adding(connection: psycopg.Connection) -> None:
    for view, expected in COLUMNS.items():
        rows = connection.execute(
            "SELECT column_name || ' ' || udt_name FROM information_schema.columns "
            "WHERE table_schema = 'reporting' AND table_name = %s ORDER BY ordinal_position",
            (view,),
        ).fetchall()
        assert ", ".join(row[0] for row in rows).startswith(expected), view


def test_every_view_and_column_has_a_comment(connection: psycopg.Connection) -> None:
    bare = connection.execute(
        """
        SELECT c.relname, a.attname FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'reporting'
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum >= 0 AND NOT a.attisdropped
        WHERE c.relkind IN ('v', 'm') AND (
            COALESCE(col_description(c.oid, a.attnum), '') = '' OR obj_description(c.oid, 'pg_class') IS NULL)
        """
    ).fetchall()
    assert bare == []


def test_amounts_are_rounded_and_exact(connection: psycopg.Connection) -> None:
    rows = connection.execute(
        "SELECT conversion_id, net_value::text, gross_value::text FROM reporting.results ORDER BY 1"
    ).fetchall()
    assert rows == [
        ("c1", "54.800000", "54.800000"), ("c2", "6029.000000", "7029.000000"), ("c3", "10.000000", "10.000000"),
    ]  # fmt: skip
    sums = connection.execute(
        "SELECT model, currency, sum(value)::text FROM reporting.credit WHERE dimension = 'channel' GROUP BY 1, 2"
    ).fetchall()
    assert {value for _, currency, value in sums if currency == "JPY"} == {"6029.000000"}
    assert {value for _, currency, value in sums if currency == "EUR"} == {"64.800000"}


def test_sums_by_day_are_those_of_every_result_in_the_tenants_days(connection: psycopg.Connection) -> None:
    """Auckland is 13 hours ahead: half of the conversions are of the next day there."""
    store_tenant(connection, Tenant("acme", time_zone="Pacific/Auckland"))
    with connection.transaction():
        roll_up(connection, "acme")
    assert connection.execute("SELECT time_zone, array_length(models, 1) > 3 FROM reporting.rollups").fetchall() == [
        ("Pacific/Auckland", True)
    ]
    day = "(converted_at AT TIME ZONE 'Pacific/Auckland')::date"
    singly = connection.execute(
        f"SELECT {day}, currency, model, dimension, COALESCE(NULLIF(name, ''), '(none)'), sum(value), count(*) "
        "FROM reporting.credit GROUP BY 1, 2, 3, 4, 5 HAVING sum(credit) <> 0 ORDER BY 1, 2, 3, 4, 5".encode()
    ).fetchall()
    rolled = connection.execute(
        "SELECT day, currency, model, dimension, name, value, journeys FROM reporting.daily_credit "
        "WHERE credit <> 0 ORDER BY 1, 2, 3, 4, 5"
    ).fetchall()
    assert [row[:6] for row in rolled] == [row[:6] for row in singly]
    sums = connection.execute(
        "SELECT (SELECT sum(net_value) FROM reporting.daily_conversions), "
        "(SELECT sum(net_value) FROM reporting.results), "
        "(SELECT sum(value) FROM reporting.daily_campaigns WHERE model = 'linear' AND dating = 'accrual'), "
        "(SELECT sum(value) FROM reporting.daily_changes WHERE model = 'linear' AND dimension = 'platform')"
    ).fetchall()[0]
    assert len(set(sums)) == 1
    charted = connection.execute(
        "SELECT DISTINCT day, charted_at AT TIME ZONE 'UTC' FROM reporting.daily_conversions"
    ).fetchall()
    assert charted
    for each, at in charted:
        assert (at.date(), at.hour) == (each, 0)


def test_the_sql_of_the_docs_runs(connection: psycopg.Connection) -> None:
    blocks = []
    for page in sorted((ROOT / "docs").rglob("*.md")):
        blocks += re.findall(r"```sql\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    queries = [part for block in blocks for part in block.split(";\n") if "reporting." in part]
    assert len(queries) >= 2
    for query in queries:
        found = connection.execute(query)
        assert found.description
        for row in found.fetchall():
            for value in row:
                assert len(str(value).partition(".")[2]) <= 6, query
