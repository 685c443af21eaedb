"""Sums of states by weight, and forgetting in whole numbers: exact, whatever the order and the partition."""

from __future__ import annotations

import random

import numpy as np
import pytest

from attributary.attribution_core.domain.journeys import JourneyBatch, Outcomes
from attributary.attribution_core.domain.lookback import MICROS_PER_DAY
from attributary.attribution_core.models.markov_credit import MarkovModel, MarkovSettings
from attributary.attribution_core.statistics.forgetting import UNIT, Forgetting, PeriodState, forget
from attributary.attribution_core.statistics.state import JourneyState

HALF_LIFE = Forgetting(7 * MICROS_PER_DAY)
CHANNELS = ("mail", "search", "social")


def drawn(seed: int, journeys: int = 60) -> JourneyState:
    chance = random.Random(seed)
    paths = [chance.choices(CHANNELS, k=chance.randint(0, 4)) for _ in range(journeys)]
    converted = [chance.random() < 0.4 for _ in paths]
    values = [chance.randint(-5, 90) * 1_000_000 if each else 0 for each in converted]
    return JourneyState.fit(JourneyBatch.of_paths(paths), Outcomes.of(converted, values))


def days(number: int) -> list[PeriodState]:
    return [PeriodState(day * MICROS_PER_DAY, drawn(day)) for day in range(number)]


def test_a_weighted_sum_is_adding_so_often() -> None:
    one, two = drawn(1), drawn(2)
    added = one.add(two).add(two).add(two)
    assert JourneyState.weighted_sum([(3, two), (1, one), (0, drawn(3))]).to_document() == added.to_document()
    assert JourneyState.weighted_sum([]).to_document() == JourneyState.empty().to_document()
    micro = JourneyState.fit(JourneyBatch.of_paths([["a"]]), Outcomes.of([True], [3]))
    rounded = JourneyState.weighted_sum([(1, micro)], value_shift=1)  # half a micro is rounded up
    assert (rounded.value_micros, rounded.chain.value_micros.tolist()) == (2, [2])
    halved = JourneyState.weighted_sum([(2, one)], value_shift=1)
    assert halved.value_micros == one.value_micros
    assert halved.conversions == 2 * one.conversions
    bare = one.without_value()
    assert (bare.value_micros, bare.conversions, bare.nulls) == (0, one.conversions, one.nulls)
    assert not bare.chain.value_micros.any()


def test_forgetting_does_not_depend_on_order_or_partition() -> None:
    whole = days(20)
    chance = random.Random(1)
    parts = [PeriodState(day * MICROS_PER_DAY, drawn(100 + day)) for day in range(20)] + whole
    chance.shuffle(parts)
    merged = [PeriodState(each.middle_micros, drawn(100 + place).add(each.state)) for place, each in enumerate(whole)]
    one, two = forget(parts, HALF_LIFE), forget(merged, HALF_LIFE)
    assert one.state.to_document() == two.state.to_document()
    assert (one.journeys, one.weight, one.n_eff) == (two.journeys, two.weight, two.n_eff)


def test_the_whole_numbers_are_the_weights() -> None:
    periods = days(30)
    found = forget(periods, HALF_LIFE)
    assert found.state.index.names == CHANNELS
    assert found.origin_micros == 29 * MICROS_PER_DAY
    weights = np.exp2((np.arange(30) - 29) / 7)
    steps = [each.state.chain.steps for each in periods]
    assert found.state.chain.steps / UNIT == pytest.approx(np.tensordot(weights, steps, 1), rel=1e-4)
    values = [each.state.chain.value_micros for each in periods]
    assert found.state.chain.value_micros == pytest.approx(weights @ values, rel=1e-4, abs=100)
    assert found.weight == pytest.approx(60 * sum(weights), rel=1e-6)
    assert found.n_eff == pytest.approx(60 * sum(weights) ** 2 / sum(each**2 for each in weights), rel=1e-5)
    assert found.journeys_per_count * UNIT == pytest.approx(found.n_eff / found.weight, rel=1e-9)


def test_a_journey_of_one_half_life_ago_weighs_half() -> None:
    old, new = (
        PeriodState(day * MICROS_PER_DAY, JourneyState.fit(JourneyBatch.of_paths(paths), Outcomes.of(flags, values)))
        for day, paths, flags, values in (
            (0, [["a", "b"], ["a"], ["b"]], [True, False, True], [5, 0, 5]),
            (7, [["c", "b"], ["b"]], [True, False], [5, 0]),
        )
    )
    found = forget([new, old], HALF_LIFE)
    assert found.state.index.names == ("a", "b", "c")
    assert (found.state.chain.opens / UNIT).tolist() == [1.0, 1.5, 1.0]
    assert found.state.chain.value_micros.tolist() == [0, 0.5 * 10 + 5, 0]
    assert (found.journeys, found.weight) == (5, 3 * 0.5 + 2)
    assert found.n_eff == pytest.approx(3.5**2 / (3 * 0.25 + 2))


def test_what_is_many_half_lives_old_is_as_if_it_had_never_been() -> None:
    new = days(1)[0]
    old = PeriodState(
        -30 * 7 * MICROS_PER_DAY, JourneyState.fit(JourneyBatch.of_paths([["old"]]), Outcomes.of([True], [1]))
    )
    found, alone = forget([old, new], HALF_LIFE), forget([new], HALF_LIFE)
    assert found.state.to_document() == alone.state.to_document()
    assert (found.weight, found.n_eff) == (alone.weight, alone.n_eff)
    assert found.journeys == alone.journeys + 1


def test_forgetting_needs_a_half_life() -> None:
    with pytest.raises(ValueError, match="positive"):
        Forgetting(0)


def test_a_long_half_life_forgets_nothing_and_nothing_is_known_of_nothing() -> None:
    periods = days(5)
    found = forget(periods, Forgetting(10**12 * MICROS_PER_DAY))
    plain = JourneyState.weighted_sum((1, each.state) for each in periods)
    assert (found.state.chain.steps == plain.chain.steps * UNIT).all()
    assert found.state.value_micros == plain.value_micros
    assert found.n_eff == pytest.approx(found.journeys)
    nothing = forget([], HALF_LIFE)
    assert (nothing.weight, nothing.n_eff, nothing.journeys_per_count) == (0.0, 0.0, 1.0)


def test_the_model_draws_and_judges_support_by_effective_journeys() -> None:
    state = JourneyState.weighted_sum([(1, drawn(1)), (1, drawn(2))])
    scaled = JourneyState.weighted_sum([(UNIT, state)], value_shift=20)
    plain = MarkovModel.train("1", state, MarkovSettings(minimum_conversions=1))
    same = MarkovModel.train("1", scaled, MarkovSettings(minimum_conversions=1, journeys_per_count=1 / UNIT))
    assert np.allclose(plain.effects, same.effects, rtol=1e-12)
    assert np.array_equal(plain.draws, same.draws)
    known = int(state.conversions_with().min())
    settings = MarkovSettings(minimum_conversions=known + 1, journeys_per_count=1 / UNIT)
    assert np.isnan(MarkovModel.train("1", scaled, settings).effects).any()
    with pytest.raises(ValueError, match="journeys_per_count"):
        MarkovSettings(journeys_per_count=0.0)
