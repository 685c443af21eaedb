"""Which journeys convert, because of what, and what becomes of the conversions.

A journey converts when a unit exponential draw does not exceed `scale * intensity`, where the intensity is the
baseline plus the decayed effects of its touches. `scale` is set so that exactly the wanted number converts. The
counterfactual of a channel keeps the draws and the scale and takes the channel's effects out of the intensity.

Invariant: everything that follows a conversion happens after it and not after the end of simulated time; values are
whole minor units of their currency.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from attributary.producers.simulator.config import MICROS, MICROS_PER_DAY, SimulatorConfig
from attributary.producers.simulator.population import LINKED, Flags, Floats, Ints, Population, stream

CURRENCIES = ("EUR", "USD", "JPY", "XXX")
_NO_CURRENCY = 3
_RATE = np.array([1.0, 1.1, 165.0, 0.0])  # units of the currency for one EUR; fixed, so that runs compare
_MINOR_MICROS = np.array([10_000, 10_000, MICROS, 1], dtype=np.int64)
_VALUED_TYPES = frozenset({"purchase", "lead"})

CORRECTION_KINDS = ("refund", "refund", "cancellation", "restatement")
_FULL_REFUND, _PARTIAL_REFUND, _CANCELLATION, _RESTATEMENT = range(4)
_LONGEST_CORRECTION_MICROS = 14 * MICROS_PER_DAY
_LONGEST_LINK_MICROS = 5 * MICROS_PER_DAY


@dataclass(frozen=True)
class Causes:
    """Why journeys convert.

    Attributes:
        converted: journeys that convert, in the order of their number.
        incremental: by channel, conversions that would not have happened with its effect switched off.
        caused: by channel, conversions by the share of the intensity that the channel gave; with `caused_by_nothing`
            they sum to the number of conversions.
        without_any: conversions that would have happened with every effect switched off.
    """

    converted: Ints
    incremental: Ints
    caused: Floats
    caused_by_nothing: float
    without_any: int


@dataclass(frozen=True)
class Conversions:
    """Columns by conversion."""

    journey: Ints
    type: Ints
    currency: Ints
    value_micros: Ints
    net_micros: Ints  # after its correction


@dataclass(frozen=True)
class CorrectionEvents:
    """Columns by refund, cancellation or restatement."""

    conversion: Ints
    kind: Ints
    value_micros: Ints
    occurred_at: Ints


@dataclass(frozen=True)
class Links:
    """Columns by identity link; `borrowed` ones name a stranger and come after the true one."""

    person: Ints
    device: Ints
    linked_at: Ints
    borrowed: Flags


def find_causes(config: SimulatorConfig, population: Population) -> Causes:
    """Decide which journeys convert, and what would have happened otherwise."""
    touches, journeys = population.touches, population.journeys
    count = len(journeys.person)
    effects = np.array([c.effect for c in config.channels])
    age_days = (journeys.end[touches.journey] - touches.occurred_at) / MICROS_PER_DAY
    given = np.where(touches.robot, 0.0, effects[touches.channel] * np.exp2(-age_days / config.half_life_days))
    by_channel = np.stack(
        [
            np.bincount(touches.journey, np.where(touches.channel == c, given, 0.0), minlength=count)
            for c in range(len(effects))
        ]
    )
    intensity = config.baseline + by_channel.sum(axis=0)
    draw = stream(config.seed, "conversions").exponential(size=count)
    wanted = config.volume.conversions
    needed = draw / intensity  # the scale at which the journey converts
    converted = np.sort(np.argsort(needed, kind="stable")[:wanted])
    scale = float(needed[converted].max()) if wanted else 0.0
    hurdle = draw[converted]
    with np.errstate(divide="ignore"):
        lost = [int((hurdle > scale * (intensity - part)[converted] * (1 + 1e-12)).sum()) for part in by_channel]
    # An effect of nothing takes nothing away, whatever the rounding.
    incremental = np.array([n if e > 0 else 0 for n, e in zip(lost, effects, strict=True)], dtype=np.int64)
    return Causes(
        converted=converted,
        incremental=incremental,
        caused=(by_channel[:, converted] / intensity[converted]).sum(axis=1),
        caused_by_nothing=float((config.baseline / intensity[converted]).sum()),
        without_any=int((hurdle <= scale * config.baseline).sum()),
    )


def draw_conversions(
    config: SimulatorConfig, population: Population, causes: Causes
) -> tuple[Conversions, CorrectionEvents]:
    """Draw types, values and corrections of the conversions."""
    count = len(causes.converted)
    random = stream(config.seed, "money")
    types = tuple(config.money.types)
    kind = random.choice(len(types), size=count, p=_weights(config.money.types.values())).astype(np.int64)
    currency = random.choice(len(CURRENCIES) - 1, size=count, p=_currency_weights(config)).astype(np.int64)
    currency[~np.array([t in _VALUED_TYPES for t in types])[kind]] = _NO_CURRENCY
    location = np.log(config.money.mean) - config.money.log_deviation**2 / 2
    amount = np.exp(random.normal(location, config.money.log_deviation, count)) * _RATE[currency]
    value = _whole_minor(amount * MICROS, currency)
    value[currency == _NO_CURRENCY] = 0
    corrections, net = _draw_corrections(config, population.journeys.end[causes.converted], currency, value)
    return Conversions(causes.converted, kind, currency, value, net), corrections


def _draw_corrections(config: SimulatorConfig, end: Ints, currency: Ints, value: Ints) -> tuple[CorrectionEvents, Ints]:
    """At most one correction a conversion, and the net values after them."""
    random = stream(config.seed, "corrections")
    shares = config.corrections
    edges = np.cumsum([shares.refunds, shares.partial_refunds, shares.cancellations, shares.restatements])
    kind = np.searchsorted(edges, random.random(len(end)), side="right").astype(np.int64)
    part, delay = random.random(len(end)), random.random(len(end))
    one_minor = _MINOR_MICROS[currency]
    stated = np.select(
        [kind == _FULL_REFUND, kind == _PARTIAL_REFUND, kind == _RESTATEMENT],
        [value, np.minimum(value, _whole_minor(value * (0.1 + 0.8 * part), currency)),
         np.maximum(one_minor, _whole_minor(value * (0.5 + part), currency))],
        default=0,
    )  # fmt: skip
    corrected = (kind < len(edges)) & (currency != _NO_CURRENCY)
    net = np.where(kind == _RESTATEMENT, stated, np.where(kind == _CANCELLATION, 0, value - stated))
    at = end + 1 + (delay * np.minimum(config.now_micros - end - 1, _LONGEST_CORRECTION_MICROS)).astype(np.int64)
    chosen = np.flatnonzero(corrected)
    return CorrectionEvents(chosen, kind[chosen], stated[chosen], at[chosen]), np.where(corrected, net, value)


def draw_links(config: SimulatorConfig, population: Population) -> Links:
    """One link for each device of everybody who is linked, before or after the first journey's end, and borrowers'."""
    random = stream(config.seed, "links")
    people, journeys = population.people, population.journeys
    linked = np.flatnonzero(people.kind == LINKED)
    person = np.concatenate((linked, linked[people.two_devices[linked]]))
    device = np.concatenate((np.zeros(len(linked), np.int64), np.ones(len(person) - len(linked), np.int64)))
    # The first journey of person p is journey p.
    start, end = population.touches.occurred_at[journeys.first[:-1]][person], journeys.end[person]
    after = (random.random(len(people.kind)) < config.identities.linked_after)[person]
    moment = random.random(len(person))
    later = end + 1 + (moment * np.minimum(config.now_micros - end - 2, _LONGEST_LINK_MICROS)).astype(np.int64)
    linked_at = np.where(after, later, start + (moment * (end - start)).astype(np.int64))
    lent = np.flatnonzero(random.random(len(person)) < config.identities.borrowed_device)
    gap = config.now_micros - linked_at[lent] - 1
    lent_at = linked_at[lent] + 1 + (random.random(len(lent)) * gap).astype(np.int64)
    return Links(
        person=np.concatenate((person, person[lent])),
        device=np.concatenate((device, device[lent])),
        linked_at=np.concatenate((linked_at, lent_at)),
        borrowed=np.concatenate((np.zeros(len(person), np.bool_), np.ones(len(lent), np.bool_))),
    )


def _whole_minor(micros: Floats, currency: Ints) -> Ints:
    """Micros rounded to whole minor units of the currency, at least one."""
    unit = _MINOR_MICROS[currency]
    return np.maximum(1, np.rint(micros / unit).astype(np.int64)) * unit


def _weights(values: Iterable[float]) -> Floats:
    weights: Floats = np.array(list(values), dtype=np.float64)
    return weights / float(weights.sum())


def _currency_weights(config: SimulatorConfig) -> Floats:
    return _weights([config.money.currencies.get(name, 0.0) for name in CURRENCIES[:_NO_CURRENCY]])
