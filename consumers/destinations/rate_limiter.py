"""How fast a channel may be used, and whether at all: what answers have taught about it.

Invariants: shared by the threads of a destination, so every change is under a lock; a channel that is blocked answers
so without a request; a dead channel is tried again once a minute, with whatever batch comes first.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from attributary.consumers.destinations.destination import Answer, Verdict

STOP_AT_PERCENT = 95.0  # of the destination's own limit: beyond it the next request may be refused
SLOW_FROM_PERCENT = 75.0
_SLOWEST_SECONDS = 2.0  # pause between requests just below the stop
_COOL_DOWN_SECONDS = 60.0  # when the usage is high and the destination names no time
_DEAD_RECHECK_SECONDS = 60.0
_LONGEST_HOLD_SECONDS = 60.0  # between two looks at a destination that is away


class Block(NamedTuple):
    """Why nothing may be sent now, and for how many seconds; `dead` asks for a person."""

    reason: str
    seconds: float
    dead: bool


class Pace:
    """The state of one channel."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._resume_at = 0.0
        self._reason = ""
        self._dead = False
        self._usage: float | None = None
        self._failures = 0

    @property
    def is_dead(self) -> bool:
        """Tell whether the last word was that a person must act."""
        return self._dead

    def block(self, now: float) -> Block | None:
        """Give why nothing may be sent at this monotonic second, None when it may."""
        with self._lock:
            if now >= self._resume_at:
                return None
            return Block(self._reason, self._resume_at - now, self._dead)

    def delay(self) -> float:
        """Give the seconds to wait before the next request, by the usage that the last answer told."""
        usage = self._usage
        if usage is None or usage < SLOW_FROM_PERCENT:
            return 0.0
        share = (usage - SLOW_FROM_PERCENT) / (STOP_AT_PERCENT - SLOW_FROM_PERCENT)
        return min(share, 1.0) * _SLOWEST_SECONDS

    def note(self, answer: Answer, now: float) -> None:
        """Learn from an answer."""
        with self._lock:
            self._usage = answer.usage_percent
            if answer.verdict is Verdict.CHANNEL_DEAD:
                self._set(now + _DEAD_RECHECK_SECONDS, answer.reason, dead=True)
            elif answer.verdict is Verdict.THROTTLED:
                self._set(now + max(answer.wait_seconds, 1.0), answer.reason, dead=False)
            elif answer.usage_percent is not None and answer.usage_percent >= STOP_AT_PERCENT:
                wait = answer.wait_seconds or _COOL_DOWN_SECONDS
                self._set(now + wait, "the rate limit is nearly used up", dead=False)
            elif answer.verdict is Verdict.DELIVERED:
                self._dead = False
                self._failures = 0
                if answer.wait_seconds:
                    self._set(now + answer.wait_seconds, "the destination asked to wait", dead=False)

    def give_up(self, answer: Answer, now: float, first_hold: float) -> None:
        """Block the channel after the last try of a request; longer each time, until something is delivered."""
        with self._lock:
            wait = min(_LONGEST_HOLD_SECONDS, first_hold * 2 ** min(self._failures, 10))
            self._failures += 1
            self._set(now + max(wait, answer.wait_seconds), answer.reason, dead=False)

    def hold(self, reason: str, until: float, *, dead: bool = False) -> None:
        """Block the channel for a reason found by the caller."""
        with self._lock:
            self._set(until, reason, dead=dead)

    def _set(self, until: float, reason: str, *, dead: bool) -> None:
        if until >= self._resume_at:
            self._resume_at, self._reason = until, reason
        self._dead = dead
