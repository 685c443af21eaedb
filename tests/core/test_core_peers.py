"""Numbers of independent packages, written down by `do-attribution` 0.0.2 and `shapley-attribution` 2.1.0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from attributary.attribution_core.domain.journeys import Floats, JourneyBatch, Outcomes
from attributary.attribution_core.models.markov import (
    Method,
    RemovalEffects,
    first_order_chain,
    first_order_removal,
    removal_effects,
    shares,
)
from attributary.attribution_core.models.markov_shapley import markov_shapley
from attributary.attribution_core.models.shapley import ordered, simplified
from attributary.attribution_core.statistics.ngram_states import NgramSteps
from attributary.attribution_core.statistics.state import JourneyState

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "peers.json").read_text())

# The facts page of the models: exact first-order removal credits of PathData's 19,785 conversions.
REMOVAL_CREDITS = {
    "eta": 3340.8, "iota": 3884.6, "alpha": 5344.9, "beta": 2527.4, "theta": 1971.9, "lambda": 1282.8,
    "kappa": 274.4, "zeta": 381.1, "epsilon": 599.6, "gamma": 171.1, "delta": 4.6, "mi": 1.7,
}  # fmt: skip


def effects_of(batch: JourneyBatch, outcomes: Outcomes, order: int, method: Method) -> RemovalEffects:
    rewards = outcomes.conversions[:, None].astype(np.float64)
    exits = (outcomes.conversions + outcomes.nulls).astype(np.float64)
    return removal_effects(NgramSteps.of(batch, order).chain(rewards, exits), method)


def by_name(batch: JourneyBatch, numbers: dict[str, float]) -> Floats:
    return np.array([numbers[name] for name in batch.index.names])


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("method", ["dense", "sparse", "blocks"])
@pytest.mark.parametrize("case", range(len(GOLDEN["markov"])))
def test_removal_effects_agree_with_do_attribution(case: int, method: Method, order: int) -> None:
    golden = GOLDEN["markov"][case]
    batch = JourneyBatch.of_paths(golden["paths"])
    outcomes = Outcomes(
        np.array(golden["conversions"]), np.array(golden["nulls"]), np.zeros(len(batch), dtype=np.int64)
    )
    found = effects_of(batch, outcomes, order, method)
    wanted = golden["orders"][str(order)]
    assert found.total[0] == pytest.approx(wanted["total"], abs=1e-12)
    assert np.abs(found.effects[0] - by_name(batch, wanted["effects"])).max() < 1e-12


@pytest.mark.parametrize("order", [1, 2, 3])
def test_removal_effects_agree_with_do_attribution_on_pathdata(pathdata: Any, order: int) -> None:
    wanted = GOLDEN["pathdata"]["markov"][str(order)]
    for method in get_args(Method):
        found = effects_of(pathdata.batch, pathdata.outcomes, order, method)
        assert np.abs(found.effects[0] - by_name(pathdata.batch, wanted["effects"])).max() < 1e-12
        assert found.total[0] == pytest.approx(19_785 / (19_785 + 68_602), abs=1e-15)


@pytest.mark.parametrize("case", range(len(GOLDEN["shapley"])))
def test_shapley_values_agree_with_shapley_attribution(case: int) -> None:
    golden = GOLDEN["shapley"][case]
    batch = JourneyBatch.of_paths(golden["paths"])
    conversions = np.array(golden["conversions"])
    outcomes = Outcomes(conversions, np.ones_like(conversions), np.zeros_like(conversions))
    state = JourneyState.fit(batch, outcomes)
    found = dict(zip(state.index.names, simplified(state.sets, state.index)[0], strict=True))
    table = dict(zip(batch.index.names, ordered(batch, conversions), strict=True))
    for name, wanted in golden["simplified"].items():
        assert found[name] == pytest.approx(wanted, abs=1e-9)
    for name, places in golden["ordered"].items():
        assert table[name][: len(places)] == pytest.approx(places, abs=1e-9)


def test_pathdata_gives_the_numbers_of_the_facts_page(pathdata: Any) -> None:
    state: JourneyState = pathdata.state
    assert (state.conversions, state.nulls, state.value_micros) == (19_785, 68_602, 74_802_970_876)
    chain = state.chain
    first_order = first_order_chain(chain.steps, chain.opens, chain.conversions, chain.conversions + chain.nulls)
    effects = first_order_removal(first_order)
    assert effects.total == pytest.approx(19_785 / 88_387, abs=1e-15)
    credits_ = dict(zip(state.index.names, shares(effects.effects) * 19_785, strict=True))
    assert credits_ == pytest.approx(REMOVAL_CREDITS, abs=0.05)
    simple = dict(zip(state.index.names, simplified(state.sets, state.index)[0], strict=True))
    assert simple == pytest.approx(GOLDEN["pathdata"]["simplified"], abs=1e-9)
    assert simple["alpha"] == pytest.approx(7_627.9, abs=0.05)
    alpha = state.index.code("alpha")
    over_walks = markov_shapley(first_order)
    assert over_walks.values[alpha] / over_walks.total == pytest.approx(0.341, abs=5e-4)
    assert state.sets[("alpha",)][0] == 5_742  # more than alpha's normalised removal effect hands out


@pytest.mark.parametrize("order", [1, 2, 3])
def test_channelattribution_agrees_within_its_own_simulation_noise(pathdata: Any, order: int) -> None:
    simulated = by_name(pathdata.batch, GOLDEN["pathdata"]["channelattribution"][str(order)])
    exact = shares(effects_of(pathdata.batch, pathdata.outcomes, order, "auto").effects[0])
    # its seeds scatter by 0.86 % on average; delta and mi, with 9 and 2 conversions, may come out as nothing at all
    assert 0.5 * np.abs(simulated / simulated.sum() - exact).sum() < 0.015
