"""The Shapley value of the Markov chain, with channels that are always there.

The game: ``v(S)`` = probability that the chain converts while it touches no channel outside ``S`` and the baseline
``B``. Without a baseline channel its Shapley value is, by linearity over the walks of the chain,
``phi_i = E[1{converts, i touched} / number of distinct channels touched]``: the per-journey simplified Shapley value
over the *model's* journeys instead of the observed ones. Baseline channels (direct, organic, ...) are no players: what
converts through them alone stays "baseline", unattributed.

Invariant: ``sum(phi) + baseline = h0``, the conversion rate. This is our own construction; it is not the counterfactual
adjusted Shapley value (CASV) of Singal et al., which needs funnel states and "no advertisement" events.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from attributary.attribution_core.domain.journeys import Flags, Floats, Ints
from attributary.attribution_core.models.markov import Chain
from attributary.attribution_core.models.shapley import exact

EXACT_PLAYERS = 12
_CELLS = 1 << 21
_MAX_WORK = 54 * 10**9  # draws x channels^3: 2,000 draws of 300 channels, half a minute of one core
MAX_CHANNELS = 500
"""The most channels that sampling gives useful numbers for: 432 draws."""


@dataclass(frozen=True, eq=False)
class MarkovShapley:
    """Shapley values of a chain of first order.

    Attributes:
        values: float64[K]; probability (or value per journey) of each channel, 0 for baseline channels.
        baseline: what converts through the baseline channels alone.
        total: ``h0``, what all channels give.
        errors: float64[K], upper bound of the standard error of each value (strata ignored); all 0 when exact.
        draws: number of subsets drawn; 0 when exact.
    """

    values: Floats
    baseline: float
    total: float
    errors: Floats
    draws: int


def markov_shapley(chain: Chain, baseline: Collection[int] = (), *, draws: int = 2_000, seed: int = 0) -> MarkovShapley:
    """Compute the Shapley values: exact for up to 12 players, else from stratified samples of subsets.

    Args:
        chain: chain of first order; its reward may be conversions or value.
        baseline: codes of the channels that are always there.
        draws: subsets to draw where the exact value is out of reach; fewer are drawn of more than 300 channels, which
            the errors show.
        seed: of the generator.
    """
    states = chain.start.size
    fixed = np.zeros(states, dtype=np.bool_)
    fixed[list(baseline)] = True
    players = np.flatnonzero(~fixed).astype(np.int64)
    edges = np.stack((fixed, np.ones(states, dtype=np.bool_)))
    low, total = (float(worth) for worth in _worths(chain, edges))
    if players.size <= EXACT_PLAYERS:
        values, errors, used = _exact(chain, fixed, players), np.zeros(states), 0
    else:
        values, errors, used = _sampled(chain, fixed, min(draws, max(_MAX_WORK // states**3, 1)), seed)
        whole = values.sum()
        if whole != 0:
            values, errors = values * (total - low) / whole, errors * abs((total - low) / whole)
    return MarkovShapley(values, low, total, errors, used)


def _worths(chain: Chain, present: Flags) -> Floats:
    """Return the worth of each set of present channels, float64[...] for bool[..., K]."""
    states = chain.start.size
    if states == 0:
        return np.zeros(present.shape[:-1], dtype=np.float64)
    flat = present.reshape(-1, states)
    worths = np.empty(flat.shape[0], dtype=np.float64)
    step = max(_CELLS // max(states * states, 1), 1)
    for low in range(0, flat.shape[0], step):
        mask = flat[low : low + step].astype(np.float64)
        matrix = np.eye(states) - chain.steps * mask[:, None, :] * mask[:, :, None]
        hope = np.linalg.solve(matrix, (mask * chain.reward)[:, :, None])[:, :, 0]
        worths[low : low + step] = hope @ chain.start
    return worths.reshape(present.shape[:-1])


def _exact(chain: Chain, fixed: Flags, players: Ints) -> Floats:
    masks = np.arange(1 << players.size)
    present = np.tile(fixed, (masks.size, 1))
    present[:, players] = (masks[:, None] >> np.arange(players.size)) & 1
    values = np.zeros(fixed.size, dtype=np.float64)
    values[players] = exact(_worths(chain, present))
    return values


def _sampled(chain: Chain, fixed: Flags, draws: int, seed: int) -> tuple[Floats, Floats, int]:
    """Owen's multilinear sampling: one inverse gives what every channel adds to, or takes from, a random set."""
    states = fixed.size
    generator = np.random.Generator(np.random.PCG64(seed))
    total, squares = np.zeros(states), np.zeros(states)
    step = max(_CELLS // (states * states), 1)
    for low in range(0, draws, step):
        size = min(step, draws - low)
        # one inclusion probability from each of `draws` equal slices of (0, 1)
        share = (np.arange(low, low + size) + generator.random(size)) / draws
        present = (generator.random((size, states)) < share[:, None]) | fixed
        gains = _marginals(chain, present)
        total += gains.sum(axis=0)
        squares += (gains * gains).sum(axis=0)
    mean = np.where(fixed, 0.0, total / draws)
    variance = np.maximum(squares / draws - mean * mean, 0.0)
    return mean, np.where(fixed, 0.0, np.sqrt(variance / draws)), draws


def _marginals(chain: Chain, present: Flags) -> Floats:
    """Return what each channel adds to a set without it, or what the set loses without it, float64[D, K]."""
    mask = present.astype(np.float64)
    states = mask.shape[1]
    inside = chain.steps * mask[:, None, :] * mask[:, :, None]
    inverse = np.linalg.inv(np.eye(states) - inside)  # identity outside the set
    reward, start = chain.reward * mask, chain.start * mask
    hope = np.matmul(inverse, reward[:, :, None])[:, :, 0]
    visits = np.matmul(start[:, None, :], inverse)[:, 0]
    diagonal = np.diagonal(inverse, axis1=1, axis2=2)
    lost = visits * hope / diagonal
    # A channel outside: reached with v', it leads to conversion with h', returning to itself on the way (Schur).
    reached = chain.start + np.matmul(visits[:, None, :], chain.steps)[:, 0]
    through = np.matmul(chain.steps * mask[:, None, :], inverse)
    leads = chain.reward + np.matmul(chain.steps, (hope * mask)[:, :, None])[:, :, 0]
    returns = np.einsum("dij,ji->di", through * mask[:, None, :], chain.steps) + np.diagonal(chain.steps)
    added = reached * leads / (1.0 - returns)
    gains: Floats = np.where(present, lost, added)
    return gains
