"""Every report from the roll-up is the one from the results, to the unit, whatever happened and in whatever order."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from attributary.attribution_core.domain.time_grammar import BEGINNING, END, parse_local
from attributary.consumers.reports.answer import Answer, PeriodError, ReportOptions, answer, document
from attributary.consumers.reports.catalog import BY_NAME
from attributary.consumers.reports.credit_answer import read_credit
from attributary.consumers.reports.origin import OnlyRollupError
from attributary.consumers.store.connection import connect
from attributary.consumers.store.results.credit_report import ReportQuery, read_report
from attributary.consumers.store.rollup.apply import apply_results, prepare_rollup, take_off_retired
from attributary.consumers.store.rollup.cells import RolledResult, cells_of
from attributary.consumers.store.rollup.differences import rollup_differences
from attributary.consumers.store.rollup.rebuild import rebuild_rollup
from attributary.consumers.store.rollup.rolled_up import MAX_BEHIND
from attributary.consumers.store.tenants import Tenant, store_tenant
from attributary.schemas.topics import RESULTS, group_name
from tests.factories.report_results import BEGIN, DAY, drawn_results
from tests.factories.stored_results import insert_results

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import psycopg

pytestmark = pytest.mark.postgres
ZONE = "Europe/Berlin"
GROUPS = (group_name("reporter"), group_name("auditor"))
NOW = BEGIN + 120 * DAY


def berlin(text: str) -> int:
    from zoneinfo import ZoneInfo

    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(ZONE)).timestamp()) * 1_000_000


PERIODS = {
    "all": (BEGINNING, END),
    "month": (berlin("2026-03-10"), berlin("2026-04-03")),  # the change to summer time is in it
    "since": (berlin("2026-03-29"), END),
}
SINCE = berlin("2026-04-04")


def rolled(row: dict[str, Any]) -> RolledResult:
    cells = cells_of(json.loads(row["touchpoints"]), json.loads(row["models"]), is_final=row["is_final"])
    return RolledResult(
        row["tenant_id"], row["conversion_id"], row["version"], row["version_reason"], row["conversion_type"],
        row["currency"], row["converted_at_us"], row["journey_key"], row["net_value_micros"], row["computed_at_us"],
        *cells,
    )  # fmt: skip


def apply(connection: psycopg.Connection, rows: Sequence[dict[str, Any]], gone: Sequence[str] = ()) -> None:
    apply_results(connection, [rolled(row) for row in rows], [("acme", each) for each in gone], now_us=NOW)


@pytest.fixture(scope="module")
def shop(module_database: str) -> str:
    """A shop with late touchpoints, refunds, restatements; folded in batches, two tenants mixed."""
    rows = [*drawn_results(600), *drawn_results(60, seed=4, tenant="other")]
    rows.sort(key=lambda row: (row["computed_at_us"], row["version"]))
    rows.sort(key=lambda row: row["version"])  # the versions of a conversion come in order
    with connect(module_database, application_name="tests") as connection:
        for tenant in ("acme", "other"):
            store_tenant(connection, Tenant(tenant, time_zone=ZONE))
        insert_results(connection, rows)
        prepare_rollup(connection)
        for start in range(0, len(rows), 97):
            apply(connection, rows[start : start + 97])
    return module_database


@pytest.fixture
def connection(shop: str) -> Iterator[psycopg.Connection]:
    """A connection with what a test does rolled back at its end."""
    with connect(shop, application_name="tests") as found:
        prepare_rollup(found)
        found.commit()
        yield found
        found.rollback()


def asked(connection: psycopg.Connection, name: str, source: Any = "rollup", period: Any = PERIODS["all"],
          **options: Any) -> Answer:  # fmt: skip
    options = {"limit": 0, "since": SINCE, "source": source, **options}
    return answer(connection, BY_NAME[name], "acme", period, END, NOW, ReportOptions(**options))


def assert_same(connection: psycopg.Connection, names: Sequence[str] = tuple(BY_NAME), **options: Any) -> None:
    for name in names:
        here, there = asked(connection, name, **options), asked(connection, name, "results", **options)
        assert (here.origin.source, there.origin.source) == ("rollup", "results")
        assert here.request == there.request
        assert list(here.totals) == list(there.totals)
        assert (here.table is None) == (there.table is None), name
        if here.table is not None and there.table is not None:
            assert_rows(name, here.table.rows, there.table.rows)
            assert here.table.finding == there.table.finding
            assert here.table.notes == there.table.notes


def assert_rows(name: str, here: Sequence[Any], there: Sequence[Any]) -> None:
    """Counts, amounts and names are equal; credits to the billionth a conversion, intervals to the millionth."""
    columns = BY_NAME[name].columns

    def ordered(rows: Sequence[Any]) -> list[Any]:  # credits that are equal may be ranked either way
        places = [place for place, column in enumerate(columns) if column.unit in {"name", "text", "date", "days"}]
        return sorted(rows, key=lambda row: [str(row[place]) for place in places])

    assert len(here) == len(there), name
    for mine, other in zip(ordered(here), ordered(there), strict=True):
        for column, cell, expected in zip(columns, mine, other, strict=True):
            if isinstance(expected, float):
                near = 2e-3 if column.name in {"low", "high"} else 2e-6
                assert cell == pytest.approx(expected, abs=near, rel=1e-6), (name, column.name, mine, other)
            else:
                assert cell == expected, (name, column.name, mine, other)


@pytest.mark.parametrize("period", PERIODS)
@pytest.mark.parametrize("by", ["channel", "platform", "campaign"])
def test_every_report_is_that_of_the_results(connection: psycopg.Connection, by: str, period: str) -> None:
    names = [name for name in BY_NAME if (name, by) != ("paths", "campaign")]
    assert_same(connection, names, by=by, period=PERIODS[period])


@pytest.mark.parametrize("options", [
    {"conversion_types": ("lead",)}, {"currency": "JPY"}, {"models": ("last", "baseline")}, {"models": ("first",)},
    {"limit": 3}, {"conversion_types": ("nosuch",), "currency": "EUR"},
])  # fmt: skip
def test_filters_cut_both_alike(connection: psycopg.Connection, options: dict[str, Any]) -> None:
    assert_same(connection, **options)


def test_after_erasures_and_retirements_nothing_is_left_of_them(connection: psycopg.Connection) -> None:
    gone, retired = [f"o{number}" for number in range(0, 600, 7)], [f"o{number}" for number in range(3, 600, 7)]
    apply(connection, [], gone[:40])
    apply(connection, [], gone[40:])
    take_off_retired(connection, "acme", retired, NOW)
    connection.execute(
        "DELETE FROM attribution_results WHERE tenant_id = 'acme' AND conversion_id = ANY (%s)", (gone + retired,)
    )
    names = [name for name in BY_NAME if name != "restatements"]
    for period in PERIODS.values():
        assert_same(connection, names, period=period)
    # What stood before stays as it was reported, and the reasons say what became of it.
    rows = asked(connection, "restatements").table
    assert rows is not None
    reasons = {row[1] for row in rows.rows}
    assert {"erasure", "retirement"} <= reasons
    stands = {row[0]: row[4] for row in rows.rows if row[1] == "now" and row[4]}
    raw = asked(connection, "restatements", "results").table
    assert raw is not None
    assert stands == {row[0]: row[4] for row in raw.rows if row[1] == "now" and row[4]}


def test_in_any_order_of_versions_and_batches_the_reports_are_the_same(connection: psycopg.Connection) -> None:
    draw = random.Random(8)
    rows = drawn_results(250, seed=11)
    rows += draw.sample(rows, 100)
    draw.shuffle(rows)
    connection.execute("DELETE FROM attribution_results WHERE tenant_id = 'acme'")
    for table in ("conversions", "days", "names", "counts", "restatements"):
        connection.execute(f"DELETE FROM attribution_rollup_{table} WHERE tenant_id = 'acme'".encode())
    insert_results(connection, drawn_results(250, seed=11))
    while rows:
        size = draw.randint(1, 60)
        apply(connection, rows[:size])
        rows = rows[size:]
    assert_same(connection, [name for name in BY_NAME if name != "restatements"])  # changes are in the log's order
    assert list(rollup_differences(connection, GROUPS)) == []


def test_a_rebuild_counts_the_same_and_a_wrong_count_is_found(connection: psycopg.Connection) -> None:
    assert list(rollup_differences(connection, GROUPS)) == []
    connection.execute("UPDATE attribution_rollup_counts SET conversions[1] = conversions[1] + 1 WHERE kind = 'length'")
    connection.execute("DELETE FROM attribution_rollup_counts WHERE kind = 'cohort' AND number = 1")
    connection.execute("UPDATE attribution_rollup_restatements SET value_micros[1] = value_micros[1] + 1")
    wrong = {difference.what for difference in rollup_differences(connection, GROUPS)}
    assert {"roll-up, cohorts", "roll-up, changes of names"} <= wrong
    assert any(what.startswith("roll-up of length, ") for what in wrong)
    for tenant in ("acme", "other"):
        rebuild_rollup(connection, tenant, GROUPS)
    assert list(rollup_differences(connection, GROUPS)) == []
    assert_same(connection)


def test_what_the_rollup_cannot_answer_is_read_from_the_results_and_says_why(connection: psycopg.Connection) -> None:
    noon = berlin("2026-03-10T12:00")
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("days", {"period": (noon, END)}, "begins or ends between two midnights of Europe/Berlin"),
        ("days", {"period": (berlin("2026-03-10"), noon)}, "begins or ends between two midnights"),
        ("days", {"time_zone": "UTC"}, "the roll-up has days of Europe/Berlin, the report of UTC"),
        ("paths", {"by": "campaign"}, "no paths of campaigns"),
        ("restatements", {"since": noon}, "the moment of the changes is between two midnights"),
    ]
    for name, options, reason in cases:
        found = asked(connection, name, "any", **options)
        assert found.origin.source == "results"
        assert reason in found.origin.reason
        assert f"From the results one by one, because {found.origin.reason}." in found.notes
        with pytest.raises(OnlyRollupError, match=reason[:20]):
            asked(connection, name, "rollup", **options)
    then = answer(connection, BY_NAME["days"], "acme", PERIODS["all"], BEGIN + 20 * DAY, NOW, ReportOptions())
    assert "no earlier state" in then.origin.reason
    assert answer(
        connection, BY_NAME["days"], "nobody", PERIODS["all"], END, NOW, ReportOptions()
    ).origin.reason.startswith("the tenant has no roll-up")


def test_what_people_type_is_whole_days_of_the_tenant_and_comes_from_the_rollup(connection: psycopg.Connection) -> None:
    now = berlin("2026-04-20T09:30")
    for since, until, expected in (
        ("30d", "end", (berlin("2026-03-21"), END)),
        ("2026-03-10", "2026-04-03", PERIODS["month"]),
        ("2w", "yesterday", (berlin("2026-04-06"), berlin("2026-04-19"))),
    ):
        period = parse_local(since, now), parse_local(until, now)
        options = ReportOptions(since=parse_local("2026-04-04", now))
        found = answer(connection, BY_NAME["restatements"], "acme", period, END, now, options)
        assert found.request.period_us == expected
        assert found.request.since_us == SINCE
        assert found.origin.source == "rollup"
    empty = parse_local("today", now), parse_local("2026-04-20", now)
    with pytest.raises(PeriodError, match="days begin in Europe/Berlin"):
        answer(connection, BY_NAME["days"], "acme", empty, END, now, ReportOptions())


def test_a_rollup_that_is_behind_says_so_and_one_that_is_far_behind_is_not_used(
    connection: psycopg.Connection,
) -> None:
    for group, offset in ((GROUPS[0], 100), (GROUPS[1], 107)):
        connection.execute(
            "INSERT INTO attribution_positions (tenant_id, consumer_group, topic, partition, next_offset) "
            "VALUES ('*', %s, %s, 0, %s)",
            (group, RESULTS, offset),
        )
    found = document(asked(connection, "days", "any"))
    assert found["source"]["from"] == "rollup"
    assert found["source"]["results_behind"] == 7
    assert (
        found["notes"][-1]
        == f"From the roll-up, complete to {found['source']['complete_to']}, 7 results behind at most."
    )
    connection.execute("UPDATE attribution_positions SET next_offset = %s WHERE consumer_group = %s",
                       (101 + MAX_BEHIND, GROUPS[1]))  # fmt: skip
    assert "results behind" in asked(connection, "days", "any").origin.reason
    connection.execute("UPDATE attribution_positions SET next_offset = 100")
    connection.execute("UPDATE attribution_rollup_state SET is_counted = false")
    assert "rebuild --rollup" in asked(connection, "days", "any").origin.reason


def test_data_quality_looks_at_so_many_rows_and_says_so(
    connection: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.execute(
        "INSERT INTO attribution_conversions (tenant_id, conversion_id, conversion_type, identity_key, journey_key, "
        "converted_at_us, received_at_us, gross_value_micros, net_value_micros, previous_net_micros, currency, "
        "version, version_reason, policy_version, owner_topic, owner_partition, owner_offset, event_published_us) "
        "SELECT 'acme', 'q' || n, 'purchase', 'u:' || n, 'u:' || n, %s, %s, 0, 0, 0, 'XXX', 1, 'new', 'p', 't', "
        "0, n, 0 FROM generate_series(1, 30) AS n",
        (BEGIN, BEGIN),
    )
    monkeypatch.setattr("attributary.consumers.store.rollup.rolled_up.MAX_CHECKED", 20)
    found = asked(connection, "quality")
    assert found.table is not None
    assert {row[0]: row[1:3] for row in found.table.rows}["conversions without a currency"] == (20, 20)
    assert "the first 20 that were found were checked; there are more." in found.notes[1]
    whole = asked(connection, "quality", "results")
    assert whole.table is not None
    assert {row[0]: row[1:3] for row in whole.table.rows}["conversions without a currency"] == (30, 30)
    assert len(whole.notes) == 1


def test_a_week_ago_is_a_midnight_of_the_tenant(connection: psycopg.Connection) -> None:
    found = answer(connection, BY_NAME["restatements"], "acme", PERIODS["all"], END, NOW, ReportOptions())
    assert found.origin.source == "rollup"
    day = datetime.fromtimestamp(found.request.since_us / 1e6, UTC)
    assert (day.hour, day.minute) == (22, 0)  # midnight in summer time


@pytest.mark.parametrize("by", [
    ("channel",), ("campaign", "month"), ("platform", "week", "currency"), ("day", "conversion_type"), ("currency",),
])  # fmt: skip
@pytest.mark.parametrize("period", PERIODS)
def test_credit_by_dimensions_is_that_of_the_results(
    connection: psycopg.Connection, by: tuple[str, ...], period: str
) -> None:
    query = ReportQuery("acme", ("last", "first", "baseline"), by, PERIODS[period], END, zone=ZONE)
    rolled, origin = read_credit(connection, query)
    singly = read_report(connection, query)
    assert (origin.source, origin.reason) == ("rollup", "")
    assert list(rolled.totals) == list(singly.totals)
    assert set(rolled.uses) == set(singly.uses)
    ours, theirs = ({(row.currency, row.keys, row.model, row.bucket): row for row in report.rows}
                    for report in (rolled, singly))  # fmt: skip
    assert ours.keys() == theirs.keys()
    for key, row in ours.items():
        other = theirs[key]
        assert (row.value_micros, row.journeys, row.is_touch) == (other.value_micros, other.journeys, other.is_touch), (
            key
        )
        assert row.conversions == pytest.approx(other.conversions, abs=1e-6)
        assert row.share == pytest.approx(other.share, abs=1e-5)


@pytest.mark.parametrize(("change", "reason"), [
    ({"by": ("channel", "platform")}, "one of channel, platform and campaign at a time"),
    ({"by": ("source",)}, "no source and medium"),
    ({"as_of_us": BEGIN + 30 * DAY}, "no earlier state"),
    ({"period_us": (BEGIN + 1, END)}, "between two midnights of Europe/Berlin"),
    ({"zone": "UTC"}, "days of Europe/Berlin, the report of UTC"),
    ({"tenant_id": "nobody"}, "no roll-up"),
])  # fmt: skip
def test_credit_that_the_roll_up_cannot_answer_says_why(
    connection: psycopg.Connection, change: dict[str, Any], reason: str
) -> None:
    query = ReportQuery("acme", ("last",), ("channel",), PERIODS["all"], END, zone=ZONE)
    report, origin = read_credit(connection, replace(query, **change))
    assert origin.source == "results"
    assert reason in origin.reason
    assert report == read_report(connection, replace(query, **change))
