"""In which order events arrive: shuffled, some late, some twice.

Invariant: an event arrives no earlier than it happened and no later than `shuffle_seconds + late_seconds` after that;
the second copy of a duplicate arrives after the first, by at most `duplicate_delay_seconds`. Shares are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attributary.producers.simulator.config import MICROS, Disorder
from attributary.producers.simulator.population import Flags, Ints, stream


@dataclass(frozen=True)
class Arrivals:
    """Columns by arrival, in order: which event, when, whether it is late and whether it is a second copy."""

    event: Ints
    arrived_at: Ints
    late: Flags
    duplicate: Flags


def draw_arrivals(seed: int, disorder: Disorder, occurred_at: Ints, groups: Ints) -> Arrivals:
    """Order events by arrival.

    Args:
        seed: of all randomness.
        disorder: how badly they arrive.
        occurred_at: time of each distinct event, microseconds UTC.
        groups: topic number of each event; the shares hold in each topic.
    """
    random = stream(seed, "arrivals")
    count = len(occurred_at)
    arrived_at = occurred_at + (random.random(count) * disorder.shuffle_seconds * MICROS).astype(np.int64)
    late = _choose(random, groups, disorder.late)
    # A late event comes behind everything that happened in the same shuffle window: at least half the longest delay.
    delay = (0.5 + 0.5 * random.random(count)) * disorder.late_seconds * MICROS
    arrived_at += np.where(late, delay, 0.0).astype(np.int64)
    twice = np.flatnonzero(_choose(random, groups, disorder.duplicates))
    wait = (random.random(len(twice)) * disorder.duplicate_delay_seconds * MICROS).astype(np.int64)
    event = np.concatenate((np.arange(count), twice))
    when = np.concatenate((arrived_at, arrived_at[twice] + wait))
    duplicate = np.concatenate((np.zeros(count, np.bool_), np.ones(len(twice), np.bool_)))
    order = np.lexsort((duplicate, when))
    return Arrivals(event[order], when[order], late[event[order]], duplicate[order])


def _choose(random: np.random.Generator, groups: Ints, share: float) -> Flags:
    """Choose exactly `round(share * n)` of each group."""
    rank = random.random(len(groups))
    chosen = np.zeros(len(groups), np.bool_)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        wanted = round(share * len(members))
        chosen[members[np.argsort(rank[members], kind="stable")[:wanted]]] = True
    return chosen
