"""Carrying out erasures: one request a transaction, in the order of the log, when all older input is stored.

Invariant: level-triggered like every sweep. A crash before the commit changes nothing; after it, the commands that were
not sent are found again: versions by the sweep, tombstones and rows of the ledger here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.erasure.execute import Executed, Key, MoreToLockError, execute
from attributary.consumers.erasure.settings import KEY_VARIABLE, ErasureSettings, check_key
from attributary.consumers.runtime.crash_points import crash_at, register_points
from attributary.consumers.runtime.errors import Retry
from attributary.consumers.store.erasure import ledger
from attributary.consumers.store.erasure.amounts import expire_amounts
from attributary.consumers.store.erasure.ledger import LedgerRow
from attributary.consumers.store.erasure.tombstones import overdue_tombstones
from attributary.consumers.store.erasure.transaction import ErasureTransaction
from attributary.consumers.store.events.rows import RaisedVersion
from attributary.consumers.store.session import StoreSession

from . import metrics

register_points("erasure_before_commit", "erasure_after_commit", "erasure_before_ledger_published")

_log = structlog.get_logger()

_MAX_TRIES = 10
_PAGE = 500  # rows of the ledger a turn
_TURN = 200  # requests a turn
# The topic's max.compaction.lag.ms, and a day: by then the tombstone can be compacted once its segment rolls.
REPEAT_SECONDS = 15 * 86_400.0


class ErasureQueue:
    """Carries out what is due.

    Args:
        settings: the key, and how long amounts are kept.
        session: with staging tables; its own, for its planner settings.
        policy_version: the lookback policy that new versions pin.
        send: sends commands.
        publish: writes rows of the ledger to their topic, and returns when the brokers have them.
    """

    def __init__(
        self,
        settings: ErasureSettings,
        session: StoreSession,
        policy_version: str,
        send: Callable[[Sequence[RaisedVersion]], None],
        publish: Callable[[Sequence[LedgerRow]], None],
    ) -> None:
        self._settings = settings
        self._hasher = settings.hasher()
        self._session = session
        self._policy_version = policy_version
        self._send = send
        self._publish = publish

    def turn(self, stored_until_us: int | None, repair_after_seconds: float) -> int:
        """Carry out requests that are due, and what follows from them; return how many were carried out.

        Args:
            stored_until_us: all input that arrived before is stored, microseconds UTC; None: that is not known.
            repair_after_seconds: a tombstone that was not seen for so long is asked for again.

        Raises:
            ConfigError: the ledger has rows, and the key is missing or another one.
            Retry: Postgres or Kafka is away.
        """
        done = 0
        with map_errors(), self._session.transaction() as connection:
            check_key(ledger.ledger_key_id(connection), self._hasher)
            waiting, oldest = ledger.open_requests(connection)
        if self._hasher is None and waiting:
            _log.error("requests to erase people wait: the key is not set", variable=KEY_VARIABLE, requests=waiting)
        while self._hasher is not None and stored_until_us is not None and waiting and done < _TURN:
            executed = self._execute(stored_until_us)
            if executed is None:
                break
            done += 1
            metrics.erasures_executed.inc()
            self._send([*executed.raised, *executed.tombstones])
        self._publish_ledger()
        self._follow_up(repair_after_seconds)
        metrics.erasures_open.set(waiting)
        metrics.erasures_oldest_seconds.set(oldest)
        metrics.erasures_overdue.set(float(oldest > self._settings.deadline_days * 86_400))
        if done:
            _log.info("people erased", requests=done)
        return done

    def _execute(self, stored_until_us: int) -> Executed | None:
        more_keys: set[Key] = set()
        for _ in range(_MAX_TRIES):
            try:
                with map_errors(), self._session.transaction() as connection:
                    request = ledger.claim_request(connection, stored_until_us)
                    if request is None or self._hasher is None:
                        return None
                    self._session.keep_plans()
                    transaction = ErasureTransaction(connection, REPEAT_SECONDS)
                    done = execute(transaction, request, self._hasher, self._policy_version, more_keys)
                    crash_at("erasure_before_commit")
            except MoreToLockError as grew:
                more_keys |= set(grew.keys)
            else:
                crash_at("erasure_after_commit")
                return done
        raise Retry("other writers kept changing the same people", 0.1)

    def _publish_ledger(self) -> None:
        """Write rows of the ledger to their topic; those that changed meanwhile come again."""
        while True:
            with map_errors(), self._session.transaction() as connection:
                rows = ledger.unpublished(connection, _PAGE)
            if not rows:
                return
            self._publish([row for row, _ in rows])
            crash_at("erasure_before_ledger_published")
            with map_errors(), self._session.transaction() as connection:
                ledger.mark_published(connection, [mark for _, mark in rows])
            if len(rows) < _PAGE:
                return

    def _follow_up(self, repair_after_seconds: float) -> None:
        with map_errors(), self._session.transaction() as connection:
            overdue = overdue_tombstones(connection, repair_after_seconds, _PAGE)
            finished = ledger.complete_requests(connection)
            expire_amounts(connection, self._settings.amount_days)
        self._send(overdue)
        for seconds in finished:
            metrics.erasure_seconds.observe(seconds)


def ledger_record(row: LedgerRow) -> dict[str, object]:
    """Return a row of the ledger as its topic carries it."""
    tenant_id, kind, id_hash = row.hashed
    suppressed = [each for begin, end in row.entry.suppressed for each in (begin, end) if each is not None]
    return {
        "tenant_id": tenant_id,
        "kind": kind,
        "id_hash": id_hash.hex(),
        "key_id": row.key_id,
        "cutoffs": list(row.entry.cutoffs),
        "suppressed": suppressed,
        "request_id": row.request_id,
    }
