"""The incremental state: commits out of order, crashes, several trainers, and the process of the trainer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from attributary.attribution_core.statistics.forgetting import UNIT
from attributary.attribution_core.statistics.state import StateError
from attributary.cli.main import app
from attributary.consumers.runtime.crash_points import crash_points
from attributary.consumers.store.connection import connect
from attributary.consumers.store.events.sweep import close_journeys
from attributary.consumers.store.models.changed_people import pending_changes
from attributary.consumers.store.models.incremental_state import state_lock, totals_of
from attributary.consumers.store.session import StoreSession
from attributary.consumers.trainer import idle_tasks
from attributary.consumers.trainer.idle_tasks import StateUpdater
from attributary.consumers.trainer.job_handlers import JOB_ERRORS
from attributary.consumers.training.incremental_state import (
    Step,
    catch_up,
    current_statistics,
    fresh_snapshot,
    snapshot,
    step,
    verify,
)
from attributary.consumers.training.read_journeys import Window, read_daily_statistics, read_statistics
from attributary.consumers.training.train import TrainingError, TrainingPlan, incremental_statistics, train
from tests.factories.training_events import DAY, NOW, POLICY, Feed, feed, link, order, touchpoint

if TYPE_CHECKING:
    import psycopg

pytestmark = pytest.mark.postgres

INACTIVITY = POLICY.inactivity_micros
_TOUCH = """
INSERT INTO attribution_touchpoints (
    tenant_id, event_id, identity_key, occurred_at_us, received_at_us, platform, channel, interaction, campaign, is_bot,
    details, content_hash, source_topic, source_partition, source_offset)
VALUES ('acme', %(id)s, %(key)s, %(at)s, %(at)s, 'x', 'late', 'click', '', false, '{}', 0, 't', 0, 0)
"""


def opened(dsn: str) -> psycopg.Connection:
    return connect(dsn, application_name="tests")


def channels(connection: psycopg.Connection) -> set[str]:
    found = current_statistics(connection, "acme", INACTIVITY)
    assert found is not None
    return set(found.state.index.names)


@pytest.fixture
def shop(database: str) -> str:
    """Three buyers, one of them in March, and one who left."""
    feed(
        database,
        [
            touchpoint("anna", 1, "mail"),
            order("anna", 2, 5),
            touchpoint("ben", 1, "mail"),
            touchpoint("ben", 3, "search"),
            order("ben", 4, 7),
            touchpoint("cleo", 31, "search"),
            order("cleo", 32, 9),
            touchpoint("dora", 5, "social"),
        ],
    )
    with opened(database) as connection:
        close_journeys(connection, silent_since_us=NOW + 20 * DAY, limit=100)
        connection.commit()
        catch_up(connection, "acme", INACTIVITY)
    return database


def test_a_transaction_that_commits_after_the_search_is_found(shop: str) -> None:
    with opened(shop) as slow, opened(shop) as connection, opened(shop) as quick:
        # its clock and its number are of before everything else
        slow.execute(_TOUCH, {"id": "slow", "key": "a:anna", "at": NOW + 1 * DAY})
        for number in range(3):
            quick.execute(_TOUCH, {"id": f"quick-{number}", "key": "a:cleo", "at": NOW + 40 * DAY})
            quick.commit()
            assert channels(connection) == {"mail", "search", "social"}  # the touch of day 40 is open
            with state_lock(connection, wait=True), fresh_snapshot(connection) as found:
                assert found <= 1
            row = connection.execute(
                "SELECT written_since < looked_at OR written_since IS NULL FROM attribution_training_watermark"
            ).fetchone()
            assert row == (True,)  # it does not pass by the transaction that still runs
            connection.commit()
        slow.commit()
        assert "late" in channels(connection)
        assert verify(connection, "acme", INACTIVITY).is_none


def test_nothing_is_searched_twice_and_the_time_advances(shop: str) -> None:
    since = "SELECT written_since FROM attribution_training_watermark"
    with opened(shop) as connection:
        times = []
        for _ in range(3):
            with state_lock(connection, wait=True), fresh_snapshot(connection) as found:
                assert found == 0
                times.append(connection.execute(since).fetchone())
        known = [row[0] for row in times if row is not None and row[0] is not None]
        assert known == sorted(known)
        assert times[-1] is not None
        assert times[-1][0] is not None
        # another server, or a clock that went back: everything is looked at once, nothing is noted for it
        connection.execute("UPDATE attribution_training_watermark SET found_at = now() + interval '1 hour'")
        connection.commit()
        with state_lock(connection, wait=True), fresh_snapshot(connection) as found:
            assert found == 0
            assert connection.execute(since).fetchone() == (None,)
        # numbers of transactions that nothing can be concluded from any more
        connection.execute("UPDATE attribution_training_watermark SET snapshot_xmin = snapshot_xmin + 2000000000")
        connection.commit()
        with state_lock(connection, wait=True), fresh_snapshot(connection) as found:
            assert found == 4  # everybody
        assert verify(connection, "acme", INACTIVITY).is_none


@pytest.mark.parametrize("days_later", [1, -1])
def test_an_id_that_a_replaced_link_gave_away_leaves_its_old_owner(database: str, days_later: int) -> None:
    topic, loser = link("phone", "anna", 5)
    winner = loser | {"user_id": "ben", "linked_at": loser["linked_at"] + days_later * DAY // 2}
    first_in_the_log = loser["linked_at"] - DAY // 4
    people = "SELECT journey_key FROM attribution_training_people"
    with closing(Feed(database)) as stitcher, opened(database) as connection:
        stitcher.send([touchpoint("phone", 1, "mail"), (topic, loser)])
        stitcher.send([order("phone", 2, 5)])
        catch_up(connection, "acme", INACTIVITY)
        assert verify(connection, "acme", INACTIVITY).is_none
        assert connection.execute(people).fetchall() == [("u:anna",)]
        connection.commit()
        stitcher.send([(topic, winner, first_in_the_log)])
        assert verify(connection, "acme", INACTIVITY).is_none
        assert connection.execute(people).fetchall() == [(f"u:{winner['user_id']}",)]


_CRASH = """
    import sys
    from attributary.consumers.store.connection import connect
    from attributary.consumers.training.incremental_state import catch_up
    catch_up(connect(sys.argv[1], application_name="tests"), "acme", int(sys.argv[2]))
