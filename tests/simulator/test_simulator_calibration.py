"""Calibration: the traffic has PathData's statistics, its constants are those of the file, and it is quick."""

from __future__ import annotations

import numpy as np
import pytest

from attributary.producers.pathdata import PathDataMissingError, find_pathdata, read_paths
from attributary.producers.simulator import SimulatorConfig, Volume, pace, simulate
from attributary.producers.simulator.calibration import (
    CHANNEL_SHARES,
    CONVERSION_RATE,
    MEAN_VALUE,
    REPEAT_SHARE,
    length_probabilities,
    mean_length,
)
from attributary.producers.simulator.population import draw_population

CONFIG = SimulatorConfig(1_790_000_000_000_000, seed=1, volume=Volume(60_000, 3_000))


def test_channel_mix_length_and_repeats() -> None:
    population = draw_population(CONFIG)
    channel, journey = population.touches.channel, population.touches.journey
    mix = np.bincount(channel, minlength=len(CHANNEL_SHARES)) / len(channel)
    assert np.abs(mix - np.array(CHANNEL_SHARES)).max() < 0.01
    lengths = np.diff(population.journeys.first)
    assert lengths.mean() == pytest.approx(mean_length(), rel=0.03)
    histogram = np.bincount(lengths - 1, minlength=8)[:8] / len(lengths)
    assert np.abs(histogram - length_probabilities()[:8]).max() < 0.01
    neighbours = journey[1:] == journey[:-1]
    assert (channel[1:] == channel[:-1])[neighbours].mean() == pytest.approx(REPEAT_SHARE, abs=0.015)


def test_values_of_conversions() -> None:
    euros = [c.gross_value_micros / 1e6 for c in simulate(CONFIG).truth.by_conversion.values() if c.currency == "EUR"]
    assert np.mean(euros) == pytest.approx(MEAN_VALUE, rel=0.08)
    assert np.log(euros).std() == pytest.approx(0.752, abs=0.05)


def test_constants_are_those_of_the_file() -> None:
    try:
        rows = read_paths(find_pathdata())
    except PathDataMissingError as error:
        pytest.skip(str(error))
    touches: dict[str, int] = {}
    lengths = np.zeros(len(length_probabilities()))
    repeats = neighbours = 0
    for row in rows:
        for channel in row.channels:
            touches[channel] = touches.get(channel, 0) + row.journeys
        if len(row.channels) <= len(lengths):
            lengths[len(row.channels) - 1] += row.journeys
        repeats += row.journeys * sum(a == b for a, b in zip(row.channels, row.channels[1:], strict=False))
        neighbours += row.journeys * (len(row.channels) - 1)
    shares = sorted((count / sum(touches.values()) for count in touches.values()), reverse=True)
    assert shares == pytest.approx(CHANNEL_SHARES, abs=1e-5)
    assert lengths / lengths.sum() == pytest.approx(length_probabilities(), abs=1e-12)
    assert repeats / neighbours == pytest.approx(REPEAT_SHARE, abs=1e-3)
    journeys = sum(row.journeys for row in rows)
    conversions = sum(row.conversions for row in rows)
    assert conversions / journeys == pytest.approx(CONVERSION_RATE)
    assert float(sum(row.value for row in rows)) / conversions == pytest.approx(MEAN_VALUE, abs=1e-4)


def test_pace_keeps_the_rate_and_catches_up() -> None:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    given = []
    for item in pace(range(1_001), 1_000, clock=lambda: now[0], sleep=sleep):
        given.append(now[0])
        if item == 500:
            now[0] += 0.2  # the consumer stalls
    assert given[-1] == pytest.approx(1.0, abs=0.003)
    assert all(at >= number / 1_000 - 0.0021 for number, at in enumerate(given))
    assert list(pace("abc", 0)) == ["a", "b", "c"]
