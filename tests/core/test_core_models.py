from __future__ import annotations

import json
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.attribution_core.domain.journeys import ChannelIndex, JourneyBatch, JourneyError, Outcomes
from attributary.attribution_core.models import model_set as models
from attributary.attribution_core.models.model_set import (
    MODELS,
    RULE_MODELS,
    ModelError,
    ModelSet,
    TrainedState,
    UntrainedModel,
    model_set,
)
from attributary.attribution_core.models.rules import RuleSettings, last, linear, position_based, time_decay
from attributary.attribution_core.statistics.state import JourneyState, StateError

DAY = 86_400_000_000
Touches = list[tuple[int, str, str]]
NAMES = ["a", "b", "c", "d", "direct"]
TOUCH = st.tuples(st.integers(0, 40 * DAY), st.uuids().map(str), st.sampled_from(NAMES))
JOURNEYS: st.SearchStrategy[list[Touches]] = st.lists(st.lists(TOUCH, max_size=8), min_size=1, max_size=8)


def batch_of(journeys: list[Touches], index: ChannelIndex | None = None) -> JourneyBatch:
    return JourneyBatch.of(journeys, [41 * DAY] * len(journeys), index)


def trained_state(seed: int = 0) -> JourneyState:
    generator = np.random.default_rng(seed)
    paths = [generator.choice(NAMES, generator.integers(1, 6)).tolist() for _ in range(600)]
    converted = generator.random(600) < 0.4
    return JourneyState.fit(JourneyBatch.of_paths(paths), Outcomes.of(converted, converted * 5_000_000))


STATE = trained_state()
ALL: ModelSet = model_set(states={"markov": TrainedState("v1", STATE.to_document(), {})})


@settings(max_examples=60, deadline=None)
@given(JOURNEYS)
def test_credits_are_not_negative_and_sum_to_one(journeys: list[Touches]) -> None:
    batch = batch_of(journeys)
    for name, said in ALL.attribute(batch).items():
        assert (said.credits >= 0).all(), name
        assert batch.sums(said.credits) == pytest.approx((batch.lengths > 0).astype(float), abs=1e-12)
        if said.confidence is not None:
            known = said.confidence[~np.isnan(said.confidence)]
            assert ((known > 0) & (known <= 1)).all()


@settings(max_examples=40, deadline=None)
@given(JOURNEYS, st.randoms(use_true_random=False))
def test_order_of_arrival_and_of_journeys_and_partitioning_change_nothing(journeys: list[Touches], rng: object) -> None:
    index = ChannelIndex.of(NAMES)
    whole = batch_of(journeys, index)
    shuffled = [list(touches) for touches in journeys]
    for touches in shuffled:
        rng.shuffle(touches)  # type: ignore[attr-defined]
    again = batch_of(shuffled, index)
    backwards = batch_of(journeys[::-1], index)
    for model in ALL.models:
        credits_ = model.credits(whole)
        assert credits_.tobytes() == model.credits(again).tobytes()
        turned = model.credits(backwards)
        parts = [turned[low:high] for low, high in zip(backwards.offsets, backwards.offsets[1:], strict=False)]
        assert np.concatenate(parts[::-1]).tobytes() == credits_.tobytes()
        cut = len(journeys) // 2
        halves = [model.credits(whole.slice(0, cut)), model.credits(whole.slice(cut, len(journeys)))]
        assert np.concatenate(halves).tobytes() == credits_.tobytes()


@settings(max_examples=20, deadline=None)
@given(JOURNEYS, st.integers(1, 4))
def test_a_batch_is_credited_some_journeys_at_a_time(journeys: list[Touches], step: int) -> None:
    batch = batch_of(journeys)
    whole = ALL.attribute(batch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "_JOURNEYS", step)
        parts = ALL.attribute(batch)
    for name, said in whole.items():
        for one, two in zip(astuple(said), astuple(parts[name]), strict=True):
            assert (one is None) == (two is None), name
            assert one is None or one.tobytes() == two.tobytes(), name


