"""Solving ``X = M (Q X + r)`` for all channels at once, a column per channel with its states masked, by sweeps.

States that share their newest channels go to the same states, so that the steps out of such a group are one small
dense matrix; where that matrix would be mostly empty, its steps are gathered instead. A sweep renews one group after
the other from what is newest (Gauss-Seidel). After each sweep the chain of
*first* order is solved for what the sweep has left over: its inverse is cheap, its masks are corrections of rank one.
What a chain of higher order has beyond it fades within ten to twenty sweeps (aggregation of an absorbing chain, after
Koury, McAllister, Stewart 1984).

Invariant: sweeps end by a bound, not by a guess. The expected visits ``v`` of all states are known exactly from the
counts, and masked visits are not above them. So what is missing in ``p X`` is at most ``v |change of the last sweep|``.
That is brought below 1e-14 of ``v |r|``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from attributary.attribution_core.domain.journeys import Floats, Ints
from attributary.attribution_core.statistics.ngram_states import SparseChain

Product = Callable[[Floats], Floats]

_MAX_SWEEPS = 20_000
_TOLERANCE = 1e-14
_CELLS = 1 << 23  # states x columns in work at a time: 64 MB
_ONE_THREAD = 1 << 18  # multiplications up to which OpenBLAS uses the calling thread alone
_ROWS = 512  # corrected at a time, so that they stay in the cache
_MATRICES = 1 << 25  # cells of all dense matrices together: 256 MB; steps beyond are gathered
EMPTINESS = 64  # cells per step up to which a dense matrix is cheaper than gathering; measured


class ConvergenceError(ArithmeticError):
    """The sweeps did not settle: some states practically never reach an end."""


@dataclass(frozen=True, eq=False)
class Group:
    """States with the same newest channels.

    Attributes:
        rows: int64[g], the states.
        newest: code + 1 of their newest channel.
        product: from X float64[S, c] to the rows of ``Q X`` float64[g, c].
    """

    rows: Ints
    newest: int
    product: Product


def kept_rewards(chain: SparseChain, kind: int, *, dense: bool) -> Floats:
    """Return, per channel, the expected reward of a journey when every step into the channel ends it, float64[K].

    Args:
        chain: the chain, with a journey's expected visits of each state.
        kind: which reward.
        dense: whether to use dense matrices where they are cheaper.

    Raises:
        ConvergenceError: when the sweeps do not settle.
    """
    channels = chain.states.base - 1
    groups = list(_groups(chain, dense=dense))
    coarse = _FirstOrder.of(chain)
    step = max(_CELLS // chain.start.size, 8)
    kept = np.empty(channels, dtype=np.float64)
    for low in range(0, channels, step):
        high = min(low + step, channels)
        kept[low:high] = _kept(chain, chain.reward[:, kind], groups, coarse, (low, high))
    return kept


def _kept(
    chain: SparseChain, reward: Floats, groups: list[Group], coarse: _FirstOrder, columns: tuple[int, int]
) -> Floats:
    """Solve for the channels from ``columns[0]`` to below ``columns[1]``."""
    low, high = columns
    everywhere = _hidden(chain, np.arange(chain.start.size), columns)
    hidden = [_hidden(chain, group.rows, columns) for group in groups]
    visits = [chain.visits[group.rows] for group in groups]
    current = np.zeros((chain.start.size, high - low), dtype=np.float64)
    goal = _TOLERANCE * float(chain.visits @ np.abs(reward))
    correcting, before = True, np.inf
    for _ in range(_MAX_SWEEPS):
        missing = np.zeros(high - low, dtype=np.float64)
        changes = np.zeros((chain.states.base, high - low), dtype=np.float64)
        for group, cells, visit in zip(groups, hidden, visits, strict=True):
            renewed = group.product(current)
            renewed += reward[group.rows, None]
            renewed[cells] = 0.0
            change = current[group.rows]
            np.subtract(renewed, change, out=change)
            current[group.rows] = renewed
            changes[group.newest] += np.einsum("s,sc->c", visit, change)
            missing += np.einsum("s,sc->c", visit, np.abs(change, out=change))
        most = float(missing.max())
        if most <= goal:
            found: Floats = chain.start @ current
            return found
        # Sweeps alone always shrink the change. Where a correction did not help, the chain is far from one of first
        # order, and sweeps alone it is.
        correcting = correcting and most < before
        before = most
        if correcting:
            leap = coarse.correction(changes[1:], low)
            for first in range(0, chain.start.size, _ROWS):
                current[first : first + _ROWS] += leap[coarse.newest[first : first + _ROWS]]
            current[everywhere] = 0.0
    raise ConvergenceError("removal effects: the sweeps do not settle")


def _hidden(chain: SparseChain, rows: Ints, columns: tuple[int, int]) -> tuple[Ints, Ints]:
    """Return places of rows and columns at which the channel of the column stands in the state of the row."""
    rest = chain.states.numbers[rows]
    places, codes = [], []
    for _ in range(chain.states.order):
        rest, digit = np.divmod(rest, chain.states.base)
        inside = np.flatnonzero((digit > columns[0]) & (digit <= columns[1]))
        places.append(inside)
        codes.append(digit[inside] - 1 - columns[0])
    return np.concatenate(places), np.concatenate(codes)


def _groups(chain: SparseChain, *, dense: bool) -> Iterator[Group]:
    """Cut the states into groups, in the order of their newest channel."""
    states = chain.states
    digits = max(states.order - 1, 1) if dense else 1
    newest = states.numbers % states.base
    keys = newest * states.base**digits + states.numbers % states.base**digits
    by_key = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[by_key], prepend=-1))
    place = np.empty(by_key.size, dtype=np.int64)  # of a state in its group
    sizes = np.diff(starts, append=by_key.size)
    place[by_key] = np.arange(by_key.size) - np.repeat(starts, sizes)
    number = np.empty(by_key.size, dtype=np.int64)  # of a state's group
    number[by_key] = np.repeat(np.arange(starts.size), sizes)
    by_group = np.argsort(number[chain.source], kind="stable")
    bounds = np.searchsorted(number[chain.source][by_group], np.arange(starts.size + 1))
    room = _MATRICES if dense else 0
    for group, (start, size) in enumerate(zip(starts.tolist(), sizes.tolist(), strict=True)):
        rows = by_key[start : start + size]
        steps = by_group[bounds[group] : bounds[group + 1]]
        source, target, probability = place[chain.source[steps]], chain.target[steps], chain.probability[steps]
        channel = int(newest[rows[0]])
        low, high = (int(target.min()), int(target.max()) + 1) if target.size else (0, 0)
        cells = size * (high - low)
        if cells <= min(EMPTINESS * target.size, room):
            room -= cells
            matrix = np.zeros((size, high - low), dtype=np.float64)
            matrix[source, target - low] = probability
            yield Group(rows, channel, _multiplied(matrix, low, high))
        else:
            degree = np.bincount(source, minlength=size)
            fullest = np.argsort(-degree, kind="stable")
            yield Group(rows[fullest], channel, _gathered(degree, fullest, target, probability))


def _multiplied(matrix: Floats, low: int, high: int) -> Product:
    return lambda current: _product(matrix, current[low:high])


def _product(matrix: Floats, columns: Floats) -> Floats:
    """Multiply piece by piece, each too small for a BLAS to wake other threads for.

    There are thousands of these products, and on a busy machine each would wait for the threads to get their turn: a
    second becomes minutes. Pieces cost half as much again as products of one thread.
    """
    rows, inner = matrix.shape
    tall = min(rows, max(int((_ONE_THREAD / max(inner, 1)) ** 0.5), 8))
    wide = max(int(_ONE_THREAD / (max(inner, 1) * tall)) // 8 * 8, 8)
    found = np.empty((rows, columns.shape[1]), dtype=np.float64)
    for row in range(0, rows, tall):
        for column in range(0, columns.shape[1], wide):
            piece = (slice(row, row + tall), slice(column, column + wide))
            np.matmul(matrix[piece[0]], columns[:, piece[1]], out=found[piece])
    return found


def _gathered(degree: Ints, fullest: Ints, target: Ints, probability: Floats) -> Product:
    """Add up the first step of every state, then the second of those that have one, and so on: whole rows at a time."""
    first = (np.cumsum(degree) - degree)[fullest]
    layers = []
    for layer in range(int(degree.max(initial=0))):
        count = int(np.count_nonzero(degree > layer))
        steps = first[:count] + layer
        layers.append((count, target[steps], probability[steps, None]))

    def product(current: Floats) -> Floats:
        found = np.zeros((degree.size, current.shape[1]), dtype=np.float64)
        for count, targets, weights in layers:
            part = current[targets]
            part *= weights
            found[:count] += part
        return found

    return product


@dataclass(frozen=True, eq=False)
class _FirstOrder:
    """The chain of the newest channels alone: states of one newest channel, weighted by their visits, as one.

    Attributes:
        inverse: float64[K, K], ``(I - Q)^-1`` of it.
        later: float64[K, K], its steps to groups that a sweep renews after the one they come from: what the sweep
            did not know yet.
        visits: float64[K], 1 for a channel without any.
        newest: int64[S], code of the newest channel of each state.
    """

    inverse: Floats
    later: Floats
    visits: Floats
    newest: Ints

    @classmethod
    def of(cls, chain: SparseChain) -> _FirstOrder:
        channels = chain.states.base - 1
        newest = chain.states.numbers % chain.states.base - 1
        visits: Floats = np.bincount(newest, chain.visits, channels).astype(np.float64)
        visits[visits <= 0] = 1.0
        cells = newest[chain.source] * channels + newest[chain.target]
        flow = np.bincount(cells, chain.visits[chain.source] * chain.probability, channels * channels)
        steps: Floats = flow.reshape(channels, channels) / visits[:, None]
        try:
            inverse = np.linalg.inv(np.eye(channels) - steps)
        except np.linalg.LinAlgError as error:
            raise ConvergenceError("removal effects: the chain's states do not reach an end") from error
        return cls(inverse.astype(np.float64), np.triu(steps), visits, newest)

    def correction(self, changes: Floats, low: int) -> Floats:
        """Return what to add to the states by newest channel, float64[K, c], for the columns from `low` on.

        Args:
            changes: float64[K, c], visits times change of the last sweep, summed by newest channel.
            low: channel of the first column.
        """
        leap = _product(self.inverse, _product(self.later, changes / self.visits[:, None]))
        columns = np.arange(changes.shape[1])
        masked = columns + low
        # The inverse without a channel is the inverse less a matrix of rank one.
        leap -= self.inverse[:, masked] * (leap[masked, columns] / self.inverse[masked, masked])
        return leap
