"""Diagnostics beside the numbers of a model: sizes, unattributed totals, status, reconciliation of the Markov models.

Invariant: a status other than "ok" says why in words; what is unknown is None, never 0.

Reconciliation: a per-journey credit of a channel lies between nothing and everything in each journey that contains it.
So a total of such credits lies between the conversions of the journeys with *only* the channel and of those with it.
Normalised removal effects need not lie there; then no split over journeys adds up to them, and the report says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from attributary.attribution_core.domain.journeys import Floats, JourneyBatch
from attributary.attribution_core.models.channel_totals import (
    Estimator,
    MarkovShapleyTotals,
    RemovalTotals,
    Weights,
    credits_by_effect,
)
from attributary.attribution_core.models.markov import ROUNDING
from attributary.attribution_core.models.poisson import PoissonFit, PoissonTotals
from attributary.attribution_core.models.rules import RULES
from attributary.attribution_core.models.shapley import journey_interactions, ordered
from attributary.attribution_core.statistics.likelihood import IMPLAUSIBLE_LOG_RATIO
from attributary.attribution_core.statistics.sets import channels_of_journeys
from attributary.attribution_core.tables.events import touches_at_equal_times
from attributary.attribution_core.tables.paths import JourneyTable

# Models that compare journeys with a conversion and without; `poisson` does, too, but by the time that was watched.
_SEES_NULLS = frozenset({"markov", "markov_journeys", "shapley_rate", "markov_shapley"})
_NET_OF_GROSS = 0.1  # below this part, a share of the net value is mostly a matter of which sales were refunded
_MICROS = 1_000_000
_PAIRS = 20  # strongest pairs in a report
_PLACES = 10  # places in the journey that a report shows one by one; the last entry holds all later ones


def sizes(table: JourneyTable, transforms: Sequence[str]) -> dict[str, Any]:
    """Return how much there is, and what no model can give to a channel; value is None where there is none at all."""
    outcomes = table.outcomes
    bare = table.batch.lengths == 0
    valued = bool(outcomes.value_micros.any())
    tied = touches_at_equal_times(table.batch) if table.timed else 0
    return {
        "journeys": int((outcomes.conversions + outcomes.nulls).sum()),
        "conversions": int(outcomes.conversions.sum()),
        "value": int(outcomes.value_micros.sum()) / _MICROS if valued else None,
        "unattributed_conversions": int(outcomes.conversions[bare].sum()),
        "unattributed_value": int(outcomes.value_micros[bare].sum()) / _MICROS if valued else None,
        "refunds_without_conversion": int(((outcomes.conversions == 0) & (outcomes.value_micros != 0)).sum()),
        "transforms": list(transforms),
        "notes": list(table.notes),
        "confidence": None,
    } | ({"touches_at_equal_times": tied} if tied else {})


def statuses(name: str, batch: JourneyBatch, weights: Weights, minimum_conversions: int) -> dict[str, str]:
    """Return whether a model's shares of conversions ("status") and of value ("value_status") say something."""
    return {
        "status": _status(name, batch, weights, minimum_conversions),
        "value_status": _value_status(batch, weights),
    }


def model_diagnostics(
    estimator: Estimator, weights: Weights, totals: Floats, share: Floats, details: Mapping[str, Floats]
) -> dict[str, Any]:
    """Return what only this model has to say; a "status" in it replaces an "ok".

    Args:
        estimator: the model.
        weights: the observed ones.
        totals: float64[2, K], of conversions and of value in micros.
        share: float64[2, K].
        details: further numbers of each channel, by name.
    """
    if isinstance(estimator, PoissonTotals):
        return _of_rates(estimator, weights, share)
    if isinstance(estimator, RemovalTotals):
        return _of_removal(estimator, weights, totals, details)
    if isinstance(estimator, MarkovShapleyTotals) and estimator.baseline:
        by_conversion, by_value = estimator.values(weights)
        return {
            "baseline": list(estimator.baseline),
            "baseline_share": by_conversion.baseline / by_conversion.total if by_conversion.total else None,
            "baseline_value_share": by_value.baseline / by_value.total if by_value.total else None,
        }
    if estimator.name == "shapley":
        return _shapley_details(estimator.batch, weights)
    if estimator.name in RULES:
        return {"confidence_note": "rule, not estimated: intervals show how stable the share is over journeys"}
    return {}