@settings(max_examples=40, deadline=None)
@given(JOURNEYS)
def test_new_names_give_the_same_credits(journeys: list[Touches]) -> None:
    renamed = {"a": "z", "b": "y", "c": "x", "d": "w", "direct": "direct"}
    other = batch_of([[(when, event, renamed[name]) for when, event, name in touches] for touches in journeys])
    state = STATE.to_document()
    names = [renamed[name] for name in state["channels"]]
    order = np.argsort(names)
    place = np.argsort(order)
    state["channels"] = [names[old] for old in order]
    state["steps"] = sorted([int(place[row]), int(place[column]), count] for row, column, count in state["steps"])
    for part in ("opens", "conversions", "nulls", "value_micros"):
        state[part] = [state[part][old] for old in order]
    state["sets"] = [[sorted(int(place[code]) for code in codes), *counts] for codes, *counts in state["sets"]]
    renaming = model_set(states={"markov": TrainedState("v1", state, {})})
    batch = batch_of(journeys)
    for one, two in zip(ALL.models, renaming.models, strict=True):
        assert two.credits(other) == pytest.approx(one.credits(batch), abs=1e-12), one.name


@settings(max_examples=40, deadline=None)
@given(JOURNEYS, st.floats(1.0, 1e9), st.integers(0, DAY))
def test_time_decay(journeys: list[Touches], half_life: float, shift: int) -> None:
    batch = batch_of(journeys)
    rule = RuleSettings(half_life_seconds=half_life)
    credits_ = time_decay(batch, rule)
    for low, high in zip(batch.offsets, batch.offsets[1:], strict=False):
        assert (np.diff(credits_[low:high]) >= 0).all()
        ties = np.diff(batch.times[low:high]) == 0
        assert (np.diff(credits_[low:high])[ties] == 0).all()
    moved = JourneyBatch(
        batch.offsets, batch.channels, batch.times + shift, batch.converted_at + shift, batch.direct, batch.index
    )
    assert time_decay(moved, rule).tobytes() == credits_.tobytes()
    assert time_decay(batch, RuleSettings(half_life_seconds=1e18)) == pytest.approx(linear(batch), abs=1e-9)
    distinct = [len({when for when, _, _ in touches}) == len(touches) for touches in journeys]
    if all(distinct):
        assert time_decay(batch, RuleSettings(half_life_seconds=1e-300)).tolist() == last(batch).tolist()


def test_one_half_life_halves() -> None:
    credits_ = time_decay(batch_of([[(0, "1", "a"), (7 * DAY, "2", "b")]]))
    assert credits_ == pytest.approx([1 / 3, 2 / 3])


def test_rules_on_a_known_journey() -> None:
    journey: Touches = [(1, "1", "a"), (2, "2", "b"), (3, "3", "b"), (4, "4", "direct")]
    found = {
        name: said.credits.tolist() for name, said in model_set(RULE_MODELS).attribute(batch_of([journey])).items()
    }
    assert found["first"] == [1, 0, 0, 0]
    assert found["last"] == [0, 0, 0, 1]
    assert found["last_non_direct"] == [0, 0, 1, 0]
    assert found["linear"] == [0.25] * 4
    assert found["position_based"] == [0.4, 0.1, 0.1, 0.4]
    shapley = model_set(["shapley"]).attribute(batch_of([journey]))["shapley"].credits
    assert shapley == pytest.approx([1 / 3, 1 / 6, 1 / 6, 1 / 3])
    all_direct: Touches = [(1, "1", "direct"), (2, "2", "direct")]
    assert model_set(["last_non_direct"]).models[0].credits(batch_of([[], all_direct, []])).tolist() == [0, 1]


def test_position_based_with_few_touches_and_other_weights() -> None:
    three = batch_of([[], [(1, "1", "a")], [(1, "1", "a"), (2, "2", "b")], [(n, str(n), "c") for n in range(3)]])
    assert position_based(three) == pytest.approx([1, 0.5, 0.5, 0.4, 0.2, 0.4])
    assert position_based(three, RuleSettings(0.6, 0.2, 0.2)) == pytest.approx([1, 0.75, 0.25, 0.6, 0.2, 0.2])
    assert position_based(three, RuleSettings(0, 1, 0)) == pytest.approx([1, 0.5, 0.5, 0, 1, 0])
    with pytest.raises(ValueError, match="sum to 1"):
        RuleSettings(0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="half_life"):
        RuleSettings(half_life_seconds=0)


