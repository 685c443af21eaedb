"""Storing results, what it makes of repeats and conflicts; sweeping; positions; policies; views for analysts."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from attributary.attribution_core.domain.lookback import DEFAULT_POLICY, LookbackPolicy
from attributary.consumers.store.connection import connect
from attributary.consumers.store.events.attribution_inputs import (
    conversions_by_id,
    prepare_reading,
    touchpoints_in_reach,
)
from attributary.consumers.store.events.policies import fetch_policy, store_policy
from attributary.consumers.store.events.sweep import backlog, close_journeys, finalise, overdue
from attributary.consumers.store.offsets import (
    CommitsLostError,
    OffsetCache,
    all_positions,
    all_topic_ids,
    forget_positions,
    keep_topic_ids,
    record_positions,
    restart_positions,
    stored_positions,
    stored_topic_ids,
)
from attributary.consumers.store.results.results import ResultRow, create_result_staging, judge, store_results
from tests.factories.samples import DAY_US, HOUR_US, START_US, link, sale, touch
from tests.pipeline_harness import InProcess, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    with connect(database, application_name="tests") as opened:
        yield opened


def result(version: int, content: str = "x", offset: int = 0, conversion_id: str = "c1") -> ResultRow:
    return ResultRow(
        "acme", conversion_id, version, "new", False, "purchase", START_US, "a:d1", 10_000_000, 10_000_000, 0, "EUR",
        "default-1", 0, "[]", "[]", "[]", START_US, f"{content}{version}", 0, offset, None,
    )  # fmt: skip


def state(connection: psycopg.Connection) -> Any:
    return connection.execute(
        "SELECT version, version_reason, observed_version FROM attribution_conversions WHERE conversion_id = 'c1'"
    ).fetchone()


@pytest.fixture
def one_sale(database: str, connection: psycopg.Connection) -> psycopg.Connection:
    """A conversion at version 2 that nobody has seen a result of; staging is there."""
    with InProcess(database) as stages:
        stages.stitch(sale("c1", 2))
        stages.stitch(touch("t1", 1))
    create_result_staging(connection)
    connection.commit()
    return connection


def store(connection: psycopg.Connection, *rows: ResultRow) -> tuple[int, ...]:
    with connection.transaction():
        return tuple(store_results(connection, rows))


def test_results_are_stored_once_and_observed(one_sale: psycopg.Connection) -> None:
    assert store(one_sale) == (0, 0, 0, 0, 0)
    assert store(one_sale, result(1), result(2, offset=1)) == (2, 0, 0, 0, 0)
    assert state(one_sale) == (2, "late_touchpoint", 2)
    assert store(one_sale, result(2, offset=2), result(2, offset=3)) == (0, 2, 0, 0, 0)
    assert state(one_sale) == (2, "late_touchpoint", 2)
    assert one_sale.execute("SELECT count(*) FROM attribution_results").fetchone() == (2,)


def test_an_older_version_after_a_newer_one_is_counted_and_kept(one_sale: psycopg.Connection) -> None:
    assert store(one_sale, result(2)) == (1, 0, 0, 0, 0)
    assert store(one_sale, result(1)) == (1, 0, 0, 1, 0)
    assert state(one_sale) == (2, "late_touchpoint", 2)


@pytest.mark.parametrize("batches", [1, 2])
def test_two_contents_of_one_version_owe_a_third(one_sale: psycopg.Connection, batches: int) -> None:
    rows = [result(2, "x"), result(2, "y", offset=1)]
    if batches == 1:
        assert store(one_sale, *rows) == (1, 0, 1, 0, 1)
    else:
        assert store(one_sale, rows[0]) == (1, 0, 0, 0, 0)
        assert store(one_sale, rows[1]) == (0, 0, 1, 0, 1)
    assert state(one_sale) == (3, "repair", 2)
    assert one_sale.execute("SELECT content_hash FROM attribution_results").fetchall() == [("x2",)]


def test_a_version_that_postgres_lost_is_passed(one_sale: psycopg.Connection) -> None:
    assert store(one_sale, result(7)) == (1, 0, 0, 0, 1)
    assert state(one_sale) == (8, "repair", 7)


def test_a_result_of_an_unknown_conversion_is_kept(one_sale: psycopg.Connection) -> None:
    assert store(one_sale, result(3, conversion_id="lost")) == (1, 0, 0, 0, 0)


def test_of_three_contents_every_other_one_is_a_conflict() -> None:
    """Pure: the content that is stored decides, not the one that was read last."""
    rows = [("acme", "c1", 2, content, 2, 2, "x", False) for content in ("y", "y", "x")]
    stored, repair = judge(rows)
    assert (stored.repeated, stored.conflicting, stored.new) == (1, 2, 0)
    assert repair == {("acme", "c1"): 2}


def test_what_is_overdue_is_found_oldest_first(database: str, connection: psycopg.Connection) -> None:
    assert backlog(connection) == (0, 0.0)
    with InProcess(database) as stages:
        stages.publish(sale("seen", 1))
        stages.stitch(sale("c1", 2), sale("c2", 3))
    age = "UPDATE attribution_conversions SET versioned_at = now() - interval '1 minute' * %s WHERE conversion_id = %s"
    connection.cursor().executemany(age, [(5, "c1"), (9, "c2"), (20, "seen")])
    owed, oldest = backlog(connection)
    assert owed == 2
    assert oldest == pytest.approx(540, abs=5)
    assert [version.conversion_id for version in overdue(connection, 60, 10)] == ["c2", "c1"]
    assert [version.conversion_id for version in overdue(connection, 60, 1)] == ["c2"]
    assert [version.conversion_id for version in overdue(connection, 400, 10)] == ["c2"]


def test_conversions_become_final_once(database: str, connection: psycopg.Connection) -> None:
    run(database, [[sale("c1", 2), sale("c2", 30), sale("r", 2, kind="refund", conversion_id="waits", value=10_000)]])
    due = START_US + 24 * HOUR_US
    asked: dict[str, Any] = {"due_before_us": due, "now_us": due + 1, "policy_version": "p-1", "limit": 10}
    assert finalise(connection, **asked) == [("acme", "c1", 2, "final", due + 1)]
    assert finalise(connection, **asked) == []
    row = connection.execute(
        "SELECT is_final, policy_version, observed_version FROM attribution_conversions WHERE conversion_id = 'c1'"
    ).fetchone()
    assert row == (True, "p-1", 1)


def test_what_the_stitcher_holds_is_left_for_the_next_sweep(database: str, connection: psycopg.Connection) -> None:
    run(database, [[sale("c1", 2), sale("c2", 2, who="a:d2")]])
    asked: dict[str, Any] = {"due_before_us": START_US + DAY_US, "now_us": 1, "policy_version": "p-1", "limit": 10}
    with connect(database, application_name="stitcher") as other:
        other.execute("SELECT FROM attribution_conversions WHERE conversion_id = 'c1' FOR UPDATE")
        assert [version.conversion_id for version in finalise(connection, **asked)] == ["c2"]
    assert [version.conversion_id for version in finalise(connection, **asked)] == ["c1"]


def test_silent_journeys_are_closed_and_opened_by_a_new_event(database: str, connection: psycopg.Connection) -> None:
    run(database, [[touch("t1", 1), touch("t2", 50, who="a:d2")]])
    assert close_journeys(connection, silent_since_us=START_US + 10 * HOUR_US, limit=10) == 1
    assert close_journeys(connection, silent_since_us=START_US + 10 * HOUR_US, limit=10) == 0
    connection.commit()
    run(database, [[touch("t3", 60)]])
    (still,) = connection.execute("SELECT count(*) FROM attribution_journeys WHERE closed_at IS NOT NULL").fetchall()
    assert still == (0,)


def test_positions_only_rise(connection: psycopg.Connection) -> None:
    assert record_positions(connection, "g", {("t", 0): 5, ("t", 1): 7}) == {}
    assert record_positions(connection, "g", {("t", 0): 3}) == {("t", 0): 5, ("t", 1): 7}
    assert record_positions(connection, "other", {("t", 0): 1}) == {}
    assert stored_positions(connection, "g", [("t", 0), ("t", 1), ("t", 9)]) == {("t", 0): 5, ("t", 1): 7}
    assert stored_positions(connection, "g", []) == {}
    assert all_positions(connection) == [("g", "t", 0, 5), ("g", "t", 1, 7), ("other", "t", 0, 1)]
    assert forget_positions(connection, "g") == 2
    assert all_positions(connection) == [("other", "t", 0, 1)]


def test_ids_of_topics_stand_beside_positions(connection: psycopg.Connection) -> None:
    record_positions(connection, "g", {("t", 0): 5, ("t", 1): 7})
    places = [("t", 0), ("t", 1), ("t", 9)]
    assert stored_topic_ids(connection, "g", places) == {}  # as an earlier version left them
    keep_topic_ids(connection, "g", {("t", 0): "id-1", ("t", 9): "id-1"})
    record_positions(connection, "g", {("t", 0): 6})
    assert stored_topic_ids(connection, "g", places) == {("t", 0): "id-1"}
    assert all_topic_ids(connection) == {("g", "t", 0): "id-1"}
    restart_positions(connection, "g", {("t", 0): 2})
    assert stored_positions(connection, "g", places) == {("t", 0): 2, ("t", 1): 7}
    assert stored_topic_ids(connection, "g", places) == {}


def test_a_postgres_that_fell_back_is_noticed_once() -> None:
    memory = OffsetCache()
    memory.check({})
    memory.committed({("t", 0): 10})
    memory.check({("t", 0): 10, ("t", 1): 3})
    with pytest.raises(CommitsLostError, match=r"t\[0\]: Postgres fell back from 10 to 4"):
        memory.check({("t", 0): 4})
    memory.check({("t", 0): 4})
    memory.learn([("t", 0)], {})
    memory.check({})


def test_a_policy_is_kept_as_it_was_first_used(connection: psycopg.Connection) -> None:
    policy = LookbackPolicy.parse(DEFAULT_POLICY)
    for _ in range(2):
        store_policy(connection, policy)
    found = fetch_policy(connection, policy.version)
    assert found == policy
    assert fetch_policy(connection, "never") is None


def test_the_attributor_reads_a_person_over_all_devices_inside_the_window(
    database: str, connection: psycopg.Connection
) -> None:
    run(
        database,
        [
            [touch("t1", 1), touch("t2", 2, who="u:jane"), touch("t3", 3, who="a:stranger"), touch("late", 49)],
            [link("l", "d1", "jane"), sale("c1", 48, who="u:jane"), sale("c2", 48, who="a:jane")],
        ],
    )
    prepare_reading(connection)
    assert conversions_by_id(connection, []) == []
    found = sorted(conversions_by_id(connection, [("acme", "c1"), ("acme", "c2"), ("else", "c1")]), key=lambda c: c[1])
    assert [conversion.journey_key for conversion in found] == ["u:jane", "a:jane"]
    for hours, expected in ((46, [(0, "t2")]), (47, [(0, "t1"), (0, "t2")])):
        rules = LookbackPolicy.parse(
            {"name": "p", "lateness_days": 7, "inactivity_days": 30, "windows": [{"days": hours / 24}]}
        )
        touches, complete = touchpoints_in_reach(connection, found, {each.policy_version: rules for each in found})
        assert [(one.conversion, one.event_id) for one in touches] == expected
        assert complete == 2
    assert touchpoints_in_reach(connection, [], {}) == ([], 0)


def test_the_credit_that_analysts_see_sums_to_net_revenue(database: str, connection: psycopg.Connection) -> None:
    run(
        database,
        [
            [touch("t1", 1, channel="email"), touch("t2", 2, channel="paid_search"), touch("t3", 3, channel="email")],
            [sale("c1", 4, value=9_990_000), sale("c2", 5, who="a:alone", value=1_010_000)],
            [sale("c3", 6, value=7_000_000), sale("r3", 7, kind="refund", conversion_id="c3", value=9_000_000)],
            [sale("c4", 6, value=5_000_000), sale("x4", 7, kind="cancellation", conversion_id="c4", value=0)],
            [sale("c5", 8, value=1_000_000_000, currency="JPY")],
        ],
    )
    net: dict[str, Decimal] = dict(
        connection.execute("SELECT conversion_id, net_value FROM reporting.conversions").fetchall()
    )
    assert net == {
        "c1": Decimal("9.99"), "c2": Decimal("1.01"), "c3": Decimal(-2), "c4": Decimal(0), "c5": Decimal(1000),
    }  # fmt: skip
    sums = connection.execute(
        "SELECT conversion_id, model, dimension, sum(value), sum(credit) FROM reporting.credit GROUP BY 1, 2, 3"
    ).fetchall()
    models = {row[1] for row in sums}
    assert len(models) >= 8
    assert len(sums) == len(net) * len(models) * 3
    for conversion_id, model, dimension, value, credit in sums:
        assert value == net[conversion_id], (conversion_id, model, dimension)
        assert credit == pytest.approx(1.0)
    names = connection.execute("SELECT DISTINCT name FROM reporting.credit WHERE dimension = 'channel' ORDER BY 1")
    assert names.fetchall() == [("(unattributed)",), ("email",), ("paid_search",)]
    newest = connection.execute("SELECT conversion_id, net_value FROM reporting.results").fetchall()
    assert dict(newest) == net
    shown = connection.execute("SELECT event_id, channel, is_bot FROM reporting.touchpoints ORDER BY 1").fetchall()
    assert shown == [("t1", "email", False), ("t2", "paid_search", False), ("t3", "email", False)]
