"""The spender on a real Postgres: what it puts aside and why, and what it counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from attributary.consumers.runtime.records import Record
from attributary.consumers.spender import metrics
from attributary.consumers.spender.stage import SpenderStage
from attributary.consumers.store.cells.moves import Move, store_move
from attributary.consumers.store.connection import connect
from attributary.schemas.topics import SPEND
from tests.factories.samples import codec
from tests.factories.spend_records import NOW_MS, fold, line, record, report, stored

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

pytestmark = pytest.mark.postgres


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    with connect(database, application_name="tests") as opened:
        yield opened


@pytest.fixture
def spender(database: str) -> Iterator[SpenderStage]:
    stage = SpenderStage(database, codec(), 1.0)
    yield stage
    stage.close()


def counted() -> dict[str, float]:
    return {name: metrics.spend_rows.labels(name)._value.get()
            for name in ("new", "changed", "unchanged", "removed", "late")}  # fmt: skip


def test_what_is_no_report_is_put_aside_with_the_reason_and_the_rest_is_stored(
    spender: SpenderStage, connection: psycopg.Connection
) -> None:
    good = report(1, [line("c1", 10)])
    batch = [
        record(0, report(1, [line("c1", 1)], level="keyword")),
        record(1, good),
        Record(SPEND, 0, 2, b"k", b"\xff", NOW_MS),
        Record(SPEND, 0, 3, b"k", None, NOW_MS),
        record(4, report(2, [line("c2", 5, campaign_name="half\0name")])),
        record(5, report(10**15, [line("c2", 5)])),
    ]
    letters = spender.handle(batch).dead_letters
    found = [(each.record.offset, each.stage, each.field) for each in letters]
    assert found[:1] == [(0, "validate", "level")]
    assert [each[:2] for each in found[1:3]] == [(2, "decode"), (3, "decode")]
    assert found[3:] == [(4, "validate", "rows"), (5, "validate", "reported_at")]
    assert letters[0].reason == "spend: level: must be one of account, campaign, ad_set, ad"
    assert letters[-1].reason == "spend: reported_at: must not be more than one day in the future (microseconds UTC)"
    assert not any("half" in each.reason for each in letters)
    assert stored(connection) == fold([good])
    assert spender.stored_positions([(SPEND, 0)]) == {(SPEND, 0): 6}


def test_rows_are_counted_by_what_came_of_them(spender: SpenderStage) -> None:
    before = counted()
    spender.handle([
        record(0, report(5, [line("c1", 10), line("c2", 20)], is_complete=True)),
        record(1, report(4, [line("c1", 9)])),  # older than what a complete report said
        record(2, report(6, [line("c1", 11)])),
        record(3, report(7, [line("c1", 11)], is_complete=True)),
    ])  # fmt: skip
    after = counted()
    assert {name: after[name] - before[name] for name in after} == {
        "new": 2, "changed": 1, "unchanged": 1, "removed": 1, "late": 1,
    }  # fmt: skip


def test_many_reports_of_one_batch_take_each_slice_in_the_order_of_the_log(
    spender: SpenderStage, connection: psycopg.Connection
) -> None:
    """Two reports of one time: the later record counts, as the later import does."""
    spender.handle([
        record(0, report(1, [line("c1", 1)])),
        record(1, report(1, [line("c1", 2)])),
        record(2, report(1, [line("c1", 3)], tenant_id="beta")),
        record(3, report(1, [line("c1", 4)])),
    ])  # fmt: skip
    rows = connection.execute("SELECT tenant_id, revision, net_micros FROM attribution_spend ORDER BY 1, 2").fetchall()
    assert rows == [("acme", 1, 1), ("acme", 2, 2), ("acme", 3, 4), ("beta", 1, 3)]


def test_spend_of_a_tenant_that_moved_is_relayed_and_then_a_dead_letter(
    spender: SpenderStage, connection: psycopg.Connection
) -> None:
    store_move(connection, Move("beta", "m1", "moved", "north.", {}, {(SPEND, 0): 1}))
    connection.commit()
    outcome = spender.handle([
        record(0, report(1, [line("c1", 1)], tenant_id="beta")),
        record(1, report(1, [line("c1", 2)], tenant_id="beta")),
        record(2, report(1, [line("c1", 3)])),
    ])  # fmt: skip
    [letter] = outcome.dead_letters
    assert (letter.record.offset, letter.field) == (1, "tenant_id")
    assert letter.reason.startswith("spend: tenant_id: must be published to the installation with the prefix north.")
    owners = connection.execute("SELECT DISTINCT tenant_id FROM attribution_spend").fetchall()
    assert [tenant for (tenant,) in owners] == ["acme"]
