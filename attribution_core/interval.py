"""The spread of the shares of any model: the Bayesian bootstrap, or a fast path where one exists.

Invariant: the bootstrap is used wherever the fast path has none to offer; both are functions of data, draws and seed.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

from attributary.attribution_core.credit_sums import CreditSums
from attributary.attribution_core.journeys import Floats
from attributary.attribution_core.markov import shares
from attributary.attribution_core.paths import JourneyTable
from attributary.attribution_core.population import CreditTotals, Estimator, RemovalTotals
from attributary.attribution_core.state import JourneyState
from attributary.attribution_core.uncertainty import (
    Spread,
    bootstrap_weights,
    dirichlet_removal,
    spread,
)

IntervalMethod = Literal["auto", "bootstrap", "fast"]

_BOOTSTRAP_ROWS = 200_000
_Z_90 = 1.6448536269514722  # the normal quantile of 0.95


def shares_spread(
    estimator: Estimator,
    table: JourneyTable,
    share: Floats,
    method: IntervalMethod,
    draws_seed: tuple[int, int],
    told: Callable[[int], None] | None = None,
) -> Spread:
    """Return the spread of the shares of conversions and of value, arrays [2, K].

    Args:
        estimator: the model.
        table: journeys and outcomes.
        share: float64[2, K], shares under the observed weights.
        method: "auto" is the bootstrap up to 200,000 rows and the fast path beyond.
        draws_seed: number of draws, and the seed.
        told: called after each draw of the bootstrap with how many are done.
    """
    draws, seed = draws_seed
    fast = method == "fast" or (method == "auto" and len(table.batch) > _BOOTSTRAP_ROWS)
    if fast and isinstance(estimator, CreditTotals):
        return _closed_form(estimator, table, share)
    if fast and isinstance(estimator, RemovalTotals) and estimator.order == 1:
        state = JourneyState.fit(table.batch, table.outcomes)
        places = state.index.translation(table.batch.index)
        drawn = np.zeros((draws, *share.shape), dtype=np.float64)
        for kind in (0, 1):
            effects = dirichlet_removal(state, draws=draws, seed=seed, of_value=kind == 1)
            drawn[:, kind, places] = shares(effects)
        return spread(drawn, share)
    filled = table.batch.lengths > 0
    drawn = np.empty((draws, *share.shape), dtype=np.float64)
    for place, weights in enumerate(bootstrap_weights(table.outcomes, draws=draws, seed=seed)):
        whole = np.array([weights.conversions[filled].sum(), weights.values[filled].sum()])
        with np.errstate(divide="ignore", invalid="ignore"):
            drawn[place] = estimator.totals(weights) / whole[:, None]
        if told is not None:
            told(place + 1)
    return spread(drawn, share)


def _closed_form(estimator: CreditTotals, table: JourneyTable, share: Floats) -> Spread:
    sums = CreditSums.fit(estimator.name, table.batch, estimator.credits, table.outcomes)
    errors = np.stack([sums.errors(table.batch.index, of_value=of_value) for of_value in (False, True)])
    # E|X| = sqrt(2 / pi) sd for a normal X: the total variation that the draws would have had
    variation = 0.5 * np.sqrt(2 / np.pi) * errors.sum(axis=1)
    return Spread(share - _Z_90 * errors, share + _Z_90 * errors, errors, 1.0 - variation)
