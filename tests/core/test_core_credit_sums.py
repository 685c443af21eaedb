"""Sums of credits and of their squares: exact, additive, and enough for shares and their errors."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.attribution_core.domain.journeys import ChannelIndex, Floats, JourneyBatch, Outcomes
from attributary.attribution_core.models.channel_totals import CreditTotals, Weights
from attributary.attribution_core.models.rules import RULES, RuleSettings
from attributary.attribution_core.statistics import credit_sums
from attributary.attribution_core.statistics.credit_sums import CreditSums, CreditSumsError
from attributary.attribution_core.statistics.sets import set_shares

INDEX = ChannelIndex.of("abcd")
Row = tuple[list[str], int, int]
ROWS = st.lists(
    st.tuples(st.lists(st.sampled_from("abcd"), max_size=6), st.integers(0, 4), st.integers(-(10**12), 10**15)),
    min_size=1,
    max_size=12,
)
RULE = st.sampled_from([*sorted(RULES), "shapley"])


def encoded(rows: list[Row]) -> tuple[JourneyBatch, Outcomes]:
    conversions = np.array([row[1] for row in rows], dtype=np.int64)
    values = np.array([row[2] for row in rows], dtype=np.int64) * conversions  # as much each, in whole micros
    return JourneyBatch.of_paths([row[0] for row in rows], INDEX), Outcomes(conversions, conversions + 1, values)


def credits_of(rule: str, batch: JourneyBatch) -> Floats:
    return set_shares(batch) if rule == "shapley" else RULES[rule](batch, RuleSettings())


def sums_of(rows: list[Row], rule: str) -> CreditSums:
    batch, outcomes = encoded(rows)
    return CreditSums.fit(rule, batch, credits_of(rule, batch), outcomes)


def text(sums: CreditSums) -> str:
    return json.dumps(sums.to_document())


@settings(max_examples=60, deadline=None)
@given(ROWS, ROWS, RULE)
def test_sums_add_subtract_and_travel(one: list[Row], two: list[Row], rule: str) -> None:
    a, b, both = sums_of(one, rule), sums_of(two, rule), sums_of(one + two, rule)
    assert text(a.add(b)) == text(b.add(a)) == text(both)
    assert text(both.subtract(b)) == text(a)
    assert text(a.subtract(a)) == text(CreditSums(rule))
    assert text(CreditSums.from_document(json.loads(text(both)))) == text(both)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(credit_sums, "_ROWS", 3)
        assert text(sums_of(one + two, rule)) == text(both)


@settings(max_examples=60, deadline=None)
@given(ROWS, RULE)
def test_shares_and_errors_are_those_of_single_conversions(rows: list[Row], rule: str) -> None:
    batch, outcomes = encoded(rows)
    credits_ = credits_of(rule, batch)
    sums = CreditSums.fit(rule, batch, credits_, outcomes)
    totals = CreditTotals(rule, batch, credits_).totals(Weights.observed(outcomes))
    filled = (batch.lengths > 0) & (outcomes.conversions > 0)
    single = np.zeros((int(outcomes.conversions[filled].sum()), len(INDEX)))
    worth = np.repeat(outcomes.value_micros[filled] / outcomes.conversions[filled], outcomes.conversions[filled])
    place = 0
    for journey in np.flatnonzero(filled).tolist():
        low, high = batch.offsets[journey], batch.offsets[journey + 1]
        credit = np.bincount(batch.channels[low:high], credits_[low:high], len(INDEX))
        for _ in range(int(outcomes.conversions[journey])):
            single[place], place = credit, place + 1
    for of_value, weight in ((False, np.ones(place)), (True, worth)):
        share, errors = sums.shares(INDEX, of_value=of_value), sums.errors(INDEX, of_value=of_value)
        whole = float(weight.sum())
        if round(whole) == 0:
            continue
        size = float(np.abs(weight).sum()) / abs(whole)  # refunds that cancel values make shares of any size
        assert share == pytest.approx(totals[1 if of_value else 0] / whole, abs=1e-8 * size)
        wanted = np.sqrt((weight[:, None] ** 2 * (single - share) ** 2).sum(axis=0)) / abs(whole)
        assert errors**2 == pytest.approx(wanted**2, abs=1e-8 * size**2 * (1 + float((share**2).max())))


def test_sums_are_refused_where_they_do_not_belong() -> None:
    one, other = sums_of([(["a"], 1, 5)], "first"), sums_of([(["a"], 1, 5)], "last")
    with pytest.raises(CreditSumsError, match="first and of last"):
        one.add(other)
    with pytest.raises(CreditSumsError, match="had not been added"):
        CreditSums("first").subtract(one)
    document = one.to_document()
    for change in (
        {"schema": 9},
        {"sums": [1]},
        {"channels": {"a": [1]}},
        {"channels": [1]},
        {"channels": {"a": ["x"]}},
    ):
        with pytest.raises(CreditSumsError):
            CreditSums.from_document({**document, **change})


def test_nothing_converted_is_unknown_and_large_values_are_exact() -> None:
    nothing = sums_of([(["a"], 0, 0), ([], 3, 5)], "linear")
    assert np.isnan(nothing.shares(INDEX)).all()
    assert np.isnan(nothing.errors(INDEX)).all()
    large = 4 * 10**18
    sums = sums_of([(["a", "b"], 1, large)], "first")
    assert sums.value_squares == large**2
    assert sums.channels["a"][4] == large**2 << 60
    assert sums.shares(INDEX, of_value=True).tolist() == [1, 0, 0, 0]


def test_rows_of_another_channel_cannot_be_taken_out() -> None:
    one, other = (sums_of([([name], 1, 5)], "first") for name in "ab")
    with pytest.raises(CreditSumsError, match="had not been added"):
        one.subtract(other)


def test_errors_of_value_are_positive_also_where_refunds_outweigh() -> None:
    assert (sums_of([(["a"], 1, -30), (["b"], 1, 10)], "first").errors(ChannelIndex.of("ab"), of_value=True) > 0).all()
