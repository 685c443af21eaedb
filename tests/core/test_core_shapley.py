from __future__ import annotations

from itertools import permutations
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.attribution_core.domain.journeys import ChannelIndex, Flags, Floats, JourneyBatch, Outcomes
from attributary.attribution_core.models.shapley import (
    dividends,
    exact,
    journey_interactions,
    ordered,
    pair_interactions,
    sampled,
    sampled_rate_values,
    simplified,
    subset_sums,
)
from attributary.attribution_core.statistics import sets
from attributary.attribution_core.statistics.sets import SetCounts, channels_of_journeys, set_shares
from attributary.attribution_core.statistics.state import JourneyState

SETS: st.SearchStrategy[SetCounts] = st.dictionaries(
    st.sets(st.sampled_from("abcde")).map(lambda names: tuple(sorted(names))),
    st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(-(10**9), 10**9)),
    max_size=10,
)
INDEX = ChannelIndex.of("abcde")


def interactions(sets: SetCounts, index: ChannelIndex, *, of_value: bool = False) -> Floats:
    """Return the Shapley interaction index of each pair in the simplified game, float64[K, K]; the diagonal is 0.

    ``I_ij = sum over sets T with i and j of w(T) / (|T| - 1)``: what two channels are worth together beyond what each
    is worth without the other (Grabisch, Roubens 1999).
    """
    found = np.zeros((len(index), len(index)), dtype=np.float64)
    for names in sorted(sets):
        worth = sets[names][2 if of_value else 0]
        if len(names) > 1 and worth:
            codes = np.array([index.code(name) for name in names])
            found[np.ix_(codes, codes)] += worth / (len(names) - 1)
    np.fill_diagonal(found, 0.0)
    return found


def rate_game(sets: SetCounts, index: ChannelIndex) -> Floats:
    """Return the rate game, float64[2^K]: conversion rate of the journeys with all their channels in the set.

    A set without any such journey is worth 0.
    """
    counts = np.zeros((2, 1 << len(index)), dtype=np.float64)
    for names, (conversions, nulls, _) in sets.items():
        mask = sum(1 << index.code(name) for name in names)
        counts[:, mask] += (conversions, conversions + nulls)
    converted, all_ = subset_sums(counts[0]), subset_sums(counts[1])
    return np.divide(converted, all_, out=np.zeros_like(converted), where=all_ > 0)


def games(channels: int) -> st.SearchStrategy[list[float]]:
    return st.lists(st.floats(-10, 10), min_size=1 << channels, max_size=1 << channels)


