"""Journeys as walks over the last ``k`` channels: the states and steps of a Markov chain of any order.

A state of order ``k`` is the tuple of the last ``k`` channels, shorter at the beginning of a journey. With digits
``channel code + 1`` (0 = before the first touch) in the base ``K + 1``, the ``k + 1`` newest digits of a touch number
the step into it: the older ``k`` are the state before, the newer ``k`` the state after. Counting steps is therefore
counting small integers, linear in touches, without sorting where a table of all numbers fits.

Invariant: repeats are kept as they are; a step from a state to itself (``k`` + 1 equal channels) is counted but left
out of the chain, which changes no absorption probability. Collapsing repeats is a named transform of the journeys.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attributary.attribution_core.domain.journeys import Flags, Floats, Ints, JourneyBatch

# Numbers up to this many are looked up in a table, unless far fewer of them occur; else they are sorted.
_TABLE, _SPARSENESS = 1 << 26, 16
_MAX_NUMBER = 2**62


@dataclass(frozen=True, eq=False)
class States:
    """The states of a chain: tuples of the last channels, numbered.

    Attributes:
        order: length of the tuples.
        base: number of channels + 1; the digits of a number in this base are channel code + 1, the newest last.
        numbers: int64[S], ascending.
    """

    order: int
    base: int
    numbers: Ints

    @cached_property
    def member(self) -> Flags:
        """Whether the channel stands in the state, bool[S, K]."""
        found = np.zeros((self.numbers.size, self.base), dtype=np.bool_)
        rows = np.arange(self.numbers.size)
        rest = self.numbers.copy()
        for _ in range(self.order):
            rest, digit = np.divmod(rest, self.base)
            found[rows, digit] = True
        return found[:, 1:]


@dataclass(frozen=True, eq=False)
class SparseChain:
    """An absorbing chain; each of its states belongs to one or more channels.

    Attributes:
        start: float64[S], probability that a journey begins in the state.
        source: int64[E], state before a step, ascending.
        target: int64[E], state after a step.
        probability: float64[E], of the step.
        reward: float64[S, R], per kind of reward (conversion, revenue, ...) the expectation when the journey leaves
            the state for good.
        visits: float64[S], expected visits of a journey, ``start (I - Q)^-1``: as counted.
        states: what the states are.
    """

    start: Floats
    source: Ints
    target: Ints
    probability: Floats
    reward: Floats
    visits: Floats
    states: States


@dataclass(frozen=True, eq=False)
class NgramSteps:
    """The steps of a batch of journeys, numbered.

    Attributes:
        order: length ``k`` of the states.
        base: number of channels + 1.
        edges: int64[E], ascending distinct step numbers.
        edge_of_touch: int64[m], the place in `edges` of the step into each touch.
        last_state: int64[n], the place in `states` where the journey ends; -1 for an empty journey.
        journey_of_touch: int64[m].
    """

    order: int
    base: int
    edges: Ints
    edge_of_touch: Ints
    last_state: Ints
    journey_of_touch: Ints

    @classmethod
    def of(cls, batch: JourneyBatch, order: int = 1) -> NgramSteps:
        """Number the steps of a batch.

        Raises:
            ValueError: when the order is below 1, or so high that its steps cannot be numbered in 62 bits.
        """
        base = len(batch.index) + 1
        if not 1 <= order <= highest_order(base - 1):
            raise ValueError(f"order: must be from 1 to {highest_order(base - 1)} with {base - 1} channels")
        numbers = ngram_numbers(batch, order)
        edges, places = _distinct(numbers, base ** (order + 1))
        last = np.full(len(batch), -1, dtype=np.int64)
        filled = batch.lengths > 0
        states = np.unique(edges % base**order)
        last[filled] = np.searchsorted(states, edges % base**order)[places[batch.offsets[1:][filled] - 1]]
        return cls(order, base, edges, places, last, batch.journey_of_touch)

    @cached_property
    def states(self) -> States:
        """The states that occur."""
        return States(self.order, self.base, np.unique(self.edges % self.base**self.order))

    def chain(self, rewards: Floats, exits: Floats) -> SparseChain:
        """Estimate the chain from weighted journeys.

        Args:
            rewards: float64[n, R], reward of each journey, for example its conversions and its value.
            exits: float64[n], weight of each journey, converted or not.
        """
        span = self.base**self.order
        states = self.states.numbers
        weights = np.bincount(self.edge_of_touch, exits[self.journey_of_touch], minlength=self.edges.size)
        target = np.searchsorted(states, self.edges % span)
        opening = self.edges < self.base  # all older digits are 0: the step from START
        start = np.zeros(states.size, dtype=np.float64)
        start[target[opening]] = weights[opening]
        source = np.searchsorted(states, self.edges // self.base)
        inner = ~opening & (source != target)
        source, target, weights = source[inner], target[inner], weights[inner]
        ended = self.last_state >= 0
        places = self.last_state[ended]
        out = np.bincount(source, weights, minlength=states.size) + np.bincount(
            places, exits[ended], minlength=states.size
        )
        begun = float(start.sum()) or 1.0
        visits = out / begun
        out[out == 0] = 1.0
        reward = np.column_stack(
            [np.bincount(places, column, minlength=states.size) / out for column in rewards[ended].T]
        ).reshape(states.size, rewards.shape[1])
        return SparseChain(start / begun, source, target, weights / out[source], reward, visits, self.states)


def highest_order(channels: int) -> int:
    """Return the highest order with steps that can be numbered in 62 bits for so many channels; 0 for none."""
    base, order = max(channels, 1) + 1, 0
    while base ** (order + 2) <= _MAX_NUMBER:
        order += 1
    return order


def ngram_numbers(batch: JourneyBatch, order: int) -> NDArray[Any]:
    """Return the number of the step into each touch, integer[m]."""
    base = len(batch.index) + 1
    narrow = base ** (order + 1) <= np.iinfo(np.int32).max
    digits: NDArray[Any] = batch.channels.astype(np.int32 if narrow else np.int64) + 1
    numbers = digits.copy()
    for back in range(1, order + 1):
        if back >= digits.size:
            break
        older = digits[:-back] * base**back
        for place in range(back):  # the touch at this place of a journey has no touch so far back
            starts = batch.offsets[:-1][batch.lengths > place] + (place - back)
            older[starts[starts >= 0]] = 0
        numbers[back:] += older
    return numbers


def _distinct(numbers: NDArray[Any], limit: int) -> tuple[Ints, Ints]:
    """Return the ascending distinct numbers (below `limit`) and the place of each entry among them."""
    if limit > min(_TABLE, _SPARSENESS * numbers.size):
        distinct, places = np.unique(numbers, return_inverse=True)
        return distinct.astype(np.int64), places.astype(np.int64)
    present = np.zeros(limit, dtype=np.bool_)
    present[numbers] = True
    table = np.cumsum(present, dtype=np.int32) - np.int32(1)
    return np.flatnonzero(present), table[numbers].astype(np.int64)
