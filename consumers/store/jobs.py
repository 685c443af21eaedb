"""Jobs: submitted once by id, claimed by one worker at a time, finished once; and their statuses to publish.

States: submitted -> running -> succeeded | failed | cancelled; back to submitted when a worker gives a job back.

Invariants: a job id is taken once, whatever is submitted under it later. Only the newest claim writes: a worker that
was silent for longer than the lease finds its claim gone and its whole transaction, the job's effects included, is
rolled back. Every change raises ``status_number``; what is above ``published_number`` is still to be published, so a
crash between Postgres and Kafka repeats a status and never loses the last one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from psycopg.types.json import Jsonb

FINISHED = ("succeeded", "failed", "cancelled")


class ClaimLostError(Exception):
    """Another worker has the job, or it is no longer running: nothing may be written for this claim."""


class NewJob(NamedTuple):
    """A job as it was asked for; ``submitted_at`` in microseconds UTC."""

    tenant_id: str
    job_id: str
    kind: str
    parameters: Mapping[str, str]
    submitted_at: int
    submitted_by: str | None


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job in the hands of a worker; ``claim`` is the token that its writes must show."""

    tenant_id: str
    job_id: str
    kind: str
    parameters: Mapping[str, str]
    claim: int


@dataclass(frozen=True, slots=True)
class JobRow:
    """Where a job stands."""

    tenant_id: str
    job_id: str
    kind: str
    parameters: Mapping[str, str]
    state: str
    done: int
    total: int | None
    error: str | None
    result: Mapping[str, Any] | None
    submitted_by: str | None
    submitted_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    attempts: int
    status_number: int
    updated_at: datetime


# Submissions of one tenant take turns, so that a job and its cancellation never miss each other.
_TAKE_TURNS = """
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
    state = 'failed', finished_at = now(), updated_at = now(), status_number = status_number + 1,
    error = 'given up: ' || attempts || ' workers ended while they worked on it'
WHERE state = 'running' AND heartbeat_at < now() - make_interval(secs => %s) AND attempts >= %s
"""

_CLAIM = """
WITH next AS (
    SELECT tenant_id, job_id FROM attribution_batch_jobs
    WHERE state = 'submitted' OR (state = 'running' AND heartbeat_at < now() - make_interval(secs => %s))
    ORDER BY submitted_at, tenant_id, job_id LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE attribution_batch_jobs AS j SET
    state = 'running', claim = j.claim + 1, attempts = j.attempts + 1, started_at = COALESCE(j.started_at, now()),
    heartbeat_at = now(), done = 0, total = NULL, updated_at = now(), status_number = j.status_number + 1
FROM next n WHERE j.tenant_id = n.tenant_id AND j.job_id = n.job_id
RETURNING j.tenant_id, j.job_id, j.kind, j.parameters, j.claim
"""

_MINE = "tenant_id = %(tenant)s AND job_id = %(job)s AND claim = %(claim)s AND state = 'running'"
_HEARTBEAT = f"""
UPDATE attribution_batch_jobs SET
    status_number = status_number + ((done, total) IS DISTINCT FROM (%(done)s::int8, %(total)s::int8))::int,
    done = %(done)s, total = %(total)s, heartbeat_at = now(), updated_at = now()
WHERE {_MINE} RETURNING cancel_requested_at IS NOT NULL
"""
_HOLD = f"SELECT cancel_requested_at IS NOT NULL FROM attribution_batch_jobs WHERE {_MINE} FOR UPDATE"
_FINISH = f"""
UPDATE attribution_batch_jobs SET
    state = %(state)s, result = %(result)s, error = %(error)s, done = COALESCE(total, done), finished_at = now(),
    updated_at = now(), status_number = status_number + 1
WHERE {_MINE}
"""
_GIVE_BACK = f"""
UPDATE attribution_batch_jobs SET
    state = 'submitted', attempts = attempts - 1, updated_at = now(), status_number = status_number + 1
WHERE {_MINE}
"""

_ROW = (
    "tenant_id, job_id, kind, parameters, state, done, total, error, result, submitted_by, submitted_at, started_at, "
    "finished_at, attempts, status_number, updated_at"
)
_UNPUBLISHED = f"""
SELECT {_ROW} FROM attribution_batch_jobs WHERE published_number < status_number
ORDER BY updated_at LIMIT %s FOR UPDATE SKIP LOCKED
"""
_PUBLISHED = """
UPDATE attribution_batch_jobs AS j SET published_number = GREATEST(j.published_number, n.number)
FROM unnest(%s::text[], %s::text[], %s::int8[]) AS n (tenant_id, job_id, number)
WHERE j.tenant_id = n.tenant_id AND j.job_id = n.job_id
"""
_LIST = f"""
SELECT {_ROW} FROM attribution_batch_jobs
WHERE (%(tenant)s::text IS NULL OR tenant_id = %(tenant)s) AND (%(state)s::text IS NULL OR state = %(state)s)
ORDER BY submitted_at DESC, tenant_id, job_id LIMIT %(limit)s
"""
_SHOW = f"SELECT {_ROW} FROM attribution_batch_jobs WHERE tenant_id = %s AND job_id = %s"


