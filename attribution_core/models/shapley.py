"""Shapley values of channels: simplified, ordered, and of any characteristic function.

A game gives every set ``S`` of channels a worth ``v(S)``. The Shapley value of a channel is the mean of what it adds,
over all orders in which the channels may come in. Invariants: efficiency ``sum(phi) = v(all) - v(none)``, symmetry,
a channel that never adds anything gets 0, and ``phi(v + w) = phi(v) + phi(w)``.

- *Simplified* (Zhao, Mahboobi, Bagheri 2018, arXiv 1804.05327): ``v(S)`` = conversions (or value) of the journeys with
  all their channels in ``S``. Then ``phi_i = sum over sets T with i of w(T) / |T|``: exact for any number of channels,
  additive over journeys, and blind to the journeys that did not convert.
- *Rate game*: ``v(S)`` = conversion rate of the journeys with all their channels in ``S``. It sees the journeys that
  did not convert, may be signed, and is reported signed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import factorial

import numpy as np

from attributary.attribution_core.domain.journeys import ChannelIndex, Flags, Floats, Ints, JourneyBatch
from attributary.attribution_core.statistics.sets import SetCounts, SetOverflow, set_shares

EXACT_CHANNELS = 20
Worth = Callable[[Flags], Floats]
_FIRST_LOOK = 32
_CELLS = 1 << 20  # of a journey x channel table at a time: some megabytes


@dataclass(frozen=True, eq=False)
class SampledShapley:
    """Shapley values from sampled orders.

    Attributes:
        values: float64[K]; efficiency holds exactly for every order, hence for the mean.
        errors: float64[K], standard error of each value; never below what a gain that no drawn order showed may hide.
        pairs: number of antithetic pairs of orders drawn.
    """

    values: Floats
    errors: Floats
    pairs: int


def simplified(sets: SetCounts, index: ChannelIndex, overflow: SetOverflow | None = None) -> Floats:
    """Return the simplified Shapley values, float64[2, K]: of conversions, and of value in micros.

    Args:
        sets: counts of the sets of channels.
        index: the channels.
        overflow: sums over further sets, of a bounded state; the values are exact all the same.
    """
    found = np.zeros((2, len(index)), dtype=np.float64)
    for names in sorted(sets):
        conversions, _, value = sets[names]
        for name in names:
            found[:, index.code(name)] += (conversions / len(names), value / len(names))
    for (size, name), (conversions, _, value) in sorted((overflow or SetOverflow()).by_channel.items()):
        found[:, index.code(name)] += (conversions / size, value / size)
    return found


def ordered(batch: JourneyBatch, weights: Ints) -> Floats:
    """Return the simplified Shapley values by place in the journey, float64[K, places].

    A channel's part of a journey is split equally over its touches and booked at their places (first, second, ...), so
    that a row sums to the channel's simplified value.

    Args:
        batch: journeys.
        weights: int64[n], conversions (or value in micros) of each journey.
    """
    places = int(batch.lengths.max(initial=0))
    cells = batch.channels.astype(np.int64) * max(places, 1) + batch.positions
    parts = set_shares(batch) * weights[batch.journey_of_touch]
    table: Floats = np.bincount(cells, parts, len(batch.index) * max(places, 1)).astype(np.float64)
    return table.reshape(len(batch.index), max(places, 1))[:, :places]


def journey_interactions(batch: JourneyBatch, weights: Floats) -> Floats:
    """Return the Shapley interaction index of each pair in the simplified game, float64[K, K]; the diagonal is 0.

    ``I_ij = sum over sets T with i and j of w(T) / (|T| - 1)``: what two channels are worth together beyond what each
    is worth without the other (Grabisch, Roubens 1999).

    Args:
        batch: journeys.
        weights: float64[n], conversions (or value) of each journey.
    """
    channels = len(batch.index)
    found = np.zeros((channels, channels), dtype=np.float64)
    step = max(_CELLS // max(channels, 1), 1)
    for start in range(0, len(batch), step):
        part = batch.slice(start, start + step)
        presence = np.zeros((len(part), channels), dtype=np.float64)
        presence[part.journey_of_touch, part.channels] = 1.0
        scale = weights[start : start + step] / np.maximum(presence.sum(axis=1) - 1.0, 1.0)
        found += (presence.T * scale) @ presence
    np.fill_diagonal(found, 0.0)
    return found


def subset_sums(worth: Floats) -> Floats:
    """Return, for every set, the sum of the worths of all its subsets (the zeta transform).

    Args:
        worth: float64[2^K], entry ``mask`` for the set of the bits of ``mask``.
    """
    return _transform(worth, 1.0)


def dividends(game: Floats) -> Floats:
    """Return Harsanyi's dividends of a game float64[2^K] (the Moebius transform, inverse of `subset_sums`)."""
    return _transform(game, -1.0)


