"""Worked numbers of each report's definition, from sums that are written down here."""

from __future__ import annotations

import random
from datetime import date, timedelta
from typing import Any

import pytest

from attributary.consumers.reports.catalog import BY_NAME, REPORTS
from attributary.consumers.reports.definition import UNITS, Asked, ReportTable
from attributary.consumers.reports.docs_page import page
from attributary.consumers.reports.maturity import arrived_by_age
from attributary.consumers.store.results.report_reads import (
    CurrencyTotal,
    Lags,
    Lengths,
    Path,
    ReportRequest,
    Rest,
    collapsed,
    place_of,
)

DAY = 86_400_000_000
NOW = 1_772_323_200_000_000  # 2026-03-01 00:00 UTC


class Sums:
    """Answers what a test has written down."""

    def __init__(self, **sums: Any) -> None:
        self._sums = sums

    def __getattr__(self, name: str) -> Any:
        return lambda: self._sums[name]


def table(
    name: str, *, conversions: int = 10, net: int = 0, models: Any = ("linear",), limit: int = 0, **sums: Any
) -> ReportTable:
    request = ReportRequest("acme", models, "channel", (0, NOW), NOW, NOW - DAY, "EUR", limit=limit)
    total = CurrencyTotal("EUR", conversions, net, 0)
    return BY_NAME[name].compute(Sums(**sums), Asked(request, total, NOW))


def test_names_are_unique_and_every_column_has_a_known_unit() -> None:
    assert len(BY_NAME) == len(REPORTS)
    for report in REPORTS:
        assert report.question.endswith("?")
        assert len({column.name for column in report.columns}) == len(report.columns)
        assert {column.unit for column in report.columns} <= set(UNITS)
        assert f"## {report.name}" in page()


def test_paths_collapse_and_the_rest_is_one_row() -> None:
    raw = [Path(("a", "b"), 2, 3, 30), Path(("b",), 1, 2, 20), Path(("a",), 1, 1, 5), Path((), 0, 4, 0)]
    rows = table("paths", paths=raw).rows
    assert [tuple(row) for row in rows] == [
        ("(no touchpoint)", 0, 4, 0, 0.4), ("a > b", 2, 3, 30, 0.3), ("b", 1, 2, 20, 0.2), ("a", 1, 1, 5, 0.1)
    ]  # fmt: skip
    short = table("paths", paths=raw, limit=2).rows
    assert tuple(short[-1]) == ("(other)", None, 3, 25, pytest.approx(0.3))


def test_a_long_path_is_shown_by_its_number_of_steps() -> None:
    (row,) = table("paths", paths=[Path((), 9, 2, 7)]).rows
    assert tuple(row) == ("(9 steps)", 9, 2, 7, 1.0)
    assert collapsed(["a", "a", "b", "a"]) == ("a", "b", "a")


def test_early_mid_and_late_are_those_of_the_definition() -> None:
    table_ = {1: "001", 2: "101", 3: "111", 4: "121", 5: "122", 6: "222", 7: "232", 8: "242"}
    for touches, expected in table_.items():
        parts = [place_of(place, touches) for place in range(1, touches + 1)]
        assert "".join(str(parts.count(part)) for part in ("early", "mid", "late")) == expected


def test_path_lengths_count_touches_and_runs() -> None:
    lengths = Lengths([(3, 2, 20), (1, 1, 10), (0, 1, 5), (9, 1, 1)], [(2, 2), (1, 2), (0, 1)])
    found = table("path-lengths", lengths=lengths, limit=4)
    assert [tuple(row) for row in found.rows] == [
        (0, 1, 5, 0.2, 1), (1, 1, 10, 0.2, 2), (2, 0, 0, 0.0, 2), (3, 3, 21, pytest.approx(0.6), 0)
    ]  # fmt: skip
    assert "at most 3, nine in ten at most 9; 1 conversion have none" in found.finding


def test_the_lag_is_counted_in_whole_days_and_the_last_row_holds_the_rest() -> None:
    found = table("lag", lags=Lags([(0, 5, 50), (3, 3, 30), (20, 2, 20)], [(0, 8), (2, 2)]), limit=3)
    assert [tuple(row) for row in found.rows] == [
        (0, 5, 50, 0.5, 0.5, 8), (2, 0, 0, 0.0, 0.5, 2), (3, 5, 50, 0.5, 1.0, 0)
    ]  # fmt: skip
    assert "within 1 day of the first touch, nine in ten within 21 days" in found.finding


