"""One sweep: pure decisions over Postgres, commands as its result.

Invariant: a sweep is level-triggered and may run any number of times, in several processes at once, and after any
crash: what it re-issues is a command, which does no harm when doubled; what it finalises is decided by row locks.
Whatever lost a command (a torn transaction, a failed broker) is healed by the next sweep.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from attributary.attribution_core.lookback import LookbackPolicy
from attributary.consumers.store.rows import RaisedVersion
from attributary.consumers.store.sweeping import Backlog, backlog, close_journeys, finalise, overdue

_LIMIT = 5_000


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one sweep did."""

    backlog: Backlog
    repaired: list[RaisedVersion]
    finalised: list[RaisedVersion]
    closed: int
    closing_seconds: float = 0.0

    @property
    def is_full(self) -> bool:
        """Whether a limit was reached: sweep again at once.

        Repairs do not count: asking faster for what the attributor cannot answer now would only bury it.
        """
        return max(len(self.finalised), self.closed) >= _LIMIT


def sweep(
    connection: psycopg.Connection,
    policy: LookbackPolicy,
    *,
    now_us: int,
    repair_after_seconds: float | None,
    grace_us: int,
    closes: bool = True,
    checkpoint: Callable[[], None] = lambda: None,
) -> Sweep:
    """Run one sweep in the caller's transaction.

    Args:
        connection: in a transaction.
        policy: the lookback policy in force.
        now_us: the time, microseconds UTC.
        repair_after_seconds: a version without a result is overdue after so long; None: ask for none this time.
        grace_us: how much longer than the policy's lateness and inactivity to wait, microseconds: events that are in
            the log already, but not consumed yet.
        closes: look for journeys to close, too.
        checkpoint: called between the steps, for fault tests.
    """
    owed = backlog(connection)
    late = (
        []
        if repair_after_seconds is None or not owed.conversions
        else overdue(connection, repair_after_seconds, _LIMIT)
    )
    checkpoint()
    final = finalise(
        connection,
        due_before_us=now_us - policy.lateness_micros - grace_us,
        now_us=now_us,
        policy_version=policy.version,
        limit=_LIMIT,
    )
    checkpoint()
    started = time.monotonic()
    silent_since_us = now_us - policy.inactivity_micros - grace_us
    closed = close_journeys(connection, silent_since_us=silent_since_us, limit=_LIMIT) if closes else 0
    return Sweep(owed, late, final, closed, time.monotonic() - started)
