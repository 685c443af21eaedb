"""Back-test of the time-aware model: rates from before a moment, compared with the exposures after it.

Two questions. *Do the exposures predict conversions?* The log loss per conversion of the trained rates, ``sum over
exposures of (t rate - c log rate) / conversions``, beside that of one rate for everybody, trained on the same time;
and how many conversions the rates expected beside how many came, in fifths from low to high rates. *Are the shares
stable?* The change of every channel's share, baseline included, at a false discovery rate of 10 %.

Invariant: the rates use nothing from at or after the split. Touches of the last 30 days before it count as exposures
after it. A channel without training has no effect.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import psycopg

from attributary.attribution_core.analysis.report import plain
from attributary.attribution_core.domain.journeys import Floats
from attributary.attribution_core.models.poisson import PoissonFit, fit_counts
from attributary.attribution_core.models.poisson_credit import PoissonSettings
from attributary.attribution_core.statistics.exposures import ExposureCounts
from attributary.attribution_core.statistics.likelihood import Design, FitError

from .drift import rate_changes
from .rates import fit_rates
from .read_exposures import ObservedExposures, read_exposures
from .read_journeys import Progress, Window, no_progress
from .train import TrainingError

_GROUPS = 5


def backtest_rates(
    connection: psycopg.Connection, window: Window, split: int, progress: Progress = no_progress
) -> dict[str, Any]:
    """Train on the exposures before `split` and test on those from it on.

    Args:
        connection: in a snapshot.
        window: all data to use.
        split: microseconds UTC.
        progress: called with people read and people in all, for one half after the other.

    Raises:
        TrainingError: no conversion before the split, or no exposure from it on.
    """
    statistics = read_exposures(connection, replace(window, until=split), progress)
    seen = read_exposures(connection, replace(window, since=split), progress)
    if not seen.counts.seconds.sum():
        raise TrainingError("nobody with a touch is observed at or after the split")
    try:
        return compare_rates(statistics, seen)
    except FitError as error:
        raise TrainingError(f"{error} before the split") from error


def compare_rates(statistics: ObservedExposures, seen: ObservedExposures) -> dict[str, Any]:
    """Return the report of a back-test, ready for JSON.

    Raises:
        FitError: the rates cannot be fitted.
    """
    fitted = fit_counts(statistics.counts)
    report: dict[str, Any] = plain(
        {
            "learned_from": _size(statistics),
            "tested_on": _size(seen),
            "prediction": _prediction(statistics.counts, fitted, seen.counts),
            "shares": _shares(statistics, seen),
        }
    )
    return report


def _size(observed: ObservedExposures) -> dict[str, Any]:
    counts = observed.counts
    return {"people": observed.people, "days": counts.days.sum(), "conversions": counts.conversions.sum()}


def _prediction(statistics: ExposureCounts, fitted: PoissonFit, seen: ExposureCounts) -> dict[str, Any]:
    """Score the trained rates on the exposures after the split."""
    ages = len(seen.bounds)
    places = seen.index.translation(statistics.index)
    beta = np.vstack((fitted.beta, np.zeros(ages)))[places]  # -1, unknown: the last row
    logs = Design.of(seen.exposures, beta.size).logs(np.append(fitted.alpha, beta.ravel()))
    one_rate = np.full(logs.size, np.log(statistics.conversions.sum() / statistics.days.sum()))
    days, conversions = seen.days, seen.conversions.astype(np.float64)
    number = float(conversions.sum())
    strange = np.zeros(len(seen.exposures), dtype=np.bool_)
    strange[seen.exposures.rows[places[seen.exposures.cells // ages] < 0]] = True

    def log_loss(of: Floats) -> float:
        return float(days @ np.exp(of) - conversions @ of) / number if number else float("nan")

    return {
        "log_loss": log_loss(logs),
        "log_loss_one_rate": log_loss(one_rate),
        "expected_conversions": days @ np.exp(logs),
        "unknown_channel_conversions": conversions[strange].sum(),
        "by_rate": _by_rate(logs, days, conversions),
    }


def _by_rate(logs: Floats, days: Floats, conversions: Floats) -> list[dict[str, Any]]:
    """Compare expected and seen conversions in groups of about equal expectation, from low to high rates.

    Exposures of equal rate are in one group.
    """
    order = np.argsort(logs, kind="stable")
    expected = (days * np.exp(logs))[order]
    groups = np.minimum(np.cumsum(expected) * _GROUPS / max(expected.sum(), 1e-300), _GROUPS - 1).astype(np.int64)
    ordered = logs[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-np.inf))
    groups = np.repeat(groups[starts], np.diff(np.append(starts, ordered.size)))
    return [
        {
            "rate_per_day": [float(np.exp(part.min())), float(np.exp(part.max()))],
            "expected_conversions": float(expected[groups == group].sum()),
            "conversions": float(conversions[order][groups == group].sum()),
        }
        for group in range(_GROUPS)
        if (part := ordered[groups == group]).size
    ]


def _shares(statistics: ObservedExposures, seen: ObservedExposures) -> dict[str, Any] | None:
    """Return the changes of shares; None when nothing converted after the split."""
    settings = PoissonSettings()
    try:
        after = fit_rates(seen, settings)[1]
    except FitError:
        return None
    return rate_changes(fit_rates(statistics, settings)[1], after)
