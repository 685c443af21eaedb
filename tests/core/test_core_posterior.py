from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.attribution_core.domain.journeys import Floats, JourneyBatch, Outcomes
from attributary.attribution_core.inference.multiple_testing import benjamini_hochberg, drift, holm, two_sided
from attributary.attribution_core.models.channel_totals import (
    CreditTotals,
    Estimator,
    MarkovShapleyTotals,
    RateShapleyTotals,
    RemovalCreditTotals,
    RemovalTotals,
    Weights,
)
from attributary.attribution_core.models.markov import Chain, first_order_chain, first_order_removal, shares
from attributary.attribution_core.models.posterior import bootstrap_weights, dirichlet_removal, summarize_draws
from attributary.attribution_core.models.rules import linear
from attributary.attribution_core.statistics.credit_sums import CreditSums
from attributary.attribution_core.statistics.sets import set_shares
from attributary.attribution_core.statistics.state import JourneyState

CHANNELS = 6
NAMES = [f"c{code}" for code in range(CHANNELS)]


def world(seed: int = 7) -> Chain:
    generator = np.random.default_rng(seed)
    rows = generator.dirichlet(np.ones(CHANNELS + 2) * 2, CHANNELS)
    np.fill_diagonal(rows[:, :CHANNELS], 0)
    rows /= rows.sum(axis=1, keepdims=True)
    return Chain(generator.dirichlet(np.ones(CHANNELS) * 3), rows[:, :CHANNELS], rows[:, CHANNELS])


def walk(
    chain: Chain, journeys: int, generator: np.random.Generator, loyal: float = 0.0
) -> tuple[JourneyBatch, Outcomes]:
    """Walk the chain; with `loyal`, journeys that began with an even channel convert more: the chain is then false."""
    cumulated = np.cumsum(np.column_stack((chain.steps, chain.reward)), axis=1)
    start = np.searchsorted(np.cumsum(chain.start), generator.random(journeys)).clip(max=CHANNELS - 1)
    here = start.copy()
    paths: list[list[int]] = [[int(code)] for code in here]
    converted = np.zeros(journeys, dtype=np.bool_)
    alive = np.arange(journeys)
    while alive.size:
        after = (cumulated[here[alive]] < generator.random(alive.size)[:, None]).sum(axis=1)
        lucky = (after > CHANNELS) & (start[alive] % 2 == 0) & (generator.random(alive.size) < loyal)
        converted[alive[(after == CHANNELS) | lucky]] = True
        moving = after < CHANNELS
        for journey, code in zip(alive[moving].tolist(), after[moving].tolist(), strict=True):
            paths[journey].append(code)
        alive = alive[moving]
        here[alive] = after[moving]
    distinct: dict[tuple[int, ...], list[int]] = {}
    for path, flag in zip(paths, converted.tolist(), strict=True):
        distinct.setdefault(tuple(path), [0, 0])[0 if flag else 1] += 1
    rows = np.array(list(distinct.values()), dtype=np.int64)
    batch = JourneyBatch.of_paths([[NAMES[code] for code in path] for path in distinct])
    return batch, Outcomes(rows[:, 0].copy(), rows[:, 1].copy(), rows[:, 0] * 10_000_000)


def covered(draws: Floats, truth: Floats) -> int:
    low, high = np.quantile(draws, (0.05, 0.95), axis=0)
    return int(((low <= truth) & (truth <= high)).sum())


def bootstrap_shares(estimator: Estimator, outcomes: Outcomes, draws: int, seed: int) -> Floats:
    weights = bootstrap_weights(outcomes, draws=draws, seed=seed)
    return np.stack([shares(estimator.totals(each)[0]) for each in weights])


@pytest.mark.parametrize("loyal", [0.0, 0.35])
@pytest.mark.slow
def test_ninety_percent_intervals_cover_the_truth_nine_times_in_ten(loyal: float) -> None:
    chain = world()
    if loyal:
        many = walk(chain, 200_000, np.random.default_rng(99), loyal)
        truth = shares(RemovalTotals(many[0]).totals(Weights.observed(many[1]))[0])
    else:
        truth = shares(first_order_removal(chain).effects)
    repeats, by_steps, by_journeys = 120, 0, 0
    for repeat in range(repeats):
        batch, outcomes = walk(chain, 1_500, np.random.default_rng(1_000 + repeat), loyal)
        state = JourneyState.fit(batch, outcomes)
        by_steps += covered(shares(dirichlet_removal(state, draws=300, seed=repeat)), truth)
        by_journeys += covered(bootstrap_shares(RemovalTotals(batch), outcomes, 150, repeat), truth)
    assert 0.86 <= by_journeys / (repeats * CHANNELS) <= 0.94
    assert 0.86 <= by_steps / (repeats * CHANNELS) <= 0.94


