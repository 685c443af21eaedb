"""Where a rebuild stands: one row a run, moved on in the transaction of the work that it counts.

Invariant: at most one rebuild of a database at a time (a session's advisory lock), and one that was cut short,
wherever, is taken up at its first step that is not done.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import psycopg
from psycopg.types.json import Jsonb

# Arbitrary; beside the one of the migrations.
_LOCK = 0x61747473
EVERYBODY = "*"


class RebuildRunsError(Exception):
    """Another rebuild is at work in this database."""


@dataclass(slots=True)
class Rebuild:
    """A run and where it stands."""

    tenant_id: str
    number: int
    from_log: bool
    step: str
    after: tuple[str, str] = ("", "")
    looked_at: int = 0
    changed: dict[str, int] = field(default_factory=dict)
    started_at: int = 0  # microseconds UTC of Postgres's clock
    is_resumed: bool = False

    def count(self, kind: str, number: int = 1) -> None:
        """Add to what was changed."""
        if number:
            self.changed[kind] = self.changed.get(kind, 0) + number


_UNFINISHED = """
SELECT tenant_id, rebuild_number, from_log, step, after_tenant, after_id, looked_at, changed,
       (extract(epoch FROM started_at) * 1000000)::int8
FROM attribution_rebuilds WHERE tenant_id = %s AND from_log = %s AND finished_at IS NULL
ORDER BY rebuild_number DESC LIMIT 1
"""

_BEGIN = """
INSERT INTO attribution_rebuilds (tenant_id, rebuild_number, from_log, step)
SELECT %(tenant)s, COALESCE(max(rebuild_number), 0) + 1, %(from_log)s, %(step)s
FROM attribution_rebuilds WHERE tenant_id = %(tenant)s
RETURNING tenant_id, rebuild_number, (extract(epoch FROM started_at) * 1000000)::int8
"""

_MOVE = """
UPDATE attribution_rebuilds
SET step = %s, after_tenant = %s, after_id = %s, looked_at = %s, changed = %s, updated_at = now(),
    finished_at = CASE WHEN %s THEN now() END
WHERE tenant_id = %s AND rebuild_number = %s
"""


def hold(connection: psycopg.Connection) -> None:
    """Keep other rebuilds away until the session ends.

    Raises:
        RebuildRunsError: another one is at work.
    """
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,)).fetchone()
    connection.commit()
    if not row or not row[0]:
        raise RebuildRunsError("another rebuild is at work in this database")


def take_up(connection: psycopg.Connection, tenant_id: str, first_step: str, *, from_log: bool) -> Rebuild:
    """Return the run of this kind that was cut short, or begin one.

    Args:
        connection: outside a transaction, or to be committed by the caller.
        tenant_id: the tenant of the conversions; ``EVERYBODY`` for all.
        first_step: where a new run begins.
        from_log: whether the log is read first.
    """
    row = connection.execute(_UNFINISHED, (tenant_id, from_log)).fetchone()
    if row is not None:
        tenant, number, log, step, after_tenant, after_id, looked_at, changed, started_at = row
        return Rebuild(
            tenant, number, log, step, (after_tenant, after_id), looked_at, changed, started_at, is_resumed=True
        )
    begun = connection.execute(
        _BEGIN, {"tenant": tenant_id, "from_log": from_log, "step": first_step}
    ).fetchone()  # fmt: skip
    assert begun is not None  # noqa: S101  # an INSERT of one row returns it
    return Rebuild(begun[0], begun[1], from_log, first_step, started_at=begun[2])


def note(connection: psycopg.Connection, run: Rebuild) -> None:
    """Write down where the run stands, in the caller's transaction."""
    values = (run.step, *run.after, run.looked_at, Jsonb(run.changed), run.step == "done")
    connection.execute(_MOVE, (*values, run.tenant_id, run.number))
