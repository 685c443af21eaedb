"""All models against the true contributions that the simulator knows: the scoreboard of docs/models.md."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from attributary.attribution_core import analyze
from attributary.attribution_core.domain.journeys import ChannelIndex, Floats, JourneyBatch, Outcomes
from attributary.attribution_core.tables.paths import JourneyTable
from attributary.producers.simulator import SimulatorConfig, Volume
from attributary.producers.simulator.outcomes import find_causes
from attributary.producers.simulator.population import draw_population

if TYPE_CHECKING:
    from attributary.attribution_core.analysis.report import ModelReport

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


def scoreboard(scale: float = 1.0) -> dict[str, tuple[float, ...]]:
    """Return the distance of every model in a world where most, where little and where all happens anyway.

    Args:
        scale: factor of the journeys, up to 1; the page shows what comes out at 1.
    """
    volume = CONFIG.volume
    touchpoints, conversions = (round(number * min(scale, 1.0)) for number in (volume.touchpoints, volume.conversions))
    config = replace(CONFIG, volume=Volume(touchpoints=touchpoints, conversions=conversions))
    worlds = [
        world(config),
        world(replace(config, baseline=config.baseline / 20)),
        world(replace(config, channels=tuple(replace(channel, effect=0.0) for channel in config.channels))),
    ]
    found: dict[str, list[float]] = {}
    for each in worlds:
        reports = [*analyze(each.table)]
        named = analyze(each.table, ["markov_shapley"], baseline=KNOWN_BASELINE)["markov_shapley"]
        for report in reports:
            found.setdefault(report.model, []).append(distance(report, each.caused))
        found.setdefault("markov_shapley, baseline named", []).append(distance(named, each.caused))
    return {name: tuple(values) for name, values in found.items()}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(scoreboard(json.loads(sys.argv[1])["scale"])) + "\n")
