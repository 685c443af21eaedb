"""What Postgres tells about an installation; every check opens a connection of its own and only reads."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors

from attributary.attribution_core.domain.policy_parts import TRAINED_MODELS
from attributary.consumers.store.cells.moves import all_moves
from attributary.consumers.store.connection import (
    StoreUnavailable,
    check_dsn,
    connect,
    translated_errors,
    with_timeouts,
)
from attributary.consumers.store.events.sweep import backlog
from attributary.consumers.store.migrate import status
from attributary.consumers.store.models.model_states import OK, list_states
from attributary.consumers.store.offsets import all_positions

from .report import Finding, Level, counted, duration

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECONDS = 4.0  # below the time that a check has, so that Postgres ends what nobody waits for any more
_PENDING_SECONDS = 120.0
_DELIVERY_SECONDS = 3_600.0
_STUCK_SECONDS = 1_800.0  # a step of a move takes minutes
_UNRELAYED_SECONDS = 2 * 86_400.0
_SHOWN_TENANTS = 3
_BUSY_SHARE = 0.8

_SERVER = """
SELECT current_setting('server_version'), pg_is_in_recovery(), current_setting('max_connections')::int,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
       pg_database_size(current_database())
"""
_PROCESSES = """
SELECT application_name, count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'attributary-%%' GROUP BY application_name
"""
_PROGRESS = """
SELECT consumer_group, extract(epoch FROM now() - max(updated_at))::float8 FROM attribution_positions
WHERE tenant_id = '*' GROUP BY consumer_group
"""
# One probe of the index a tenant, not a scan of all journeys.
_TENANTS = """
WITH RECURSIVE t AS (
    (SELECT tenant_id FROM attribution_journeys ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT j.tenant_id FROM attribution_journeys j WHERE j.tenant_id > t.tenant_id ORDER BY 1 LIMIT 1)
    FROM t WHERE t.tenant_id IS NOT NULL
)
SELECT tenant_id FROM t WHERE tenant_id IS NOT NULL LIMIT 1000
"""
_OPEN = """
SELECT (min(received_at_us) / 1e6)::float8 FROM attribution_conversions WHERE NOT is_final AND version > 0
"""
_UNDELIVERED = """
SELECT destination, state, COALESCE(reason, ''), count(*), extract(epoch FROM now() - min(occurred_at))::float8
FROM attribution_deliveries WHERE state IN ('pending', 'held', 'uncertain', 'rejected')
GROUP BY 1, 2, 3 ORDER BY 1, 2, 4 DESC
"""


@dataclass(frozen=True, slots=True)
class Places:
    """What Postgres knows of the stages.

    Attributes:
        offsets: next offset by (group, topic, partition).
        idle_seconds: by group, how long ago it last stored an offset.
        processes: open connections by stage.
    """

    offsets: Mapping[tuple[str, str, int], int]
    idle_seconds: Mapping[str, float]
    processes: Mapping[str, int]


@contextmanager
def _opened(dsn: str) -> Iterator[psycopg.Connection]:
    limited = with_timeouts(dsn, statement_seconds=_SECONDS, lock_seconds=_SECONDS)
    try:
        with translated_errors(), connect(limited, application_name="attributary-status") as connection:
            connection.read_only = True
            yield connection
    except (errors.UndefinedTable, errors.UndefinedColumn):
        raise StoreUnavailable("a migration is missing") from None
    except errors.InsufficientPrivilege:
        raise StoreUnavailable("the user of DATABASE_URL may not read it") from None


def check_postgres(dsn: str) -> Sequence[Finding]:
    """Tell version, size and free connections, and whether it takes writes."""
    parts = check_dsn(dsn)
    with _opened(dsn) as connection:
        version, only_reads, most, used, size = _row(connection, _SERVER)
    place = f"{parts.get('host') or 'local socket'}:{parts.get('port', 5432)}, database {parts.get('dbname', '')}"
    if len(place) > 60:
        place = f"database {parts.get('dbname', '')}"  # a socket's path
    facts = {"version": version, "connections": used, "max_connections": most, "bytes": size}
    text = f"{version.split()[0]} at {place}, {size / 1e6:,.0f} MB"
    if only_reads:
        return [Finding("postgres", Level.BAD, f"{text}: only reads", "it is a replica", "name the primary", facts)]
    if used > most * _BUSY_SHARE:
        cause = f"{used} of {most} connections are open"
        return [Finding("postgres", Level.WARNING, text, cause, "raise max_connections, or use a pooler", facts)]
    return [Finding("postgres", Level.GOOD, text, facts=facts)]


def check_migrations(dsn: str) -> Sequence[Finding]:
    """Compare the database's migrations with those of this code."""
    with _opened(dsn) as connection:
        found = status(connection, may_be_newer=True)
        newer = len(_numbers(connection)) - len(found.applied) if found.applied else 0
    facts = {"applied": len(found.applied), "pending": list(found.pending), "newer": newer}
    if found.pending:
        text = f"{counted(len(found.pending), 'migration')} missing"
        cause = f"{found.pending[0]} was not applied"
        return [Finding("migrations", Level.BAD, text, cause, "run: attributary db migrate", facts)]
    if newer > 0:
        text = "the database is newer than this code"
        cause = f"it has {counted(newer, 'migration')} that this code does not know"
        return [Finding("migrations", Level.WARNING, text, cause, "upgrade Attributary here", facts)]
    return [Finding("migrations", Level.GOOD, f"all {len(found.applied)} applied", facts=facts)]


