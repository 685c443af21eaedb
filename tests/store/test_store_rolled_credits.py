"""A report over spend is the same from the roll-up and from the results one by one; of many people from a sample."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from attributary.attribution_core.spend.rates import Quote
from attributary.attribution_core.spend.slices import Given, SliceKey, SpendRow
from attributary.consumers.spend import returns
from attributary.consumers.spend.returns import ReturnQuery, ReturnRow, Returns, read_returns
from attributary.consumers.store.connection import connect
from attributary.consumers.store.results.results import RESULT_COLUMNS
from attributary.consumers.store.rollup.apply import prepare_rollup
from attributary.consumers.store.rollup.rebuild import rebuild_rollup
from attributary.consumers.store.spend import rolled_credits
from attributary.consumers.store.spend.fx_rates import store_rates
from attributary.consumers.store.spend.slices import Slice, store_slices
from attributary.schemas.topics import group_name
from tests.factories.report_results import BEGIN, DAY, HOUR, reported

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.postgres

FIRST, END = date(2026, 3, 1), date(2026, 3, 29)
QUERY = ReturnQuery(
    "acme", ("linear", "last"), (FIRST, END), (BEGIN, BEGIN + 28 * DAY), conversion_types=(), currency=None
)
CONVERSIONS = """
INSERT INTO attribution_conversions (
    tenant_id, conversion_id, conversion_type, identity_key, journey_key, converted_at_us, received_at_us,
    gross_value_micros, net_value_micros, previous_net_micros, currency, version, version_reason, is_final,
    policy_version, owner_topic, owner_partition, owner_offset, event_published_us
)
SELECT DISTINCT ON (conversion_id) tenant_id, conversion_id, conversion_type, journey_key, journey_key,
       converted_at_us, converted_at_us, gross_value_micros, net_value_micros, 0, currency, version, version_reason,
       is_final, policy_version, 't', 0, 0, converted_at_us
