"""Totals of the estimators that tell conversions from value."""

from __future__ import annotations

import numpy as np
import pytest

from attributary.attribution_core import analyze
from attributary.attribution_core.domain.journeys import JourneyBatch
from attributary.attribution_core.models.channel_totals import (
    RateShapleyTotals,
    RemovalCreditTotals,
    RemovalTotals,
    Weights,
    credits_by_effect,
)
from tests.core.unequal import UNEQUAL


def test_credits_by_removal_effect_use_effects_on_conversions() -> None:
    batch = JourneyBatch.of_paths([["a", "b"], ["b"], ["a"], ["c", "a"]])
    weights = Weights(np.array([60.0, 45, 40, 50]), np.array([140.0, 200, 400, 900]), np.array([60.0, 450, 4000, 50]))
    effects = RemovalTotals(batch).effects(weights)
    assert abs(effects[0] - effects[1]).max() > 0.05
    by_conversions = credits_by_effect(batch, effects[0]).totals(weights)
    assert RemovalCreditTotals(batch).totals(weights) == pytest.approx(by_conversions)


def test_the_rate_game_of_a_single_channel_is_all_of_it() -> None:
    one = Weights(np.ones(1), np.zeros(1), np.ones(1))
    values, errors = RateShapleyTotals(JourneyBatch.of_paths([["a"]])).values(one)
    assert values.tolist() == [[1.0], [1.0]]
    assert errors.tolist() == [[0.0], [0.0]]


def test_the_chain_of_value_is_another_one_than_that_of_conversions() -> None:
    report = analyze(UNEQUAL, ["markov_shapley"])["markov_shapley"]
    assert abs(np.array(report.column("value_share")) - np.array(report.column("share"))).max() > 0.05
