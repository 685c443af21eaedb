"""The table of sets has a bound, and bounding it loses nothing but pairs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.attribution_core.domain.journeys import JourneyBatch, Outcomes
from attributary.attribution_core.models.model_set import TrainedState, model_set
from attributary.attribution_core.models.shapley import simplified
from attributary.attribution_core.statistics.sets import split
from attributary.attribution_core.statistics.state import JourneyState, StateError

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = st.lists(
    st.tuples(st.lists(st.sampled_from("abcdef"), max_size=5), st.integers(0, 9), st.integers(0, 9)),
    min_size=1,
    max_size=25,
)
Rows = list[tuple[list[str], int, int]]


def state_of(rows: Rows) -> JourneyState:
    conversions = np.array([row[1] for row in rows], dtype=np.int64)
    nulls = np.array([row[2] for row in rows], dtype=np.int64)
    return JourneyState.fit(JourneyBatch.of_paths([row[0] for row in rows]), Outcomes(conversions, nulls, -conversions))


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(0, 8), st.randoms(use_true_random=False))
def test_a_bounded_state_says_the_same(rows: Rows, limit: int, rng: object) -> None:
    whole = state_of(rows)
    bounded = whole.bounded(limit)
    assert len(bounded.sets) == min(limit, len(whole.sets))
    assert len(bounded.sets) + bounded.overflow.sets == len(whole.sets)
    assert (bounded.conversions, bounded.nulls, bounded.value_micros) == (
        whole.conversions,
        whole.nulls,
        whole.value_micros,
    )
    assert bounded.conversions_with().tolist() == whole.conversions_with().tolist()
    found = simplified(bounded.sets, bounded.index, bounded.overflow)
    assert found == pytest.approx(simplified(whole.sets, whole.index), abs=1e-9)
    # whatever the order and the partition of the journeys
    rng.shuffle(rows)  # type: ignore[attr-defined]
    cut = len(rows) // 2
    again = state_of(rows[:cut]).add(state_of(rows[cut:])).bounded(limit) if cut else bounded
    text = json.dumps(bounded.to_document(), sort_keys=True)
    assert json.dumps(again.to_document(), sort_keys=True) == text
    read = JourneyState.from_document(json.loads(text))
    assert json.dumps(read.to_document(), sort_keys=True) == text
    trained = [
        model_set(["markov"], {"markov": TrainedState("v", state.to_document(), {"draws": 2})}).models[0]
        for state in (whole, bounded)
    ]
    batch = JourneyBatch.of_paths([list("abcdef"), ["a"], []])
    assert trained[0].credits(batch).tobytes() == trained[1].credits(batch).tobytes()


def test_a_bounded_state_cannot_be_added_to_and_says_why() -> None:
    whole = state_of([(["a"], 5, 1), (["b"], 1, 1), (["a", "b"], 2, 2), ([], 1, 0)])
    bounded = whole.bounded(2)
    assert set(bounded.sets) == {(), ("a",)}  # journeys without touches stay; then the most frequent
    assert bounded.overflow.by_size == {1: (1, 1, -1), 2: (2, 2, -2)}
    refusals: list[Callable[[], JourneyState]] = [
        lambda: bounded.add(whole),
        lambda: whole.add(bounded),
        lambda: bounded.subtract(whole),
        lambda: bounded.bounded(1),
        bounded.without_value,
        lambda: JourneyState.weighted_sum([(1, whole), (2, bounded)]),
    ]
    for refused in refusals:
        with pytest.raises(StateError, match="2 rare sets"):
            refused()
    assert whole.bounded(4) is not None
    assert whole.bounded(4).add(whole).conversions == 2 * whole.conversions  # nothing was summed up: still whole


def test_documents_of_bounded_states_are_of_a_schema_of_their_own() -> None:
    document = state_of([(["a"], 5, 1), (["b"], 1, 1)]).bounded(1).to_document()
    assert document["schema"] == 2
    damaged = (
        {"schema": 1},
        {"others": {"sets": 1}},
        {"others": {**document["others"], "by_channel": [[1, 77, 1, 1, 1]]}},
        {"others": {**document["others"], "by_size": [[1, 1]]}},
    )
    for change in damaged:
        with pytest.raises(StateError):
            JourneyState.from_document({**document, **change})


def test_the_sets_kept_are_those_of_the_most_journeys_converted_or_not() -> None:
    kept, _ = split({("a",): (5, 0, 0), ("b",): (1, 9, 0)}, 1)
    assert set(kept) == {("b",)}