def check_results(dsn: str) -> Sequence[Finding]:
    """Tell which results are still to come, and how far the sweeper has made conversions final."""
    with _opened(dsn) as connection:
        pending = backlog(connection)
        oldest = _row(connection, _OPEN)[0]
    age = None if oldest is None else time.time() - oldest
    facts = {"pending": pending.conversions, "oldest_seconds": pending.oldest_seconds, "oldest_open_seconds": age}
    final = "" if age is None else f"; final but for the last {duration(age)}"
    if pending.conversions == 0:
        return [Finding("results", Level.GOOD, f"all published{final}", facts=facts)]
    text = f"{counted(pending.conversions, 'result')} to come, the oldest for {duration(pending.oldest_seconds)}{final}"
    if pending.oldest_seconds < _PENDING_SECONDS:
        return [Finding("results", Level.GOOD, text, facts=facts)]
    cause = "attributor, auditor or sweeper do not keep up, or do not run"
    return [Finding("results", Level.WARNING, text, cause, "see their lines above, and their logs", facts)]


def check_models(dsn: str) -> Sequence[Finding]:
    """Tell by tenant which trained models are in force, and what the others lack."""
    with _opened(dsn) as connection:
        tenants = [row[0] for row in connection.execute(_TENANTS).fetchall()]
        states = list_states(connection, None, None)
    if not tenants:
        return [Finding("models", Level.NOTE, "no event is stored yet", cure="publish some: docs/how-to/publish.md")]
    active = {(each.tenant_id, each.model): each.version for each in states if each.is_active}
    newest = {(each.tenant_id, each.model): each for each in reversed(states)}
    lacking: list[str] = []
    for tenant in tenants:
        for model in TRAINED_MODELS:
            if (tenant, model) in active:
                continue
            known = newest.get((tenant, model))
            if known is None:
                lacking.append(f"{tenant}: {model} is not trained")
            elif known.status in {None, OK}:
                lacking.append(f"{tenant}: {model} {known.version} is not activated")
            else:
                lacking.append(f"{tenant}: {model} {known.version}: {known.status}")
    facts = {"tenants": len(tenants), "active": [list(each) for each in sorted(active)], "lacking": lacking[:100]}
    text = f"{counted(len(tenants), 'tenant')}, {len(active)} of {len(tenants) * len(TRAINED_MODELS)} models in force"
    if not lacking:
        return [Finding("models", Level.GOOD, text, facts=facts)]
    more = len(lacking) - _SHOWN_TENANTS
    cause = "; ".join(lacking[:_SHOWN_TENANTS]) + (f"; and {more} more" if more > 0 else "")
    cure = "the fallback rule credits until then: attributary models train, then activate (docs/how-to/train.md)"
    return [Finding("models", Level.NOTE, text, cause, cure, facts)]