"""


@pytest.mark.parametrize("point", [point for point in crash_points("trainer") if "_state_" in point])
def test_a_crash_in_a_step_leaves_everything_as_it_was(shop: str, point: str) -> None:
    feed(shop, [touchpoint("ben", 2, "display")])
    with opened(shop) as connection:
        before = totals_of(connection, "acme")
        connection.commit()
        died = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(_CRASH), shop, str(INACTIVITY)],
            env=os.environ | {"ATTRIBUTION_CRASH_AT": point},
            check=False,
        )
        assert died.returncode == -signal.SIGKILL
        assert totals_of(connection, "acme") == before
        assert pending_changes(connection, "acme")[0] == 1
        connection.commit()
        assert verify(connection, "acme", INACTIVITY).is_none
        assert "display" in channels(connection)


def test_two_trainers_share_one_lock(shop: str) -> None:
    def run() -> None:
        with closing(StateUpdater(StoreSession(shop, "tests"), INACTIVITY, 0.001, step_people=1, rest=0)) as idle_task:
            end = time.monotonic() + 3
            while time.monotonic() < end:
                idle_task()

    trainers = [threading.Thread(target=run) for _ in range(2)]
    for thread in trainers:
        thread.start()
    with closing(Feed(shop)) as stitcher:
        for number in range(40):
            stitcher.send([touchpoint(f"p{number % 7}", number, "mail"), touchpoint("anna", number, f"c{number % 3}")])
            if number % 5 == 0:
                stitcher.send([order(f"p{number % 7}", number, 3, event_id=f"o{number}"), link("ben", "bea", number)])
    for thread in trainers:
        thread.join()
    with opened(shop) as connection:
        assert verify(connection, "acme", INACTIVITY).is_none
        assert pending_changes(connection) == (0, 0.0)


def test_the_idle_task_ends_when_no_change_is_pending(shop: str) -> None:
    feed(shop, [touchpoint(f"p{number}", number, "mail") for number in range(5)])
    with closing(StateUpdater(StoreSession(shop, "tests"), INACTIVITY, 3_600, step_people=2)) as idle_task:
        pieces = 0
        while idle_task():
            pieces += 1
        assert pieces >= 3
        assert not idle_task()
    with closing(StateUpdater(StoreSession(shop, "tests"), INACTIVITY, 0)) as never, opened(shop) as connection:
        assert not never()
        assert pending_changes(connection) == (0, 0.0)
    with (
        opened(shop) as holder,
        state_lock(holder, wait=True),
        closing(StateUpdater(StoreSession(shop, "tests"), INACTIVITY, 1)) as other,
    ):
        assert not other()  # somebody is at it


def test_a_long_round_is_followed_by_a_long_rest(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1_000.0]
    monkeypatch.setattr(idle_tasks, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def slow_step(*arguments: Any, **more: Any) -> Step:
        clock[0] += 2.0
        return step(*arguments, **more)

    monkeypatch.setattr(idle_tasks, "step", slow_step)
    feed(shop, [touchpoint("anna", 1.5, "display")])
    with closing(StateUpdater(StoreSession(shop, "tests"), INACTIVITY, 30)) as idle_task:
        while idle_task():
            pass
        worked = clock[0] - 1_000.0
        assert 2.0 <= worked < 6.0  # ten minutes are the longest rest
        feed(shop, [touchpoint("anna", 1.6, "mail")])
        clock[0] += 100 * worked - 1
        assert not idle_task(), "it rests"
        clock[0] += 2
        assert idle_task()


def test_a_damaged_state_is_rebuilt_and_verify_finds_it(shop: str) -> None:
    with opened(shop) as connection:
        connection.execute("DELETE FROM attribution_training_periods WHERE currency = 'EUR'")
        connection.execute("UPDATE attribution_training_people SET open_touches = 9 WHERE journey_key = 'a:cleo'")
        connection.commit()
        found = verify(connection, "acme", INACTIVITY)
        assert (found.people, found.differing_people, found.is_none) == (4, 1, False)
        assert found.differing_periods == 3
        feed(shop, [touchpoint("anna", 1.5, "display")])
        with (
            pytest.raises(StateError, match="retracted"),
            state_lock(connection, wait=True),
            fresh_snapshot(connection),
        ):
            step(connection, "acme", INACTIVITY)
        with closing(StateUpdater(StoreSession(shop, "tests"), INACTIVITY, 3_600)) as idle_task:
            while idle_task():
                pass
        assert verify(connection, "acme", INACTIVITY).is_none


def test_values_beyond_64_bits_skip_one_tenant_only(shop: str) -> None:
    """Each order is as large as a record may be; together they are above 9.2e12 units in one day."""
    greedy = [order(f"p{number}", 7, 10**11, tenant_id="greedy") for number in range(100)]
    feed(shop, [*greedy, touchpoint("ben", 2, "display")])
    with (
        closing(StateUpdater(StoreSession(shop, "tests"), INACTIVITY, 0.001, rest=0)) as idle_task,
        opened(shop) as connection,
    ):
        for _ in range(20):
            idle_task()
        assert pending_changes(connection, "acme")[0] == 0
        assert pending_changes(connection, "greedy")[0] == 100
        connection.commit()
        plan = TrainingPlan("markov", Window("greedy"), INACTIVITY)
        with snapshot(connection), pytest.raises(JOB_ERRORS, match=r" 9\.2e12 units of currency"):
            train(connection, plan, statistics=incremental_statistics(connection, plan))
        assert "display" in channels(connection)


def test_another_inactivity_time_rebuilds_the_state(shop: str) -> None:
    with opened(shop) as connection:
        found = current_statistics(connection, "acme", INACTIVITY // 30)
        with snapshot(connection):
            fresh = read_statistics(connection, Window("acme"), INACTIVITY // 30)
        assert found is not None
        assert found.state.to_document() == fresh.state.to_document()


def test_a_training_uses_the_incremental_state_for_the_same_journeys(shop: str) -> None:
    standing = TrainingPlan("markov", Window("acme"), INACTIVITY)
    with opened(shop) as connection:
        statistics = incremental_statistics(connection, standing)
        with snapshot(connection):
            quick, anew = train(connection, standing, statistics=statistics), train(connection, standing)
        assert quick.document == anew.document
        assert (quick.metadata["source"], anew.metadata["source"]) == ("incremental", "read")
        drop = {"source", "training_seconds"}
        assert {k: v for k, v in quick.metadata.items() if k not in drop} == {
            k: v for k, v in anew.metadata.items() if k not in drop
        }
        assert incremental_statistics(connection, TrainingPlan("markov", Window("acme", since=NOW), INACTIVITY)) is None
        assert incremental_statistics(connection, TrainingPlan("markov", Window("nobody"), INACTIVITY)) is None


def test_a_half_life_weighs_by_days_and_reports_n_eff(shop: str) -> None:
    plan = TrainingPlan(
        "markov", Window("acme"), INACTIVITY, settings={"minimum_conversions": 1}, half_life_micros=30 * DAY
    )
    with opened(shop) as connection:
        statistics = incremental_statistics(connection, plan)
        with snapshot(connection):
            kept, anew = train(connection, plan, statistics=statistics), train(connection, plan)
            by_day = read_daily_statistics(connection, plan.window, INACTIVITY)
        assert kept.document == anew.document
        ages = [30, 28, 27, 0]  # days before cleo's order: anna's, ben's, dora's last touch, cleo's
        weights = [2.0 ** (-age / 30) for age in ages]
        facts = kept.metadata
        assert facts["n"] == 4
        assert facts["forgetting"]["weight"] == pytest.approx(sum(weights), rel=1e-5)
        assert facts["n_eff"] == pytest.approx(sum(weights) ** 2 / sum(each**2 for each in weights), rel=1e-5)
        assert facts["diagnostics"]["conversions"] == pytest.approx(sum(weights) - weights[2], rel=1e-5)
        assert kept.document["conversions"] != by_day.state.to_document()["conversions"]
        assert kept.settings["journeys_per_count"] * UNIT == pytest.approx(facts["n_eff"] / sum(weights), rel=1e-5)
        for wrong in (
            TrainingPlan("markov", Window("acme"), INACTIVITY, half_life_micros=-1),
            TrainingPlan("poisson", Window("acme"), INACTIVITY, half_life_micros=DAY),
        ):
            with snapshot(connection), pytest.raises(TrainingError, match="half-life"):
                train(connection, wrong)


def test_the_command_line_shows_rebuilds_and_verifies(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", shop)
    run = CliRunner()
    shown = json.loads(run.invoke(app, ["models", "state", "status", "--json"]).stdout)
    assert (shown["tenants"][0]["people"], shown["tenants"][0]["pending_changes"]) == (4, 0)
    assert "acme" in run.invoke(app, ["models", "state", "status"]).stdout
    assert "acme" in run.invoke(app, ["models", "upkeep", "status"]).stdout  # the former name, hidden
    assert "upkeep" not in run.invoke(app, ["models", "--help"]).stdout
    assert run.invoke(app, ["models", "state", "verify", "--tenant", "acme"]).exit_code == 0
    with opened(shop) as connection:
        connection.execute("DELETE FROM attribution_training_people")
    damaged = run.invoke(app, ["models", "state", "verify", "--tenant", "acme"])
    assert damaged.exit_code == 1
    assert "run: attributary models state rebuild --tenant acme" in damaged.stderr
    assert run.invoke(app, ["models", "state", "rebuild", "--tenant", "acme"]).stdout == "acme: 4 people\n"
    assert json.loads(run.invoke(app, ["models", "state", "verify", "--tenant", "acme", "--json"]).stdout)["equal"]
    trained = run.invoke(app, ["models", "train", "--tenant", "acme", "--half-life", "30", "--json"])
    assert json.loads(trained.stdout)["metadata"]["source"] == "incremental"
