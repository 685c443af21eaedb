"""Jobs: submitted once by id, claimed by one worker at a time, finished once; and their statuses to publish.

States: submitted -> running -> succeeded | failed | cancelled; back to submitted when a worker gives a job back.

Invariants: a job id is taken once, whatever is submitted under it later. Only the newest claim writes: a worker without
a heartbeat for longer than the lease finds its claim gone, and its whole transaction, effects included, is rolled back.
Every change raises ``status_number``; a number above ``published_number`` is pending, so a crash between Postgres and
Kafka repeats a status and never loses the last one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg
from psycopg.types.json import Jsonb

FINISHED = ("succeeded", "failed", "cancelled")
STATES = ("submitted", "running", *FINISHED)
URGENT = ("activate", "rollback", "analyze_journey")
"""Short kinds with somebody waiting: claimed before all others."""


class ClaimLostError(Exception):
    """Another worker has the job, or it is no longer running: nothing may be written for this claim."""


class NewJob(NamedTuple):
    """A submitted job; ``submitted_at`` in microseconds UTC."""

    tenant_id: str
    job_id: str
    kind: str
    parameters: Mapping[str, str]
    submitted_at: int
    submitted_by: str | None


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job that a worker has claimed; ``claim`` is the token that its writes must show, times are microseconds UTC."""

    tenant_id: str
    job_id: str
    kind: str
    parameters: Mapping[str, str]
    claim: int
    submitted_at: int


class Submission(NamedTuple):
    """Outcome of storing jobs.

    Attributes:
        cancelled: waiting jobs that were cancelled at once, as (tenant, job id, kind).
        conflicts: jobs that are not stored because another job has their id, as (tenant, job id, kind).
    """

    cancelled: Sequence[tuple[str, str, str]] = ()
    conflicts: Sequence[tuple[str, str, str]] = ()


class GivenUp(NamedTuple):
    """A job that ended because its workers died: failed, or cancelled if its cancellation was requested."""

    tenant_id: str
    job_id: str
    kind: str
    state: str
    error: str | None


# One submission of a tenant at a time, so that a job and its cancellation never miss each other.
_LOCK_TENANTS = """
SELECT pg_advisory_xact_lock(hashtextextended('attribution_jobs|' || tenant_id, 0))
FROM (SELECT DISTINCT tenant_id FROM unnest(%s::text[]) AS t (tenant_id) ORDER BY tenant_id) AS tenants
"""

_SUBMIT = """
INSERT INTO attribution_batch_jobs (tenant_id, job_id, kind, parameters, state, submitted_at, submitted_by)
SELECT DISTINCT ON (tenant_id, job_id) tenant_id, job_id, kind, parameters, 'submitted',
       to_timestamp(submitted_us / 1e6), submitted_by
FROM unnest(%s::text[], %s::text[], %s::text[], %s::jsonb[], %s::int8[], %s::text[]) WITH ORDINALITY
     AS n (tenant_id, job_id, kind, parameters, submitted_us, submitted_by, place)
ORDER BY tenant_id, job_id, place
ON CONFLICT (tenant_id, job_id) DO NOTHING
"""

_CANCEL = """
WITH asked AS (
    SELECT DISTINCT c.tenant_id, c.parameters ->> 'target_job_id' AS job_id
    FROM unnest(%s::text[], %s::text[]) AS n (tenant_id, job_id)
    JOIN attribution_batch_jobs c
      ON c.tenant_id = n.tenant_id AND c.kind = 'cancel'
     AND (c.job_id = n.job_id OR c.parameters ->> 'target_job_id' = n.job_id)
)
UPDATE attribution_batch_jobs AS j SET
    cancel_requested_at = now(), updated_at = now(), status_number = j.status_number + 1,
    state = CASE j.state WHEN 'submitted' THEN 'cancelled' ELSE j.state END,
    finished_at = CASE j.state WHEN 'submitted' THEN now() END
FROM asked a
WHERE j.tenant_id = a.tenant_id AND j.job_id = a.job_id AND j.kind <> 'cancel'
  AND j.state IN ('submitted', 'running') AND j.cancel_requested_at IS NULL
RETURNING j.tenant_id, j.job_id, j.kind, j.state
"""

