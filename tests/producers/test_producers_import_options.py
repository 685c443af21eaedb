"""Conditions on rows, refunds from a column, thousands separators, formats and zones of times."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from attributary.attribution_core.domain.conversion import ConversionEvent, fold
from attributary.cli.main import app
from attributary.producers.importer.amounts import amount_reader
from attributary.producers.importer.conditions import Condition, holds, parse_condition
from attributary.producers.importer.orders import Order
from attributary.producers.importer.plan import ImportPlan, PlanError, plan_from
from attributary.producers.importer.refunds import restatement
from attributary.producers.importer.row_mapper import NotWanted, RowMapper, RowRefused
from attributary.producers.importer.rows import Row

NOON = "2024-06-01T12:00:00Z"
NOON_MICROS = 1_717_243_200_000_000
BASE = {"kind": "conversion", "constant": ["conversion_type=purchase", "currency=EUR"]}


def mapped(options: dict[str, Any], *rows: dict[str, Any]) -> list[dict[str, Any]]:
    cells = [{"user_id": "u1", "occurred_at": NOON, "value": "20"} | row for row in rows]
    mapper = RowMapper(plan_from({}, BASE | options), sorted({name for row in cells for name in row}))
    return mapper.mapped(Order(tuple(Row(line, row) for line, row in enumerate(cells, 2)))).records


# --- conditions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["status=paid"], True),
        (["status=PAID "], True),
        (["status=pending"], False),
        (["status=pending", "status=paid"], True),
        (["status=paid", "source=web"], True),
        (["status=paid", "source=pos"], False),
        (["status!=pending"], True),
        (["status!=pending", "status!=paid"], False),
        (["note="], True),
        (["note!="], False),
        (["nothing="], True),
        (["number=7"], True),
        (["parts=x"], False),
        ([], True),
    ],
)
def test_conditions(conditions: list[str], expected: bool) -> None:
    row = {"status": "Paid", "source": "web", "note": " ", "number": 7, "parts": ["x"]}
    assert holds(map(parse_condition, conditions), row.get) is expected


@pytest.mark.parametrize("text", ["status", "=paid", "!=paid", " =x"])
def test_a_condition_that_names_no_column_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match="COLUMN=VALUE"):
        plan_from({}, {"where": [text]})


@given(st.text(min_size=1).filter(lambda text: text.strip() and "=" not in text and not text.endswith("!")), st.text())
def test_a_condition_keeps_its_column_and_value(column: str, value: str) -> None:
    assert parse_condition(f"{column}={value}") == Condition(column.strip(), True, value.strip().casefold())
    assert parse_condition(f"{column}!={value}") == Condition(column.strip(), False, value.strip().casefold())


def test_a_condition_reads_the_first_row_of_an_order_that_says_something() -> None:
    options = {"where": ["status=paid"], "group_by": "n"}
    assert mapped(options, {"n": "1", "status": ""}, {"n": "1", "status": "paid"})
    with pytest.raises(NotWanted):
        mapped(options, {"n": "1", "status": "voided"}, {"n": "1", "status": "paid"})


def test_rows_that_are_left_out_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_text(f"user_id,occurred_at,value,status\nu1,{NOON},20,paid\nu2,{NOON},20,pending\nu3,no,20,voided\n")
    arguments = ["produce", str(path), "--kind", "conversion", "--tenant", "acme", "--dry-run",
                 "--where", "status=paid", "--constant", "conversion_type=purchase",
                 "--constant", "currency=EUR"]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "3 rows: 1 could be published, 0 rejected\n2 left out by --where" in result.stdout
    result = CliRunner().invoke(app, [*arguments, "--where", "State=paid"])
    assert result.exit_code == 2
    assert "column State: the file has no such column" in result.stderr


# --- refunds --------------------------------------------------------------------------------------------------------


def net(records: list[dict[str, Any]]) -> int:
    names = ("occurred_at", "event_id", "kind", "value_micros", "currency")
    return fold([ConversionEvent(*(record[name] for name in names)) for record in records]).net_value_micros


def test_a_refund_restates_the_order() -> None:
    records = mapped({"refunded": "back", "map": ["event_id=n"]}, {"n": "S1", "back": "7.50"})
    assert [(record["kind"], record["event_id"], record["value_micros"]) for record in records] == [
        ("conversion", "S1", 20_000_000), ("restatement", "S1-refunded-000000000007500000", 12_500_000)
    ]  # fmt: skip
    assert records[1]["conversion_id"] == "S1"
    assert net(records) == 12_500_000
    assert [len(mapped({"refunded": "back"}, {"back": back})) for back in ("", "0", "0.00")] == [1, 1, 1]


def test_later_exports_with_more_refunded_do_not_take_it_off_twice() -> None:
    exports = [
        mapped({"refunded": "back", "map": ["event_id=n"]}, {"n": "S1", "back": back}) for back in ("5", "19.99")
    ]
    together = [record for records in exports for record in records]
    assert net(together) == net(list(reversed(together))) == 10_000


def test_the_time_of_the_refund_counts_where_the_file_has_one() -> None:
    options = {"refunded": "back", "refunded_at": "cancelled"}
    records = mapped(options, {"back": "5", "cancelled": "2024-06-02T12:00:00Z"})
    assert [record["occurred_at"] for record in records] == [NOON_MICROS, NOON_MICROS + 86_400_000_000]
    assert mapped(options, {"back": "5", "cancelled": ""})[1]["occurred_at"] == NOON_MICROS


def test_a_status_that_means_refunded_takes_all_where_no_amount_is_given() -> None:
    plan = ImportPlan(
        kind="conversion", refunded="back", refunded_when=(parse_condition("status=refunded"),),
        constants={"conversion_type": "purchase", "currency": "EUR"},
    )  # fmt: skip
    mapper = RowMapper(plan, ["user_id", "occurred_at", "value", "status", "back"])
    cells = {"user_id": "u", "occurred_at": NOON, "value": "20", "status": "Refunded", "back": ""}
    assert net(mapper.mapped(Order((Row(2, cells),))).records) == 0
    assert net(mapper.mapped(Order((Row(2, cells | {"back": "5"}),))).records) == 15_000_000
    assert net(mapper.mapped(Order((Row(2, cells | {"status": "paid"}),))).records) == 20_000_000


@pytest.mark.parametrize(
    ("back", "rule"), [("21", "not be more than"), ("some", "must be a number"), ("0.001", "minor")]
)
def test_refunds_that_cannot_be(back: str, rule: str) -> None:
    with pytest.raises(RowRefused, match=rule) as caught:
        mapped({"refunded": "back"}, {"back": back})
    assert (caught.value.field, caught.value.column) == ("refunded", "back")


def test_ids_of_refunds_fit_whatever_the_order_is_called() -> None:
    conversion = {"event_id": "x" * 200, "value_micros": 5, "currency": "EUR", "occurred_at": 1}
    found = restatement(conversion, None, None)
    assert found is not None
    assert len(found["event_id"]) <= 200


# --- thousands ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "options", "expected"),
    [
        ("1,249.00", {"thousands": ","}, "1249.00"),
        ("1,249", {"thousands": ","}, "1249"),
        ("-12,345,678.9", {"thousands": ","}, "-12345678.9"),
        ("999.50", {"thousands": ","}, "999.50"),
        ("1.249,00", {"thousands": ".", "decimal_comma": True}, "1249.00"),
        ("1'249.00", {"thousands": "'"}, "1249.00"),
        ("1\u2019249.00", {"thousands": "'"}, "1249.00"),
        ("1 249,00", {"thousands": "space", "decimal_comma": True}, "1249.00"),
        ("1\u202f249\u00a0000,5", {"thousands": " ", "decimal_comma": True}, "1249000.5"),
        ("1_249", {"thousands": "_"}, "1249"),
        ("1,249.00", {"assumed_thousands": ","}, "1249.00"),
        ("1,249,000", {"assumed_thousands": ","}, "1249000"),
        ("19,99", {"assumed_thousands": ",", "decimal_comma": True}, "19.99"),
    ],
)
def test_thousands_separators(written: str, options: dict[str, Any], expected: str) -> None:
    assert amount_reader(ImportPlan(kind="conversion", **options))(written) == Decimal(expected)


@pytest.mark.parametrize(
    ("written", "options", "rule"),
    [
        ("1,249", {"assumed_thousands": ","}, "could be thousands or decimals"),
        ("19,99", {"assumed_thousands": ","}, "groups of 3 digits"),
        ("19,99", {"thousands": ","}, "groups of 3 digits"),
        ("1,2345.0", {"thousands": ","}, "groups of 3 digits"),
        ("1,00,000", {"thousands": ","}, "groups of 3 digits"),
        ("1234,567", {"thousands": ","}, "groups of 3 digits"),
        ("1.249,00", {"thousands": ","}, "groups of 3 digits"),
        ("1,249.00", {"thousands": ".", "decimal_comma": True}, "groups of 3 digits"),
        ("1,249.00", {}, "no thousands separator"),
        (",249", {"thousands": ","}, "groups of 3 digits"),
    ],
)
def test_amounts_that_could_mean_something_else_are_refused(written: str, options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        amount_reader(ImportPlan(kind="conversion", **options))(written)


@given(st.decimals(min_value=-(10**12), max_value=10**12, places=2), st.sampled_from([",.", ".,", "'.", " ,", "_."]))
def test_amounts_survive_being_written_with_separators(amount: Decimal, marks: str) -> None:
    written = f"{amount:,.2f}".translate(str.maketrans(",.", marks))
    plan = ImportPlan(kind="conversion", thousands=marks[0], decimal_comma=marks[1] == ",")
    assert amount_reader(plan)(written) == amount


@pytest.mark.parametrize("options", [{"thousands": "."}, {"thousands": ",", "decimal_comma": True}, {"thousands": ";"}])
def test_separators_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match="thousands"):
        ImportPlan(kind="conversion", **options)


# --- times ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "options"),
    [
        ("2024-06-01 14:00:00 Europe/Berlin", {}),
        ("2024-06-01 08:00:00 America/New_York", {"timezone": "Europe/Berlin"}),
        ("06/01/2024 14:00:00", {"time_format": ["iso", "%m/%d/%Y %H:%M:%S"], "timezone": "Europe/Berlin"}),
        ("2024-06-01 14:00:00 +0200", {"time_format": ["%m/%d/%Y %H:%M:%S", "iso"]}),
        ("Jun 1, 2024 02:00:00 PM", {"time_format": ["iso", "%b %d, %Y %I:%M:%S %p"], "timezone": "Europe/Berlin"}),
    ],
)
def test_times_in_several_formats_and_with_names_of_zones(written: str, options: dict[str, Any]) -> None:
    assert mapped(options, {"occurred_at": written})[0]["occurred_at"] == NOON_MICROS


@pytest.mark.parametrize(
    ("written", "options", "rule"),
    [
        ("2024-06-01 14:00:00 Europe/Berln", {}, "IANA database does not have"),
        ("2024-06-01 14:00:00+02:00 Europe/Berlin", {}, "one of them is enough"),
        ("2024-03-31 02:30:00 Europe/Berlin", {}, "never had"),
        ("notatime", {"time_format": "s"}, r"number of seconds since 1970 \(--time-format s\)"),
        ("01.06.2024", {}, "--time-format names another"),
    ],
)
def test_times_that_are_refused_say_what_they_should_be(written: str, options: dict[str, Any], rule: str) -> None:
    with pytest.raises(RowRefused, match=rule):
        mapped(options, {"occurred_at": written})
