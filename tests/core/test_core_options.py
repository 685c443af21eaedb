"""Options of an analysis: refused by name and rule before anything is computed; what has no effect is said."""

from __future__ import annotations

from typing import Any

import pytest

from attributary.attribution_core import analyze
from attributary.attribution_core.analysis.analyze import ANALYSES
from attributary.attribution_core.analysis.options import AnalysisSettings, unused_options
from attributary.attribution_core.models.model_set import ModelError
from attributary.attribution_core.models.rules import RuleSettings
from attributary.attribution_core.tables.transforms import TransformError

PATHS: dict[str, list[Any]] = {"path": ["a > b", "b"], "total_conversions": [40, 50], "total_null": [60, 50]}


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"order": 1.5}, "order: must be a whole number, at least 1, not 1.5"),
        ({"order": 0}, "order: must be a whole number, at least 1, not 0"),
        ({"order": True}, "order: must be a whole number"),
        ({"draws": 0}, "draws: must be a whole number, at least 2, not 0"),
        ({"seed": -1}, "seed: must be a whole number, at least 0, not -1"),
        ({"seed": None}, "seed: must be"),
        ({"minimum_conversions": -1}, "minimum_conversions: must be a whole number, at least 0"),
        ({"method": "quick"}, "method: must be auto, bootstrap or fast, not 'quick'"),
        ({"intervals": "no"}, "intervals: must be True or False, not 'no'"),
        ({"insights": 1}, "insights: must be True or False, not 1"),
        ({"baseline": [1]}, "baseline: must be names of channels"),
        ({"baseline": 5}, "baseline: must be names of channels"),
        ({"transforms": [None]}, "transforms: must be names"),
        ({"rules": {"first_weight": 1}}, "rules: must be RuleSettings"),
        ({"experiments": [{"channel": "a"}]}, "experiments: must be what read_experiments returns"),
    ],
)
def test_an_option_is_refused_with_its_rule(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        AnalysisSettings(**options)
    with pytest.raises(ValueError, match=rule):
        analyze(PATHS, ["last"], **options)


def test_one_name_stands_for_a_collection_of_one() -> None:
    assert analyze(PATHS, "linear").to_json() == analyze(PATHS, ["linear"]).to_json()
    with pytest.raises(ModelError, match="no model 'linaer'; there are"):
        analyze(PATHS, "linaer")
    with pytest.raises(ModelError, match="models: must be names"):
        analyze(PATHS, [1])  # type: ignore[list-item]
    given: dict[str, Any] = {"baseline": "aa", "transforms": ["first", "unique"]}
    assert AnalysisSettings(**given).baseline == ("aa",)
    assert AnalysisSettings(**given).transforms == ("first", "unique")
    said = analyze(PATHS, "markov_shapley", baseline="a", transforms="first")["markov_shapley"]
    assert said.diagnostics["baseline"] == ["a"]
    assert said.diagnostics["transforms"] == ["first"]
    assert AnalysisSettings(rules=RuleSettings(half_life_seconds=5)).order == 1


def test_recency_is_refused_where_there_are_no_times() -> None:
    with pytest.raises(TransformError, match="recency needs times; a table of paths has none"):
        analyze(PATHS, ["last"], transforms=("recency",))


def test_an_order_that_is_too_high_is_refused_with_the_highest_that_is_not() -> None:
    counts = [1] * 300
    wide: dict[str, list[Any]] = {"path": [f"c{number:03}" for number in range(300)], "total_conversions": counts}
    with pytest.raises(ValueError, match=r"order: 7 is too high for 300 channels; the highest possible is 6"):
        analyze(wide, ["markov"], order=7)
    assert analyze(wide, ["markov"], order=6)["markov"].diagnostics["order"] == 6
    assert analyze(wide, ["last"], order=7)["last"].channels


@pytest.mark.parametrize(
    ("options", "note"),
    [
        ({"baseline": ("a",)}, "baseline has no effect: only markov_shapley uses it"),
        ({"order": 3}, "order has no effect: only markov, markov_journeys use it"),
        ({"method": "fast"}, "method has no effect without intervals"),
        ({"draws": 50}, "draws has no effect without intervals or insights"),
        ({"seed": 5}, "seed has no effect without intervals or insights"),
        (
            {"rules": RuleSettings(half_life_seconds=5)},
            "rules.half_life_seconds has no effect: only time_decay uses it",
        ),
        ({"rules": RuleSettings(0.5, 0.2, 0.3)}, "rules.*_weight has no effect: only position_based uses it"),
        (
            {"draws": 50, "intervals": True, "method": "fast"},
            "draws has no effect: the intervals of these models have a closed form",
        ),
    ],
)
def test_an_option_without_effect_is_said(options: dict[str, Any], note: str) -> None:
    assert analyze(PATHS, ["first"], **options)["first"].diagnostics["notes"] == [note]


def test_an_option_with_effect_is_not_said() -> None:
    models = ["markov", "markov_shapley", "position_based"]
    rules = RuleSettings(0.3, 0.4, 0.3)
    report = analyze(PATHS, models, order=2, baseline="a", rules=rules, intervals=True, draws=10, seed=1)
    assert report["markov"].diagnostics["notes"] == []
    assert analyze(PATHS, models, insights=True, draws=10)["markov"].diagnostics["notes"] == []


def test_half_life_and_weights_are_told_apart() -> None:
    rules = RuleSettings(half_life_seconds=5)
    assert analyze(PATHS, ["position_based"], rules=rules)["position_based"].diagnostics["notes"] == [
        "rules.half_life_seconds has no effect: only time_decay uses it"
    ]


@pytest.mark.parametrize("method", ["fast", "bootstrap"])
@pytest.mark.parametrize("models", [[name] for name in ANALYSES if name not in {"time_decay", "poisson"}])
def test_draws_are_said_to_have_no_effect_where_they_have_none(models: list[str], method: str) -> None:
    """The note is held against the numbers."""
    paths: dict[str, list[Any]] = {"path": ["a > b", "b", "a"], "total_conversions": [4, 5, 6], "total_null": [6, 5, 4]}
    several = [
        analyze(paths, models, intervals=True, method=method, draws=draws, seed=seed)
        for draws, seed in ((5, 0), (7, 0), (5, 1))
    ]
    intervals = [[row["interval"] for row in result[models[0]].channels] for result in several]
    notes = several[2][models[0]].diagnostics["notes"]
    assert any("have a closed form" in note for note in notes) == all(each == intervals[0] for each in intervals)
    found = analyze(paths, models, intervals=True, method=method, draws=5, insights=True)[models[0]]
    said = [note for note in found.diagnostics["notes"] if not note.startswith("last_non_direct equals last")]
    assert said == []


def test_draws_have_no_effect_on_closed_forms_of_large_tables_either() -> None:
    settings = AnalysisSettings(intervals=True, draws=50)
    notes = [
        unused_options(settings, models, rows=rows) for rows in (200_000, 200_001) for models in (["last"], ["markov"])
    ]
    assert [len(each) for each in notes] == [0, 0, 1, 0]
