"""How long versions of results and jobs that ended are kept: a few a turn, round and round.

Invariant: what ``store.versions`` says: the newest version of a conversion never goes, nor its newest final one. Jobs
are kept for longer than their topic keeps records, so that no replay does one again.
"""

from __future__ import annotations

import time

from pydantic import Field

from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.runtime.settings import Settings
from attributary.consumers.store.jobs.job_views import expire_jobs
from attributary.consumers.store.results.versions import expire_versions
from attributary.consumers.store.session import StoreSession
from attributary.consumers.store.tenants import versions_kept_days

_CONVERSIONS = 2_000  # a turn takes milliseconds, and locks nothing that a stage waits for
_JOBS = 200  # results may be large
_JOBS_TOPIC_DAYS = 30  # retention of attribution.jobs.v1 in the catalogue of topics
_ROUND_SECONDS = 3_600.0  # finding jobs to delete reads all of them
_SECONDS_A_DAY = 86_400
_FIRST = ("", "")


class RetentionSettings(Settings):
    """How long versions and jobs are kept."""

    versions_kept_days: float | None = Field(
        default=None,
        gt=0,
        alias="ATTRIBUTION_VERSIONS_KEPT_DAYS",
        description="For how long what was reported on a day can be asked for: versions of results that others "
        "replaced longer ago are deleted, never the newest, never the newest final one; days. Default: all are kept. "
        "A tenant may have its own (`attributary tenants set --versions-days`).",
    )
    jobs_kept_days: float | None = Field(
        default=90.0,
        gt=_JOBS_TOPIC_DAYS,
        alias="ATTRIBUTION_JOBS_KEPT_DAYS",
        description="Jobs and their results are deleted from Postgres so long after their end; days, more than the "
        f"{_JOBS_TOPIC_DAYS} for which their topic keeps records.",
    )


class VersionRetention:
    """Deletes versions that nobody may ask for any more.

    Args:
        settings: how long they are kept.
        session: Postgres.
    """

    def __init__(self, settings: RetentionSettings, session: StoreSession) -> None:
        self._days = settings.versions_kept_days
        self._session = session
        self._after = _FIRST
        self._rest_until = 0.0  # monotonic seconds

    def turn(self) -> int:
        """Look at the next conversions; return how many versions were deleted.

        Raises:
            Retry: Postgres is away.
        """
        if time.monotonic() < self._rest_until:
            return 0
        with map_errors(), self._session.transaction() as connection:
            own = {name: _before_us(days) for name, days in versions_kept_days(connection).items()}
            deleted, last = 0, None
            if own or self._days is not None:
                before = None if self._days is None else _before_us(self._days)
                deleted, last = expire_versions(connection, before, self._after, _CONVERSIONS, own)
        if last is None:  # a round is done; within a day few versions come of age
            self._rest_until = time.monotonic() + min(self._days or 1.0, 1.0) * _SECONDS_A_DAY / 24
        self._after = last or _FIRST
        return deleted


def _before_us(days: float) -> int:
    return int((time.time() - days * _SECONDS_A_DAY) * 1e6)


class JobRetention:
    """Deletes jobs that ended long ago.

    Args:
        settings: how long they are kept.
        session: Postgres.
    """

    def __init__(self, settings: RetentionSettings, session: StoreSession) -> None:
        self._days = settings.jobs_kept_days
        self._session = session
        self._rest_until = 0.0  # monotonic seconds

    def turn(self) -> int:
        """Look at some; return how many were deleted.

        Raises:
            Retry: Postgres is away.
        """
        if self._days is None or time.monotonic() < self._rest_until:
            return 0
        with map_errors(), self._session.transaction() as connection:
            deleted = expire_jobs(connection, self._days * _SECONDS_A_DAY, _JOBS)
        if deleted < _JOBS:
            self._rest_until = time.monotonic() + _ROUND_SECONDS
        return deleted
