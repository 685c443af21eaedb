"""A split of a budget that may be promised: shrunk curves, bounds, the optimiser's own noise taken off.

An optimiser picks the channels that the estimates flatter, so what it promises is too much, and by far where curves are
known badly. In this order: curves are shrunk towards their common mean on the log scale, by as much as their
differences may be noise; spends stay within bounds and inside the range that experiments tested; the best split is
chosen; its gain is lowered by what choosing anew on other draws of the estimates over-promises. It is recommended only
if the lowered gain is above 0 and the split is better in most draws. Sources: Efron and Tibshirani (optimism by
bootstrap), DerSimonian and Laird (variance between), Cochran's Q.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from attributary.attribution_core.spend.ratios import gamma_quantile

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
        raw_gain: what the optimiser promises.
        gain: what is left of it.
        interval: of the gain over shrunk draws, 90 %.
        certainty: share of these draws in which it is better.
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


class _Shrunk(NamedTuple):
    """Curves as arrays of log b and log k, with their posterior errors."""

    b: Floats
    k: Floats
    error_b: Floats
    error_k: Floats


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
    log_b, log_k, error_b, error_k = np.log(estimates[:, 0]), np.log(estimates[:, 1]), estimates[:, 2], estimates[:, 3]
    shrunk = _shrink(log_b, log_k, error_b, error_k, now)
    chosen = _choose(np.exp(shrunk.b), np.exp(shrunk.k), bounds, budget, STEPS)
    raw = _gain(np.exp(shrunk.b), np.exp(shrunk.k), now, chosen)
    draw = np.random.default_rng(options.seed)
    optimism, splits = [], []
    for _ in range(options.draws):
        noise = draw.standard_normal((2, now.size))
        again = _shrink(log_b + noise[0] * error_b, log_k + noise[1] * error_k, error_b, error_k, now)
        other = _choose(np.exp(again.b), np.exp(again.k), bounds, budget)
        splits.append(other)
        optimism.append(
            _gain(np.exp(again.b), np.exp(again.k), now, other) - _gain(np.exp(shrunk.b), np.exp(shrunk.k), now, other)
        )
    gain = raw - max(float(np.mean(optimism)), 0.0)
    noise = draw.standard_normal((options.draws, 2, now.size))
    drawn_b = np.exp(shrunk.b + noise[:, 0] * shrunk.error_b)
    drawn_k = np.exp(shrunk.k + noise[:, 1] * shrunk.error_k)
    gains = np.array([_gain(b, k, now, chosen) for b, k in zip(drawn_b, drawn_k, strict=True)])
    certainty = float((gains > 0.0).mean())
    channel, worth = _best_test(shrunk, drawn_b, drawn_k, bounds, budget, now, chosen, names)
    low, high = np.quantile(gains, (0.05, 0.95))
    found = [
        _channel(name, place, now, chosen, np.array(splits), shrunk, bounds, budget) for place, name in enumerate(names)
    ]
    is_recommended = gain > 0.0 and certainty >= LEAST_CERTAINTY
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


def _shrink(log_b: Floats, log_k: Floats, error_b: Floats, error_k: Floats, now: Floats) -> _Shrunk:
    """Return curves with average return and saturation moved towards the common ones, by how much may be noise.

    If the marginal returns differ no more than noise would let them (Cochran's Q), they are taken as equal.
    """
    weight = np.exp(log_k) / (np.exp(log_k) + now)  # how much log k moves the average return
    level, saturation = log_b - np.log(np.exp(log_k) + now), log_k - np.log(now)
    error_level = np.sqrt(error_b**2 + weight**2 * error_k**2)
    slope = level + np.log(weight)  # log mROAS: average return times k / (k + x)
    error_slope = np.sqrt(error_b**2 + (1.0 - 2.0 * weight) ** 2 * error_k**2)
    if _differ(slope, error_slope):
        keep_level, keep_saturation = _kept(level, error_level), _kept(saturation, error_k)
    else:
        keep_level = keep_saturation = np.zeros_like(level)
    level = _towards(level, error_level, keep_level)
    saturation = _towards(saturation, error_k, keep_saturation)
    k = saturation + np.log(now)
    b = level + np.log(np.exp(k) + now)
    return _Shrunk(b, k, np.sqrt(keep_level) * error_b, np.sqrt(keep_saturation) * error_k)


def _differ(values: Floats, errors: Floats) -> bool:
    weights = 1.0 / np.maximum(errors, 1e-9) ** 2
    mean = (weights * values).sum() / weights.sum()
    q = float((weights * (values - mean) ** 2).sum())
    return q > 2.0 * gamma_quantile(_TEST_LEVEL, (values.size - 1) / 2.0) if values.size > 1 else False


def _kept(values: Floats, errors: Floats) -> Floats:
    """Return how much of each difference is kept: variance between over that and the own error's."""
    weights = 1.0 / np.maximum(errors, 1e-9) ** 2
    mean = (weights * values).sum() / weights.sum()
    q = (weights * (values - mean) ** 2).sum()
    between = max(0.0, (q - (values.size - 1)) / (weights.sum() - (weights**2).sum() / weights.sum()))
    return np.asarray(between / (between + np.maximum(errors, 1e-9) ** 2))


def _towards(values: Floats, errors: Floats, kept: Floats) -> Floats:
    weights = 1.0 / np.maximum(errors, 1e-9) ** 2
    mean = (weights * values).sum() / weights.sum()
    return np.asarray(mean + kept * (values - mean))


def _choose(b: Floats, k: Floats, bounds: _Bounds, budget: float, steps: int = _DRAWN_STEPS) -> Floats:
    """Return the best spends within the bounds, on a grid of what there is to move."""
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
    grid = bounds.low[:, None] + np.arange(steps + 1)[None, :] * step
    values = b[:, None] * grid / (k[:, None] + grid)
    values[grid > bounds.high[:, None] + step * 0.5] = -np.inf
    split, _ = best_split(list(values), steps)
    return np.asarray(bounds.low + np.array(split) * step)


def _gain(b: Floats, k: Floats, now: Floats, then: Floats) -> float:
    base = float((b * now / (k + now)).sum())
    return float((b * then / (k + then)).sum()) / base - 1.0


def _best_test(
    shrunk: _Shrunk, drawn_b: Floats, drawn_k: Floats, bounds: _Bounds, budget: float, now: Floats, chosen: Floats,
    names: Sequence[str],
) -> tuple[str, float]:  # fmt: skip
    """Return the channel about which perfect knowledge would gain most, on average over the draws."""
    worths = []
    for place in range(now.size):
        gained = []
        for b_drawn, k_drawn in zip(drawn_b[:_TEST_DRAWS, place], drawn_k[:_TEST_DRAWS, place], strict=True):
            b, k = np.exp(shrunk.b), np.exp(shrunk.k)
            b[place], k[place] = b_drawn, k_drawn
            gained.append(_gain(b, k, now, _choose(b, k, bounds, budget)) - _gain(b, k, now, chosen))
        worths.append(float(np.mean(gained)))
    best = int(np.argmax(worths))
    return names[best], max(worths[best], 0.0)


def _channel(
    name: str, place: int, now: Floats, chosen: Floats, splits: Floats, shrunk: _Shrunk, bounds: _Bounds, budget: float
) -> ChannelPlan:
    b, k = float(np.exp(shrunk.b[place])), float(np.exp(shrunk.k[place]))
    low, high = np.quantile(splits[:, place], (0.05, 0.95))
    after, near = float(chosen[place]), budget / STEPS / 2.0
    bound = ""
    if after <= bounds.low[place] + near:
        bound = bounds.why_low[place]
    elif after >= bounds.high[place] - near:
        bound = bounds.why_high[place]
    before = float(now[place])
    return ChannelPlan(
        name, before, after, float(low), float(high), b * k / (k + before) ** 2, b * k / (k + after) ** 2, bound
    )
