"""Per-journey credits weighted by removal effects: the Markov model for single journeys.

The credit of a touch is the removal effect of its channel over the sum of the removal effects of all touches of the
journey. This is a quantity of its own. Its total over all journeys is *not* the normalised removal effect of the
population, which in general cannot be split into per-journey credits at all (see ``docs/models.md``).

Invariant: credits depend on the journey and the trained state only; a journey with a channel that the state does not
know well enough is credited by the fallback rule and flagged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from attributary.attribution_core.domain.journeys import ChannelIndex, Flags, Floats, Ints, JourneyBatch
from attributary.attribution_core.domain.segments import segment_sums
from attributary.attribution_core.models.markov import first_order_chain, first_order_removal
from attributary.attribution_core.models.posterior import dirichlet_removal
from attributary.attribution_core.models.rules import RULES, RuleSettings
from attributary.attribution_core.models.setting_bounds import check_common, check_share
from attributary.attribution_core.statistics.state import JourneyState

_CELLS = 1 << 17  # of draws x touches at a time: they stay in the cache
_MOST_WORK = 10**10  # draws x channels^3, each draw is the inverse of a matrix: one to three seconds of one core


@dataclass(frozen=True, slots=True)
class MarkovSettings:
    """Parameters of the Markov model.

    Attributes:
        minimum_conversions: below this many conversions that contain a channel, the channel has insufficient data.
        fallback_rule: the rule that credits journeys with insufficient data.
        draws: posterior draws behind the confidence; its own simulation error shrinks with their root.
        seed: of the draws.
        journeys_per_count: effective journeys that one count of the state stands for; below 1 where the state's counts
            are weights of a training that forgets (`forgetting`), which sets it: nobody chooses it.
    """

    minimum_conversions: int = 30
    fallback_rule: str = "linear"
    draws: int = 64
    seed: int = 0
    journeys_per_count: float = 1.0

    def __post_init__(self) -> None:
        check_common(self.minimum_conversions, self.fallback_rule, self.draws, self.seed)
        check_share("journeys_per_count", self.journeys_per_count)

    def check_size(self, channels: int) -> None:
        """Check, before anything is allocated, that the draws of so many channels take seconds, not minutes.

        Raises:
            ValueError: they would take longer; the text says how many draws would do.
        """
        if self.draws * channels**3 > _MOST_WORK:
            raise ValueError(
                f"draws: {self.draws} for {channels} channels take an attributor too long; at most "
                f"{_MOST_WORK // channels**3} would do"
            )


@dataclass(frozen=True, eq=False)
class MarkovModel:
    """Removal effects of the first order, ready to credit journeys.

    Attributes:
        version: of the trained state.
        index: the channels of the state.
        effects: float64[K], removal effects; NaN where the data is insufficient.
        draws: float64[D, K], removal effects under parameter draws.
        settings: see `MarkovSettings`.
    """

    version: str
    index: ChannelIndex
    effects: Floats
    draws: Floats
    settings: MarkovSettings

    @classmethod
    def train(cls, version: str, state: JourneyState, settings: MarkovSettings | None = None) -> MarkovModel:
        """Compute removal effects and their posterior draws from the counts of a state.

        Raises:
            ValueError: that would take too long.
        """
        chosen = settings or MarkovSettings()
        chosen.check_size(len(state.index))
        chain = state.chain
        effects = first_order_removal(
            first_order_chain(chain.steps, chain.opens, chain.conversions, chain.conversions + chain.nulls)
        ).effects
        scale = chosen.journeys_per_count
        effects = np.where(state.conversions_with() * scale >= chosen.minimum_conversions, effects, np.nan)
        draws = dirichlet_removal(state, draws=chosen.draws, seed=chosen.seed, journeys_per_count=scale)
        return cls(version, state.index, effects, draws, chosen)

    @property
    def name(self) -> str:
        """The model's name in results."""
        return "markov"

    @property
    def fallback_rule(self) -> str:
        """The rule for journeys with insufficient data."""
        return self.settings.fallback_rule

    def credits(self, batch: JourneyBatch) -> Floats:
        """Return the credit of each touch, float64[m]."""
        weights = self._weights(batch, self.effects)
        sums = batch.sums(weights)
        flagged = ~(sums > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            shares: Floats = weights / np.repeat(sums, batch.lengths)
        if bool((flagged & (batch.lengths > 0)).any()):
            fallen = np.repeat(flagged, batch.lengths)
            shares[fallen] = RULES[self.fallback_rule](batch, RuleSettings())[fallen]
        return shares

    def fallback(self, batch: JourneyBatch) -> Flags:
        """Tell which journeys have touches but too little data, bool[n].

        That is an unknown or rare channel, or channels of no effect at all.
        """
        sums = batch.sums(self._weights(batch, self.effects))
        return ~(sums > 0) & (batch.lengths > 0)

    def confidence(self, batch: JourneyBatch) -> Floats:
        """Return 1 - mean over the draws of half the summed absolute change of the journey's credits, float64[n].

        NaN for journeys without touches, and for those that fall back.
        """
        shares = self.credits(batch)
        variation = np.zeros(len(batch), dtype=np.float64)
        for drawn in self.drawn_credits(batch):
            np.subtract(drawn, shares, out=drawn)
            # row by row: the sum must not depend on how many draws were computed at once
            for change in segment_sums(np.abs(drawn, out=drawn), batch.offsets):
                variation += change
        confidence: Floats = 1.0 - 0.5 * variation / self.draws.shape[0]
        confidence[self.fallback(batch) | (batch.lengths == 0)] = np.nan
        return confidence

    def drawn_credits(self, batch: JourneyBatch) -> Iterator[Floats]:
        """Return the credits under parameter draws, some draws at a time: float64[d, m].

        They mean nothing for journeys that fall back.
        """
        places = self._places(batch)
        # An unknown channel takes the last, padded, place; its journeys are flagged, and callers leave them out.
        padded = np.concatenate((self.draws, np.ones((self.draws.shape[0], 1))), axis=1)
        step = max(_CELLS // max(places.size, 1), 1)
        for low in range(0, padded.shape[0], step):
            weights = padded[low : low + step, places]
            sums = segment_sums(weights, batch.offsets)
            sums[sums <= 0] = 1.0
            weights /= np.repeat(sums, batch.lengths, axis=1)
            yield weights

    def _places(self, batch: JourneyBatch) -> Ints:
        """Return the code of each touch's channel in the state; -1, the last entry of a padded row, if unknown."""
        places: Ints = batch.index.translation(self.index)[batch.channels]
        return places

    def _weights(self, batch: JourneyBatch, effects: Floats) -> Floats:
        """Return the removal effect of each touch's channel; NaN, which any sum inherits, if unknown or rare."""
        weights: Floats = np.append(effects, np.nan)[self._places(batch)]
        return weights
