"""The best split of a budget over channels: exact on a grid, for any curves.

Invariant: the split is the best one of the grid, whatever shape the responses have (S-curves, on or off): dynamic
programming over channels. A test compares it with the closed form of concave curves and with brute force.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

STEPS = 200
"""Parts that a budget is cut into."""


def best_split(responses: Sequence[Floats], steps: int) -> tuple[list[int], float]:
    """Return how many steps each channel gets, and the sum of the responses.

    Args:
        responses: of each channel, the response to 0, 1, ... `steps` steps; -inf where it may not have so many.
        steps: how many there are to give away, all of them.

    Raises:
        ValueError: the bounds leave no split.
    """
    best = responses[0][: steps + 1]
    choices = [np.arange(steps + 1)]
    places = np.arange(steps + 1)
    given = places[:, None] - places[None, :]  # what the channels before get, by total and own share
    for response in responses[1:]:
        sums = np.where(given >= 0, best[np.maximum(given, 0)], -np.inf) + response[None, : steps + 1]
        choice = np.argmax(sums, axis=1)
        best = sums[places, choice]
        choices.append(choice)
    if not np.isfinite(best[steps]):
        raise ValueError("the bounds leave no split of this budget")
    split, left = [], steps
    for choice in reversed(choices):
        split.append(int(choice[left]))
        left -= split[-1]
    return split[::-1], float(best[steps])
