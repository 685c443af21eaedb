"""Rates of the time-aware model, fitted to exposures, and the report on every channel.

Invariant: the report is a function of the counts, the paths of the conversions and the settings; an unknown number is
None, never 0. The baseline, the share associated with no touch, stands beside the channels and is given to none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from attributary.attribution_core.analysis.report import plain
from attributary.attribution_core.domain.confidence import NORMAL_QUANTILE, TAILS
from attributary.attribution_core.domain.journeys import Floats, JourneyBatch
from attributary.attribution_core.domain.lookback import MICROS_PER_DAY
from attributary.attribution_core.models.poisson import PoissonFit, fit_counts, fit_raising
from attributary.attribution_core.models.poisson_credit import PoissonModel, PoissonSettings, Rates
from attributary.attribution_core.models.rules import RULES, RuleSettings
from attributary.attribution_core.statistics.histories import AGE_BOUNDS
from attributary.attribution_core.statistics.sets import set_shares

from .channel_report import INSUFFICIENT, NO_SUPPORT, OK
from .read_exposures import ObservedExposures, Path

_BESIDE = ("first", "last", "linear")  # the "other models" of the spread, with Shapley


def fit_rates(observed: ObservedExposures, settings: PoissonSettings) -> tuple[Rates, dict[str, Any]]:
    """Fit the model. Return the rates that a version keeps, and the report for its metadata.

    Args:
        observed: counts and paths.
        settings: of the model.

    Raises:
        FitError: nothing converted, or the fit does not settle.
        ValueError: a version cannot hold that many draws.
    """
    counts = observed.counts
    settings.check_size(len(counts.index), len(counts.bounds))
    free = fit_counts(counts)
    beta, draws = fit_raising(counts, draws=settings.draws, seed=settings.seed, start=free)
    rates = Rates(counts.index, counts.bounds, beta, draws, counts.conversions_with())
    return rates, _report(observed, free, PoissonModel("0", rates, settings))


def _report(observed: ObservedExposures, free: PoissonFit, model: PoissonModel) -> dict[str, Any]:
    rates, counts = model.rates, observed.counts
    shares = _shares(observed.paths, model)
    conversions = int(counts.conversions.sum())
    starts = (0, *(bound // MICROS_PER_DAY for bound in rates.bounds))
    channels = [
        {
            "channel": name,
            "conversions_with": rates.conversions_with[code],
            "status": OK if rates.conversions_with[code] >= model.settings.minimum_conversions else INSUFFICIENT,
            "poisson": _row(shares, code, conversions),
            "spread_over_models": shares["spread"][code],
            "fallback": None
            if rates.conversions_with[code] >= model.settings.minimum_conversions
            else {"model": model.fallback_rule, "share": shares[model.fallback_rule][code]},
            "rate_ratios": [
                {
                    "from_days": starts[age],
                    "to_days": starts[age + 1],
                    "ratio": float(np.exp(free.beta[code, age])),
                    "interval": [
                        float(np.exp(free.beta[code, age] + side * NORMAL_QUANTILE * free.beta_error[code, age]))
                        for side in (-1, 1)
                    ],
                    "credited_ratio": float(np.exp(rates.beta[code, age])),
                }
                for age in range(len(rates.bounds))
            ],
        }
        for code, name in enumerate(rates.index.names)
    ]
    report: dict[str, Any] = plain(
        {
            "status": OK if any(row["status"] == OK for row in channels) else NO_SUPPORT,
            "conversions": conversions,
            "conversions_unwatched": observed.unwatched,
            "people": observed.people,
            "people_left_out": observed.left_out,
            "pooled_channels": observed.pooled,
            "sampled_share": 1 / 2**observed.halvings,
            "watched_days": float(counts.days.sum()),
            "distinct_exposures": len(counts.exposures),
            "base_rate_per_day": float(np.exp(free.alpha)),
            "baseline": _baseline_row(shares, len(rates.index), conversions),
            "confidence": shares["confidence"],
            "intervals": "parameter draws and conversions",
            "conversions_in_shares": int(sum(observed.paths.values())),
            "conversions_left_out_of_shares": observed.paths_left_out,
            "channels": channels,
        }
    )
    return report


def _row(shares: Mapping[str, Any], place: int, conversions: int) -> dict[str, Any]:
    share, error = shares["share"][place], shares["error"][place]
    return {
        "share": share,
        "interval": [max(share - NORMAL_QUANTILE * error, 0.0), min(share + NORMAL_QUANTILE * error, 1.0)],
        "error": error,
        "conversions": share * conversions,
    }


def _baseline_row(shares: Mapping[str, Any], place: int, conversions: int) -> dict[str, Any]:
    """Return the row of the baseline; its interval includes draws with touches that lower the rate."""
    row = _row(shares, place, conversions)
    low, high = row["interval"]
    drawn_low, drawn_high = np.quantile(shares["baselines"], TAILS)
    return row | {"interval": [min(low, float(drawn_low)), max(high, float(drawn_high))]}


def _shares(paths: Mapping[Path, int], model: PoissonModel) -> dict[str, Any]:
    """Return share and standard error of every channel and, in the last place, of the baseline, float64[K + 1].

    Two errors add up: that of the rates, by their draws, and that of the mean over conversions.
    """
    batch, numbers = _representatives(paths, model)
    whole = numbers.sum()
    cells = np.append(batch.channels, np.full(len(batch), len(batch.index))).astype(np.int64)
    owner = np.append(batch.journey_of_touch, np.arange(len(batch)))

    def by_name(credits_: Floats, baseline: Floats) -> Floats:
        weighted = np.append(credits_, baseline) * numbers[owner]
        found: Floats = np.bincount(cells, weighted, len(batch.index) + 1).astype(np.float64) / whole
        return found

    # every path counts, also those that fall back in single journeys: rare channels are flagged, not left out
    unlimited = PoissonModel("0", model.rates, PoissonSettings(minimum_conversions=0))
    credits_, baseline = unlimited.credits(batch), np.where(batch.lengths > 0, unlimited.baseline(batch), 1.0)
    share = by_name(credits_, baseline)
    drawn = np.stack(
        [
            by_name(one, np.where(batch.lengths > 0, rest, 1.0))
            for credits_drawn, baselines in unlimited.drawn_credits(batch)
            for one, rest in zip(credits_drawn, baselines, strict=True)
        ]
    )
    free = np.where(batch.lengths > 0, unlimited.drawn_baselines(batch), 1.0) @ numbers / whole
    pairs, places = np.unique(owner * (len(batch.index) + 1) + cells, return_inverse=True)
    sums = np.bincount(places, np.append(credits_, baseline), pairs.size)
    squares = np.bincount(
        pairs % (len(batch.index) + 1), sums**2 * numbers[pairs // (len(batch.index) + 1)], len(batch.index) + 1
    )
    sampling = np.maximum(squares / whole - share**2, 0.0) / whole
    error = np.sqrt(sampling + drawn.var(axis=0))
    confidence = 1.0 - 0.5 * float(np.abs(drawn - share).sum(axis=1).mean())
    nothing = np.zeros(len(batch))
    others = {name: by_name(rule(batch, RuleSettings()), nothing) for name, rule in RULES.items()}
    beside = np.stack((share, by_name(set_shares(batch), nothing), *(others[name] for name in _BESIDE)))
    received = beside[:, :-1].sum(axis=1, keepdims=True)  # baseline and journeys without touches are left out of all
    beside = np.divide(beside, received, out=np.zeros_like(beside), where=received > 0)
    spread = beside.max(axis=0) - beside.min(axis=0)
    return {
        "share": share,
        "error": error,
        "confidence": confidence,
        "spread": spread,
        "baselines": free,
        **others,
    }


def _representatives(paths: Mapping[Path, int], model: PoissonModel) -> tuple[JourneyBatch, Floats]:
    """Return one journey per distinct path, its touches at the young end of their age classes, and how many it is."""
    youngest = (0, *AGE_BOUNDS)
    ordered = sorted(paths.items())
    journeys = [
        [(-youngest[age], f"{place:06d}", channel) for place, (channel, age) in enumerate(path)] for path, _ in ordered
    ]
    batch = JourneyBatch.of(journeys, [0] * len(journeys), model.rates.index)
    return batch, np.array([number for _, number in ordered], dtype=np.float64)
