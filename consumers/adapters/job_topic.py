"""Putting jobs on their topic.

Invariant: ``submit`` returns only after the brokers' acknowledgement. What was not acknowledged in time is discarded,
so it does not arrive later by itself; it may have arrived, and the same id submitted again is the same job.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from attributary.producers.transport import Message, Refused, Transport
from attributary.schemas.codec import Codec
from attributary.schemas.rules import check_job
from attributary.schemas.topics import JOBS, job_key

_HEADERS = [("content-type", b"application/avro")]


class JobRuleError(ValueError):
    """A field of the job breaks a rule; the text names both."""


class JobNotSubmittedError(Exception):
    """The brokers did not take the job; the text says why."""


class JobTopic:
    """Submits jobs, one at a time; may be called by several threads.

    Args:
        codec: encodes the record.
        transport: carries it; closed by ``close``.
    """

    def __init__(self, codec: Codec, transport: Transport) -> None:
        self._codec = codec
        self._transport = transport
        self._lock = threading.Lock()

    def submit(
        self,
        tenant_id: str,
        job_id: str,
        kind: str,
        parameters: Mapping[str, str],
        *,
        submitted_by: str,
        seconds: float,
    ) -> None:
        """Put a job on the topic and wait for the brokers.

        Args:
            tenant_id: tenant of the job.
            job_id: submitted twice, the job is done once.
            kind: of the job.
            parameters: texts, checked by ``job_requests.Parameters``.
            submitted_by: shown in the list of jobs.
            seconds: how long to wait.

        Raises:
            JobRuleError: a field breaks a rule.
            JobNotSubmittedError: the brokers did not take it.
        """
        record = {
            "tenant_id": tenant_id,
            "job_id": job_id,
            "kind": kind,
            "parameters": dict(parameters),
            "submitted_at": time.time_ns() // 1_000,
            "submitted_by": submitted_by,
        }
        broken = check_job(record)
        if broken is not None:
            raise JobRuleError(f"{broken.field}: {broken.rule}")
        value = self._codec.encode("job", record)
        failures: list[str] = []
        with self._lock:
            try:
                self._transport.send(
                    Message(JOBS, job_key(tenant_id, job_id), value, list(_HEADERS)),
                    lambda error, _message: failures.append(str(error)) if error is not None else None,
                )
                if self._transport.flush(seconds):
                    self._transport.discard()
                    failures[:] = ["Kafka does not answer"]
            except Refused as error:
                failures.append(str(error))
        if failures:
            raise JobNotSubmittedError(failures[0])

    def close(self) -> None:
        """Close the transport."""
        self._transport.close()
