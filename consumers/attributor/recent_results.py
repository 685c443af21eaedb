"""What this process has published lately: a command that asks for it again is not answered.

The sweeper asks again only for what has been through all stages and was not stored (sweeper/unread.py), but a stitcher
that died between Postgres and Kafka issues its commands a second time, and the sweeper may have asked in between.
Invariants: only what was committed is remembered (a batch that is given up makes the loop rewind, which clears the
memory); and nothing is remembered for long, so that a result that a torn transaction lost is published after all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic

from attributary.consumers.store.events.attribution_inputs import PendingConversion

# A torn transaction heals after so long. Longer than it takes to replace a member that died (KAFKA_SESSION_TIMEOUT_MS)
# and to replay its batch.
REMEMBERED_SECONDS = 90.0
_MOST = 500_000


class RecentResults:
    """Versions by conversion, with when they were published.

    Args:
        clock: seconds, only ever rising.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._published: dict[tuple[str, str], tuple[int, int, float]] = {}

    def remember(self, conversions: Iterable[PendingConversion]) -> None:
        """Note versions that are about to be committed."""
        now = self._clock()
        for conversion in conversions:
            key = (conversion.tenant_id, conversion.conversion_id)
            self._published.pop(key, None)  # the newest stand last
            self._published[key] = (conversion.version, conversion.raised_at, now)
        while self._published:
            oldest = next(iter(self._published))
            if len(self._published) <= _MOST and now - self._published[oldest][2] <= REMEMBERED_SECONDS:
                break
            del self._published[oldest]

    def has(self, conversion: PendingConversion) -> bool:
        """Tell whether this very version was published lately."""
        found = self._published.get((conversion.tenant_id, conversion.conversion_id))
        return (
            found is not None
            and found[:2] == (conversion.version, conversion.raised_at)
            and self._clock() - found[2] <= REMEMBERED_SECONDS
        )

    def clear(self) -> None:
        """Forget everything: what was published last may not have been committed, or partitions have moved."""
        self._published.clear()
