"""How precise an estimate is: posterior draws, intervals and confidence.

Invariant: draws are a function of the counts and the seed. Nothing here speaks about whether a model is *right*:
sampling error, support, model dependence and drift are separate statements and are never blended into one score.
"""

import numpy as np

from attributary.attribution_core.journeys import Floats
from attributary.attribution_core.markov import Chain, first_order_removal
from attributary.attribution_core.state import JourneyState

_CELLS = 1 << 21  # bounds the working memory of a batch of chains


def dirichlet_removal(state: JourneyState, *, draws: int, seed: int) -> Floats:
    """Draw removal effects of the first order from the posterior of the chain.

    Each row of the chain (and the start) is drawn from a Dirichlet distribution with the observed counts, as
    normalised gamma variates: the Bayesian bootstrap of the steps. It takes the chain for true, and so understates
    the spread where it is not; the bootstrap over journeys does not.

    Args:
        state: counts.
        draws: number of draws.
        seed: of the generator.

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
        steps = generator.standard_gamma(counts.steps, (size, channels, channels))
        converted = generator.standard_gamma(counts.conversions, (size, channels))
        lost = generator.standard_gamma(counts.nulls, (size, channels))
        start = generator.standard_gamma(counts.opens, (size, channels))
        rows = steps.sum(axis=2) + converted + lost
        rows[rows == 0] = 1.0
        begun = start.sum(axis=1, keepdims=True)
        chain = Chain(start / np.where(begun > 0, begun, 1.0), steps / rows[:, :, None], converted / rows)
        effects[low : low + size] = np.nan_to_num(first_order_removal(chain).effects, nan=0.0)
    return effects
