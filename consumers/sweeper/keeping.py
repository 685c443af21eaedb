"""How long versions of results are kept: a few conversions a turn, round and round.

Invariant: what ``store.versions`` says: the newest version of a conversion never goes, nor its newest final one.
"""

import time

from pydantic import Field

from attributary.consumers.outages import outside_errors
from attributary.consumers.runtime.settings import Settings
from attributary.consumers.store.session import StoreSession
from attributary.consumers.store.versions import expire_versions

_CONVERSIONS = 2_000  # a turn takes milliseconds, and locks nothing that a stage waits for
_SECONDS_A_DAY = 86_400
_FIRST = ("", "")


class KeepingSettings(Settings):
    """How long versions are kept."""

    versions_kept_days: float | None = Field(
        default=None,
        gt=0,
        alias="ATTRIBUTION_VERSIONS_KEPT_DAYS",
        description="For how long what was reported on a day can be asked for: versions of results that others "
        "replaced longer ago are deleted, never the newest, never the newest final one; days. Default: all are kept.",
    )


class VersionKeeper:
    """Deletes versions that nobody may ask for any more.

    Args:
        settings: how long they are kept.
        session: Postgres.
    """

    def __init__(self, settings: KeepingSettings, session: StoreSession) -> None:
        self._days = settings.versions_kept_days
        self._session = session
        self._after = _FIRST
        self._rest_until = 0.0  # monotonic seconds

    def turn(self) -> int:
        """Look at the next conversions; return how many versions were deleted.

        Raises:
            Retry: Postgres is away.
        """
        if self._days is None or time.monotonic() < self._rest_until:
            return 0
        before_us = int((time.time() - self._days * _SECONDS_A_DAY) * 1e6)
        with outside_errors(), self._session.transaction() as connection:
            deleted, last = expire_versions(connection, before_us, self._after, _CONVERSIONS)
        if last is None:  # a round is done; within a day few versions come of age
            self._rest_until = time.monotonic() + min(self._days, 1.0) * _SECONDS_A_DAY / 24
        self._after = last or _FIRST
        return deleted
