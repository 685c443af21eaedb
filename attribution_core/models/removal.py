"""Exact removal effects of all channels of a chain of any order, by whichever of three ways is cheapest.

All solve the same equations, see `markov` for the symbols.

- Dense: one inverse of all states, then one small solve per channel, ``RE_A = v_A solve(N_AA, h_A) / h0``.
- Sweeps, see `sweeps`: ``X <- M (Q X + r)``, a column per channel with its states masked. Either the steps are
  gathered one by one (*sparse*), or those of all states that share their newest ``k - 1`` channels, and therefore go
  to the same states, are a small dense matrix (*blocks*).

Invariant: whichever way, effects agree to 1e-12.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from attributary.attribution_core.domain.journeys import Floats
from attributary.attribution_core.models.markov import ROUNDING, RemovalEffects
from attributary.attribution_core.models.removal_solver import EMPTINESS, kept_rewards
from attributary.attribution_core.statistics.ngram_states import SparseChain

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
