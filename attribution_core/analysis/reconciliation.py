"""Two quantities that share a name elsewhere: removal effects of the population, and credits of single journeys.

A per-journey credit of a channel lies between nothing and everything in each journey that contains it; hence any total
of such credits lies between the conversions of the journeys with *only* the channel and of those that contain it.
Normalised removal effects need not: then no split over journeys can add up to them, and this report says so.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attributary.attribution_core.domain.journeys import Floats, JourneyBatch
from attributary.attribution_core.models.channel_totals import Weights, credits_by_effect
from attributary.attribution_core.statistics.sets import channels_of_journeys

_SLACK = 1e-9


def reconcile(batch: JourneyBatch, weights: Weights, normalised: Floats, effects: Floats) -> dict[str, Any]:
    """Compare normalised removal effects with what credits of single journeys can add up to.

    Args:
        batch: journeys.
        weights: their weights.
        normalised: float64[K], normalised removal effects times conversions.
        effects: float64[K], removal effects.

    Returns:
        Per channel the conversions of the journeys with only it, with it, by normalised effects and by per-journey
        credits; the names of the channels whose normalised total no per-journey split can reach; and a text.
    """
    # Credits are shared out of conversions, so journeys without one have no say.
    chosen = weights.conversions > 0
    batch = batch.select(chosen)
    weights = Weights(weights.conversions[chosen], weights.nulls[chosen], weights.values[chosen])
    channels = len(batch.index)
    journey, channel = channels_of_journeys(batch)
    distinct = np.bincount(journey, minlength=len(batch))
    inside = weights.conversions[journey]
    presence = np.bincount(channel, inside, channels)
    only = np.bincount(channel, inside * (distinct[journey] == 1), channels)
    per_journey = credits_by_effect(batch, effects).totals(weights)[0]
    slack = _SLACK * max(float(presence.max(initial=0.0)), 1.0)
    impossible = (normalised < only - slack) | (normalised > presence + slack)
    names = batch.index.names
    broken = [names[code] for code in np.flatnonzero(impossible)]
    return {
        "channels": [
            {
                "channel": name,
                "only": only[code],
                "presence": presence[code],
                "normalised": normalised[code],
                "per_journey": per_journey[code],
            }
            for code, name in enumerate(names)
        ],
        "infeasible": broken,
        "text": (
            f"normalised removal effects of {', '.join(broken)} cannot be the sum of per-journey credits"
            if broken
            else "normalised removal effects lie within what per-journey credits can add up to"
        ),
    }