def test_an_unknown_or_rare_channel_makes_its_journey_fall_back_and_says_so() -> None:
    document = STATE.add(
        JourneyState.fit(JourneyBatch.of_paths([["rare", "a"]]), Outcomes.of([True], [1]))
    ).to_document()
    markov = model_set(["markov"], {"markov": TrainedState("v2", document, {})}).models[0]
    batch = batch_of(
        [[(1, "1", "a"), (2, "2", "new")], [(1, "1", "rare"), (2, "2", "b")], [(1, "1", "a"), (2, "2", "b")], []]
    )
    flags = markov.fallback(batch)
    assert flags is not None
    assert flags.tolist() == [True, True, False, False]
    assert markov.credits(batch)[:4].tolist() == [0.5] * 4
    confidence = markov.confidence(batch)
    assert confidence is not None
    assert np.isnan(confidence).tolist() == [True, True, False, True]
    assert markov.fallback_rule == "linear"
    trusting = model_set(["markov"], {"markov": TrainedState("v2", document, {"minimum_conversions": 1})}).models[0]
    trusted = trusting.fallback(batch)
    assert trusted is not None
    assert trusted.tolist() == [True, False, False, False]


def test_confidence_rises_with_the_number_of_journeys() -> None:
    batch = batch_of([[(1, "1", "a"), (2, "2", "b")]])
    found = []
    state = STATE
    for _ in range(4):
        confidence = (
            model_set(["markov"], {"markov": TrainedState("v", state.to_document(), {})}).models[0].confidence(batch)
        )
        assert confidence is not None
        found.append(float(confidence[0]))
        for _ in range(3):
            state = state.add(state)
    assert found == sorted(found)
    assert found[-1] > 0.99


def test_without_a_state_markov_falls_back_everywhere() -> None:
    model = model_set(["markov"]).models[0]
    assert isinstance(model, UntrainedModel)
    batch = batch_of([[(1, "1", "a"), (2, "2", "b")], []])
    assert (model.version, model.fallback_rule) == ("untrained", "linear")
    assert model.fallback(batch).tolist() == [True, False]
    assert model.credits(batch).tolist() == [0.5, 0.5]
    assert np.isnan(model.confidence(batch)).all()


def test_a_state_without_conversions_or_without_journeys_knows_nothing() -> None:
    nulls = JourneyState.fit(JourneyBatch.of_paths([["a", "b"]] * 3), Outcomes.of([False] * 3, [0] * 3))
    batch = batch_of([[(1, "1", "a"), (2, "2", "b")], []])
    for state in (JourneyState.empty(), nulls):
        trained = TrainedState("v", state.to_document(), {"minimum_conversions": 0})
        model = model_set(["markov"], {"markov": trained}).models[0]
        flags = model.fallback(batch)
        assert flags is not None
        assert flags.tolist() == [True, False]
        assert model.credits(batch).tolist() == [0.5, 0.5]
        assert np.isnan(np.asarray(model.confidence(batch))).all()


def test_names_settings_and_documents_are_checked() -> None:
    assert model_set().models[0].name == MODELS[0]
    for names in (["best"], ["first", "first"]):
        with pytest.raises(ModelError):
            model_set(names)
    with pytest.raises(ModelError, match="unknown setting"):
        model_set(["markov"], {"markov": TrainedState("v", STATE.to_document(), {"speed": 1})})
    with pytest.raises(ValueError, match="fallback_rule"):
        model_set(["markov"], {"markov": TrainedState("v", STATE.to_document(), {"fallback_rule": "markov"})})
    document = STATE.to_document()
    for change in (
        {"schema": 99},
        {"kind": "x"},
        {"opens": [1]},
        {"channels": ["b", "a"]},
        {"sets": [[[77], 1, 1, 1]]},
    ):
        with pytest.raises(StateError):
            JourneyState.from_document({**document, **change})
    versions = {model_set(settings=RuleSettings(half_life_seconds=seconds)).version for seconds in (1.0, 1.0, 2.0)}
    assert len(versions) == 2


def fit(journeys: list[Touches], outcomes: list[tuple[bool, int]]) -> JourneyState:
    return JourneyState.fit(
        batch_of(journeys), Outcomes.of([flag for flag, _ in outcomes], [value * flag for flag, value in outcomes])
    )


@settings(max_examples=60, deadline=None)
@given(JOURNEYS, JOURNEYS, st.data())
def test_states_add_subtract_and_travel(one: list[Touches], two: list[Touches], data: st.DataObject) -> None:
    outcome = st.tuples(st.booleans(), st.integers(-(10**9), 10**12))
    ends = data.draw(st.lists(outcome, min_size=len(one) + len(two), max_size=len(one) + len(two)))
    a, b = fit(one, ends[: len(one)]), fit(two, ends[len(one) :])
    whole = fit(one + two, ends)
    same = JourneyState.to_document
    assert a.add(b) == b.add(a) == whole
    assert (a == "a") is False
    assert same(a.add(b).subtract(b)) == same(a)
    assert same(whole.replace(a, b)) == same(b.add(b))
    assert same(a.add(b).add(a)) == same(a.add(b.add(a)))
    assert same(JourneyState.empty().add(a)) == same(a)
    assert same(a.subtract(a)) == same(JourneyState.empty())
    travelled = JourneyState.from_document(json.loads(json.dumps(same(whole))))
    assert json.dumps(same(travelled)) == json.dumps(same(whole))
    assert whole.conversions == sum(flag for flag, _ in ends)
    assert whole.value_micros == sum(value for flag, value in ends if flag)
    assert whole.conversions + whole.nulls == len(ends)


