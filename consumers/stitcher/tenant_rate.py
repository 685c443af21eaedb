"""How much of a tenant the express lane takes: a token bucket by log time, for each tenant and partition.

Pure. Invariant: of a tenant, at most ``rate * seconds + burst`` records of a partition pass that were appended within
that many seconds, however fast they are read. So what passes of a tenant depends on what it published alone, never on
the others, and a backlog of an hour is worth an hour.
"""

from __future__ import annotations

BURST_SECONDS = 30.0
_MAX_BUCKETS = 200_000  # of tenants and partitions: some 40 MB

Bucket = tuple[str, int, bytes]


class TenantRate:
    """Counts the records of tenants.

    Args:
        rate: records a second of log time.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._burst = max(1.0, rate * BURST_SECONDS)
        self._buckets: dict[Bucket, tuple[float, int]] = {}

    def take(self, bucket: Bucket, timestamp_ms: int) -> bool:
        """Tell whether a record passes.

        Args:
            bucket: topic, partition and tenant.
            timestamp_ms: its log-append time, milliseconds since 1970-01-01 UTC.
        """
        tokens, last_ms = self._buckets.get(bucket, (self._burst, timestamp_ms))
        tokens = min(self._burst, tokens + max(0, timestamp_ms - last_ms) * self._rate / 1_000)
        passes = tokens >= 1.0
        if bucket not in self._buckets and len(self._buckets) >= _MAX_BUCKETS:
            self._buckets.pop(next(iter(self._buckets)))
        self._buckets[bucket] = (tokens - 1.0 if passes else tokens, max(last_ms, timestamp_ms))
        return passes
