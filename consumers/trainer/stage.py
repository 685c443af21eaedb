"""The trainer as a stage: it stores the jobs of the topic in Postgres, and a worker thread does them.

Invariant: a job is in Postgres or in the dead-letter topic before its offset is committed. The deciding write of a
batch is the one transaction that stores its jobs. It is idempotent by job id, so a replay adds nothing. A job with
invalid parameters is no dead letter: it is stored and fails, so that its submitter sees the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import structlog

from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.runtime.crash_points import crash_at, register_points
from attributary.consumers.runtime.dead_letters import check_poison_share
from attributary.consumers.runtime.metrics import timed
from attributary.consumers.runtime.records import DeadLetter, Outcome, Record
from attributary.consumers.store.jobs.jobs import NewJob, submit
from attributary.consumers.store.session import StoreSession
from attributary.schemas.codec import Codec, DecodeError
from attributary.schemas.rules import check_job, find_unstorable_text
from attributary.schemas.topics import JOB_STATUS, JOBS, group_name

from . import metrics
from .worker import Worker

register_points("trainer_after_submit")

_log = structlog.get_logger()

GROUP = group_name("trainer")


class TrainerStage:
    """Stores jobs and wakes the worker.

    Args:
        session: a connection for the stage alone.
        codec: decodes jobs.
        worker: does the jobs; started here, stopped by `close`.
        max_poison_share: stop when a larger share of a batch is poison.
        grace_seconds: time for the worker to give its job back on `close`, seconds.
    """

    name = "trainer"
    group = GROUP
    topics = (JOBS,)
    output_topics = (JOB_STATUS,)
    max_records = 500

    def __init__(
        self, session: StoreSession, codec: Codec, worker: Worker, max_poison_share: float, grace_seconds: float
    ) -> None:
        self._session = session
        self._codec = codec
        self._worker = worker
        self._max_poison_share = max_poison_share
        self._grace_seconds = grace_seconds
        with map_errors():
            session.connection()
        worker.start()

    def handle(self, batch: Sequence[Record]) -> Outcome:
        """Store the jobs of a batch; their statuses are published by the worker.

        Raises:
            Retry: Postgres is away.
            AttributaryError: the worker ended by a bug.
        """
        self._worker.check()
        jobs: list[NewJob] = []
        dead_letters: list[DeadLetter] = []
        with map_errors(), timed(self.name, "decode"):
            for record in batch:
                found = self._job(record)
                if isinstance(found, DeadLetter):
                    dead_letters.append(found)
                else:
                    jobs.append(found)
        check_poison_share(dead_letters, len(batch), self._max_poison_share)
        with map_errors(), timed(self.name, "store"), self._session.transaction() as connection:
            submission = submit(connection, jobs)
        for tenant, job_id, kind in submission.cancelled:
            metrics.jobs.labels(kind, "cancelled").inc()
            _log.info("job ended", tenant=tenant, job=job_id, kind=kind, outcome="cancelled")
        for tenant, job_id, kind in submission.conflicts:
            metrics.job_conflicts.inc()
            _log.warning("job not stored: another job has its id", tenant=tenant, job=job_id, kind=kind)
        crash_at("trainer_after_submit")
        self._worker.wake()
        return Outcome([], dead_letters)

    def _job(self, record: Record) -> NewJob | DeadLetter:
        try:
            fields = self._codec.decode("job", record.value)
        except DecodeError as error:
            return DeadLetter(record, "decode", None, str(error))
        # Jobs are few: look for what Postgres cannot hold in every one of them.
        broken = check_job(fields, now_micros=record.timestamp_ms * 1_000) or find_unstorable_text(fields)
        if broken is None and fields["kind"] == "cancel" and not fields["parameters"].get("target_job_id"):
            return DeadLetter(record, "validate", "parameters", "target_job_id must be given for a cancel")
        if broken is not None:
            return DeadLetter(record, "validate", broken.field, broken.rule)
        return new_job(fields)

    def stored_positions(self, partitions: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], int]:  # noqa: ARG002  # the protocol's
        """Submitting twice changes nothing, so Kafka's offsets are enough."""
        return {}

    def is_ready(self) -> bool:
        """Tell whether Postgres answered last time and the worker thread is alive."""
        return self._session.is_reachable() and self._worker.is_alive

    def close(self) -> None:
        """Stop the worker and close the connection.

        Raises:
            AttributaryError: the worker had ended by a bug.
        """
        self._worker.stop(self._grace_seconds)
        self._session.close()
        self._worker.check()


def new_job(fields: Mapping[str, Any]) -> NewJob:
    """Return the job of a record."""
    return NewJob(
        fields["tenant_id"],
        fields["job_id"],
        fields["kind"],
        fields["parameters"],
        fields["submitted_at"],
        fields["submitted_by"],
    )
