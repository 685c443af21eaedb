"""The rate limit of an account, and the hold on it while nothing may be sent.

Invariants: shared by the threads of a destination, so every change is under a lock; an account on hold answers
so without a request; a stopped account is tried again once a minute, with the batch that comes first.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from attributary.consumers.destinations.destination import DeliveryResponse, ResponseClass

STOP_AT_PERCENT = 95.0  # of the destination's own limit: beyond it the next request may be refused
SLOW_FROM_PERCENT = 75.0
_PAUSE_SECONDS_MAX = 2.0  # pause between requests just below the stop
_COOL_DOWN_SECONDS = 60.0  # when the usage is high and the destination names no time
_STOPPED_RECHECK_SECONDS = 60.0
_HOLD_SECONDS_MAX = 60.0  # between two looks at a destination that is away


class Hold(NamedTuple):
    """Why nothing may be sent now, and for how many seconds; `stopped`: until a person acts."""

    reason: str
    seconds: float
    stopped: bool


class RateLimiter:
    """The state of one account."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._resume_at = 0.0
        self._reason = ""
        self._stopped = False
        self._usage: float | None = None
        self._failures = 0

    @property
    def is_stopped(self) -> bool:
        """Return whether the destination will take nothing until a person acts."""
        return self._stopped

    def hold_at(self, now: float) -> Hold | None:
        """Return why nothing may be sent at this monotonic second, None when it may."""
        with self._lock:
            if now >= self._resume_at:
                return None
            return Hold(self._reason, self._resume_at - now, self._stopped)

    def pause_seconds(self) -> float:
        """Return the pause before the next request, by the usage in the last answer."""
        usage = self._usage
        if usage is None or usage < SLOW_FROM_PERCENT:
            return 0.0
        share = (usage - SLOW_FROM_PERCENT) / (STOP_AT_PERCENT - SLOW_FROM_PERCENT)
        return min(share, 1.0) * _PAUSE_SECONDS_MAX

    def observe(self, answer: DeliveryResponse, now: float) -> None:
        """Take in an answer: usage, requested waits, refusals."""
        with self._lock:
            self._usage = answer.usage_percent
            if answer.response_class is ResponseClass.ACCOUNT_STOPPED:
                self._set(now + _STOPPED_RECHECK_SECONDS, answer.reason, stopped=True)
            elif answer.response_class is ResponseClass.THROTTLED:
                self._set(now + max(answer.wait_seconds, 1.0), answer.reason, stopped=False)
            elif answer.usage_percent is not None and answer.usage_percent >= STOP_AT_PERCENT:
                wait = answer.wait_seconds or _COOL_DOWN_SECONDS
                self._set(now + wait, "the rate limit is nearly used up", stopped=False)
            elif answer.response_class is ResponseClass.DELIVERED:
                self._stopped = False
                self._failures = 0
                if answer.wait_seconds:
                    self._set(now + answer.wait_seconds, "the destination asked to wait", stopped=False)

    def back_off(self, answer: DeliveryResponse, now: float, first_hold: float) -> None:
        """Hold the account after the last try of a request; longer each time, until something is delivered."""
        with self._lock:
            wait = min(_HOLD_SECONDS_MAX, first_hold * 2 ** min(self._failures, 10))
            self._failures += 1
            self._set(now + max(wait, answer.wait_seconds), answer.reason, stopped=False)

    def stop(self, reason: str, until: float, *, stopped: bool = False) -> None:
        """Hold the account for a reason found by the caller."""
        with self._lock:
            self._set(until, reason, stopped=stopped)

    def _set(self, until: float, reason: str, *, stopped: bool) -> None:
        if until >= self._resume_at:
            self._resume_at, self._reason = until, reason
        self._stopped = stopped
