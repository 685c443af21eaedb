"""What each model gives each channel over all journeys: estimators that take the weights of the journeys.

Every estimator is a function of the weights alone, so its uncertainty is that of the weights: drawing the weights anew
(`uncertainty.bootstrap_weights`) and estimating again is the Bayesian bootstrap, for every model in the same way.

Invariant: the totals of an estimator sum to the weighted conversions (and value) of the journeys with touches, save
what its docstring calls baseline or signed; they are NaN where the model cannot say anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Generic, Protocol, TypeVar

import numpy as np

from attributary.attribution_core.domain.journeys import Floats, JourneyBatch, Outcomes
from attributary.attribution_core.models.markov import Chain, removal_effects, shares
from attributary.attribution_core.models.markov_shapley import MarkovShapley, markov_shapley
from attributary.attribution_core.models.shapley import EXACT_CHANNELS, exact, sampled_rate_values, subset_sums
from attributary.attribution_core.statistics.ngram_states import NgramSteps
from attributary.attribution_core.statistics.sets import distinct_sets


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights of the journeys of a batch.

    Attributes:
        conversions: float64[n].
        nulls: float64[n].
        values: float64[n], value of the conversions in micros.
    """

    conversions: Floats
    nulls: Floats
    values: Floats

    @classmethod
    def observed(cls, outcomes: Outcomes) -> Weights:
        """Return the weights as counted."""
        return cls(
            outcomes.conversions.astype(np.float64),
            outcomes.nulls.astype(np.float64),
            outcomes.value_micros.astype(np.float64),
        )


T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class LastAnswer(Generic[T]):
    """What was found for the weights that were asked about last: totals, details and baseline rest on the same."""

    _kept: list[tuple[Weights, T]] = field(default_factory=list)

    def of(self, weights: Weights, find: Callable[[Weights], T]) -> T:
        """Return the answer for these weights, found now or before."""
        if not self._kept or self._kept[0][0] is not weights:
            self._kept[:] = [(weights, find(weights))]
        return self._kept[0][1]


class Estimator(Protocol):
    """One model's totals over a batch of journeys."""

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def batch(self) -> JourneyBatch:
        """The journeys."""

    def totals(self, weights: Weights) -> Floats:
        """Return what each channel gets, float64[2, K]: conversions, and value in micros."""

    def details(self, weights: Weights) -> dict[str, Floats]:
        """Return further numbers of each channel, float64[K] by name."""


@dataclass(frozen=True, eq=False)
class CreditTotals:
    """Sums of fixed per-journey credits: rules and the simplified Shapley value."""

    name: str
    batch: JourneyBatch
    credits: Floats

    def totals(self, weights: Weights) -> Floats:
        """Return the sums of credit x weight over the touches of each channel, float64[2, K]."""
        return np.stack([self._sum(weights.conversions), self._sum(weights.values)])

    def details(self, weights: Weights) -> dict[str, Floats]:
        """Return the Shapley value in conversions, float64[K], for that model; nothing for rules."""
        return {"shapley": self._sum(weights.conversions)} if self.name == "shapley" else {}

    def _sum(self, worth: Floats) -> Floats:
        parts = self.credits * worth[self.batch.journey_of_touch]
        return np.bincount(self.batch.channels, parts, len(self.batch.index)).astype(np.float64)


@dataclass(frozen=True, eq=False)
class RemovalTotals:
    """Normalised removal effects times all conversions (value) of the journeys with touches."""

    batch: JourneyBatch
    order: int = 1
    name: str = "markov"
    _last: LastAnswer[Floats] = field(default_factory=LastAnswer, repr=False)

    @cached_property
    def grams(self) -> NgramSteps:
        """The numbered steps of the journeys."""
        return NgramSteps.of(self.batch, self.order)

    def effects(self, weights: Weights) -> Floats:
        """Return removal effects of conversions and of value, float64[2, K]; the last answer is kept."""
        return self._last.of(weights, self._effects)

    def _effects(self, weights: Weights) -> Floats:
        rewards = np.column_stack((weights.conversions, weights.values))
        return removal_effects(self.grams.chain(rewards, weights.conversions + weights.nulls)).effects

    def totals(self, weights: Weights) -> Floats:
        """Return each channel's share in the sum of removal effects, times what there is to share, float64[2, K]."""
        return shares(self.effects(weights)) * _with_touches(self.batch, weights)[:, None]

    def details(self, weights: Weights) -> dict[str, Floats]:
        """Return the raw removal effects of conversions and of value, float64[K] each."""
        conversions, value = self.effects(weights)
        return {"removal_effect": conversions, "removal_effect_value": value}


@dataclass(frozen=True, eq=False)
class RemovalCreditTotals:
    """Per-journey credits in proportion to removal effects, summed: *not* the normalised removal effect."""

    batch: JourneyBatch
    order: int = 1
    name: str = "markov_journeys"

    @cached_property
    def _removal(self) -> RemovalTotals:
        return RemovalTotals(self.batch, self.order)

    def totals(self, weights: Weights) -> Floats:
        """Weight the touches of each journey by the removal effects of their channels and add up, float64[2, K]."""
        return credits_by_effect(self.batch, self._removal.effects(weights)[0]).totals(weights)

    def details(self, weights: Weights) -> dict[str, Floats]:
        """Nothing beyond the totals."""
        del weights
        return {}