def submit(connection: psycopg.Connection, jobs: Sequence[NewJob]) -> None:
    """Store jobs; one whose id is taken already is left as it is. Cancellations take effect at once.

    Args:
        connection: in a transaction.
        jobs: in the order of their arrival; of two with one id the first counts.
    """
    if not jobs:
        return
    connection.execute(_TAKE_TURNS, ([job.tenant_id for job in jobs],))
    keys = ([job.tenant_id for job in jobs], [job.job_id for job in jobs])
    columns = (
        *keys,
        [job.kind for job in jobs],
        [Jsonb(dict(job.parameters)) for job in jobs],
        [job.submitted_at for job in jobs],
        [job.submitted_by for job in jobs],
    )
    connection.execute(_SUBMIT, columns)
    connection.execute(_CANCEL, keys)
    connection.execute(_ANSWER_CANCELS, keys)


def claim_next(connection: psycopg.Connection, *, lease_seconds: float, most_attempts: int) -> ClaimedJob | None:
    """Claim the oldest job that waits, or whose worker has been silent for longer than the lease.

    Args:
        connection: in a transaction.
        lease_seconds: silence after which a worker is taken for dead.
        most_attempts: a job whose workers ended so often while they had it fails.
    """
    connection.execute(_END_HOPELESS, (lease_seconds, most_attempts))
    row = connection.execute(_CLAIM, (lease_seconds,)).fetchone()
    return ClaimedJob(*row) if row else None


def heartbeat(connection: psycopg.Connection, job: ClaimedJob, done: int, total: int | None) -> bool:
    """Show life and progress; returns whether the job shall stop because it was cancelled.

    Raises:
        ClaimLostError: the claim is gone.
    """
    row = connection.execute(_HEARTBEAT, {**_token(job), "done": done, "total": total}).fetchone()
    if row is None:
        raise ClaimLostError(job.job_id)
    return bool(row[0])


def hold(connection: psycopg.Connection, job: ClaimedJob) -> bool:
    """Lock the job until the transaction ends, before its effects are written; returns whether it was cancelled.

    Raises:
        ClaimLostError: the claim is gone.
    """
    row = connection.execute(_HOLD, _token(job)).fetchone()
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
        job: as claimed.
        state: one of `FINISHED`.
        result: what came of it.
        error: what went wrong, in one sentence.

    Raises:
        ClaimLostError: the claim is gone.
    """
    values = {"state": state, "result": None if result is None else Jsonb(dict(result)), "error": error}
    if connection.execute(_FINISH, {**_token(job), **values}).rowcount == 0:
        raise ClaimLostError(job.job_id)


def give_back(connection: psycopg.Connection, job: ClaimedJob) -> None:
    """Let another worker do the job, because this one stops; no attempt is counted. A lost claim is none to give."""
    connection.execute(_GIVE_BACK, _token(job))


def unpublished(connection: psycopg.Connection, limit: int) -> list[JobRow]:
    """Return jobs with a status to publish, locked until the transaction ends so that statuses keep their order."""
    return [JobRow(*row) for row in connection.execute(_UNPUBLISHED, (limit,)).fetchall()]


def mark_published(connection: psycopg.Connection, rows: Sequence[JobRow]) -> None:
    """Note that the statuses of the rows are on the topic."""
    columns = ([row.tenant_id for row in rows], [row.job_id for row in rows], [row.status_number for row in rows])
    connection.execute(_PUBLISHED, columns)


def list_jobs(
    connection: psycopg.Connection, *, tenant_id: str | None = None, state: str | None = None, limit: int = 50
) -> list[JobRow]:
    """Return jobs, the newest first.

    Args:
        connection: anywhere.
        tenant_id: of this tenant only.
        state: in this state only.
        limit: at most so many.
    """
    rows = connection.execute(_LIST, {"tenant": tenant_id, "state": state, "limit": limit}).fetchall()
    return [JobRow(*row) for row in rows]


def show_job(connection: psycopg.Connection, tenant_id: str, job_id: str) -> JobRow | None:
    """Return a job, or None when there is none of this id."""
    row = connection.execute(_SHOW, (tenant_id, job_id)).fetchone()
    return JobRow(*row) if row else None


def _token(job: ClaimedJob) -> dict[str, Any]:
    return {"tenant": job.tenant_id, "job": job.job_id, "claim": job.claim}