FROM attribution_results ORDER BY conversion_id, version DESC
"""


def results(conversions: int = 900) -> Iterator[dict[str, Any]]:
    """Journeys of 400 people over five platforms, in two currencies, some with a second version."""
    draw = random.Random(4)
    for number in range(conversions):
        befores = sorted((draw.randrange(1, 9 * DAY) for _ in range(draw.choice((0, 1, 2, 4)))), reverse=True)
        touches = [(draw.choice(("paid_search", "paid_social", "email")), f"c{draw.randrange(4)}", each)
                   for each in befores]  # fmt: skip
        at = BEGIN + draw.randrange(30 * DAY)
        more: dict[str, Any] = {"touches": touches, "at": at, "person": f"u:{draw.randrange(400)}",
                "currency": draw.choice(("EUR", "EUR", "USD"))}  # fmt: skip
        for version in (1, 2) if number % 3 == 0 else (1,):
            net = draw.randrange(1, 90) * 1_000_000
            row = reported(
                f"o{number}", version, net=net, computed_at=at + version * HOUR, is_final=version == 2, **more
            )
            touchpoints = json.loads(row["touchpoints"])
            for place, touch in enumerate(touchpoints):
                if touch["campaign"] in {"c0", "c1"}:  # the others have a name alone
                    touch["campaign_id"] = f"id-{touch['campaign']}"
                touch["event_id"] = f"o{number}-{place}"
            yield row | {"touchpoints": json.dumps(touchpoints)}


@pytest.fixture(scope="module")
def stored(module_database: str) -> Iterator[psycopg.Connection]:
    with connect(module_database, application_name="tests") as connection:
        columns = ", ".join([*RESULT_COLUMNS, "source_partition", "source_offset"])
        with connection.cursor().copy(f"COPY attribution_results ({columns}) FROM STDIN") as copy:
            for place, row in enumerate(results()):
                copy.write_row([*(row[name] for name in RESULT_COLUMNS), 0, place])
        connection.execute(CONVERSIONS)
        slices = [
            Slice(SliceKey(platform, "a1", FIRST + timedelta(days=day), "campaign"),
                  Given([spent(each, day) for each in range(3)], is_complete=True), "UTC")
            for platform in ("p_paid_search", "p_paid_social")
            for day in range(28)
        ]  # fmt: skip
        store_slices(connection, "acme", slices)
        rates = [Quote(FIRST + timedelta(days=day), "EUR", "USD", Decimal("1.1") + day) for day in range(31)]
        store_rates(connection, rates, "x")
        prepare_rollup(connection)
        rebuild_rollup(connection, "acme", (group_name("reporter"), group_name("auditor")))
        connection.commit()
        yield connection


def spent(campaign: int, day: int) -> SpendRow:
    name = f"c{campaign}"
    return SpendRow(f"id-{name}", "EUR", (day + 1) * 1_000_000, campaign_id=f"id-{name}", campaign_name=name)


def both(
    connection: psycopg.Connection, query: ReturnQuery, monkeypatch: pytest.MonkeyPatch
) -> tuple[Returns, Returns]:  # fmt: skip
    """The report from the roll-up, and from the results."""
    rolled = read_returns(connection, query)
    with monkeypatch.context() as patch:
        patch.setattr(returns, "rolled_credits", lambda *_: None)
        singly = read_returns(connection, query)
    connection.rollback()
    assert "from the roll-up" in rolled.notes[-1]
    assert not any("roll-up" in note for note in singly.notes)
    return rolled, singly


def by_key(rows: Sequence[ReturnRow]) -> dict[Any, ReturnRow]:
    """Rows that say something: those without spend and credit are of the results alone."""
    return {(each.key, each.bucket, each.model, each.currency): each for each in rows
            if each.spend or each.value or each.conversions > 1e-9}  # fmt: skip


@pytest.mark.parametrize("dating", ["accrual", "cash"])
@pytest.mark.parametrize("currency", [None, "EUR"])
@pytest.mark.parametrize(
    ("by", "bucket"), [("platform", ""), ("campaign", "week"), ("account", "day"), ("channel", "")]
)
def test_the_report_is_the_same_from_the_rollup_and_from_the_results(
    dating: Any, currency: str | None, by: Any, bucket: Any, stored: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = replace(QUERY, dating=dating, currency=currency, by=by, bucket=bucket)
    rolled, singly = both(stored, query, monkeypatch)
    for ours, theirs in ((by_key(rolled.rows), by_key(singly.rows)), (by_key(rolled.totals), by_key(singly.totals))):
        assert ours.keys() == theirs.keys()
        for key, row in ours.items():
            other = theirs[key]
            assert (row.spend, row.name, row.note) == (other.spend, other.name, other.note), key
            assert round(row.value, 12) == round(other.value, 12), key
            assert (row.conversions, row.new_conversions) == pytest.approx((other.conversions, other.new_conversions))
            for mine, its in ((row.roas, other.roas), (row.cpa, other.cpa), (row.cac, other.cac)):
                assert [part is None for part in mine] == [part is None for part in its], key
                assert [part or 0.0 for part in mine] == pytest.approx([part or 0.0 for part in its], rel=1e-4), key
    assert [each._replace(revenue=round(each.revenue, 12), ratio=None) for each in rolled.mer] == [
        each._replace(revenue=round(each.revenue, 12), ratio=None) for each in singly.mer
    ]


def test_of_many_people_a_sample_gives_the_intervals_and_sums_stay_exact(
    stored: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rolled_credits, "SAMPLED", 400)
    rolled, singly = both(stored, replace(QUERY, by="campaign"), monkeypatch)
    assert "sums are exact, intervals are by 4" in rolled.notes[-1]
    ours, theirs = by_key(rolled.rows), by_key(singly.rows)
    assert ours.keys() == theirs.keys()
    assert {key: row.value for key, row in ours.items()} == {key: row.value for key, row in theirs.items()}
    for mine, its in zip(rolled.totals, singly.totals, strict=True):
        for one, other in ((mine.roas, its.roas), (mine.cpa, its.cpa)):
            if other.low is not None and other.high is not None:
                assert one.low is not None
                assert one.high is not None
                assert one.high - one.low == pytest.approx(other.high - other.low, rel=0.25)


def test_what_the_rollup_cannot_say_comes_from_the_results(stored: psycopg.Connection) -> None:
    reads = {
        "another zone": replace(QUERY, zone="Europe/Berlin"),
        "an earlier state": replace(QUERY, as_of=datetime(2026, 3, 20, tzinfo=UTC)),
        "another tenant": replace(QUERY, tenant_id="other"),
    }
    for what, query in reads.items():
        assert not any("roll-up" in note for note in read_returns(stored, query).notes), what
    stored.execute(
        "INSERT INTO attribution_positions (consumer_group, topic, partition, next_offset) VALUES (%s, 'r', 0, 90000)",
        (group_name("auditor"),),
    )
    assert not any("roll-up" in note for note in read_returns(stored, QUERY).notes)
    stored.rollback()
