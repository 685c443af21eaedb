from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.attribution_core.domain.journeys import ChannelIndex, Floats, JourneyBatch, Outcomes
from attributary.attribution_core.models.markov import (
    Chain,
    Method,
    first_order_chain,
    first_order_removal,
    removal_effects,
)
from attributary.attribution_core.models.markov_shapley import _exact, _marginals, _sampled, _worths, markov_shapley
from attributary.attribution_core.models.removal_solver import ConvergenceError
from attributary.attribution_core.statistics.chain_counts import count_chain
from attributary.attribution_core.statistics.ngram_states import NgramSteps, SparseChain, States, ngram_numbers
from attributary.attribution_core.statistics.state import JourneyState

METHODS: tuple[Method, ...] = ("sparse", "blocks")
Paths = list[tuple[list[str], int, int]]
PATHS: st.SearchStrategy[Paths] = st.lists(
    st.tuples(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=7), st.integers(0, 5), st.integers(0, 9)).filter(
        lambda row: row[1] + row[2] > 0
    ),
    min_size=1,
    max_size=12,
)


def encoded(paths: Paths) -> tuple[JourneyBatch, Outcomes]:
    batch = JourneyBatch.of_paths([path for path, _, _ in paths])
    conversions = np.array([row[1] for row in paths], dtype=np.int64)
    return batch, Outcomes(conversions, np.array([row[2] for row in paths], dtype=np.int64), conversions * 7_000_000)


def chain_of(batch: JourneyBatch, outcomes: Outcomes, order: int) -> SparseChain:
    rewards = np.column_stack((outcomes.conversions, outcomes.value_micros)).astype(np.float64)
    return NgramSteps.of(batch, order).chain(rewards, (outcomes.conversions + outcomes.nulls).astype(np.float64))


def presence(paths: Paths, name: str) -> float:
    return sum(n for path, n, _ in paths if name in path) / sum(n for _, n, _ in paths)


@settings(max_examples=60, deadline=None)
@given(PATHS, st.integers(1, 4))
def test_chain_identities(paths: Paths, order: int) -> None:
    batch, outcomes = encoded(paths)
    dense = removal_effects(chain_of(batch, outcomes, order), "dense")
    journeys = int((outcomes.conversions + outcomes.nulls).sum())
    assert dense.total[0] == pytest.approx(outcomes.conversions.sum() / journeys, abs=1e-13)
    if outcomes.conversions.sum() == 0:
        assert np.isnan(dense.effects).all()
        return
    assert (dense.effects >= -1e-12).all()
    assert (dense.effects <= 1 + 1e-12).all()
    # every conversion is worth the same here, so value and conversions have the same effects
    assert dense.effects[1] == pytest.approx(dense.effects[0], abs=1e-12)
    for method in METHODS:
        swept = removal_effects(chain_of(batch, outcomes, order), method)
        assert np.abs(swept.effects - dense.effects).max() < 1e-12