_CONFLICTS = """
SELECT DISTINCT n.tenant_id, n.job_id, n.kind
FROM unnest(%s::text[], %s::text[], %s::text[], %s::jsonb[]) AS n (tenant_id, job_id, kind, parameters)
JOIN attribution_batch_jobs j ON j.tenant_id = n.tenant_id AND j.job_id = n.job_id
WHERE (j.kind, j.parameters) IS DISTINCT FROM (n.kind, n.parameters)
ORDER BY 1, 2, 3
"""

_ANSWER_CANCELS = """
UPDATE attribution_batch_jobs AS c SET
    state = 'succeeded', finished_at = now(), updated_at = now(), status_number = c.status_number + 1,
    result = jsonb_build_object('target_job_id', c.parameters ->> 'target_job_id', 'target_state', (
        SELECT j.state FROM attribution_batch_jobs j
        WHERE j.tenant_id = c.tenant_id AND j.job_id = c.parameters ->> 'target_job_id'))
FROM unnest(%s::text[], %s::text[]) AS n (tenant_id, job_id)
WHERE c.tenant_id = n.tenant_id AND c.job_id = n.job_id AND c.kind = 'cancel' AND c.state = 'submitted'
"""

_END_HOPELESS = """
UPDATE attribution_batch_jobs SET
    state = CASE WHEN cancel_requested_at IS NULL THEN 'failed' ELSE 'cancelled' END,
    finished_at = now(), updated_at = now(), status_number = status_number + 1,
    error = CASE WHEN cancel_requested_at IS NULL THEN
        'given up: ' || attempts || ' workers ended while they worked on it' END
WHERE state = 'running' AND heartbeat_at < now() - make_interval(secs => %s)
  AND (attempts >= %s OR cancel_requested_at IS NOT NULL)
RETURNING tenant_id, job_id, kind, state, error
"""

# The order of jobs goes by when they were stored: submitted_at is the clock of the client, which may be years off.
_CLAIM = """
WITH next AS (
    SELECT j.tenant_id, j.job_id FROM attribution_batch_jobs j
    LEFT JOIN LATERAL (
        SELECT max(o.heartbeat_at) AS at FROM attribution_batch_jobs o WHERE o.tenant_id = j.tenant_id
    ) AS served ON true
    WHERE j.state = 'submitted' OR (
        j.state = 'running' AND j.heartbeat_at < now() - make_interval(secs => %(lease)s) AND j.attempts < %(most)s)
    ORDER BY j.kind = ANY (%(first)s) DESC, served.at NULLS FIRST,
             j.created_at, j.submitted_at, j.tenant_id, j.job_id
    LIMIT 1 FOR UPDATE OF j SKIP LOCKED
)
UPDATE attribution_batch_jobs AS j SET
    state = 'running', claim = j.claim + 1, attempts = j.attempts + 1, started_at = COALESCE(j.started_at, now()),
    heartbeat_at = now(), done = 0, total = NULL, updated_at = now(), status_number = j.status_number + 1
FROM next n WHERE j.tenant_id = n.tenant_id AND j.job_id = n.job_id
RETURNING j.tenant_id, j.job_id, j.kind, j.parameters, j.claim, (extract(epoch FROM j.submitted_at) * 1000000)::int8
"""

_MINE = "tenant_id = %(tenant)s AND job_id = %(job)s AND claim = %(claim)s AND state = 'running'"
_HEARTBEAT = f"""
UPDATE attribution_batch_jobs SET
    status_number = status_number + ((done, total) IS DISTINCT FROM (%(done)s::int8, %(total)s::int8))::int,
    done = %(done)s, total = %(total)s, heartbeat_at = now(), updated_at = now()
WHERE {_MINE} RETURNING cancel_requested_at IS NOT NULL
"""
_FINISH = f"""
UPDATE attribution_batch_jobs SET
    state = %(state)s, result = %(result)s, error = %(error)s,
    done = CASE WHEN %(state)s = 'succeeded' THEN COALESCE(total, done) ELSE done END, finished_at = now(),
    updated_at = now(), status_number = status_number + 1
WHERE {_MINE}
"""
_GIVE_BACK = f"""
UPDATE attribution_batch_jobs SET
    state = CASE WHEN cancel_requested_at IS NULL THEN 'submitted' ELSE 'cancelled' END,
    finished_at = CASE WHEN cancel_requested_at IS NOT NULL THEN now() END,
    attempts = attempts - 1, updated_at = now(), status_number = status_number + 1
WHERE {_MINE} RETURNING state
"""


