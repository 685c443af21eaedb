"""The rules on whole populations: which journeys they count, and what their numbers are of."""

from __future__ import annotations

import numpy as np

from attributary.attribution_core.analysis.insights import Insight, population_insights
from attributary.attribution_core.domain.journeys import JourneyBatch, Outcomes
from attributary.attribution_core.tables.paths import JourneyTable

DAY = 86_400_000_000
Rows = list[tuple[list[str], int, int]]
APART: Rows = [(["a"], 200, 800), (["b"], 200, 800), (["a", "b"], 360, 640), (["c"], 0, 900)]
BEFORE: Rows = [(["a"], 600, 2_000), (["b"], 100, 3_000)]
NOW: Rows = [(["a"], 100, 3_000), (["b"], 600, 2_000)]


def table(rows: Rows) -> JourneyTable:
    conversions, nulls = (np.array([row[place] for row in rows], dtype=np.int64) for place in (1, 2))
    batch = JourneyBatch.of_paths([path for path, _, _ in rows])
    return JourneyTable(batch, Outcomes(conversions, nulls, conversions * 1_000_000))


def by_rule(found: list[Insight], rule: str) -> dict[tuple[str, ...], Insight]:
    return {insight.subject: insight for insight in found if insight.rule_id == rule}


def text_of(insight: Insight) -> str:
    assert insight.text is not None
    return insight.text


def ends_of(insight: Insight) -> tuple[float, float]:
    assert insight.low is not None
    assert insight.high is not None
    return insight.low, insight.high


def test_the_lag_is_from_the_first_touch_to_the_conversion() -> None:
    batch = JourneyBatch.of([[(3 * DAY, "1", "a"), (4 * DAY, "2", "b")]] * 40, [5 * DAY] * 40)
    timed = JourneyTable(batch, Outcomes.of([True] * 40, [0] * 40), batch.converted_at)
    assert by_rule(population_insights(timed, draws=20), "population.lag")[()].estimate == 2


def test_conversions_without_touches_have_no_length() -> None:
    rows: Rows = [([], 100, 5), (["a", "b"], 40, 9)]
    found = by_rule(population_insights(table(rows), draws=20), "population.length")[()]
    assert (found.estimate, found.n) == (2, 40)


def test_the_interval_of_a_quantile_is_between_the_ranks_that_hold_it() -> None:
    lags = np.arange(1, 1_001, dtype=np.int64) * DAY
    found = by_rule(population_insights(table([(["a"], 40, 5)]), lags_micros=lags, draws=20), "population.lag_p90")[()]
    assert (found.estimate, *ends_of(found)) == (900, 885, 917)  # 900 +- 1.645 sqrt(1000 x 0.9 x 0.1)


def test_a_share_has_risen_or_fallen() -> None:
    shifts = by_rule(population_insights(table(NOW), before=table(BEFORE), draws=60), "channel.shift")
    assert "fallen" in text_of(shifts["a",])
    assert "risen" in text_of(shifts["b",])
    assert shifts["a",].estimate < 0


def test_the_errors_of_both_periods_count() -> None:
    large = table([(["a"], 60_000, 200_000), (["b"], 50_000, 300_000)])
    small = table([(["a"], 60, 200), (["b"], 50, 300)])
    (low, high), (near, far) = (
        ends_of(by_rule(population_insights(large, before=before, draws=60), "channel.shift")["a",])
        for before in (small, large)
    )
    assert high - low > 10 * (far - near)


def test_a_shift_is_of_channels_of_both_periods_and_rests_on_the_rarer() -> None:
    before = table([(["a"], 100, 300), (["b"], 50, 300)])
    now = table([(["a"], 600, 2_000), (["b"], 100, 3_000), (["new"], 90, 900)])
    shifts = by_rule(population_insights(now, before=before, draws=60), "channel.shift")
    assert {subject: insight.n for subject, insight in shifts.items()} == {("a",): 100, ("b",): 50}


def test_the_concentration_rests_on_all_conversions_with_touches() -> None:
    (found,) = by_rule(
        population_insights(table([(["a"], 40, 60), (["b"], 35, 60), ([], 9, 9)])), "population.concentration"
    ).values()
    assert found.n == 75
    assert text_of(found).endswith("equal channels out of 2")


def test_a_single_touch_is_no_plural() -> None:
    found = population_insights(table([(["a"], 400, 60)]))
    texts = [text_of(each) for each in found if each.rule_id.startswith("population.length")]
    assert texts == [
        "the median converting journey has 1 touch",
        "nine in ten converting journeys have at most 1 touch",
    ]
