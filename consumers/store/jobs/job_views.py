"""Jobs as they stand, for the command line, the status topic and the metrics; and their retention.

Invariant: nothing here changes the course of a job. A job is deleted only when it has ended and its last status is on
the topic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import psycopg


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job as it stands."""

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
    cancel_requested_at: datetime | None
    heartbeat_at: datetime | None


class JobBacklog(NamedTuple):
    """Jobs that wait and run, and the ages in seconds of the oldest of each; 0 without any."""

    waiting: int
    oldest_waiting_seconds: float
    running: int
    oldest_running_seconds: float


_ROW = (
    "tenant_id, job_id, kind, parameters, state, done, total, error, result, submitted_by, submitted_at, started_at, "
    "finished_at, attempts, status_number, updated_at, cancel_requested_at, heartbeat_at"
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

# A job that starts again after its worker died counts from its first start: that is how long somebody waits for it.
_BACKLOG = """
SELECT count(*) FILTER (WHERE state = 'submitted'),
       COALESCE(EXTRACT(epoch FROM clock_timestamp() - min(created_at) FILTER (WHERE state = 'submitted')), 0)::float8,
       count(*) FILTER (WHERE state = 'running'),
       COALESCE(EXTRACT(epoch FROM clock_timestamp() - min(started_at) FILTER (WHERE state = 'running')), 0)::float8
FROM attribution_batch_jobs WHERE state IN ('submitted', 'running')
"""

# The result of a training is read only where its version is the newest and not in force: it may be large.
_DRIFTED = """
WITH newest AS (
    SELECT DISTINCT ON (tenant_id, model) tenant_id, model, version, is_active FROM attribution_model_states
    ORDER BY tenant_id, model, version DESC
), trained AS (
    SELECT DISTINCT ON (j.tenant_id, n.model) n.model, n.version, j.result FROM newest n
    JOIN attribution_batch_jobs j ON j.tenant_id = n.tenant_id AND j.kind = 'train' AND j.state = 'succeeded'
     AND COALESCE(j.parameters ->> 'model', 'markov') = n.model
    WHERE NOT n.is_active
    ORDER BY j.tenant_id, n.model, j.finished_at DESC
)
SELECT model, count(*), max(channels) FROM (
    SELECT model, jsonb_array_length(result -> 'drift' -> 'changed') AS channels FROM trained
    WHERE (result ->> 'version')::bigint = version AND jsonb_typeof(result -> 'drift' -> 'changed') = 'array'
) AS found WHERE channels > 0 GROUP BY model
"""

_EXPIRE = """
DELETE FROM attribution_batch_jobs j USING (
    SELECT tenant_id, job_id FROM attribution_batch_jobs
    WHERE state IN ('succeeded', 'failed', 'cancelled') AND published_number >= status_number
      AND finished_at < now() - make_interval(secs => %s)
    LIMIT %s FOR UPDATE SKIP LOCKED
) AS old WHERE j.tenant_id = old.tenant_id AND j.job_id = old.job_id
"""


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
        tenant_id: this tenant only.
        state: this state only.
        limit: at most so many jobs.
    """
    rows = connection.execute(_LIST, {"tenant": tenant_id, "state": state, "limit": limit}).fetchall()
    return [JobRow(*row) for row in rows]


def show_job(connection: psycopg.Connection, tenant_id: str, job_id: str) -> JobRow | None:
    """Return a job, or None when there is none of this id."""
    row = connection.execute(_SHOW, (tenant_id, job_id)).fetchone()
    return JobRow(*row) if row else None


def job_backlog(connection: psycopg.Connection) -> JobBacklog:
    """Return the backlog of all tenants; a wait counts from the time a job was stored."""
    return JobBacklog(*connection.execute(_BACKLOG).fetchall()[0])


def drifted(connection: psycopg.Connection) -> dict[str, tuple[int, int]]:
    """Return, by model, how many tenants have drift, and the most channels that one of them has it in.

    A tenant has drift when the newest version of the model is not in force, a job trained it, and its shares differ by
    more than noise from the version that was in force then. A model without any is left out.
    """
    return {row[0]: (row[1], row[2]) for row in connection.execute(_DRIFTED).fetchall()}


def expire_jobs(connection: psycopg.Connection, kept_seconds: float, limit: int) -> int:
    """Delete old jobs with a published last status. Return how many.

    Args:
        connection: in a transaction.
        kept_seconds: time that a job is kept after its end, seconds.
        limit: at most so many jobs.
    """
    return connection.execute(_EXPIRE, (kept_seconds, limit)).rowcount
