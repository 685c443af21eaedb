"""Revisions of spend: whatever comes in whatever order, the newest revision is what the last import said."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attributary.attribution_core.spend.slices import SpendRow, added, changes, without_tax

ROW = SpendRow("c1", "EUR", 10_000_000, campaign_id="c1", campaign_name="Spring", clicks=3)
IMPORTS = st.tuples(st.dictionaries(st.sampled_from("abcd"), st.integers(-5, 50)), st.booleans())


def apply(newest: dict[str, SpendRow], rows: list[SpendRow], *, is_complete: bool) -> dict[str, SpendRow]:
    return newest | {row.entity: row for row in changes(newest, rows, is_complete=is_complete).rows}


@given(st.lists(IMPORTS, max_size=8))
def test_the_newest_revision_is_what_the_last_import_said(imports: list[tuple[dict[str, int], bool]]) -> None:
    newest: dict[str, SpendRow] = {}
    expected: dict[str, int] = {}
    for amounts, is_complete in imports:
        rows = [SpendRow(entity, "EUR", amount) for entity, amount in amounts.items()]
        newest = apply(newest, rows, is_complete=is_complete)
        expected = (dict.fromkeys(expected, 0) if is_complete else expected) | amounts
        assert {entity: row.net_micros for entity, row in newest.items()} == expected
        again = changes(newest, rows, is_complete=is_complete)
        assert again.rows == ()  # the same report once more
        assert (again.new, again.changed, again.unchanged, again.removed) == (0, 0, len(rows), 0)


def test_a_complete_report_takes_away_what_it_lacks_and_a_later_one_brings_it_back() -> None:
    stored = {"c1": ROW}
    assert changes(stored, [], is_complete=False).rows == ()
    gone = changes(stored, [], is_complete=True)
    assert (gone.removed, gone.rows[0].net_micros, gone.rows[0].clicks) == (1, 0, 0)
    assert gone.rows[0].is_removed
    assert gone.rows[0].campaign_name == "Spring"
    back = changes({"c1": gone.rows[0]}, [ROW], is_complete=True)
    assert (back.changed, back.rows) == (1, (ROW,))


def test_a_new_name_is_a_revision() -> None:
    renamed = replace(ROW, campaign_name="Summer")
    assert changes({"c1": ROW}, [renamed], is_complete=False) == ((renamed,), 0, 1, 0, 0)


def test_rows_of_one_entity_add_up_and_currencies_do_not() -> None:
    assert added(ROW, ROW).net_micros == 20_000_000
    assert added(ROW, ROW).clicks == 6
    with pytest.raises(ValueError, match="different"):
        added(ROW, replace(ROW, currency="USD"))


@given(st.decimals(-(10**9), 10**9, places=6), st.decimals(0, 99, places=2))
def test_net_and_tax_sum_to_the_amount(amount: Decimal, percent: Decimal) -> None:
    net, tax = without_tax(amount, percent)
    assert net + tax == int(amount * 1_000_000)
    assert abs(net * (100 + percent) / 100 - amount * 1_000_000) <= Decimal("0.5") * (100 + percent) / 100


def test_tax_of_a_worked_amount() -> None:
    assert without_tax(Decimal("119.00"), Decimal(19)) == (100_000_000, 19_000_000)
    assert without_tax(Decimal("0.01"), Decimal(19)) == (8_403, 1_597)
    assert without_tax(Decimal("12.34"), Decimal(0)) == (12_340_000, 0)
