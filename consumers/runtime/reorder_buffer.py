"""Reading a backlog of several topics in the order of log time.

A consumer that catches up gets as many bytes of a small topic as of a large one, so conversions would overtake the
touchpoints that were published before them, and each would be attributed again and again as its touchpoints follow.
While there is a backlog, records that are ahead of a partition with unread records are held back until that partition
has come as far.

Invariants: the order inside a partition never changes, and every record is released once, so the next offset to commit
is one past the last released record; a held record is not in flight, it is as good as unread, and is forgotten when its
partition is given away or the loop rewinds. Nothing is held without a backlog.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from .records import Record

Place = tuple[str, int]

# A partition with so many records held is not read further until most of them are released.
PAUSE_ABOVE, RESUME_BELOW = 4_000, 1_000


class LogTimeAlignment:
    """Holds records back while partitions are behind.

    Args:
        most_held: when more are held, the oldest are released whatever is behind.
    """

    def __init__(self, most_held: int) -> None:
        self._most_held = most_held
        self._held: dict[Place, deque[Record]] = {}
        self._next: dict[Place, int] = {}
        self._reached_ms: dict[Place, int] = {}

    def __len__(self) -> int:
        return sum(len(records) for records in self._held.values())

    def start_at(self, offsets: Mapping[Place, int]) -> None:
        """Note where partitions begin; forgets what was held of them."""
        for place, offset in offsets.items():
            self.forget([place])
            self._next[place] = offset

    def forget(self, places: Iterable[Place]) -> None:
        """Drop all that is known of partitions that were given away."""
        for place in places:
            self._held.pop(place, None)
            self._next.pop(place, None)
            self._reached_ms.pop(place, None)

    def clear(self) -> None:
        """Drop everything: the loop rewinds."""
        self.forget(list(self._next | self._held))

    def offer(self, records: Sequence[Record]) -> None:
        """Take records as they were read."""
        for record in records:
            place = (record.topic, record.partition)
            self._held.setdefault(place, deque()).append(record)
            self._next[place] = record.offset + 1
            self._reached_ms[place] = record.timestamp_ms

    def release(self, end_of: Callable[[Place], int]) -> list[Record]:
        """Return the records that no partition with unread records is behind of.

        Args:
            end_of: the offset after the last record of a partition, as far as it is known; negative: not known yet.
        """
        limit = None
        for place, position in self._next.items():
            end = end_of(place)
            if end < 0 or position < end:
                reached = self._reached_ms.get(place, -1)
                limit = reached if limit is None else min(limit, reached)
        if limit is None:
            return self.release_all()
        out = self._up_to(limit)
        excess = len(self) - self._most_held
        return out + self._oldest(excess) if excess > 0 else out

    def release_all(self) -> list[Record]:
        """Return everything that is held."""
        out = [record for records in self._held.values() for record in records]
        self._held.clear()
        return out

    def to_pause(self) -> list[Place]:
        """Return the partitions of which so much is held that reading on would only fill memory."""
        return [place for place, records in self._held.items() if len(records) > PAUSE_ABOVE]

    def to_resume(self, paused: Collection[Place]) -> list[Place]:
        """Return those of the paused partitions that may be read on."""
        return [place for place in paused if len(self._held.get(place, ())) < RESUME_BELOW]

    def _up_to(self, limit_ms: int) -> list[Record]:
        out = []
        for records in self._held.values():
            while records and records[0].timestamp_ms <= limit_ms:
                out.append(records.popleft())
        return out

    def _oldest(self, count: int) -> list[Record]:
        """Release so many of the oldest: by the time up to which that many are held."""
        times = sorted(record.timestamp_ms for records in self._held.values() for record in records)
        return self._up_to(times[min(count, len(times)) - 1])
