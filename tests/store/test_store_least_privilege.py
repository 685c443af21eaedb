"""deploy/postgres/least_privilege.sql gives each role what it needs and nothing more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from attributary.consumers.store.jobs.job_views import drifted, expire_jobs, job_backlog
from attributary.consumers.store.models.changed_people import state_lag

if TYPE_CHECKING:
    from collections.abc import Iterator

ROLES = Path(__file__).resolve().parents[2] / "deploy" / "postgres" / "least_privilege.sql"
SQL = ROLES.read_bytes()


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(SQL)
        yield connection
        connection.execute("RESET ROLE")


def test_it_can_be_run_again(connection: psycopg.Connection) -> None:
    connection.execute(SQL)


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("attributary_pipeline", "SELECT count(*) FROM attribution_touchpoints"),
        ("attributary_pipeline", "DELETE FROM attribution_results"),
        ("attributary_pipeline", "CREATE TEMP TABLE staging (x int)"),
        ("attributary_forwarder", "UPDATE attribution_deliveries SET state = state"),
        ("attributary_forwarder", "SELECT count(*) FROM attribution_migrations"),
        ("attributary_analyst", "SELECT count(*) FROM reporting.credit"),
        ("attributary_analyst", "SELECT count(*) FROM reporting.result_versions"),
        ("attributary_verifier", "SELECT count(*) FROM attribution_results"),
        ("attributary_verifier", "CREATE TEMP TABLE shadow (LIKE public.attribution_results INCLUDING ALL)"),
    ],
)
def test_a_role_may_do_its_work(connection: psycopg.Connection, role: str, statement: str) -> None:
    connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
    connection.execute(statement.encode())


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("attributary_pipeline", "DROP TABLE attribution_results"),
        ("attributary_pipeline", "DELETE FROM attribution_migrations"),
        ("attributary_pipeline", "CREATE TABLE public.mine (x int)"),
        ("attributary_forwarder", "SELECT count(*) FROM attribution_touchpoints"),
        ("attributary_forwarder", "SELECT count(*) FROM attribution_results"),
        ("attributary_verifier", "UPDATE attribution_conversions SET version = version + 1"),
        ("attributary_verifier", "CREATE SCHEMA shadow"),
        ("attributary_analyst", "SELECT count(*) FROM attribution_touchpoints"),
        ("attributary_analyst", "SELECT count(*) FROM attribution_deliveries"),
    ],
)
def test_a_role_may_do_no_more(connection: psycopg.Connection, role: str, statement: str) -> None:
    connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement.encode())


def test_the_sweeper_may_count_what_waits_and_delete_old_jobs(connection: psycopg.Connection) -> None:
    connection.execute("SET ROLE attributary_pipeline")
    assert job_backlog(connection).waiting == 0
    assert state_lag(connection) == (0, 0.0)
    assert drifted(connection) == {}
    assert expire_jobs(connection, 1.0, 10) == 0