def exact(game: Floats) -> Floats:
    """Return the Shapley values of any game, float64[K]; up to 20 channels.

    Args:
        game: float64[2^K], worth of every set of channels; bit ``i`` of the place stands for channel ``i``.

    Raises:
        ValueError: when the table is not of a size 2^K with K up to 20.
    """
    channels = game.size.bit_length() - 1
    if channels < 0 or game.size != 1 << channels or channels > EXACT_CHANNELS:
        raise ValueError("game: must have 2^K entries, K up to 20; sample larger games")
    if channels == 0:
        return np.zeros(0, dtype=np.float64)
    # phi_i is what the sets with i are worth less what those without are, each by its size: the weights of "with" and
    # "without" added up over the sets with i, less the weights of "without" over all sets.
    ways = [factorial(size) * factorial(channels - size - 1) / factorial(channels) for size in range(channels)]
    without = np.array([*ways, 0.0])
    both = np.array([0.0, *ways]) + without
    sizes = np.bitwise_count(np.arange(game.size, dtype=np.uint32))
    folded, constant = both[sizes] * game, (without[sizes] * game).sum()
    values = np.empty(channels, dtype=np.float64)
    for channel in reversed(range(channels)):
        low, high = folded.reshape(2, -1)
        values[channel] = high.sum() - constant
        folded = low + high
    return values


def pair_interactions(game: Floats) -> Floats:
    """Return the Shapley interaction index of each pair of any game, float64[K, K], up to 20 channels."""
    channels = game.size.bit_length() - 1
    parts = dividends(game)
    masks = np.arange(game.size, dtype=np.uint32)
    scaled = parts / np.maximum(np.bitwise_count(masks).astype(np.float64) - 1.0, 1.0)
    found = np.zeros((channels, channels), dtype=np.float64)
    for one in range(channels):
        for other in range(one):
            both = np.uint32(1 << one | 1 << other)
            found[one, other] = found[other, one] = scaled[(masks & both) == both].sum()
    return found


def sampled(
    players: int, worth: Worth, *, seed: int, target_error: float = 1e-3, max_pairs: int = 2_000
) -> SampledShapley:
    """Estimate the Shapley values of any game of any number of channels.

    Orders are drawn in antithetic pairs (an order and its reverse). The sums of an order telescope, so efficiency
    holds exactly. Drawing stops when every standard error is at most `target_error` times what all channels add.

    No sample rules out what it did not meet: a gain in a few orders of a thousand can be missing from all that were
    drawn, with a variance of zero. So a standard error is never taken to be below that of one gain in one of all the
    orders, as large as the largest that was met or as what all channels add. At the default target that is 500 pairs at
    least.

    Args:
        players: number of channels.
        worth: from sets of channels bool[n, players] to what they are worth, float64[n].
        seed: of the generator.
        target_error: wanted standard error, relative to the worth of all channels.
        max_pairs: where to stop at the latest.

    Raises:
        ValueError: when no pair may be drawn.
    """
    ends = worth(np.array([[False] * players, [True] * players]))

    def gains(order: Ints) -> Floats:
        rank = np.empty(players, dtype=np.int64)
        rank[order] = np.arange(players)
        added = np.empty(players, dtype=np.float64)
        added[order] = np.diff(worth(rank[None, :] < np.arange(players + 1)[:, None]))
        return added

    return _antithetic(players, gains, seed, (target_error * abs(float(ends[1] - ends[0])), max_pairs))


