"""Spend in Postgres: revisions, which level counts, as-of, and imports at the same time."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attributary.attribution_core.spend.campaigns import Campaign
from attributary.attribution_core.spend.slices import LEVELS, Given, SliceKey, SpendRow
from attributary.consumers.store.connection import connect
from attributary.consumers.store.spend.campaigns import (
    NOT_BROKEN_DOWN,
    Alias,
    aliases,
    all_names,
    drop_alias,
    level_conflicts,
    newest_names,
    set_alias,
    set_as_of,
    spend_by_day,
)
from attributary.consumers.store.spend.slices import Slice, accounts, stale_accounts, store_slices

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.postgres

DAY = date(2026, 11, 2)
END = date(2026, 11, 3)


@pytest.fixture(scope="module")
def module_connection(module_database: str) -> Iterator[psycopg.Connection]:
    with connect(module_database, application_name="tests") as connection:
        yield connection


@pytest.fixture
def connection(module_connection: psycopg.Connection) -> Iterator[psycopg.Connection]:
    yield module_connection
    module_connection.rollback()


def row(level: str, campaign: str, ad: str, micros: int, name: str = "") -> SpendRow:
    entity = {"account": "a1", "campaign": campaign, "ad_set": f"s-{campaign}", "ad": ad}[level]
    if level == "account":
        return SpendRow(entity, "EUR", micros)
    return SpendRow(
        entity, "EUR", micros, campaign_id=campaign, campaign_name=name or campaign.upper(),
        ad_set_id="" if level == "campaign" else f"s-{campaign}", ad_id=ad if level == "ad" else "",
    )  # fmt: skip


def piece(
    level: str, *rows: SpendRow, is_complete: bool = False, day: date = DAY, zone: str = "", at: int = 0
) -> Slice:
    return Slice(SliceKey("google", "a1", day, level), Given(rows, is_complete, at), zone, "report")


def store(connection: psycopg.Connection, *slices: Slice) -> tuple[int, ...]:
    return tuple(store_slices(connection, "acme", slices))


def counted(connection: psycopg.Connection) -> dict[str, Decimal]:
    found: dict[str, Decimal] = defaultdict(Decimal)
    for each in spend_by_day(connection, "acme", DAY, END):
        found[each.campaign.campaign_id] += each.net
    return dict(found)


def test_revisions_are_added_only_where_something_changed(connection: psycopg.Connection) -> None:
    first = piece("campaign", row("campaign", "c1", "", 10), row("campaign", "c2", "", 20), is_complete=True)
    assert store(connection, first) == (2, 0, 0, 0, 0)
    assert store(connection, first) == (0, 0, 2, 0, 0)
    assert store(connection, piece("campaign", first.given.rows[0], is_complete=True)) == (0, 0, 1, 1, 0)
    assert store(connection, piece("campaign", row("campaign", "c1", "", 15))) == (0, 1, 0, 0, 0)
    rows = connection.execute(
        "SELECT entity, revision, net_micros, is_removed FROM attribution_spend ORDER BY entity, revision"
    ).fetchall()
    assert rows == [("c1", 1, 10, False), ("c1", 3, 15, False), ("c2", 1, 20, False), ("c2", 2, 0, True)]
    with pytest.raises(psycopg.errors.RaiseException, match="only added"):
        connection.execute("UPDATE attribution_spend SET net_micros = 1")


def test_the_finest_complete_level_counts_and_the_rest_is_not_broken_down(connection: psycopg.Connection) -> None:
    campaigns = [row("campaign", "c1", "", 60_000_000), row("campaign", "c2", "", 40_000_000)]
    store(
        connection,
        piece("account", row("account", "", "", 110_000_000), is_complete=True),
        piece("campaign", *campaigns, is_complete=True),
    )
    assert counted(connection) == {"c1": 60, "c2": 40, NOT_BROKEN_DOWN: 10}
    ads = [row("ad", "c1", "x", 30_000_000), row("ad", "c1", "y", 25_000_000)]
    store(connection, piece("ad", *ads))  # not complete: what it lacks is not known to be 0
    assert counted(connection) == {"c1": 60, "c2": 40, NOT_BROKEN_DOWN: 10}
    store(connection, piece("ad", *ads, is_complete=True))
    shown = connection.execute(
        "SELECT campaign_id, ad_id, is_rest, spend FROM reporting.spend ORDER BY campaign_id, ad_id"
    ).fetchall()
    assert shown == [
        (NOT_BROKEN_DOWN, NOT_BROKEN_DOWN, True, 10), ("c1", NOT_BROKEN_DOWN, True, 5), ("c1", "x", False, 30),
        ("c1", "y", False, 25), ("c2", NOT_BROKEN_DOWN, True, 40),
    ]  # fmt: skip
    assert level_conflicts(connection, "acme", DAY, END) == []
    store(connection, piece("ad", row("ad", "c1", "x", 50_000_000), ads[1]))  # more than the campaign: ads count
    assert counted(connection) == {"c1": 75, "c2": 40}
    assert level_conflicts(connection, "acme", DAY, END) == [(Campaign("google", "a1", "c1"), "EUR", 1, 15_000_000)]


AMOUNTS = st.integers(-3, 40)
LEVEL_ROWS = st.fixed_dictionaries(
    {},
    optional={
        "account": st.tuples(st.dictionaries(st.just("a1"), AMOUNTS, min_size=1), st.booleans()),
        "campaign": st.tuples(st.dictionaries(st.sampled_from(["c1", "c2"]), AMOUNTS, min_size=1), st.booleans()),
        "ad": st.tuples(st.dictionaries(st.sampled_from(["c1.x", "c1.y", "c2.z"]), AMOUNTS, min_size=1), st.booleans()),
    },
)


def expected(levels: dict[str, tuple[dict[str, int], bool]]) -> dict[str, int]:
    """What counts, by plain loops, in millions of micros."""
    if not levels:
        return {}
    complete = [level for level in LEVELS if level in levels and levels[level][1]]
    base = (complete or [level for level in LEVELS if level in levels])[-1]
    found: dict[str, int] = defaultdict(int)
    for entity, amount in levels[base][0].items():
        found["" if base == "account" else entity.partition(".")[0]] += amount
    if base == "ad":
        fine = dict(found)
        campaigns = levels.get("campaign", ({}, False))[0]
        found |= {campaign: amount for campaign, amount in campaigns.items() if amount > fine.get(campaign, 0)}
    if base != "account" and "account" in levels:
        rest = levels["account"][0]["a1"] - sum(found.values())
        if rest > 0:
            found[NOT_BROKEN_DOWN] = rest
    return dict(found)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(levels=LEVEL_ROWS)
def test_whatever_levels_there_are_the_view_counts_as_plain_loops_do(
    levels: dict[str, tuple[dict[str, int], bool]], connection: psycopg.Connection
) -> None:
    connection.rollback()
    for level, (amounts, is_complete) in levels.items():
        rows = [row(level, key.partition(".")[0], key, amount * 1_000_000) for key, amount in amounts.items()]
        store(connection, piece(level, *rows, is_complete=is_complete))
    assert counted(connection) == expected(levels)


def test_spend_can_be_seen_as_it_was_imported_by_a_moment(connection: psycopg.Connection) -> None:
    store(connection, piece("campaign", row("campaign", "c1", "", 10_000_000)))
    then = connection.execute("SELECT clock_timestamp()").fetchall()[0][0]
    store(connection, piece("campaign", row("campaign", "c1", "", 12_000_000), is_complete=True))
    assert counted(connection) == {"c1": 12}
    for _ in range(2):
        set_as_of(connection, then)
        assert counted(connection) == {"c1": 10}
    set_as_of(connection, datetime(2020, 1, 1, tzinfo=UTC))
    assert counted(connection) == {}
    set_as_of(connection, None)
    assert counted(connection) == {"c1": 12}


def test_names_are_labels_with_days(connection: psycopg.Connection) -> None:
    store(connection, piece("campaign", row("campaign", "c1", "", 1, "Old"), day=date(2026, 11, 1)),
          piece("campaign", row("campaign", "c1", "", 1, "New")))  # fmt: skip
    key = Campaign("google", "a1", "c1")
    assert {name: sorted(names) for name, names in all_names(connection, "acme").items()} == {key: ["New", "Old"]}
    assert newest_names(connection, "acme") == {key: "New"}
    assert all_names(connection, "other") == {}
    assert connection.execute("SELECT campaign_name, first_day FROM reporting.campaigns ORDER BY 1").fetchall() == [
        ("New", DAY), ("Old", date(2026, 11, 1)),
    ]  # fmt: skip


def test_aliases_replace_each_other_and_are_noted(connection: psycopg.Connection) -> None:
    alias = Alias("google", "name", "brand_old", "a1", "c1")
    set_alias(connection, "acme", alias)
    set_alias(connection, "acme", alias._replace(campaign_id="c2"))
    assert aliases(connection, "acme") == [alias._replace(campaign_id="c2")]
    assert drop_alias(connection, "acme", "google", "name", "brand_old")
    assert not drop_alias(connection, "acme", "google", "name", "brand_old")
    actions = [row[0] for row in connection.execute("SELECT action FROM attribution_audit ORDER BY 1").fetchall()]
    assert actions == ["spend_alias.removed", "spend_alias.set", "spend_alias.set"]


def test_accounts_say_how_fresh_they_are(connection: psycopg.Connection) -> None:
    store(connection, piece("campaign", row("campaign", "c1", "", 1), zone="Europe/Berlin", is_complete=True),
          piece("account", row("account", "", "", 1), day=date(2026, 11, 1)))  # fmt: skip
    found = accounts(connection, "acme")
    assert [(each.level, each.days, each.complete_days, each.time_zone) for each in found] == [
        ("account", 1, 0, ""), ("campaign", 1, 1, "Europe/Berlin"),
    ]  # fmt: skip
    assert stale_accounts(connection, 30, 3) in {0, 1}  # by the clock of the machine
    connection.execute("UPDATE attribution_spend_slices SET day = day - 365")
    assert stale_accounts(connection, 30, 3) == 1
    connection.execute("UPDATE attribution_spend_slices SET imported_at = now() - interval '31 days'")
    assert stale_accounts(connection, 30, 3) == 0


def labels(connection: psycopg.Connection) -> tuple[str, str]:
    [found] = connection.execute("SELECT time_zone, report_id FROM attribution_spend_slices").fetchall()
    return found[0], found[1]


@pytest.mark.parametrize("is_complete", [True, False])
def test_a_late_report_does_not_rename_what_a_newer_one_left(
    connection: psycopg.Connection, *, is_complete: bool
) -> None:
    newer = piece("campaign", row("campaign", "c1", "", 10), is_complete=is_complete, zone="Europe/Berlin", at=20)
    store(connection, newer)
    late = piece("campaign", row("campaign", "c1", "", 9), is_complete=is_complete, zone="America/New_York", at=10)
    assert store(connection, replace(late, report_id="late")) == (0, 0, 0, 0, 1)
    assert labels(connection) == ("Europe/Berlin", "report")
    newest = piece("campaign", row("campaign", "c1", "", 10), is_complete=is_complete, at=30)
    store(connection, replace(newest, report_id="newest"))
    assert labels(connection) == ("Europe/Berlin", "newest")  # it does not say the zone, so the known one stays


def test_a_late_report_may_say_a_zone_that_nobody_knew(connection: psycopg.Connection) -> None:
    store(connection, piece("campaign", row("campaign", "c1", "", 10), at=20))
    store(connection, piece("campaign", row("campaign", "c1", "", 9), zone="Europe/Berlin", at=10))
    assert labels(connection) == ("Europe/Berlin", "report")


def test_a_report_that_confirms_a_row_leaves_older_revisions_their_time(connection: psycopg.Connection) -> None:
    for at, micros in ((10, 1), (20, 2), (30, 2)):
        store(connection, piece("campaign", row("campaign", "c1", "", micros), at=at))
    rows = connection.execute("SELECT net_micros, reported_at_us FROM attribution_spend ORDER BY revision").fetchall()
    assert rows == [(1, 10), (2, 30)]


def test_imports_at_the_same_time_take_turns(database: str) -> None:
    """Both read and write the same slice: each must see what the other left, so the revisions count up."""

    def run(number: int) -> None:
        with connect(database, application_name="tests") as connection:
            for turn in range(5):
                store(connection, piece("campaign", row("campaign", "c1", "", number * 10 + turn)))
                connection.commit()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with connect(database, application_name="tests") as connection:
        [(count, last)] = connection.execute("SELECT count(*), max(revision) FROM attribution_spend").fetchall()
        assert (count, last) == (20, 20)