def test_the_closed_form_error_is_that_of_the_bootstrap() -> None:
    batch, outcomes = walk(world(), 3_000, np.random.default_rng(4))
    for credits_ in (linear(batch), set_shares(batch)):
        drawn = bootstrap_shares(CreditTotals("x", batch, credits_), outcomes, 600, 1).std(axis=0)
        sums = CreditSums.fit("x", batch, credits_, outcomes)
        assert sums.errors(batch.index) == pytest.approx(drawn, rel=0.1)
        # each conversion is worth the same
        assert sums.errors(batch.index, of_value=True) == pytest.approx(sums.errors(batch.index))


def test_confidence_moves_to_one_with_the_number_of_journeys() -> None:
    found = []
    for journeys in (300, 3_000, 30_000):
        batch, outcomes = walk(world(), journeys, np.random.default_rng(3))
        estimator = RemovalTotals(batch)
        estimate = shares(estimator.totals(Weights.observed(outcomes))[0])
        found.append(float(summarize_draws(bootstrap_shares(estimator, outcomes, 100, 1), estimate).confidence))
    assert found == sorted(found)
    assert 0.9 < found[0] < found[-1] < 1


def test_draws_are_a_function_of_the_seed() -> None:
    batch, outcomes = walk(world(), 500, np.random.default_rng(3))
    one, two, other = (bootstrap_shares(RemovalTotals(batch), outcomes, 3, seed) for seed in (1, 1, 2))
    assert one.tobytes() == two.tobytes() != other.tobytes()
    state = JourneyState.fit(batch, outcomes)
    assert dirichlet_removal(state, draws=5, seed=1).tobytes() == dirichlet_removal(state, draws=5, seed=1).tobytes()


def test_a_spread_of_nothing_is_unknown() -> None:
    found = summarize_draws(np.full((5, 2), np.nan), np.array([0.5, 0.5]))
    assert np.isnan(found.low).all()
    assert np.isnan(found.confidence)
    assert dirichlet_removal(JourneyState.empty(), draws=3, seed=0).shape == (3, 0)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from("abcd"), max_size=5), st.integers(0, 6), st.integers(0, 6)),
        min_size=1,
        max_size=10,
    ),
)
def test_totals_of_every_model_sum_to_what_there_is(rows: list[tuple[list[str], int, int]]) -> None:
    batch = JourneyBatch.of_paths([row[0] for row in rows])
    conversions = np.array([row[1] for row in rows], dtype=np.int64)
    outcomes = Outcomes(conversions, np.array([row[2] for row in rows], dtype=np.int64), conversions * 3)
    weights = Weights.observed(outcomes)
    whole = int(conversions[batch.lengths > 0].sum())
    if not whole:
        return
    estimators: list[Estimator] = [
        CreditTotals("shapley", batch, set_shares(batch)),
        RemovalTotals(batch, 1),
        RemovalTotals(batch, 2),
        RemovalCreditTotals(batch),
        RateShapleyTotals(batch),
        MarkovShapleyTotals(batch),
    ]
    for estimator in estimators:
        totals = estimator.totals(weights)
        assert totals.sum(axis=1) == pytest.approx([whole, 3 * whole], abs=1e-8), estimator.name
        if estimator.name != "shapley_rate":
            assert (totals >= -1e-9).all()
        if isinstance(estimator, (CreditTotals, RemovalCreditTotals)):
            # only an aggregate of per-journey credits must lie between "alone" and "anywhere"
            for code in range(len(batch.index)):
                name = batch.index.names[code]
                alone = sum(n for path, n, _ in rows if set(path) == {name})
                anywhere = sum(n for path, n, _ in rows if name in path)
                assert alone - 1e-9 <= totals[0, code] <= anywhere + 1e-9


def test_holm_stops_at_the_first_that_fails() -> None:
    p_values = np.array([0.04, 0.01, 0.03, 0.005])  # Holm 1979: 0.05 / 4, / 3, then 0.03 > 0.05 / 2 ends it
    assert holm(p_values).tolist() == [False, True, False, True]
    assert holm(p_values, 0.2).tolist() == [True] * 4
    assert holm(np.array([])).tolist() == []


