"""The ledger contract in memory: for the typed clients' tests, the bench and processes that keep nothing.

Invariant: behaves as `store.ledger.PostgresLedger` does; one set of contract tests runs on both. Nothing survives the
process, so a forwarder in production never uses it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from attributary.consumers.store.deliveries.delivery import (
    Count,
    Delivery,
    DeliveryKey,
    DeliveryState,
    HeldEvents,
    Queue,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from attributary.consumers.store.deliveries.delivery import (
        DeliveryOutcome,
        NewDelivery,
        Positions,
        ReceivedRequest,
        StoppedName,
    )


class MemoryLedger:
    """A ledger that lives as long as its process."""

    def __init__(self) -> None:
        self.rows: dict[DeliveryKey, Delivery] = {}
        self.requests: dict[tuple[str, str, str], ReceivedRequest] = {}
        self.stopped: dict[tuple[str, str, str], StoppedName] = {}

    def claim(self, entries: Sequence[NewDelivery]) -> Mapping[DeliveryKey, Delivery]:
        """Write the entries that are new; give the rows that were there already."""
        known = {entry.key: self.rows[entry.key] for entry in entries if entry.key in self.rows}
        for entry in entries:
            if entry.key not in self.rows:
                self.rows[entry.key] = Delivery(
                    entry.key, entry.state, entry.reason, entry.occurred_at, entry.source, entry.match_keys
                )
        return known

    def begin(self, keys: Sequence[DeliveryKey], *, now_micros: int) -> None:
        """Note that the events are about to be handed over."""
        for row in self._present(keys):
            first = now_micros if row.first_sent_at is None else row.first_sent_at
            self.rows[row.key] = dataclasses.replace(
                row, in_flight=True, attempts=row.attempts + 1, first_sent_at=first
            )

    def settle(
        self,
        outcomes: Sequence[DeliveryOutcome],
        received: Sequence[ReceivedRequest] = (),
        stopped: Sequence[StoppedName] = (),
    ) -> None:
        """Note what became of an attempt."""
        for request in received:
            self.requests.setdefault(request[:3], request)
        for name in stopped:
            if (known := self.stopped.get(name[:3])) is not None:
                self.stopped[name[:3]] = name._replace(stopped_at=known.stopped_at, refusals=known.refusals + 1)
            else:
                self.stopped[name[:3]] = name
        for new in outcomes:
            row = self.rows.get(new.key)
            if row is not None and (row.state is not DeliveryState.SENT or new.state is DeliveryState.SENT):
                self.rows[new.key] = dataclasses.replace(
                    row,
                    state=new.state,
                    reason=new.reason,
                    in_flight=new.in_flight,
                    first_sent_at=None
                    if new.state in {DeliveryState.PENDING, DeliveryState.HELD} and not new.in_flight
                    else row.first_sent_at,
                    request_hash=new.request_hash or row.request_hash,
                    response_code=new.response_code or row.response_code,
                    trace_id=new.trace_id or row.trace_id,
                    event_name=new.event_name,
                )

    def due_requests(self, destination: str, now_micros: int, *, limit: int) -> Sequence[ReceivedRequest]:
        """Give requests without a verdict that are due to be asked about."""
        open_ = [
            each for each in self.requests.values() if each.verdict is Verdict.PENDING and each.ask_at <= now_micros
        ]
        mine = [each for each in open_ if each.destination.partition(":")[0] == destination]
        return sorted(mine, key=lambda each: each.ask_at)[:limit]

    def judge_requests(self, requests: Sequence[ReceivedRequest], *, now_micros: int) -> None:  # noqa: ARG002
        """Note what the destination says of requests."""
        for request in requests:
            if self.requests[request[:3]].verdict is Verdict.PENDING:
                self.requests[request[:3]] = request._replace(asked=request.asked + 1)

    def find(self, event_id: str, *, tenant_id: str | None = None) -> Sequence[Delivery]:
        """Give the deliveries of an event."""
        rows = (row for row in self.rows.values() if row.key.event_id == event_id)
        return sorted((row for row in rows if tenant_id in {None, row.key.tenant_id}), key=lambda row: row.key)

    def open_deliveries(self, destination: str, state: DeliveryState, *, limit: int) -> Sequence[Delivery]:
        """Give deliveries in a state, oldest event first."""
        rows = [
            row
            for row in self.rows.values()
            if row.state is state
            and row.key.destination.partition(":")[0] == destination.partition(":")[0]
            and destination in {row.key.destination, row.key.destination.partition(":")[0]}
        ]
        rows.sort(key=lambda row: (row.occurred_at, row.key.tenant_id, row.key.event_id))
        return rows[:limit]

    def left_behind(self, destination: str, positions: Positions) -> Sequence[Queue]:
        """Give the queues of a destination with pending deliveries that Kafka will not bring again."""
        rows = (row for row in self._behind(positions) if row.key.destination.partition(":")[0] == destination)
        return sorted({Queue(row.key.tenant_id, row.key.destination) for row in rows})

    def queued(self, queue: Queue, positions: Positions, *, limit: int, newest: bool = False) -> Sequence[Delivery]:
        """Give the pending deliveries of one queue that Kafka will not bring again: the oldest, or the newest."""
        rows = [row for row in self._behind(positions) if row.key[:2] == queue]
        rows.sort(key=lambda row: (row.occurred_at, row.key.event_id))
        return rows[-limit:] if newest else rows[:limit]

    def _behind(self, positions: Positions, state: DeliveryState = DeliveryState.PENDING) -> Iterable[Delivery]:
        for row in self.rows.values():
            position = positions.get((row.source.topic, row.source.partition))
            if row.state is state and position is not None and row.source.offset < position:
                yield row

    def stopped_names(self, destination: str) -> Sequence[StoppedName]:
        """Give the event names that a destination does not take."""
        return sorted(each for each in self.stopped.values() if each.destination.partition(":")[0] == destination)

    def resume_names(self, names: Sequence[StoppedName]) -> None:
        """Note that event names are taken again."""
        for name in names:
            self.stopped.pop(name[:3], None)

    def held(self, destination: str, positions: Positions) -> Sequence[HeldEvents]:
        """Count the held deliveries of a destination that Kafka will not bring again."""
        groups: dict[tuple[Queue, str], list[int]] = {}
        for row in self._behind(positions, DeliveryState.HELD):
            if row.key.destination.partition(":")[0] == destination:
                group = Queue(row.key.tenant_id, row.key.destination), row.event_name or ""
                groups.setdefault(group, []).append(row.occurred_at)
        return sorted(HeldEvents(*group, len(times), min(times)) for group, times in groups.items())

    def release(self, queue: Queue, event_name: str, positions: Positions, *, limit: int | None = None) -> int:
        """Make held deliveries pending, the newest first."""
        behind = self._behind(positions, DeliveryState.HELD)
        rows = [row for row in behind if row.key[:2] == queue and row.event_name == event_name]
        rows.sort(key=lambda row: (-row.occurred_at, row.key.event_id))
        for row in rows[:limit]:
            self.rows[row.key] = dataclasses.replace(
                row, state=DeliveryState.PENDING, reason="was held; goes now", event_name=None
            )
        return len(rows[:limit])

    def counts(self) -> Sequence[Count]:
        """Count deliveries by destination, state and reason."""
        groups: dict[tuple[str, DeliveryState, str | None], list[int]] = {}
        for row in self.rows.values():
            groups.setdefault((row.key.destination, row.state, row.reason), []).append(row.occurred_at)
        counts = [Count(*group, len(times), min(times)) for group, times in groups.items()]
        return sorted(counts, key=lambda count: (count.destination, count.state, -count.deliveries))

    def _present(self, keys: Iterable[DeliveryKey]) -> Iterable[Delivery]:
        return (self.rows[key] for key in dict.fromkeys(keys) if key in self.rows)
