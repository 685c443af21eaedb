"""Statuses of jobs on the job-status topic, read from Postgres.

Invariant: the newest record of a job is its newest status. A status is marked as published only after the brokers
acknowledged it, and its row is locked meanwhile, so a crash repeats a status and never loses or swaps one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog

from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.store.jobs.job_views import JobRow, mark_published, unpublished
from attributary.consumers.store.session import StoreSession
from attributary.producers.transport import Message, Refused, Transport
from attributary.schemas.codec import Codec, RegistryUnavailableError
from attributary.schemas.topics import JOB_STATUS, job_key

_log = structlog.get_logger()

_BATCH = 100
_WAIT_SECONDS = 5.0
_MAX_RESULT_BYTES = 500_000  # half of the default limit of a broker
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class StatusPublisher:
    """Publishes the statuses that are not yet on the topic.

    Args:
        session: a connection that is in no transaction when `publish` is called.
        codec: encodes the records.
        transport: to Kafka.
        clock: monotonic seconds; for tests.
    """

    def __init__(
        self, session: StoreSession, codec: Codec, transport: Transport, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._session = session
        self._codec = codec
        self._transport = transport
        self._clock = clock
        self._not_before = 0.0

    def publish(self) -> None:
        """Publish all pending statuses; during an outage of Kafka they stay pending.

        Raises:
            Retry: Postgres is away.
        """
        while self._clock() >= self._not_before and self._publish_some() == _BATCH:
            pass

    def _publish_some(self) -> int:
        with map_errors(), self._session.transaction() as connection:
            rows = unpublished(connection, _BATCH)
            if rows and not self._sent(rows):
                self._not_before = self._clock() + _WAIT_SECONDS
                _log.warning("statuses of jobs wait for Kafka", jobs=len(rows))
                return 0
            if rows:
                mark_published(connection, rows)
        return len(rows)

    def _sent(self, rows: Sequence[JobRow]) -> bool:
        """Send and wait. Return whether the brokers acknowledged all of them."""
        failures: list[str] = []

        def on_done(error: object | None, _message: object) -> None:
            if error is not None:
                failures.append(str(error))

        try:
            for row in rows:
                self._transport.send(self._message(row), on_done)
        except (BufferError, Refused, RegistryUnavailableError) as error:
            _log.warning("statuses of jobs were not sent", why=str(error))
            self._transport.discard()
            return False
        if self._transport.flush(_WAIT_SECONDS):
            self._transport.discard()
            return False
        if failures:
            _log.warning("Kafka refused statuses of jobs", why=failures[0])
        return not failures

    def _message(self, row: JobRow) -> Message:
        record = status_record(row)
        headers: list[tuple[str, str | bytes | None]] = [
            ("ce_specversion", b"1.0"),
            ("ce_id", f"{row.tenant_id}|{row.job_id}|{row.status_number}".encode()),
            ("ce_source", b"attributary/trainer"),
            ("ce_type", b"attributary.v1.JobStatus"),
            ("content-type", b"application/avro"),
        ]
        value = self._codec.encode("job_status", record)
        return Message(JOB_STATUS, job_key(row.tenant_id, row.job_id), value, headers)

    def close(self) -> None:
        """Stop the threads of the transport."""
        self._transport.close()


def status_record(row: JobRow) -> dict[str, Any]:
    """Return the status record of a job; a result too large for a message stays in Postgres, and the record says so."""
    result = None if row.result is None else json.dumps(row.result, ensure_ascii=False, separators=(",", ":"))
    if result is not None and len(result.encode()) > _MAX_RESULT_BYTES:
        result = json.dumps({"too_large": True, "read": f"attributary jobs status {row.job_id}"})
    return {
        "tenant_id": row.tenant_id,
        "job_id": row.job_id,
        "kind": row.kind,
        "state": row.state,
        "done": row.done,
        "total": row.total,
        "error": row.error,
        "result": result,
        "updated_at": int((row.updated_at - _EPOCH).total_seconds() * 1_000_000),
    }