@settings(max_examples=40, deadline=None)
@given(PATHS)
def test_with_the_whole_past_as_state_the_effect_is_the_support(paths: Paths) -> None:
    batch, outcomes = encoded(paths)
    if outcomes.conversions.sum() == 0:
        return
    found = removal_effects(chain_of(batch, outcomes, 8)).effects[0]
    wanted = [presence(paths, name) for name in batch.index.names]
    assert found == pytest.approx(wanted, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(PATHS)
def test_counts_and_steps_give_the_same_chain_of_first_order(paths: Paths) -> None:
    batch, outcomes = encoded(paths)
    if outcomes.conversions.sum() == 0:
        return
    state = JourneyState.fit(batch, outcomes)
    counts = state.chain
    chain = first_order_chain(counts.steps, counts.opens, counts.conversions, counts.conversions + counts.nulls)
    found = removal_effects(chain_of(batch, outcomes, 1)).effects[0]
    assert first_order_removal(chain).effects == pytest.approx(found, abs=1e-12)
    # expected visits are the visits per journey, repeats in direct succession counted once
    inverse = np.linalg.inv(np.eye(len(state.index)) - chain.steps)
    visits = (counts.steps.sum(axis=0) + counts.opens) / counts.opens.sum()
    assert chain.start @ inverse == pytest.approx(visits, abs=1e-12)


def test_a_single_channel_is_in_every_conversion() -> None:
    batch, outcomes = encoded([(["a", "a"], 3, 4), (["a"], 1, 9)])
    for order in (1, 2, 3):
        assert removal_effects(chain_of(batch, outcomes, order)).effects[0].tolist() == [1.0]


def test_all_converting_and_empty_journeys() -> None:
    batch, outcomes = encoded([(["a", "b"], 3, 0), (["a"], 1, 0), ([], 5, 1)])
    found = removal_effects(chain_of(batch, outcomes, 1))
    assert found.total[0] == 1.0  # the chain holds journeys with touches only
    assert found.effects[0] == pytest.approx([1.0, 0.75])
    nothing = removal_effects(chain_of(*encoded([([], 5, 1)]), order=1))
    assert nothing.total.tolist() == [0.0, 0.0]


def test_order_must_be_countable() -> None:
    batch, _ = encoded([(["a"], 1, 0)])
    for order in (0, -1, 63):
        with pytest.raises(ValueError, match="order"):
            NgramSteps.of(batch, order)


def test_step_numbers_do_not_reach_into_the_journey_before() -> None:
    batch = JourneyBatch.of_paths([["a", "b"], ["b"], [], ["b", "a", "a"]])
    assert ngram_numbers(batch, 2).tolist() == [1, 3 + 2, 2, 2, 6 + 1, 18 + 3 + 1]


def test_states_without_an_end_are_refused() -> None:
    loop = SparseChain(
        np.array([1.0, 0.0]),
        np.array([0, 1]),
        np.array([1, 0]),
        np.array([1.0, 1.0]),
        np.array([[0.1], [0.0]]),
        np.array([1.0, 1.0]),
        States(1, 3, np.array([1, 2])),
    )
    for method in METHODS:
        with pytest.raises(ConvergenceError):
            removal_effects(loop, method)


def random_chain(channels: int, seed: int) -> tuple[Floats, Floats, Floats]:
    generator = np.random.default_rng(seed)
    rows = generator.dirichlet(np.ones(channels + 2), channels)
    return generator.dirichlet(np.ones(channels)), rows[:, :channels], rows[:, channels]


@pytest.mark.parametrize("baseline", [(), (0,), (1, 3)])
def test_markov_shapley_is_efficient_and_its_samples_agree(baseline: tuple[int, ...]) -> None:
    chain = Chain(*random_chain(6, seed=5))
    exact = markov_shapley(chain, baseline)
    assert exact.values.sum() + exact.baseline == pytest.approx(exact.total, abs=1e-14)
    assert (exact.values[list(baseline)] == 0).all()
    fixed = np.zeros(6, dtype=np.bool_)
    fixed[list(baseline)] = True
    values, errors, _ = _sampled(chain, fixed, 4_000, seed=3)
    assert (np.abs(values - exact.values) <= 4 * errors + 1e-12).all()


def test_what_a_channel_adds_is_the_difference_of_two_worths() -> None:
    chain = Chain(*random_chain(5, seed=9))
    masks = (np.arange(32)[:, None] >> np.arange(5)) & 1 == 1
    gains = _marginals(chain, masks)
    for channel in range(5):
        with_, without = masks.copy(), masks.copy()
        with_[:, channel], without[:, channel] = True, False
        assert gains[:, channel] == pytest.approx(_worths(chain, with_) - _worths(chain, without), abs=1e-13)


def test_markov_shapley_is_the_unique_uniform_credit_of_simulated_walks() -> None:
    start, steps, reward = random_chain(4, seed=2)
    generator = np.random.default_rng(1)
    found, walks = np.zeros(4), 20_000
    for _ in range(walks):
        here, seen = int(generator.choice(4, p=start)), set()
        while True:
            seen.add(here)
            after = int(np.searchsorted(np.cumsum([*steps[here], reward[here]]), generator.random()))
            if after >= 4:
                break
            here = after
        if after == 4:
            found[list(seen)] += 1 / len(seen)
    assert markov_shapley(Chain(start, steps, reward)).values == pytest.approx(found / walks, abs=0.012)


def test_many_channels_are_sampled_and_scaled_to_the_exact_total() -> None:
    found = markov_shapley(Chain(*random_chain(30, seed=4)), (0,), draws=400)
    assert found.draws == 400
    assert found.values.sum() + found.baseline == pytest.approx(found.total, abs=1e-14)
    assert found.values[0] == 0


def counted_slowly(batch: JourneyBatch, outcomes: Outcomes) -> tuple[list[list[int]], list[int]]:
    size = len(batch.index)
    steps, opens = [[0] * size for _ in range(size)], [0] * size
    for journey in range(len(batch)):
        path = batch.channels[batch.offsets[journey] : batch.offsets[journey + 1]].tolist()
        weight = int(outcomes.conversions[journey] + outcomes.nulls[journey])
        for source, target in pairwise(path):
            steps[source][target] += weight * (source != target)
        if path:
            opens[path[0]] += weight
    return steps, opens


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.integers(0, 299), max_size=6), st.booleans(), st.integers(1, 3)), max_size=8),
    st.booleans(),
)
def test_counting_is_exact_for_single_and_weighted_journeys(
    rows: list[tuple[list[int], bool, int]], single: bool
) -> None:
    index = ChannelIndex.of(f"{code:03}" for code in range(300))
    batch = JourneyBatch.of_paths([[f"{code:03}" for code in path] for path, _, _ in rows], index)
    weight = np.array([1 if single else weight for _, _, weight in rows], dtype=np.int64)
    flags = np.array([flag for _, flag, _ in rows], dtype=np.bool_)
    outcomes = Outcomes(weight * flags, weight * ~flags, weight * flags * (2**53 if single else 7))
    found = count_chain(batch.channels, batch.offsets, outcomes, 300)
    steps, opens = counted_slowly(batch, outcomes)
    assert found.steps.tolist() == steps
    assert found.opens.tolist() == opens
    ends = [[0] * 300 for _ in range(3)]
    for journey in np.flatnonzero(batch.lengths > 0).tolist():
        last = int(batch.channels[batch.offsets[journey + 1] - 1])
        for place, part in enumerate((outcomes.conversions, outcomes.nulls, outcomes.value_micros)):
            ends[place][last] += int(part[journey])
    assert [part.tolist() for part in (found.conversions, found.nulls, found.value_micros)] == ends