def test_an_assist_ratio_without_a_close_is_null() -> None:
    rows = table("assists", assists=[("search", 5, 2, 4, 1), ("display", 3, 3, 0, 3)]).rows
    assert [tuple(row) for row in rows] == [("display", 3, 3, 0, 3, None), ("search", 5, 2, 4, 1, 0.5)]


def test_models_have_change_spread_and_certain_ranks() -> None:
    credits_ = [
        ("linear", "a", 90, 80.0, 80.0, 800), ("last", "a", 90, 82.0, 82.0, 820), ("linear", "b", 30, 20.0, 20.0, 200),
        ("last", "b", 30, 18.0, 18.0, 180),
    ]  # fmt: skip
    rests = [Rest(model, 100, 0, 0.0, 0, 0.0, 0, 0.0) for model in ("linear", "last")]
    found = table("models", conversions=100, models=("linear", "last"), credits=credits_, rests=rests)
    first, second = found.rows[:2]
    assert first[:3] == ("a", "linear", 80.0)
    # A share of 0.8 of 100 conversions: 1.6449 sqrt(0.8 x 0.2 / 100) = 0.0658 to either side.
    assert first[3:5] == pytest.approx((73.42, 86.58), abs=0.01)
    assert second[6] == 0.025
    assert second[7:9] == (80.0, 82.0)
    assert {row[10] for row in found.rows} == {"certain"}
    assert "a (rank 1), b (rank 2)" in found.finding


def test_models_that_disagree_leave_no_rank_certain() -> None:
    credits_ = [("linear", "a", 90, 80.0, 80.0, 0), ("last", "a", 9, 5.0, 5.0, 0), ("linear", "b", 30, 20.0, 20.0, 0),
                ("last", "b", 95, 95.0, 95.0, 0)]  # fmt: skip
    rests = [Rest(model, 100, 0, 0.0, 0, 0.0, 0, 0.0) for model in ("linear", "last")]
    found = table("models", conversions=100, models=("linear", "last"), credits=credits_, rests=rests)
    assert found.finding.startswith("No rank of the channels is certain")


def test_the_bridge_of_the_definition() -> None:
    # c1 = 100 to search; a late touch moves 100 to e-mail, a refund takes 40, and c2 = 50 appears for search.
    changes = [
        ("search", "late_touchpoint", 1, -1.0, -100), ("search", "new", 1, 1.0, 50),
        ("email", "late_touchpoint", 1, 1.0, 100), ("email", "refund", 1, 0.0, -40),
    ]  # fmt: skip
    credits_ = [("linear", "search", 1, 1.0, 1.0, 50), ("linear", "email", 1, 1.0, 1.0, 60)]
    rows = table("restatements", conversions=2, net=110, credits=credits_, rests=[], changes=changes).rows
    bridge = {(name, reason): micros for name, reason, _, _, micros in rows}
    assert bridge == {
        ("search", "reported"): 100, ("search", "late_touchpoint"): -100, ("search", "new"): 50, ("search", "now"): 50,
        ("email", "reported"): 0, ("email", "late_touchpoint"): 100, ("email", "refund"): -40, ("email", "now"): 60,
    }  # fmt: skip


def test_days_by_both_datings_have_one_sum() -> None:
    one, two = date(2026, 2, 1), date(2026, 2, 3)
    days = [(two, None, 1.5, 150), (None, one, 1.0, 100), (None, two, 0.5, 50)]
    rows = table("days", days=days, conversion_days=[(two, 2, 1, 200, 50, 0.5)]).rows
    assert [tuple(row) for row in rows] == [
        ("2026-02-01", 0, 0, 0, 0.0, 0, 1.0, 100, 0.0, 0), ("2026-02-03", 2, 200, 1, 1.5, 150, 0.5, 50, 0.5, 50)
    ]  # fmt: skip


