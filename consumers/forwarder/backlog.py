"""The queues that were left behind: which they are, and when each is tried next.

A queue is all deliveries of one tenant to one account. It is left behind when its account is on hold, slow or refuses
everything: its deliveries stay pending in the ledger, the offsets of their records are committed, and they come back by
the ledger. Invariants:

- a delivery is left behind when its record lies before the next offset to be read: Kafka will not bring it again;
- a queue that is left behind gets no event out of turn: new ones wait in the ledger behind the older ones;
- what is kept in memory is one entry a queue, however many deliveries are pending.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from attributary.consumers.store.deliveries.delivery import Queue

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from attributary.consumers.store.deliveries.delivery import Delivery, DeliveryKey, Ledger

_MIN_SECONDS = 5.0  # between two tries of a queue that something new was added to
_NEWEST = 64


@dataclass(slots=True)
class _Turn:
    """When a queue was tried, and when it is next, monotonic seconds; the time of its oldest event, if known."""

    tried_at: float
    due_at: float
    oldest: int | None = None


class Backlog:
    """The queues of one destination that were left behind by the partitions of this process.

    Args:
        ledger: where their deliveries are.
        destination: name of the destination.
    """

    def __init__(self, ledger: Ledger, destination: str) -> None:
        self._ledger = ledger
        self._destination = destination
        self._turns: dict[Queue, _Turn] = {}
        self._positions: dict[tuple[str, int], int] = {}
        self._is_known = True

    def __len__(self) -> int:
        return len(self._turns)

    def read_from(self, starts: Mapping[tuple[str, int], int]) -> None:
        """Note where partitions are read from; what lies pending before is looked up at the next need."""
        if any(self._positions.get(place) != offset for place, offset in starts.items()):
            self._positions |= starts
            self._is_known = False

    def passed(self, nexts: Mapping[tuple[str, int], int]) -> None:
        """Note the next offsets after a batch that is about to be committed."""
        self._positions |= nexts

    def load(self, now: float) -> None:
        """Look up in the ledger what was left behind, if the partitions have changed.

        Raises:
            StoreUnavailable: the ledger is away.
        """
        if self._is_known:
            return
        known = self._turns
        queues = self._ledger.left_behind(self._destination, self._positions)
        self._turns = {queue: known.get(queue) or _Turn(now, now) for queue in queues}
        self._is_known = True

    def has(self, key: DeliveryKey) -> bool:
        """Return whether the queue of a delivery is left behind."""
        return Queue(key.tenant_id, key.destination) in self._turns

    def leave(self, queue: Queue, now: float, seconds: float, oldest: int | None = None) -> None:
        """Leave a queue behind for so many seconds; `oldest`: the time of its oldest event, if it is known anew."""
        known = self._turns.get(queue)
        self._turns[queue] = _Turn(now, now + seconds, oldest if oldest is not None or known is None else known.oldest)

    def oldest(self) -> int | None:
        """Return the time of the oldest event that is known to be left behind."""
        return min((turn.oldest for turn in self._turns.values() if turn.oldest is not None), default=None)

    def wake(self, queues: Iterable[Queue], now: float) -> None:
        """Try queues soon: something new was added to them."""
        for queue in queues:
            turn = self._turns[queue]
            turn.due_at = min(turn.due_at, max(now, turn.tried_at + _MIN_SECONDS))

    def next_due(self, now: float, but: Collection[Queue] = ()) -> Queue | None:
        """Return the queue that has been due for the longest time, None without any other than those of `but`."""
        due = [(t.due_at, queue) for queue, t in self._turns.items() if t.due_at <= now and queue not in but]
        return min(due)[1] if due else None

    def places(self, partitions: Sequence[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """Return the next offsets of partitions, as far as they are known."""
        return {place: self._positions[place] for place in partitions if place in self._positions}

    def deliveries(
        self, queue: Queue, partitions: Sequence[tuple[str, int]], limit: int, *, is_refused: bool
    ) -> Sequence[Delivery]:
        """Return the oldest deliveries of a queue by these partitions; of one that is refused, the newest as well."""
        places = self.places(partitions)
        oldest = self._ledger.queued(queue, places, limit=limit)
        if not is_refused or len(oldest) < limit:
            return oldest
        newest = self._ledger.queued(queue, places, limit=_NEWEST, newest=True)
        return list({row.key: row for row in (*oldest, *newest)}.values())

    def forget(self, queue: Queue) -> None:
        """Note that nothing of a queue is left."""
        self._turns.pop(queue, None)
