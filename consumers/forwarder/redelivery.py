"""Deliver again what stands open in the ledger: read the events from Kafka by their coordinates, send them now.

Contract: `again` takes deliveries of one destination and runs the stage on their records. Invariants: whatever the
ledger says is sent is not sent again; an event that Kafka does not hold any more, that has no account in the settings,
or that cannot be sent now, stays as it was and is reported; an event that is rejected now is dead-lettered, and settled
only when its dead letter is acknowledged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from confluent_kafka import KafkaException, Message, Producer

from attributary.consumers.runtime.dead_letters import MAX_LETTER_BYTES, dead_letter_message
from attributary.consumers.runtime.errors import Retry
from attributary.consumers.store.deliveries.delivery import DeliveryState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from confluent_kafka import KafkaError

    from attributary.consumers.forwarder.record_reader import RecordReader
    from attributary.consumers.forwarder.stage import ForwarderStage
    from attributary.consumers.runtime.records import Outbound
    from attributary.consumers.runtime.settings import KafkaSettings
    from attributary.consumers.store.deliveries.delivery import Delivery

_BATCH = 1_000
_SECONDS = 600.0  # to read a batch: its records may lie far apart
_FLUSH_SECONDS = 30.0


class Redelivery(NamedTuple):
    """How many events were sent again, which Kafka does not hold any more, and how many have no account."""

    tried: int
    gone: tuple[str, ...]
    without_account: int


def again(
    deliveries: Sequence[Delivery],
    stage: ForwarderStage,
    reader: RecordReader,
    publish: Callable[[Sequence[Outbound]], None],
) -> Redelivery:
    """Send deliveries again; oldest first, as given.

    Args:
        deliveries: rows that are not sent.
        stage: of their destination.
        reader: reads their records.
        publish: writes dead letters, and returns when they are acknowledged.

    Raises:
        Retry: the destination or Kafka is away; run it again later.
    """
    tried, gone, without_account = 0, [], 0
    for start in range(0, len(deliveries), _BATCH):
        part = [row for row in deliveries[start : start + _BATCH] if row.state is not DeliveryState.SENT]
        known = [row for row in part if stage.has_account(row.key)]
        without_account += len(part) - len(known)
        found = reader.read([row.source for row in known], _SECONDS)
        gone += [row.key.event_id for row in known if row.source not in found.records]
        here = [row for row in known if row.source in found.records]
        tried += len(here)
        outcome = stage.redeliver(here, [found.records[source] for source in sorted(found.records)])
        publish([dead_letter_message(letter, stage.name, stage.group) for letter in outcome.dead_letters])
        if outcome.on_committed is not None:
            outcome.on_committed()
    return Redelivery(tried, tuple(gone), without_account)


def publish_letters(kafka: KafkaSettings, messages: Sequence[Outbound]) -> None:
    """Write dead letters and wait for their acknowledgement.

    Raises:
        Retry: Kafka did not take all of them.
    """
    if not messages:
        return
    failed: list[str] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failed.append(error.name())

    producer = Producer(
        kafka.client_config() | {"enable.idempotence": True, "message.max.bytes": MAX_LETTER_BYTES + 100_000}
    )
    try:
        for message in messages:
            headers: list[tuple[str, str | bytes | None]] = list(message.headers)
            producer.produce(message.topic, message.value, message.key, headers=headers, on_delivery=delivered)
        left = producer.flush(_FLUSH_SECONDS)
    except KafkaException as error:
        raise Retry(f"Kafka does not take the dead letters: {error.args[0].name()}") from None
    if left or failed:
        raise Retry(f"Kafka does not take the dead letters: {failed[0] if failed else 'no answer'}")
