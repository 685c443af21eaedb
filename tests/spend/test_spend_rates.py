"""The last known rate, crossed through the euro, exact; and files of rates."""

from __future__ import annotations

import zipfile
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attributary.attribution_core.spend.rates import Conversion, Quote, RateTable, RateTally, conversion
from attributary.consumers.spend.rate_file import read_rates, unpacked
from attributary.producers.importer.plan import PlanError
from attributary.producers.importer.rows import FileError, Row, SourceFile

FRIDAY, MONDAY = date(2026, 11, 27), date(2026, 11, 30)
SATURDAY = FRIDAY + timedelta(days=1)
ECB = [Quote(FRIDAY, "EUR", "USD", Decimal("1.10")), Quote(MONDAY, "EUR", "USD", Decimal("1.20"))]


@pytest.mark.parametrize("quotes", [ECB[:1], ECB])
def test_saturday_has_friday_s_rate_and_monday_does_not_change_it(quotes: list[Quote]) -> None:
    known = RateTable.of(quotes).known("USD", "EUR", SATURDAY)
    assert known is not None
    assert known.day == FRIDAY
    assert round(110 * known.rate, 2) == Decimal("100.00")  # not 97.06, what a line between the two days says


def test_before_the_first_rate_and_for_unknown_currencies_there_is_none() -> None:
    table = RateTable.of(ECB)
    assert table.known("USD", "EUR", FRIDAY - timedelta(days=1)) is None
    assert table.known("RUB", "EUR", MONDAY) is None
    assert table.known("USD", "RUB", MONDAY) is None
    same = table.known("RUB", "RUB", MONDAY)
    assert same is not None
    assert same.rate == 1


RATES = st.decimals("0.0001", "9999", places=4)


@given(RATES, RATES)
def test_crossed_rates_agree_with_the_way_over_the_euro(dollars: Decimal, yen: Decimal) -> None:
    table = RateTable.of([Quote(FRIDAY, "EUR", "USD", dollars), Quote(MONDAY, "EUR", "JPY", yen)])
    there = table.known("USD", "JPY", MONDAY)
    first, second = table.known("USD", "EUR", MONDAY), table.known("EUR", "JPY", MONDAY)
    back = table.known("JPY", "USD", MONDAY)
    assert there is not None and first is not None and second is not None and back is not None  # noqa: PT018
    assert there.day == FRIDAY  # the older of the two
    assert abs(there.rate - first.rate * second.rate) <= there.rate * Decimal("1e-25")
    assert abs(there.rate * back.rate - 1) <= Decimal("1e-25")


@given(RATES, st.integers(1, 10**9), st.lists(RATES, max_size=3))
def test_a_full_refund_leaves_nothing_whatever_the_rate_does_afterwards(
    rate: Decimal, micros: int, later: list[Decimal]
) -> None:
    """A refund counts on the day of its order, so both are multiplied by the same rate."""
    quotes = [Quote(FRIDAY + timedelta(days=n), "EUR", "USD", each) for n, each in enumerate([rate, *later])]
    known = RateTable.of(quotes).known("USD", "EUR", FRIDAY)
    assert known is not None
    assert known.rate * micros + known.rate * -micros == 0
    assert known.day == FRIDAY


def test_what_is_missing_or_old_is_said() -> None:
    tally = RateTally()
    table = RateTable.of(ECB)
    assert conversion(table, "USD", SATURDAY, "EUR", 7, tally).rate_day == FRIDAY
    assert conversion(table, "EUR", SATURDAY, "EUR", 7, tally) == Conversion("EUR", Decimal(1), None)
    assert conversion(table, "USD", SATURDAY, None, 7, tally) == Conversion("USD", Decimal(1), None)
    assert tally.sentences() == []
    assert conversion(table, "HRK", SATURDAY, "EUR", 7, tally) == Conversion("HRK", Decimal(1), None)
    assert conversion(table, "USD", MONDAY + timedelta(days=9), "EUR", 7, tally).target == "EUR"
    missing, stale = tally.sentences()
    assert "HRK is not converted: no rate is known by 2026-11-28" in missing
    assert "USD: the rate of 2026-11-30 is used up to 2026-12-09, 9 days later" in stale


