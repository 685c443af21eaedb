"""The channel report of a trained state: removal effects, Shapley values, support, intervals.

Invariant: a function of the state and the options alone; an unknown number is None, never 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from attributary.attribution_core.analysis.report import plain
from attributary.attribution_core.domain.journeys import Floats
from attributary.attribution_core.models.markov import first_order_chain, first_order_removal, shares
from attributary.attribution_core.models.posterior import dirichlet_removal, summarize_draws
from attributary.attribution_core.models.shapley import simplified
from attributary.attribution_core.statistics.state import JourneyState

NO_CONVERSIONS = (
    "unavailable: no conversions with touchpoints in the window; choose a longer window, or import conversions"
)
ONLY_CONVERSIONS = (
    "conversions only: nobody counts as not converting yet; if the data is complete (an import), train with closing "
    "all (--closing all), else wait until the sweeper closes people"
)
NO_SUPPORT = (
    "insufficient data: no channel is in enough conversions, so the fallback rule credits every journey; choose a "
    "longer window, or a lower minimum_conversions"
)
"""Why a version is not good for crediting, each with its cure; what stands before the colon never changes."""
OK = "ok"
INSUFFICIENT = "insufficient data"


def removal_shares(state: JourneyState) -> tuple[Floats, Floats]:
    """Return removal effects and their normalised shares, each float64[2, K]: of conversions, and of value."""
    chain = state.chain
    exits = chain.conversions + chain.nulls
    effects = np.stack(
        [
            first_order_removal(first_order_chain(chain.steps, chain.opens, reward, exits)).effects
            for reward in (chain.conversions, chain.value_micros)
        ]
    )
    return effects, shares(effects)


def shapley_shares(state: JourneyState, journeys_per_count: float = 1.0) -> tuple[Floats, Floats, Floats]:
    """Return simplified Shapley values float64[2, K], shares of conversions float64[K], and their standard errors.

    The errors are those of the mean of per-journey credits: ``sqrt(sum_j (a_ij - share_i)^2) / n`` over conversions;
    ``n`` is the effective number of them.
    """
    values = simplified(state.sets, state.index, state.overflow)
    squares = np.zeros(len(state.index), dtype=np.float64)
    with_touches = 0
    for names, (conversions, _, _) in state.sets.items():
        if names:
            with_touches += conversions
            for name in names:
                squares[state.index.code(name)] += conversions / len(names) ** 2
    with_touches += sum(entry[0] for size, entry in state.overflow.by_size.items() if size)
    for (size, name), (conversions, _, _) in sorted(state.overflow.by_channel.items()):
        squares[state.index.code(name)] += conversions / size**2
    if not with_touches:
        nothing = np.full(len(state.index), np.nan)
        return values, nothing, nothing
    share = values[0] / with_touches
    variance = np.maximum(squares / with_touches - share**2, 0.0)
    return values, share, np.sqrt(variance / (with_touches * journeys_per_count))


def channel_report(
    state: JourneyState,
    *,
    minimum_conversions: int = 30,
    draws: int = 400,
    seed: int = 0,
    journeys_per_count: float = 1.0,
    unit: int = 1,
) -> dict[str, Any]:
    """Return the report of a state, ready for JSON.

    Args:
        state: the statistics.
        minimum_conversions: a channel in fewer conversions has insufficient data.
        draws: posterior draws behind the intervals of the removal effects' shares.
        seed: of the draws.
        journeys_per_count: effective journeys that one count stands for: intervals and support go by them.
        unit: count of a journey of weight 1; conversions and journeys are reported as sums of weights.
    """
    effects, removal = removal_shares(state)
    removed = dirichlet_removal(state, draws=draws, seed=seed, journeys_per_count=journeys_per_count)
    drawn = summarize_draws(shares(removed), removal[0])
    shapley, shapley_share, shapley_error = shapley_shares(state, journeys_per_count)
    bare = state.sets.get((), (0, 0, 0))
    conversions, value = _weight(state.conversions - bare[0], unit), state.value_micros - bare[2]
    support = state.conversions_with()
    last = shares(state.chain.conversions.astype(np.float64))
    beside = np.stack((removal[0], shapley_share, last))
    spread_over_models = beside.max(axis=0) - beside.min(axis=0)
    channels = [
        {
            "channel": name,
            "conversions_with": _weight(support[code], unit),
            "status": OK if support[code] * journeys_per_count >= minimum_conversions else INSUFFICIENT,
            "markov": {
                "removal_effect": effects[0, code],
                "share": removal[0, code],
                "interval": [drawn.low[code], drawn.high[code]],
                "error": drawn.error[code],
                "conversions": removal[0, code] * conversions,
                "value_micros": removal[1, code] * value,
            },
            "shapley": {
                "share": shapley_share[code],
                "error": shapley_error[code],
                "conversions": shapley[0, code] / unit,
                "value_micros": shapley[1, code],
            },
            "last": {"share": last[code]},
            "spread_over_models": spread_over_models[code],
            "fallback": None
            if support[code] * journeys_per_count >= minimum_conversions
            else {"model": "shapley", "share": shapley_share[code]},
        }
        for code, name in enumerate(state.index.names)
    ]
    report: dict[str, Any] = plain(
        {
            "status": _status(state, conversions, [str(row["status"]) for row in channels]),
            "conversions": _weight(state.conversions, unit),
            "nulls": _weight(state.nulls, unit),
            "value_micros": state.value_micros,
            "conversions_without_touches": _weight(bare[0], unit),
            "conversion_rate": state.conversions / max(state.conversions + state.nulls, 1),
            "distinct_sets": len(state.sets) + state.overflow.sets,
            "confidence": float(drawn.confidence),
            "intervals": "dirichlet",
            "channels": channels,
        }
    )
    return report


def _status(state: JourneyState, conversions: float, statuses: Sequence[str]) -> str:
    """Say in one line whether the state is good for crediting; `conversions` are those with touches."""
    if not conversions:
        return NO_CONVERSIONS
    if not state.nulls:
        return ONLY_CONVERSIONS
    return OK if OK in statuses else NO_SUPPORT


def _weight(count: int, unit: int) -> float:
    """Return a sum of weights from a count; a whole number where nothing is weighed."""
    return count if unit == 1 else count / unit
