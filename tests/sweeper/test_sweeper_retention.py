"""Retention: what goes, in which order, and that revenue and credits stay to the micro."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from attributary.attribution_core.domain.lookback import DEFAULT_POLICY, LookbackPolicy
from attributary.consumers.store.retention.boundaries import next_tenant
from attributary.consumers.store.session import StoreSession
from attributary.consumers.store.tenants import Tenant, store_tenant
from attributary.consumers.sweeper import tenant_retention
from attributary.consumers.sweeper.tenant_retention import Removed, TenantRetention, boundaries_of
from tests.factories.samples import DAY_US, START_US, link, sale, touch
from tests.pipeline_harness import InProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.postgres

DAY = 24
POLICY = LookbackPolicy.parse(DEFAULT_POLICY)
KEPT = 217
LATE = 300 * DAY  # hours after the start: what came in the first days is older than is kept
NOW_US = START_US + 302 * DAY_US


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database, autocommit=True) as connection:
        store_tenant(
            connection,
            Tenant("acme", conversions_kept_days=KEPT, touchpoints_kept_days=KEPT, links_kept_days=KEPT),
        )
        yield connection


@pytest.fixture
def stages(database: str) -> Iterator[InProcess]:
    with InProcess(database) as stages:
        yield stages


def run(database: str, now_us: int = NOW_US) -> Removed:
    """Let sweepers work until nothing is left, each for one turn."""
    session, total = StoreSession(database, "tests"), Removed()
    try:
        while True:  # a turn ends after a second, also where it removed nothing and more is due
            done = TenantRetention(POLICY, session, lambda: now_us).turn()
            total = Removed(*(sum(pair) for pair in zip(total, done, strict=True)))
            with session.transaction() as connection:
                if not any(done) and next_tenant(connection) is None:
                    break
    finally:
        session.close()
    return total


def revenue(connection: psycopg.Connection) -> list[tuple[str, int]]:
    """Net value by currency, of conversions and of totals."""
    return connection.execute(
        "SELECT currency, sum(net)::int8 FROM (SELECT currency, net_value_micros AS net FROM attribution_conversions "
        "WHERE version > 0 UNION ALL SELECT currency, net_micros FROM attribution_removed_totals) AS all_of_it "
        "GROUP BY currency ORDER BY currency"
    ).fetchall()


def credits_(connection: psycopg.Connection) -> dict[str, int]:
    """Credited value by model of what retired, bookings for all models included."""
    rows = connection.execute("SELECT model, sum(value_micros)::int8 FROM attribution_retired_credits GROUP BY model")
    found: dict[str, int] = dict(rows.fetchall())
    later = found.pop("*", 0)
    return {model: micros + later for model, micros in found.items()}


def count(connection: psycopg.Connection, table: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM attribution_{table}".encode()).fetchall()[0][0])


def old_and_new(stages: InProcess, connection: psycopg.Connection) -> None:
    """Three old conversions of two people, one with a link by its touchpoint, and a new one."""
    stages.publish(
        touch("t1", 0), touch("t2", 5, channel="social"), touch("t3", 1, user_id="ann", anonymous_id="d9"),
        sale("c1", 1 * DAY, value=10_000_000), sale("c2", 2 * DAY, value=7_010_000),
        sale("c3", 2 * DAY, who="a:d9", value=3_000_000, currency="USD"),
        sale("r1", 3 * DAY, kind="refund", conversion_id="c1", value=2_500_000),
    )  # fmt: skip
    stages.publish(touch("t8", LATE - 5), sale("c8", LATE, value=1_000_000))
    connection.execute("UPDATE attribution_conversions SET is_final = true WHERE conversion_id <> 'c8'")


PAIR = "INSERT INTO attribution_dropped_links VALUES ('acme', %s, %s, 'ann', %s, %s)"


def test_pairs_of_dropped_links_go_with_the_rest_of_their_device(
    stages: InProcess, connection: psycopg.Connection, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_and_new(stages, connection)
    stages.publish(touch("young", LATE, who="a:busy"))
    for event_id, device, hours in (("p1", "idle", 1), ("p2", "idle", 2), ("p3", "busy", 3), ("p4", "idle", LATE)):
        at = START_US + int(hours * 3_600_000_000)
        connection.execute(PAIR, (event_id, device, at, at))
    connection.execute(PAIR, ("p5", "idle", START_US, START_US + LATE * 3_600_000_000))
    monkeypatch.setattr(tenant_retention, "_IDS", 1)  # a page holds one
    assert run(database).links == 3
    left = connection.execute("SELECT event_id FROM attribution_dropped_links ORDER BY 1").fetchall()
    assert left == [("p3",), ("p4",), ("p5",)]
    assert run(database) == Removed()


def test_old_conversions_leave_worth_and_credits_behind_and_touchpoints_follow(
    stages: InProcess, connection: psycopg.Connection, database: str
) -> None:
    old_and_new(stages, connection)
    before = revenue(connection)
    assert run(database) == Removed(conversions=3, touchpoints=3, links=1)
    assert revenue(connection) == before
    assert [count(connection, name) for name in ("conversions", "conversion_events", "touchpoints", "results")] == [
        1
    ] * 4
    retired: dict[str, int] = dict(
        connection.execute(
            "SELECT currency, sum(net_micros)::int8 FROM attribution_removed_totals GROUP BY currency"
        ).fetchall()
    )
    assert retired == {"EUR": 14_510_000, "USD": 3_000_000}
    assert set(credits_(connection).values()) == {17_510_000}
    # By linear the two touchpoints of one person share two conversions, in the micros that results had.
    linear = connection.execute(
        "SELECT channel, value_micros FROM attribution_retired_credits WHERE model = 'linear' AND currency = 'EUR' "
        "AND channel IN ('email', 'social') ORDER BY day, channel"
    ).fetchall()
    assert sum(micros for _, micros in linear) == 14_510_000
    assert run(database) == Removed()


def test_a_later_refund_is_booked_as_retired_and_opens_nothing(
    stages: InProcess, connection: psycopg.Connection, database: str
) -> None:
    old_and_new(stages, connection)
    run(database)
    refund = sale("r2", LATE, kind="refund", conversion_id="c2", value=1_000_000)
    again = sale("c1-again", 1 * DAY, conversion_id="c1", value=10_000_000)  # the same order, imported once more
    too_late = sale("c4", 4 * DAY, who="a:d7", value=5_000_000)  # its touchpoints may be gone
    assert stages.publish(refund, again, too_late) == []
    assert run(database, NOW_US + DAY_US).conversions == 1
    assert revenue(connection) == [("EUR", 14_510_000 + 1_000_000 - 1_000_000 + 5_000_000), ("USD", 3_000_000)]
    assert set(credits_(connection).values()) == {17_510_000 - 1_000_000 + 5_000_000}
    assert count(connection, "conversions") == 1
    assert count(connection, "conversion_events") == 1


def test_nothing_that_is_open_goes_and_its_touchpoints_stay(
    stages: InProcess, connection: psycopg.Connection, database: str
) -> None:
    old_and_new(stages, connection)
    connection.execute("UPDATE attribution_conversions SET is_final = false WHERE conversion_id = 'c1'")
    assert run(database) == Removed(conversions=2)
    assert count(connection, "touchpoints") == 4
    # A refund of a conversion that is old and still open counts as ever.
    (result,) = stages.publish(sale("r3", LATE, kind="refund", conversion_id="c1", value=500_000))
    assert (result["net_value_micros"], result["touchpoint_count"]) == (7_000_000, 2)


def test_nothing_goes_while_a_transaction_runs_that_may_not_see_the_boundary(
    stages: InProcess, connection: psycopg.Connection, database: str
) -> None:
    old_and_new(stages, connection)
    with psycopg.connect(database) as other:
        other.execute("SELECT pg_current_xact_id()")
        assert run(database) == Removed()
        other.rollback()
    assert run(database).conversions == 3


def test_pages_of_any_size_and_a_crash_between_them_come_to_the_same(
    stages: InProcess, connection: psycopg.Connection, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_and_new(stages, connection)
    before = revenue(connection)
    for name in ("_CONVERSIONS", "_TOUCHPOINTS", "_IDS"):
        monkeypatch.setattr(tenant_retention, name, 1)
    pages = 0

    def crash(point: str) -> None:
        nonlocal pages
        pages += point == "retention_in_page"
        if point == "retention_in_page" and pages % 2:
            raise KeyboardInterrupt

    session = StoreSession(database, "tests")
    monkeypatch.setattr(tenant_retention, "crash_at", crash)
    done = Removed()
    for _ in range(200):
        try:
            found = TenantRetention(POLICY, session, lambda: NOW_US).turn()
        except KeyboardInterrupt:
            continue
        if not any(found):
            break
    monkeypatch.setattr(tenant_retention, "crash_at", lambda _point: None)
    run(database)
    session.close()
    row = connection.execute(
        "SELECT conversions_retired, touchpoints_removed, links_removed, step FROM attribution_retention"
    ).fetchall()
    assert row == [(3, 3, 1, "done")], done
    assert revenue(connection) == before


def test_the_owner_of_a_device_survives_the_touchpoint_that_told_it(
    stages: InProcess, connection: psycopg.Connection, database: str
) -> None:
    stages.publish(touch("t3", 1, user_id="ann", anonymous_id="d9"))
    stages.publish(touch("t4", LATE, who="a:d9"), sale("c9", LATE + 1, who="u:ann"))
    run(database)
    assert connection.execute("SELECT source FROM attribution_identity_links").fetchall() == [("retention",)]
    (result,) = stages.publish(sale("r9", LATE + 2, who="u:ann", kind="refund", conversion_id="c9", value=10_000))
    assert result["touchpoint_count"] == 1
    assert stages.publish(link("l1", "d9", "bob", LATE)) == []


def test_a_tenant_that_keeps_too_little_keeps_everything(
    stages: InProcess, connection: psycopg.Connection, database: str
) -> None:
    old_and_new(stages, connection)
    store_tenant(connection, Tenant("acme", conversions_kept_days=100))
    assert run(database) == Removed()
    assert count(connection, "retention") == 0


def test_touchpoints_stay_behind_conversions_by_the_longest_window() -> None:
    window = POLICY.longest_window_micros
    tenant = Tenant("acme", conversions_kept_days=300, touchpoints_kept_days=100)
    found = boundaries_of(tenant, window, NOW_US)
    assert found.touchpoints_before == found.conversions_before - window
    assert boundaries_of(Tenant("acme", touchpoints_kept_days=100), window, NOW_US).touchpoints_before == 0
