"""Back-test: statistics from before a moment, compared with the journeys that ended after it.

Two questions, both on journeys that the training never saw. *Does the last channel predict conversion?* The log loss of
P(converts | last channel) as trained, beside that of one rate for everybody; lower is better, and a chain that does not
beat the one rate predicts nothing. *Are the shares stable?* The change of every channel's share with its
test at a false discovery rate of 10 % over all channels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import psycopg

from attributary.attribution_core.analysis.report import plain
from attributary.attribution_core.domain.journeys import Floats
from attributary.attribution_core.statistics.state import JourneyState

from .drift import share_changes
from .read_journeys import Progress, Window, no_progress, read_statistics
from .train import TrainingError


def backtest(
    connection: psycopg.Connection, window: Window, split: int, inactivity_micros: int, progress: Progress = no_progress
) -> dict[str, Any]:
    """Train on the journeys that end before `split` and test on those that end at or after it.

    Args:
        connection: in a snapshot.
        window: all journeys to use.
        split: microseconds UTC.
        inactivity_micros: silence that ends a journey without conversion, microseconds.
        progress: called with people read and people in all, for one half after the other.

    Raises:
        TrainingError: one of the halves has no finished journey.
    """
    before, after = replace(window, until=split), replace(window, since=split)
    statistics = read_statistics(connection, before, inactivity_micros, progress=progress)
    seen = read_statistics(connection, after, inactivity_micros, currency=statistics.currency, progress=progress)
    for half, name in ((statistics, "before"), (seen, "at or after")):
        if not half.state.conversions + half.state.nulls:
            raise TrainingError(f"no finished journey ends {name} the split")
    return compare(statistics.state, seen.state)


def compare(statistics: JourneyState, seen: JourneyState) -> dict[str, Any]:
    """Return the report of a back-test, ready for JSON."""
    report: dict[str, Any] = plain(
        {
            "learned_from": {"conversions": statistics.conversions, "nulls": statistics.nulls},
            "tested_on": {"conversions": seen.conversions, "nulls": seen.nulls},
            "prediction": _prediction(statistics, seen),
            "shares": share_changes(statistics, seen),
        }
    )
    return report


def _prediction(statistics: JourneyState, seen: JourneyState) -> dict[str, Any]:
    """Score P(converts | last channel) on the journeys that end in a trained channel."""
    places = seen.index.translation(statistics.index)
    known = places >= 0
    chain = statistics.chain
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
