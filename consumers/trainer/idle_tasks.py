"""What the worker does between jobs: it keeps the training state of every tenant up to date.

Invariant: a call does one bounded piece of work, so that a job never waits for more. Of several trainers one is at it
at a time; the others go on with their jobs. A state that does not fit its contributions is begun anew; a tenant whose
people cannot be read, or whose values do not fit into 64 bits, is left until the next round, and never keeps the others
or a job from being done.
"""

from __future__ import annotations

import time

import psycopg
import structlog

from attributary.attribution_core.domain.limits import LimitError
from attributary.attribution_core.statistics.state import StateError
from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.store.models.changed_people import next_tenant_with_changes
from attributary.consumers.store.models.incremental_state import turn
from attributary.consumers.store.session import StoreSession
from attributary.consumers.training.incremental_state import STEP_PEOPLE, Step, begin, looked, snapshot, step
from attributary.consumers.training.journeys import UnknownPolicyError

from . import metrics

_log = structlog.get_logger()


class Upkeep:
    """Keeps the training states up to date, a step a call.

    Args:
        session: a connection of its own.
        inactivity_micros: silence that ends a journey without conversion, microseconds.
        seconds: time between two looks for new events; 0: never.
        step_people: changes a step.
    """

    def __init__(
        self, session: StoreSession, inactivity_micros: int, seconds: float, step_people: int = STEP_PEOPLE
    ) -> None:
        self._session = session
        self._inactivity = inactivity_micros
        self._seconds = seconds
        self._step_people = step_people
        self._next = 0.0  # monotonic seconds
        self._tenant = ""  # the last one
        self._is_working = False

    def __call__(self) -> bool:
        """Do a piece of work if it is time; returns whether there is more to do at once.

        Raises:
            Retry: Postgres is away.
        """
        if self._seconds <= 0 or (not self._is_working and time.monotonic() < self._next):
            return False
        with map_errors(), self._session.plain() as connection, turn(connection, wait=False) as mine:
            if mine and not self._is_working:
                with looked(connection) as found:
                    metrics.training_changes_found.inc(found)
                self._is_working = True
            elif mine:
                with snapshot(connection):
                    tenant = next_tenant_with_changes(connection, self._tenant)
                self._is_working = tenant is not None and self._worked(connection, tenant)
            else:
                self._is_working = False
        if not self._is_working:
            self._next = time.monotonic() + self._seconds
        return self._is_working

    def _worked(self, connection: psycopg.Connection, tenant: str) -> bool:
        """Take a step of a tenant; returns whether to go on."""
        self._tenant = tenant
        try:
            with snapshot(connection):
                done = step(connection, tenant, self._inactivity, limit=self._step_people)
        except LimitError as error:  # a state begun anew would come to the same sums
            _log.warning("training state put off", tenant=tenant, why=str(error))
            return False
        except StateError as error:
            _log.exception("training state begun anew", tenant=tenant, why=str(error))
            with snapshot(connection):
                begin(connection, tenant, self._inactivity)
            done = Step(0, 0)
        except UnknownPolicyError as error:
            _log.warning("training state put off", tenant=tenant, why=str(error))
            return False
        metrics.training_people.labels("replaced").inc(done.replaced)
        metrics.training_people.labels("unchanged").inc(done.changes - done.replaced)
        return True

    def close(self) -> None:
        """Close the connection."""
        self._session.close()
