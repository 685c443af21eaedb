"""One sweep: pure decisions over Postgres, commands as its result.

Invariants: a sweep is level-triggered and may run any number of times, in several processes at once, and after any
crash: what it re-issues is a command, which does no harm when doubled; what it finalises is decided by row locks.
Whatever lost a command (a torn transaction, a failed broker) is healed by the next sweep. A sweep never runs ahead of
the log: nothing becomes final, and no journey is closed, before everything that arrived by then is stored; and nothing
is taken for lost that may wait in a topic.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from attributary.attribution_core.domain.lookback import LookbackPolicy
from attributary.consumers.store.events.policy_activations import longest_lateness
from attributary.consumers.store.events.rows import RaisedVersion
from attributary.consumers.store.events.sweep import Backlog, backlog, close_journeys, finalise, overdue

_LIMIT = 5_000


@dataclass(frozen=True, slots=True)
class UnreadAges:
    """How long the oldest record has waited that a stage has not dealt with; microseconds, 0: none, None: not known.

    Attributes:
        input_us: of touchpoints, conversions and links that the stitcher has not stored.
        answers_us: of these, of commands that the attributor has not answered and of results that the auditor has not
            stored: what was raised before that time has been through all three.
    """

    input_us: int | None = 0
    answers_us: int | None = 0


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
    unread: UnreadAges,
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
        unread: what waits in the log; learnt before this transaction began.
        now_us: the time, microseconds UTC.
        repair_after_seconds: a version without a result is overdue after so long; None: ask for none this time.
        grace_us: how much longer than the policy's lateness and inactivity to wait, microseconds: clocks that differ,
            and records of transactions that are not committed yet.
        closes: look for journeys to close, too.
        checkpoint: called between the steps, for fault tests.
    """
    pending = backlog(connection)
    late: list[RaisedVersion] = []
    if repair_after_seconds is not None and unread.answers_us is not None and pending.conversions:
        late = overdue(connection, repair_after_seconds + unread.answers_us / 1e6, _LIMIT)
    checkpoint()
    if unread.input_us is None:
        return Sweep(pending, late, [], 0)
    stored_until_us = now_us - unread.input_us - grace_us
    final = finalise(
        connection,
        due_before_us=stored_until_us - longest_lateness(connection, policy),
        now_us=now_us,
        policy_version=policy.version,
        limit=_LIMIT,
    )
    checkpoint()
    started = time.monotonic()
    silent_since_us = stored_until_us - policy.inactivity_micros
    closed = close_journeys(connection, silent_since_us=silent_since_us, limit=_LIMIT) if closes else 0
    return Sweep(pending, late, final, closed, time.monotonic() - started)
