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

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from confluent_kafka import Consumer, TopicPartition

from .records import Record

Place = tuple[str, int]

# A partition with so many records held is not read further until most of them are released.
PAUSE_ABOVE, RESUME_BELOW = 4_000, 1_000

# A partition that does not move for so long is not behind: it ends with the marker of a transaction or with records
# that were compacted away, or its broker is down. The others go on without it.
_STUCK_SECONDS = 1.0

# So many reads in a row that were not full end a backlog.
_SHORT_READS = 3


class ReorderBuffer:
    """Holds records back while partitions are behind.

    Args:
        max_held: when more are held, the oldest are released whatever is behind.
    """

    def __init__(self, max_held: int) -> None:
        self._max_held = max_held
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
        """Return the records that no partition with unread records is behind of, in the order of log time.

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
        excess = len(self) - self._max_held
        return _in_order(out + self._oldest(excess) if excess > 0 else out)

    def release_all(self) -> list[Record]:
        """Return everything that is held, in the order of log time."""
        out = [record for records in self._held.values() for record in records]
        self._held.clear()
        return _in_order(out)

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


def _in_order(records: Sequence[Record]) -> list[Record]:
    """Return the records in the order of log time; those of a partition stay in theirs, whatever their times are.

    What is released may be more than a batch of the stage: the first batch must not hold one topic alone.
    """
    reached: dict[Place, int] = {}
    times = []
    for record in records:
        place = (record.topic, record.partition)
        reached[place] = max(record.timestamp_ms, reached.get(place, record.timestamp_ms))
        times.append(reached[place])
    return [records[number] for number in sorted(range(len(records)), key=times.__getitem__)]


class OrderedReader:
    """Passes records from the consumer to the stage, through a ``ReorderBuffer`` while there is a backlog.

    Invariant: outside a backlog records pass as they come. Partitions that this class has paused it also resumes, at
    the latest when the loop rewinds. Nothing is held for more than about a second without anything being released.


    Args:
        consumer: the loop's; asked for the ends of partitions, told to pause and resume them.
        max_held: most records held back, all partitions together.
        is_ordered: False passes everything through: partitions of one topic need no order among themselves.
    """

    def __init__(self, consumer: Consumer, max_held: int, *, is_ordered: bool) -> None:
        self._consumer = consumer
        self._is_ordered = is_ordered
        self._buffer = ReorderBuffer(max_held)
        self._paused: set[Place] = set()
        self._short_reads = _SHORT_READS  # no backlog until a read is full
        self._moved_at = time.monotonic()
        self._has_moved = True

    def start_at(self, offsets: Mapping[Place, int]) -> None:
        """Note where newly assigned partitions begin."""
        self._buffer.start_at(offsets)

    def forget(self, places: Iterable[Place]) -> None:
        """Drop partitions that were given away, and what is held of them."""
        gone = list(places)
        self._buffer.forget(gone)
        self._paused.difference_update(gone)

    def clear(self) -> None:
        """Drop everything that is held: the loop rewinds and reads it again."""
        self._buffer.clear()
        self._read_on(list(self._paused))

    def through(self, records: list[Record], *, is_full: bool) -> list[Record]:
        """Return the records that are next in order.

        Args:
            records: as they were read.
            is_full: the read was cut off by the batch size: a backlog.
        """
        if not self._is_ordered:
            return records
        now = time.monotonic()
        if self._has_moved:  # counted from here on: what was released before had to be processed first
            self._moved_at = now
        buffer = self._buffer
        self._short_reads = 0 if is_full else self._short_reads + 1
        buffer.offer(records)
        # Reads that bring less than there is room for mean that the end is near, whatever the ends of partitions say:
        # behind its last record a partition may have only a transaction's marker, which nobody ever reads.
        is_over = not records or self._short_reads >= _SHORT_READS
        released = buffer.release_all() if is_over else buffer.release(self._end_of)
        if not released and now - self._moved_at > _STUCK_SECONDS:
            released = buffer.release_all()
        self._has_moved = bool(released) or not records
        if pause := [place for place in buffer.to_pause() if place not in self._paused]:
            self._consumer.pause([TopicPartition(*place) for place in pause])
            self._paused.update(pause)
        self._read_on(buffer.to_resume(self._paused))
        return released

    def _end_of(self, place: Place) -> int:
        return int(self._consumer.get_watermark_offsets(TopicPartition(*place), cached=True)[1])

    def _read_on(self, places: list[Place]) -> None:
        if places:
            self._consumer.resume([TopicPartition(*place) for place in places])
            self._paused.difference_update(places)
