"""How far a stage is from the end of its topics, and how near unread records and dead letters are to their removal.

Contract: `LagReport` is called by the loop and asks no broker. `TopicsWatch` asks them, from a thread of its own, every
two minutes. What the brokers do not tell is not shown. While a stage is paused or hangs, the time left falls at each
scrape.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterable, Sequence

import structlog
from confluent_kafka import Consumer, KafkaException

from . import metrics
from .records import Record
from .topic_ids import TopicIds

_log = structlog.get_logger()

Place = tuple[str, int]

_LAG_SECONDS = 5.0
_ASK_SECONDS = 120.0
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
    """Shows when unread records and dead letters of a stage are removed, and compares the ids of its topics.

    Args:
        ids: asks the brokers.
        stage: its name.
        topics: that it reads.
        dead_letter_topics: that it writes.
        unread_seconds: how old the oldest unread record of a topic is.
    """

    def __init__(
        self,
        ids: TopicIds,
        stage: str,
        topics: Sequence[str],
        dead_letter_topics: Sequence[str],
        unread_seconds: Callable[[str], float],
    ) -> None:
        self._ids, self._stage, self._topics, self._dead_letter_topics = ids, stage, topics, dead_letter_topics
        self._unread_seconds = unread_seconds
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin to ask, in a thread that ends with the process or with ``stop``."""
        threading.Thread(target=self._run, name="topics-watch", daemon=True).start()

    def stop(self) -> None:
        """Stop asking."""
        self._stop.set()

    def ask(self) -> None:
        """Ask once.

        Raises:
            KafkaException: the brokers do not answer.
        """
        told = self._ids.ask(self._topics, self._dead_letter_topics, only_ids=False)
        self._ids.compare(told["ids"])
        for topic in self._topics:
            seconds = told["retention_seconds"].get(topic)
            if seconds is not None:
                metrics.retention_seconds.labels(self._stage, topic).set(seconds)
                left = metrics.retention_left.labels(self._stage, topic)
                left.set_function(functools.partial(self._left, topic, seconds))
        for topic, count in told["near_end"].items():
            metrics.letters_near_end.labels(self._stage, topic).set(count)

    def _left(self, topic: str, retention: float) -> float:
        return retention - self._unread_seconds(topic)

    def _run(self) -> None:
        while not self._stop.wait(_ASK_SECONDS):
            try:
                self.ask()
            except KafkaException as error:
                _log.info("the brokers do not tell about topics", stage=self._stage, why=error.args[0].name())