def test_a_cohort_pools_rare_channels() -> None:
    month = date(2026, 1, 1)
    sums = [(month, "a", 0, 10, 11, 110), (month, "a", 1, 2, 2, 20), (month, "b", 0, 1, 1, 7), (month, "c", 0, 2, 2, 8)]
    rows = table("cohorts", cohorts=sums, limit=1).rows
    assert [tuple(row) for row in rows] == [
        ("2026-01-01", "a", 0, 10, 11, 110, 11), ("2026-01-01", "a", 1, 2, 2, 20, 2),
        ("2026-01-01", "(other)", 0, 3, 3, 15, 5),
    ]  # fmt: skip


def test_what_was_removed_is_beside_what_no_touchpoint_gets() -> None:
    credits_ = [("linear", "a", 6, 6.0, 6.0, 60)]
    rests = [Rest("linear", 9, 0, 1.0, 10, 2.0, 20, 5.0)]
    rows = table("unattributed", net=95, credits=credits_, rests=rests, removed=[("(erased)", 2, 30)]).rows
    assert [tuple(row[:4]) for row in rows] == [
        ("linear", "touchpoints", 6.0, 60), ("linear", "no touchpoint", 1.0, 10), ("linear", "baseline", 2.0, 20),
        ("linear", "no credit", 1.0, 5), ("all", "(erased)", 2.0, 30),
    ]  # fmt: skip
    assert sum(row[4] for row in rows) == pytest.approx(1.0)


def test_maturity_by_hand() -> None:
    # 20 days, 0 to 19 days old; of each 60 arrive at once, 30 a day later, 10 two days later.
    arrivals = [
        (age, delay, weight) for age in range(20) for delay, weight in ((0, 60.0), (1, 30.0), (2, 10.0)) if delay <= age
    ]
    found = arrived_by_age(arrivals, 90)
    assert [found[age].share for age in (0, 1, 2, 40)] == pytest.approx([0.6, 0.9, 1.0, 1.0])
    low, high = found[0].low, found[0].high
    assert low is not None
    assert high is not None
    assert 0.55 < low < 0.6 < high < 0.65


def test_days_before_the_first_conversion_do_not_make_maturity_look_slow() -> None:
    # Conversions since 60 days; of every day's touches one in twenty converts after each of 0 to 19 days.
    first = date(2026, 1, 1)
    newest = date(2026, 2, 28)
    cash = [(first + timedelta(days=age), 0, 20.0) for age in range((newest - first).days + 1)]
    accrual = [
        (day, delay, 10.0)
        for delay in range(20)
        for age in range(80)
        if (day := newest - timedelta(days=age)) + timedelta(days=delay) >= first and delay <= age
    ]
    rows = {row[1]: row for row in table("maturity", cash_delays=cash, accrual_delays=accrual).rows}
    assert [rows[age][7] for age in (0, 4, 9, 19, 30)] == pytest.approx([0.05, 0.25, 0.5, 1.0, 1.0])
    assert rows[0][3] == 1.0


@pytest.mark.parametrize("arrivals", [[], [(age, 0, 1.0) for age in range(14)], [(3, 0, 100.0)]])
def test_maturity_is_silent_without_support(arrivals: Any) -> None:
    assert {each.share for each in arrived_by_age(arrivals, 90).values()} == {None}


def test_an_import_of_history_says_nothing_about_maturity() -> None:
    # Everything came on one day, so each day's delay is its age: nothing is known of ages below.
    found = arrived_by_age([(age, age, 50.0) for age in range(60)], 90)
    assert found[10].share is None
    shares = [found[age].share for age in range(60)]
    assert all(share is None or 0.0 <= share <= 1.0 for share in shares)


def test_the_interval_of_maturity_covers() -> None:
    draw = random.Random(7)
    covered = 0
    for _ in range(300):
        arrivals = []
        for age in range(40):
            for _ in range(20):
                delay = min(int(draw.expovariate(0.4)), 30)
                arrivals.append((age, delay, 1.0))
        one = arrived_by_age(arrivals, 90)[0]
        assert one.low is not None
        assert one.high is not None
        covered += one.low <= 1 - 2.718281828**-0.4 <= one.high
    assert 0.86 * 300 <= covered <= 0.95 * 300
