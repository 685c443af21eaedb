"""Sentences that the data can carry: rules with ids, each with its number, interval, n and test.

Invariant: every finding is reported with its estimate; its text exists only if its test passes. Texts claim
association ("receives", "is associated with"), never cause: removal effects and shares are statements about a model.
Rules that look at many channels or pairs control the rate of false findings (Benjamini, Hochberg) at 10 %.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import erfc, sqrt

import numpy as np

from attributary.attribution_core.drift import benjamini_hochberg, drift
from attributary.attribution_core.journeys import Flags, Floats, Ints, JourneyBatch
from attributary.attribution_core.level import NORMAL_QUANTILE, TAILS
from attributary.attribution_core.lookback import MICROS_PER_DAY
from attributary.attribution_core.markov import shares
from attributary.attribution_core.paths import JourneyTable
from attributary.attribution_core.population import CreditTotals, Estimator, RemovalTotals, Weights
from attributary.attribution_core.rules import first, last, linear
from attributary.attribution_core.sets import distinct_sets
from attributary.attribution_core.uncertainty import bootstrap_weights

MINIMUM_N = 30
RANK_PROBABILITY = 0.95


@dataclass(frozen=True, slots=True)
class Insight:
    """One finding.

    Attributes:
        rule_id: the rule, see ``docs/models.md``.
        subject: the channels it is about; empty for the whole.
        estimate: the number.
        low: lower end of its 90 % interval; None where there is none.
        high: upper end.
        n: observations behind it, conversions unless the rule says otherwise.
        text: the sentence; None when the test did not pass.
    """

    rule_id: str
    subject: tuple[str, ...]
    estimate: float
    low: float | None
    high: float | None
    n: int
    text: str | None


@dataclass(frozen=True, eq=False)
class _Sample:
    """Observed numbers and their draws.

    Attributes:
        names: channels.
        observed: by quantity, float64[...].
        drawn: by quantity, float64[D, ...].
        conversions_with: float64[K].
    """

    names: tuple[str, ...]
    observed: dict[str, Floats]
    drawn: dict[str, Floats]
    conversions_with: Floats


def population_insights(
    table: JourneyTable,
    *,
    before: JourneyTable | None = None,
    lags_micros: Ints | None = None,
    draws: int = 200,
    seed: int = 0,
) -> list[Insight]:
    """Run all rules over finished journeys.

    Args:
        table: journeys.
        before: journeys of an earlier period, for the rule on shifts.
        lags_micros: from first touch to conversion of the converted journeys, where the table has no times.
        draws: of the Bayesian bootstrap.
        seed: of the draws.
    """
    if not table.outcomes.conversions[table.batch.lengths > 0].any():
        return []
    sample = _sample(table, draws, seed)
    found: list[Insight] = []
    for rule in (_openers, _assists, _synergies, _ranks, _concentration):
        found.extend(rule(sample))
    found.extend(_quantiles(table, lags_micros))
    if before is not None and before.outcomes.conversions[before.batch.lengths > 0].any():
        found.extend(_shifts(sample, _sample(before, draws, seed + 1)))
    return found


def _sample(table: JourneyTable, draws: int, seed: int) -> _Sample:
    batch = table.batch
    pairs = _pairs(batch)
    filled = batch.lengths > 0
    estimators: dict[str, Estimator] = {
        "first": CreditTotals("first", batch, first(batch)),
        "last": CreditTotals("last", batch, last(batch)),
        "linear": CreditTotals("linear", batch, linear(batch)),
        "markov": RemovalTotals(batch),
    }

    def measure(weights: Weights) -> dict[str, Floats]:
        found = {name: shares(estimator.totals(weights)[0]) for name, estimator in estimators.items()}
        found["pairs"] = pairs(weights)
        converted = weights.conversions[filled].sum()
        found["total"] = np.array([converted, converted + weights.nulls[filled].sum()])
        return found

    observed = measure(Weights.observed(table.outcomes))
    rows = [measure(weights) for weights in bootstrap_weights(table.outcomes, draws=draws, seed=seed)]
    drawn = {name: np.stack([row[name] for row in rows]) for name in observed}
    return _Sample(batch.index.names, observed, drawn, observed["pairs"][0].diagonal().copy())


def _pairs(batch: JourneyBatch) -> Callable[[Weights], Floats]:
    """Return a function from weights to conversions and journeys by pair of channels, float64[2, K, K].

    The diagonal holds the journeys with the channel.
    """
    found = distinct_sets(batch)
    places, members = found.set_of_journey, found.members
    rows = np.zeros((len(members), len(batch.index)), dtype=np.float64)
    flat = np.array([code for codes in members for code in codes], dtype=np.int64)
    rows[np.repeat(np.arange(len(members)), [len(codes) for codes in members]), flat] = 1.0

    def count(weights: Weights) -> Floats:
        conversions = np.bincount(places, weights.conversions, rows.shape[0])
        journeys = np.bincount(places, weights.conversions + weights.nulls, rows.shape[0])
        return np.stack([(rows.T * conversions) @ rows, (rows.T * journeys) @ rows])

    return count


def _interval(draws: Floats) -> tuple[float, float]:
    usable = draws[np.isfinite(draws)]
    if usable.size < 2:
        return float("nan"), float("nan")
    low, high = np.quantile(usable, TAILS)
    return float(low), float(high)


def _ratio(one: Floats, other: Floats) -> Floats:
    # differences of drawn sums may miss 0 by rounding
    found: Floats = np.divide(one, other, out=np.full(np.shape(one), np.nan), where=other > 1e-9)
    return found


def _openers(sample: _Sample) -> list[Insight]:
    """Opener and closer: share by first touch over share by last touch; claimed if the interval excludes 1."""
    observed = _ratio(sample.observed["first"], sample.observed["last"])
    drawn = _ratio(sample.drawn["first"], sample.drawn["last"])
    with np.errstate(divide="ignore"):
        passed = _passed(np.log(observed), np.log(drawn), sample)
    found = []
    for code in np.flatnonzero(np.isfinite(observed)).tolist():
        name, ratio = sample.names[code], float(observed[code])
        low, high = _interval(drawn[:, code])
        text = None
        if passed[code] and low > 1:
            text = f"{name} opens converting journeys {ratio:.2f} times as often as it closes them"
        elif passed[code] and high < 1:
            text = f"{name} closes converting journeys more often than it opens them (first over last: {ratio:.2f})"
        n = int(sample.conversions_with[code])
        found.append(Insight("channel.opener_closer", (name,), ratio, low, high, n, text))
    return found


def _assists(sample: _Sample) -> list[Insight]:
    """Assist: 1 - last over linear; claimed if the interval excludes 0 from above."""
    observed = 1 - _ratio(sample.observed["last"], sample.observed["linear"])
    drawn = 1 - _ratio(sample.drawn["last"], sample.drawn["linear"])
    passed = _passed(observed, drawn, sample)
    found = []
    for code in np.flatnonzero(np.isfinite(observed)).tolist():
        name, assist = sample.names[code], float(observed[code])
        low, high = _interval(drawn[:, code])
        text = None
        if passed[code] and low > 0:
            text = f"{name} receives {100 * assist:.0f} % less by last touch than by equal shares: it tends to assist"
        n = int(sample.conversions_with[code])
        found.append(Insight("channel.assist", (name,), assist, low, high, n, text))
    return found


def _passed(observed: Floats, drawn: Floats, sample: _Sample) -> Flags:
    """Test "not 0" for all channels with enough conversions, at 10 % false findings over them."""
    p_values = np.ones(observed.size, dtype=np.float64)
    for code in np.flatnonzero((sample.conversions_with >= MINIMUM_N) & np.isfinite(observed)).tolist():
        usable = drawn[:, code][np.isfinite(drawn[:, code])]
        if usable.size > 1 and usable.std() > 0:
            p_values[code] = erfc(abs(float(observed[code])) / float(usable.std(ddof=1)) / sqrt(2))
    tested = sample.conversions_with >= MINIMUM_N
    passed = np.zeros(observed.size, dtype=np.bool_)
    passed[tested] = benjamini_hochberg(p_values[tested])
    return passed


def _synergies(sample: _Sample) -> list[Insight]:
    """Pairs: conversion rate with both channels over what both would give independently.

    With ``a`` the rate of the journeys with the first channel but not the second, ``b`` the other way round, and ``c``
    the rate with neither, independence gives ``1 - (1 - a)(1 - b) / (1 - c)``: to fail with both is to fail with each,
    and what happens anyway is not counted twice.
    """
    observed = _excess(sample.observed["pairs"][None], sample.observed["total"][None])[0]
    drawn = _excess(sample.drawn["pairs"], sample.drawn["total"])
    rows = []
    for one in range(len(sample.names)):
        for other in range(one + 1, len(sample.names)):
            n = int(sample.observed["pairs"][0, one, other])
            logs = np.log(drawn[:, one, other][drawn[:, one, other] > 0])
            if n < MINIMUM_N or not observed[one, other] > 0 or logs.size < 2 or not logs.std() > 0:
                continue
            z = abs(float(np.log(observed[one, other]))) / float(logs.std(ddof=1))
            rows.append((one, other, n, erfc(z / sqrt(2))))
    passed = benjamini_hochberg(np.array([row[3] for row in rows], dtype=np.float64))
    found = []
    for (one, other, n, _), claimed in zip(rows, passed.tolist(), strict=True):
        ratio = float(observed[one, other])
        low, high = _interval(drawn[:, one, other])
        names = (sample.names[one], sample.names[other])
        side = "more" if ratio > 1 else "less"
        text = f"{names[0]} together with {names[1]} is associated with {side} conversions than independence would give"
        found.append(
            Insight("pair.synergy", names, ratio, low, high, n, f"{text} ({ratio:.2f} times)" if claimed else None)
        )
    return found


def _excess(pairs: Floats, total: Floats) -> Floats:
    """Return the rate with both over the rate under independence, float64[D, K, K].

    Args:
        pairs: float64[D, 2, K, K], conversions and journeys by pair; with one channel on the diagonal.
        total: float64[D, 2], conversions and journeys with any channel.
    """
    places = np.arange(pairs.shape[2])
    single = pairs[:, :, places, places]
    first_only = single[:, :, :, None] - pairs
    second_only = single[:, :, None, :] - pairs
    neither = total[:, :, None, None] - single[:, :, :, None] - second_only
    together, a, b, c = (_ratio(part[:, 0], part[:, 1]) for part in (pairs, first_only, second_only, neither))
    expected = 1 - (1 - a) * _ratio(1 - b, 1 - c)
    return _ratio(together, np.nan_to_num(expected, nan=0.0))


def _ranks(sample: _Sample) -> list[Insight]:
    """Ranks by removal effect: neighbours are told apart only if the draws put them so in 95 of 100 cases."""
    share, drawn = sample.observed["markov"], sample.drawn["markov"]
    order = np.argsort(-share, kind="stable").tolist()
    found = []
    for one, other in pairwise(order):
        above = float((drawn[:, one] > drawn[:, other]).mean())
        low, high = _interval(drawn[:, one] - drawn[:, other])
        n = int(min(sample.conversions_with[one], sample.conversions_with[other]))
        names = (sample.names[one], sample.names[other])
        passed = above >= RANK_PROBABILITY and n >= MINIMUM_N
        text = f"{names[0]} receives more credit than {names[1]} by removal effects" if passed else None
        found.append(Insight("pair.rank", names, float(share[one] - share[other]), low, high, n, text))
    return found


def _concentration(sample: _Sample) -> list[Insight]:
    """Concentration: the inverse Herfindahl index of the shares, the number of equal channels that would look alike."""
    effective = 1 / float((sample.observed["markov"] ** 2).sum())
    low, high = _interval(1 / (sample.drawn["markov"] ** 2).sum(axis=1))
    n = int(sample.conversions_with.max(initial=0))
    text = None
    if n >= MINIMUM_N:
        text = f"credit is spread as over {effective:.1f} equal channels out of {len(sample.names)}"
    return [Insight("population.concentration", (), effective, low, high, n, text)]


def _quantiles(table: JourneyTable, lags_micros: Ints | None) -> list[Insight]:
    """Length and time lag of converted journeys: medians and ninth deciles."""
    batch = table.batch
    chosen = (batch.lengths > 0) & (table.outcomes.conversions > 0)
    counts = table.outcomes.conversions[chosen]
    lengths = batch.lengths[chosen].astype(np.float64)
    found = [
        _quantile("population.length", lengths, counts, 0.5, "the median converting journey has {:.0f} touches"),
        _quantile(
            "population.length_p90", lengths, counts, 0.9, "nine in ten converting journeys have at most {:.0f} touches"
        ),
    ]
    if table.timed:
        lags_micros = batch.converted_at[chosen] - batch.times[batch.offsets[:-1][chosen]]
    elif lags_micros is not None:
        counts = np.ones(lags_micros.size, dtype=np.int64)
    if lags_micros is not None and lags_micros.size:
        lag = lags_micros / MICROS_PER_DAY
        first_to_last = "takes {:.1f} days from first touch to conversion"
        found += [
            _quantile("population.lag", lag, counts, 0.5, f"the median converting journey {first_to_last}"),
            _quantile(
                "population.lag_p90", lag, counts, 0.9, "nine in ten converting journeys take at most {:.1f} days"
            ),
        ]
    return found


def _quantile(rule: str, values: Floats, counts: Ints, part: float, words: str) -> Insight:
    """Return a quantile with its distribution-free interval: order statistics, ranks by the binomial's normal form."""
    order = np.argsort(values, kind="stable")
    running = np.cumsum(counts[order])
    n = int(running[-1])

    def at(rank: float) -> float:
        return float(values[order][min(int(np.searchsorted(running, rank)), values.size - 1)])

    half = NORMAL_QUANTILE * sqrt(n * part * (1 - part))  # ranks that hold the quantile with 90 %
    found = at(n * part)
    text = words.format(found) if n * min(part, 1 - part) >= MINIMUM_N * 0.5 else None
    return Insight(rule, (), found, at(max(n * part - half, 1)), at(min(n * part + half + 1, n)), n, text)


def _shifts(now: _Sample, before: _Sample) -> list[Insight]:
    """Shifts of shares between two periods, by removal effects; false findings at 10 % over all channels."""
    names = tuple(name for name in now.names if name in before.names)
    here = [now.names.index(name) for name in names]
    there = [before.names.index(name) for name in names]
    errors = now.drawn["markov"].std(axis=0, ddof=1)[here], before.drawn["markov"].std(axis=0, ddof=1)[there]
    found = drift(now.observed["markov"][here], errors[0], before.observed["markov"][there], errors[1])
    insights = []
    for place, name in enumerate(names):
        change, error = float(found.change[place]), float(found.error[place])
        n = int(min(now.conversions_with[here[place]], before.conversions_with[there[place]]))
        text = None
        if found.changed[place] and n >= MINIMUM_N:
            text = f"the share of {name} has {'risen' if change > 0 else 'fallen'} by {100 * abs(change):.1f} points"
        low, high = change - NORMAL_QUANTILE * error, change + NORMAL_QUANTILE * error
        insights.append(Insight("channel.shift", (name,), change, low, high, n, text))
    return insights
