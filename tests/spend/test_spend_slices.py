"""Revisions of spend: whatever comes in whatever order, the newest revision is what the newest report said."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attributary.attribution_core.spend.slices import Given, SpendRow, Stored, added, changes, without_tax

ROW = SpendRow("c1", "EUR", 10_000_000, campaign_id="c1", campaign_name="Spring", clicks=3)
AMOUNTS = st.dictionaries(st.sampled_from("abcd"), st.integers(-5, 50))
IMPORTS = st.tuples(AMOUNTS, st.booleans())


def apply(newest: dict[str, Stored], given_: Given, complete_at_us: int = 0) -> dict[str, Stored]:
    """What is stored of a slice after a report."""
    found = changes(newest, given_, complete_at_us)
    confirmed = {entity: newest[entity]._replace(reported_at_us=given_.reported_at_us) for entity in found.confirmed}
    return newest | confirmed | {row.entity: Stored(row, given_.reported_at_us) for row in found.rows}


@given(st.lists(IMPORTS, max_size=8))
def test_the_newest_revision_is_what_the_last_of_equally_old_reports_said(
    imports: list[tuple[dict[str, int], bool]],
) -> None:
    newest: dict[str, Stored] = {}
    expected: dict[str, int] = {}
    for amounts, is_complete in imports:
        report = Given([SpendRow(entity, "EUR", amount) for entity, amount in amounts.items()], is_complete)
        newest = apply(newest, report)
        expected = (dict.fromkeys(expected, 0) if is_complete else expected) | amounts
        assert {entity: each.row.net_micros for entity, each in newest.items()} == expected
        again = changes(newest, report)
        assert again.rows == ()  # the same report once more
        assert again[2:] == (0, 0, len(report.rows), 0, 0)


@given(
    st.lists(IMPORTS, max_size=6).flatmap(
        lambda imports: st.tuples(
            st.just(imports), st.lists(st.integers(0, max(len(imports) - 1, 0)), max_size=6 if imports else 0)
        )
    ),
    st.randoms(use_true_random=False),
)
def test_reports_in_any_order_and_repeated_leave_the_same_spend(
    drawn: tuple[list[tuple[dict[str, int], bool]], list[int]], chance: Random
) -> None:
    imports, repeats = drawn
    reports = [
        Given([SpendRow(entity, "EUR", amount) for entity, amount in amounts.items()], is_complete, moment)
        for moment, (amounts, is_complete) in enumerate(imports, 1)
    ]
    expected: dict[str, int] = {}
    for amounts, is_complete in imports:
        expected = ({} if is_complete else expected) | amounts
    arriving = [*reports, *(reports[number] for number in repeats)]
    chance.shuffle(arriving)
    newest: dict[str, Stored] = {}
    complete_at = 0
    for report in arriving:
        newest = apply(newest, report, complete_at)
        complete_at = max(complete_at, report.reported_at_us) if report.is_complete else complete_at
    assert {entity: each.row.net_micros for entity, each in newest.items() if not each.row.is_removed} == expected


def test_a_complete_report_takes_away_what_it_lacks_and_a_later_one_brings_it_back() -> None:
    stored = {"c1": Stored(ROW, 5)}
    assert changes(stored, Given([], reported_at_us=6)).rows == ()
    gone = changes(stored, Given([], is_complete=True, reported_at_us=6))
    assert (gone.removed, gone.rows[0].net_micros, gone.rows[0].clicks) == (1, 0, 0)
    assert gone.rows[0].is_removed
    assert gone.rows[0].campaign_name == "Spring"
    back = changes({"c1": Stored(gone.rows[0], 6)}, Given([ROW], is_complete=True, reported_at_us=7))
    assert (back.changed, back.rows) == (1, (ROW,))


def test_an_older_report_changes_nothing_that_a_newer_one_said() -> None:
    older = Given([replace(ROW, net_micros=1), replace(ROW, entity="c2", campaign_id="c2")], reported_at_us=4)
    found = changes({"c1": Stored(ROW, 5)}, older)
    assert ([row.entity for row in found.rows], found.new, found.late) == (["c2"], 1, 1)
    assert changes({"c1": Stored(ROW, 5)}, older, complete_at_us=5) == ((), (), 0, 0, 0, 0, 2)
    assert changes({"c1": Stored(ROW, 5)}, Given([], is_complete=True, reported_at_us=4)).removed == 0
    assert changes({"c1": Stored(ROW, 5)}, Given([ROW], reported_at_us=6)).confirmed == ("c1",)


def test_a_new_name_is_a_revision() -> None:
    renamed = replace(ROW, campaign_name="Summer")
    assert changes({"c1": Stored(ROW, 0)}, Given([renamed])) == ((renamed,), (), 0, 1, 0, 0, 0)


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
