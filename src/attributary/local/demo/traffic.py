"""The demo's input: a simulated shop with ten channels and known causes, and PathData besides where it is at hand."""

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
from attributary.producers.simulator.config import Channel, Disorder, Placement, SimulatorConfig, Volume
from attributary.producers.simulator.traffic import simulate

if TYPE_CHECKING:
    from attributary.local.demo.publish import Arrival
    from attributary.producers.simulator.truth import Truth

SEED = 11
SHOPS = ("tenant-1", "tenant-2")
_SPAN_DAYS = 30.0
# The last part is published live, at a pace, after the models have been trained on the rest.
_LIVE_SHARE = 0.15
_MAX_LIVE = 4_000
_DISORDER = Disorder(duplicates=0.05, late=0.05, late_seconds=86_400.0, shuffle_seconds=3_600.0)
_PATHDATA_SHARE = 0.25  # of the touchpoints, where it is at hand
_TOUCHPOINTS_PER_CONVERSION = 16  # as in PathData, about

# Share of the touches, effect of one, placements, share and kind of touches that are no clicks. A large channel that
# causes nothing beside a small one that causes much is what counting touches gets wrong.
_CHANNELS: dict[str, tuple[float, float, tuple[Placement, ...], str | None, float]] = {
    "organic_search": (0.26, 0.02, (Placement("organic", "organic", 0, None, "https://www.google.com/"),), None, 0.0),
    "paid_search": (0.18, 0.08, (Placement("google", "cpc", 6, "gclid"),), None, 0.0),
    "direct": (0.14, 0.0, (Placement("direct", "(none)"),), None, 0.0),
    "paid_social": (0.13, 0.20, (Placement("meta", "paid_social", 6, "fbclid"),), "impression", 0.5),
    "display": (0.09, 0.02, (Placement("google", "display", 4, "gclid"),), "impression", 0.8),
    "email": (0.08, 0.45, (Placement("email", "email", 4),), "open", 0.5),
    "affiliate": (0.05, 0.05, (Placement("awin", "affiliate", 3, "awc"),), None, 0.0),
    "paid_video": (0.04, 1.20, (Placement("google", "video", 3, "gclid"),), "view", 0.7),
    "referral": (0.02, 0.30, (Placement("referral", "referral", 0, None, "https://blog.example.org/"),), None, 0.0),
    "ai_assistant": (0.01, 0.80, (Placement("openai", "referral", 0, None, "https://chatgpt.com/"),), None, 0.0),
}


@dataclass(frozen=True)
class Traffic:
    """Events in order of arrival.

    Attributes:
        history: what is there already.
        live: what comes at a pace afterwards.
        tenants: all tenants of the events.
        truth: what the channels of the simulated shops caused.
        about: lines that say what this is.
    """

    history: list[Arrival]
    live: list[Arrival]
    tenants: tuple[str, ...]
    truth: Truth
    about: tuple[str, ...]


def demo_channels() -> tuple[Channel, ...]:
    """Return the ten channels of the demo's shops."""
    return tuple(Channel(name, *parts) for name, parts in _CHANNELS.items())


def demo_traffic(now_micros: int, touchpoints: int) -> Traffic:
    """Build the demo's events.

    Args:
        now_micros: end of their time, microseconds UTC.
        touchpoints: about how many to replay; of PathData whole paths are taken.
    """
    about: list[str] = []
    history: list[Arrival] = []
    tenants: tuple[str, ...] = SHOPS
    try:
        rows = choose_paths(read_paths(find_pathdata()), limit=int(touchpoints * _PATHDATA_SHARE), seed=SEED)
    except PathDataMissingError:
        pass
    else:
        replay = Replay(
            rows,
            ReplayConfig(
                now_micros=now_micros, seed=SEED, tenant_id="pathdata", span_days=_SPAN_DAYS, disorder=_DISORDER
            ),
        )
        history += [(topic, record) for topic, _, record in replay]
        touchpoints -= replay.touchpoints
        tenants = (*SHOPS, "pathdata")
        about.append(
            f"PathData, tenant pathdata: {replay.journeys:,} people, {replay.touchpoints:,} touchpoints, "
            f"{replay.conversions:,} conversions"
        )
    simulated = simulate(
        SimulatorConfig(
            now_micros=now_micros,
            seed=SEED,
            volume=Volume(
                touchpoints=max(200, touchpoints),
                conversions=max(20, touchpoints // _TOUCHPOINTS_PER_CONVERSION),
                tenants=len(SHOPS),
                span_days=_SPAN_DAYS,
            ),
            channels=demo_channels(),
            disorder=_DISORDER,
            repeat_share=0.3,
        )
    )
    truth = simulated.truth
    about.insert(
        0,
        f"simulator, tenants {' and '.join(SHOPS)}, 30 days, {len(_CHANNELS)} channels with known effects: "
        f"{truth.touchpoints:,} touchpoints, {truth.conversions:,} conversions, "
        f"{truth.corrections:,} refunds and corrections, {truth.links:,} identity links; "
        f"{truth.duplicates:,} of them arrive twice, {truth.late:,} late",
    )
    arrivals: list[Arrival] = [(event.topic, event.record) for event in simulated]
    cut = len(arrivals) - min(_MAX_LIVE, int(len(arrivals) * _LIVE_SHARE))
    return Traffic(history + arrivals[:cut], arrivals[cut:], tenants, truth, tuple(about))
