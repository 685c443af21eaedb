"""The spread of the shares of any model: the Bayesian bootstrap, or a fast path where one exists.

Invariants: the bootstrap is used wherever the fast path has none to offer; both are functions of data, draws and seed.
Where rows sum up several conversions their single values are unknown, and so is the spread of value: NaN, no guess.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from attributary.attribution_core.domain.confidence import NORMAL_QUANTILE
from attributary.attribution_core.domain.journeys import Floats, Outcomes
from attributary.attribution_core.models.channel_totals import CreditTotals, Estimator, RemovalTotals
from attributary.attribution_core.models.markov import shares
from attributary.attribution_core.models.posterior import (
    DrawSummary,
    bootstrap_weights,
    dirichlet_removal,
    summarize_draws,
)
from attributary.attribution_core.statistics.credit_sums import CreditSums
from attributary.attribution_core.statistics.state import JourneyState
from attributary.attribution_core.tables.paths import JourneyTable

IntervalMethod = Literal["auto", "bootstrap", "fast"]

_BOOTSTRAP_ROWS = 200_000


class ShareIntervals(NamedTuple):
    """A spread, and how it was found: "bootstrap", "dirichlet" or "closed form"."""

    summary: DrawSummary
    method: str


def share_intervals(
    estimator: Estimator,
    table: JourneyTable,
    share: Floats,
    method: IntervalMethod,
    draws_seed: tuple[int, int],
    on_progress: Callable[[int], None] | None = None,
) -> ShareIntervals:
    """Return the spread of the shares of conversions and of value, arrays [2, K], and the method that was used.

    Args:
        estimator: the model.
        table: journeys and outcomes.
        share: float64[2, K], shares under the observed weights.
        method: "auto" is the bootstrap up to 200,000 rows and the fast path beyond.
        draws_seed: number of draws, and the seed.
        on_progress: called after each draw of the bootstrap with how many are done.
    """
    draws, seed = draws_seed
    fast = is_fast(method, len(table.batch))
    if fast and isinstance(estimator, CreditTotals):
        found, used = _closed_form(estimator, table, share), "closed form"
    elif fast and isinstance(estimator, RemovalTotals) and estimator.order == 1:
        found, used = summarize_draws(_dirichlet(table, draws, seed), share), "dirichlet"
    else:
        found, used = summarize_draws(_bootstrap(estimator, table, draws_seed, on_progress), share), "bootstrap"
    if not values_are_single(table):
        found.low[1], found.high[1], found.error[1], found.confidence[1] = (np.nan,) * 4
    return ShareIntervals(found, used)


def is_fast(method: IntervalMethod, rows: int) -> bool:
    """Tell whether the fast path is taken, by models that have one."""
    return method == "fast" or (method == "auto" and rows > _BOOTSTRAP_ROWS)


def values_are_single(table: JourneyTable) -> bool:
    """Tell whether the value of every conversion is known by itself, not summed up with others."""
    outcomes = table.outcomes
    return not bool(((outcomes.conversions > 1) & (outcomes.value_micros != 0)).any())


def _bootstrap(
    estimator: Estimator, table: JourneyTable, draws_seed: tuple[int, int], on_progress: Callable[[int], None] | None
) -> Floats:
    draws, seed = draws_seed
    filled = table.batch.lengths > 0
    drawn = np.empty((draws, 2, len(table.batch.index)), dtype=np.float64)
    for place, weights in enumerate(bootstrap_weights(table.outcomes, draws=draws, seed=seed)):
        whole = np.array([weights.conversions[filled].sum(), weights.values[filled].sum()])
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn[place] = estimator.totals(weights) / whole[:, None]
        if on_progress is not None:
            on_progress(place + 1)
    return drawn


def _dirichlet(table: JourneyTable, draws: int, seed: int) -> Floats:
    outcomes = table.outcomes
    some = outcomes.conversions + outcomes.nulls > 0  # a refund of nobody's conversion is no journey
    state = JourneyState.fit(
        table.batch.select(some),
        Outcomes(outcomes.conversions[some], outcomes.nulls[some], outcomes.value_micros[some]),
    )
    places = state.index.translation(table.batch.index)
    drawn = np.zeros((draws, 2, len(table.batch.index)), dtype=np.float64)
    for kind, squares in enumerate((None, _value_squares(table)[places])):
        drawn[:, kind, places] = shares(dirichlet_removal(state, draws=draws, seed=seed, value_squares=squares))
    return drawn


def _value_squares(table: JourneyTable) -> Floats:
    """Return the summed squared distances of values from their mean by last channel, float64[K]."""
    batch, outcomes = table.batch, table.outcomes
    chosen = (batch.lengths > 0) & (outcomes.conversions > 0)
    last, values = batch.channels[batch.offsets[1:][chosen] - 1], outcomes.value_micros[chosen].astype(np.float64)
    channels = len(batch.index)
    numbers = np.bincount(last, outcomes.conversions[chosen], channels)
    mean = np.bincount(last, values, channels) / np.maximum(numbers, 1)
    squares: Floats = np.bincount(last, (values - mean[last]) ** 2, channels).astype(np.float64)
    return squares


def _closed_form(estimator: CreditTotals, table: JourneyTable, share: Floats) -> DrawSummary:
    sums = CreditSums.fit(estimator.name, table.batch, estimator.credits, table.outcomes)
    errors = np.stack([sums.errors(table.batch.index, of_value=of_value) for of_value in (False, True)])
    # E|X| = sqrt(2 / pi) sd for a normal X: the total variation that the draws would have had
    variation = 0.5 * np.sqrt(2 / np.pi) * errors.sum(axis=1)
    low, high = share - NORMAL_QUANTILE * errors, share + NORMAL_QUANTILE * errors
    return DrawSummary(low, high, errors, 1.0 - variation, np.zeros(2, dtype=np.int64))
