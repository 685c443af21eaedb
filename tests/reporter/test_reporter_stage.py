"""The reporter on a real Postgres: what it makes of results, repeats, tombstones and records that are none."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from attributary.consumers.auditor.stage import GROUP as AUDITOR
from attributary.consumers.auditor.stage import AuditorStage
from attributary.consumers.reporter.stage import GROUP, ReporterStage
from attributary.consumers.runtime.records import Record
from attributary.consumers.runtime.stage import WaitsForMore
from attributary.consumers.store.connection import connect
from attributary.consumers.store.rollup.apply import prepare_rollup
from attributary.consumers.store.rollup.differences import rollup_differences
from attributary.consumers.store.rollup.rebuild import rebuild_rollup, rollup_tenants
from attributary.schemas.topics import RESULTS
from tests.factories.rolled_results import DAYS_BY_MODEL, rolled_up
from tests.factories.samples import START_US, codec, link, sale, touch
from tests.pipeline_harness import InProcess
from tests.schemas.test_schemas_result_layout import OLD, old_view, written

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

GROUPS = (GROUP, AUDITOR)


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    with connect(database, application_name="tests") as opened:
        prepare_rollup(opened)
        opened.commit()
        yield opened


@pytest.fixture
def reporter(database: str) -> Iterator[ReporterStage]:
    stage = ReporterStage(database, codec(), 1.0)
    yield stage
    stage.close()


@pytest.fixture
def results(database: str) -> list[Record]:
    """The results topic after three batches: late touchpoints, an identity link and several people."""
    with InProcess(database) as stages:
        stages.publish(touch("t1"), sale("c1", 5), sale("c2", 6, who="a:d2"))
        stages.publish(touch("t2", 2), touch("t3", 3, who="a:d2"))
        stages.publish(link("l1", "d1", "jane"), sale("c3", 7, who="u:jane"))
        return [record(offset, result) for offset, result in enumerate(stages.results)]


def record(offset: int, result: dict[str, Any]) -> Record:
    key = f"{result['tenant_id']}|{result['conversion_id']}".encode()
    return Record(RESULTS, 0, offset, key, codec().encode("result", result), START_US // 1000)


def tombstone(offset: int, conversion_id: str) -> Record:
    return Record(RESULTS, 0, offset, f"acme|{conversion_id}".encode(), None, START_US // 1000)


def differences(connection: psycopg.Connection) -> list[Any]:
    with connection.transaction():
        return list(rollup_differences(connection, GROUPS))


def changes(connection: psycopg.Connection) -> list[Any]:
    return connection.execute(
        "SELECT grain, name, day, reported_day, reason, credit_billionths, value_micros, versions "
        "FROM attribution_rollup_restatements WHERE versions <> 0 OR 0 <> ANY (credit_billionths || value_micros) "
        "ORDER BY row_md5"
    ).fetchall()


def totals(connection: psycopg.Connection) -> set[Any]:
    return set(
        connection.execute(
            f"SELECT sum(credit)::int8, sum(micros)::int8 FROM {DAYS_BY_MODEL} GROUP BY dating, model".encode()
        ).fetchall()
    )


def test_every_model_and_dating_adds_up_to_the_conversions_and_their_value(
    reporter: ReporterStage, results: list[Record], connection: psycopg.Connection
) -> None:
    assert reporter.handle(results).dead_letters == []
    net = connection.execute("SELECT sum(net_value_micros)::int8 FROM attribution_conversions").fetchone()
    assert net is not None
    assert totals(connection) == {(3_000_000_000, net[0])}
    assert differences(connection) == []
    assert reporter.stored_positions([(RESULTS, 0)]) == {(RESULTS, 0): len(results)}


def test_a_replay_in_other_batches_changes_nothing(
    reporter: ReporterStage, results: list[Record], connection: psycopg.Connection
) -> None:
    reporter.handle(results)
    before = rolled_up(connection), changes(connection)
    for start in range(len(results)):
        reporter.handle(results[start : start + 2])
    assert (rolled_up(connection), changes(connection)) == before


def test_a_tombstone_takes_the_conversion_off(
    reporter: ReporterStage, results: list[Record], connection: psycopg.Connection
) -> None:
    reporter.handle([*results, tombstone(len(results), "c2")])
    reporter.handle([tombstone(len(results) + 1, "c1"), Record(RESULTS, 0, len(results) + 2, b"\xff", None, 0)])
    assert {credit for credit, _ in totals(connection)} == {1_000_000_000}


def test_what_is_no_result_is_put_aside_and_the_others_go_on(
    reporter: ReporterStage, results: list[Record], connection: psycopg.Connection
) -> None:
    broken = codec().decode("result", results[0].value)
    broken["models"][0]["unattributed_micros"] += 1
    bad = [Record(RESULTS, 0, 90, None, b"\x00", 0), record(91, broken)]
    letters = reporter.handle([*results, *bad]).dead_letters
    assert [(letter.record.offset, letter.stage) for letter in letters] == [(90, "decode"), (91, "validate")]
    assert {credit for credit, _ in totals(connection)} == {3_000_000_000}
    assert reporter.stored_positions([(RESULTS, 0)]) == {(RESULTS, 0): 92}


def test_records_of_the_older_layout_are_read_like_those_of_today(
    reporter: ReporterStage, results: list[Record], connection: psycopg.Connection, database: str
) -> None:
    old = [
        Record(RESULTS, 0, each.offset, each.key, written(OLD[-1], old_view(codec().decode("result", each.value))), 0)
        for each in results
    ]
    with closing(AuditorStage(database, codec(), 1.0)) as auditor:
        assert [row for _, row in auditor.decode(old)[0]] == [row for _, row in auditor.decode(results)[0]]
        outcome = auditor.handle(old)
    assert outcome.dead_letters == reporter.handle(old).dead_letters == []
    assert totals(connection) != set()
    assert differences(connection) == []
    before = rolled_up(connection), changes(connection)
    reporter.handle(results)
    assert (rolled_up(connection), changes(connection)) == before


def test_a_rebuild_from_the_stored_results_makes_the_same_rows_and_changes(
    reporter: ReporterStage, results: list[Record], connection: psycopg.Connection
) -> None:
    reporter.handle(results)
    before = rolled_up(connection), changes(connection)
    connection.execute("UPDATE attribution_rollup_days SET value_micros[1] = value_micros[1] + 1")
    connection.execute("DELETE FROM attribution_rollup_conversions WHERE conversion_md5 = md5('c1')::uuid")
    connection.commit()
    assert differences(connection), "what was tampered with is found"
    assert rollup_tenants(connection) == ["acme"]
    with connection.transaction():
        assert rebuild_rollup(connection, "acme", GROUPS) == len(results)
    assert (rolled_up(connection), changes(connection)) == before
    assert differences(connection) == []


def test_another_time_zone_counts_from_the_rebuild_on(
    reporter: ReporterStage, results: list[Record], connection: psycopg.Connection
) -> None:
    reporter.handle(results)
    before = rolled_up(connection)
    connection.execute("INSERT INTO attribution_tenants (tenant_id, time_zone) VALUES ('acme', 'Pacific/Marquesas')")
    connection.commit()
    reporter.handle(results)
    assert rolled_up(connection) == before
    with connection.transaction():
        rebuild_rollup(connection, "acme", GROUPS)
    assert rolled_up(connection) != before
    assert differences(connection) == []


def test_a_rebuild_takes_the_reporter_back_to_what_the_auditor_has_stored(
    reporter: ReporterStage, results: list[Record], connection: psycopg.Connection
) -> None:
    reporter.handle(results)
    newest = codec().decode("result", results[-1].value)
    reporter.handle([record(len(results), {**newest, "version": newest["version"] + 1})])
    before = rolled_up(connection)
    connection.execute(
        "UPDATE attribution_positions SET next_offset = %s WHERE consumer_group = %s AND topic = %s",
        (len(results), AUDITOR, RESULTS),
    )
    connection.commit()
    with connection.transaction():
        rebuild_rollup(connection, "acme", GROUPS)
    assert reporter.stored_positions([(RESULTS, 0)]) == {(RESULTS, 0): len(results)}
    reporter.handle([record(len(results), {**newest, "version": newest["version"] + 1})])
    assert rolled_up(connection) == before


def test_conversions_hours_apart_stand_on_the_days_of_the_zone(
    reporter: ReporterStage, database: str, connection: psycopg.Connection
) -> None:
    connection.execute("INSERT INTO attribution_tenants (tenant_id, time_zone) VALUES ('acme', 'Asia/Kathmandu')")
    connection.commit()
    with InProcess(database) as stages:
        stages.publish(sale("c1", 0), sale("c2", 20, who="a:d9"))
        reporter.handle([record(offset, result) for offset, result in enumerate(stages.results)])
    days = connection.execute("SELECT count(DISTINCT day) FROM attribution_rollup_days").fetchone()
    assert days == (2,)


def test_a_batch_waits_for_more_results_and_longer_behind_many(
    reporter: ReporterStage, results: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    assert isinstance(reporter, WaitsForMore)
    assert reporter.linger_seconds() == 1.0
    reporter.handle(results)
    assert reporter.linger_seconds() == 1.0, "a handful is a live stream"
    reporter.handle(results * 200)
    assert reporter.linger_seconds() == 2.0
    clock[0] += 1.0
    assert reporter.linger_seconds() == 1.0, "the backlog has ended"
