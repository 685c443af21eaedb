"""Types of conversion that stand still: their destination does not know, or not allow, the event name they go under.

Contract: `poll` brings the sender's memory in line with the ledger, lets one event try a stopped name when its time has
come, and makes what is held for a name that is stopped no more pending; it raises only what the ledger raises.
Invariants:

- a name is stopped as long as its row stands in the ledger: a refusal writes it; a delivery, `attributary destinations
  resume` or settings that no longer name it take it away;
- a process lets go only of what lies in its own partitions, so every process finds what it has held;
- held events are never lost: they become pending, and what cannot be read from Kafka any more is told as expired.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from attributary.consumers.destinations import metrics
from attributary.consumers.destinations.ad_platform import AdPlatform

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from attributary.consumers.destinations.destination import Account, Destination
    from attributary.consumers.destinations.sender import BatchSender
    from attributary.consumers.destinations.transport import Clock
    from attributary.consumers.forwarder.backlog import Backlog
    from attributary.consumers.store.deliveries.delivery import Ledger, Positions, Queue, StoppedName

_log = structlog.get_logger()

_LOOK_SECONDS = 30.0  # between two looks into the ledger
_CANDIDATES = 64  # of which one tries a name; a correction never does, and those that do not are held again unsent


class StoppedTypes:
    """Watches the stopped event names of one destination.

    Args:
        destination: its rules.
        sender: has the accounts' state.
        ledger: knows what is stopped and what is held.
        account_of: gives the account of a queue, None when the settings have it no more.
        clock: where time comes from.
        backlog: gets the queues with deliveries that go again.
    """

    def __init__(
        self,
        destination: Destination,
        sender: BatchSender,
        ledger: Ledger,
        account_of: Callable[[Queue], Account | None],
        clock: Clock,
        backlog: Backlog,
    ) -> None:
        self._destination = destination
        self._sender = sender
        self._ledger = ledger
        self._account_of = account_of
        self._clock = clock
        self._backlog = backlog
        self._look_at = 0.0

    def poll(self, partitions: Sequence[tuple[str, int]]) -> None:
        """Look what has changed.

        Args:
            partitions: topic and number of those that this process reads.
        """
        now = self._clock.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_SECONDS
        rows = self._ledger.stopped_names(self._destination.name)
        over = [row for row in rows if self._is_over(row)]
        self._ledger.resume_names(over)
        standing = [row for row in rows if row not in over]
        self._take_over(standing)
        metrics.forward_names_stopped.labels(self._destination.name).set(len(standing))
        places = self._backlog.places(partitions)
        for row in standing:
            self._try(row, places)
        self._let_go(places)

    def _is_over(self, row: StoppedName) -> bool:
        """Return whether a name was taken again, or is named no more."""
        if (account := self._account_of(row.queue)) is None:
            return False
        if self._sender.limiter(account).name_stops.is_resumed(row.event_name):
            why = "the destination takes it again"
        elif isinstance(self._destination, AdPlatform) and not self._destination.types_named(row.event_name, account):
            why = "the settings name it no more"
        else:
            return False
        _log.info(
            "event name goes again",
            destination=self._destination.name,
            tenant_id=row.tenant_id,
            account=account.account_id,
            event_name=row.event_name,
            why=why,
        )
        return True

    def _take_over(self, rows: Sequence[StoppedName]) -> None:
        """Make the sender's memory of each account what the ledger says."""
        reasons: dict[int, dict[str, str]] = {}
        for row in rows:
            if (account := self._account_of(row.queue)) is not None:
                reasons.setdefault(id(self._sender.limiter(account)), {})[row.event_name] = row.reason
        for limiter in self._sender.limiters():
            limiter.name_stops.replace(reasons.get(id(limiter), {}))

    def _try(self, row: StoppedName, places: Positions) -> None:
        """Let one of a few events try a name when its time has come."""
        account = self._account_of(row.queue)
        if account is None or row.retry_at > self._clock.now_micros():
            return
        now = self._clock.monotonic()
        if not self._sender.limiter(account).name_stops.begin_trial(row.event_name, now):
            return
        if self._ledger.release(row.queue, row.event_name, places, limit=_CANDIDATES):
            self._backlog.leave(row.queue, now, 0.0)

    def _let_go(self, places: Positions) -> None:
        """Make what is held for names that are not stopped pending."""
        now = self._clock.monotonic()
        for held in self._ledger.held(self._destination.name, places):
            account = self._account_of(held.queue)
            if account is None or self._sender.limiter(account).name_stops.get(held.event_name) is not None:
                continue
            released = self._ledger.release(held.queue, held.event_name, places)
            self._backlog.leave(held.queue, now, 0.0, held.oldest_at)
            _log.info(
                "held events go",
                destination=self._destination.name,
                tenant_id=held.queue.tenant_id,
                event_name=held.event_name,
                events=released,
            )
