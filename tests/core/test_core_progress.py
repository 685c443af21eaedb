"""Long analyses say how far they are, and do nothing twice."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest

from attributary.attribution_core import analyze
from attributary.attribution_core.models import channel_totals as population
from attributary.attribution_core.models import poisson
from attributary.attribution_core.tables.paths import read_paths

PATHS: dict[str, list[Any]] = {"path": ["a > b", "b", "c"], "total_conversions": [4, 5, 6], "total_null": [9, 8, 7]}
DAY = 86_400
EVENTS: dict[str, list[Any]] = {
    "user": ["u1", "u1", "u1", "u2", "u2"],
    "time": [0, 9 * DAY, 10 * DAY, 0, DAY],
    "channel": ["search", "mail", "", "search", ""],
    "conversion": [0, 0, 1, 0, 1],
}


def test_progress_goes_up_model_by_model_to_the_end() -> None:
    heard: list[tuple[int, int, str]] = []
    analyze(PATHS, ["linear", "markov"], progress=lambda *said: heard.append(said))
    assert heard == [(0, 2, "linear"), (1, 2, "linear"), (1, 2, "markov"), (2, 2, "markov")]


@pytest.mark.parametrize("method", ["bootstrap", "fast"])
def test_with_intervals_every_draw_of_the_bootstrap_is_a_step(method: str) -> None:
    heard: list[tuple[int, int, str]] = []
    analyze(
        PATHS, ["linear", "markov"], intervals=True, draws=20, method=method, progress=lambda *said: heard.append(said)
    )
    done = [said[0] for said in heard]
    assert done == sorted(done)
    assert {said[1] for said in heard} == {42}
    assert heard[-1] == (42, 42, "markov")
    assert (set(range(43)) <= set(done)) == (method == "bootstrap")


def test_being_watched_changes_no_number() -> None:
    watched = analyze(PATHS, intervals=True, draws=20, progress=lambda *_: None)
    assert watched.to_json() == analyze(PATHS, intervals=True, draws=20).to_json()


@pytest.mark.parametrize(
    ("model", "module", "costly", "times"),
    [
        ("shapley_rate", population, "exact", 2),  # of the rate and of the value
        ("markov_shapley", population, "markov_shapley", 2),
        ("markov", population, "removal_effects", 1),
        ("poisson", poisson, "fit", 1),
    ],
)
def test_what_a_report_needs_is_computed_once(
    monkeypatch: pytest.MonkeyPatch, model: str, module: Any, costly: str, times: int
) -> None:
    spy = Mock(wraps=getattr(module, costly))
    monkeypatch.setattr(module, costly, spy)
    analyze(EVENTS, [model], baseline=("search",))
    assert spy.call_count == times


def test_a_lookback_in_python_is_that_of_the_command_line() -> None:
    assert analyze(EVENTS, ["linear"])["linear"].column("share") == [0.25, 0.75]
    assert analyze(EVENTS, ["linear"], lookback_days=2)["linear"].column("share") == [0.5, 0.5]


@pytest.mark.parametrize(
    ("data", "days", "rule"),
    [
        (PATHS, 3, "needs times"),
        (read_paths(PATHS), 3, "give it to read_events"),
        (EVENTS, -1, "from 0 to 36,500"),
        (EVENTS, float("nan"), "from 0 to 36,500"),
    ],
)
def test_a_lookback_that_cannot_be_kept_is_refused(data: Any, days: float, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        analyze(data, ["linear"], lookback_days=days)
