"""How the shares of channels differ between two trained states, and which differences are more than noise.

Invariant: a function of the two states. The test takes the journeys of the two for different ones; where they overlap
it errs towards "no change".
"""

from typing import Any

import numpy as np

from attributary.attribution_core.drift import drift
from attributary.attribution_core.journeys import ChannelIndex, Floats
from attributary.attribution_core.markov import shares
from attributary.attribution_core.report import plain
from attributary.attribution_core.state import JourneyState
from attributary.attribution_core.uncertainty import dirichlet_removal, spread

from .population import removal_shares, shapley_shares

_DRAWS = 400


def share_changes(before: JourneyState, after: JourneyState) -> dict[str, Any]:
    """Return, for removal effects ("markov") and Shapley values ("shapley"), the change of every channel's share.

    A change passes ("changed") at a false discovery rate of 10 % over all channels.
    """
    index = ChannelIndex.of((*before.index.names, *after.index.names))
    report: dict[str, Any] = plain(
        {
            "markov": _drift(index, _removal(before, index), _removal(after, index)),
            "shapley": _drift(index, _shapley(before, index), _shapley(after, index)),
        }
    )
    return report


def _removal(state: JourneyState, index: ChannelIndex) -> tuple[Floats, Floats]:
    share = removal_shares(state)[1][0]
    drawn = spread(shares(dirichlet_removal(state, draws=_DRAWS, seed=0)), share)
    return _laid_out(state, index, share, drawn.error)


def _shapley(state: JourneyState, index: ChannelIndex) -> tuple[Floats, Floats]:
    _, share, error = shapley_shares(state)
    return _laid_out(state, index, share, error)


def _laid_out(state: JourneyState, index: ChannelIndex, *columns: Floats) -> tuple[Floats, Floats]:
    """Put the values of a state's channels at their places in a larger index; a channel that is not there has 0."""
    places = state.index.translation(index)
    wide = np.zeros((2, len(index)), dtype=np.float64)
    for row, column in enumerate(columns):
        wide[row, places] = column
    return wide[0], wide[1]


def _drift(index: ChannelIndex, before: tuple[Floats, Floats], after: tuple[Floats, Floats]) -> dict[str, Any]:
    found = drift(after[0], after[1], before[0], before[1])
    return {
        "total_variation": 0.5 * float(np.abs(found.change).sum()),
        "channels": [
            {
                "channel": name,
                "before": before[0][code],
                "after": after[0][code],
                "change": found.change[code],
                "error": found.error[code],
                "p_value": found.p_value[code],
                "changed": bool(found.changed[code]),
            }
            for code, name in enumerate(index.names)
        ],
    }
