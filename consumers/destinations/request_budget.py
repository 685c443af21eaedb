"""Requests that accounts may make together: a platform counts those of an app, a project or a developer.

Contract: `take` says how long to wait before the next request, and counts it when that is 0. Invariants: shared by the
threads of a destination, so every change is under a lock; in no stretch of time as long as a window are more requests
taken than the share of its limit; a window of a day is the day in UTC, as platforms count; a rate limit that one
account meets holds all accounts of the budget, and no other.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from attributary.consumers.destinations.destination import Account

MINUTE, DAY = 60, 86_400  # seconds
_MAX_THROTTLE_SECONDS = 3_600.0


class RateLimit(NamedTuple):
    """So many requests in so many seconds."""

    requests: int
    seconds: int

    def __str__(self) -> str:
        span = {1: "second", MINUTE: "minute", DAY: "day"}.get(self.seconds, f"{self.seconds} seconds")
        return f"{self.requests:,} a {span}" if self.seconds in {1, MINUTE, DAY} else f"{self.requests:,} in {span}"


class RateBudget(NamedTuple):
    """Whose requests a platform counts together.

    Attributes:
        key: the same for all accounts that share it; holds no secret.
        title: for people, such as "Cloud project shop-1".
        limits: what the platform takes; empty: it does not say, and only its refusals are shared.
    """

    key: str
    title: str
    limits: tuple[RateLimit, ...] = ()

    @property
    def said(self) -> str:
        """The limits for people."""
        return " and ".join(map(str, self.limits)) or "not documented"


@runtime_checkable
class SharesBudget(Protocol):
    """A destination that counts the requests of several accounts together."""

    def budget(self, account: Account) -> RateBudget | None:
        """Return what an account's requests are counted with; None: by themselves. Pure."""
        ...


class RequestBudget:
    """What is left of a budget.

    Args:
        budget: the account, app or project it belongs to, and its size.
        share: part of each limit that this process may use, above 0 and at most 1.
    """

    def __init__(self, budget: RateBudget, share: float) -> None:
        self.budget = budget
        self._lock = threading.Lock()
        self._windows = [(limit, max(1, int(limit.requests * share))) for limit in budget.limits]
        self._sent: dict[RateLimit, deque[float]] = {limit: deque() for limit in budget.limits if limit.seconds != DAY}
        self._day, self._of_day = -1, 0
        self._resume_at, self._reason = 0.0, ""
        self._throttled = 0  # refusals since the last delivery

    def hold_at(self, now: float) -> tuple[str, float] | None:
        """Return why no account may send at this monotonic second and for how many seconds, None when they may."""
        with self._lock:
            return (self._reason, self._resume_at - now) if now < self._resume_at else None

    def take(self, now: float, now_micros: int) -> float:
        """Count a request, or return for how many seconds there is none.

        Args:
            now: monotonic seconds.
            now_micros: microseconds since 1970-01-01 UTC.
        """
        with self._lock:
            self._tidy(now, now_micros)
            wait = max((self._wait(limit, most, now, now_micros) for limit, most in self._windows), default=0.0)
            if wait <= 0:
                self._count(now)
                return 0.0
        return wait

    def hold(self, now: float, seconds: float) -> str:
        """Hold all accounts, because the budget is used up; returns why, for people."""
        with self._lock:
            self._set(now + seconds, f"the rate limit of {self.budget.title} is used up: {self.budget.said}")
            return self._reason

    def throttled(self, now: float, seconds: float, reason: str) -> None:
        """Hold all accounts after a refusal by one of them; longer each time, until something is delivered."""
        with self._lock:
            wait = max(seconds, min(seconds * 2 ** min(self._throttled, 10), _MAX_THROTTLE_SECONDS))
            if now >= self._resume_at:  # requests of several threads meet one and the same limit
                self._throttled += 1
            else:
                wait = seconds
            self._set(now + wait, f"{reason} ({self.budget.title})")

    def delivered(self) -> None:
        """Note that the platform takes requests again."""
        self._throttled = 0

    def used_percent(self, now: float) -> float:
        """Return how much of the fullest window is used, of what this process may."""
        with self._lock:
            shares = [self._used(limit, now) / most for limit, most in self._windows]
        return 100.0 * max(shares, default=0.0)

    def _used(self, limit: RateLimit, now: float) -> int:
        return self._of_day if limit.seconds == DAY else sum(at > now - limit.seconds for at in self._sent[limit])

    def _set(self, until: float, reason: str) -> None:
        if until >= self._resume_at:
            self._resume_at, self._reason = until, reason

    def _tidy(self, now: float, now_micros: int) -> None:
        for limit, sent in self._sent.items():
            while sent and sent[0] <= now - limit.seconds:
                sent.popleft()
        if (day := now_micros // (DAY * 1_000_000)) != self._day:
            self._day, self._of_day = day, 0

    def _wait(self, limit: RateLimit, most: int, now: float, now_micros: int) -> float:
        if limit.seconds == DAY:
            left = DAY - now_micros / 1e6 % DAY
            return left if self._of_day >= most else 0.0
        sent = self._sent[limit]
        return sent[len(sent) - most] + limit.seconds - now if len(sent) >= most else 0.0

    def _count(self, now: float) -> None:
        self._of_day += 1
        for sent in self._sent.values():
            sent.append(now)
