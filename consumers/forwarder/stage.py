"""The forwarder as a stage: conversions from Kafka to one destination, one consumer group a destination.

Contract (`runtime.stage.Stage`, `LeavesBehind`): a batch is decoded, validated, written into the ledger, sent, and its
rejected records given back as dead letters. Invariants:

- the ledger is written before anything is sent, so a crash or a replay sends nothing twice that the destination would
  count twice;
- what is wrong outside the record (an outage, a rate limit, dead credentials, Postgres away) is never dead-lettered:
  the records stay in Kafka and come again, or stay pending in the ledger and are read again by their coordinates;
- no account holds up another: what must wait is left behind (`backlog`), in its order. Only where one account serves
  everybody does the partition wait for it;
- an event that is refused is dead-lettered only when the account delivers others (`rate_limiter`);
- an event name that the destination does not take holds its events in the ledger, and nothing else (`stopped_types`);
- every event ends in the ledger in exactly one state, with the reason.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.destinations import metrics
from attributary.consumers.destinations.destination import NotSent, PreparedEvent
from attributary.consumers.destinations.sender import REFUSES_EVERYTHING, Shipment
from attributary.consumers.forwarder.backlog import Backlog
from attributary.consumers.forwarder.stopped_types import StoppedTypes
from attributary.consumers.forwarder.tasks import (
    FINAL,
    Route,
    Tasks,
    as_before,
    counted,
    dead_letters,
    gone,
    new_delivery,
    source_of,
    told,
)
from attributary.consumers.forwarder.verdicts import LateVerdicts
from attributary.consumers.runtime.crash_points import crash_at, register_points
from attributary.consumers.runtime.dead_letters import check_poison_share
from attributary.consumers.runtime.errors import Retry
from attributary.consumers.runtime.records import Outcome
from attributary.consumers.store.connection import StoreUnavailable
from attributary.consumers.store.deliveries.delivery import DeliveryKey, DeliveryOutcome, DeliveryState, Queue
from attributary.schemas.topics import CONVERSIONS, group_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from attributary.consumers.destinations.destination import Account
    from attributary.consumers.destinations.sender import BatchSender
    from attributary.consumers.destinations.transport import Clock
    from attributary.consumers.destinations.validation_probe import ValidationProbe
    from attributary.consumers.forwarder.record_reader import RecordReader
    from attributary.consumers.forwarder.tasks import Task
    from attributary.consumers.runtime.records import Record
    from attributary.consumers.store.deliveries.delivery import Delivery, Ledger, Source

__all__ = ["ForwarderStage", "Route"]

register_points("forwarder_after_ledger", "forwarder_before_kafka_commit")

_log = structlog.get_logger()

# What was left behind gets so much of a turn: little beside new events, more when there are none.
_SHARE_SECONDS = 1.0
_IDLE_SHARE_SECONDS = 5.0
_READ_SECONDS, _MAX_READ_SECONDS = 2.0, 15.0
_PORTION = 2_000  # deliveries
_REFUSED_SECONDS, _UNKNOWN_ACCOUNT_SECONDS = 60.0, 3_600.0


class ForwarderStage:
    """Forwards conversions to one destination.

    Args:
        route: where events go.
        sender: carries them.
        ledger: what became of them.
        clock: where time comes from.
        validation_probe: probes of new shapes of events and of changed secrets; None without.
        reader: reads records again by their coordinates; None: what is left behind stays so.
    """

    topics: Sequence[str] = (CONVERSIONS,)
    output_topics: Sequence[str] = ()
    fetch_min_bytes = 65_536  # or what is there after half a second: nobody waits for a delivery to that

    def __init__(
        self,
        route: Route,
        sender: BatchSender,
        ledger: Ledger,
        clock: Clock,
        validation_probe: ValidationProbe | None = None,
        reader: RecordReader | None = None,
    ) -> None:
        self._route = route
        self._sender = sender
        self._ledger = ledger
        self._clock = clock
        self._validation_probe = validation_probe
        self._reader = reader
        self._tasks = Tasks(route)
        self._backlog = Backlog(ledger, route.destination.name)
        self._verdicts = LateVerdicts(route.destination, sender, ledger, self._account, clock)
        self._stopped_types = StoppedTypes(route.destination, sender, ledger, self._account, clock, self._backlog)
        self._read_seconds = _READ_SECONDS
        self._ready = True
        self._oldest_waiting: int | None = None
        self.name = f"forwarder_{route.destination.name}"
        self.group = group_name(f"forwarder.{route.destination.name}")
        self.max_records = route.max_records

    def stored_positions(self, partitions: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], int]:  # noqa: ARG002  # the protocol's
        """The ledger remembers events, not offsets; Kafka's own are the position."""
        return {}

    def read_from(self, starts: Mapping[tuple[str, int], int]) -> None:
        """Note where partitions are read from: what is pending before comes by the ledger."""
        self._backlog.read_from(starts)

    def is_ready(self) -> bool:
        """Tell whether the ledger answered last time. A destination that is away does not make us unready."""
        return self._ready

    def close(self) -> None:
        """Give back connections and threads."""
        self._sender.close()
        if self._reader is not None:
            self._reader.close()

    def has_account(self, key: DeliveryKey) -> bool:
        """Tell whether the settings have the account of a delivery."""
        return self._account(Queue(key.tenant_id, key.destination)) is not None

    def _account(self, queue: Queue) -> Account | None:
        accounts = self._route.credentials.accounts(queue.tenant_id)
        return next((account for account in accounts if account.ledger_name == queue.destination), None)

    def handle(self, batch: Sequence[Record]) -> Outcome:
        """Forward a batch.

        Raises:
            Retry: something must wait; what was sent is in the ledger and is not sent again.
        """
        if self._route.credentials.serves_one_account and (hold := self._sender.hold()):
            self._show_waiting()
            raise Retry(f"{self._route.destination.name}: {hold.reason}", hold.seconds, is_exact=True)
        with self._answering_ledger():
            return self._forward(batch)

    @contextmanager
    def _answering_ledger(self) -> Iterator[None]:
        with map_errors():
            try:
                yield
            except StoreUnavailable:
                self._ready = False
                raise
        self._ready = True

    def _forward(self, batch: Sequence[Record]) -> Outcome:
        self._backlog.load(self._clock.monotonic())
        outcome = Outcome()
        tasks = self._tasks.read(batch, outcome, self._clock.now_micros())
        check_poison_share(outcome.dead_letters, len(batch), self._route.max_poison_share)
        behind = {key for key in tasks if self._backlog.has(key)}
        known = self._ledger.claim([new_delivery(key, task, waits=key in behind) for key, task in tasks.items()])
        crash_at("forwarder_after_ledger")
        settled = self._tasks.settled_unsent(tasks, known, self._clock.now_micros())
        self._ledger.settle(settled)
        done = {outcome.key for outcome in settled} | {key for key, row in known.items() if row.state in FINAL}
        ready = {key: tasks[key] for key in tasks.keys() - done - behind}
        settled += self._send(ready, known, self._sender.turn_ends())
        self._ledger.settle([outcome for outcome in settled if outcome.state is DeliveryState.REJECTED])
        self._report(tasks, known, settled)
        outcome.dead_letters += dead_letters(tasks, known, settled)
        self._wait_or_leave(tasks, settled)
        self._backlog.wake({tasks[key].queue for key in behind - done}, self._clock.monotonic())
        self._backlog.passed({(record.topic, record.partition): record.offset + 1 for record in batch})
        self._show_waiting()
        crash_at("forwarder_before_kafka_commit")
        return outcome

    def _send(
        self, tasks: Mapping[DeliveryKey, Task], known: Mapping[DeliveryKey, Delivery], deadline: float
    ) -> list[DeliveryOutcome]:
        """Send what can be sent; give what became of it."""
        events: dict[Queue, list[PreparedEvent]] = {}
        accounts: dict[Queue, Account] = {}
        doubtful: dict[Queue, set[str]] = {}
        for key, task in tasks.items():
            if isinstance(task.prepared, PreparedEvent):
                events.setdefault(task.queue, []).append(task.prepared)
                accounts[task.queue] = task.account
                if (row := known.get(key)) is not None and row.in_flight:
                    doubtful.setdefault(task.queue, set()).add(key.event_id)
        if self._validation_probe is not None:
            for queue, found in events.items():
                self._validation_probe.probe(accounts[queue], found)
        shipments = [
            Shipment(accounts[queue], found, frozenset(doubtful.get(queue, ()))) for queue, found in events.items()
        ]
        return self._sender.deliver(shipments, deadline)

    def _wait_or_leave(self, tasks: Mapping[DeliveryKey, Task], settled: Sequence[DeliveryOutcome]) -> None:
        """Leave behind what must wait.

        Where one account serves everybody the partition waits for it instead, unless it refuses everything: then good
        events may lie behind the refused ones.

        Raises:
            Retry: the partition must wait.
        """
        waiting = [outcome for outcome in settled if outcome.state is DeliveryState.PENDING]
        leaves_all = not self._route.credentials.serves_one_account
        left = [o for o in waiting if leaves_all or (o.reason or "").startswith(REFUSES_EVERYTHING)]
        left_keys = {outcome.key for outcome in left}
        queues = {tasks[outcome.key].queue for outcome in left}
        stay = [o for o in waiting if o.key not in left_keys and tasks[o.key].queue not in queues]
        self._leave([outcome for outcome in waiting if tasks[outcome.key].queue in queues], tasks)
        self._oldest_waiting = min((tasks[outcome.key].conversion["occurred_at"] for outcome in stay), default=None)
        if stay:
            self._show_waiting()
            hold = self._sender.limiter(tasks[stay[0].key].account).hold_at(self._clock.monotonic())
            reason = hold.reason if hold else "out of time for this turn"
            raise Retry(f"{self._route.destination.name}: {reason}", hold.seconds if hold else 0.1, is_exact=True)

    def _leave(self, outcomes: Sequence[DeliveryOutcome], tasks: Mapping[DeliveryKey, Task]) -> None:
        """Leave deliveries behind, each with its reason in the ledger."""
        self._ledger.settle(outcomes)
        now = self._clock.monotonic()
        for queue in dict.fromkeys(tasks[outcome.key].queue for outcome in outcomes):
            mine = [outcome for outcome in outcomes if tasks[outcome.key].queue == queue]
            hold = self._sender.limiter(tasks[mine[0].key].account).hold_at(now)
            is_refused = any((outcome.reason or "").startswith(REFUSES_EVERYTHING) for outcome in mine)
            seconds = max(hold.seconds if hold else 0.0, _REFUSED_SECONDS if is_refused else 0.0)
            oldest = min(tasks[outcome.key].conversion["occurred_at"] for outcome in mine)
            self._backlog.leave(queue, now, seconds, oldest)
            _log.warning(
                "events left pending",
                destination=self._route.destination.name,
                tenant_id=queue.tenant_id,
                events=len(mine),
                why=mine[0].reason,
                seconds=round(seconds, 1),
            )

    def catch_up(self, partitions: Sequence[tuple[str, int]], *, is_idle: bool) -> Outcome:
        """Send some of what these partitions have left behind, the queue that waits longest first.

        Raises:
            Retry: the ledger or Kafka is away.
        """
        outcome = Outcome()
        with self._answering_ledger():
            self._verdicts.poll()
            self._stopped_types.poll(partitions)
            if self._reader is None or (self._route.credentials.serves_one_account and self._sender.hold()):
                return outcome
            now = self._clock.monotonic()
            self._backlog.load(now)
            end = now + (_IDLE_SHARE_SECONDS if is_idle else _SHARE_SECONDS)
            rejected: list[DeliveryOutcome] = []
            while now < end and (queue := self._backlog.next_due(now, {Queue(*o.key[:2]) for o in rejected})):
                rejected += self._catch_up_queue(queue, partitions, end, outcome)
                now = self._clock.monotonic()
        if rejected:
            outcome.on_committed = lambda: self._settle(rejected)
        self._show_waiting()
        return outcome

    def _settle(self, outcomes: Sequence[DeliveryOutcome]) -> None:
        with self._answering_ledger():
            self._ledger.settle(outcomes)

    def _catch_up_queue(
        self, queue: Queue, partitions: Sequence[tuple[str, int]], end: float, outcome: Outcome
    ) -> list[DeliveryOutcome]:
        """Send a portion of a queue; return its rejections, which are settled after their dead letters."""
        account, now = self._account(queue), self._clock.monotonic()
        if account is None:
            self._backlog.leave(queue, now, _UNKNOWN_ACCOUNT_SECONDS)
            return []
        limiter = self._sender.limiter(account)
        if hold := limiter.hold_at(now):
            self._backlog.leave(queue, now, hold.seconds)
            return []
        rows = self._backlog.deliveries(queue, partitions, _PORTION, is_refused=limiter.is_stopped)
        if not rows:
            self._backlog.forget(queue)
            return []
        tasks, known, settled = self._read_again(rows, outcome)
        if not tasks and not settled:
            self._read_seconds = min(2 * self._read_seconds, _MAX_READ_SECONDS)
            self._backlog.leave(queue, now, 1.0, rows[0].occurred_at)
            return []
        self._read_seconds = _READ_SECONDS
        settled += self._tasks.settled_unsent(tasks, known, self._clock.now_micros())
        self._ledger.settle([outcome for outcome in settled if outcome.state is not DeliveryState.REJECTED])
        done = {outcome.key for outcome in settled}
        settled += self._send({key: tasks[key] for key in tasks.keys() - done}, known, max(end, now + _SHARE_SECONDS))
        self._report(tasks, known, settled)
        outcome.dead_letters += dead_letters(tasks, known, settled)
        if waiting := [outcome for outcome in settled if outcome.state is DeliveryState.PENDING]:
            self._leave(waiting, tasks)
        else:
            self._backlog.leave(queue, now, 0.0)
        return [outcome for outcome in settled if outcome.state is DeliveryState.REJECTED]

    def _read_again(
        self, rows: Sequence[Delivery], outcome: Outcome
    ) -> tuple[dict[DeliveryKey, Task], dict[DeliveryKey, Delivery], list[DeliveryOutcome]]:
        """Read the records of deliveries; settle those that Kafka does not hold any more."""
        if self._reader is None:  # pragma: no cover  # the callers have looked
            return {}, {}, []
        found = self._reader.read((row.source for row in rows), self._read_seconds)
        unreadable = Outcome()
        records = [found.records[source] for source in sorted(found.records)]
        read = self._tasks.read(records, unreadable, self._clock.now_micros())
        known = {row.key: row for row in rows}
        tasks = {key: task for key, task in read.items() if key in known}
        broken: dict[Source, str] = {source_of(letter.record): letter.reason for letter in unreadable.dead_letters}
        # In a topic that was made anew another record lies at the place.
        lost = found.gone | {row.source for row in rows if row.source in found.records and row.key not in tasks}
        settled = [gone(row) for row in rows if row.source in lost and row.source not in broken]
        settled += [
            DeliveryOutcome(row.key, DeliveryState.REJECTED, broken[row.source]) for row in rows if row.source in broken
        ]
        outcome.dead_letters += unreadable.dead_letters
        return tasks, known, settled

    def redeliver(self, rows: Sequence[Delivery], records: Sequence[Record]) -> Outcome:
        """Send deliveries now, whatever their state, because a person asks for it; what is sent is not sent again.

        A delivery that cannot be sent now stays as it was.

        Args:
            rows: deliveries that are not sent, with an account in the settings.
            records: theirs.

        Raises:
            Retry: the destination takes nothing now.
        """
        with self._answering_ledger():
            before = {row.key: row for row in rows}
            outcome = Outcome()
            read = self._tasks.read(records, outcome, self._clock.now_micros())
            tasks = {key: task for key, task in read.items() if key in before}
            settled = self._tasks.settled_unsent(tasks, before, self._clock.now_micros())
            for key, task in tasks.items():
                changes = before[key].state not in {DeliveryState.PENDING, DeliveryState.UNCERTAIN}
                if changes and isinstance(task.prepared, NotSent):
                    settled.append(DeliveryOutcome(key, task.prepared.state, told(task.prepared)))
            self._ledger.settle([o for o in settled if o.state is not DeliveryState.REJECTED])
            done = {outcome.key for outcome in settled}
            # What was handed over at any time before stays in doubt until it is sent.
            doubts = {key: replace(row, in_flight=row.first_sent_at is not None) for key, row in before.items()}
            sent = self._send({key: tasks[key] for key in tasks.keys() - done}, doubts, self._sender.turn_ends())
            waiting = [outcome for outcome in sent if outcome.state is DeliveryState.PENDING]
            self._ledger.settle([as_before(outcome, before[outcome.key]) for outcome in waiting])
            settled += sent
            self._report(tasks, before, settled)
            new = [o for o in settled if before[o.key].state is not DeliveryState.REJECTED]
            outcome.dead_letters += dead_letters({o.key: tasks[o.key] for o in new}, {}, new)
            rejected = [o for o in settled if o.state is DeliveryState.REJECTED]
            outcome.on_committed = lambda: self._settle(rejected)
        if waiting and not rejected:
            hold = self._sender.hold()
            raise Retry(f"{self._route.destination.name}: {hold.reason if hold else waiting[0].reason}")
        return outcome

    def _show_waiting(self) -> None:
        """Set the gauges; also while an account is on hold, or the age of the oldest would stand still."""
        name, now = self._route.destination.name, self._clock.now_micros()
        known = [at for at in (self._oldest_waiting, self._backlog.oldest()) if at is not None]
        age = max(0, now - min(known)) if known else 0
        metrics.forward_oldest_pending_seconds.labels(name).set(age / 1e6)
        metrics.forward_channels_stopped.labels(name).set(self._sender.stopped_accounts())
        metrics.forward_budget_used_percent.labels(name).set(self._sender.budget_used_percent())
        metrics.forward_left_behind_tenants.labels(name).set(len(self._backlog))

    def _report(
        self,
        tasks: Mapping[DeliveryKey, Task],
        known: Mapping[DeliveryKey, Delivery],
        settled: Sequence[DeliveryOutcome],
    ) -> None:
        for state, count in counted(tasks, known, settled).items():
            metrics.forward_events.labels(self._route.destination.name, state).inc(count)
