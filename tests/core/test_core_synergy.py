"""Pairs of channels: how often the rule claims what is not there, and finds what is."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from attributary.attribution_core.analysis.insights import Insight, population_insights
from attributary.attribution_core.analysis.synergy import synergies
from attributary.attribution_core.domain.journeys import Floats, JourneyBatch, Outcomes
from attributary.attribution_core.tables.paths import JourneyTable

ANALYSES = 200


class Market:
    """Channels that journeys hold independently, and that fail to convert independently but for a factor on one pair.

    Attributes:
        chances: float64[sets], probability of each set of channels, the empty one first.
        rates: float64[sets], conversion rate of each.
    """

    def __init__(self, channels: int, *, activities: tuple[float, ...] = (1.0,), factor: float = 1.0) -> None:
        held = np.array(list(product((False, True), repeat=channels)))
        names = [f"c{code}" for code in range(channels)]
        self.paths = [[name for name, is_in in zip(names, row, strict=True) if is_in] for row in held.tolist()]
        inclusion = [np.where(held, 0.3 * activity, 1 - 0.3 * activity).prod(axis=1) for activity in activities]
        self.chances: Floats = np.mean(inclusion, axis=0)
        strengths = np.linspace(0.02, 0.12, channels)
        rates = 1 - 0.98 * np.where(held, 1 - strengths, 1.0).prod(axis=1)
        self.rates: Floats = np.where(held[:, 0] & held[:, 1], factor * rates, rates)

    def table(self, generator: np.random.Generator, journeys: int, *, untouched: bool) -> JourneyTable:
        """Draw journeys; those without touches are counted or missing."""
        counts = generator.multinomial(journeys, self.chances)
        conversions = generator.binomial(counts, self.rates).astype(np.int64)
        low = 0 if untouched else 1
        outcomes = Outcomes(conversions[low:], (counts - conversions)[low:].astype(np.int64), conversions[low:] * 1)
        return JourneyTable(JourneyBatch.of_paths(self.paths[low:]), outcomes)

    def claims(self, seed: int, journeys: int, *, untouched: bool, analyses: int = ANALYSES) -> list[list[Insight]]:
        """Return what each of some analyses claims of pairs."""
        generator = np.random.default_rng(seed)
        tables = [self.table(generator, journeys, untouched=untouched) for _ in range(analyses)]
        return [[each for each in pairs_of(table) if each.text is not None] for table in tables]


def pairs_of(table: JourneyTable) -> list[Insight]:
    return [each for each in population_insights(table, draws=2) if each.rule_id == "pair.synergy"]


def test_many_journeys_do_not_make_a_synergy_of_independent_channels() -> None:
    claimed = Market(6).claims(5, 30_000, untouched=False, analyses=40)
    assert sum(map(bool, claimed)) <= 4


@pytest.mark.slow
@pytest.mark.parametrize("untouched", [False, True])
@pytest.mark.parametrize("journeys", [3_000, 30_000])
@pytest.mark.parametrize("activities", [(1.0,), (0.4, 0.8, 1.6, 2.4)])
def test_independent_channels_are_seldom_a_synergy(
    activities: tuple[float, ...], journeys: int, untouched: bool
) -> None:
    market = Market(6, activities=activities)
    claimed = market.claims(7, journeys, untouched=untouched)
    assert sum(map(bool, claimed)) <= 0.1 * ANALYSES
    assert len(pairs_of(market.table(np.random.default_rng(8), 2 * journeys, untouched=untouched))) == 15


@pytest.mark.slow
def test_twelve_independent_channels_with_few_journeys_in_each_set() -> None:
    claimed = Market(12).claims(9, 5_000, untouched=False, analyses=100)
    assert sum(map(bool, claimed)) <= 10


@pytest.mark.parametrize("untouched", [False, True])
@pytest.mark.parametrize(("factor", "side"), [(1.5, "more"), (0.5, "less")])
def test_a_synergy_is_found(factor: float, side: str, untouched: bool) -> None:
    claimed = Market(6, factor=factor).claims(11, 30_000, untouched=untouched, analyses=40)
    texts = [each.text for found in claimed for each in found if each.subject == ("c0", "c1")]
    assert len(texts) >= 38
    assert all(text is not None and f"associated with {side} conversions" in text for text in texts)


@pytest.mark.slow
def test_the_interval_holds_the_difference_in_nine_of_ten_tables() -> None:
    market, generator = Market(6), np.random.default_rng(13)
    differences = []
    for _ in range(ANALYSES):
        drawn = market.table(generator, 30_000, untouched=False)
        found = synergies(drawn.batch, drawn.outcomes)
        differences.append(found.difference / found.error)
    inside = np.abs(np.array(differences)) < 1.645
    assert 0.87 <= inside.mean() <= 0.93


def test_journeys_without_touches_are_compared_only_if_all_are_counted() -> None:
    rows = [(["a"], 200, 800), (["b"], 200, 800), (["a", "b"], 400, 600)]
    assert pairs_of(table(rows)) == []
    assert pairs_of(table([*rows, ([], 90, 0)])) == []  # the store's conversions without touches
    (counted_,) = pairs_of(table([*rows, ([], 100, 900)]))
    assert counted_.estimate == pytest.approx(0.4 - (1 - 0.8 * 0.8 / 0.9))
    assert counted_.n == 1_000
    assert counted_.text == (
        "a together with b is associated with more conversions than independence would give, "
        "by 11.1 points of the conversion rate"
    )


def test_only_journeys_with_the_same_other_channels_are_compared() -> None:
    rows = [
        (["c"], 10, 990), (["a", "c"], 100, 900), (["b", "c"], 100, 900), (["a", "b", "c"], 182, 818),
        (["a", "b"], 900, 100), (["b", "d"], 900, 100),
    ]  # fmt: skip
    found = {each.subject: each for each in pairs_of(table(rows))}
    assert found["a", "b"].n == 1_000
    assert found["a", "b"].estimate == pytest.approx(0.182 - (1 - 0.9 * 0.9 / 0.99))
    assert found["a", "b"].text is None


def test_a_pair_without_any_conversion_is_no_silent_one() -> None:
    rows = [(["c"], 300, 700), (["a", "c"], 300, 700), (["b", "c"], 300, 700), (["a", "b", "c"], 0, 1_000)]
    found = {each.subject: each for each in pairs_of(table(rows))}
    pair = found["a", "b"]
    assert pair.text is not None
    assert "less conversions" in pair.text
    assert pair.low is not None
    assert pair.high is not None
    assert pair.estimate == pytest.approx(-0.3)
    assert pair.low < -0.3 < pair.high < 0


def table(rows: list[tuple[list[str], int, int]]) -> JourneyTable:
    conversions, nulls = (np.array([row[place] for row in rows], dtype=np.int64) for place in (1, 2))
    return JourneyTable(JourneyBatch.of_paths([row[0] for row in rows]), Outcomes(conversions, nulls, conversions * 1))