def credits_by_effect(batch: JourneyBatch, effects: Floats) -> CreditTotals:
    """Credit the touches of each journey in proportion to the removal effects float64[K] of their channels.

    Journeys of which no channel has an effect share equally.
    """
    touch = np.nan_to_num(effects)[batch.channels]
    sums = batch.sums(touch)
    if bool((sums <= 0).any()):
        touch = np.where(np.repeat(sums, batch.lengths) > 0, touch, 1.0)
        sums = batch.sums(touch)
    return CreditTotals("markov_journeys", batch, touch / np.repeat(sums, batch.lengths))


@dataclass(frozen=True, eq=False)
class RateShapleyTotals:
    """Shapley values of the rate game, as parts of the conversion rate; signed.

    ``v(S)`` = rate of the journeys with all their channels in ``S``, see `shapley`. Totals are the parts of the rate
    times the journeys with touches, and sum to their conversions. Value has the game "value per journey".
    """

    batch: JourneyBatch
    name: str = "shapley_rate"
    _last: LastAnswer[tuple[Floats, Floats]] = field(default_factory=LastAnswer, repr=False)

    @cached_property
    def _sets(self) -> tuple[list[tuple[int, ...]], np.ndarray]:
        found = distinct_sets(self.batch)
        return found.members, found.set_of_journey

    def values(self, weights: Weights) -> tuple[Floats, Floats]:
        """Return the Shapley values of the conversion rate and of the value per journey, and their standard errors.

        float64[2, K] each; the errors, of sampled orders, are 0 up to 20 channels, where all orders are counted. The
        last answer is kept.
        """
        return self._last.of(weights, self._values)

    def _values(self, weights: Weights) -> tuple[Floats, Floats]:
        members, places = self._sets
        filled = self.batch.lengths > 0
        channels = len(self.batch.index)
        by_set = [
            np.bincount(places[filled], part[filled], len(members))
            for part in (weights.conversions, weights.values, weights.conversions + weights.nulls)
        ]
        if channels > EXACT_CHANNELS:
            names = self.batch.index.names
            found = []
            for worth in by_set[:2]:
                sets = {
                    tuple(names[code] for code in codes): (worth[place], by_set[2][place] - worth[place], 0)
                    for place, codes in enumerate(members)
                }
                found.append(sampled_rate_values(sets, self.batch.index, seed=0))
            return np.stack([each.values for each in found]), np.stack([each.errors for each in found])
        masks = np.array([sum(1 << code for code in codes) for codes in members], dtype=np.int64)
        tables = [subset_sums(np.bincount(masks, worth, 1 << channels).astype(np.float64)) for worth in by_set]
        safe = np.where(tables[2] > 0, tables[2], 1.0)
        values = np.stack([exact(table / safe) for table in tables[:2]])
        return values, np.zeros_like(values)

    def totals(self, weights: Weights) -> Floats:
        """Return the parts of the rate times the number of journeys with touches, float64[2, K]; signed."""
        filled = self.batch.lengths > 0
        return self.values(weights)[0] * float((weights.conversions + weights.nulls)[filled].sum())

    def details(self, weights: Weights) -> dict[str, Floats]:
        """Return the Shapley values as parts of the conversion rate, and their sampling error, float64[K] each."""
        values, errors = self.values(weights)
        return {"shapley": values[0], "shapley_error": errors[0]}


@dataclass(frozen=True, eq=False)
class MarkovShapleyTotals:
    """Shapley values of the chain of first order; the baseline's part is given to nobody."""

    batch: JourneyBatch
    baseline: tuple[str, ...] = ()
    name: str = "markov_shapley"
    _last: LastAnswer[tuple[MarkovShapley, MarkovShapley]] = field(default_factory=LastAnswer, repr=False)

    @cached_property
    def _grams(self) -> NgramSteps:
        return NgramSteps.of(self.batch, 1)

    def values(self, weights: Weights) -> tuple[MarkovShapley, MarkovShapley]:
        """Return the Shapley values of the conversion probability and of the value per journey; the last are kept."""
        return self._last.of(weights, self._values)

    def _values(self, weights: Weights) -> tuple[MarkovShapley, MarkovShapley]:
        grams = self._grams
        rewards = np.column_stack((weights.conversions, weights.values))
        sparse = grams.chain(rewards, weights.conversions + weights.nulls)
        channels = len(self.batch.index)
        channel = grams.states.numbers - 1  # a state of order 1 is one channel
        steps = np.zeros((channels, channels), dtype=np.float64)
        steps[channel[sparse.source], channel[sparse.target]] = sparse.probability
        start, reward = np.zeros(channels), np.zeros((channels, 2))
        start[channel], reward[channel] = sparse.start, sparse.reward
        fixed = [self.batch.index.code(name) for name in self.baseline if self.batch.index.code(name) >= 0]
        conversions, value = (markov_shapley(Chain(start, steps, reward[:, kind]), fixed) for kind in (0, 1))
        return conversions, value

    def totals(self, weights: Weights) -> Floats:
        """Return each channel's part of the total times what there is to share, float64[2, K]; 0 for the baseline."""
        shared = _with_touches(self.batch, weights)
        parts = [
            found.values * (whole / found.total if found.total else np.nan)
            for found, whole in zip(self.values(weights), shared, strict=True)
        ]
        return np.stack(parts)

    def details(self, weights: Weights) -> dict[str, Floats]:
        """Return the Shapley values of the conversion probability, and their sampling error, float64[K] each."""
        found = self.values(weights)[0]
        return {"shapley": found.values, "shapley_error": found.errors}


def _with_touches(batch: JourneyBatch, weights: Weights) -> Floats:
    """Return the conversions and the value of the journeys that have touches."""
    filled = batch.lengths > 0
    return np.array([weights.conversions[filled].sum(), weights.values[filled].sum()])
