"""Sentences that the data can carry: rules with ids, each with its number, interval, n and test.

Invariant: every finding is reported with its estimate; its text exists only if its test passes. Texts claim
association ("receives", "is associated with"), never cause: removal effects and shares are statements about a model.
Rules that look at many channels or pairs control the share of false findings (Benjamini, Hochberg) at 10 %, of pairs at
5 %; the rule on ranks the probability of any (Holm) at 5 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import sqrt

import numpy as np

from attributary.attribution_core.analysis.positions import Positions, Tendency, assists, openings
from attributary.attribution_core.analysis.synergy import synergies
from attributary.attribution_core.domain.confidence import NORMAL_QUANTILE, TAILS
from attributary.attribution_core.domain.journeys import Flags, Floats, Ints
from attributary.attribution_core.domain.lookback import MICROS_PER_DAY
from attributary.attribution_core.inference.multiple_testing import benjamini_hochberg, drift, holm, two_sided
from attributary.attribution_core.models.channel_totals import RemovalTotals, Weights
from attributary.attribution_core.models.markov import shares
from attributary.attribution_core.models.posterior import bootstrap_weights
from attributary.attribution_core.tables.paths import JourneyTable

MINIMUM_N = 30
_SYNERGY_RATE = 0.05  # by the normal form, which is a little bold with few conversions: at most 10 % in simulations


@dataclass(frozen=True, slots=True)
class Insight:
    """One finding.

    Attributes:
        rule_id: the rule, see ``docs/models.md``.
        subject: the channels it is about; empty for the whole.
        estimate: the number.
        low: lower end of its 90 % interval; None where there is none.
        high: upper end.
        n: observations behind it, conversions unless ``docs/models.md`` says otherwise.
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
    """Shares by removal effects and their draws.

    Attributes:
        names: channels.
        share: float64[K].
        drawn: float64[D, K].
        positions: counts of conversions by channel.
    """

    names: tuple[str, ...]
    share: Floats
    drawn: Floats
    positions: Positions


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
    conversions = int(table.outcomes.conversions[table.batch.lengths > 0].sum())
    if not conversions:
        return []
    sample = _sample(table, draws, seed)
    found = [*_openers(sample), *_assists(sample), *_synergies(table), *_ranks(sample)]
    found.append(_concentration(sample, conversions))
    found.extend(_quantiles(table, lags_micros))
    if before is not None and before.outcomes.conversions[before.batch.lengths > 0].any():
        found.extend(_shifts(sample, _sample(before, draws, seed + 1)))
    return found


def _sample(table: JourneyTable, draws: int, seed: int) -> _Sample:
    removal = RemovalTotals(table.batch)
    weights = bootstrap_weights(table.outcomes, draws=draws, seed=seed)
    return _Sample(
        table.batch.index.names,
        shares(removal.effects(Weights.observed(table.outcomes))[0]),
        np.stack([shares(removal.effects(drawn)[0]) for drawn in weights]),
        Positions.of(table.batch, table.outcomes),
    )


def _spread(draws: Floats) -> float:
    usable = draws[np.isfinite(draws)]
    return float(usable.std(ddof=1)) if usable.size > 1 else float("nan")


def _interval(draws: Floats) -> tuple[float, float]:
    usable = draws[np.isfinite(draws)]
    if usable.size < 2:
        return float("nan"), float("nan")
    low, high = np.quantile(usable, TAILS)
    return float(low), float(high)


def _passed(found: Tendency) -> Flags:
    """Test "no tendency" for all channels with enough conversions, at 10 % false findings over them."""
    tested = np.flatnonzero(found.n >= MINIMUM_N)
    p_values = np.array([two_sided(z, 1.0) for z in found.z[tested].tolist()], dtype=np.float64)
    passed = np.zeros(found.n.size, dtype=np.bool_)
    passed[tested] = benjamini_hochberg(p_values)
    return passed


def _openers(sample: _Sample) -> list[Insight]:
    """Opener and closer: of the conversions that a channel opens or closes, the share that it opens."""
    openings_ = openings(sample.positions)
    passed = _passed(openings_)
    found = []
    for code in np.flatnonzero(openings_.n).tolist():
        name, share = sample.names[code], float(openings_.estimate[code])
        low, high = float(openings_.low[code]), float(openings_.high[code])
        text = None
        if passed[code] and (low > 0.5 or high < 0.5):
            part, *ends = (share, low, high) if share > 0.5 else (1 - share, 1 - high, 1 - low)
            text = (
                f"of the converting journeys that {name} opens or closes, but not both, "
                f"it {'opens' if share > 0.5 else 'closes'} {100 * part:.0f} % "
                f"(90 % interval {100 * ends[0]:.0f} to {100 * ends[1]:.0f})"
            )
        found.append(Insight("channel.opener_closer", (name,), share, low, high, int(openings_.n[code]), text))
    return found


def _assists(sample: _Sample) -> list[Insight]:
    """Assist: 1 - last over linear; claimed if its interval is above 0."""
    assists_ = assists(sample.positions)
    passed = _passed(assists_)
    found = []
    for code in np.flatnonzero(sample.positions.conversions_with).tolist():
        name, assist = sample.names[code], float(assists_.estimate[code])
        low, high = float(assists_.low[code]), float(assists_.high[code])
        text = None
        if passed[code] and low > 0:
            text = (
                f"{name} receives {100 * assist:.0f} % less by last touch than by equal shares "
                f"(90 % interval {100 * low:.0f} to {100 * high:.0f}): it tends to assist"
            )
        found.append(Insight("channel.assist", (name,), assist, low, high, int(assists_.n[code]), text))
    return found


