"""What a state may hold: counts that journeys can have left behind, in sums that 64 bits can hold.

Invariant: nothing is mended here. What passes adds up without wrapping, and its two views, the chain and the sets of
channels, are of the same journeys; what does not pass is named.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from attributary.attribution_core.domain.journeys import ChannelIndex, Ints
from attributary.attribution_core.domain.limits import COUNT_LIMIT, LARGEST, VALUE_LIMIT, magnitude, whole_number
from attributary.attribution_core.statistics.chain_counts import ChainCounts
from attributary.attribution_core.statistics.sets import SetCounts, SetOverflow, entry_of


def read_steps(rows: list[list[int]], size: int) -> Ints:
    """Read the steps of a document: rows of source, target and count; return int64[size, size].

    Raises:
        ValueError: when a row is no step between two channels, or stands twice; the text names the row.
    """
    steps = np.zeros((size, size), dtype=np.int64)
    for number, row in enumerate(rows):
        place = f"steps[{number}]"
        source, target, count = (whole_number(value, place, 0) for value in row)
        if source >= size or target >= size or source == target:
            raise ValueError(f"{place}: no step between two channels")
        if steps[source, target]:
            raise ValueError(f"{place}: the same step twice")
        steps[source, target] = whole_number(count, place, 1)
    return steps


def read_sets(rows: list[list[Any]], names: tuple[str, ...]) -> SetCounts:
    """Read the sets of a document: rows of channel codes, conversions, nulls and value.

    Raises:
        ValueError: when a row is no set with its counts, or stands twice; the text names the row.
    """
    sets: SetCounts = {}
    for number, (codes, *counts) in enumerate(rows):
        place = f"sets[{number}]"
        if any(type(code) is not int or not 0 <= code < len(names) for code in codes):
            raise ValueError(f"{place}: no channel has this code")
        members = tuple(names[code] for code in codes)
        if any(one >= two for one, two in pairwise(codes)) or members in sets:
            raise ValueError(f"{place}: channels must be in order, and no set twice")
        sets[members] = entry_of(counts, place)
        if sets[members] == (0, 0, 0):
            raise ValueError(f"{place}: nothing was counted")
    return sets


def excess(chain: ChainCounts, sets: SetCounts, overflow: SetOverflow) -> str | None:
    """Tell what cannot be summed up in 64 bits."""
    entries = [*sets.values(), *overflow.by_size.values()]
    if sum(entry[0] + entry[1] for entry in entries) > LARGEST or magnitude(chain.steps) > LARGEST:
        return f"all journeys, or their steps, are {COUNT_LIMIT}"
    if sum(abs(entry[2]) for entry in entries) > LARGEST or magnitude(chain.value_micros) > LARGEST:
        return f"the magnitudes of all values are {VALUE_LIMIT}"
    return None


def contradiction(index: ChannelIndex, chain: ChainCounts, sets: SetCounts, overflow: SetOverflow) -> str | None:
    """Tell what no journeys can have left behind: chain and sets are two views of the same ones."""
    entries = [*sets.values(), *overflow.by_size.values()]
    parts = (chain.steps, chain.opens, chain.conversions, chain.nulls)
    if any(bool((part < 0).any()) for part in parts) or any(min(entry[:2]) < 0 for entry in entries):
        return "a count is negative"
    if bool((chain.value_micros[chain.conversions == 0] != 0).any()) or any(
        value and not conversions for conversions, _, value in entries
    ):
        return "a value stands where nobody converted"
    uneven = chain.opens + chain.steps.sum(axis=0) != chain.conversions + chain.nulls + chain.steps.sum(axis=1)
    if bool(uneven.any()):
        return f"{index.names[int(np.argmax(uneven))]!r} is not left as often as it is entered"
    touched = [entry for names, entry in sets.items() if names]
    touched += [entry for size, entry in overflow.by_size.items() if size]
    of_sets = [sum(entry[part] for entry in touched) for part in range(3)]
    of_chain = [int(part.sum()) for part in (chain.conversions, chain.nulls, chain.value_micros)]
    if of_sets[:2] != of_chain[:2]:
        return "conversions or nulls of chain and sets differ"
    # under forgetting, each sum of values was rounded by itself
    if abs(of_sets[2] - of_chain[2]) > len(sets) + overflow.sets + len(index):
        return "values of chain and sets differ"
    return None
