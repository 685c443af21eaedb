"""An erasure and a retirement change no sum that people read: reports, the read API, views and exports."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from typer.testing import CliRunner

from attributary.attribution_core.domain.lookback import DEFAULT_POLICY, LookbackPolicy
from attributary.cli.main import app
from attributary.consumers.api.documents import report_document
from attributary.consumers.reports.origin import Origin
from attributary.consumers.reports.page import page_text
from attributary.consumers.reports.page_facts import read_facts
from attributary.consumers.store.connection import connect
from attributary.consumers.store.erasure.entries import Hasher, Identifier, RequestRow
from attributary.consumers.store.erasure.person import person_rows
from attributary.consumers.store.removed_totals import Removed, add_removed, read_removed
from attributary.consumers.store.results.credit_report import DIMENSIONS, ReportQuery, read_report
from attributary.consumers.store.retention.boundaries import next_tenant
from attributary.consumers.store.session import StoreSession
from attributary.consumers.store.tenants import Tenant, store_tenant
from attributary.consumers.sweeper.tenant_retention import TenantRetention
from tests.factories.samples import DAY_US, START_US, sale, touch
from tests.pipeline_harness import InProcess, carry_out

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from attributary.consumers.store.results.credit_report import Report

pytestmark = pytest.mark.postgres

POLICY = LookbackPolicy.parse(DEFAULT_POLICY)
LATE = 300 * 24
EVER = (0, 2**62)
QUERY = ReportQuery("acme", ("linear", "last"), ("channel",), EVER, 2**62)
NOW_US = START_US + 302 * DAY_US
VIEWS = """
SELECT currency, sum(net) FROM (
    SELECT currency, net_value AS net FROM reporting.conversions WHERE tenant_id = 'acme'
    UNION ALL SELECT currency, net_value FROM reporting.removed WHERE tenant_id = 'acme') AS all_of_it
GROUP BY 1 ORDER BY 1
"""
CREDITS = """
SELECT model, currency, sum(value) FROM (
    SELECT model, currency, value FROM reporting.credit WHERE tenant_id = 'acme' AND dimension = 'channel'
    UNION ALL SELECT model, currency, value FROM reporting.retired_credit WHERE tenant_id = 'acme') AS all_of_it
