"""The catalogue over stored results: sums that hold, days in every zone, tenants apart; as commands and over HTTP."""

from __future__ import annotations

import csv
import io
import json
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from attributary.attribution_core.domain.time_grammar import BEGINNING, END
from attributary.cli.main import app
from attributary.consumers.reports.answer import Answer, ReportOptions, UnknownNameError, answer, document
from attributary.consumers.reports.catalog import BY_NAME, REPORTS
from attributary.consumers.store.connection import connect
from attributary.consumers.store.removed_totals import Removed, add_removed
from attributary.consumers.store.tenants import Tenant, store_tenant
from tests.factories.report_results import BEGIN, CHANNELS, DAY, HOUR, drawn_results, reported
from tests.factories.stored_results import insert_results

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg
    from typer.testing import Result

pytestmark = pytest.mark.postgres
NOW = BEGIN + 60 * DAY
ALL = (BEGINNING, END)
THEN = ("--as-of", "2026-04-15")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "reports.md"


def micros(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


@pytest.fixture(scope="module")
def shop(module_database: str) -> str:
    with connect(module_database, application_name="tests") as connection:
        insert_results(connection, drawn_results(500))
        insert_results(connection, drawn_results(60, seed=3, tenant="other"))
        hours = [
            reported(f"h{hour}", touches=[("email", "", HOUR)], net=1_000_000, at=begin + hour * HOUR, tenant="clock")
            for begin in (micros("2026-03-28"), micros("2026-10-24"), micros("2026-12-30"))
            for hour in range(96)
        ]
        for number, each in enumerate(hours):
            each["conversion_id"] = f"h{number}"
        insert_results(connection, [*hours, reported("night", at=micros("2026-03-29T22:30"), tenant="night")])
        for tenant in ("acme", "other", "clock", "night"):
            store_tenant(connection, Tenant(tenant))
        gone = Removed("acme", datetime(2026, 3, 5, tzinfo=UTC).date(), "purchase", "EUR", 3, 40_000_000, 30_000_000)
        add_removed(connection, "(erased)", [gone])
    return module_database


@pytest.fixture
def connection(shop: str) -> Iterator[psycopg.Connection]:
    with connect(shop, application_name="tests") as found:
        yield found


def asked(
    connection: psycopg.Connection,
    name: str,
    tenant: str = "acme",
    as_of: int = END,
    period: Any = ALL,
    **options: Any,
) -> Answer:
    return answer(connection, BY_NAME[name], tenant, period, as_of, NOW, ReportOptions(**{"limit": 0, **options}))


def rows_of(found: Answer) -> list[Any]:
    assert found.table is not None
    return list(found.table.rows)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kathmandu", "Pacific/Marquesas", "America/St_Johns"])
def test_no_conversion_is_lost_or_doubled_at_a_change_of_the_clock(connection: psycopg.Connection, zone: str) -> None:
    rows = rows_of(asked(connection, "days", "clock", time_zone=zone))
    assert sum(row[1] for row in rows) == 3 * 96
    assert sum(row[5] for row in rows) == sum(row[7] for row in rows) == 3 * 96_000_000
    if zone == "Europe/Berlin":
        count = {row[0]: row[1] for row in rows}
        assert (count["2026-03-29"], count["2026-10-25"], count["2026-12-31"]) == (23, 25, 24)


@pytest.mark.parametrize(
    ("zone", "day"),
    [("Europe/Berlin", "2026-03-30"), ("Asia/Kathmandu", "2026-03-30"), ("America/Los_Angeles", "2026-03-29")],
)
def test_the_day_is_that_of_the_zone(connection: psycopg.Connection, zone: str, day: str) -> None:
    assert [row[0] for row in rows_of(asked(connection, "days", "night", time_zone=zone))] == [day]


def test_the_tenants_own_zone_is_the_usual_one(shop: str) -> None:
    with connect(shop, application_name="tests") as connection:
        store_tenant(connection, Tenant("night", time_zone="Asia/Kathmandu"))
        assert rows_of(asked(connection, "days", "night"))[0][0] == "2026-03-30"
        connection.rollback()


@pytest.mark.parametrize("by", ["channel", "platform", "campaign"])
@pytest.mark.parametrize("limit", [1, 3, 0])
def test_sums_do_not_depend_on_the_limit(connection: psycopg.Connection, by: str, limit: int) -> None:
    whole = asked(connection, "models", by=by)
    short = asked(connection, "models", by=by, limit=limit)
    for model in whole.request.models:
        for found in (whole, short):
            mine = [row for row in rows_of(found) if row[1] == model]
            assert sum(row[5] for row in mine) == found.total.net_micros
            assert sum(row[2] for row in mine) == pytest.approx(found.total.conversions)
    for name in ("paths", "positions", "restatements", "cohorts", "assists", "path-lengths", "lag", "days"):
        columns = BY_NAME[name].columns
        sums = [
            [sum(row[place] or 0 for row in rows_of(asked(connection, name, by=by, limit=most))) for most in (0, limit)]
            for place, column in enumerate(columns)
            if column.is_additive
        ]
        for long, few in sums:
            assert few == pytest.approx(long), name


def test_early_mid_and_late_are_the_credit_of_the_models_report(connection: psycopg.Connection) -> None:
    for model in ("linear", "last", "baseline"):
        credit = {row[0]: row[5] for row in rows_of(asked(connection, "models", models=(model,)))}
        for row in rows_of(asked(connection, "positions", models=(model,))):
            assert sum(row[5:8]) == credit[row[0]]
            assert sum(row[1:4]) == pytest.approx(row[4])


def test_what_stood_is_what_was_reported_at_twenty_moments(connection: psycopg.Connection) -> None:
    draw = random.Random(5)
    period = (BEGIN + 3 * DAY, BEGIN + 40 * DAY)
    for _ in range(20):
        moment = BEGIN + draw.randrange(60 * 24) * HOUR
        options: dict[str, Any] = {"currency": "EUR", "by": draw.choice(("channel", "campaign"))}
        then = asked(connection, "models", as_of=moment, period=period, models=("linear",), **options)
        stood = {row[0]: row[5] for row in then.table.rows if row[5]} if then.table else {}
        bridge = rows_of(asked(connection, "restatements", period=period, since=moment, **options))
        assert {row[0]: row[4] for row in bridge if row[1] == "reported" and row[4]} == stood
        now = {
            row[0]: row[5] for row in rows_of(asked(connection, "models", period=period, models=("linear",), **options))
        }
        assert {row[0]: row[4] for row in bridge if row[1] == "now" and row[4]} == {k: v for k, v in now.items() if v}


def test_a_reader_of_one_tenant_sees_nothing_of_the_other(connection: psycopg.Connection) -> None:
    before = {report.name: document(asked(connection, report.name)) for report in REPORTS}
    more = [each | {"tenant_id": "other"} for each in drawn_results(80, seed=9)]
    for number, each in enumerate(more):
        each["conversion_id"] = f"o{number % 500}"
        each["version"] = 50 + number
    insert_results(connection, more)
    try:
        assert {report.name: document(asked(connection, report.name)) for report in REPORTS} == before
    finally:
        connection.rollback()


@pytest.mark.parametrize("way", ["hashagg", "sort", "nestloop", "hashjoin"])
def test_a_report_is_the_same_in_whatever_order_its_plan_reads_rows(connection: psycopg.Connection, way: str) -> None:
    usual = {report.name: document(asked(connection, report.name)) for report in REPORTS}
    connection.execute(f"SET enable_{way} = off".encode())
    assert {report.name: document(asked(connection, report.name)) for report in REPORTS} == usual


def test_what_was_erased_is_in_what_stands_in_no_channel(connection: psycopg.Connection) -> None:
    found = asked(connection, "unattributed", models=("linear",))
    (erased,) = [row for row in rows_of(found) if row[1] == "(erased)"]
    assert tuple(erased[:4]) == ("all", "(erased)", 3.0, 30_000_000)
    assert erased[4] == pytest.approx(3 / (found.total.conversions + 3))


def test_what_is_not_known_is_refused_with_what_there_is(connection: psycopg.Connection) -> None:
    for options, parameter in (
        ({"models": ("nosuch",)}, "models"), ({"time_zone": "Mars/Olympus"}, "time_zone"), ({"by": "person"}, "by"),
    ):  # fmt: skip
        with pytest.raises(UnknownNameError) as refused:
            asked(connection, "models", **options)
        assert refused.value.parameter == parameter


def run(shop: str, *arguments: str, code: int = 0, width: str = "150") -> Result:
    environment = {"DATABASE_URL": shop, "ATTRIBUTION_TENANT": "acme", "COLUMNS": width}
    result = CliRunner().invoke(app, ["report", *arguments], env=environment)
    assert result.exit_code == code, result.output
    return result


@pytest.mark.parametrize("name", BY_NAME)
def test_every_report_is_a_command_in_three_forms(shop: str, name: str) -> None:
    found = json.loads(run(shop, name, *THEN, "--json").stdout)
    assert found["report"] == name
    assert found["rows"]
    lines = list(csv.reader(io.StringIO(run(shop, name, *THEN, "--format", "csv").stdout)))
    assert lines[0] == [*(column.name for column in BY_NAME[name].columns), "currency"]
    assert len(lines) == len(found["rows"]) + 1
    assert not [cell for line in lines for cell in line if cell.startswith(("=", "@", "+"))]
    for width in ("60", "150"):
        text = run(shop, name, *THEN, width=width).stdout
        assert found["finding"].split()[0] in text
        assert max(map(len, text.splitlines())) <= max(int(width), 60)
        assert "\u202e" not in text
    assert f"Example: attributary report {name}" in run(shop, name, "--help").stdout


def test_a_table_adds_up(shop: str) -> None:
    text = run(shop, "paths", "--limit", "4").stdout
    rows = [line.split() for line in text.splitlines()]
    total = next(row for row in rows if row and row[0] == "total")
    assert total[1].replace(",", "") == str(json.loads(run(shop, "paths", "--json").stdout)["total"]["conversions"])


def test_mistakes_are_named(shop: str) -> None:
    assert "'nosuch' is not known; there are" in run(shop, "models", "--models", "nosuch", code=2).stderr
    assert "give an IANA name" in run(shop, "days", "--time-zone", "Mars/Olympus", code=2).stderr
    assert "no tenant 'nobody'; there are acme" in run(shop, "days", "--tenant", "nobody", code=2).stderr
    empty = run(shop, "lag", "--from", "2020-01-01", "--to", "2020-02-01")
    assert "no conversion of acme in this period" in empty.stderr
    assert empty.stdout == ""
    assert "No such option: --by" in run(shop, "lag", "--by", "channel", code=2).stderr


def test_the_list_and_the_page_are_the_catalogue(shop: str) -> None:
    text = run(shop, "list").stdout
    assert all(report.question in text for report in REPORTS)
    assert "is up to date" in run(shop, "list", "--check", str(PAGE)).stdout


def test_channels_of_the_draw_are_ranked(connection: psycopg.Connection) -> None:
    first = rows_of(asked(connection, "models", models=("linear",)))
    assert {row[0] for row in first[:6]} == set(CHANNELS)
