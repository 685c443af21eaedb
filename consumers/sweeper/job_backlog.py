"""What the trainers have before them, told by the sweeper: it always runs, and never waits for a job.

Invariant: a gauge says what Postgres holds, whatever process of the trainer is busy, off or new.
"""

from __future__ import annotations

import time

from attributary.attribution_core.domain.policy_parts import TRAINED_MODELS
from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.store.jobs.job_views import drifted, job_backlog
from attributary.consumers.store.models.changed_people import state_lag
from attributary.consumers.store.session import StoreSession

from . import metrics

# Counting the people who wait for the training state reads all their rows, so this may take a hundredth of the time.
_REST = 100


class JobBacklog:
    """Sets the gauges of waiting jobs, of the training state and of drift.

    Args:
        session: Postgres.
        least_seconds: least time between two looks, seconds.
    """

    def __init__(self, session: StoreSession, least_seconds: float = 5.0) -> None:
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
        with map_errors(), self._session.transaction() as connection:
            jobs = job_backlog(connection)
            changes, lag = state_lag(connection)
            drift = drifted(connection)
        metrics.waiting_jobs.set(jobs.waiting)
        metrics.oldest_waiting_job_seconds.set(jobs.oldest_waiting_seconds)
        metrics.running_jobs.set(jobs.running)
        metrics.oldest_running_job_seconds.set(jobs.oldest_running_seconds)
        metrics.training_changes_pending.set(changes)
        metrics.training_lag_seconds.set(lag)
        for model in TRAINED_MODELS:
            tenants, channels = drift.get(model, (0, 0))
            metrics.model_drift_tenants.labels(model).set(tenants)
            metrics.model_drift_channels.labels(model).set(channels)
        now = time.monotonic()
        self._rest_until = now + max(self._least, _REST * (now - started))
