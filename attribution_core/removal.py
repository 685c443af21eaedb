"""Exact removal effects of all channels of a chain of any order, dense or iterative.

Both paths solve the same equations. Dense: one inverse of all states, then one small solve per channel,
``RE_A = v_A solve(N_AA, h_A) / h0``. Iterative: ``X <- M (Q X + r)``, a column per channel with its states masked and
one without mask; every sweep costs the number of steps times the number of channels, and it converges because every
state reaches an end. See `markov` for the meaning of the symbols.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from attributary.attribution_core.grams import SparseChain
from attributary.attribution_core.journeys import Floats, Ints
from attributary.attribution_core.markov import RemovalEffects

Method = Literal["auto", "dense", "iterative"]

_DENSE_STATES = 700  # about where an inverse takes as long as a hundred sweeps
_MAX_SWEEPS = 100_000
_TOLERANCE = 1e-14
_CELLS = 1 << 21


class ConvergenceError(ArithmeticError):
    """The iteration did not settle: some states practically never reach an end."""


def removal_effects(chain: SparseChain, method: Method = "auto") -> RemovalEffects:
    """Return effects float64[R, K] and totals float64[R], one row per kind of reward; NaN where the total is 0.

    Raises:
        ConvergenceError: when the iterative path does not settle.
    """
    states = chain.start.size
    if states == 0:
        shape = (chain.reward.shape[1], chain.member.shape[1])
        return RemovalEffects(np.full(shape, np.nan), np.zeros(shape[0]))
    if method == "dense" or (method == "auto" and states <= _DENSE_STATES):
        return _dense(chain)
    return _iterative(chain)


def _dense(chain: SparseChain) -> RemovalEffects:
    states = chain.start.size
    matrix = np.eye(states)
    matrix[chain.source, chain.target] -= chain.probability
    inverse = np.linalg.inv(matrix)
    visits = chain.start @ inverse
    hope = inverse @ chain.reward
    total = chain.start @ hope
    lost = np.zeros((chain.reward.shape[1], chain.member.shape[1]), dtype=np.float64)
    for channel in range(chain.member.shape[1]):
        inside = np.flatnonzero(chain.member[:, channel])
        if inside.size:
            lost[:, channel] = visits[inside] @ np.linalg.solve(inverse[np.ix_(inside, inside)], hope[inside])
    return _relative(lost, total)


def _iterative(chain: SparseChain) -> RemovalEffects:
    channels = chain.member.shape[1]
    open_ = np.ones((chain.start.size, channels + 1), dtype=np.float64)
    open_[:, :-1] -= chain.member
    rows, first = np.unique(chain.source, return_index=True)
    step = max(_CELLS // max(chain.source.size, 1), 1)
    kept = np.zeros((chain.reward.shape[1], channels + 1), dtype=np.float64)
    for kind in range(chain.reward.shape[1]):
        for low in range(0, channels + 1, step):
            mask = open_[:, low : low + step]
            kept[kind, low : low + step] = chain.start @ _fixed_point(chain, mask, chain.reward[:, kind], rows, first)
    total = kept[:, -1]
    return _relative(total[:, None] - kept[:, :-1], total)


def _fixed_point(chain: SparseChain, mask: Floats, reward: Floats, rows: Ints, first: NDArray[np.intp]) -> Floats:
    """Solve ``X = mask (Q X + reward)`` column by column."""
    constant = mask * reward[:, None]
    current = constant.copy()
    if rows.size == 0:
        return current
    weight = chain.probability[:, None]
    scale = float(np.abs(constant).max()) or 1.0
    before = 0.0
    for _ in range(_MAX_SWEEPS):
        renewed = constant.copy()
        renewed[rows] += mask[rows] * np.add.reduceat(weight * current[chain.target], first, axis=0)
        change = float(np.abs(renewed - current).max()) / scale
        current = renewed
        # The changes shrink geometrically: what is still to come is the change times rate / (1 - rate).
        rate = change / before if before > 0 else 1.0
        if change == 0 or (rate < 1 and change * rate / (1 - rate) < _TOLERANCE):
            return current
        before = change
    raise ConvergenceError("removal effects: the chain's states do not reach an end")


def _relative(lost: Floats, total: Floats) -> RemovalEffects:
    with np.errstate(divide="ignore", invalid="ignore"):
        effects = np.where(total[:, None] == 0, np.nan, lost / total[:, None])
    return RemovalEffects(effects, total)
