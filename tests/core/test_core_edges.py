"""The edges that docs/models.md defines, through every model: nothing crashes, nothing is lost, the reason is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.attribution_core import analyze
from attributary.attribution_core.analysis.analyze import ANALYSES
from attributary.attribution_core.domain.journeys import ChannelIndex, JourneyBatch, Outcomes
from attributary.attribution_core.domain.money import split_micros
from attributary.attribution_core.models.model_set import RULE_MODELS, TrainedState, model_set
from attributary.attribution_core.models.rules import RuleSettings, linear, position_based
from attributary.attribution_core.statistics.state import JourneyState
from attributary.attribution_core.tables.events import read_events
from attributary.attribution_core.tables.paths import JourneyTable

DAY = 86_400_000_000
SIGNED = {"shapley_rate", "poisson"}


def table_of(paths: list[list[str]], converted: list[bool], values: list[int] | None = None) -> JourneyTable:
    """Journeys with a touch a day, watched for a day after the last."""
    journeys = [[(place * DAY, f"{place:04}", name) for place, name in enumerate(path)] for path in paths]
    ends = [max(len(path), 1) * DAY for path in paths]
    worth = values or [5_000_000 * flag for flag in converted]
    batch = JourneyBatch.of(journeys, ends)
    return JourneyTable(batch, Outcomes.of(converted, worth), np.array(ends, dtype=np.int64))


@pytest.mark.parametrize("model", ANALYSES)
def test_empty_journeys_keep_their_conversions_unattributed(model: str) -> None:
    table = table_of([[], ["a", "b"], [], ["b"], ["a"]], [True, True, False, False, True])
    said = analyze(table, [model])[model]
    assert said.diagnostics["unattributed_conversions"] == 1
    assert said.diagnostics["unattributed_value"] == 5.0
    given_out = sum(row["conversions"] for row in said.channels)
    assert given_out <= 2 + 1e-9
    if model not in SIGNED:
        assert given_out == pytest.approx(2)


@pytest.mark.parametrize("model", ANALYSES)
def test_only_empty_journeys_and_none_at_all(model: str) -> None:
    for table in (table_of([[], []], [True, False]), table_of([], [])):
        said = analyze(table, [model])[model]
        assert said.channels == []
        assert said.diagnostics["status"].startswith("unavailable: no conversions")


@pytest.mark.parametrize("model", ANALYSES)
def test_one_touch_gets_everything_there_is(model: str) -> None:
    said = analyze(table_of([["a"]] * 4, [True, True, True, False]), [model])[model]
    if model != "poisson":  # keeps its baseline
        assert said.channels[0]["share"] == pytest.approx(1.0)


@pytest.mark.parametrize("model", ANALYSES)
def test_no_or_only_conversions_have_their_status(model: str) -> None:
    paths = [["a", "b"], ["b"], ["a"], ["b", "a"]] * 10
    nothing = analyze(table_of(paths, [False] * 40), [model])[model]
    assert nothing.diagnostics["status"] == "unavailable: no conversions"
    assert all(row["share"] is None for row in nothing.channels)
    everything = analyze(table_of(paths, [True] * 40), [model])[model]
    status = everything.diagnostics["status"]
    compares = model in {"markov", "markov_journeys", "shapley_rate", "markov_shapley"}
    assert status.startswith("conversions only") == compares  # others never look at journeys without a conversion
    assert compares or model == "poisson" or status == "ok"
    if model not in SIGNED:
        assert sum(row["conversions"] for row in everything.channels) == pytest.approx(40)


@pytest.mark.parametrize("model", sorted(set(ANALYSES) - {"markov_shapley", "poisson"}))  # these take half a minute
def test_five_hundred_touches_of_three_hundred_channels(model: str) -> None:
    generator = np.random.default_rng(3)
    names = [f"channel {number:03}" for number in range(300)]
    paths = [generator.choice(names, length).tolist() for length in (500, 1, 0, 37, 500, 120, 3, 2)]
    said = analyze(table_of(paths, [True, False, True, True, True, False, True, False]), [model])[model]
    found = np.array([row["conversions"] for row in said.channels])
    assert np.isfinite(found).all()
    if model not in SIGNED:
        assert found.sum() == pytest.approx(4)
        assert (found >= -1e-12).all()


@pytest.mark.parametrize("model", ["markov", "shapley", "linear"])
def test_refunds_take_value_but_no_conversion(model: str) -> None:
    table = table_of(
        [["a", "b"], ["b"], ["a"], ["b"]], [True, True, True, False], [10_000_000, -4_000_000, 6_000_000, 0]
    )
    said = analyze(table, [model])[model]
    assert sum(row["conversions"] for row in said.channels) == pytest.approx(3)
    assert sum(row["value"] for row in said.channels) == pytest.approx(12)


@pytest.mark.parametrize("unit", [1_000_000, 10_000, 1_000])  # yen, euro, Kuwaiti dinar
def test_every_rule_splits_money_of_every_currency_to_the_last_unit(unit: int) -> None:
    batch = JourneyBatch.of_paths([["a", "b", "a"], ["b"], ["a", "b"] * 4])
    values = np.array([100 * unit, -7 * unit, 11 * unit])
    for name, said in model_set(RULE_MODELS).attribute(batch).items():
        parts = split_micros(said.credits, batch.offsets, values, np.full(3, unit))
        assert (parts % unit == 0).all(), name
        sums = [int(parts[low:high].sum()) for low, high in zip(batch.offsets, batch.offsets[1:], strict=False)]
        assert sums == values.tolist(), name


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.floats(0, 1), st.floats(0, 1))
def test_position_based_weights_by_length(length: int, one: float, two: float) -> None:
    first, last = min(one, two), 1 - max(one, two)
    middle = 1 - first - last
    found = position_based(JourneyBatch.of_paths([["a"] * length]), RuleSettings(first, middle, last))
    if length == 1:
        wanted = [1.0]
    elif length == 2:
        wanted = [first / (first + last), last / (first + last)] if first + last > 0 else [0.5, 0.5]
    else:
        wanted = [first, *[middle / (length - 2)] * (length - 2), last]
    assert found == pytest.approx(wanted, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=6), min_size=1, max_size=6))
def test_new_names_change_no_byte_of_rules_and_set_shapley(paths: list[list[str]]) -> None:
    renamed = [[{"a": "z", "b": "y", "c": "x", "d": "w"}[name] for name in path] for path in paths]
    models = model_set([*RULE_MODELS, "shapley"])
    one, other = models.attribute(JourneyBatch.of_paths(paths)), models.attribute(JourneyBatch.of_paths(renamed))
    for name, said in one.items():
        assert said.credits.tobytes() == other[name].credits.tobytes(), name


EVENTS = st.lists(
    st.tuples(st.sampled_from("uv"), st.integers(0, 40), st.sampled_from(["a", "b", ""])), min_size=1, max_size=14
)


@settings(max_examples=60, deadline=None)
@given(EVENTS, st.integers(0, 20), st.integers(0, 20))
def test_a_wider_lookback_removes_no_touch(rows: list[tuple[str, int, str]], narrow: int, more: int) -> None:
    columns: dict[str, list[Any]] = {
        "user": [user for user, _, _ in rows],
        "time": [day * 86_400 for _, day, _ in rows],
        "channel": [channel for _, _, channel in rows],
        "conversion": [int(channel == "") for _, _, channel in rows],
    }
    few, many = (read_events(columns, lookback_micros=days * DAY).batch for days in (narrow, narrow + more))
    assert len(few) == len(many)
    assert (few.lengths <= many.lengths).all()
    for journey in range(len(few)):
        inside = slice(few.offsets[journey], few.offsets[journey + 1])
        outside = slice(many.offsets[journey], many.offsets[journey + 1])
        kept = few.times[inside].tolist()
        assert kept == many.times[outside].tolist()[len(many.times[outside]) - len(kept) :]
        assert all(0 <= few.converted_at[journey] - time <= narrow * DAY for time in kept)


def test_an_unknown_channel_has_no_code_and_its_journey_falls_back() -> None:
    index = ChannelIndex.of("ab")
    assert index.code("new") == -1
    with pytest.raises(KeyError):
        index.encode(["new"])
    known = JourneyState.fit(JourneyBatch.of_paths([["a"], ["b"]], index), Outcomes.of([True, False], [1, 0]))
    (model,) = model_set(
        ["markov"], {"markov": TrainedState("1", known.to_document(), {"minimum_conversions": 1})}
    ).models
    batch = JourneyBatch.of_paths([["a", "new"], ["a", "a"], ["new", "a", "a"], []])
    fallback = model.fallback(batch)
    assert fallback is not None
    assert fallback.tolist() == [True, False, True, False]
    assert model.credits(batch) == pytest.approx(linear(batch))


@pytest.mark.parametrize("weights", [(-0.2, 0.6, 0.6), (1.5, -0.5, 0.0), (0.1, 0.1, 0.1)])
def test_position_based_weights_are_shares(weights: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        RuleSettings(*weights)
