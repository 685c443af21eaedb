"""Absorbing Markov chains of channels, and the removal effect of every channel.

A journey is a walk START -> channel -> ... -> CONVERSION or NULL. The *removal effect* of a channel is the share of
the chain's conversions that would be missing if every step into the channel led to NULL instead (Anderl et al. 2016,
IJRM 33(3)). It is a statement about the model, a counterfactual of the chain, not a causal effect.

With ``Q`` the steps between states, ``r`` the steps into CONVERSION, ``p`` the first steps, ``N = (I - Q)^-1``,
``v = p N`` (expected visits), ``h = N r`` (conversion probability) and ``h0 = p h``:

    RE_i = (v_i / N_ii) h_i / h0        probability to hit i, times to convert from i, over probability to convert
    RE_A = v_A solve(N_AA, h_A) / h0    a channel A of several states, as in chains of higher order

Invariants: ``h0`` equals the observed conversion rate exactly (up to float rounding); ``0 <= RE <= 1``; removal effects
overlap, so their sum is usually above 1 and their normalised shares are *not* an aggregate of per-journey credits.

`first_order_removal` computes chains of first order from one inverse. `removal_effects` computes a chain of any order
in the cheapest of three ways, which agree to 1e-12:

- *dense*: one inverse of all states, then one small solve per channel;
- *sparse*: sweeps ``X <- M (Q X + r)`` that gather each step by itself, see `removal_solver`;
- *blocks*: the same sweeps, where the steps of all states with the same ``k - 1`` newest channels are one small matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from attributary.attribution_core.domain.journeys import Floats, Ints
from attributary.attribution_core.models.removal_solver import EMPTINESS, kept_rewards
from attributary.attribution_core.statistics.ngram_states import SparseChain

ROUNDING = 1e-12
"""What a sum may be off by, relative to the sum of the absolute values of its parts."""


@dataclass(frozen=True, eq=False)
class Chain:
    """Transition probabilities of the transient states.

    Attributes:
        start: float64[..., S], probability that a journey begins in the state.
        steps: float64[..., S, S], probability to go from row to column.
        reward: float64[..., S], probability to go from the state to CONVERSION; or, for revenue, the expected value
            that is collected at the end from the state.
    """

    start: Floats
    steps: Floats
    reward: Floats


@dataclass(frozen=True, eq=False)
class RemovalEffects:
    """Removal effects of all channels.

    Attributes:
        effects: float64[..., K]; NaN when the chain never converts, or its refunds cancel its values.
        total: float64[...], conversion probability (or expected value) of a journey, ``h0``.
    """

    effects: Floats
    total: Floats


def first_order_chain(steps: Ints, opens: Ints, rewards: Ints, exits: Ints) -> Chain:
    """Estimate the chain of first order from counts.

    Args:
        steps: int64[K, K], steps from channel to channel.
        opens: int64[K], journeys that begin with the channel.
        rewards: int64[K], conversions (or value) of the journeys that end with the channel.
        exits: int64[K], all journeys that end with the channel, converted or not.
    """
    out = (steps.sum(axis=1) + exits).astype(np.float64)
    safe = np.where(out > 0, out, 1.0)
    begun = float(opens.sum())
    return Chain(opens / (begun or 1.0), steps / safe[:, None], rewards / safe)


def first_order_removal(chain: Chain) -> RemovalEffects:
    """Return the exact removal effect of every channel of a chain of first order; O(K^3), batched over leading axes."""
    states = chain.steps.shape[-1]
    inverse = np.linalg.inv(np.eye(states) - chain.steps)
    visits = np.matmul(chain.start[..., None, :], inverse)[..., 0, :]
    hope = np.matmul(inverse, chain.reward[..., :, None])[..., 0]
    total = np.sum(chain.start * hope, axis=-1)
    diagonal = np.diagonal(inverse, axis1=-2, axis2=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        effects = visits / diagonal * hope / total[..., None]
    # what is no more than the rounding of values and refunds that cancel is nothing to have shares of
    gross = np.sum(visits * np.abs(chain.reward), axis=-1)
    effects = np.where((np.abs(total) <= ROUNDING * gross)[..., None], np.nan, effects)
    return RemovalEffects(effects, total)


def shares(effects: Floats) -> Floats:
    """Normalise removal effects over the channels: the usual way to hand out all conversions.

    Args:
        effects: float64[..., K], removal effects, or other amounts by channel.

    Returns:
        float64[..., K], summing to 1 over the channels; NaN where the effects sum to 0 or are unknown.
    """
    whole = effects.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        normalised: Floats = effects / whole
    return normalised


Method = Literal["auto", "dense", "sparse", "blocks"]

_DENSE_STATES = 3_000
# Costs in nanoseconds, measured: of a dense inverse per cubed state and of the solve of a channel; of a sweep per
# column and cell of a matrix, per column and step that is gathered, per group of states; usual number of sweeps.
_INVERSE, _SOLVE, _PRODUCT, _GATHER, _GROUP, _SWEEPS = 0.1, 2e4, 0.04, 7.0, 5e4, 20


def removal_effects(chain: SparseChain, method: Method = "auto") -> RemovalEffects:
    """Return effects float64[R, K] and totals float64[R], one row per kind of reward; NaN where the total is 0.

    Raises:
        ConvergenceError: when the sweeps do not settle.
    """
    if chain.start.size == 0:
        shape = (chain.reward.shape[1], chain.states.base - 1)
        return RemovalEffects(np.full(shape, np.nan), np.zeros(shape[0]))
    chosen = _cheapest(chain) if method == "auto" else method
    return _dense(chain) if chosen == "dense" else _swept(chain, dense=chosen == "blocks")


def _cheapest(chain: SparseChain) -> Method:
    states, channels = chain.start.size, chain.states.base - 1
    costs: dict[Method, float] = {
        "sparse": _SWEEPS * (_GATHER * chain.source.size * channels + _GROUP * channels),
        "blocks": _SWEEPS * _cost_of_blocks(chain),
    }
    if states <= _DENSE_STATES:
        costs["dense"] = _INVERSE * float(states) ** 3 + _SOLVE * channels
    return min(costs, key=lambda name: costs[name])


def _cost_of_blocks(chain: SparseChain) -> float:
    """Return the nanoseconds of a sweep in which the states with the same newest channels are a matrix."""
    base, numbers = chain.states.base, chain.states.numbers
    tails = numbers % base ** max(chain.states.order - 1, 1)
    found, group, sizes = np.unique(tails, return_inverse=True, return_counts=True)
    nexts = np.searchsorted(numbers, (found + 1) * base) - np.searchsorted(numbers, found * base)
    steps = np.bincount(group[chain.source], minlength=found.size)
    cells = sizes * nexts
    each = np.where(cells <= EMPTINESS * steps, _PRODUCT * cells, _GATHER * steps)
    return float(each.sum()) * (base - 1) + _GROUP * found.size


def _dense(chain: SparseChain) -> RemovalEffects:
    states, member = chain.start.size, chain.states.member
    matrix = np.eye(states)
    matrix[chain.source, chain.target] -= chain.probability
    inverse = np.linalg.inv(matrix)
    visits = chain.start @ inverse
    hope = inverse @ chain.reward
    total = chain.start @ hope
    lost = np.zeros((chain.reward.shape[1], member.shape[1]), dtype=np.float64)
    for channel in range(member.shape[1]):
        inside = np.flatnonzero(member[:, channel])
        if inside.size:
            lost[:, channel] = visits[inside] @ np.linalg.solve(inverse[np.ix_(inside, inside)], hope[inside])
    return _relative(lost, total, visits @ np.abs(chain.reward))


def _swept(chain: SparseChain, *, dense: bool) -> RemovalEffects:
    total = chain.visits @ chain.reward
    kept = np.stack([kept_rewards(chain, kind, dense=dense) for kind in range(chain.reward.shape[1])])
    return _relative(total[:, None] - kept, total, chain.visits @ np.abs(chain.reward))


def _relative(lost: Floats, total: Floats, gross: Floats) -> RemovalEffects:
    """Return what is lost relative to the total.

    `gross` is what would be collected if every reward were positive: what is as small as its rounding is nothing. A
    total of refunds that cancel the values has no shares.
    """
    lost = np.where(np.abs(lost) <= ROUNDING * gross[:, None], 0.0, lost)
    with np.errstate(divide="ignore", invalid="ignore"):
        effects = np.where((np.abs(total) <= ROUNDING * gross)[:, None], np.nan, lost / total[:, None])
    return RemovalEffects(effects, total)
