"""What the loop reads, passed on in the order of log time while there is a backlog; see ``alignment.py``.

Invariant: outside a backlog records pass through as they come. Partitions that this class has paused it also resumes,
at the latest when the loop rewinds. Nothing is held for more than about a second without anything being released.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from confluent_kafka import Consumer, TopicPartition

from .records import Record
from .reorder_buffer import LogTimeAlignment, Place

# A partition that does not move for so long is not behind: it ends with the marker of a transaction or with records
# that were compacted away, or its broker is down. The others go on without it.
_STUCK_SECONDS = 1.0

# So many reads in a row that were not full end a backlog.
_SHORT_READS = 3


class Backlog:
    """Stands between the consumer and the stage.

    Args:
        consumer: the loop's; asked for the ends of partitions, told to pause and resume them.
        most_held: most records held back, all partitions together.
        is_aligned: False passes everything through: partitions of one topic need no order among themselves.
    """

    def __init__(self, consumer: Consumer, most_held: int, *, is_aligned: bool) -> None:
        self._consumer = consumer
        self._is_aligned = is_aligned
        self._alignment = LogTimeAlignment(most_held)
        self._paused: set[Place] = set()
        self._short_reads = _SHORT_READS  # no backlog until a read is full
        self._moved_at = time.monotonic()
        self._has_moved = True

    def start_at(self, offsets: Mapping[Place, int]) -> None:
        """Note where newly assigned partitions begin."""
        self._alignment.start_at(offsets)

    def forget(self, places: Iterable[Place]) -> None:
        """Drop partitions that were given away, and what is held of them."""
        gone = list(places)
        self._alignment.forget(gone)
        self._paused.difference_update(gone)

    def clear(self) -> None:
        """Drop everything that is held: the loop rewinds and reads it again."""
        self._alignment.clear()
        self._read_on(list(self._paused))

    def through(self, records: list[Record], *, is_full: bool) -> list[Record]:
        """Return the records whose turn it is.

        Args:
            records: as they were read.
            is_full: the read was cut off by the batch size: a backlog.
        """
        if not self._is_aligned:
            return records
        now = time.monotonic()
        if self._has_moved:  # counted from here on: what was released before had to be processed first
            self._moved_at = now
        alignment = self._alignment
        self._short_reads = 0 if is_full else self._short_reads + 1
        alignment.offer(records)
        # Reads that bring less than there is room for mean that the end is near, whatever the ends of partitions say:
        # behind its last record a partition may have only a transaction's marker, which nobody ever reads.
        is_over = not records or self._short_reads >= _SHORT_READS
        released = alignment.release_all() if is_over else alignment.release(self._end_of)
        if not released and now - self._moved_at > _STUCK_SECONDS:
            released = alignment.release_all()
        self._has_moved = bool(released) or not records
        if pause := [place for place in alignment.to_pause() if place not in self._paused]:
            self._consumer.pause([TopicPartition(*place) for place in pause])
            self._paused.update(pause)
        self._read_on(alignment.to_resume(self._paused))
        return released

    def _end_of(self, place: Place) -> int:
        return int(self._consumer.get_watermark_offsets(TopicPartition(*place), cached=True)[1])

    def _read_on(self, places: list[Place]) -> None:
        if places:
            self._consumer.resume([TopicPartition(*place) for place in places])
            self._paused.difference_update(places)
