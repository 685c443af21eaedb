"""The demo's input: the reference data set replayed, or the simulator calibrated on it, and in both cases disorder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from attributary.producers.pathdata import (
    PathDataMissingError,
    Replay,
    ReplayConfig,
    choose_paths,
    find_pathdata,
    read_paths,
)
from attributary.producers.simulator.config import Disorder, SimulatorConfig, Volume
from attributary.producers.simulator.traffic import simulate

if TYPE_CHECKING:
    from attributary.local.demo.publish import Arrival

SEED = 11
# A fifth of the events are published live, at a pace, after the model has been trained on the rest.
_LIVE_SHARE = 0.15
_MOST_LIVE = 6_000
_DISORDER = Disorder(duplicates=0.05, late=0.05, late_seconds=86_400.0, shuffle_seconds=3_600.0)


@dataclass(frozen=True)
class Traffic:
    """Events in order of arrival: first what is there already, then what comes live; and what to say about them."""

    history: list[Arrival]
    live: list[Arrival]
    tenants: tuple[str, ...]
    about: tuple[str, ...]


def demo_traffic(now_micros: int, touchpoints: int) -> Traffic:
    """Build the demo's events.

    Args:
        now_micros: end of their time, microseconds UTC.
        touchpoints: about how many to replay; whole paths are taken.
    """
    simulated = simulate(
        SimulatorConfig(
            now_micros=now_micros,
            seed=SEED,
            volume=Volume(
                touchpoints=max(200, touchpoints // 8), conversions=max(20, touchpoints // 160), span_days=2.0
            ),
            disorder=_DISORDER,
        )
    )
    arrivals: list[Arrival] = [(event.topic, event.record) for event in simulated]
    truth = simulated.truth
    about = [
        (
            f"simulator, tenant tenant-1: {truth.touchpoints:,} touchpoints, {truth.conversions:,} conversions, "
            f"{truth.corrections} refunds and corrections, {truth.links:,} identity links"
        )
    ]
    tenants: tuple[str, ...] = ("tenant-1",)
    try:
        rows = choose_paths(read_paths(find_pathdata()), limit=touchpoints, seed=SEED)
    except PathDataMissingError:
        about.insert(0, "PathData is not on this machine (see README, Data): the simulator calibrated on it stands in")
        cut = len(arrivals) - min(_MOST_LIVE, int(len(arrivals) * _LIVE_SHARE))
        return Traffic(arrivals[:cut], arrivals[cut:], tenants, tuple(about))
    replay = Replay(
        rows, ReplayConfig(now_micros=now_micros, seed=SEED, tenant_id="pathdata", span_days=2.0, disorder=_DISORDER)
    )
    about.insert(
        0,
        f"PathData, tenant pathdata: {replay.journeys:,} people, {replay.touchpoints:,} touchpoints, "
        f"{replay.conversions:,} conversions worth {replay.value_micros / 1e6:,.2f} EUR",
    )
    about.append(f"{replay.duplicates + truth.duplicates:,} duplicates, {replay.late + truth.late:,} late")
    replayed: list[Arrival] = [(topic, record) for topic, _, record in replay]
    cut = len(replayed) - min(_MOST_LIVE, int(len(replayed) * _LIVE_SHARE))
    return Traffic(arrivals + replayed[:cut], replayed[cut:], ("pathdata", *tenants), tuple(about))
