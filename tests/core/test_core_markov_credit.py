"""Journeys credited by removal effects: known effects, rare channels, settings."""

from __future__ import annotations

import numpy as np
import pytest

from attributary.attribution_core.domain.journeys import ChannelIndex, JourneyBatch, Outcomes
from attributary.attribution_core.models.markov_credit import MarkovModel, MarkovSettings
from attributary.attribution_core.models.poisson_credit import PoissonSettings
from attributary.attribution_core.statistics.state import JourneyState


def test_every_touch_is_credited_by_the_effect_of_its_channel() -> None:
    effects = np.array([0.2, 0.6])
    model = MarkovModel("v", ChannelIndex.of("ab"), effects, np.stack([effects, effects]), MarkovSettings())
    batch = JourneyBatch.of_paths([["a", "b"], ["a", "b", "b"], ["a"]])
    assert model.credits(batch) == pytest.approx([0.25, 0.75, 1 / 7, 3 / 7, 3 / 7, 1])
    assert model.confidence(batch) == pytest.approx([1, 1, 1])


def test_a_journey_of_one_rare_or_unknown_touch_falls_back() -> None:
    paths = JourneyBatch.of_paths([["a"], ["b"], ["rare"]])
    outcomes = Outcomes(np.array([90, 80, 2]), np.array([50, 60, 9]), np.zeros(3, dtype=np.int64))
    model = MarkovModel.train("v", JourneyState.fit(paths, outcomes))
    batch = JourneyBatch.of_paths([["rare"], ["a"], ["new"], []])
    assert model.fallback(batch).tolist() == [True, False, True, False]
    assert np.isnan(model.confidence(batch)).tolist() == [True, False, True, True]


@pytest.mark.parametrize("kind", [MarkovSettings, PoissonSettings])
def test_one_draw_and_no_minimum_are_the_least_there_can_be(kind: type[MarkovSettings | PoissonSettings]) -> None:
    assert kind(minimum_conversions=0, draws=1).draws == 1
    with pytest.raises(ValueError, match="minimum_conversions: must be a whole number from 0"):
        kind(minimum_conversions=-1)
    with pytest.raises(ValueError, match="draws: must be a whole number from 1"):
        kind(draws=0)