@settings(max_examples=40, deadline=None)
@given(games(4), games(4))
def test_efficiency_additivity_and_the_definition_by_orders(one: list[float], other: list[float]) -> None:
    v, w = np.array(one), np.array(other)
    assert exact(v).sum() == pytest.approx(v[-1] - v[0], abs=1e-9)
    assert exact(v + w) == pytest.approx(exact(v) + exact(w), abs=1e-9)
    gains = np.zeros(4)
    for order in permutations(range(4)):
        mask = 0
        for channel in order:
            gains[channel] += v[mask | 1 << channel] - v[mask]
            mask |= 1 << channel
    assert exact(v) == pytest.approx(gains / 24, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(games(3))
def test_null_player_symmetry_and_dividends(one: list[float]) -> None:
    v = np.array(one)
    with_null = np.concatenate((v, v))  # the fourth channel adds nothing to any set
    assert exact(with_null)[3] == pytest.approx(0, abs=1e-12)
    assert exact(with_null)[:3] == pytest.approx(exact(v), abs=1e-9)
    swapped = v.reshape(2, 2, 2).transpose(0, 2, 1).ravel()  # channels 0 and 1 change names
    assert exact(swapped) == pytest.approx(exact(v)[[1, 0, 2]], abs=1e-9)
    assert subset_sums(dividends(v)) == pytest.approx(v, abs=1e-9)
    masks = np.arange(8)
    size = np.maximum(np.bitwise_count(masks), 1)
    by_dividends = [(dividends(v) / size)[(masks >> channel) & 1 == 1].sum() for channel in range(3)]
    assert exact(v) == pytest.approx(by_dividends, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(SETS)
def test_the_simplified_value_is_the_shapley_value_of_its_game(sets: SetCounts) -> None:
    for kind, row in ((0, 0), (2, 1)):
        worth = np.zeros(32)
        for names, entry in sets.items():
            worth[sum(1 << INDEX.code(name) for name in names)] += entry[kind]
        game = subset_sums(worth)
        scale = max(1.0, float(np.abs(worth).max()))
        assert simplified(sets, INDEX)[row] / scale == pytest.approx(exact(game) / scale, abs=1e-9)
        pairs = interactions(sets, INDEX, of_value=kind == 2)
        assert pairs / scale == pytest.approx(pair_interactions(game) / scale, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(SETS)
def test_sampled_rate_values_are_efficient_and_near_the_exact_ones(sets: SetCounts) -> None:
    game = rate_game(sets, INDEX)
    wanted = exact(game)
    found = sampled_rate_values(sets, INDEX, seed=1, max_pairs=400)
    assert found.values.sum() == pytest.approx(game[-1] - game[0], abs=1e-12)
    assert found.values == pytest.approx(wanted, abs=0.06)


def test_antithetic_sampling_reports_an_honest_error() -> None:
    generator = np.random.default_rng(3)
    sets: SetCounts = {
        names: (int(generator.integers(0, 20)), int(generator.integers(1, 80)), 0)
        for names in {
            tuple(sorted(set(generator.choice(list("abcde"), generator.integers(1, 5)).tolist()))) for _ in range(25)
        }
    }
    wanted = exact(rate_game(sets, INDEX))
    misses = 0
    for seed in range(40):
        found = sampled_rate_values(sets, INDEX, seed=seed, target_error=0.02)
        misses += int((np.abs(found.values - wanted) > 2 * found.errors).sum())
    assert misses <= 0.1 * 40 * 5  # nominal 5 %


@settings(max_examples=20, deadline=None)
@given(games(5), st.integers(0, 9))
def test_any_game_can_be_sampled_and_stays_efficient(one: list[float], seed: int) -> None:
    game = np.array(one)

    def worth(sets: Flags) -> Floats:
        return game[sets @ (1 << np.arange(5))]

    found = sampled(5, worth, seed=seed, max_pairs=300)
    assert found.values.sum() == pytest.approx(game[-1] - game[0], abs=1e-9)
    assert (np.abs(found.values - exact(game)) <= 5 * found.errors + 1e-9).all()
    assert sampled(5, worth, seed=seed, max_pairs=300).values.tobytes() == found.values.tobytes()


def test_a_rare_gain_that_no_order_showed_is_not_ruled_out() -> None:
    """Two of 25 channels are worth ten times all of them, while they are alone: one order of 300 shows it.

    With nothing but the variance to go by, 32 pairs without it were the end: no error at all, and off by 10 / 600.
    """
    first_two = np.arange(25) < 2

    def worth(sets: Flags) -> Floats:
        found: Floats = sets.sum(axis=1) / 25 + 10.0 * (sets == first_two).all(axis=1)
        return found

    for seed in range(8):
        found = sampled(25, worth, seed=seed)
        assert found.pairs >= 500
        assert (found.errors >= 1 / (2 * found.pairs)).all()
        assert found.values.sum() == pytest.approx(1)
    met = sampled(25, worth, seed=0)
    assert met.pairs == 2_000  # the target is out of reach, and the error says so
    assert np.abs(met.values[:2] - 1 / 25 - 10 / 600).max() < 3 * met.errors[:2].max()
    coarse = sampled(25, lambda sets: sets.sum(axis=1) / 25, seed=0, target_error=0.01)
    assert (coarse.pairs, coarse.errors.tolist()) == (64, [1 / 128] * 25)  # no variance, no certainty


def test_sampling_a_rate_game_as_any_game_gives_the_same() -> None:
    sets: SetCounts = {("a",): (3, 5, 0), ("a", "b"): (9, 4, 0), ("c", "d", "e"): (2, 7, 0), (): (1, 9, 0)}
    game = rate_game(sets, INDEX)
    found = sampled(5, lambda members: game[members @ (1 << np.arange(5))], seed=4, max_pairs=64, target_error=0)
    assert found.values == pytest.approx(sampled_rate_values(sets, INDEX, seed=4, max_pairs=64, target_error=0).values)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.lists(st.sampled_from("abcde"), max_size=5), st.integers(0, 9)), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
)
def test_set_shapley_ignores_the_order_and_the_repeats_of_touches(
    rows: list[tuple[list[str], int]], rng: Random
) -> None:
    mixed = []
    for path, _ in rows:
        again = [name for name in path for _ in range(rng.randint(1, 3))]
        rng.shuffle(again)
        mixed.append(again)
    conversions = np.array([count for _, count in rows], dtype=np.int64)
    outcomes = Outcomes(conversions, conversions + 1, 3 * conversions)
    one, other = (JourneyState.fit(JourneyBatch.of_paths(paths), outcomes) for paths in ([p for p, _ in rows], mixed))
    assert simplified(one.sets, one.index).tobytes() == simplified(other.sets, other.index).tobytes()
    assert one.sets == other.sets


def test_no_orders_are_no_sample() -> None:
    for pairs in (0, -1):
        with pytest.raises(ValueError, match="max_pairs"):
            sampled(2, lambda members: members.sum(axis=1).astype(np.float64), seed=0, max_pairs=pairs)
        with pytest.raises(ValueError, match="max_pairs"):
            sampled_rate_values({("a",): (1, 1, 0)}, INDEX, seed=0, max_pairs=pairs)


def test_set_shapley_ignores_order_and_repeats_and_ordered_sums_to_it() -> None:
    paths = [["a", "b", "a"], ["b", "a"], ["c", "b", "c", "c"], ["a"]]
    conversions = np.array([3, 1, 2, 5])
    batch = JourneyBatch.of_paths(paths)
    table = ordered(batch, conversions)
    assert table.shape == (3, 4)
    assert table.sum(axis=1) == pytest.approx([1.5 + 0.5 + 5, 1.5 + 0.5 + 1, 1.0])
    assert table[0] == pytest.approx([0.75 + 5, 0.5, 0.75, 0])
    state = JourneyState.fit(batch, Outcomes(conversions, conversions, conversions))
    by_sets = interactions(state.sets, state.index)
    assert journey_interactions(batch, conversions.astype(np.float64)) == pytest.approx(by_sets)
    assert simplified(state.sets, state.index)[0] == pytest.approx(table.sum(axis=1))


def test_refuses_tables_that_are_no_games() -> None:
    for size in (0, 3, 1 << 21):
        with pytest.raises(ValueError, match="2\\^K"):
            exact(np.zeros(size))
    assert exact(np.zeros(1)).size == 0


def test_a_single_channel_gets_its_rate_exact_or_sampled() -> None:
    one: SetCounts = {("a",): (1, 0, 0)}
    index = ChannelIndex.of("a")
    assert rate_game(one, index).tolist() == [0, 1]
    assert sampled_rate_values(one, index, seed=0, max_pairs=4).values.tolist() == [1]


def test_sampling_stops_early_in_a_game_that_falls() -> None:
    found = sampled(3, lambda members: -members.sum(axis=1).astype(np.float64), seed=0, target_error=0.5, max_pairs=500)
    assert found.pairs == 32


def test_sets_are_the_same_however_many_journeys_are_looked_at_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    batch = JourneyBatch.of_paths([generator.choice(list("abcd"), n).tolist() for n in generator.integers(0, 6, 30)])
    whole, shares = channels_of_journeys(batch), set_shares(batch)
    monkeypatch.setattr(sets, "_CELLS", 8)
    assert [part.tolist() for part in channels_of_journeys(batch)] == [part.tolist() for part in whole]
    assert set_shares(batch).tolist() == shares.tolist()
