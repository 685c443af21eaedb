"""Spend by the topic, spend written straight and a fold in memory: the same, in any order and with repeats."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from attributary.consumers.spend.spend_record import record_of, slice_of, within_rows
from attributary.consumers.spender.stage import SpenderStage
from attributary.consumers.store.connection import connect
from attributary.consumers.store.spend.slices import store_slices
from attributary.schemas.topics import SPEND
from tests.factories.samples import codec
from tests.factories.spend_records import drawn, fold, line, record, report, stored

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

pytestmark = pytest.mark.postgres


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    with connect(database, application_name="tests-contract") as opened:
        yield opened


@pytest.fixture
def spender(database: str) -> Iterator[SpenderStage]:
    stage = SpenderStage(database, codec(), 1.0)
    yield stage
    stage.close()


@pytest.mark.parametrize("seed", range(8))
def test_the_stage_and_the_fold_agree_in_any_order_and_with_replays(
    spender: SpenderStage, connection: psycopg.Connection, seed: int
) -> None:
    chance = random.Random(seed)
    reports = drawn(chance, 24)
    arriving = [*reports, *(chance.choice(reports) for _ in range(8))]
    chance.shuffle(arriving)
    log = [record(offset, each) for offset, each in enumerate(arriving)]
    start = 0
    while start < len(log):
        end = start + chance.randrange(1, 9)
        assert spender.handle(log[start:end]).dead_letters == []
        # Now and then the offsets do not reach Kafka, and some records are read again.
        start = max(0, start - chance.randrange(5)) if chance.random() < 0.3 else end
    assert stored(connection) == fold(reports)
    assert spender.stored_positions([(SPEND, 0)]) == {(SPEND, 0): len(log)}
    revisions = connection.execute("SELECT count(*) FROM attribution_spend").fetchone()
    spender.handle(log)  # the whole log once more
    assert stored(connection) == fold(reports)
    assert connection.execute("SELECT count(*) FROM attribution_spend").fetchone() == revisions


@pytest.mark.parametrize("seed", range(4))
def test_written_straight_it_is_the_same_to_the_revision(
    spender: SpenderStage, connection: psycopg.Connection, seed: int
) -> None:
    reports = drawn(random.Random(100 + seed), 16)
    spender.handle([record(offset, each) for offset, each in enumerate(reports)])
    by_topic = revisions(connection)
    connection.execute("TRUNCATE attribution_spend, attribution_spend_slices")
    for each in reports:
        store_slices(connection, each["tenant_id"], [slice_of(codec().decode("spend", codec().encode("spend", each)))])
    assert revisions(connection) == by_topic
    assert len(by_topic) > 10


def revisions(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT tenant_id, day, entity, revision, net_micros, is_removed, reported_at_us, report_id "
        "FROM attribution_spend ORDER BY 1, 2, 3, 4"
    ).fetchall()


def test_a_slice_comes_back_from_its_record_as_it_was() -> None:
    ad = line("c1", 7, ad_set_id="s1", ad_id="name:Blue", claimed_conversions_micros=1_500_000, clicks=3, tax_micros=-2)
    spend = codec().decode("spend", codec().encode("spend", report(5, [ad], level="ad", time_zone="Europe/Berlin")))
    piece = slice_of(spend)
    assert piece.given.rows[0].entity == "name:c1/s1/name:Blue"
    again = record_of("acme", piece)
    assert {**again, "event_id": "s-5"} == spend
    assert record_of("acme", piece) == again  # the same content is the same id
    rows = [line(str(number), 1) for number in range(5)]
    parts = list(within_rows(slice_of(codec().decode("spend", codec().encode("spend", report(1, rows)))), 2))
    assert [len(part.given.rows) for part in parts] == [2, 2, 1]
    whole = codec().decode("spend", codec().encode("spend", report(1, rows, is_complete=True)))
    with pytest.raises(ValueError, match="google g1 has 5 rows on 2026-11-01, and a record of a complete report 2"):
        list(within_rows(slice_of(whole), 2))
