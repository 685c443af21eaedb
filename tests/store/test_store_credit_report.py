"""Credit by dimensions and models, against sums that are made without SQL."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from attributary.consumers.store.connection import connect
from attributary.consumers.store.results.credit_report import (
    DIMENSIONS,
    UNATTRIBUTED,
    ReportQuery,
    known_models,
    read_report,
    stored_extent,
)
from attributary.consumers.store.tenants import known_tenants
from tests.factories.stored_results import insert_results, stored_result

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import psycopg

pytestmark = pytest.mark.postgres

DAY = 86_400_000_000
EVER = (0, 2**62)
BEGIN = int(datetime(2026, 10, 1, tzinfo=UTC).timestamp()) * 1_000_000
MODELS = ("linear", "last", "baseline")
QUERY = ReportQuery("acme", MODELS, ("channel",), EVER, 2**62)


@pytest.fixture(scope="module")
def results() -> list[dict[str, Any]]:
    """Results of 300 conversions: up to three versions, some without a touchpoint, a model with a baseline."""
    draw = random.Random(7)
    found = []
    for number in range(300):
        for version in range(1, draw.choice((2, 2, 3)) + 1):
            touches = [
                (f"e{number}-{place}", draw.choice(("search", "mail", "=cmd", "")), draw.choice(("meta", "google")),
                 draw.choice(("spring", "", "a > b")))
                for place in range(draw.randrange(5))
            ]  # fmt: skip
            found.append(
                stored_result(
                    f"o{number}", version, touches, net=draw.randrange(-50_000_000, 300_000_000),
                    currency=("EUR", "JPY", "XXX")[number % 3], conversion_type=("purchase", "lead")[number % 2],
                    converted_at=BEGIN + draw.randrange(60 * DAY), computed_at=BEGIN + version * 100 * DAY,
                    models=MODELS, draw=draw,
                )
            )  # fmt: skip
    return found


@pytest.fixture(scope="module")
def connection(module_database: str, results: list[dict[str, Any]]) -> Iterator[psycopg.Connection]:
    with connect(module_database, application_name="tests") as connection:
        insert_results(connection, results)
        insert_results(connection, [dict(result, tenant_id="other") for result in results[:20]])
        connection.execute(
            """
            INSERT INTO attribution_touchpoints
            SELECT 'acme', touch ->> 'event_id', 'u:x', NULL, 1, 1, 'p', 'c', 'click', '', false,
                   CASE WHEN touch ->> 'event_id' LIKE '%%1' THEN '{}'::jsonb ELSE jsonb_build_object(
                       'utm_source', 's' || right(touch ->> 'event_id', 1), 'utm_medium', 'cpc') END, 0, 't', 0, 0
            FROM attribution_results, jsonb_array_elements(touchpoints) AS touch
            WHERE touch ->> 'event_id' NOT LIKE '%%2' AND tenant_id = 'acme' ON CONFLICT DO NOTHING
            """
        )
        connection.commit()
        yield connection


def newest(results: list[dict[str, Any]], query: ReportQuery) -> list[dict[str, Any]]:
    """The results that a report is about, by plain loops."""
    found: dict[str, dict[str, Any]] = {}
    for result in sorted(results, key=lambda each: int(each["version"])):
        if result["computed_at_us"] <= query.as_of_us:
            found[result["conversion_id"]] = result
    return [
        result
        for result in found.values()
        if query.period_us[0] <= result["converted_at_us"] < query.period_us[1]
        and query.currency in {None, result["currency"]}
        and (not query.conversion_types or result["conversion_type"] in query.conversion_types)
    ]


def facts_of(result: dict[str, Any]) -> dict[str, str]:
    moment = datetime.fromtimestamp(result["converted_at_us"] // 10**6, UTC)
    week = moment.isocalendar()
    return {
        "day": f"{moment:%Y-%m-%d}", "week": f"{week.year}-W{week.week:02d}", "month": f"{moment:%Y-%m}",
        "conversion_type": result["conversion_type"], "currency": result["currency"],
    }  # fmt: skip


def facts_of_touch(touch: dict[str, Any]) -> dict[str, str]:
    last = touch["event_id"][-1]
    stored = {"1": ("(none)", "(none)"), "2": ("(not stored)", "(not stored)")}
    source, medium = stored.get(last, (f"s{last}", "cpc"))
    return {
        "channel": touch["channel"], "platform": touch["platform"], "campaign": touch["campaign"] or "(none)",
        "source": source, "medium": medium,
    }  # fmt: skip


def parts_of(result: dict[str, Any], model: dict[str, Any], by: Sequence[str]) -> dict[Any, list[Any]]:
    """What one model credits of one conversion: [1, credit, micros] a (keys, is touch)."""
    if set(by) <= facts_of(result).keys():
        micros = sum(model["micros"]) + model["unattributed_micros"]
        return {(tuple(facts_of(result)[name] for name in by), True): [1, 1.0, micros]}
    found: dict[Any, list[Any]] = defaultdict(lambda: [1, 0.0, 0])
    touches = json.loads(result["touchpoints"])
    for touch, credit, micros in zip(touches, model["credits"], model["micros"], strict=True):
        facts = facts_of(result) | facts_of_touch(touch)
        part = found[tuple(facts[name] for name in by), True]
        part[1] += credit
        part[2] += micros
    rest = 1 - sum(model["credits"])
    if rest > 1e-9 or model["unattributed_micros"]:
        keys = tuple(facts_of(result).get(name, UNATTRIBUTED) for name in by)
        found[keys, False] = [1, rest, model["unattributed_micros"]]
    return found


def expected(results: list[dict[str, Any]], query: ReportQuery) -> dict[Any, list[Any]]:
    """Rows by plain loops: [journeys, credit, micros] a (currency, keys, model, is touch)."""
    rows: dict[Any, list[Any]] = defaultdict(lambda: [0, 0.0, 0])
    for result in newest(results, query):
        for model in json.loads(result["models"]):
            if model["model"] in query.models:
                for (keys, is_touch), part in parts_of(result, model, query.by).items():
                    row = rows[result["currency"], keys, model["model"], is_touch]
                    row[:] = [before + more for before, more in zip(row, part, strict=True)]
    return rows


QUERIES = [
    *(replace(QUERY, by=(name,)) for name in DIMENSIONS),
    replace(QUERY, by=("campaign", "channel", "day")),
    replace(QUERY, by=("month", "source"), models=("last",)),
    replace(QUERY, period_us=(BEGIN + 10 * DAY, BEGIN + 20 * DAY)),
    replace(QUERY, as_of_us=BEGIN + 250 * DAY, period_us=(BEGIN + 10 * DAY, BEGIN + 30 * DAY)),
    replace(QUERY, as_of_us=BEGIN),
    replace(QUERY, currency="JPY", conversion_types=("lead",)),
]


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: f"{'+'.join(query.by)}")
def test_every_sum_is_that_of_plain_loops(
    connection: psycopg.Connection, results: list[dict[str, Any]], query: ReportQuery
) -> None:
    report = read_report(connection, query)
    rows = expected(results, query)
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for result in newest(results, query):
        totals[result["currency"]][0] += 1
        totals[result["currency"]][1] += result["net_value_micros"]
    assert {total.currency: [total.conversions, total.net_micros] for total in report.totals} == totals
    found = {(row.currency, row.keys, row.model, row.is_touch): row for row in report.rows}
    assert found.keys() == rows.keys()
    for key, (journeys, credit, micros) in rows.items():
        assert (found[key].journeys, found[key].value_micros) == (journeys, micros)
        assert found[key].conversions == pytest.approx(credit, abs=1e-6)
    for model in query.models:
        for total in report.totals:
            mine = [row for row in report.rows if (row.model, row.currency) == (model, total.currency)]
            assert sum(row.value_micros for row in mine) == total.net_micros
            assert sum(row.conversions for row in mine) == pytest.approx(total.conversions)
            assert all(row.share and row.share.low <= row.share.share <= row.share.high for row in mine)
    connection.rollback()


def test_the_interval_is_that_of_a_mean_over_conversions(
    connection: psycopg.Connection, results: list[dict[str, Any]]
) -> None:
    del results
    report = read_report(connection, replace(QUERY, models=("last",), currency="EUR"))
    search = next(row for row in report.rows if row.keys == ("search",))
    conversions = report.totals[0].conversions
    # credits of `last` are 0 or 1: the interval is the normal one of a proportion
    part = search.conversions / conversions
    half = 1.6449 * (part * (1 - part) / conversions) ** 0.5
    assert search.share is not None
    assert search.share.share == pytest.approx(part)
    assert search.share.high - search.share.share == pytest.approx(half, rel=1e-3)
    connection.rollback()


def test_what_is_known_is_named(connection: psycopg.Connection) -> None:
    assert known_models(connection, QUERY) == sorted(MODELS)
    assert known_tenants(connection) == ["acme", "other"]
    extents = stored_extent(connection, "acme")
    assert sum(extent.conversions for extent in extents) >= 300
    assert {extent.currency for extent in extents} == {"EUR", "JPY", "XXX"}
    assert stored_extent(connection, "nobody") == []
    uses = read_report(connection, QUERY).uses
    assert {(use.model, use.version, use.fallback) for use in uses} >= {("linear", "1", None), ("last", "1", None)}
    assert sum(use.conversions for use in uses if use.model == "baseline") == 300
    with pytest.raises(ValueError, match="dimensions must be of channel"):
        read_report(connection, replace(QUERY, by=("channel; DROP TABLE x",)))
    connection.rollback()
