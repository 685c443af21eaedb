"""Ids that collect more touchpoints or devices a day than a person does, counted by the sweeper.

Contract: today and yesterday (UTC, event time) are looked at. Counting reads all their rows, so it takes at most a
hundredth of the time, and no more often than each ten minutes. Metrics and logs name no id: `attributary identities
suspicious` does.
"""

from __future__ import annotations

import time

import structlog
from pydantic import Field

from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.runtime.settings import Settings
from attributary.consumers.store.events.suspicious_ids import MICROS_PER_DAY, RULES, suspicious_ids
from attributary.consumers.store.session import StoreSession

from . import metrics

_log = structlog.get_logger()

_REST = 100
_LEAST_SECONDS = 600.0
_DAYS = 2


class IdentityLimits(Settings):
    """From when on an id is suspicious."""

    touchpoints: int = Field(
        default=500,
        ge=0,
        alias="ATTRIBUTION_SUSPICIOUS_TOUCHPOINTS",
        description="More touchpoints of one id a day are suspicious; robots' do not count. 0: not looked at.",
    )
    anonymous_ids: int = Field(
        default=50,
        ge=0,
        alias="ATTRIBUTION_SUSPICIOUS_ANONYMOUS_IDS",
        description="More anonymous ids of one user a day are suspicious: a shared login, or a placeholder that no "
        "rule knows. 0: not looked at.",
    )

    def by_rule(self) -> dict[str, int]:
        """Return the limits by rule."""
        return {"touchpoints": self.touchpoints, "anonymous_ids": self.anonymous_ids}


class IdentityMonitor:
    """Sets the gauge of suspicious ids.

    Args:
        limits: from when on.
        session: Postgres.
        least_seconds: least time between two looks, seconds.
    """

    def __init__(self, limits: IdentityLimits, session: StoreSession, least_seconds: float = _LEAST_SECONDS) -> None:
        self._limits = limits.by_rule()
        self._session = session
        self._least = least_seconds
        self._rest_until = 0.0  # monotonic seconds

    def turn(self) -> None:
        """Look if it is time.

        Raises:
            Retry: Postgres is away.
        """
        started = time.monotonic()
        if started < self._rest_until:
            return
        today = time.time_ns() // 1_000 // MICROS_PER_DAY
        period = ((today + 1 - _DAYS) * MICROS_PER_DAY, (today + 1) * MICROS_PER_DAY)
        with map_errors(), self._session.transaction() as connection:
            found = suspicious_ids(connection, self._limits, period)
        for rule in RULES:
            number = sum(each.rule == rule for each in found)
            metrics.suspicious_identities.labels(rule).set(number)
            if number:
                _log.warning("suspicious ids", rule=rule, ids=number, see="attributary identities suspicious")
        now = time.monotonic()
        self._rest_until = now + max(self._least, _REST * (now - started))
