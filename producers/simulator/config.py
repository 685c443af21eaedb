"""What to simulate: sizes, channels with their causal effects, identities, money, corrections and disorder.

Invariant: a `SimulatorConfig` that could be made can be simulated; impossible wishes fail here, with the field's name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from attributary.producers.simulator.calibration import (
    CHANNEL_SHARES,
    LOG_VALUE_DEVIATION,
    MEAN_VALUE,
    REPEAT_SHARE,
    mean_length,
)
from attributary.schemas.limits import is_tenant

MICROS = 1_000_000
MICROS_PER_DAY = 86_400 * MICROS


_MAX_EVENTS = 100_000_000  # all of them are drawn in memory
_MAX_TENANTS = 100_000
_MAX_DAYS = 36_500  # a century


class SimulatorConfigError(ValueError):
    """A wish that cannot be simulated; the text begins with the field's name."""


@dataclass(frozen=True)
class Placement:
    """Where a channel's touches are bought or made.

    Attributes:
        platform: platform of the touchpoint.
        medium: utm_medium.
        campaigns: how many campaigns run there; 0 for traffic that has none.
        click_id: parameter of the platform's click id; None when it sets none.
        referrer: referring URL of a click.
    """

    platform: str
    medium: str
    campaigns: int = 0
    click_id: str | None = None
    referrer: str | None = None


@dataclass(frozen=True)
class Channel:
    """A marketing channel and what it truly does.

    Attributes:
        name: channel of the touchpoint.
        share: weight in the mix of touches.
        effect: what one fresh touch adds to the conversion intensity; 0 for a channel that causes nothing.
        placements: where its touches come from, drawn evenly.
        passive: interaction of touches that are not clicks (impression, view, open); None when all are clicks.
        passive_share: share of passive touches among those that are young enough for the passive window.
    """

    name: str
    share: float
    effect: float
    placements: tuple[Placement, ...]
    passive: str | None = None
    passive_share: float = 0.0


def default_channels() -> tuple[Channel, ...]:
    """Twelve channels with PathData's mix; names, placements and effects are the simulator's own.

    The commonest channel causes nothing although every journey meets it, and the rare ones cause much: what touch
    counting gets wrong.
    """
    google, bing = "https://www.google.com/", "https://www.bing.com/"
    search = (Placement("google", "cpc", 6, "gclid", google), Placement("microsoft", "cpc", 3, "msclkid", bing))
    social = (
        Placement("meta", "paid_social", 6, "fbclid", "https://l.facebook.com/"),
        Placement("tiktok", "paid_social", 3, "ttclid", "https://www.tiktok.com/"),
        Placement("linkedin", "paid_social", 2, "li_fat_id", "https://www.linkedin.com/"),
        Placement("pinterest", "paid_social", 2, "epik", "https://www.pinterest.com/"),
        Placement("snap", "paid_social", 2, "ScCid", None),
    )
    rows: tuple[tuple[str, float, tuple[Placement, ...], str | None, float], ...] = (
        ("organic_search", 0.0, (Placement("organic", "organic", 0, None, google),), None, 0.0),
        ("paid_search", 0.10, search, None, 0.0),
        ("paid_social", 0.12, social, "impression", 0.5),
        ("direct", 0.0, (Placement("direct", "(none)"),), None, 0.0),
        ("email", 0.08, (Placement("email", "email", 4),), "open", 0.5),
        ("display", 0.02, (Placement("google", "display", 4, "gclid"),), "impression", 0.8),
        ("affiliate", 0.15, (Placement("awin", "affiliate", 3, "awc", "https://www.awin1.com/"),), None, 0.0),
        ("paid_video", 0.20, (Placement("google", "video", 3, "gclid"),), "view", 0.7),
        ("referral", 0.03, (Placement("referral", "referral", 0, None, "https://blog.example.org/"),), None, 0.0),
        ("organic_social", 0.05, (Placement("x", "social", 0, None, "https://t.co/"),), None, 0.0),
        ("sms", 0.20, (Placement("sms", "sms", 1),), None, 0.0),
        ("ai_assistant", 0.10, (Placement("openai", "referral", 0, None, "https://chatgpt.com/"),), None, 0.0),
    )
    return tuple(
        Channel(name, share, effect, placements, passive, passive_share)
        for share, (name, effect, placements, passive, passive_share) in zip(CHANNEL_SHARES, rows, strict=True)
    )


