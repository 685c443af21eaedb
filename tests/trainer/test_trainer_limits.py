"""Limits of training: a bounded state has the report of the whole one; a large cohort keeps its sums only."""

from __future__ import annotations

import numpy as np
import pytest

from attributary.attribution_core.domain.journeys import JourneyBatch, Outcomes
from attributary.attribution_core.statistics.state import JourneyState
from attributary.consumers.training import cohort
from attributary.consumers.training.channel_report import channel_report, shapley_shares


def test_a_bounded_state_has_the_same_population() -> None:
    generator = np.random.default_rng(5)
    paths = [generator.choice(list("abcdefg"), generator.integers(0, 6)).tolist() for _ in range(800)]
    converted = generator.random(800) < 0.4
    whole = JourneyState.fit(JourneyBatch.of_paths(paths), Outcomes.of(converted, converted * 7_000_000))
    for limit in (1, 10):
        bounded = JourneyState.from_document(whole.bounded(limit).to_document())
        assert bounded.overflow.sets == len(whole.sets) - limit
        for one, two in zip(shapley_shares(bounded), shapley_shares(whole), strict=True):
            assert one == pytest.approx(two, rel=1e-12)
        said, wanted = channel_report(bounded, draws=20), channel_report(whole, draws=20)
        assert {key: said[key] for key in said if key != "channels"} == {
            key: wanted[key] for key in wanted if key != "channels"
        }


def test_a_cohort_of_too_many_paths_keeps_nothing_by_journey(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cohort, "MAX_PATHS", 2)
    counted = cohort.Cohort()
    for path in (["a"], ["b"], ["a", "b"], ["b", "a"]):
        counted.add(JourneyBatch.of_paths([path]), Outcomes.of([True], [5]))
    assert counted.table() is None
    assert counted._lags == []
    said = counted.report()
    assert (said["distinct_paths"], said["insights"]) == (None, None)
    assert said["population"]["conversions"] == 4
