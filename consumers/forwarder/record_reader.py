"""Records by their coordinates, read from Kafka beside the group: nothing is committed, no partition is taken.

Contract: `read` gives the records that it reached within its time and bytes, and the coordinates at which there is
nothing any more. The others were not reached; a later call reaches them.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

from confluent_kafka import Consumer, KafkaException, TopicPartition

from attributary.consumers.runtime.error_codes import PARTITION_END
from attributary.consumers.runtime.errors import Retry
from attributary.consumers.runtime.records import Record
from attributary.consumers.store.deliveries.delivery import Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from confluent_kafka import Message

    from attributary.consumers.runtime.settings import KafkaSettings

_ANSWER_SECONDS = 15.0
_FAR = 10_000  # records; a jump is quicker than reading all that lies between
_MAX_BYTES = 32 * 1024 * 1024


class Found(NamedTuple):
    """Records by coordinates, and the coordinates that Kafka does not hold any more."""

    records: dict[Source, Record]
    gone: frozenset[Source]


class RecordReader(Protocol):
    """Reads records by coordinates."""

    def read(self, sources: Iterable[Source], seconds: float) -> Found:
        """Read for so many seconds at most.

        Raises:
            Retry: Kafka does not answer.
        """
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class KafkaRecordReader:
    """`RecordReader` on Kafka; connects when first asked, used by one thread.

    Args:
        kafka: how to reach the brokers.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._config = kafka.client_config() | {
            "group.id": "attributary.redelivery",  # needed by the client, never used
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 50,
            "queued.max.messages.kbytes": 16_384,
        }
        self._consumer: Consumer | None = None

    def read(self, sources: Iterable[Source], seconds: float) -> Found:
        """Read for so many seconds at most."""
        wanted: dict[tuple[str, int], list[int]] = defaultdict(list)
        for source in set(sources):
            wanted[source.topic, source.partition].append(source.offset)
        if self._consumer is None:
            self._consumer = Consumer(self._config)
        reading = _Reading(self._consumer, time.monotonic() + seconds)
        try:
            for (topic, partition), offsets in sorted(wanted.items()):
                reading.partition(topic, partition, sorted(offsets))
            self._consumer.unassign()
        except KafkaException as error:
            self.close()
            raise Retry(f"Kafka does not answer: {error.args[0].name()}") from None
        return Found(reading.records, frozenset(reading.gone))

    def close(self) -> None:
        """Close the connection."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None


class _Reading:
    """One call of `read`."""

    def __init__(self, consumer: Consumer, deadline: float) -> None:
        self._consumer = consumer
        self._deadline = deadline
        self._bytes = 0
        self.records: dict[Source, Record] = {}
        self.gone: set[Source] = set()

    def partition(self, topic: str, partition: int, offsets: Sequence[int]) -> None:
        """Read forward through a partition as far as time and bytes go."""
        if self._is_over():
            return
        place = TopicPartition(topic, partition)
        low, high = self._consumer.get_watermark_offsets(place, timeout=_ANSWER_SECONDS, cached=False)
        self.gone.update(Source(topic, partition, offset) for offset in offsets if not low <= offset < high)
        left = deque(offset for offset in offsets if low <= offset < high)
        while left and not self._is_over():
            self._consumer.assign([TopicPartition(topic, partition, left[0])])
            stop = left[0] + _FAR
            while left and left[0] <= stop and not self._is_over():
                # A short wait: `consume` comes back early only with all of the 500.
                for message in self._consumer.consume(500, min(0.2, max(0.0, self._deadline - time.monotonic()))):
                    stop = max(stop, self._take(message, left) + _FAR)

    def _is_over(self) -> bool:
        return self._bytes >= _MAX_BYTES or time.monotonic() >= self._deadline

    def _take(self, message: Message, left: deque[int]) -> int:
        """Take a record if it is wanted; return its offset."""
        topic, partition, at = message.topic() or "", message.partition() or 0, message.offset() or 0
        error = message.error()
        if error is not None and error.code() != PARTITION_END:
            raise KafkaException(error)
        while left and left[0] < at:
            self.gone.add(Source(topic, partition, left.popleft()))
        if error is not None:
            self.gone.update(Source(topic, partition, offset) for offset in left)
            left.clear()
        elif left and left[0] == at:
            left.popleft()
            key, value = message.key(), message.value()
            self._bytes += len(key or b"") + len(value or b"")
            source = Source(topic, partition, at)
            headers = message.headers
            self.records[source] = Record(topic, partition, at, key, value, message.timestamp()[1], headers)  # type: ignore[arg-type]
        return at
