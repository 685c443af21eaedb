"""Back-test: what was learned before a moment, held against the journeys that ended after it.

Two questions, both asked of journeys that the training never saw. *Does the last channel say who converts?* The log
loss of P(converts | last channel) as learned, beside that of one rate for everybody; lower is better, and a chain that
does not beat the one rate has nothing to say. *Are the shares stable?* The change of every channel's share with its
test at a false discovery rate of 10 % over all channels.
"""

from typing import Any

import numpy as np
import psycopg

from attributary.attribution_core.drift import drift
from attributary.attribution_core.journeys import ChannelIndex, Floats
from attributary.attribution_core.markov import shares
from attributary.attribution_core.report import plain
from attributary.attribution_core.state import JourneyState
from attributary.attribution_core.uncertainty import dirichlet_removal, spread

from .learning import Progress, Window, learn, no_progress
from .population import removal_shares, shapley_shares
from .training import TrainingError

_DRAWS = 400


def backtest(
    connection: psycopg.Connection, window: Window, split: int, inactivity_micros: int, progress: Progress = no_progress
) -> dict[str, Any]:
    """Learn from the journeys that end before `split` and test on those that end at or after it.

    Args:
        connection: in a snapshot.
        window: all journeys to use.
        split: microseconds UTC.
        inactivity_micros: silence that ends a journey without conversion, microseconds.
        progress: told of how many people of how many, for the two halves one after the other.

    Raises:
        TrainingError: one of the halves has no finished journey.
    """
    before = Window(
        window.tenant_id, window.since, split, window.conversion_types, window.journey_key, window.close_silent
    )
    after = Window(
        window.tenant_id, split, window.until, window.conversion_types, window.journey_key, window.close_silent
    )
    learned = learn(connection, before, inactivity_micros, progress=progress)
    seen = learn(connection, after, inactivity_micros, currency=learned.currency, progress=progress)
    for half, name in ((learned, "before"), (seen, "at or after")):
        if not half.state.conversions + half.state.nulls:
            raise TrainingError(f"no finished journey ends {name} the split")
    return compare(learned.state, seen.state)


def compare(learned: JourneyState, seen: JourneyState) -> dict[str, Any]:
    """Return the report of a back-test, ready for JSON."""
    index = ChannelIndex.of((*learned.index.names, *seen.index.names))
    report: dict[str, Any] = plain(
        {
            "learned_from": {"conversions": learned.conversions, "nulls": learned.nulls},
            "tested_on": {"conversions": seen.conversions, "nulls": seen.nulls},
            "prediction": _prediction(learned, seen),
            "shares": {
                "markov": _drift(index, _removal(learned, index), _removal(seen, index)),
                "shapley": _drift(index, _shapley(learned, index), _shapley(seen, index)),
            },
        }
    )
    return report


def _prediction(learned: JourneyState, seen: JourneyState) -> dict[str, Any]:
    """Score P(converts | last channel) on the journeys that end in a channel which was learned."""
    places = seen.index.translation(learned.index)
    known = places >= 0
    chain = learned.chain
    # one conversion and one loss more than were seen, shared as the base rate is: no channel is certain
    ended = chain.conversions + chain.nulls
    base = (chain.conversions.sum() + 1.0) / (ended.sum() + 2.0)
    by_channel = (chain.conversions + 2.0 * base) / (ended + 2.0)
    converted, lost = seen.chain.conversions[known], seen.chain.nulls[known]
    number = float((converted + lost).sum())
    expected = by_channel[places[known]]

    def log_loss(rate: Floats) -> float:
        return float(-(converted * np.log(rate) + lost * np.log1p(-rate)).sum() / number) if number else float("nan")

    return {
        "journeys": number,
        "log_loss": log_loss(expected),
        "log_loss_one_rate": log_loss(np.full(expected.size, base)),
        "unknown_last_channel": float((seen.chain.conversions + seen.chain.nulls)[~known].sum()),
    }


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
