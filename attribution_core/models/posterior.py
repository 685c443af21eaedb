"""How precise an estimate is: posterior draws, intervals and confidence.

Invariant: draws are a function of the counts and the seed. Nothing here speaks about whether a model is *right*:
sampling error, support, model dependence and drift are separate statements and are never blended into one score.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from attributary.attribution_core.domain.confidence import CONFIDENCE_LEVEL
from attributary.attribution_core.domain.journeys import Floats, Ints, Outcomes
from attributary.attribution_core.models.channel_totals import Weights
from attributary.attribution_core.models.markov import Chain, first_order_removal
from attributary.attribution_core.statistics.state import JourneyState

_CELLS = 1 << 21  # bounds the working memory of a batch of chains
_LEAK = 1e-9


@dataclass(frozen=True, eq=False)
class DrawSummary:
    """What draws of shares say about their precision.

    Attributes:
        low: float64[..., K], lower end of the 90 % interval.
        high: float64[..., K], upper end.
        error: float64[..., K], standard deviation.
        confidence: float64[...], one minus the expected total variation from the estimate, ``1 - E[sum |draw - share|
            / 2]``: the precision of the estimate, not the probability that it is right.
        draws: int64[...], how many draws could be used.
    """

    low: Floats
    high: Floats
    error: Floats
    confidence: Floats
    draws: Ints

    @classmethod
    def stacked(cls, parts: Sequence[DrawSummary]) -> DrawSummary:
        """Put the spreads of several kinds of shares below each other."""
        low, high, error, confidence, draws = (
            np.stack([np.asarray(getattr(part, name)) for part in parts])
            for name in ("low", "high", "error", "confidence", "draws")
        )
        return cls(low, high, error, confidence, draws)


def summarize_draws(draws: Floats, estimate: Floats, confidence_level: float = CONFIDENCE_LEVEL) -> DrawSummary:
    """Sum up draws of shares.

    Args:
        draws: float64[D, ..., K], shares under the drawn weights; draws that are not numbers are left out, for each
            kind of shares by itself.
        estimate: float64[..., K], shares under the observed weights.
        confidence_level: probability of the interval.
    """
    if estimate.ndim > 1:
        return DrawSummary.stacked(
            [summarize_draws(draws[:, kind], estimate[kind], confidence_level) for kind in range(estimate.shape[0])]
        )
    usable = draws[np.isfinite(draws).all(axis=1)]
    number = np.int64(usable.shape[0])
    if number < 2:
        nothing = np.full(estimate.shape, np.nan)
        return DrawSummary(nothing, nothing, nothing, np.asarray(np.nan), np.asarray(number))
    tail = (1 - confidence_level) / 2
    low, high = np.quantile(usable, (tail, 1 - tail), axis=0)
    variation = 0.5 * np.abs(usable - estimate).sum(axis=-1).mean(axis=0)
    return DrawSummary(low, high, usable.std(axis=0, ddof=1), np.asarray(1.0 - variation), np.asarray(number))


def bootstrap_weights(outcomes: Outcomes, *, draws: int, seed: int) -> Iterator[Weights]:
    """Draw weights of the journeys: the Bayesian bootstrap (Rubin 1981), a gamma(1) weight per journey.

    Journeys of one path share a row, and the sum of their weights is gamma(number). How the values inside a row differ
    is not known: they are taken for equal, so draws of value say nothing where a row holds several conversions.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    counts = outcomes.conversions.astype(np.float64)
    nulls = outcomes.nulls.astype(np.float64)
    worth = outcomes.value_micros / np.maximum(outcomes.conversions, 1)
    for _ in range(draws):
        converted = generator.standard_gamma(counts)
        yield Weights(converted, generator.standard_gamma(nulls), converted * worth)


def dirichlet_removal(
    state: JourneyState,
    *,
    draws: int,
    seed: int,
    value_squares: Floats | None = None,
    journeys_per_count: float = 1.0,
) -> Floats:
    """Draw removal effects of the first order from the posterior of the chain.

    Each row of the chain (and the start) is drawn from a Dirichlet distribution with the observed counts, as
    normalised gamma variates: the Bayesian bootstrap of the steps. It takes the chain for true, and so understates
    the spread where it is not; the bootstrap over journeys does not.

    Args:
        state: counts.
        draws: number of draws.
        seed: of the generator.
        value_squares: float64[K], the summed squared distances of the values from the mean value of the journeys that
            end with each channel: draws effects on the value. None: on the conversions.
        journeys_per_count: effective journeys that one count stands for (`forgetting`).

    Returns:
        float64[draws, K]; 0 for all channels in a draw without conversions.
    """
    channels = len(state.index)
    generator = np.random.Generator(np.random.PCG64(seed))
    effects = np.zeros((draws, channels), dtype=np.float64)
    if channels == 0:
        return effects
    step = max(_CELLS // (channels * channels), 1)
    counts = state.chain
    for low in range(0, draws, step):
        size = min(step, draws - low)
        steps = generator.standard_gamma(counts.steps * journeys_per_count, (size, channels, channels))
        converted = generator.standard_gamma(counts.conversions * journeys_per_count, (size, channels))
        lost = generator.standard_gamma(counts.nulls * journeys_per_count, (size, channels))
        start = generator.standard_gamma(counts.opens * journeys_per_count, (size, channels))
        reward = converted
        if value_squares is not None:
            # Bayesian bootstrap of a sum: the mean value times the drawn conversions, and independent of it the spread
            # of the values around their mean (two moments; the sum of many is normal).
            mean = counts.value_micros / np.maximum(counts.conversions, 1)
            reward = converted * mean + generator.standard_normal((size, channels)) * np.sqrt(value_squares)
        # Few effective journeys make tiny gammas: a loop that no drawn journey leaves would never end. A walk is lost
        # at every step with this probability, far below anything that counts can tell.
        rows = (steps.sum(axis=2) + converted + lost) * (1.0 + _LEAK)
        rows[rows == 0] = 1.0
        begun = start.sum(axis=1, keepdims=True)
        chain = Chain(start / np.where(begun > 0, begun, 1.0), steps / rows[:, :, None], reward / rows)
        effects[low : low + size] = np.nan_to_num(first_order_removal(chain).effects, nan=0.0)
    return effects
