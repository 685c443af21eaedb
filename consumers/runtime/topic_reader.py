"""Reading a topic for people and tests: every partition, from a place in time, without a group and without a trace.

Invariant: committed records only (``read_committed``), in log order per partition; nothing is committed, so readers
never disturb each other or a consumer group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from .access_errors import Access
from .error_codes import PARTITION_END
from .errors import EXIT_DEPENDENCY_DOWN, Fatal
from .records import Record
from .settings import KafkaSettings

_TIMEOUT = 15.0
_MOST_AT_ONCE = 500


def read_topic(
    kafka: KafkaSettings,
    topic: str,
    *,
    since_ms: int | None = 0,
    until_end: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Record]:
    """Yield the records of a topic.

    Args:
        kafka: how to reach the brokers.
        topic: the topic.
        since_ms: log-append time to begin at, milliseconds since 1970-01-01 UTC; 0: the beginning; None: the end.
        until_end: stop at the end that the topic has when reading begins; else wait for more.
        stopped: asked between reads.

    Raises:
        Fatal: the topic is not there, or Kafka does not answer.
        AccessRefused: the brokers do not let us read it.
    """
    config: dict[str, Any] = {
        "group.id": "attributary.reader",  # needed by the client, never used: nothing is subscribed or committed
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
        "enable.partition.eof": until_end,
        "fetch.wait.max.ms": 50,
    }
    consumer = Consumer(kafka.client_config() | config)
    try:
        starts = _starts(consumer, topic, since_ms, Access(kafka, "reader"))
        consumer.assign(starts)
        open_partitions = {place.partition for place in starts}
        while open_partitions and not stopped():
            for message in _what_is_there(consumer):
                error = message.error()
                if error is None:
                    yield Record(
                        topic,
                        message.partition() or 0,
                        message.offset() or 0,
                        message.key(),
                        message.value(),
                        message.timestamp()[1],
                        message.headers,  # type: ignore[arg-type]  # the stub allows text, the wire has bytes
                    )
                elif error.code() == PARTITION_END:
                    open_partitions.discard(message.partition() or 0)
                elif error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise Fatal(f"{topic}: the topic is gone")
    finally:
        consumer.close()


def _what_is_there(consumer: Consumer) -> list[Message]:
    """Wait for a first record and take what has come with it: to wait for a full batch delays every record."""
    first = consumer.consume(1, 0.2)
    return first + consumer.consume(_MOST_AT_ONCE - 1, 0.0) if first else []


def _starts(consumer: Consumer, topic: str, since_ms: int | None, access: Access) -> list[TopicPartition]:
    try:
        found = consumer.list_topics(topic, timeout=_TIMEOUT).topics[topic]
        if found.error is not None and (refused := access.refused(found.error, "READ", topic)):
            raise refused
        if found.error is not None:
            raise Fatal(f"{topic}: {found.error.name()}; run `attributary topics apply`", EXIT_DEPENDENCY_DOWN)
        if since_ms is None or since_ms == 0:
            place = OFFSET_END if since_ms is None else OFFSET_BEGINNING
            return [TopicPartition(topic, partition, place) for partition in found.partitions]
        wanted = [TopicPartition(topic, partition, since_ms) for partition in found.partitions]
        return consumer.offsets_for_times(wanted, timeout=_TIMEOUT)
    except KafkaException as error:
        raise Fatal(f"Kafka does not answer: {error.args[0].name()}", EXIT_DEPENDENCY_DOWN) from None
