"""A trainer without a broker, and job handlers that a test holds: for tests of the worker."""

from __future__ import annotations

import threading
import time
from contextlib import closing, contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from attributary.consumers.runtime.records import Outcome, Record
from attributary.consumers.store.connection import connect
from attributary.consumers.store.jobs.job_views import JobRow, show_job
from attributary.consumers.store.jobs.jobs import FINISHED
from attributary.consumers.store.session import StoreSession
from attributary.consumers.trainer.job_handlers import JobHandlers
from attributary.consumers.trainer.job_statuses import StatusPublisher
from attributary.consumers.trainer.stage import TrainerStage
from attributary.consumers.trainer.worker import Worker, WorkerLimits, WorkerSessions
from attributary.producers.memory_transport import MemoryTransport
from attributary.schemas.codec import Codec
from attributary.schemas.topics import JOB_STATUS, JOBS
from tests.factories.training_events import NOW, POLICY

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from attributary.consumers.store.jobs.jobs import ClaimedJob
    from attributary.consumers.trainer import job_handlers as work
    from attributary.consumers.training.read_journeys import Progress

PATIENCE_SECONDS = 180.0
_offsets = count()


class Trainer:
    """A stage with its worker, and what it published."""

    def __init__(self, dsn: str, limits: WorkerLimits | None = None, handlers: JobHandlers | None = None) -> None:
        self.dsn = dsn
        self.transport = MemoryTransport()
        self.deaths: list[str] = []
        sessions = WorkerSessions(StoreSession(dsn, "tests-worker"), StoreSession(dsn, "tests-heartbeat"))
        publisher = StatusPublisher(sessions.heartbeats, Codec(), self.transport)
        chosen = handlers or JobHandlers(StoreSession(dsn, "tests-reader"), POLICY.inactivity_micros)
        quick = limits or WorkerLimits(poll_seconds=0.05, heartbeat_seconds=0.02)
        self.worker = Worker(sessions, chosen, publisher, quick, lambda: self.deaths.append("worker"))
        self.stage = TrainerStage(StoreSession(dsn, "tests-stage"), Codec(), self.worker, 1.0, PATIENCE_SECONDS)

    def submit(self, *jobs: dict[str, Any]) -> Outcome:
        return self.stage.handle([record(Codec().encode("job", job)) for job in jobs])

    def row(self, job_id: str) -> JobRow:
        with connect(self.dsn, application_name="tests") as connection:
            found = show_job(connection, "acme", job_id)
        assert found is not None
        return found

    def ended(self, job_id: str) -> JobRow:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (found := self.row(job_id)).state not in FINISHED:
            assert time.monotonic() < deadline, found
            time.sleep(0.02)
        return found

    def run(self, kind: str, **parameters: str) -> JobRow:
        name = f"{kind}-{next(_offsets)}"
        self.submit(job(name, kind, **parameters))
        return self.ended(name)

    def statuses(self, job_id: str) -> list[str]:
        codec = Codec()
        records = [codec.decode("job_status", m.value) for m in self.transport.messages if m.topic == JOB_STATUS]
        return [each["state"] for each in records if each["job_id"] == job_id]

    def status_arrives(self, job_id: str, state: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while state not in self.statuses(job_id):
            assert time.monotonic() < deadline, self.statuses(job_id)
            time.sleep(0.02)


def job(name: str, kind: str, **parameters: str) -> dict[str, Any]:
    return {
        "tenant_id": "acme",
        "job_id": name,
        "kind": kind,
        "parameters": parameters,
        "submitted_at": NOW,
        "submitted_by": "tests",
    }


def record(value: bytes) -> Record:
    return Record(JOBS, 0, next(_offsets), b"", value, NOW // 1_000)


@contextmanager
def running(dsn: str, limits: WorkerLimits | None = None, handlers: JobHandlers | None = None) -> Iterator[Trainer]:
    trainer = Trainer(dsn, limits, handlers)
    with closing(trainer.stage):
        yield trainer


class HeldHandlers(JobHandlers):
    """Job handlers that report progress until a test lets them go on."""

    def __init__(self, session: StoreSession) -> None:
        super().__init__(session, 0)
        self.entered = threading.Event()
        self.go_on = threading.Event()

    def handle(self, job: ClaimedJob, progress: Progress) -> work.Decision:
        self.entered.set()
        for step in range(10_000):
            progress(step, 10_000)
            if self.go_on.wait(0.01):
                break
        if job.parameters.get("bug"):
            raise ZeroDivisionError
        return lambda _connection: {"done": True}


class SilentHandlers(JobHandlers):
    """Job handlers that report no progress until a test ends them, as numpy does in a training."""

    def __init__(self, session: StoreSession) -> None:
        super().__init__(session, 0)
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.rounds = 0
        self.wrote = False

    def handle(self, job: ClaimedJob, progress: Progress) -> work.Decision:
        del job, progress
        self.entered.set()
        numbers = np.random.default_rng(1).random(200_000)
        while not self.go_on.is_set():
            np.sort(numbers)
            self.rounds += 1

        def write(_connection: psycopg.Connection) -> dict[str, bool]:
            self.wrote = True
            return {"done": True}

        return write
