"""The idle task of the worker: between jobs it brings the incremental state of every tenant up to date.

Invariant: a call does one bounded step, so a job waits for one step at most. A lock lets one trainer at a time do it;
the others go on with their jobs. A state that contradicts its contributions is rebuilt from the store. A tenant with
people that cannot be read, or with values beyond 64 bits, is skipped until the next round; it delays no other tenant
and no job.

The upkeep works a hundredth of the time at most: after a round it rests as long as it says, but a hundred times as long
as the round took, up to ten minutes. A person who changes often while much happens is then read once and not at every
change; a training brings the state up to date before it reads it, however old it is.
"""

from __future__ import annotations

import time

import psycopg
import structlog

from attributary.attribution_core.domain.limits import LimitError
from attributary.attribution_core.statistics.state import StateError
from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.store.models.changed_people import next_tenant_with_changes
from attributary.consumers.store.models.incremental_state import state_lock
from attributary.consumers.store.session import StoreSession
from attributary.consumers.training.incremental_state import (
    STEP_PEOPLE,
    Step,
    fresh_snapshot,
    snapshot,
    start_anew,
    step,
)
from attributary.consumers.training.journeys import UnknownPolicyError

from . import metrics

_log = structlog.get_logger()

_REST = 100.0  # times the work of a round
_LONGEST_REST_SECONDS = 600.0  # the alert on a state that is behind waits for an hour


class StateUpdater:
    """Updates the incremental states, one step a call.

    Args:
        session: a connection for this task alone.
        inactivity_micros: silence that ends a journey without conversion, microseconds.
        interval_seconds: time between two searches for new events; 0: never.
        step_people: changed people a step.
        rest: after a round, times the seconds that it worked; the interval at least, ten minutes at most.
    """

    def __init__(
        self,
        session: StoreSession,
        inactivity_micros: int,
        interval_seconds: float,
        step_people: int = STEP_PEOPLE,
        rest: float = _REST,
    ) -> None:
        self._session = session
        self._inactivity = inactivity_micros
        self._interval_seconds = interval_seconds
        self._step_people = step_people
        self._rest = rest
        self._worked_seconds = 0.0  # in this round
        self._next = 0.0  # monotonic seconds
        self._tenant = ""  # the tenant of the last step
        self._is_working = False

    def __call__(self) -> bool:
        """Do one step if it is time. Return whether another step waits.

        Raises:
            Retry: Postgres is away.
        """
        if self._interval_seconds <= 0 or (not self._is_working and time.monotonic() < self._next):
            return False
        began = time.monotonic()
        try:
            self._is_working = self._step()
        finally:
            self._worked_seconds += time.monotonic() - began
        if not self._is_working:
            rest = min(self._rest * self._worked_seconds, _LONGEST_REST_SECONDS)
            self._next = time.monotonic() + max(self._interval_seconds, rest)
            self._worked_seconds = 0.0
        return self._is_working

    def _step(self) -> bool:
        """Look for changed people, or bring some up to date. Return whether another step waits."""
        with map_errors(), self._session.plain() as connection, state_lock(connection, wait=False) as is_held:
            if not is_held:
                return False
            if not self._is_working:
                with fresh_snapshot(connection) as found:
                    metrics.training_changes_found.inc(found)
                return True
            with snapshot(connection):
                tenant = next_tenant_with_changes(connection, self._tenant)
            return tenant is not None and self._worked(connection, tenant)

    def _worked(self, connection: psycopg.Connection, tenant: str) -> bool:
        """Do a step of a tenant. Return whether to go on."""
        self._tenant = tenant
        try:
            with snapshot(connection):
                done = step(connection, tenant, self._inactivity, limit=self._step_people)
        except LimitError as error:  # a rebuilt state would come to the same sums
            _log.warning("incremental state skipped until the next round", tenant=tenant, why=str(error))
            return False
        except StateError as error:
            _log.exception("incremental state is rebuilt", tenant=tenant, why=str(error))
            with snapshot(connection):
                start_anew(connection, tenant, self._inactivity)
            done = Step(0, 0)
        except UnknownPolicyError as error:
            _log.warning("incremental state skipped until the next round", tenant=tenant, why=str(error))
            return False
        metrics.training_people.labels("replaced").inc(done.replaced)
        metrics.training_people.labels("unchanged").inc(done.changes - done.replaced)
        return True

    def close(self) -> None:
        """Close the connection."""
        self._session.close()
