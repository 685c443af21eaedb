"""Amounts are read strictly, by one rule for imports and analyses (B28 of the field cases)."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attributary.attribution_core import analyze
from attributary.attribution_core.domain.amounts import is_plain, plain_decimal


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("1_000", "thousands separator"),
        ("\uff11\uff19.\uff19\uff19", "digits 0 to 9"),
        ("٣", "digits 0 to 9"),
        ("१२", "digits 0 to 9"),
        ("1,249.00", "thousands separator"),
        ("1.249,00", "point for decimals"),
        ("9,99", "point for decimals"),
        ("1'249.00", "thousands separator"),
        ("1 249", "thousands separator"),
        ("1\u202f249", "thousands separator"),
        ("$5.00", "currency"),
        ("5.00 EUR", "currency"),
        ("5€", "currency"),
        ("(5.00)", "minus sign"),
        ("\u22125", "minus sign"),
        ("5-", "currency"),
        ("1.2.3", ""),
        ("nan", ""),
        ("Infinity", ""),
        ("0x10", ""),
        ("NULL", ""),
        ("", ""),
        ("--5", ""),
        (".", ""),
        ("e5", ""),
        ("1e999999999", "50 digits"),
    ],
)
def test_b28_an_amount_has_one_spelling(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=r"^must be a number") as error:
        plain_decimal(text)
    assert hint in str(error.value)
    assert text not in str(error.value) or len(text) < 3  # a rule never quotes the cell


@pytest.mark.parametrize("text", ["19.99", "-5", "+5", "5.", ".5", " 7 ", "0", "1e3", "1E-05", "00012.50"])
def test_b28_plain_numbers_are_read(text: str) -> None:
    assert plain_decimal(text) == Decimal(text.strip())


@given(st.text(max_size=12))
def test_b28_what_is_read_is_what_decimal_reads(text: str) -> None:
    try:
        found = plain_decimal(text)
    except ValueError:
        return
    assert is_plain(text.strip())
    assert found == Decimal(text.strip())


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9))
def test_b28_every_written_decimal_is_read_exactly(number: Decimal) -> None:
    assert plain_decimal(str(number)) == number


@given(st.text(alphabet="0123456789_٣\uff11.,-+eE nN", max_size=8))
def test_b28_pythons_own_reading_is_never_wider_unseen(text: str) -> None:
    """Bulk readers take float() for texts that `is_plain` passes: then both agree or it is no finite number."""
    try:
        number = float(text)
        exact = Decimal(text)
    except (ValueError, InvalidOperation):
        return
    if is_plain(text) and exact.is_finite() and exact.adjusted() <= 50:
        assert float(plain_decimal(text)) == number


@pytest.mark.parametrize("cell", ["1_000", "\uff11\uff19.\uff19\uff19", "٣", "1,000", "5 EUR"])
def test_b28_analyze_names_row_column_and_hint(cell: str) -> None:
    paths: dict[str, list[Any]] = {
        "path": ["a", "b"],
        "total_conversions": [1, 1],
        "total_conversion_value": ["1", cell],
    }
    with pytest.raises(ValueError, match=r"row 2: total_conversion_value: .* must be a number: "):
        analyze(paths)
    events: dict[str, list[Any]] = {"user": ["u1"], "time": [1], "channel": [""], "conversion": [1], "value": [cell]}
    with pytest.raises(ValueError, match=r"row 1: value: .* must be a number: "):
        analyze(events)