def check_deliveries(dsn: str) -> Sequence[Finding]:
    """Tell by destination what is not delivered, and why."""
    with _opened(dsn) as connection:
        rows = connection.execute(_UNDELIVERED).fetchall()
    rows = [row for row in rows if not row[0].endswith(".secret")]
    if not rows:
        return [Finding("deliveries", Level.GOOD, "nothing waits, nothing was refused")]
    findings = []
    for destination in sorted({row[0] for row in rows}):
        ours = [row for row in rows if row[0] == destination]
        sums: dict[str, int] = {}
        for row in ours:
            sums[row[1]] = sums.get(row[1], 0) + row[3]
        oldest = max((row[4] for row in ours if row[1] == "pending"), default=0.0)
        text = f"{destination}: " + ", ".join(f"{count:,} {state}" for state, count in sorted(sums.items()))
        reason = next((row[2] for row in ours if row[1] == "pending" and row[2]), "") or ours[0][2]
        facts: dict[str, Any] = {"destination": destination, "oldest_pending_seconds": oldest, **sums}
        if oldest > _DELIVERY_SECONDS:
            text += f", the oldest for {duration(oldest)}"
            cause = reason or "its forwarder does not run, or its account is stopped"
            cure = f"attributary forward retry --destination {destination.partition(':')[0]} --state pending"
            findings.append(Finding("deliveries", Level.WARNING, text, cause, f"repair the cause, then: {cure}", facts))
        elif sums.get("held"):
            cause = next(row[2] for row in ours if row[1] == "held") or "the destination does not take an event name"
            cure = "attributary destinations list; correct the setting, or attributary destinations resume"
            findings.append(Finding("deliveries", Level.WARNING, text, cause, cure, facts))
        else:
            level = Level.NOTE if sums.keys() - {"pending"} else Level.GOOD
            cure = "attributary forward status; attributary forward explain EVENT_ID"
            findings.append(Finding("deliveries", level, text, reason, cure, facts))
    return findings


def check_moves(dsn: str) -> Sequence[Finding]:
    """Tell of tenants that move to another installation: how far each is, and which one got stuck."""
    with _opened(dsn) as connection:
        moves = [move for move in all_moves(connection) if move.state not in {"moved", "arrived"}]
        now = _row(connection, "SELECT now()")[0]
    findings = []
    for move in moves:
        since, begun = ((now - at).total_seconds() if at else 0.0 for at in (move.updated_at, move.created_at))
        facts = {"tenant_id": move.tenant_id, "state": move.state, "seconds": since, "begun_seconds": begun}
        text = f"tenant {move.tenant_id} is {move.state} on its way to {move.other_cell or 'no prefix'}"
        again = "run attributary cell move-tenant again"
        if move.state != "relaying" and since > _STUCK_SECONDS:
            cause = f"the command was cut short {duration(since)} ago; the tenant gets no results"
            findings.append(Finding("moves", Level.WARNING, text, cause, again, facts))
        elif move.state == "relaying" and since > _UNRELAYED_SECONDS:
            cause = f"nothing was relayed for {duration(since)}; the input topics keep 7 days"
            findings.append(Finding("moves", Level.WARNING, text, cause, f"{again}, then with --finish", facts))
        else:
            findings.append(Finding("moves", Level.NOTE, text, "", f"{again}; at last with --finish", facts))
    return findings


def read_places(dsn: str) -> Places:
    """Read offsets, progress and processes of the stages."""
    with _opened(dsn) as connection:
        offsets = {(group, topic, part): offset for group, topic, part, offset in all_positions(connection)}
        idle = dict(connection.execute(_PROGRESS).fetchall())
        counts = dict(connection.execute(_PROCESSES, ()).fetchall())
    return Places(offsets, idle, {name.removeprefix("attributary-"): number for name, number in counts.items()})


def _numbers(connection: psycopg.Connection) -> Sequence[Any]:
    return connection.execute("SELECT number FROM attribution_migrations").fetchall()


def _row(connection: psycopg.Connection, statement: str) -> Sequence[Any]:
    row = connection.execute(statement).fetchone()
    if row is None:
        raise StoreUnavailable("Postgres gave no answer")
    return row
