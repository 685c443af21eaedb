"""Ad accounts with spend that stopped coming, counted by the sweeper.

Contract: an account counts while it is in use, that is imported within the last ATTRIBUTION_SPEND_USED_DAYS. It is
stale when its newest day is older than ATTRIBUTION_SPEND_STALE_DAYS. The metric names no account: `attributary spend
accounts` does.
"""

from __future__ import annotations

import time

from pydantic import Field

from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.runtime.settings import Settings
from attributary.consumers.store.session import StoreSession
from attributary.consumers.store.spend.slices import stale_accounts

from . import metrics

_LEAST_SECONDS = 600.0


class SpendAgeSettings(Settings):
    """From when on spend is stale."""

    stale_days: int = Field(
        default=3,
        ge=0,
        alias="ATTRIBUTION_SPEND_STALE_DAYS",
        description="An ad account without spend of the last so many days (UTC) is stale. 0: not looked at.",
    )
    used_days: int = Field(
        default=30,
        ge=1,
        alias="ATTRIBUTION_SPEND_USED_DAYS",
        description="An ad account without an import for so many days is given up: it is not stale any more.",
    )


class SpendMonitor:
    """Sets the gauge of stale accounts.

    Args:
        limits: from when on.
        session: Postgres.
        least_seconds: least time between two looks, seconds.
    """

    def __init__(self, limits: SpendAgeSettings, session: StoreSession, least_seconds: float = _LEAST_SECONDS) -> None:
        self._limits = limits
        self._session = session
        self._least = least_seconds
        self._rest_until = 0.0  # monotonic seconds

    def turn(self) -> None:
        """Look if it is time.

        Raises:
            Retry: Postgres is away.
        """
        if not self._limits.stale_days or time.monotonic() < self._rest_until:
            return
        with map_errors(), self._session.transaction() as connection:
            number = stale_accounts(connection, self._limits.used_days, self._limits.stale_days)
        metrics.stale_spend_accounts.set(number)
        self._rest_until = time.monotonic() + self._least
