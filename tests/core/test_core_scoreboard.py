"""All models against the simulator's true contributions: the table of docs/models.md, computed again."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from attributary.attribution_core import analyze
from attributary.attribution_core.journeys import ChannelIndex, Floats, JourneyBatch, Outcomes
from attributary.attribution_core.paths import JourneyTable
from attributary.attribution_core.report import ModelReport
from attributary.producers.simulator import SimulatorConfig, Volume
from attributary.producers.simulator.outcomes import find_causes
from attributary.producers.simulator.population import draw_population

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
KNOWN_BASELINE = ("direct", "organic_search")
CONFIG = SimulatorConfig(now_micros=1_790_000_000_000_000, volume=Volume(touchpoints=60_000, conversions=4_000))


class World(NamedTuple):
    table: JourneyTable
    caused: Floats  # share of all conversions by channel; the rest happens anyway


def world(config: SimulatorConfig) -> World:
    population = draw_population(config)
    causes = find_causes(config, population)
    touches, journeys = population.touches, population.journeys
    index = ChannelIndex.of(channel.name for channel in config.channels)
    codes = index.encode([channel.name for channel in config.channels])
    human = np.flatnonzero(~touches.robot)
    human = human[np.lexsort((touches.occurred_at[human], touches.journey[human]))]
    lengths = np.bincount(touches.journey[human], minlength=len(journeys.person))
    channels = codes[touches.channel[human]]
    converted = np.zeros(len(lengths), dtype=np.bool_)
    converted[causes.converted] = True
    batch = JourneyBatch(
        np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        channels,
        touches.occurred_at[human],
        journeys.end,
        channels == index.code("direct"),
        index,
    )
    caused = np.zeros(len(index))
    caused[codes] = causes.caused / causes.converted.size
    return World(JourneyTable(batch, Outcomes.of(converted, converted * 10_000_000), journeys.end), caused)


def distance(report: ModelReport, caused: Floats) -> float:
    """Half the summed absolute differences of shares, what happens anyway being one of them."""
    share = np.array(report.column("share"), dtype=np.float64)
    return float(0.5 * (np.abs(share - caused).sum() + abs(caused.sum() - share.sum())))


@pytest.fixture(scope="module")
def scores() -> Mapping[str, tuple[float, ...]]:
    worlds = [
        world(CONFIG),
        world(replace(CONFIG, baseline=CONFIG.baseline / 20)),
        world(replace(CONFIG, channels=tuple(replace(channel, effect=0.0) for channel in CONFIG.channels))),
    ]
    found: dict[str, list[float]] = {}
    for each in worlds:
        reports = [*analyze(each.table)]
        named = analyze(each.table, ["markov_shapley"], baseline=KNOWN_BASELINE)["markov_shapley"]
        for report in reports:
            found.setdefault(report.model, []).append(distance(report, each.caused))
        found.setdefault("markov_shapley, baseline named", []).append(distance(named, each.caused))
    return {name: tuple(values) for name, values in found.items()}


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