def _synergies(table: JourneyTable) -> list[Insight]:
    """Pairs: conversion rate with both channels less the one under independence, see `synergy`."""
    compared = synergies(table.batch, table.outcomes)
    chosen = np.flatnonzero(compared.usual_conversions >= MINIMUM_N).tolist()
    tests = [two_sided(float(compared.difference[place]), float(compared.error[place])) for place in chosen]
    passed = benjamini_hochberg(np.array(tests, dtype=np.float64), _SYNERGY_RATE).tolist()
    found = []
    for place, claimed in zip(chosen, passed, strict=True):
        difference, half = float(compared.difference[place]), NORMAL_QUANTILE * float(compared.error[place])
        one, other = (table.batch.index.names[code] for code in compared.pairs[place].tolist())
        side = "more" if difference > 0 else "less"
        text = (
            f"{one} together with {other} is associated with {side} conversions than independence would give, "
            f"by {100 * abs(difference):.3g} points of the conversion rate"
        )
        ends = difference - half, difference + half
        n = int(compared.journeys[place])
        found.append(Insight("pair.synergy", (one, other), difference, *ends, n, text if claimed else None))
    return found


def _ranks(sample: _Sample) -> list[Insight]:
    """Ranks by removal effect: neighbours are told apart if the draws' spread allows it.

    The data choose which of two is named first, so the tests are two-sided; any false claim over all pairs has a
    probability of at most 5 % (Holm), for a wrong order is one wrong ranking, however many pairs are right.
    """
    share, drawn, with_channel = sample.share, sample.drawn, sample.positions.conversions_with
    neighbours = list(pairwise(np.argsort(-share, kind="stable").tolist()))
    numbers = [int(min(with_channel[one], with_channel[other])) for one, other in neighbours]
    differences = [float(share[one] - share[other]) for one, other in neighbours]
    p_values = np.array(
        [
            two_sided(difference, _spread(drawn[:, one] - drawn[:, other]))
            for (one, other), difference in zip(neighbours, differences, strict=True)
        ],
        dtype=np.float64,
    )
    tested = np.array(numbers, dtype=np.int64) >= MINIMUM_N
    passed = np.zeros(len(neighbours), dtype=np.bool_)
    passed[tested] = holm(p_values[tested])
    found = []
    for (one, other), n, difference, claimed in zip(neighbours, numbers, differences, passed.tolist(), strict=True):
        names = (sample.names[one], sample.names[other])
        ends = _interval(drawn[:, one] - drawn[:, other])
        text = f"{names[0]} receives more credit than {names[1]} by removal effects" if claimed else None
        found.append(Insight("pair.rank", names, difference, *ends, n, text))
    return found


def _concentration(sample: _Sample, conversions: int) -> Insight:
    """Concentration: the inverse Herfindahl index of the shares, the number of equal channels that would look alike."""
    effective = 1 / float((sample.share**2).sum())
    low, high = _interval(1 / (sample.drawn**2).sum(axis=1))
    text = None
    if sample.positions.conversions_with.max(initial=0) >= MINIMUM_N:
        text = f"credit is spread as over {effective:.1f} equal channels out of {len(sample.names)}"
    return Insight("population.concentration", (), effective, low, high, conversions, text)


def _quantiles(table: JourneyTable, lags_micros: Ints | None) -> list[Insight]:
    """Length and time lag of converted journeys: medians and ninth deciles."""
    batch = table.batch
    chosen = (batch.lengths > 0) & (table.outcomes.conversions > 0)
    counts = table.outcomes.conversions[chosen]
    lengths = batch.lengths[chosen].astype(np.float64)
    found = [
        _quantile("population.length", lengths, counts, 0.5, "the median converting journey has {:.0f} touch{}"),
        _quantile(
            "population.length_p90", lengths, counts, 0.9, "nine in ten converting journeys have at most {:.0f} touch{}"
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
    text = (
        words.format(found, "" if round(found) == 1 else "es") if n * min(part, 1 - part) >= MINIMUM_N * 0.5 else None
    )
    return Insight(rule, (), found, at(max(n * part - half, 1)), at(min(n * part + half + 1, n)), n, text)


def _shifts(now: _Sample, before: _Sample) -> list[Insight]:
    """Shifts of shares between two periods, by removal effects; false findings at 10 % over all channels."""
    names = tuple(name for name in now.names if name in before.names)
    here = [now.names.index(name) for name in names]
    there = [before.names.index(name) for name in names]
    errors = now.drawn.std(axis=0, ddof=1)[here], before.drawn.std(axis=0, ddof=1)[there]
    found = drift(now.share[here], errors[0], before.share[there], errors[1])
    insights = []
    for place, name in enumerate(names):
        change, error = float(found.change[place]), float(found.error[place])
        n = int(min(now.positions.conversions_with[here[place]], before.positions.conversions_with[there[place]]))
        text = None
        if found.changed[place] and n >= MINIMUM_N:
            text = f"the share of {name} has {'risen' if change > 0 else 'fallen'} by {100 * abs(change):.1f} points"
        low, high = change - NORMAL_QUANTILE * error, change + NORMAL_QUANTILE * error
        insights.append(Insight("channel.shift", (name,), change, low, high, n, text))
    return insights
