"""Many channels (S21 of the hostile inputs): rare ones are pooled with a note, or refused with the cure."""

from __future__ import annotations

import resource
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attributary.attribution_core import analyze
from attributary.attribution_core.domain.journeys import JourneyBatch, Outcomes
from attributary.attribution_core.models.model_set import ModelError
from attributary.attribution_core.statistics import state
from attributary.attribution_core.statistics.state import JourneyState, StateLimitError
from attributary.attribution_core.tables.experiments import read_experiments
from attributary.attribution_core.tables.transforms import OTHER, pool_rare


def table(channels: int) -> dict[str, list[Any]]:
    """Each channel once alone, and `big` in every path beside it."""
    paths = [f"big > c{number:05d}" for number in range(channels)]
    return {"path": paths, "total_conversions": [1] * channels, "total_null": [1] * channels}


def test_s21_rare_channels_are_pooled_with_a_note_and_nothing_is_lost() -> None:
    report = analyze(table(30), "linear", max_channels=5)["linear"]
    assert report.column("channel") == ["(other)", "big", "c00000", "c00001", "c00002"]
    assert report.diagnostics["notes"] == [
        "27 rare channels are pooled into (other): there are 31, max_channels is 5",
    ]
    assert sum(report.column("conversions")) == pytest.approx(30)
    assert not analyze(table(30), "linear")["linear"].diagnostics["notes"]


def test_s21_channels_that_an_option_names_stay() -> None:
    lifts = tuple(read_experiments({"channel": ["c00020"], "conversions": [1], "standard_error": [1]}))
    options: dict[str, Any] = {"max_channels": 6, "experiments": lifts, "draws": 5, "baseline": ("c00029",)}
    names = analyze(table(30), "markov_shapley", **options)["markov_shapley"].column("channel")
    assert {"c00020", "c00029", "big", OTHER} <= set(names)
    assert len(names) == 6


@given(
    st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=5), min_size=1, max_size=12),
    st.integers(2, 9),
    st.booleans(),
)
def test_s21_pooling_keeps_touches_and_the_most_frequent(paths: list[list[str]], limit: int, kept: bool) -> None:
    batch = JourneyBatch.of_paths(paths)
    found, number = pool_rare(batch, np.ones(len(batch), dtype=np.int64), limit, ("h",) if kept else ())
    assert len(found.index) <= max(limit, 1)
    assert found.lengths.tolist() == batch.lengths.tolist()
    before = [batch.index.names[code] for code in batch.channels]
    after = [found.index.names[code] for code in found.channels]
    assert all(new in (old, OTHER) for old, new in zip(before, after, strict=True))
    assert number == len(set(before) - set(after))
    stay = {name: before.count(name) for name in set(after) - {OTHER, "h"}}
    gone = [before.count(name) for name in set(before) - set(after)]
    assert not stay or max(gone, default=0) <= min(stay.values())
    if kept and "h" in before:
        assert "h" in after


@pytest.mark.parametrize(("limit", "rule"), [(1, "at least 2"), (2_001, "at most 2,000"), (True, "whole number")])
def test_s21_the_bound_has_bounds(limit: int, rule: str) -> None:
    with pytest.raises(ValueError, match=f"max_channels: must be .*{rule}"):
        analyze(table(3), "linear", max_channels=limit)


def test_s21_a_model_that_would_take_too_long_is_refused_with_the_cure() -> None:
    with pytest.raises(ModelError, match="markov_shapley takes too long with 600 channels: set max_channels to 500"):
        analyze(table(700), "markov_shapley", max_channels=600)


def test_s21_a_state_of_too_many_channels_is_refused_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = Outcomes.of([True], [0])
    many = JourneyBatch.of_paths([[f"c{number}" for number in range(state.MAX_CHANNELS + 1)]])
    with pytest.raises(StateLimitError, match=r"2,001 channels are more than 2,000; .*publish it in its own field"):
        JourneyState.fit(many, outcomes)
    monkeypatch.setattr(state, "MAX_CHANNELS", 3)
    one, other = (JourneyState.fit(JourneyBatch.of_paths([list(path)]), outcomes) for path in ("abc", "bcd"))
    with pytest.raises(StateLimitError, match="4 channels"):
        one.add(other)
    with pytest.raises(StateLimitError, match="4 channels"):
        JourneyState.weighted_sum([(1, one), (2, other)])
    monkeypatch.setattr(state, "MAX_CHANNELS", 2)
    with pytest.raises(state.StateError, match="3 channels"):
        JourneyState.from_document(one.to_document())


# VmHWM, not ru_maxrss: the latter keeps the peak of the process that forked, a worker of pytest.
_MEASURE = """
import sys
from attributary.attribution_core import analyze
number = int(sys.argv[1])
paths = [f"c{n * 7919 % number} > c{n * 31 % number} > c{n % 97}" for n in range(20_000)]
columns = {"path": paths, "total_conversions": [n % 2 for n in range(20_000)], "total_null": [1] * 20_000}
result = analyze(columns, ["linear", "markov", "markov_journeys", "shapley"])
assert len(result["linear"].channels) == 500
print(next(int(line.split()[1]) // 1024 for line in open('/proc/self/status') if line.startswith('VmHWM')))
"""


@pytest.mark.parametrize("channels", [2_000, 10_000])
def test_s21_memory_is_bounded_whatever_the_number_of_channels(channels: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(channels)],
        capture_output=True,
        check=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30)),  # no threads here
    )
    assert int(done.stdout) < 400  # megabytes; it was 4 GB
