"""What a rebuild does with stored events that the rules refuse by now, such as an id that came onto a tenant's list.

Contract: 1. the record goes to the stitcher's dead-letter topic, acknowledged; 2. the stored event is deleted. Killed
between the two, the next start does both again: then a letter stands there twice, and no event is lost. The steps of
the rebuild that follow put right owners, journeys and conversions, and have results published again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import psycopg
from confluent_kafka import KafkaError, KafkaException, Producer

from attributary.consumers.runtime.dead_letters import MAX_LETTER_BYTES, dead_letter_message
from attributary.consumers.runtime.errors import EXIT_DEPENDENCY_DOWN, Fatal
from attributary.consumers.runtime.records import DeadLetter
from attributary.consumers.runtime.settings import KafkaSettings
from attributary.consumers.stitcher.stage import GROUP as STITCHER
from attributary.consumers.store.repair.withdrawn_events import TABLES, Event, stored_events, withdraw
from attributary.schemas.codec import Codec, DecodeError
from attributary.schemas.topics import CONVERSIONS, IDENTITIES, TOUCHPOINTS

_RECORDS = {TOUCHPOINTS: "touchpoint", CONVERSIONS: "conversion", IDENTITIES: "identity_link"}
_FLUSH_SECONDS = 60.0


class Withdrawal:
    """Turns stored events into dead letters.

    Args:
        writer: Postgres; nobody else stitches.
        kafka: how to reach the brokers.
        codec: reads events.
    """

    def __init__(self, writer: psycopg.Connection, kafka: KafkaSettings, codec: Codec) -> None:
        self._writer = writer
        self._codec = codec
        config = {"acks": "all", "enable.idempotence": True, "partitioner": "murmur2_random"}
        self._producer = Producer({"message.max.bytes": MAX_LETTER_BYTES} | kafka.client_config() | config)
        self.withdrawn = 0

    def take_out(self, letters: Sequence[DeadLetter]) -> None:
        """Take out what is stored of records that cannot be stitched any more; the others are letters already.

        Raises:
            Fatal: Kafka does not take the letters; nothing was deleted.
        """
        by_topic: dict[str, dict[Event, DeadLetter]] = defaultdict(dict)
        for letter in letters:
            if (event := self._event(letter)) is not None:
                by_topic[letter.record.topic][event] = letter
        for topic, events in by_topic.items():
            stored = stored_events(self._writer, topic, list(events))
            self._writer.commit()
            if not stored:
                continue
            self._send([events[event] for event in sorted(stored)])
            with self._writer.transaction():
                self.withdrawn += withdraw(self._writer, topic, sorted(stored))

    def _event(self, letter: DeadLetter) -> Event | None:
        """Return which event a record is, when it can be read at all."""
        record = letter.record
        if record.topic not in TABLES or record.value is None:
            return None
        try:
            found = self._codec.decode(_RECORDS[record.topic], record.value)
        except DecodeError:
            return None
        return found["tenant_id"], found["event_id"], record.partition, record.offset

    def _send(self, letters: Sequence[DeadLetter]) -> None:
        failures: list[str] = []

        def delivered(error: KafkaError | None, _message: object) -> None:
            if error is not None:
                failures.append(error.name())

        try:
            for letter in letters:
                message = dead_letter_message(letter, "rebuild", STITCHER)
                self._produce(message.topic, message.value, message.key, list(message.headers), delivered)
            left = self._producer.flush(_FLUSH_SECONDS)
        except KafkaException as error:
            raise Fatal(f"Kafka does not take dead letters: {error}", EXIT_DEPENDENCY_DOWN) from None
        if left or failures:
            raise Fatal(
                f"{left + len(failures)} dead letters were not acknowledged {''.join(failures[:1])}",
                EXIT_DEPENDENCY_DOWN,
            )

    def _produce(self, *message: object) -> None:
        topic, value, key, headers, delivered = message
        while True:
            try:
                self._producer.produce(topic, value, key, headers=headers, on_delivery=delivered)  # type: ignore[arg-type]
            except BufferError:
                self._producer.poll(0.1)
            else:
                return