@dataclass(frozen=True)
class Volume:
    """How much.

    Attributes:
        touchpoints: distinct touchpoints, exactly.
        conversions: distinct conversions, exactly, corrections not counted.
        tenants: tenants, which share the traffic evenly.
        tenant: name of the one tenant, or what stands before the number in the names of several.
        people: persons; None: as many as there are journeys. Fewer than journeys: some come back.
        span_days: days over which journeys end; their touches reach up to 30 days further back.
    """

    touchpoints: int = 20_000
    conversions: int = 1_000
    tenants: int = 1
    people: int | None = None
    span_days: float = 30.0
    tenant: str | None = None

    def tenant_names(self) -> list[str]:
        """Names of the tenants: `acme`, or `acme-1` and `acme-2`; `tenant-1` if nothing else is said."""
        if self.tenant is not None and self.tenants == 1:
            return [self.tenant]
        return [f"{self.tenant or 'tenant'}-{number + 1}" for number in range(self.tenants)]


@dataclass(frozen=True)
class Disorder:
    """How badly events arrive; shares are of distinct events, of touchpoints, conversions and links alike.

    Attributes:
        duplicates: share of events that arrive twice.
        duplicate_delay_seconds: longest delay of the second copy behind the first.
        late: share of events that arrive late.
        late_seconds: longest delay of a late event, beyond the shuffling.
        shuffle_seconds: every event arrives up to so many seconds after it happened, which reorders neighbours.
    """

    duplicates: float = 0.0
    duplicate_delay_seconds: float = 21_600.0
    late: float = 0.0
    late_seconds: float = 172_800.0
    shuffle_seconds: float = 0.0


@dataclass(frozen=True)
class Identities:
    """How people can be known; the rest of the known are linked by an explicit identity link per device.

    Attributes:
        anonymous: share of people who never become known.
        signed_in: share of the known with both ids on every event.
        linked_after: share of the linked with a link only after the conversion.
        two_devices: share of people with a second device.
        borrowed_device: share of the linked with a device that somebody else later uses (the first link must win).
        robots: share of touchpoints that are a robot's.
    """

    anonymous: float = 0.6
    signed_in: float = 0.2
    linked_after: float = 0.3
    two_devices: float = 0.2
    borrowed_device: float = 0.01
    robots: float = 0.005


def _currency_mix() -> Mapping[str, float]:
    return {"EUR": 0.6, "USD": 0.3, "JPY": 0.1}


def _type_mix() -> Mapping[str, float]:
    return {"purchase": 0.7, "lead": 0.12, "signup": 0.08, "add_to_cart": 0.07, "page_view": 0.03}


@dataclass(frozen=True)
class Money:
    """What conversions are worth; only purchases and leads have a value.

    Attributes:
        mean: mean value in EUR; other currencies by a fixed rate.
        log_deviation: standard deviation of the value's logarithm.
        currencies: weight of EUR, USD and JPY.
        types: weight of each conversion type.
    """

    mean: float = MEAN_VALUE
    log_deviation: float = LOG_VALUE_DEVIATION
    currencies: Mapping[str, float] = field(default_factory=_currency_mix)
    types: Mapping[str, float] = field(default_factory=_type_mix)


@dataclass(frozen=True)
class Corrections:
    """Share of valued conversions that are corrected once later, by kind."""

    refunds: float = 0.02
    partial_refunds: float = 0.02
    cancellations: float = 0.01
    restatements: float = 0.01

    @property
    def total(self) -> float:
        """Share of valued conversions with a correction."""
        return self.refunds + self.partial_refunds + self.cancellations + self.restatements