def sampled_rate_values(
    sets: SetCounts, index: ChannelIndex, *, seed: int, target_error: float = 1e-3, max_pairs: int = 2_000
) -> SampledShapley:
    """Estimate the Shapley values of the rate game for any number of channels; as `sampled` does, but much faster.

    Args:
        sets: counts of the sets of channels.
        index: the channels.
        seed: of the generator.
        target_error: wanted standard error, relative to the worth of all channels.
        max_pairs: where to stop at the latest.

    Raises:
        ValueError: when no pair may be drawn.
    """
    players = len(index)
    names = sorted(sets)
    lengths = np.array([len(members) for members in names], dtype=np.int64)
    codes = np.array([index.code(name) for members in names for name in members], dtype=np.int64)
    filled = lengths > 0
    starts = (np.cumsum(lengths) - lengths)[filled]
    counts = np.array([(sets[n][0], sets[n][0] + sets[n][1]) for n in names], dtype=np.float64).reshape(-1, 2)
    alone = counts[~filled].sum(axis=0)
    whole = counts.sum(axis=0)
    goal = target_error * (whole[0] / whole[1] if whole[1] > 0 else 0.0)

    def gains(order: Ints) -> Floats:
        rank = np.empty(players, dtype=np.int64)
        rank[order] = np.arange(players)
        complete = np.maximum.reduceat(rank[codes], starts) if starts.size else np.zeros(0, dtype=np.int64)
        running = np.stack(
            [alone[kind] + np.cumsum(np.bincount(complete, counts[filled, kind], players)) for kind in (0, 1)]
        )
        running = np.concatenate((alone[:, None], running), axis=1)
        rates = np.divide(running[0], running[1], out=np.zeros(players + 1), where=running[1] > 0)
        added = np.empty(players, dtype=np.float64)
        added[order] = np.diff(rates)
        return added

    return _antithetic(players, gains, seed, (goal, max_pairs))


def _antithetic(
    players: int, gains: Callable[[Ints], Floats], seed: int, goal_pairs: tuple[float, int]
) -> SampledShapley:
    """Average what the channels add over pairs of orders, until the error is at the goal or the pairs are used up."""
    goal, max_pairs = goal_pairs
    if max_pairs < 1:
        raise ValueError("max_pairs: must be at least 1")
    generator = np.random.Generator(np.random.PCG64(seed))
    total, squares, pairs, largest = np.zeros(players), np.zeros(players), 0, 0.0
    errors = np.zeros(players)
    while pairs < max_pairs:
        order = generator.permutation(players)
        one, other = gains(order), gains(order[::-1])
        both = 0.5 * (one + other)
        total += both
        squares += both * both
        pairs += 1
        met = (float(np.abs(one).max(initial=0.0)), float(np.abs(other).max(initial=0.0)), abs(float(one.sum())))
        largest = max(largest, *met)
        # 32 pairs before the first look: an error estimated from a few orders may be too small by luck
        if pairs == max_pairs or (pairs >= _FIRST_LOOK and pairs % 16 == 0):
            errors = np.maximum(_error(total, squares, pairs), largest / (2 * pairs))
            if errors.max(initial=0.0) <= goal:
                break
    return SampledShapley(total / max(pairs, 1), errors, pairs)


def _error(total: Floats, squares: Floats, pairs: int) -> Floats:
    mean = total / pairs
    variance: Floats = np.maximum(squares / pairs - mean * mean, 0.0) * pairs / max(pairs - 1, 1)
    return np.sqrt(variance / pairs)


def _transform(table: Floats, sign: float) -> Floats:
    """Add (or take off), bit by bit, what is without the bit to what is with it."""
    bits = table.size.bit_length() - 1
    # Both halves of the bits are worked on as the far axis of a square: near bits would mean steps of a few bytes.
    square = np.array(table, dtype=np.float64).reshape(1 << bits // 2, -1)
    for _ in range(2):
        for bit in range(square.shape[0].bit_length() - 1):
            pairs = square.reshape(-1, 2, square.shape[1] << bit)
            pairs[:, 1] += sign * pairs[:, 0]
        square = np.ascontiguousarray(square.T)
    return square.ravel()