def _of_rates(estimator: PoissonTotals, weights: Weights, share: Floats) -> dict[str, Any]:
    shares: list[float | None] = [
        1.0 - float(of.sum()) if of.size > 0 and bool(np.isfinite(of).all()) else None for of in share
    ]
    at_a_touch = estimator.conversions_at_a_touch(weights)
    found: dict[str, Any] = {
        "baseline": ["no touch"],
        "baseline_share": shares[0],
        "baseline_value_share": shares[1],
        "conversions_at_a_touch": at_a_touch,
    }
    if shares[0] is None:
        status = "unavailable: no rates can be fitted, no conversion came after a touch"
        status += f" ({at_a_touch:,.0f} at its very moment)" if at_a_touch else ""
    else:
        status = _rates_status(estimator.fitted(weights), share[0])
    return found | ({} if status == "ok" else {"status": status})


def _of_removal(
    estimator: RemovalTotals, weights: Weights, totals: Floats, details: Mapping[str, Floats]
) -> dict[str, Any]:
    batch, order = estimator.batch, estimator.order
    states = int(estimator.grams.states.numbers.size)
    journeys = int((weights.conversions + weights.nulls)[batch.lengths > 0].sum())
    found: dict[str, Any] = {
        "order": order,
        "states": states,
        "reconciliation": reconcile(batch, weights, totals[0], details["removal_effect"]),
    }
    if order > 1 and states > journeys:
        found["status"] = f"insufficient data: order {order} has {states} states for {journeys} journeys"
    return found


def _shapley_details(batch: JourneyBatch, weights: Weights) -> dict[str, Any]:
    """Return the strongest pairs by interaction index, and the values by place in the journey."""
    names = batch.index.names
    chosen = weights.conversions > 0
    converting, conversions = batch.select(chosen), weights.conversions[chosen]
    pairs = np.triu(journey_interactions(converting, conversions))
    order = np.argsort(-pairs, axis=None, kind="stable")[:_PAIRS]
    places = ordered(converting, conversions.astype(np.int64))
    late = places[:, _PLACES:].sum(axis=1, keepdims=True)
    return {
        "interactions": [
            {"channels": [names[place // len(names)], names[place % len(names)]], "index": float(pairs.flat[place])}
            for place in order.tolist()
            if pairs.flat[place] > 0
        ],
        "by_place": dict(zip(names, np.column_stack((places[:, :_PLACES], late)).tolist(), strict=True)),
    }


def _status(name: str, batch: JourneyBatch, weights: Weights, minimum_conversions: int) -> str:
    filled = batch.lengths > 0
    conversions = weights.conversions[filled].sum()
    if conversions == 0:
        return "unavailable: no conversions" + (" with touches" if weights.conversions.any() else "")
    if conversions < minimum_conversions:
        return f"insufficient data: fewer than {minimum_conversions:,} conversions"
    if name in _SEES_NULLS and weights.nulls[filled].sum() == 0:
        return "conversions only: journeys without a conversion are missing, its numbers say little"
    return "ok"


def _value_status(batch: JourneyBatch, weights: Weights) -> str:
    """Say whether shares of value mean something: refunds may cancel the values."""
    values = weights.values[batch.lengths > 0]
    gross, net = float(np.abs(values).sum()), float(values.sum())
    if gross == 0:
        return "unavailable: no values" + (" with touches" if weights.values.any() else "")
    if abs(net) <= ROUNDING * gross:
        return "unavailable: refunds cancel the values"
    if abs(net) < _NET_OF_GROSS * gross:
        return f"unstable: refunds leave {net / gross:.1%} of the values, shares are of that"
    return "ok"


def _rates_status(fitted: PoissonFit, share: Floats) -> str:
    """Say whether fitted rates are plausible: ratios within the prior, the rate with touches above the one without."""
    steepest = float(np.abs(fitted.beta).max(initial=0.0))
    if steepest > IMPLAUSIBLE_LOG_RATIO:
        return f"unstable: a fitted rate ratio is e^{steepest:.0f}; touches and conversions may come together"
    if float(np.abs(share).max(initial=0.0)) > 1 or not -1 <= float(share.sum()) <= 1:
        return "unstable: shares beyond 100 %, the rate without a touch is fitted above the rate with them"
    return "ok"


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
        credits; the names of the channels with a normalised total that no per-journey split can reach; and a text.
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