WHERE model IN ('linear', 'last') GROUP BY 1, 2 ORDER BY 1, 2
"""


def fill(dsn: str) -> None:
    """Sales of six people in two currencies, old and new ones, with odd amounts, a refund, and one without touches."""
    events: list[Any] = []
    for number, user in enumerate(("ann", "bob", "cid", "dan", "eve", "flo")):
        currency, whose = ("EUR", "JPY")[number % 2], {"who": f"u:{user}"}
        value = 10_000_000 + number * (7_000_000 if currency == "JPY" else 770_000)
        for age in (0, LATE):
            events += [
                touch(f"t{user}{age}", age + number, channel=("email", "search")[number % 2], **whose),
                touch(f"s{user}{age}", age + number + 0.5, channel="social", **whose),
                sale(f"o{user}{age}", age + number + 24, value=value, currency=currency, **whose),
            ]  # fmt: skip
    events += [
        sale("bare", LATE + 2, who="u:eve", value=5_010_000),
        sale("back", LATE + 60, who="u:ann", kind="refund", conversion_id=f"oann{LATE}", value=1_230_000),
        sale("theirs", LATE, who="u:ann", tenant_id="other", value=3_000_000),
    ]
    with InProcess(dsn) as stages:
        stages.publish(*events)


def retire(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        store_tenant(connection, Tenant("acme", conversions_kept_days=217, touchpoints_kept_days=217))
        connection.execute("UPDATE attribution_conversions SET is_final = true")
    session = StoreSession(dsn, "tests")
    try:
        while True:  # a turn ends after a second, also where it removed nothing and more is due
            done = TenantRetention(POLICY, session, lambda: NOW_US).turn()
            with session.transaction() as connection:
                if not any(done) and next_tenant(connection) is None:
                    break
    finally:
        session.close()


def erase(dsn: str, *users: str) -> None:
    requests = [RequestRow("acme", user, "user", "delete", user, NOW_US, NOW_US, None) for user in users]
    carry_out(dsn, requests, Hasher("a key of these tests"))


@contextmanager
def reading(dsn: str) -> Iterator[psycopg.Connection]:
    with connect(dsn, application_name="tests") as connection:
        yield connection


def sums(report: Report) -> dict[Any, tuple[int, int]]:
    """Conversions and net micros by currency and model, of the rows."""
    found: dict[Any, list[float]] = defaultdict(lambda: [0.0, 0])
    for row in report.rows:
        part = found[row.currency, row.model]
        part[0] += row.conversions
        part[1] += row.value_micros
    return {key: (round(count), int(micros)) for key, (count, micros) in found.items()}


def totals(report: Report) -> dict[str, tuple[int, int]]:
    return {total.currency: (total.conversions, total.net_micros) for total in report.totals}


@pytest.mark.parametrize("removal", ["erased", "retired", "both"])
def test_reports_views_and_the_api_sum_up_to_what_they_did_before(database: str, removal: str) -> None:
    fill(database)
    queries = [replace(QUERY, by=(name,)) for name in DIMENSIONS] + [
        replace(QUERY, by=("day", "channel")),
        replace(QUERY, currency="JPY"),
        replace(QUERY, conversion_types=("purchase",)),
        replace(QUERY, period_us=(START_US, START_US + 3 * DAY_US)),
        replace(QUERY, period_us=(START_US + 3 * DAY_US, EVER[1])),
    ]
    with reading(database) as connection:
        before = [(totals(report), sums(report)) for report in (read_report(connection, each) for each in queries)]
        seen = [connection.execute(each).fetchall() for each in (VIEWS, CREDITS)]
        theirs = read_report(connection, replace(QUERY, tenant_id="other"))
    if removal != "erased":
        retire(database)
    if removal != "retired":
        erase(database, "ann", "eve")
    with reading(database) as connection:
        for query, (then, of_models) in zip(queries, before, strict=True):
            report = read_report(connection, query)
            assert totals(report) == then, query
            assert sums(report) == of_models, query
            # Rows that are stored one by one, and those that are not, are told apart.
            removed = {(row.bucket, row.share) for row in report.rows if row.bucket in {"(erased)", "(retired)"}}
            assert removed <= {("(erased)", None), ("(retired)", None)}
            document = report_document(query, report, Origin("results"))
            assert {each.currency: (each.conversions, each.net_value_micros) for each in document.totals} == then
            gone = sum(each.value_micros for each in document.lines if each.bucket in {"(erased)", "(retired)"})
            assert gone == len(query.models) * sum(each.removed_net_value_micros for each in document.totals)
        buckets = {row.bucket for row in read_report(connection, QUERY).rows} - {None, "(unattributed)"}
        assert buckets == {"erased": {"(erased)"}, "retired": {"(retired)"}}.get(removal, {"(erased)", "(retired)"})
        assert connection.execute(VIEWS).fetchall() == seen[0]
        if removal == "retired":  # credits stay, by channel; nobody credits what was erased
            assert connection.execute(CREDITS).fetchall() == seen[1]
        assert read_report(connection, replace(QUERY, tenant_id="other")) == theirs


def test_commands_show_what_is_gone_and_their_totals_stay(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database)
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("ATTRIBUTION_TENANT", "acme")

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, arguments, env={"COLUMNS": "120"})
        assert result.exit_code == 0, result.output
        return result.stdout

    def total(text: str) -> list[str]:
        return [" ".join(line.split()) for line in text.splitlines() if line.startswith(("total", "7 conv", "6 conv"))]

    before = run("results"), run("results", "--by", "day", "--models", "last,linear", "--limit", "3")
    retire(database)
    erase(database, "ann")
    after = run("results"), run("results", "--by", "day", "--models", "last,linear", "--limit", "3")
    assert [total(text) for text in after] == [total(text) for text in before]
    assert len(total(before[0])) == 4
    erased = next(line for line in after[0].splitlines() if line.startswith("(erased)"))
    assert erased.split() == ["(erased)", "1.00", "8.77"]
    retired = next(line for line in after[0].splitlines() if line.startswith("(retired)"))
    assert retired.split()[:2] == ["(retired)", "3.00"]
    text = " ".join(after[0].split())
    assert "(erased): conversions of people who were erased on request. No model credits them." in text
    assert "reporting.retired_credit" in text
    assert "2026-11-02 (retired)" in run("results", "--by", "day")
    rows = list(csv.DictReader(io.StringIO(run("results", "--by", "channel", "--format", "csv"))))
    assert sum(Decimal(row["net_value"]) for row in rows if row["currency"] == "EUR") == Decimal("73.02")
    assert {row["bucket"] for row in rows} == {"", "(unattributed)", "(erased)", "(retired)"}
    found = json.loads(run("results", "--json"))
    assert sum(row["net_micros"] for row in found["rows"]) == sum(each["net_micros"] for each in found["totals"])
    assert {each["removed_conversions"] for each in found["totals"]} == {3, 4}
    assert {row["bucket"] for row in found["rows"] if row["is_unattributed"]} <= {"(unattributed)"}
    run("export", "removed", "--out", str(tmp_path / "removed"), "--format", "csv")
    manifest = json.loads((tmp_path / "removed" / "manifest.json").read_text("utf-8"))
    with reading(database) as connection:
        removed = read_removed(connection, "acme", EVER)
        exported = {key: Decimal(value) for key, value in manifest["sums"].items()}
        for currency in ("EUR", "JPY"):
            net = sum(each.net_micros for each in removed if each.currency == currency)
            assert exported[currency] * 1_000_000 == net
        facts = read_facts(
            connection,
            replace(QUERY, currency="EUR", period_us=(START_US, NOW_US), as_of_us=NOW_US),
            "linear",
            START_US,
        )
    assert facts is not None
    page = page_text(facts)
    assert "no longer stored one by one: 1 conversion (8.77 EUR) (erased), 3 conversions" in page
    run("export", "retired_credit", "--out", str(tmp_path / "credit"), "--format", "csv")


def test_when_all_of_it_is_gone_the_sums_are_still_shown(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(database)
    erase(database, "ann", "bob", "cid", "dan", "eve", "flo")
    monkeypatch.setenv("DATABASE_URL", database)
    result = CliRunner().invoke(app, ["results", "--tenant", "acme", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["totals"][0]["removed_conversions"] == 7


def test_periods_that_follow_each_other_count_each_day_once(database: str) -> None:
    with reading(database) as connection:
        first = START_US // DAY_US
        rows = [Removed("acme", _day(first + number), "purchase", "EUR", 1, 2, 3) for number in range(6)]
        add_removed(connection, "(retired)", rows)
        edges = [0, START_US + 1, START_US + DAY_US, START_US + 3 * DAY_US + 7, 2**62]
        parts = [read_removed(connection, "acme", (start, end)) for start, end in itertools.pairwise(edges)]
        assert [sum(each.conversions for each in part) for part in parts] == [1, 0, 3, 2]
        weeks = read_removed(connection, "acme", EVER, ("week", "channel"))
        assert [(each.keys, each.conversions) for each in weeks] == [
            (("2026-W44", "(retired)"), 1), (("2026-W45", "(retired)"), 5),
        ]  # fmt: skip


def _day(number: int) -> date:
    return date(1970, 1, 1) + timedelta(days=number)


def test_a_tenant_that_deletes_keeps_no_amounts_of_erased_people(database: str) -> None:
    fill(database)
    with psycopg.connect(database) as connection:
        store_tenant(connection, Tenant("acme", erasure_mode="delete"))
    erase(database, "ann", "bob")
    with reading(database) as connection:
        assert read_removed(connection, "acme", EVER) == []
        assert connection.execute("SELECT count(*) FROM attribution_erased_amounts").fetchone() == (0,)
        known = connection.execute("SELECT count(*) FROM attribution_erasures WHERE kind = 'conversion'").fetchone()
        assert known == (4,)  # so that nothing brings them back
        assert sum(total.conversions for total in read_report(connection, QUERY).totals) == 9


def test_an_access_request_finds_and_an_erasure_takes_what_the_roll_up_knows(database: str) -> None:
    """Only hashes stand there; those of ids that can be guessed name their person all the same."""
    fill(database)
    with psycopg.connect(database, autocommit=True) as connection:
        user, conversion = connection.execute(
            "SELECT substr(journey_key, 3), conversion_id FROM attribution_conversions WHERE journey_key > 'u:' LIMIT 1"
        ).fetchall()[0]
        for key in (f"u:{user}", "u:somebody-else"):
            connection.execute(
                "INSERT INTO attribution_rollup_people (tenant_id, person_md5, conversion_type) "
                "VALUES ('acme', md5(%s)::uuid, 'purchase')", (key,),
            )  # fmt: skip
        connection.execute(
            "INSERT INTO attribution_event_conflicts (tenant_id, record_name, event_id, content_hash, conversion_id, "
            "received_at_us, source_topic, source_partition, source_offset) "
            "VALUES ('acme', 'conversion', 'e', 1, %s, 0, 't', 0, 0)", (conversion,),
        )  # fmt: skip
        person = person_rows(connection, Identifier("acme", "user", user))
        assert [len(person[name]) for name in ("rollup_people", "event_conflicts")] == [1, 1]
        erase(database, user)
        left = connection.execute("SELECT person_md5::text FROM attribution_rollup_people").fetchall()
        assert left == connection.execute("SELECT md5('u:somebody-else')::uuid::text").fetchall()
