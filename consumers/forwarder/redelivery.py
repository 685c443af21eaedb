"""Deliver again what stands open in the ledger: read the events from Kafka by their coordinates, send them now.

Contract: `again` takes deliveries of one destination, opens them in the ledger and runs the stage on their records.
Invariant: whatever the ledger says is sent is not sent again; an event that Kafka does not hold any more, or whose
account is not in the settings, stays as it was and is reported.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from typing import TYPE_CHECKING, NamedTuple

from confluent_kafka import Consumer, KafkaException, TopicPartition

from attributary.consumers.runtime.error_codes import PARTITION_END
from attributary.consumers.runtime.errors import EXIT_DEPENDENCY_DOWN, Fatal
from attributary.consumers.runtime.records import Record
from attributary.consumers.store.deliveries.delivery import DeliveryState, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from attributary.consumers.forwarder.stage import ForwarderStage
    from attributary.consumers.runtime.settings import KafkaSettings
    from attributary.consumers.store.deliveries.delivery import Delivery, Ledger

_SECONDS = 15.0
_BATCH = 1_000
_FAR = 10_000


class Redelivery(NamedTuple):
    """How many events were sent again, which Kafka does not hold any more, and how many have no account."""

    tried: int
    gone: tuple[str, ...]
    without_account: int


def again(
    deliveries: Sequence[Delivery],
    ledger: Ledger,
    stage: ForwarderStage,
    read: Callable[[Sequence[Source]], dict[Source, Record]],
) -> Redelivery:
    """Send deliveries again; oldest first, as given.

    Args:
        deliveries: rows that are not sent.
        ledger: where they are.
        stage: of their destination.
        read: gives the records at coordinates; those that are gone are missing.

    Raises:
        Retry: the destination is away; run it again later.
    """
    tried, gone, without_account = 0, [], 0
    for start in range(0, len(deliveries), _BATCH):
        known = [row for row in deliveries[start : start + _BATCH] if stage.has_account(row.key)]
        without_account += len(deliveries[start : start + _BATCH]) - len(known)
        part = [row for row in known if row.state is not DeliveryState.SENT]
        found = read(sorted({row.source for row in part}))
        gone += [row.key.event_id for row in part if row.source not in found]
        here = [row for row in part if row.source in found]
        ledger.reopen([row.key for row in here])
        tried += len(here)
        stage.handle([found[row.source] for row in here])
    return Redelivery(tried, tuple(gone), without_account)


def read_sources(kafka: KafkaSettings, sources: Sequence[Source]) -> dict[Source, Record]:
    """Read records by their coordinates, in no group, committing nothing.

    Raises:
        Fatal: Kafka does not answer.
    """
    config = {
        "group.id": "attributary.redelivery",  # needed by the client, never used
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
        "fetch.wait.max.ms": 50,
    }
    wanted: dict[tuple[str, int], list[int]] = defaultdict(list)
    for source in sources:
        wanted[source.topic, source.partition].append(source.offset)
    consumer = Consumer(kafka.client_config() | config)
    try:
        return {
            Source(topic, partition, record.offset): record
            for (topic, partition), offsets in wanted.items()
            for record in _read_partition(consumer, topic, partition, offsets)
        }
    except KafkaException as error:
        raise Fatal(f"Kafka does not answer: {error.args[0].name()}", EXIT_DEPENDENCY_DOWN) from None
    finally:
        consumer.close()


def _read_partition(consumer: Consumer, topic: str, partition: int, offsets: Sequence[int]) -> Iterator[Record]:
    """Read forward through a partition and give the wanted records; those that are not there any more are left out."""
    low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_SECONDS, cached=False)
    left = deque(sorted(offset for offset in offsets if low <= offset < high))
    while left:
        # A far jump is quicker than reading all that lies between.
        consumer.assign([TopicPartition(topic, partition, left[0])])
        stop = left[0] + _FAR
        deadline = time.monotonic() + _SECONDS
        while left and left[0] <= stop:
            # A short wait: `consume` comes back early only with all of the 500.
            messages = consumer.consume(500, 0.2)
            if messages:
                deadline = time.monotonic() + _SECONDS
            elif time.monotonic() > deadline:
                raise Fatal(f"Kafka does not answer: no records of {topic}", EXIT_DEPENDENCY_DOWN)
            for message in messages:
                error = message.error()
                if error is not None:
                    if error.code() == PARTITION_END:
                        return
                    raise KafkaException(error)
                at = message.offset() or 0
                while left and left[0] < at:
                    left.popleft()
                if left and left[0] == at:
                    left.popleft()
                    yield Record(topic, partition, at, message.key(), message.value(), message.timestamp()[1])
                stop = max(stop, at + _FAR)