def test_an_unknown_error_is_no_evidence_and_none_at_all_is_full_evidence() -> None:
    assert two_sided(1.0, float("nan")) == two_sided(float("nan"), 1.0) == 1
    assert (two_sided(0.0, 0.0), two_sided(0.1, 0.0)) == (1, 0)
    assert two_sided(-1.96, 1.0) == pytest.approx(0.05, abs=1e-4)


def test_benjamini_hochberg_on_the_example_of_its_paper() -> None:
    p_values = np.array(
        [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240,
         0.4262, 0.5719, 0.6528, 0.7590, 1]
    )  # fmt: skip
    assert benjamini_hochberg(p_values, 0.05).sum() == 4
    assert benjamini_hochberg(p_values[::-1], 0.05).tolist() == benjamini_hochberg(p_values, 0.05)[::-1].tolist()
    assert benjamini_hochberg(np.array([])).tolist() == []


def test_false_alarms_of_drift_are_rare_and_real_changes_are_found() -> None:
    generator = np.random.default_rng(5)
    error = np.full(20, 0.01)
    alarms = 0
    for _ in range(200):
        now, before = generator.normal(0.05, 0.01, (2, 20))
        alarms += int(drift(now, error, before, error).changed.any())
    assert alarms <= 0.16 * 200  # all hypotheses are true: one or more alarms at most about every tenth time
    before = np.full(20, 0.05)
    now = before.copy()
    now[3] += 0.08
    found = drift(now, error, before, error)
    assert np.flatnonzero(found.changed).tolist() == [3]
    unknown = drift(now, np.full(20, np.nan), before, error)
    assert not unknown.changed.any()
    sure = drift(np.array([0.2, 0.1]), np.zeros(2), np.array([0.1, 0.1]), np.zeros(2))
    assert sure.changed.tolist() == [True, False]


def test_draws_without_value_still_give_confidence_of_conversions() -> None:
    drawn = np.random.default_rng(1).dirichlet([40.0, 60.0], (50, 2))
    estimate = np.tile([0.4, 0.6], (2, 1))
    both = summarize_draws(drawn, estimate)
    drawn[:, 1] = np.nan  # no value column: 0 / 0
    found = summarize_draws(drawn, estimate)
    assert found.low[0].tolist() == both.low[0].tolist()
    assert found.confidence[0] == both.confidence[0] > 0.9
    assert np.isnan(found.low[1]).all()
    assert np.isnan(found.confidence[1])


def test_a_spread_reaches_from_tail_to_tail() -> None:
    draws = np.linspace(0, 1, 101)[:, None]
    found = summarize_draws(draws, np.array([0.5]))
    assert (found.low[0], found.high[0]) == (pytest.approx(0.05), pytest.approx(0.95))
    half = summarize_draws(draws, np.array([0.5]), confidence_level=0.5)
    assert (half.low[0], half.high[0]) == (pytest.approx(0.25), pytest.approx(0.75))


def test_draws_of_value_effects_centre_on_the_chain_of_value() -> None:
    batch = JourneyBatch.of_paths([["a", "b"], ["b", "a"], ["a"], ["c"]])
    values = np.array([4_000, 3_000_000, 1_000_000, 4_000])
    state = JourneyState.fit(batch, Outcomes(np.array([4000, 3000, 1000, 2000]), np.array([5000] * 4), values))
    chain = state.chain
    ends = chain.conversions + chain.nulls
    exact = first_order_removal(first_order_chain(chain.steps, chain.opens, chain.value_micros, ends)).effects
    # conversions with one last channel are worth the same here
    drawn = dirichlet_removal(state, draws=200, seed=1, value_squares=np.zeros(3)).mean(axis=0)
    assert drawn == pytest.approx(exact, abs=0.02)
    assert abs(exact - dirichlet_removal(state, draws=200, seed=1).mean(axis=0)).max() > 0.05


def test_a_single_hypothesis_is_tested_at_the_rate_itself() -> None:
    assert benjamini_hochberg(np.array([0.09]), 0.1).tolist() == [True]
    assert benjamini_hochberg(np.array([0.11]), 0.1).tolist() == [False]


def test_no_change_or_an_unknown_error_has_a_p_value_of_one() -> None:
    found = drift(np.array([0.2, 0.1]), np.array([np.nan, 0.0]), np.array([0.1, 0.1]), np.zeros(2))
    assert found.p_value.tolist() == [1.0, 1.0]