def submit(connection: psycopg.Connection, jobs: Sequence[NewJob]) -> Submission:
    """Store jobs; a job with a taken id is not stored. Cancellations take effect at once.

    Args:
        connection: in a transaction.
        jobs: in the order of their arrival; of two with one id the first counts.

    Returns:
        Jobs that were cancelled by it, and jobs with an id that a job of other kind or parameters has. A replay returns
        the latter again, the former not.
    """
    if not jobs:
        return Submission()
    connection.execute(_LOCK_TENANTS, ([job.tenant_id for job in jobs],))
    keys = ([job.tenant_id for job in jobs], [job.job_id for job in jobs])
    contents = (*keys, [job.kind for job in jobs], [Jsonb(dict(job.parameters)) for job in jobs])
    connection.execute(_SUBMIT, (*contents, [job.submitted_at for job in jobs], [job.submitted_by for job in jobs]))
    cancelled = connection.execute(_CANCEL, keys).fetchall()
    connection.execute(_ANSWER_CANCELS, keys)
    conflicts = connection.execute(_CONFLICTS, contents).fetchall()
    return Submission(tuple(row[:3] for row in cancelled if row[3] == "cancelled"), tuple(conflicts))


def give_up(connection: psycopg.Connection, *, lease_seconds: float, max_attempts: int) -> list[GivenUp]:
    """End jobs after too many deaths of workers, and cancelled jobs of dead workers. Return them.

    Args:
        connection: in a transaction.
        lease_seconds: a worker without a heartbeat for longer is considered dead, seconds.
        max_attempts: a job fails after this many of its workers died.
    """
    return [GivenUp(*row) for row in connection.execute(_END_HOPELESS, (lease_seconds, max_attempts)).fetchall()]


def claim_next(connection: psycopg.Connection, *, lease_seconds: float, max_attempts: int) -> ClaimedJob | None:
    """Claim a job that waits, or one with an expired lease.

    Jobs of an `URGENT` kind first, then those of the tenant that was served longest ago, then the one stored first.

    Args:
        connection: in a transaction.
        lease_seconds: a worker without a heartbeat for longer is considered dead, seconds.
        max_attempts: a job after this many deaths of its workers is left to `give_up`.
    """
    values = {"lease": lease_seconds, "most": max_attempts, "first": list(URGENT)}
    row = connection.execute(_CLAIM, values).fetchone()
    return ClaimedJob(*row) if row else None


def heartbeat(connection: psycopg.Connection, job: ClaimedJob, done: int, total: int | None) -> bool:
    """Write a heartbeat with the progress. Return whether the job was cancelled.

    The job is locked until the transaction ends, so no other worker takes it while its effects are written.

    Raises:
        ClaimLostError: the claim is gone.
    """
    row = connection.execute(_HEARTBEAT, {**_token(job), "done": done, "total": total}).fetchone()
    if row is None:
        raise ClaimLostError(job.job_id)
    return bool(row[0])


def finish(
    connection: psycopg.Connection,
    job: ClaimedJob,
    state: str,
    *,
    result: Mapping[str, Any] | None = None,
    error: str | None = None,
) -> None:
    """End a job.

    Args:
        connection: in the transaction that writes its effects.
        job: the claimed job.
        state: one of `FINISHED`.
        result: of a job that succeeded.
        error: the reason of a failure, in one sentence.

    Raises:
        ClaimLostError: the claim is gone.
    """
    values = {"state": state, "result": None if result is None else Jsonb(dict(result)), "error": error}
    if connection.execute(_FINISH, {**_token(job), **values}).rowcount == 0:
        raise ClaimLostError(job.job_id)


def give_back(connection: psycopg.Connection, job: ClaimedJob) -> str | None:
    """Give a job back because its worker stops; no attempt is counted.

    Returns:
        "submitted"; "cancelled" if the cancellation was requested; None when the claim is gone.
    """
    row = connection.execute(_GIVE_BACK, _token(job)).fetchone()
    return str(row[0]) if row else None


def _token(job: ClaimedJob) -> dict[str, Any]:
    return {"tenant": job.tenant_id, "job": job.job_id, "claim": job.claim}
