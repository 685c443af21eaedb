"""All models against the simulator's true contributions: the table of docs/models.md, computed again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from attributary.attribution_core.models.poisson import fit_raising
from attributary.attribution_core.models.poisson_credit import PoissonModel, PoissonSettings, Rates
from attributary.attribution_core.statistics.exposures import ExposureCounts
from benchmarks.models_truth import CONFIG, scoreboard, world

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


@pytest.fixture(scope="module")
def scores() -> Mapping[str, tuple[float, ...]]:
    return scoreboard()


@pytest.mark.slow
def test_the_scoreboard_of_the_page_is_what_comes_out(scores: Mapping[str, tuple[float, ...]]) -> None:
    shown = {
        name: tuple(map(float, cells))
        for name, *cells in re.findall(
            r"^\| `?([a-z_, ]+?)`? \| (\d\.\d\d) \| (\d\.\d\d) \| (\d\.\d\d) \|$", PAGE.read_text(), re.MULTILINE
        )
    }
    table = "\n".join(f"| {name} | " + " | ".join(f"{v:.2f}" for v in row) + " |" for name, row in scores.items())
    assert set(shown) == set(scores), f"\n{table}"
    for name, row in scores.items():
        assert shown[name] == pytest.approx(row, abs=0.03), f"\n{table}"


def test_only_models_with_a_baseline_can_tell_that_nothing_was_caused(scores: Mapping[str, tuple[float, ...]]) -> None:
    with_baseline = {"poisson", "markov_shapley, baseline named"}
    for name, row in scores.items():
        assert (row[2] < 0.9) == (name in with_baseline), name


def test_published_poisson_credits_are_as_near_to_the_truth(
    scores: Mapping[str, tuple[float, ...]],
) -> None:
    """Its rates are fitted so that no touch lowers them, and its credits are never negative."""
    nothing = tuple(replace(channel, effect=0.0) for channel in CONFIG.channels)
    configs = (CONFIG, replace(CONFIG, baseline=CONFIG.baseline / 20), replace(CONFIG, channels=nothing))
    for config, by_analysis in zip(configs, scores["poisson"], strict=True):
        table, caused = world(config)
        conversions = table.outcomes.conversions
        assert table.watched_until is not None
        counts = ExposureCounts.fit(table.batch, conversions, table.watched_until)
        beta, draws = fit_raising(counts, draws=2, seed=0)
        rates = Rates(counts.index, counts.bounds, beta, draws, counts.conversions_with())
        converted = table.batch.select(conversions > 0)
        credits_ = PoissonModel("1", rates, PoissonSettings(minimum_conversions=0)).credits(converted)
        share = np.bincount(converted.channels, credits_, len(converted.index)) / len(converted)
        apart = 0.5 * (np.abs(share - caused).sum() + abs(caused.sum() - share.sum()))
        assert apart == pytest.approx(by_analysis, abs=0.03)
