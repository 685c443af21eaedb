"""A record that passes every rule and that Postgres refuses all the same: it alone becomes a dead letter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from attributary.attribution_core.domain.lookback import DEFAULT_POLICY, LookbackPolicy
from attributary.consumers.adapters.quarantine import MAX_REJECTED, bisect_rejected
from attributary.consumers.runtime.errors import Fatal
from attributary.consumers.runtime.records import DeadLetter, Record
from attributary.consumers.stitcher.stage import StitcherStage
from attributary.consumers.store.connection import connect
from tests.factories.samples import codec, records, sale, touch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SECRET = "very-long-secret-platform"


@pytest.fixture
def stage(database: str) -> Iterator[StitcherStage]:
    found = StitcherStage(database, codec(), LookbackPolicy.parse(DEFAULT_POLICY), 0.5)
    yield found
    found.close()


def change(database: str, statement: str) -> None:
    with connect(database, application_name="tests") as connection:
        connection.execute(statement)


def refuse_long_platforms(database: str, longest: int) -> None:
    """As a column of that length would, with a message that quotes the value."""
    change(
        database,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE EXCEPTION 'value % too long', NEW.platform USING ERRCODE = '22001'; END $$; "
        "CREATE TRIGGER refuse BEFORE INSERT ON attribution_touchpoints FOR EACH ROW "
        f"WHEN (length(NEW.platform) > {longest}) EXECUTE FUNCTION refuse()",
    )


def stored(database: str, table: str) -> list[str]:
    with connect(database, application_name="tests") as connection:
        rows = connection.execute(f"SELECT event_id FROM attribution_{table} ORDER BY 1").fetchall()
    return [event_id for (event_id,) in rows]


def told(letters: Sequence[DeadLetter]) -> list[tuple[int, str, str | None, str]]:
    return [(letter.record.offset, letter.stage, letter.field, letter.reason) for letter in letters]


@pytest.mark.postgres
def test_a_value_that_a_column_cannot_hold(stage: StitcherStage, database: str) -> None:
    refuse_long_platforms(database, 20)
    batch = records([touch(f"t{n:02}", n, platform=SECRET if n in {3, 11} else "meta") for n in range(16)])
    outcome = stage.handle(batch)
    rule = "a value must not be longer than the database allows"
    assert told(outcome.dead_letters) == [(3, "store", None, rule), (11, "store", None, rule)]
    assert stored(database, "touchpoints") == [f"t{n:02}" for n in range(16) if n not in {3, 11}]
    again = stage.handle(batch)  # the crash came before the dead letters were sent
    assert told(again.dead_letters) == told(outcome.dead_letters)


@pytest.mark.postgres
def test_a_record_that_is_refused_only_for_what_it_meets_there(stage: StitcherStage, database: str) -> None:
    """Each refund fits; the one that makes the net value too small for the column does not. Found after the inserts."""
    change(database, "CREATE INDEX ON attribution_conversions ((net_value_micros::int4))")
    refunds = [sale(f"r{n}", 2 + n, value=10**9, conversion_id="c1", kind="refund") for n in range(6)]
    batch = records([touch("t1"), sale("c1", 1, value=10**9), *refunds, sale("c2", 9)])
    outcome = stage.handle(batch)
    # 10^9 less four times 10^9 does not fit into 32 bits; nor would a fifth and a sixth.
    assert [letter.record.offset for letter in outcome.dead_letters] == [5, 6, 7]
    assert {letter.reason for letter in outcome.dead_letters} == {"a value must be a number that the database can hold"}
    assert stored(database, "conversion_events") == ["c1", "c2", "r0", "r1", "r2"]
    assert stored(database, "touchpoints") == ["t1"]


@pytest.mark.postgres
def test_a_value_that_is_too_large_to_index(stage: StitcherStage, database: str) -> None:
    change(database, "CREATE INDEX ON attribution_touchpoints ((details::text))")
    noise = "".join(chr(0x4E00 + (n * 7919) % 20_000) for n in range(4_000))
    outcome = stage.handle(records([touch("t1"), touch("t2", landing_url=f"https://shop.test/{noise}"), touch("t3")]))
    assert told(outcome.dead_letters) == [
        (1, "store", None, "a value must not be larger than the database can index or hold")
    ]
    assert stored(database, "touchpoints") == ["t1", "t3"]


@pytest.mark.postgres
def test_the_field_is_named_where_postgres_names_the_column(stage: StitcherStage) -> None:
    stage._session.connection().execute("ALTER TABLE pg_temp.stg_touch ALTER occurred_at_us TYPE integer")
    (letter,) = stage.handle(records([touch("t1")])).dead_letters
    assert letter.reason.startswith("occurred_at: must be something that the database can hold (SQLSTATE 22P03)")


@pytest.mark.postgres
def test_refusals_of_the_tables_own_stop_the_stage(stage: StitcherStage, database: str) -> None:
    refuse_long_platforms(database, 2)
    with pytest.raises(Fatal, match=rf"refuses more than {MAX_REJECTED} of 120 records; nothing was written") as error:
        stage.handle(records([touch(f"t{n}", n / 10) for n in range(120)]))
    assert "email" not in str(error.value)
    assert stored(database, "touchpoints") == []


def test_sifting_tries_few_times_and_keeps_the_order() -> None:
    batch = [Record("t", 0, n, None, None, 0) for n in range(1_000)]
    tries: list[int] = []

    def trial(part: Sequence[Record]) -> Exception | None:
        offsets = [record.offset for record in part]
        assert offsets == sorted(offsets)
        tries.append(len(part))
        return ValueError() if {17, 900} & set(offsets) else None

    assert [letter.record.offset for letter in bisect_rejected(batch, trial)] == [17, 900]
    assert len(tries) < 50


def test_the_reason_holds_no_value(stage: StitcherStage, database: str) -> None:
    refuse_long_platforms(database, 20)
    (letter,) = stage.handle(records([touch("t", platform=SECRET)])).dead_letters
    everything: list[Any] = [letter.reason, letter.field]
    assert SECRET not in str(everything)
