"""Exact removal effects of all channels of a chain of any order, by whichever of three ways is cheapest.

All solve the same equations, see `markov` for the symbols.

- Dense: one inverse of all states, then one small solve per channel, ``RE_A = v_A solve(N_AA, h_A) / h0``.
- Sparse sweeps: ``X <- M (Q X + r)``, a column per channel with its states masked and one without mask; a sweep costs
  the number of steps times the number of channels.
- Block sweeps: the same, but all states that share their newest ``k - 1`` channels go to the same states, so a full
  chain is a stack of small dense matrices and a sweep a stack of matrix products.

Sweeps converge because every state reaches an end; mixing the last few of them per column (Anderson 1965) takes a fifth
of the sweeps. They stop by a bound, not by a guess: the error is at most the residual times the largest expected
number of steps to an end, since ``|(I - Q)^-1|`` is just that.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

from attributary.attribution_core.grams import SparseChain
from attributary.attribution_core.journeys import Floats
from attributary.attribution_core.markov import RemovalEffects

Method = Literal["auto", "dense", "sparse", "blocks"]
Sweep = Callable[[Floats], Floats]

_MAX_SWEEPS = 20_000
_TOLERANCE = 1e-14
_DEPTH = 3  # sweeps that are mixed
_CELLS = 1 << 21
_COLUMNS = 64  # of block sweeps at a time: enough that a product is not a pass over the matrices for each column
_BLOCK_CELLS = 1 << 24  # 128 MB of floats
_DENSE_STATES = 3_000
# Relative costs, measured: of a dense inverse per cubed state, of a product per cell, of a gathered step; some sweeps.
_INVERSE, _PRODUCT, _GATHER, _SWEEPS = 1.0, 2.0, 60.0, 25.0


class ConvergenceError(ArithmeticError):
    """The sweeps did not settle: some states practically never reach an end."""


def removal_effects(chain: SparseChain, method: Method = "auto") -> RemovalEffects:
    """Return effects float64[R, K] and totals float64[R], one row per kind of reward; NaN where the total is 0.

    Raises:
        ConvergenceError: when the sweeps do not settle.
    """
    if chain.start.size == 0:
        shape = (chain.reward.shape[1], chain.states.base - 1)
        return RemovalEffects(np.full(shape, np.nan), np.zeros(shape[0]))
    chosen = _cheapest(chain) if method == "auto" else method
    if chosen == "dense":
        return _dense(chain)
    if chosen == "blocks":
        return _swept(chain, _blocks(chain), _COLUMNS)
    return _swept(chain, _sparse(chain), max(_CELLS // max(chain.source.size, chain.start.size), 8))


def _cheapest(chain: SparseChain) -> Method:
    states, base = chain.start.size, chain.states.base
    cells = float(base) ** (chain.states.order + 1)
    costs: dict[Method, float] = {"sparse": _GATHER * _SWEEPS * chain.source.size * base}
    if states <= _DENSE_STATES:
        costs["dense"] = _INVERSE * float(states) ** 3
    if cells <= _BLOCK_CELLS:
        costs["blocks"] = _PRODUCT * _SWEEPS * cells * base
    return min(costs, key=lambda name: costs[name])


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
    return _relative(lost, total)


def _swept(chain: SparseChain, sweep: Sweep, columns: int) -> RemovalEffects:
    """Solve with sweeps, some columns at a time, so that no more than some tens of megabytes are in work."""
    channels = chain.states.base - 1
    bound = _longest_way(chain.start.size, sweep)
    everything = np.ones((chain.start.size, 1), dtype=np.float64)
    hope = np.column_stack(
        [_fixed_point(everything, reward[:, None], sweep, bound, reward[:, None]) for reward in chain.reward.T]
    )
    total = chain.start @ hope
    kept = np.zeros((chain.reward.shape[1], channels), dtype=np.float64)
    for low in range(0, channels, columns):
        mask = 1.0 - chain.states.member[:, low : low + columns].astype(np.float64)
        for kind in range(chain.reward.shape[1]):
            # what holds with all channels is near to what holds without one of them
            guess = mask * hope[:, kind, None]
            found = _fixed_point(mask, mask * chain.reward[:, kind, None], sweep, bound, guess)
            kept[kind, low : low + mask.shape[1]] = chain.start @ found
    return _relative(total[:, None] - kept, total)


def _longest_way(states: int, sweep: Sweep) -> float:
    """Return the largest expected number of steps to an end, to about a percent."""
    steps = np.ones((states, 1), dtype=np.float64)
    before = 0.0
    for _ in range(_MAX_SWEEPS):
        renewed = sweep(steps) + 1.0
        change = float((renewed - steps).max())
        steps = renewed
        # The changes shrink geometrically: what is still to come is the change times rate / (1 - rate).
        rate = change / before if before > 0 else 1.0
        if change == 0 or (rate < 1 and change * rate / (1 - rate) < 0.01 * float(steps.max())):
            return 1.02 * float(steps.max())
        before = change
    raise ConvergenceError("removal effects: the chain's states do not reach an end")


def _fixed_point(mask: Floats, constant: Floats, sweep: Sweep, bound: float, guess: Floats) -> Floats:
    """Solve ``X = mask Q X + constant`` column by column."""
    scale = float(np.abs(constant).max()) or 1.0
    current = guess
    past: tuple[Floats, Floats] = (constant, constant)
    changes: list[tuple[Floats, Floats]] = []
    for number in range(_MAX_SWEEPS):
        image = sweep(current)
        image *= mask
        image += constant
        residual = image - current
        if float(np.abs(residual).max()) * bound < _TOLERANCE * scale * max(1.0, bound / 50):
            return image
        if number > 0:
            changes.append((residual - past[0], image - past[1]))
            del changes[:-_DEPTH]
        past = (residual, image)
        current = _mixed(image, residual, changes)
    raise ConvergenceError("removal effects: the sweeps do not settle")


def _mixed(image: Floats, residual: Floats, changes: list[tuple[Floats, Floats]]) -> Floats:
    """Return the combination of the last images whose residual would be smallest, column by column."""
    if not changes:
        return image
    size = len(changes)
    columns = image.shape[1]
    gram = np.empty((columns, size, size), dtype=np.float64)
    against = np.empty((columns, size, 1), dtype=np.float64)
    for one in range(size):
        against[:, one, 0] = np.einsum("sc,sc->c", changes[one][0], residual)
        for other in range(one + 1):
            gram[:, one, other] = gram[:, other, one] = np.einsum("sc,sc->c", changes[one][0], changes[other][0])
    # A ridge keeps columns that have settled already, whose changes are all zero, solvable.
    gram += np.eye(size) * (1e-14 * np.trace(gram, axis1=1, axis2=2) + np.finfo(np.float64).tiny)[:, None, None]
    factors = np.linalg.solve(gram, against)[:, :, 0]
    mixed = image.copy()
    for place, (_, change) in enumerate(changes):
        mixed -= change * factors[:, place]
    return mixed


def _sparse(chain: SparseChain) -> Sweep:
    rows, first = np.unique(chain.source, return_index=True)
    weight = chain.probability[:, None]

    def sweep(current: Floats) -> Floats:
        found = np.zeros_like(current)
        if rows.size:
            found[rows] = np.add.reduceat(weight * current[chain.target], first, axis=0)
        return found

    return sweep


def _blocks(chain: SparseChain) -> Sweep:
    order, base, numbers = chain.states.order, chain.states.base, chain.states.numbers
    tails = base ** (order - 1)  # the newest k - 1 channels
    table = np.zeros((tails, base, base), dtype=np.float64)
    # State (a, tail) goes to state (tail, c): its block is the tail, its row a, its column c.
    oldest, tail = np.divmod(numbers[chain.source], tails)
    table[tail, oldest, numbers[chain.target] % base] = chain.probability

    def sweep(current: Floats) -> Floats:
        columns = current.shape[1]
        wide = np.zeros((tails * base, columns), dtype=np.float64)
        wide[numbers] = current
        moved = np.matmul(table, wide.reshape(tails, base, columns))
        found: Floats = moved.transpose(1, 0, 2).reshape(base * tails, columns)[numbers]
        return found

    return sweep


def _relative(lost: Floats, total: Floats) -> RemovalEffects:
    with np.errstate(divide="ignore", invalid="ignore"):
        effects = np.where(total[:, None] == 0, np.nan, lost / total[:, None])
    return RemovalEffects(effects, total)