def rows(*cells: dict[str, str]) -> list[Row]:
    return [Row(number, each) for number, each in enumerate(cells, 2)]


def test_the_table_of_the_ecb_is_read_as_it_is() -> None:
    columns = ("Date", "USD", "JPY", "HRK")
    found = read_rates(
        rows({"Date": "2026-11-27", "USD": "1.1000", "JPY": "171.23", "HRK": "N/A"},
             {"Date": "2026-11-26", "USD": "x", "JPY": "", "HRK": "0"}), columns
    )  # fmt: skip
    assert found.form == "ecb"
    assert found.quotes == [
        Quote(FRIDAY, "EUR", "USD", Decimal("1.1000")), Quote(FRIDAY, "EUR", "JPY", Decimal("171.23")),
    ]  # fmt: skip
    assert [(each.line, each.field) for each in found.rejected] == [(3, "USD"), (3, "HRK")]


def test_a_plain_file_has_one_rate_a_line() -> None:
    columns = ("Day", "Base", "Quote", "Rate")
    good = {"Day": "2026-11-27", "Base": "usd", "Quote": "GBP", "Rate": "0.79"}
    changes = ({"Day": "?"}, {"Base": "XYZ"}, {"Quote": "USD"}, {"Rate": "-1"}, {"Rate": "nan"})
    found = read_rates(rows(good, *(good | change for change in changes)), columns)
    assert (found.form, found.quotes) == ("plain", [Quote(FRIDAY, "USD", "GBP", Decimal("0.79"))])
    assert [each.field for each in found.rejected] == ["day", "base", "quote", "rate", "rate"]
    with pytest.raises(PlanError, match="neither the ECB's table"):
        read_rates([], ("a", "b"))


def _archive(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_the_table_of_an_archive_is_read_and_currencies_that_are_no_more_are_named(tmp_path: Path) -> None:
    table = b"Date,USD,CYP,JPY,\n2007-12-28,1.4692,0.585274,163.55,\n"
    with (
        unpacked(_archive(tmp_path / "hist.zip", {"eurofxref-hist.csv": table})) as path,
        SourceFile(path, None, "auto") as opened,
    ):
        assert opened.columns is not None
        found = read_rates(opened.rows(), opened.columns)
    assert not path.exists()
    assert found.left_out == ("CYP",)
    assert not found.rejected
    day = date(2007, 12, 28)
    assert found.quotes == [
        Quote(day, "EUR", "USD", Decimal("1.4692")), Quote(day, "EUR", "JPY", Decimal("163.55")),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "this one holds 0"),
        ({"a.csv": b"", "b.csv": b""}, "this one holds 2"),
        ({"a.csv": b"0" * ((1 << 26) + 1)}, "more than 64 MiB"),
    ],
)
def test_an_archive_that_is_no_table_of_rates_is_refused(tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    path = _archive(tmp_path / "rates.zip", files)
    with pytest.raises(FileError, match=said), unpacked(path):
        pytest.fail("it was unpacked")


@pytest.mark.parametrize("content", [b"", b"Date,USD\n", b"PK\x03\x04" + b"\0" * 60])
def test_a_file_that_only_calls_itself_an_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rates.zip"
    path.write_bytes(content)
    with pytest.raises(FileError, match="no ZIP archive"), unpacked(path):
        pytest.fail("it was unpacked")


def test_an_archive_that_is_cut_or_changed_is_refused(tmp_path: Path) -> None:
    path = _archive(tmp_path / "rates.zip", {"a.csv": bytes(range(256)) * 40})
    whole = path.read_bytes()
    path.write_bytes(whole[:60] + bytes(byte ^ 0x55 for byte in whole[60:90]) + whole[90:])
    with pytest.raises(FileError, match="no ZIP archive"), unpacked(path):
        pytest.fail("it was unpacked")
