"""Per-journey credits of the time-aware model: what the attributor computes with a trained version.

A touch is credited by backwards elimination with its part of the fitted rate at the conversion (`poisson`); what is
left when every touch is removed is the *baseline*: the share associated with no touch, which no touch gets.

Touches raise the rate or leave it alone here: rate ratios below 1 are fitted at exactly 1 (`fit_raising`), so that no
touch of a published result owes money. The unconstrained ratios stay with the version, for people to read.

Invariant: credits and baseline are not negative and sum to 1 over each journey with touches; they depend on that
journey and the stored rates alone, not on its neighbours in the batch. A journey with a channel that the version does
not know well enough is credited by the fallback rule, without a baseline, and flagged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from attributary.attribution_core.domain.journeys import ChannelIndex, Flags, Floats, Ints, JourneyBatch
from attributary.attribution_core.domain.segments import segment_sums
from attributary.attribution_core.models.rules import RULES, RuleSettings
from attributary.attribution_core.models.setting_bounds import check_common
from attributary.attribution_core.statistics.histories import cells_at_end, repeated

SCHEMA_VERSION = 2
_READABLE = frozenset({1, 2})  # in schema 1 draws were cut off at 0
_KIND = "attributary.poisson-rates"
_LOG_UNIT = 1 << 40  # log rate ratios are summed up in whole numbers of 1 / this
_CELLS = 1 << 17  # of draws x touches at a time: they stay in the cache
_MOST_RATES = 1_000_000  # draws x channels x age classes: some 20 MB of JSON, 8 MB in memory


class RatesError(ValueError):
    """A document that holds no rates."""


@dataclass(frozen=True, slots=True)
class PoissonSettings:
    """Parameters of the time-aware model.

    Attributes:
        minimum_conversions: below this many conversions with the channel in reach, it has insufficient data.
        fallback_rule: the rule that credits journeys with insufficient data; like the model it looks at ages.
        draws: parameter draws behind intervals and confidence, kept with the version.
        seed: of the draws.
    """

    minimum_conversions: int = 30
    fallback_rule: str = "time_decay"
    draws: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        check_common(self.minimum_conversions, self.fallback_rule, self.draws, self.seed)

    def check_size(self, channels: int, ages: int) -> None:
        """Check, before anything is allocated, that the drawn rates fit into a version.

        Raises:
            ValueError: they do not; the text says how many draws would.
        """
        cells = channels * ages
        if self.draws * cells > _MOST_RATES:
            raise ValueError(
                f"draws: {self.draws} for {channels} channels do not fit into a version; at most "
                f"{_MOST_RATES // cells} do"
            )


@dataclass(frozen=True, eq=False)
class Rates:
    """What a version of the model keeps.

    Attributes:
        index: the channels.
        bounds: upper ends of the age classes, microseconds, ascending.
        beta: float64[K, A], log rate ratio of a touch of the channel in the age class, not negative.
        draws: float64[D, K, A], the same under parameter draws of a fit in which touches may lower the rate; signed.
        conversions_with: int64[K], conversions with a touch of the channel in reach.
    """

    index: ChannelIndex
    bounds: tuple[int, ...]
    beta: Floats
    draws: Floats
    conversions_with: Ints

    def to_document(self) -> dict[str, Any]:
        """Return a JSON-able document: the same rates give the same document."""
        return {
            "kind": _KIND,
            "schema": SCHEMA_VERSION,
            "channels": list(self.index.names),
            "bounds": list(self.bounds),
            "beta": self.beta.tolist(),
            "draws": self.draws.reshape(self.draws.shape[0], -1).tolist(),
            "conversions_with": self.conversions_with.tolist(),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Rates:
        """Read what `to_document` wrote.

        Raises:
            RatesError: when the document is of another kind or schema version, or damaged.
        """
        if document.get("kind") != _KIND or document.get("schema") not in _READABLE:
            raise RatesError(f"rates: expected {_KIND} of schema {SCHEMA_VERSION}")
        try:
            index = ChannelIndex.of(document["channels"])
            bounds = tuple(int(bound) for bound in document["bounds"])
            shape = (len(index), len(bounds))
            beta = np.array(document["beta"], dtype=np.float64).reshape(shape)
            draws = np.array(document["draws"], dtype=np.float64).reshape(-1, *shape)
            support = np.array(document["conversions_with"], dtype=np.int64)
        except (KeyError, TypeError, OverflowError, ValueError) as error:
            raise RatesError(f"rates: damaged document ({error})") from error
        finite = bool(np.isfinite(beta).all() and np.isfinite(draws).all())
        if support.size != len(index) or not finite or list(index.names) != document["channels"]:
            raise RatesError("rates: damaged document (lengths, order or numbers)")
        if bool((beta < 0).any()):
            raise RatesError("rates: damaged document (a touch that lowers the rate)")
        return cls(index, bounds, beta, draws, support)


@dataclass(frozen=True, eq=False)
class PoissonModel:
    """The time-aware model, ready to credit journeys.

    Attributes:
        version: of the trained state.
        rates: as trained.
        settings: see `PoissonSettings`.
    """

    version: str
    rates: Rates
    settings: PoissonSettings

    @property
    def name(self) -> str:
        """The model's name in results."""
        return "poisson"

    @property
    def fallback_rule(self) -> str:
        """The rule for journeys with insufficient data."""
        return self.settings.fallback_rule

    def credits(self, batch: JourneyBatch) -> Floats:
        """Return the credit of each touch, float64[m]."""
        credits_, _ = self._split(batch, self._effect_places(batch), self.rates.beta[None])
        found: Floats = credits_[0]
        fallen = self.fallback(batch)
        if bool(fallen.any()):
            touches = np.repeat(fallen, batch.lengths)
            found[touches] = RULES[self.fallback_rule](batch, RuleSettings())[touches]
        return found

    def baseline(self, batch: JourneyBatch) -> Floats:
        """Return the part of each journey that no touch gets, float64[n]; 0 where it fell back."""
        _, baseline = self._split(batch, self._effect_places(batch), self.rates.beta[None])
        found: Floats = baseline[0]
        found[self.fallback(batch) | (batch.lengths == 0)] = 0.0
        return found

    def fallback(self, batch: JourneyBatch) -> Flags:
        """Tell which journeys have touches but too little data: an unknown channel, or a rare one."""
        poor = np.append(self.rates.conversions_with < self.settings.minimum_conversions, True)
        flagged = np.zeros(len(batch), dtype=np.bool_)
        flagged[batch.journey_of_touch[poor[self._places(batch)]]] = True
        return flagged

    def confidence(self, batch: JourneyBatch) -> Floats:
        """Return 1 - mean over the draws of half the summed absolute change of credits and baseline."""
        cells = self._effect_places(batch)
        credits_, baseline = (part[0] for part in self._split(batch, cells, self.rates.beta[None]))
        variation = np.zeros(len(batch), dtype=np.float64)
        for drawn, rest in self._drawn_credits(batch, cells):
            np.subtract(drawn, credits_, out=drawn)
            changes = segment_sums(np.abs(drawn, out=drawn), batch.offsets) + np.abs(rest - baseline)
            # row by row: the sum must not depend on how many draws were computed at once
            for change in changes:
                variation += change
        confidence: Floats = 1.0 - 0.5 * variation / self.rates.draws.shape[0]
        confidence[self.fallback(batch) | (batch.lengths == 0)] = np.nan
        return confidence

    def drawn_credits(self, batch: JourneyBatch) -> Iterator[tuple[Floats, Floats]]:
        """Return credits and baselines under parameter draws, some draws at a time: float64[d, m], float64[d, n].

        Effects that a draw has below 0 count as 0, as the estimate's do. They mean nothing for journeys that fall back.
        """
        yield from self._drawn_credits(batch, self._effect_places(batch))

    def drawn_baselines(self, batch: JourneyBatch) -> Floats:
        """Return the baselines under draws in which touches may lower the rate, too, float64[D, n]; 1 at most.

        For intervals: where no touch has an effect, draws that only count positive ones would never reach 1.
        """
        cells = self._effect_places(batch)
        return np.concatenate(
            [_exponential(-np.maximum(self._logs(batch, cells, draws)[1], 0)) for draws in self._draws(batch)]
        )

    def _draws(self, batch: JourneyBatch) -> Iterator[Floats]:
        """Return the draws, as many at a time as fit with the touches of the batch."""
        step = max(_CELLS // max(batch.channels.size, 1), 1)
        for low in range(0, self.rates.draws.shape[0], step):
            yield self.rates.draws[low : low + step]

    def _drawn_credits(self, batch: JourneyBatch, cells: Ints) -> Iterator[tuple[Floats, Floats]]:
        for draws in self._draws(batch):
            yield self._split(batch, cells, np.maximum(draws, 0.0))

    def _places(self, batch: JourneyBatch) -> Ints:
        """Return the code of each touch's channel in the rates; -1, the last entry of a padded row, if unknown."""
        places: Ints = batch.index.translation(self.rates.index)[batch.channels]
        return places

    def _effect_places(self, batch: JourneyBatch) -> Ints:
        """Return the place of each touch's effect in a table of channels and age classes, padded with one of each.

        The last place, which has no effect, is that of touches which say nothing new.
        """
        places, unknown = self._places(batch), len(self.rates.index)
        cells = cells_at_end(batch, np.where(places < 0, unknown, places), self.rates.bounds)
        cells[repeated(batch, cells)] = (unknown + 1) * (len(self.rates.bounds) + 1) - 1
        return cells

    def _logs(self, batch: JourneyBatch, cells: Ints, beta: Floats) -> tuple[Ints, Ints, Ints]:
        """Return logs of rates in fixed point, under many parameters at once.

        Up to and with each touch, over the whole batch, int64[d, m]; of each whole journey, int64[d, n]; and of all up
        to the end of each journey, int64[d, n].
        """
        parameters, ages = beta.shape[0], len(self.rates.bounds)
        table = np.zeros((parameters, beta.shape[1] + 1, ages + 1), dtype=np.int64)  # unknown, grown out: no effect
        table[:, :-1, :-1] = np.rint(beta * _LOG_UNIT)
        logs = table.reshape(parameters, -1).take(cells, axis=1)
        # Whole numbers: running sums over the batch are exact, so no neighbour decides on the last bit.
        upto = np.zeros((parameters, cells.size + 1), dtype=np.int64)
        np.cumsum(logs, axis=1, out=upto[:, 1:])
        ends = upto[:, batch.offsets[1:]]
        return upto[:, 1:], ends - upto[:, batch.offsets[:-1]], ends

    def _split(self, batch: JourneyBatch, cells: Ints, beta: Floats) -> tuple[Floats, Floats]:
        """Eliminate backwards under many parameters at once: credits float64[d, m], baselines float64[d, n]."""
        upto, whole, ends = self._logs(batch, cells, beta)
        # Relative to the rate of all touches: no exponent is above 0, so nothing overflows.
        rates = _exponential(upto - np.repeat(ends, batch.lengths, axis=1))
        baseline = _exponential(-whole)
        # The exponent of the last touch is exactly 0, and the touch before ends where this one begins.
        gains = np.empty_like(rates)
        np.subtract(rates[:, 1:], rates[:, :-1], out=gains[:, 1:])
        filled = batch.lengths > 0
        starts = batch.offsets[:-1][filled]
        gains[:, starts] = rates[:, starts] - baseline[:, filled]
        return np.maximum(gains, 0.0, out=gains), baseline


def _exponential(logs: Ints) -> Floats:
    """Return e to the power of fixed-point numbers."""
    found = logs.astype(np.float64)
    found *= 1.0 / _LOG_UNIT
    return np.exp(found, out=found)
