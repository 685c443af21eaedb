"""Putting jobs, and requests to erase people, on their topics.

Invariant: a call returns only after the brokers' acknowledgement. What was not acknowledged in time is discarded, so it
does not arrive later by itself; it may have arrived, and the same id submitted again is the same job or request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from attributary.producers.transport import Message, Refused, Transport
from attributary.schemas.codec import Codec
from attributary.schemas.rules import RuleViolation, check_erasure_request, check_job
from attributary.schemas.topics import ERASURE_REQUESTS, JOBS, erasure_request_key, job_key

_HEADERS = [("content-type", b"application/avro")]


class JobRuleError(ValueError):
    """A field of the job or request breaks a rule; the text names both."""


class JobNotSubmittedError(Exception):
    """The brokers did not take the job or request; the text says why."""


class JobTopic:
    """Submits jobs and requests to erase people, one at a time; may be called by several threads.

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
        _demand(check_job(record))
        self._send(
            Message(JOBS, job_key(tenant_id, job_id), self._codec.encode("job", record), list(_HEADERS)), seconds
        )

    def request_erasure(
        self, tenant_id: str, request_id: str, kind: str, identifier: str, mode: str, *, seconds: float
    ) -> None:
        """Put a request to erase a person on its topic and wait for the brokers.

        Args:
            tenant_id: tenant of the person.
            request_id: submitted twice, it is one request.
            kind: user, anonymous, order or email.
            identifier: the identifier; it is in no error.
            mode: delete, delete-and-suppress, suppress or unsuppress.
            seconds: how long to wait.

        Raises:
            JobRuleError: a field breaks a rule.
            JobNotSubmittedError: the brokers did not take it.
        """
        record = {
            "tenant_id": tenant_id, "request_id": request_id, "kind": kind, "identifier": identifier, "mode": mode,
            "requested_at": time.time_ns() // 1_000,
        }  # fmt: skip
        _demand(check_erasure_request(record))
        value = self._codec.encode("erasure_request", record)
        key = erasure_request_key(tenant_id, request_id)
        self._send(Message(ERASURE_REQUESTS, key, value, list(_HEADERS)), seconds)

    def _send(self, message: Message, seconds: float) -> None:
        failures: list[str] = []
        with self._lock:
            try:
                self._transport.send(
                    message,
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


def _demand(broken: RuleViolation | None) -> None:
    if broken is not None:
        raise JobRuleError(f"{broken.field}: {broken.rule}")
