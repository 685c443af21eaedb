"""How far a stage is from the end of its topics, and how near unread records and dead letters are to their removal.

Contract: `LagReport` is called by the loop and asks no broker. `TopicsWatch` asks them, from a thread of its own, every
ten minutes. What the brokers do not tell is not shown. While a stage is paused or hangs, the time left falls at each
scrape.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the library re-exports without __all__
    AdminClient,
    ConfigResource,
    OffsetSpec,
    ResourceType,
)

from . import metrics
from .records import Record
from .settings import KafkaSettings

_log = structlog.get_logger()

Place = tuple[str, int]

NEAR_END_SECONDS = 3 * 86_400
"""Dead letters that are removed within this time are counted."""

_LAG_SECONDS = 5.0
_ASK_SECONDS = 600.0
_ANSWER_SECONDS = 20.0
_MARKERS = 5  # behind the last record of a partition may stand markers of transactions, which nobody reads


class LagReport:
    """Shows lag and time left of one stage.

    Args:
        stage: its name.
        topics: that it reads.
        consumer: the loop's.
    """

    def __init__(self, stage: str, topics: Sequence[str], consumer: Consumer) -> None:
        self._stage, self._topics, self._consumer = stage, topics, consumer
        self._next = 0.0
        self._seen_ms: dict[Place, int] = {}  # log-append time of the last record that was committed
        self._oldest_ms: dict[str, int] = {}  # of unread records, at least

    def committed(self, records: Iterable[Record]) -> None:
        """Note records that were committed, in the order of their offsets."""
        self._seen_ms.update({(record.topic, record.partition): record.timestamp_ms for record in records})

    def forget(self, places: Iterable[Place]) -> None:
        """Drop partitions that were given away."""
        for place in places:
            self._seen_ms.pop(place, None)

    def turn(self) -> None:
        """Show what is known, every few seconds."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _LAG_SECONDS
        lag: dict[str, int] = dict.fromkeys(self._topics, 0)
        oldest: dict[str, int] = {}
        for place in self._consumer.position(self._consumer.assignment()):
            with contextlib.suppress(KafkaException):
                _, high = self._consumer.get_watermark_offsets(place, cached=True)
                unread = max(0, high - place.offset) if place.offset >= 0 and high >= 0 else 0
                lag[place.topic] += unread
                seen = self._seen_ms.get((place.topic, place.partition))
                if unread > _MARKERS and seen is not None:
                    oldest[place.topic] = min(seen, oldest.get(place.topic, seen))
        self._oldest_ms = oldest
        for topic, records in lag.items():
            metrics.consumer_lag.labels(self._stage, topic).set(records)

    def unread_seconds(self, topic: str) -> float:
        """Return how old the oldest unread record of a topic is, at least; 0 when all are read or nothing is known."""
        oldest = self._oldest_ms.get(topic)
        return 0.0 if oldest is None else max(0.0, time.time() - oldest / 1_000)


class TopicsWatch:
    """Shows when unread records and dead letters of a stage are removed.

    Args:
        kafka: how to reach the brokers.
        stage: its name.
        topics: that it reads.
        dead_letter_topics: that it writes.
        unread_seconds: how old the oldest unread record of a topic is.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        stage: str,
        topics: Sequence[str],
        dead_letter_topics: Sequence[str],
        unread_seconds: Callable[[str], float],
    ) -> None:
        self._config = {**kafka.client_config(), "log_level": 0}
        self._stage, self._topics, self._dead_letter_topics = stage, topics, dead_letter_topics
        self._unread_seconds = unread_seconds
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin to ask, in a thread that ends with the process or with ``stop``."""
        threading.Thread(target=self._run, name="topics-watch", daemon=True).start()

    def stop(self) -> None:
        """Stop asking."""
        self._stop.set()

    def ask(self, admin: AdminClient) -> None:
        """Ask once.

        Raises:
            KafkaException: the brokers do not answer.
            TimeoutError: likewise.
        """
        retention = self._retention(admin)
        for topic in self._topics:
            seconds = retention.get(topic)
            if seconds is not None:
                metrics.retention_seconds.labels(self._stage, topic).set(seconds)
                left = metrics.retention_left.labels(self._stage, topic)
                left.set_function(functools.partial(self._left, topic, seconds))
        for topic in self._dead_letter_topics:
            if topic in retention:
                count = self._letters_near_end(admin, topic, retention[topic])
                metrics.letters_near_end.labels(self._stage, topic).set(count)

    def _left(self, topic: str, retention: float) -> float:
        return retention - self._unread_seconds(topic)

    def _run(self) -> None:
        admin = AdminClient(self._config)
        while not self._stop.is_set():
            try:
                self.ask(admin)
            except (KafkaException, TimeoutError) as error:
                reason = error.args[0].name() if isinstance(error, KafkaException) else "no answer"
                _log.info("the brokers do not tell how long records are kept", stage=self._stage, why=reason)
            self._stop.wait(_ASK_SECONDS)

    def _retention(self, admin: AdminClient) -> dict[str, float]:
        names = [*self._topics, *self._dead_letter_topics]
        asked = admin.describe_configs(
            [ConfigResource(ResourceType.TOPIC, name) for name in names], request_timeout=_ANSWER_SECONDS
        )
        found: dict[str, float] = {}
        for resource, answer in asked.items():
            settings = answer.result(_ANSWER_SECONDS + 1)
            removes = "delete" in settings["cleanup.policy"].value
            milliseconds = int(settings["retention.ms"].value)
            if removes and milliseconds >= 0:
                found[resource.name] = milliseconds / 1_000
        return found

    def _letters_near_end(self, admin: AdminClient, topic: str, retention: float) -> int:
        metadata = admin.list_topics(topic, timeout=_ANSWER_SECONDS).topics[topic]
        near = max(0.0, retention - NEAR_END_SECONDS)
        old = OffsetSpec.for_timestamp(int(1_000 * (time.time() - near)))
        first = self._offsets(admin, topic, metadata.partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
        last = self._offsets(admin, topic, metadata.partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]
        behind = self._offsets(admin, topic, metadata.partitions, old)  # -1: no letter is younger
        return sum(
            (behind[number] if behind[number] >= 0 else last[number]) - first[number] for number in metadata.partitions
        )

    @staticmethod
    def _offsets(admin: AdminClient, topic: str, partitions: Iterable[int], spec: Any) -> dict[int, int]:
        asked = admin.list_offsets(
            {TopicPartition(topic, number): spec for number in partitions}, request_timeout=_ANSWER_SECONDS
        )
        return {place.partition: answer.result(_ANSWER_SECONDS + 1).offset for place, answer in asked.items()}
