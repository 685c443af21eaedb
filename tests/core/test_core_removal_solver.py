"""Sweeps over chains that are too large for one inverse find what the inverse finds."""

from __future__ import annotations

import numpy as np
import pytest

from attributary.attribution_core.domain.journeys import ChannelIndex, Floats, JourneyBatch, Outcomes
from attributary.attribution_core.models import removal_solver as sweeps
from attributary.attribution_core.models.markov import Method, removal_effects
from attributary.attribution_core.statistics.ngram_states import NgramSteps, SparseChain


def drawn_chain(channels: int, journeys: int, order: int, touches: int = 5, memory: float = 0.0) -> SparseChain:
    """A chain of drawn journeys; with `memory`, a touch is the one before the last again as often as that."""
    generator = np.random.default_rng((channels, journeys, order))
    lengths = generator.geometric(1 / touches, journeys)
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    popularity = 1 / np.arange(1, channels + 1)
    codes = generator.choice(channels, int(offsets[-1]), p=popularity / popularity.sum()).astype(np.int32)
    for place in np.flatnonzero(generator.random(codes.size) < memory).tolist():
        codes[place] = codes[max(place - 2, 0)]
    times = np.arange(codes.size, dtype=np.int64)
    index = ChannelIndex.of(f"{code:03}" for code in range(channels))
    batch = JourneyBatch(offsets, codes, times, times[offsets[1:] - 1], codes == 0, index)
    converted = generator.random(journeys) < 0.02 + 0.3 * (codes[offsets[:-1]] % 3 == 0)
    outcomes = Outcomes.of(converted, converted * generator.integers(-5_000_000, 90_000_000, journeys))
    rewards = np.column_stack((outcomes.conversions, outcomes.value_micros)).astype(np.float64)
    return NgramSteps.of(batch, order).chain(rewards, np.ones(journeys))


@pytest.mark.parametrize("memory", [0.0, 0.7])
@pytest.mark.parametrize(
    ("channels", "journeys", "order", "touches"), [(30, 4_000, 2, 5), (9, 1_500, 3, 8), (6, 400, 2, 60)]
)
def test_all_ways_agree(channels: int, journeys: int, order: int, touches: int, memory: float) -> None:
    chain = drawn_chain(channels, journeys, order, touches, memory)
    wanted = removal_effects(chain, "dense")
    # what the counts say of the visits is what the chain says
    inner = np.bincount(chain.target, chain.visits[chain.source] * chain.probability, chain.start.size)
    assert chain.start + inner == pytest.approx(chain.visits, abs=1e-12)
    methods: tuple[Method, ...] = ("sparse", "blocks", "auto")
    for method in methods:
        found = removal_effects(chain, method)
        assert np.abs(found.effects - wanted.effects).max() < 1e-12, method
        assert found.total == pytest.approx(wanted.total, rel=1e-12)


def test_some_columns_and_some_matrices_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = drawn_chain(30, 4_000, 2)
    wanted = removal_effects(chain, "dense").effects
    monkeypatch.setattr(sweeps, "_CELLS", chain.start.size * 11)  # 11, 11 and 8 columns
    monkeypatch.setattr(sweeps, "_MATRICES", 5_000)  # the rest is gathered
    assert np.abs(removal_effects(chain, "blocks").effects - wanted).max() < 1e-12


@pytest.mark.slow
def test_second_order_with_two_hundred_channels_takes_tens_of_sweeps() -> None:
    chain = drawn_chain(200, 20_000, 2)
    assert chain.start.size > 10_000
    counted: list[int] = []
    plain = sweeps._FirstOrder.correction

    def counting(self: sweeps._FirstOrder, changes: Floats, low: int) -> Floats:
        counted.append(low)
        return plain(self, changes, low)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweeps._FirstOrder, "correction", counting)
        effects = removal_effects(chain).effects
    assert 2 * 5 < len(counted) < 2 * 40  # conversions, then value
    assert ((effects[0] >= 0) & (effects[0] <= 1)).all()


def test_values_below_zero_converge_as_those_above() -> None:
    batch = JourneyBatch.of_paths([["a", "b", "c"], ["b", "a"], ["c", "c", "a"]])
    rewards = np.column_stack(([3.0, 1, 2], [-5.0, -7, -1]))
    chain = NgramSteps.of(batch, 2).chain(rewards, np.array([5.0, 6, 7]))
    wanted = removal_effects(chain, "dense").effects
    methods: tuple[Method, ...] = ("sparse", "blocks")
    for method in methods:
        assert np.abs(removal_effects(chain, method).effects - wanted).max() < 1e-12, method