def fit_paths(paths: list[list[str]]) -> JourneyState:
    return JourneyState.fit(JourneyBatch.of_paths(paths), Outcomes.of([True] * len(paths), [1] * len(paths)))


def test_more_than_was_added_cannot_be_retracted() -> None:
    with pytest.raises(StateError, match="negative"):
        STATE.subtract(STATE.add(STATE))
    one, more = (fit_paths(paths) for paths in ([["a", "b"], ["a"], ["b"]], [list[str]()]))
    for wrong in (more, fit_paths([["b", "a"]])):
        with pytest.raises(StateError, match="negative"):
            one.subtract(wrong)


@pytest.mark.parametrize(
    ("added", "retracted"), [(["a", "b"], ["b", "a"]), (["a", "b", "a", "b", "a"], ["a", "b", "a"])]
)
def test_another_order_of_the_same_channels_cannot_be_retracted(added: list[str], retracted: list[str]) -> None:
    with pytest.raises(StateError, match="had not been added"):
        fit_paths([added]).subtract(fit_paths([retracted]))


def test_three_hundred_channels_and_five_hundred_touches() -> None:
    generator = np.random.default_rng(1)
    names = [f"channel {number:03}" for number in range(300)]
    paths = [generator.choice(names, length).tolist() for length in (500, 1, 0, 37, 500)]
    batch = JourneyBatch.of_paths(paths)
    state = JourneyState.fit(batch, Outcomes.of([True, False, True, True, True], [1, 0, 1, 1, 1]))
    assert sorted(state.sets) == sorted({tuple(sorted(set(path))) for path in paths})
    trained = model_set(
        states={"markov": TrainedState("v", state.to_document(), {"minimum_conversions": 0, "draws": 4})}
    )
    for said in trained.attribute(batch).values():
        assert batch.sums(said.credits) == pytest.approx((batch.lengths > 0).astype(float), abs=1e-9)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"offsets": np.array([0, 2, 1])}, "offsets"),
        ({"offsets": np.array([0, 2, 1, 3])}, "must not fall"),
        ({"offsets": np.array([0, 2, 2, 2])}, "offsets"),
        ({"channels": np.array([0, 1, 9], dtype=np.int32)}, "index"),
        ({"channels": np.array([0, 1, 2], dtype=np.int32)}, "index"),
        ({"channels": np.array([0, 1, 1])}, "int32"),
        ({"times": np.array([5, 4, 6])}, "inside a journey"),
        ({"times": np.array([5, 6, 99])}, "converted_at"),
        ({"times": np.array([5.0, np.nan, 6.0])}, "int64"),
        ({"times": np.array([5, 6])}, "one entry per touch"),
        ({"direct": np.array([0, 0, 1])}, "bool"),
    ],
)
def test_arrays_that_are_no_journeys_are_refused(change: dict[str, Any], rule: str) -> None:
    good: dict[str, Any] = {
        "offsets": np.array([0, 2, 2, 3]),
        "channels": np.array([0, 1, 1], dtype=np.int32),
        "times": np.array([5, 6, 4]),
        "converted_at": np.array([9, 9, 9]),
        "direct": np.zeros(3, dtype=np.bool_),
        "index": ChannelIndex.of("ab"),
    }
    JourneyBatch(**good)
    with pytest.raises(JourneyError, match=rule):
        JourneyBatch(**{**good, **change})


def test_outcomes_are_checked() -> None:
    one = np.ones(1, dtype=np.int64)
    with pytest.raises(JourneyError, match="negative"):
        Outcomes(-one, one, one)
    with pytest.raises(JourneyError, match="one entry"):
        Outcomes(one, np.ones(2, dtype=np.int64), one)
    with pytest.raises(JourneyError, match="int64"):
        Outcomes(one, one, np.ones(1))  # type: ignore[arg-type]
    with pytest.raises(JourneyError, match="one entry per journey"):
        JourneyState.fit(batch_of([[], []]), Outcomes(one, one, one))
