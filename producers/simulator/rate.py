"""Events at a rate: what live publishing needs.

Invariant: event number n is handed out no earlier than n / rate seconds after the first; a consumer that falls behind
catches up at once, so the mean rate holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

_Item = TypeVar("_Item")

# Sleeping for less than this costs more than it gains: the events of a tick are handed out together.
_TICK_SECONDS = 0.002


def pace(
    events: Iterable[_Item],
    per_second: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[_Item]:
    """Yield the events at a rate.

    Args:
        events: what to hand out.
        per_second: events a second; 0 means as fast as they are taken.
        clock: seconds that only rise.
        sleep: waits so many seconds.
    """
    if per_second <= 0:
        yield from events
        return
    started = clock()
    for number, event in enumerate(events):
        ahead = started + number / per_second - clock()
        if ahead > _TICK_SECONDS:
            sleep(ahead)
        yield event
