"""Settings of trained models: kinds and bounds, and what becomes of a stored version that breaks them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from attributary.attribution_core.domain.journeys import JourneyBatch, Outcomes
from attributary.attribution_core.models.markov_credit import MarkovModel, MarkovSettings
from attributary.attribution_core.models.model_set import (
    MODELS,
    TrainedState,
    UntrainedModel,
    lenient_model_set,
    model_set,
)
from attributary.attribution_core.models.poisson_credit import PoissonSettings
from attributary.attribution_core.models.setting_bounds import MOST_DRAWS
from attributary.attribution_core.statistics.state import JourneyState

PATHS = [["a", "b"], ["b"], ["c", "a"]]
STATE = JourneyState.fit(JourneyBatch.of_paths(PATHS), Outcomes.of([True, False, True], [5_000_000, 0, 7_000_000]))
DOCUMENT = STATE.to_document()


@pytest.mark.parametrize("kind", [MarkovSettings, PoissonSettings])
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("draws", (0, MOST_DRAWS + 1, 10**8, True, 8.0, "8", None, float("nan"), float("inf"))),
        ("minimum_conversions", (-1, 10**23, True, 30.0, "x", None, float("nan"), float("inf"), [30])),
        ("seed", (-1, 1 << 63, True, 0.0, "0", None)),
        ("fallback_rule", ("markov", 1, None, ["linear"], {"linear": 1})),
    ],
)
def test_a_setting_of_another_kind_or_out_of_bounds_is_refused_by_name(
    kind: Any, name: str, values: tuple[Any, ...]
) -> None:
    for value in values:
        with pytest.raises(ValueError, match=f"^{name}: must be"):
            kind(**{name: value})
    for good in ({"draws": MOST_DRAWS}, {"minimum_conversions": 0}, {"seed": (1 << 63) - 1}):
        assert kind(**good)


@pytest.mark.parametrize("value", [0.0, -1.0, 1.5, 1e300, int(1e300), float("nan"), float("inf"), True, "1", None])
def test_a_count_stands_for_at_most_one_journey(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^journeys_per_count: must be"):
        MarkovSettings(journeys_per_count=value)
    assert MarkovSettings(journeys_per_count=1).journeys_per_count == 1


def test_draws_are_sized_before_they_are_allocated() -> None:
    names = [f"channel {number:04}" for number in range(1_200)]
    state = JourneyState.fit(JourneyBatch.of_paths([names]), Outcomes.of([True], [1]))
    with pytest.raises(ValueError, match=r"1200 channels take an attributor too long; at most 5 would do"):
        MarkovModel.train("1", state)
    with pytest.raises(ValueError, match="too long"):  # before the square of channels is allocated
        model_set(["markov"], {"markov": TrainedState("1", {"channels": ["x"] * 10**5}, {})})
    MarkovSettings().check_size(200)
    PoissonSettings().check_size(200, 7)
    with pytest.raises(ValueError, match="200 channels do not fit into a version; at most 714 do"):
        PoissonSettings(draws=1_000).check_size(200, 7)


BROKEN: list[tuple[str, dict[str, Any], Any]] = [
    ("markov", DOCUMENT, {"journeys_per_count": int(1e300)}),
    ("markov", DOCUMENT, {"draws": 10**8}),
    ("markov", DOCUMENT, {"minimum_conversions": "x", "fallback_rule": "last"}),
    ("markov", DOCUMENT, {"no_such": 1}),
    ("markov", {}, {}),
    ("markov", DOCUMENT, [1]),
    ("markov", {**DOCUMENT, "opens": [10**30, 1, 1]}, {}),
    ("markov", {**DOCUMENT, "channels": 7}, {}),
    ("markov", {**DOCUMENT, "sets": None}, {}),
    ("poisson", {}, {}),
    ("poisson", {"kind": "attributary.poisson-rates", "schema": 1, "channels": None}, {}),
]


@pytest.mark.parametrize(("name", "document", "settings"), BROKEN)
def test_a_broken_version_is_named_and_replaced_by_its_fallback(
    name: str, document: dict[str, Any], settings: Any
) -> None:
    states = {name: TrainedState("7", document, settings)}
    with pytest.raises(ValueError, match=r"\S"):
        model_set(states=states)
    models, broken = lenient_model_set(states)
    assert [model.name for model in models.models][: len(MODELS)] == list(MODELS)
    assert [(each.model, each.version) for each in broken] == [(name, "7")]
    assert broken[0].reason
    (replaced,) = [model for model in models.models if model.name == name]
    assert isinstance(replaced, UntrainedModel)
    declared = settings.get("fallback_rule") if isinstance(settings, dict) else None
    default = "linear" if name == "markov" else "time_decay"
    assert (replaced.version, replaced.fallback_rule) == ("7-unusable", declared or default)
    batch = JourneyBatch.of_paths([["a", "b"], []])
    said = models.attribute(batch)[name]
    assert said.fallback is not None
    assert said.fallback.tolist() == [True, False]
    assert batch.sums(said.credits).tolist() == [1.0, 0.0]
    assert lenient_model_set(states)[0].version == models.version


def test_one_broken_version_leaves_the_others_alone() -> None:
    good = TrainedState("3", DOCUMENT, {"minimum_conversions": 0})
    bad = TrainedState("4", {}, {})
    models, broken = lenient_model_set({"markov": good, "poisson": bad})
    assert [each.model for each in broken] == ["poisson"]
    assert {model.name: model.version for model in models.models if model.name in {"markov", "poisson"}} == {
        "markov": "3", "poisson": "4-unusable",
    }  # fmt: skip
    both, nothing = lenient_model_set({"markov": good})
    assert nothing == ()
    assert both.version == model_set(states={"markov": good}).version
    batch = JourneyBatch.of_paths(PATHS)
    assert np.array_equal(
        both.attribute(batch)["markov"].credits,
        model_set(states={"markov": good}).attribute(batch)["markov"].credits,
    )
