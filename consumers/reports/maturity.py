"""How much of a recent day has arrived: what is still to come is estimated from how late earlier days came in.

A day is seen only as far as it is old: later arrivals are not censored, they are not there yet (right truncation). So
the share F(a) that arrives within a days is the product, over later delays k > a, of the share of what had arrived by
delay k that had arrived before it, among days that are at least k old. It is the Kaplan-Meier estimator in reversed
time; actuaries know it as the chain ladder. Its variance is Greenwood's, taken on the scale log(-log) so that the
interval stays between 0 and 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from attributary.attribution_core.domain.confidence import NORMAL_QUANTILE

MIN_DAYS = 14
MIN_ARRIVED = 50.0


@dataclass(frozen=True, slots=True)
class Arrived:
    """Share of a day's final count that has arrived, with its 90 % interval; None: it cannot be told."""

    share: float | None
    low: float | None
    high: float | None


def arrived_by_age(arrivals: Iterable[tuple[int, int, float]], max_age: int) -> Mapping[int, Arrived]:
    """Return the arrived share by age in days, 0 to `max_age`.

    Args:
        arrivals: age of the day (days since it, as of the newest complete day), delay of an arrival in days, weight.
            What came after the newest complete day is left out, and so are days older than `max_age`.
        max_age: days that are so old or younger are looked at.
    """
    of_day: dict[int, dict[int, float]] = {}
    for age, delay, weight in arrivals:
        if 0 <= age <= max_age and delay <= age:
            delays = of_day.setdefault(age, {})
            delays[max(delay, 0)] = delays.get(max(delay, 0), 0.0) + weight
    whole = sum(sum(delays.values()) for delays in of_day.values())
    if len(of_day) < MIN_DAYS or whole < MIN_ARRIVED:
        return {age: Arrived(None, None, None) for age in range(max_age + 1)}
    share, variance = 1.0, 0.0
    found = {max_age: Arrived(1.0, 1.0, 1.0)}
    for delay in range(max_age, 0, -1):
        at = sum(delays.get(delay, 0.0) for age, delays in of_day.items() if age >= delay)
        by = sum(sum(w for k, w in delays.items() if k <= delay) for age, delays in of_day.items() if age >= delay)
        if at > 0 and by > at:
            variance += at / (by * (by - at))
        elif at > 0:  # nothing had arrived before: what came earlier than this delay cannot be told
            return found | {age: Arrived(None, None, None) for age in range(delay)}
        share *= 1.0 - at / by if by > 0 else 1.0
        found[delay - 1] = _with_interval(share, variance)
    return found


def _with_interval(share: float, variance: float) -> Arrived:
    if not 0.0 < share < 1.0:
        return Arrived(share, share, share)
    error = NORMAL_QUANTILE * math.sqrt(variance) / abs(math.log(share))
    return Arrived(share, share ** math.exp(error), share ** math.exp(-error))
