"""Counting steps of journeys in one pass over the encoded stream.

All successive pairs of touches are counted as small integers, also those that reach from one journey into the next;
the latter are counted once more by themselves and taken off, and tell first and last channels and outcomes on the way.
So the cost is one count per touch and one per journey, close to the floor of a single `bincount` over the stream.

Invariant: counts are exact integers. Where weights are needed they are added up as floats only while every partial sum
stays below 2^53, else as integers; what 64 bits cannot hold is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attributary.attribution_core.domain.journeys import Flags, Ints, JourneyLimitError, Outcomes
from attributary.attribution_core.domain.limits import COUNT_LIMIT, LARGEST, magnitude

_CHUNK = 1 << 17  # touches at a time: keys and counts stay in the cache
_EXACT = 2**53


@dataclass(frozen=True, eq=False)
class ChainCounts:
    """Counts of the chain of first order; repeats of a channel in direct succession count as one visit.

    Attributes:
        steps: int64[K, K], steps between different channels.
        opens: int64[K], journeys by their first channel.
        conversions: int64[K], converted journeys by their last channel.
        nulls: int64[K], journeys without conversion by their last channel.
        value_micros: int64[K], value of the converted journeys by their last channel.
    """

    steps: Ints
    opens: Ints
    conversions: Ints
    nulls: Ints
    value_micros: Ints


def count_chain(channels: NDArray[np.integer], offsets: Ints, outcomes: Outcomes, size: int) -> ChainCounts:
    """Count the chain of first order.

    Args:
        channels: integer[m] of any width, codes below `size`.
        offsets: int64[n + 1].
        outcomes: of the n journeys.
        size: number of channels, K.

    Raises:
        JourneyLimitError: when there are more than 2^63 - 1 steps.
    """
    filled = np.diff(offsets) > 0
    if not filled.all():
        kept = np.append(filled, True)
        offsets = offsets[kept]
        outcomes = Outcomes(*(part[filled] for part in (outcomes.conversions, outcomes.nulls, outcomes.value_micros)))
    if channels.size == 0:
        none = np.zeros(size, dtype=np.int64)
        return ChainCounts(np.zeros((size, size), dtype=np.int64), none, none.copy(), none.copy(), none.copy())
    journeys = outcomes.conversions + outcomes.nulls
    worth = np.flatnonzero(outcomes.value_micros)  # only who converted has a value, which is usually the smaller part
    value_micros = _sums(channels[offsets[1:][worth] - 1], outcomes.value_micros[worth], size)
    if bool((journeys == 1).all()):
        steps, opens, ends = _single(channels, offsets, outcomes.conversions, size)
    else:
        steps, opens = _weighted(channels, offsets, journeys, size)
        closers = channels[offsets[1:] - 1]
        ends = np.stack((_sums(closers, outcomes.nulls, size), _sums(closers, outcomes.conversions, size)))
    np.fill_diagonal(steps, 0)
    return ChainCounts(steps, opens, ends[1], ends[0], value_micros)


def _key_type(size: int) -> type[np.unsignedinteger]:
    cells = 2 * size * size
    return np.uint16 if cells <= 1 << 16 else np.uint32 if cells <= 1 << 32 else np.uint64


def _single(channels: NDArray[np.integer], offsets: Ints, converted: Ints, size: int) -> tuple[Ints, Ints, Ints]:
    """Count journeys of weight one; return steps, first channels, and last channels without and with conversion."""
    kind = _key_type(size)
    cells = size * size
    steps = np.zeros(cells, dtype=np.int64)
    factor = kind(size)
    for low in range(0, channels.size - 1, _CHUNK):
        part = channels[low : low + _CHUNK + 1].astype(kind, copy=False)
        keys = part[:-1] * factor
        keys += part[1:]
        steps += np.bincount(keys, minlength=cells)
    # From the last touch of each journey to the first of the next, by outcome: no step.
    across = np.zeros(2 * cells, dtype=np.int64)
    for low in range(0, offsets.size - 2, _CHUNK):
        bounds = offsets[low + 1 : min(low + _CHUNK + 1, offsets.size - 1)]
        keys = converted[low : low + bounds.size].astype(kind) * factor
        keys += channels[bounds - 1].astype(kind, copy=False)
        keys *= factor
        keys += channels[bounds].astype(kind, copy=False)
        across += np.bincount(keys, minlength=2 * cells)
    table = across.reshape(2, size, size)
    opens, ends = table.sum(axis=(0, 1)), table.sum(axis=2)
    opens[channels[0]] += 1
    ends[converted[-1], channels[-1]] += 1
    return steps.reshape(size, size) - table.sum(axis=0), opens, ends


def _weighted(channels: NDArray[np.integer], offsets: Ints, journeys: Ints, size: int) -> tuple[Ints, Ints]:
    """Count journeys of any weight; return steps and first channels."""
    kind = _key_type(size)
    lengths = np.diff(offsets)
    source = channels[:-1].astype(kind)
    keys = source * kind(size) + channels[1:].astype(kind)
    weights = np.repeat(journeys, lengths)[:-1]
    inside: Flags = np.ones(keys.size, dtype=np.bool_)
    inside[offsets[1:-1] - 1] = False
    steps = _sums(keys[inside], weights[inside], size * size)
    return steps.reshape(size, size), _sums(channels[offsets[:-1]], journeys, size)


def _sums(codes: NDArray[np.integer], weights: Ints, size: int) -> Ints:
    """Add integer weights up by code, exactly; the weights of journeys fit, but each counts at all of its steps."""
    largest = max(abs(int(weights.max(initial=0))), abs(int(weights.min(initial=0))))
    if largest * max(weights.size, 1) < _EXACT:
        return np.rint(np.bincount(codes, weights, size)).astype(np.int64)
    if magnitude(weights) > LARGEST:
        raise JourneyLimitError(f"conversions, nulls: the steps of all journeys are {COUNT_LIMIT}")
    sums = np.zeros(size, dtype=np.int64)
    np.add.at(sums, codes.astype(np.int64), weights)
    return sums
