"""The state of an account: its rate limit, the hold on it while nothing may be sent, and whether its rejections count.

Invariants: shared by the threads of a destination, so every change is under a lock; an account on hold answers
so without a request; a stopped account is tried again once a minute, with the batch that comes first.

A destination that rejects an event blames the event. With wrong settings (a secret, a data set) it rejects every event
in the same words. So a rejection counts only beside a delivery: within the last minute, or not many rejections ago. An
account that has delivered nothing yet has no rejection that counts.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from attributary.consumers.destinations.destination import DeliveryResponse, ResponseClass
from attributary.consumers.destinations.name_stops import NameStops

if TYPE_CHECKING:
    from attributary.consumers.destinations.request_budget import RequestBudget

STOP_AT_PERCENT = 95.0  # of the destination's own limit: beyond it the next request may be refused
SLOW_FROM_PERCENT = 75.0
_PAUSE_SECONDS_MAX = 2.0  # pause between requests just below the stop
_COOL_DOWN_SECONDS = 60.0  # when the usage is high and the destination names no time
_STOPPED_RECHECK_SECONDS = 60.0
_HOLD_SECONDS_MAX = 60.0  # between two looks at a destination that is away
_PROOF_SECONDS = 60.0  # so long after a delivery every rejection counts
_MAX_REJECTED = 19  # and so many, after any delivery
_MAX_REJECTED_UNTRIED = 2  # before the first delivery: then other events are tried
_MIN_SAMPLES, _MAX_SAMPLES = 4, 64


class Hold(NamedTuple):
    """Why nothing may be sent now, and for how many seconds; `stopped`: until a person acts."""

    reason: str
    seconds: float
    stopped: bool


class RateLimiter:
    """The state of one account.

    Args:
        unproven: how many rejections count of an account that has delivered nothing yet.
        budget: of the requests that the account shares with others; None: it has its own.
    """

    def __init__(self, unproven: int = 0, budget: RequestBudget | None = None) -> None:
        self._unproven = unproven
        self.budget = budget
        self._lock = threading.Lock()
        self._resume_at = 0.0
        self._reason = ""
        self._stopped = False
        self._usage: float | None = None
        self._failures = 0
        self._delivered_at: float | None = None
        self._rejected = 0  # events since the last delivery
        self._refusals = 0  # times that nothing but rejections was found, since the last delivery
        self.seconds = 0.0
        """How long the account's part of a turn took last."""
        self.name_stops = NameStops()
        """Its event names that the destination refuses."""

    @property
    def is_stopped(self) -> bool:
        """Return whether the destination will take nothing until a person acts."""
        return self._stopped or self._refusals > 0

    @property
    def samples(self) -> int:
        """Return how many other events are tried before everything waits; more each time."""
        return min(_MAX_SAMPLES, _MIN_SAMPLES << min(self._refusals, 8))

    def reject(self) -> None:
        """Note that one event was rejected alone."""
        with self._lock:
            self._rejected += 1

    def is_in_doubt(self, now: float) -> bool:
        """Return whether other events must be tried before the account's rejections are looked into any further."""
        with self._lock:
            untried = max(_MAX_REJECTED_UNTRIED, self._unproven)
            most = untried if self._delivered_at is None else _MAX_REJECTED
            return not self._is_proven(now) and self._rejected > most

    def rejections_count(self, now: float) -> bool:
        """Return whether what was rejected is wrong for good, and not the account's settings."""
        with self._lock:
            most = self._unproven if self._delivered_at is None else _MAX_REJECTED
            return self._is_proven(now) or self._rejected <= most

    def refuse(self) -> None:
        """Note that the destination refuses everything."""
        with self._lock:
            self._refusals += 1

    def _is_proven(self, now: float) -> bool:
        return self._delivered_at is not None and now - self._delivered_at <= _PROOF_SECONDS

    def hold_at(self, now: float) -> Hold | None:
        """Return why nothing may be sent at this monotonic second, None when it may."""
        shared = self.budget.hold_at(now) if self.budget else None
        with self._lock:
            left = self._resume_at - now
            if shared and shared[1] > left:
                return Hold(*shared, stopped=False)
            return Hold(self._reason, left, self._stopped) if left > 0 else None

    def pause_seconds(self) -> float:
        """Return the pause before the next request, by the usage in the last answer."""
        usage = self._usage
        if usage is None or usage < SLOW_FROM_PERCENT:
            return 0.0
        share = (usage - SLOW_FROM_PERCENT) / (STOP_AT_PERCENT - SLOW_FROM_PERCENT)
        return min(share, 1.0) * _PAUSE_SECONDS_MAX

    def observe(self, answer: DeliveryResponse, now: float) -> None:
        """Take in an answer: usage, requested waits, refusals."""
        if self.budget is not None and answer.response_class is ResponseClass.DELIVERED:
            self.budget.delivered()
        if self.budget is not None and answer.response_class is ResponseClass.THROTTLED:
            self.budget.throttled(now, max(answer.wait_seconds, 1.0), answer.reason)
            return
        with self._lock:
            self._usage = answer.usage_percent
            if answer.response_class is ResponseClass.DELIVERED:
                self._delivered_at, self._rejected, self._refusals = now, 0, 0
            if answer.response_class is ResponseClass.ACCOUNT_STOPPED:
                self._set(now + _STOPPED_RECHECK_SECONDS, answer.reason, stopped=True)
            elif answer.response_class is ResponseClass.THROTTLED:
                self._set(now + max(answer.wait_seconds, 1.0), answer.reason, stopped=False)
            elif answer.usage_percent is not None and answer.usage_percent >= STOP_AT_PERCENT:
                wait = answer.wait_seconds or _COOL_DOWN_SECONDS
                self._set(now + wait, "the rate limit is nearly used up", stopped=False)
            elif answer.response_class in {ResponseClass.DELIVERED, ResponseClass.NAME_STOPPED}:
                self._stopped = False
                self._failures = 0
                # Beside a name that was refused the wait is that name's.
                is_of_name = answer.response_class is ResponseClass.NAME_STOPPED or answer.unknown_names
                if answer.wait_seconds and not is_of_name:
                    self._set(now + answer.wait_seconds, "the destination asked to wait", stopped=False)

    def back_off(self, answer: DeliveryResponse, now: float, first_hold: float) -> None:
        """Hold the account after the last try of a request; longer each time, until something is delivered."""
        with self._lock:
            wait = min(_HOLD_SECONDS_MAX, first_hold * 2 ** min(self._failures, 10))
            self._failures += 1
            self._set(now + max(wait, answer.wait_seconds), answer.reason, stopped=False)

    def _set(self, until: float, reason: str, *, stopped: bool) -> None:
        if until >= self._resume_at:
            self._resume_at, self._reason = until, reason
        self._stopped = stopped