@dataclass(frozen=True)
class SimulatorConfig:
    """Everything that decides the traffic.

    Attributes:
        now_micros: end of simulated time, microseconds since 1970-01-01 UTC; nothing happens after it.
        seed: of all randomness. Sizes, identities, money and disorder draw from streams of their own, so a change of
            the disorder leaves the events themselves as they are.
        baseline: conversion intensity of a person without any effective touch; above 0.
        half_life_days: after which a touch's effect on the intensity has halved.
        repeat_share: share of neighbouring touches that are of one channel.
    """

    now_micros: int
    seed: int = 0
    volume: Volume = field(default_factory=Volume)
    channels: tuple[Channel, ...] = field(default_factory=default_channels)
    disorder: Disorder = field(default_factory=Disorder)
    identities: Identities = field(default_factory=Identities)
    money: Money = field(default_factory=Money)
    corrections: Corrections = field(default_factory=Corrections)
    baseline: float = 0.15
    half_life_days: float = 7.0
    repeat_share: float = REPEAT_SHARE

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated."""
        if self.seed < 0:
            raise SimulatorConfigError("seed: must not be negative")
        _check_volume(self.volume)
        for part in (self.disorder, self.identities, self.corrections):
            _check_shares(vars(part))
        _check_channels(self.channels)
        if self.half_life_days <= 0 or self.baseline <= 0:
            raise SimulatorConfigError("half_life_days, baseline: must be above 0")
        if self.corrections.total > 1.0:
            raise SimulatorConfigError("corrections: their shares together must not exceed 1")
        if set(self.money.currencies) - {"EUR", "USD", "JPY"}:
            raise SimulatorConfigError("currencies: EUR, USD and JPY are known")

    @property
    def expected_journeys(self) -> float:
        """About how many journeys the touchpoints make."""
        return self.volume.touchpoints / mean_length()


def _check_volume(volume: Volume) -> None:
    if not math.isfinite(volume.span_days):
        raise SimulatorConfigError("span_days: must be a number")
    if volume.touchpoints < 1 or volume.conversions < 0 or volume.tenants < 1:
        raise SimulatorConfigError("volume: at least 1 touchpoint, 0 conversions and 1 tenant are wanted")
    if volume.conversions > volume.touchpoints:
        raise SimulatorConfigError("conversions: each needs a touchpoint, so at most as many as touchpoints")
    if volume.people is not None and volume.people < volume.tenants:
        raise SimulatorConfigError("people: at least one for each tenant is wanted")
    if max(volume.touchpoints, volume.people or 0) > _MAX_EVENTS or volume.tenants > _MAX_TENANTS:
        raise SimulatorConfigError(
            f"volume: at most {_MAX_EVENTS:,} touchpoints and people, and {_MAX_TENANTS:,} tenants"
        )
    if not is_tenant(volume.tenant_names()[-1]):
        raise SimulatorConfigError("tenant: must be 1 to 64 characters of a-z, 0-9, dot, dash and underscore")
    if volume.span_days <= 0:
        raise SimulatorConfigError("span_days: must be above 0")
    if volume.span_days > _MAX_DAYS:
        raise SimulatorConfigError(f"span_days: at most {_MAX_DAYS:,}")


def _check_shares(fields: Mapping[str, float]) -> None:
    for name, value in fields.items():
        if not math.isfinite(value):
            raise SimulatorConfigError(f"{name}: must be a number")
        if value < 0:
            raise SimulatorConfigError(f"{name}: must not be negative")
        if value > 1 and not name.endswith("_seconds"):
            raise SimulatorConfigError(f"{name}: a share from 0 to 1 is wanted")
        if value > _MAX_DAYS * 86_400:
            raise SimulatorConfigError(f"{name}: at most {_MAX_DAYS:,} days")


def _check_channels(channels: tuple[Channel, ...]) -> None:
    if not channels or sum(channel.share for channel in channels) <= 0:
        raise SimulatorConfigError("channels: at least one with some share is wanted")
    if any(channel.effect < 0 or channel.share < 0 for channel in channels):
        raise SimulatorConfigError("channels: shares and effects must not be negative")
    if len({channel.name for channel in channels}) < len(channels):
        raise SimulatorConfigError("channels: names must differ")
    if not all(channel.placements for channel in channels):
        raise SimulatorConfigError("channels: each needs a placement")
