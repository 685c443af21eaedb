"""Token buckets in bounded memory: so many requests a second, with a burst of a few seconds' worth.

Invariant: ``TokenBuckets`` holds at most ``max_buckets`` names; the one that was not asked for longest is forgotten,
which gives it a full bucket when it comes again. The buckets are this process's own: N processes allow N times as much.
"""

from __future__ import annotations

from collections import OrderedDict

BURST_SECONDS = 5.0


class TokenBuckets:
    """One bucket a name.

    Args:
        per_second: tokens a second; 0 or less: no limit.
        max_buckets: most names held.
    """

    def __init__(self, per_second: float, max_buckets: int = 100_000) -> None:
        self._per_second = per_second
        self._max_buckets = max_buckets
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens left, and when

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, name: str, now: float, per_second: float | None = None) -> float:
        """Take one token; return 0.0, or after how many seconds there is one.

        Args:
            name: the bucket's.
            now: monotonic seconds.
            per_second: this bucket's allowance, if it is not the default.
        """
        rate = self._per_second if per_second is None else per_second
        if rate <= 0:
            return 0.0
        capacity = max(1.0, rate * BURST_SECONDS)
        tokens, before = self._buckets.pop(name, (capacity, now))
        tokens = min(capacity, tokens + max(0.0, now - before) * rate)
        wait = 0.0 if tokens >= 1.0 else (1.0 - tokens) / rate
        self._buckets[name] = (tokens - 1.0 if not wait else tokens, max(now, before))
        if len(self._buckets) > self._max_buckets:
            self._buckets.popitem(last=False)
        return wait
