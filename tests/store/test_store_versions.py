"""What was reported on a day stays answerable, and what is deleted was reported on no day that counts."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from attributary.consumers.store.connection import connect
from attributary.consumers.store.results.credit_report import ReportQuery, read_report
from attributary.consumers.store.results.versions import expire_versions
from attributary.consumers.store.session import StoreSession
from attributary.consumers.store.tenants import Tenant, store_tenant
from attributary.consumers.sweeper.retention import RetentionSettings, VersionRetention

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

pytestmark = pytest.mark.postgres

DAY = 86_400_000_000
NOW = time.time_ns() // 1_000
EVER = (0, 2**62)


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    with connect(database, application_name="tests") as connection:
        yield connection


def store(
    connection: psycopg.Connection, conversion: str, versions: list[tuple[float, int, bool]], tenant: str = "acme"
) -> None:
    """Store versions 1, 2, ... of a conversion: each (days ago, net value in micros, final), half to each of two."""
    for number, (days_ago, net, is_final) in enumerate(versions, 1):
        touches = [{"event_id": "t1", "channel": "search"}, {"event_id": "t2", "channel": "social"}] if net else []
        micros = [net - net // 2, net // 2] if net else []
        models = [
            {"model": "linear", "credits": [0.5, 0.5][: len(touches)], "micros": micros, "unattributed_micros": 0}
        ]
        connection.execute(
            "INSERT INTO attribution_results VALUES (%s, %s, %s, 'new', %s, 'purchase', 1, 'u:ann', %s, %s, %s, "
            "'EUR', 'p', %s, %s, %s, '[]', %s, '', 0, 0)",
            (tenant, conversion, number, is_final, net, net, net, len(touches), json.dumps(touches), json.dumps(models),
             NOW - int(days_ago * DAY)),
        )  # fmt: skip
    connection.execute(
        "INSERT INTO attribution_conversions VALUES (%s, %s, 'purchase', 'u:ann', 'u:ann', 1, 1, 0, 0, 0, 'EUR', "
        "NULL, %s, 'new', false, 'p', 0, '', 0, 0, 0)",
        (tenant, conversion, len(versions)),
    )
    connection.commit()


def kept(connection: psycopg.Connection, conversion: str, tenant: str = "acme") -> list[int]:
    rows = connection.execute(
        "SELECT version FROM attribution_results WHERE conversion_id = %s AND tenant_id = %s ORDER BY 1",
        (conversion, tenant),
    ).fetchall()
    return [row[0] for row in rows]


def test_a_report_of_an_earlier_day_is_answered_as_it_was(connection: psycopg.Connection) -> None:
    store(connection, "order-1", [(10, 100, False), (5, 60, False), (1, 0, False)])
    store(connection, "order-2", [(4, 40, False)])
    for days_ago, net, conversions in ((11, 0, 0), (9, 100, 1), (4.5, 60, 1), (2, 100, 2), (0, 40, 2)):
        query = ReportQuery("acme", ["linear"], ["channel"], EVER, NOW - int(days_ago * DAY))
        report = read_report(connection, query)
        assert sum(total.net_micros for total in report.totals) == net
        assert sum(total.conversions for total in report.totals) == conversions
        assert sum(row.value_micros for row in report.rows) == net
    assert {row.keys for row in report.rows} == {("search",), ("social",), ("(unattributed)",)}
    assert read_report(connection, ReportQuery("other", ["linear"], ["channel"], EVER, NOW)) == ([], [], [])
    shown = connection.execute(
        "SELECT sum(net_value * 1000000) FROM reporting.result_versions WHERE reported_from <= to_timestamp(%(at)s) "
        "AND (reported_until > to_timestamp(%(at)s) OR reported_until IS NULL)",
        {"at": (NOW - 2 * DAY) / 1e6},
    ).fetchone()
    assert shown is not None
    assert shown[0] == 100


def test_what_goes_was_reported_on_no_day_that_is_kept_and_the_newest_never_goes(
    connection: psycopg.Connection,
) -> None:
    store(connection, "order-1", [(100, 1, False), (90, 2, False), (20, 3, False), (1, 4, False)])
    store(connection, "order-2", [(400, 1, False)])
    store(connection, "order-3", [(100, 1, False), (90, 2, True), (80, 3, False), (70, 4, False)])
    deleted, last = expire_versions(connection, NOW - 30 * DAY, ("", ""), 2)
    assert (deleted, last) == (1, ("acme", "order-2"))
    assert last is not None
    assert expire_versions(connection, NOW - 30 * DAY, last, 2) == (2, None)
    assert kept(connection, "order-1") == [2, 3, 4]  # the second was reported until 20 days ago
    assert kept(connection, "order-2") == [1]
    assert kept(connection, "order-3") == [2, 4]  # the final one, and the newest


def test_tenants_keep_versions_as_long_as_they_say(connection: psycopg.Connection, database: str) -> None:
    versions: list[tuple[float, int, bool]] = [(100, 1, False), (90, 2, False), (20, 3, False), (1, 4, False)]
    for tenant in ("acme", "brief", "long"):
        store(connection, "order-1", versions, tenant)
    store_tenant(connection, Tenant("brief", versions_kept_days=10))
    store_tenant(connection, Tenant("long", versions_kept_days=1_000))
    connection.commit()
    session = StoreSession(database, "tests")
    try:
        # Without a setting of the installation only the tenant that says so loses any.
        assert VersionRetention(RetentionSettings(), session).turn() == 2
        assert [kept(connection, "order-1", tenant) for tenant in ("acme", "brief", "long")] == [
            [1, 2, 3, 4], [3, 4], [1, 2, 3, 4],
        ]  # fmt: skip
        assert VersionRetention(RetentionSettings(ATTRIBUTION_VERSIONS_KEPT_DAYS=30), session).turn() == 1
        assert kept(connection, "order-1") == [2, 3, 4]
        assert kept(connection, "order-1", "long") == [1, 2, 3, 4]
    finally:
        session.close()


def test_the_keeper_goes_round_and_rests(connection: psycopg.Connection, database: str) -> None:
    store(connection, "order-1", [(100, 1, False), (90, 2, False)])
    session = StoreSession(database, "tests")
    assert VersionRetention(RetentionSettings(), session).turn() == 0
    keeper = VersionRetention(RetentionSettings(ATTRIBUTION_VERSIONS_KEPT_DAYS=30), session)
    assert [keeper.turn(), keeper.turn()] == [1, 0]
    assert kept(connection, "order-1") == [2]
    session.close()