def test_errors_of_sampled_sets_are_those_of_repeated_sampling() -> None:
    start, steps, reward = random_chain(14, seed=4)
    chain = Chain(start, steps, reward * 0.1)
    fixed = np.zeros(14, dtype=np.bool_)
    fixed[0] = True
    exact = _exact(chain, fixed, np.arange(1, 14))
    found = [markov_shapley(chain, (0,), draws=200, seed=seed) for seed in range(30)]
    assert all(each.errors[0] == 0 for each in found)
    off = np.sqrt(np.mean([(each.values - exact) ** 2 for each in found], axis=0))[1:]
    said = np.mean([each.errors for each in found], axis=0)[1:]
    assert (off < 1.3 * said).all()
    assert (off > 0.05 * said).all()


def test_values_are_counted_by_last_channel_beyond_what_floats_can_hold() -> None:
    batch = JourneyBatch.of_paths([["a", "b"], ["b", "a"], ["c"], ["c"]])
    values = np.array([5, 70, 2**53, 1])
    outcomes = Outcomes(np.array([1, 1, 1, 1]), np.zeros(4, dtype=np.int64), values)
    found = count_chain(batch.channels, batch.offsets, outcomes, 3)
    assert found.value_micros.tolist() == [70, 5, 2**53 + 1]
