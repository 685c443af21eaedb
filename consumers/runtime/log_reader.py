"""Reading a part of the log that is named by offsets: from here to there, without a group and without a trace.

Invariant: exactly the committed records with offsets in the ranges are yielded, in log order per partition, in
batches that bound memory; nothing is committed. A log that lost its beginning meanwhile is an error, not a gap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from .access_errors import Access
from .error_codes import OFFSET_OUT_OF_RANGE, PARTITION_END
from .errors import EXIT_DEPENDENCY_DOWN, Fatal
from .records import Record
from .settings import KafkaSettings

_TIMEOUT = 15.0
Partition = tuple[str, int]


class Range(NamedTuple):
    """Offsets of one partition: the first to read, and the one to stop before."""

    start: int
    stop: int


class LogReader:
    """A reader of parts of the log; close it in the end.

    Args:
        kafka: how to reach the brokers.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        config: dict[str, Any] = {
            "group.id": "attributary.reader",  # needed by the client, never used: nothing is subscribed or committed
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 50,
            "queued.max.messages.kbytes": 32_768,  # all that is fetched and not yet handed out
        }
        self._access = Access(kafka, "reader")
        self._config = kafka.client_config() | config
        self._consumer = Consumer(self._config)

    def close(self) -> None:
        """Leave the brokers."""
        self._consumer.close()

    def bounds(self, topics: Sequence[str], since_ms: int | None = 0) -> dict[Partition, Range]:
        """Return what each partition of some topics holds now.

        Args:
            topics: which.
            since_ms: leave out what was written before, milliseconds since 1970-01-01 UTC; None: everything.

        Raises:
            Fatal: a topic is not there, or Kafka does not answer.
            AccessRefused: the brokers do not let us read one.
        """
        found = {}
        try:
            for topic in topics:
                listed = self._consumer.list_topics(topic, timeout=_TIMEOUT).topics[topic]
                if listed.error is not None:
                    if refused := self._access.refused(listed.error, "READ", topic):
                        raise refused
                    raise Fatal(f"{topic}: {listed.error.name()}; run `attributary topics apply`", EXIT_DEPENDENCY_DOWN)
                for partition in listed.partitions:
                    place = TopicPartition(topic, partition)
                    low, high = self._consumer.get_watermark_offsets(place, timeout=_TIMEOUT)
                    found[topic, partition] = Range(max(low, self._start(topic, partition, since_ms, high)), high)
        except KafkaException as error:
            raise Fatal(f"Kafka does not answer: {error.args[0].name()}", EXIT_DEPENDENCY_DOWN) from None
        return found

    def _start(self, topic: str, partition: int, since_ms: int | None, high: int) -> int:
        if since_ms is None:
            return high
        if since_ms == 0:
            return 0
        [found] = self._consumer.offsets_for_times([TopicPartition(topic, partition, since_ms)], timeout=_TIMEOUT)
        return found.offset if found.offset >= 0 else high  # nothing was written since

    def read(self, ranges: Mapping[Partition, Range], most: int) -> Iterator[list[Record]]:
        """Yield the records of the ranges, in batches of at most ``most``.

        Raises:
            Fatal: the log lost records of a range, or a topic is gone.
        """
        left = {place: span for place, span in ranges.items() if span.start < span.stop}
        if not left:
            return
        # One of its own: what a client had paused, it keeps paused when it is given other partitions.
        consumer = Consumer(self._config)
        try:
            consumer.assign([TopicPartition(*place, span.start) for place, span in left.items()])
            while left:
                batch: list[Record] = []
                for message in consumer.consume(most, 0.2):
                    place = (message.topic() or "", message.partition() or 0)
                    span = left.get(place)
                    error = message.error()
                    if span is None:
                        continue
                    if error is not None:
                        if _is_end(error, place):
                            del left[place]
                        continue
                    offset = message.offset() or 0
                    if offset < span.stop:
                        batch.append(
                            Record(
                                *place, offset, message.key(), message.value(), message.timestamp()[1],
                                message.headers,  # type: ignore[arg-type]  # the stub allows text, the wire has bytes
                            )
                        )  # fmt: skip
                    if offset + 1 >= span.stop:
                        del left[place]
                        consumer.pause([TopicPartition(*place)])  # what follows is not wanted
                if batch:
                    yield batch
        finally:
            consumer.close()


def _is_end(error: KafkaError, place: Partition) -> bool:
    """Tell whether the partition ends here; its last offsets may be marks of transactions, never handed out.

    Raises:
        Fatal: the partition, or the place to read from, is gone.
    """
    if error.code() in OFFSET_OUT_OF_RANGE:
        raise Fatal(f"{place[0]}[{place[1]}]: the log lost records while it was read (retention); start again")
    if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        raise Fatal(f"{place[0]}: the topic is gone", EXIT_DEPENDENCY_DOWN)
    return bool(error.code() == PARTITION_END)
