"""A split of a budget that may be promised: what the experiments let expect, within bounds, and the right to be silent.

An optimiser picks the channels that the estimates flatter, so what it promises is too much, and by far where curves are
known badly. So the estimates are not optimised: the split is the best one on average over draws of the curves, in which
badly known ones are moved towards the others (`curve_posterior`), within bounds and the range that was tested. The
promise is the average of its gain over the same draws. It is recommended only if that is above 0, the split is better
in most draws, and marginal returns differ more than noise lets them (Cochran's Q). Decision 47 has what else was tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from attributary.attribution_core.spend.ratios import gamma_quantile

from .curve_posterior import CurveDraws, draw_curves
from .curves import Curve
from .split import STEPS, best_split

Floats = npt.NDArray[np.float64]

LEAST_CERTAINTY = 0.8
"""Share of draws in which a recommended split must be better."""
_TEST_LEVEL = 0.95
_DRAWN_STEPS = 50  # parts of the budget in each draw: only their average counts
_TEST_DRAWS = 20


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """How a plan is made.

    Attributes:
        budget: to be spent; None: as much as now.
        move: how far a channel may be moved, share of its present spend.
        draws: of the estimates.
        seed: of the draws.
        fixed: channels that keep their spend.
    """

    budget: float | None = None
    move: float = 0.2
    draws: int = 200
    seed: int = 0
    fixed: frozenset[str] = frozenset()


class ChannelPlan(NamedTuple):
    """One channel of a plan; spends and value per period.

    Attributes:
        channel: its name.
        before: present spend.
        after: planned spend.
        low: least planned spend over draws of the estimates, their 5th percentile.
        high: most, their 95th.
        slope_before: what the next unit brings now.
        slope_after: and then; equal over channels inside their bounds.
        bound: which bound holds it: smallest move, largest move, tested range, fixed; empty: none.
    """

    channel: str
    before: float
    after: float
    low: float
    high: float
    slope_before: float
    slope_after: float
    bound: str


class BudgetPlan(NamedTuple):
    """A plan, recommended or not. Gains are shares of the present response of these channels.

    Attributes:
        is_recommended: it may be acted on.
        channels: what each would get.
        raw_gain: what the best split by the estimates would promise, if they were taken as exact.
        gain: what the plan is expected to gain.
        interval: of the gain over draws, 90 %.
        certainty: share of the draws in which it is better.
        best_test: channel about which knowing more would help most.
        test_worth: what perfect knowledge of it would gain, share of the present response.
    """

    is_recommended: bool
    channels: Sequence[ChannelPlan]
    raw_gain: float
    gain: float
    interval: tuple[float, float]
    certainty: float
    best_test: str
    test_worth: float


class _Bounds(NamedTuple):
    low: Floats
    high: Floats
    why_low: list[str]
    why_high: list[str]


def plan_budget(curves: Sequence[Curve], current: Mapping[str, float], options: PlanOptions) -> BudgetPlan:
    """Return a plan for channels with curves.

    Args:
        curves: from experiments.
        current: present spend by channel, per the period of the curves, above 0.
        options: how it is made.

    Raises:
        ValueError: the bounds leave no split of the budget.
    """
    names = [each.channel for each in curves]
    now = np.array([current[name] for name in names])
    budget = float(now.sum()) if options.budget is None else options.budget
    bounds = _bounds(curves, now, options)
    estimates = np.array([(each.b, each.k, each.error_b, each.error_k) for each in curves])
    b, k = estimates[:, 0], estimates[:, 1]
    logs, errors = (np.log(b), np.log(k)), (estimates[:, 2], estimates[:, 3])
    drawn = draw_curves(logs, errors, now, options.draws, np.random.default_rng(options.seed))
    chosen = _choose(drawn, bounds, budget, STEPS)
    promised = _choose(CurveDraws(b[None], k[None]), bounds, budget, STEPS)  # what the estimates alone would promise
    gains = _gains(drawn, now, chosen)
    certainty = float((gains > 0.0).mean())
    splits = np.array(
        [_choose(CurveDraws(*(part[place, None] for part in drawn)), bounds, budget) for place in range(options.draws)]
    )
    channel, worth = _best_test(drawn, bounds, budget, chosen, names)
    low, high = np.quantile(gains, (0.05, 0.95))
    found = [_channel(name, place, now, chosen, splits, drawn, bounds, budget) for place, name in enumerate(names)]
    gain = float(gains.mean())
    is_moved_only = abs(budget - float(now.sum())) <= 1e-9 * budget
    is_recommended = (
        gain > 0.0 and certainty >= LEAST_CERTAINTY and (not is_moved_only or _differ(logs[1], *errors, logs[0], now))
    )
    raw = float(_gains(CurveDraws(b[None], k[None]), now, promised)[0])
    return BudgetPlan(is_recommended, found, raw, gain, (float(low), float(high)), certainty, channel, worth)


def _bounds(curves: Sequence[Curve], now: Floats, options: PlanOptions) -> _Bounds:
    low, high, why_low, why_high = [], [], [], []
    for curve, spend in zip(curves, now, strict=True):
        if curve.channel in options.fixed:
            low.append(spend)
            high.append(spend)
            why_low.append("fixed")
            why_high.append("fixed")
            continue
        least, most = spend * (1.0 - options.move), spend * (1.0 + options.move)
        low.append(max(least, min(curve.low, spend)))
        high.append(min(most, max(curve.high, spend)))
        why_low.append("smallest move" if low[-1] == least else "tested range")
        why_high.append("largest move" if high[-1] == most else "tested range")
    return _Bounds(np.array(low), np.array(high), why_low, why_high)


def _differ(log_k: Floats, error_b: Floats, error_k: Floats, log_b: Floats, now: Floats) -> bool:
    """Return whether marginal returns differ more than noise would let them (Cochran's Q)."""
    if now.size < 2:
        return False
    weight = np.exp(log_k) / (np.exp(log_k) + now)
    slope = log_b + log_k - 2.0 * np.log(np.exp(log_k) + now)
    weights = 1.0 / np.maximum(error_b**2 + (1.0 - 2.0 * weight) ** 2 * error_k**2, 1e-18)
    mean = (weights * slope).sum() / weights.sum()
    q = float((weights * (slope - mean) ** 2).sum())
    return q > 2.0 * gamma_quantile(_TEST_LEVEL, (now.size - 1) / 2.0)


def _choose(drawn: CurveDraws, bounds: _Bounds, budget: float, steps: int = _DRAWN_STEPS) -> Floats:
    """Return the spends within the bounds that the draws expect most of, on a grid of what there is to move."""
    spare = budget - float(bounds.low.sum())
    room = bounds.high - bounds.low
    if spare < -1e-9 * budget or float(room.sum()) < spare - 1e-9 * budget:
        raise ValueError(
            f"the bounds leave no split of {budget:,.2f}: channels take {bounds.low.sum():,.2f} to "
            f"{bounds.high.sum():,.2f}"
        )
    if spare <= 0.0:
        return bounds.low
    step = spare / steps
    split, _ = best_split(list(_responses(drawn, bounds, step, steps)), steps)
    return np.asarray(bounds.low + np.array(split) * step)


def _responses(drawn: CurveDraws, bounds: _Bounds, step: float, steps: int) -> Floats:
    """Return what each channel is expected to bring at each step: float64[channels, steps + 1]."""
    grid = bounds.low[:, None] + np.arange(steps + 1)[None, :] * step
    values = (drawn.b[..., None] * grid / (drawn.k[..., None] + grid)).mean(axis=0)
    values[grid > bounds.high[:, None] + step * 0.5] = -np.inf
    return np.asarray(values)


def _gains(drawn: CurveDraws, now: Floats, then: Floats) -> Floats:
    """Return the gain of each draw, share of the present response."""
    present = (drawn.b * now / (drawn.k + now)).sum(axis=1)
    return np.asarray((drawn.b * then / (drawn.k + then)).sum(axis=1) / present - 1.0)


def _best_test(
    drawn: CurveDraws, bounds: _Bounds, budget: float, chosen: Floats, names: Sequence[str]
) -> tuple[str, float]:
    """Return the channel about which perfect knowledge would gain most, on average over the draws."""
    spare = budget - float(bounds.low.sum())
    if spare <= 0.0:
        return names[0], 0.0
    step = spare / _DRAWN_STEPS
    expected = _responses(drawn, bounds, step, _DRAWN_STEPS)
    present = np.array([each.mean() for each in (drawn.b * chosen / (drawn.k + chosen)).T])
    worths = []
    for place in range(len(names)):
        gained = []
        for one in range(min(_TEST_DRAWS, len(drawn.b))):
            known = CurveDraws(*(part[one, None] for part in drawn))
            mixed = expected.copy()
            mixed[place] = _responses(known, bounds, step, _DRAWN_STEPS)[place]
            _, best = best_split(list(mixed), _DRAWN_STEPS)
            kept = known.b[0, place] * chosen[place] / (known.k[0, place] + chosen[place])
            gained.append(best - (present.sum() - present[place] + kept))
        worths.append(float(np.mean(gained)) / float(present.sum()))
    best_place = int(np.argmax(worths))
    return names[best_place], max(worths[best_place], 0.0)


def _channel(
    name: str, place: int, now: Floats, chosen: Floats, splits: Floats, drawn: CurveDraws, bounds: _Bounds,
    budget: float,
) -> ChannelPlan:  # fmt: skip
    b, k = drawn.b[:, place], drawn.k[:, place]
    low, high = np.quantile(splits[:, place], (0.05, 0.95))
    after, near = float(chosen[place]), budget / STEPS / 2.0
    bound = ""
    if after <= bounds.low[place] + near:
        bound = bounds.why_low[place]
    elif after >= bounds.high[place] - near:
        bound = bounds.why_high[place]
    before = float(now[place])
    then, now_slope = (float((b * k / (k + spend) ** 2).mean()) for spend in (after, before))
    return ChannelPlan(name, before, after, float(low), float(high), now_slope, then, bound)
