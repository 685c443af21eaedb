"""Seeded marketing traffic with known truth: who did what, what it earned and which channel caused it.

Contract: the same configuration gives the same events, byte for byte. Every event obeys the rules of
`attributary.schemas.rules`; disorder (duplicates, lateness, shuffling) changes the order of arrival and nothing in the
records. The truth is computed from the same random numbers as the traffic, so it is exact, not estimated.

Example:
    >>> from attributary.producers.simulator import SimulatorConfig, Volume, simulate
    >>> config = SimulatorConfig(now_micros=1_790_000_000_000_000, volume=Volume(touchpoints=300, conversions=20))
    >>> simulate(config).truth.conversions
    20
"""

from __future__ import annotations

from attributary.producers.simulator.config import (
    Channel,
    Corrections,
    Disorder,
    Identities,
    Money,
    Placement,
    SimulatorConfig,
    SimulatorConfigError,
    Volume,
)
from attributary.producers.simulator.rate import pace
from attributary.producers.simulator.traffic import Event, Traffic, simulate
from attributary.producers.simulator.truth import ChannelTruth, ConversionTruth, Truth

__all__ = [
    "Channel",
    "ChannelTruth",
    "ConversionTruth",
    "Corrections",
    "Disorder",
    "Event",
    "Identities",
    "Money",
    "Placement",
    "SimulatorConfig",
    "SimulatorConfigError",
    "Traffic",
    "Truth",
    "Volume",
    "pace",
    "simulate",
]
