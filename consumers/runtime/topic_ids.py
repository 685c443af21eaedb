"""Which topic a name stands for: Kafka's own id, which a topic made anew under the same name does not have.

Invariant: an offset is used only in the log that it was written for. The ids are asked for before a partition starts;
while a stage runs they are compared every ``_SECONDS``, without waiting for the answer, so at most that much is read
from a log that was exchanged, and the id beside the stored offsets still tells at the next start.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from .error_codes import NO_TOPIC_ID, TIMED_OUT
from .errors import EXIT_CONFIG, Fatal
from .settings import KafkaSettings

_SECONDS = 30.0
_ANSWER_SECONDS = 15.0
_NONE = "AAAAAAAAAAAAAAAAAAAAAA"  # Kafka's zero Uuid: the broker gives its topics no ids
ADVICE = (
    "Its records would be skipped up to the stored offset. If KAFKA_BOOTSTRAP_SERVERS names the wrong cluster, correct "
    "it. To read the new log from its beginning, start with ATTRIBUTION_RECREATED_TOPIC=earliest."
)


class TopicIds:
    """Asks the brokers for ids of topics.

    Args:
        kafka: how to reach the brokers.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._config = {**kafka.client_config(), "log_level": 0}
        self._admin: AdminClient | None = None
        self._known: dict[str, str] = {}
        self._asked: Mapping[str, Future[Any]] = {}
        self._asked_at = time.monotonic()
        self.is_off = False
        """True for librdkafka's test broker, which does not answer."""

    def of(self, topics: Iterable[str]) -> dict[str, str]:
        """Return the ids that topics have now; one is missing when the brokers do not tell it.

        Raises:
            KafkaException: the brokers do not answer, or do not know the topic (yet).
        """
        found: dict[str, str] = {}
        for topic, answer in self._ask(topics).items():
            if topic_id := _id_in(answer):
                found[topic] = topic_id
        self._known |= found
        return found

    def id_of(self, topic: str) -> str | None:
        """Return the id that a topic had when it was asked for last."""
        return self._known.get(topic)

    def watch(self) -> None:
        """Compare, now and then, the ids with those that the partitions were started with. Does not wait.

        Raises:
            Fatal: a topic was made anew while it was read.
        """
        now = time.monotonic()
        if self._asked and all(answer.done() for answer in self._asked.values()):
            answers, self._asked = self._asked, {}
            for topic, answer in answers.items():
                try:
                    topic_id = _id_in(answer)
                except KafkaException:
                    continue  # brokers that are away are noticed elsewhere
                if topic_id and topic_id != self._known[topic]:
                    raise Fatal(f"{topic}: the topic was made anew while it was read. {ADVICE}", EXIT_CONFIG)
        elif self._known and now - self._asked_at >= _SECONDS:
            self._asked_at = now
            self._asked = self._ask(self._known)

    def _ask(self, topics: Iterable[str]) -> Mapping[str, Future[Any]]:
        names = sorted(set(topics))
        if self.is_off or not names:
            return {}
        if self._admin is None:
            self._admin = AdminClient(self._config)
        return self._admin.describe_topics(TopicCollection(names), request_timeout=_ANSWER_SECONDS)


def _id_in(answer: Future[Any]) -> str | None:
    try:
        told = str(answer.result(_ANSWER_SECONDS + 1.0).topic_id)
    except KafkaException as error:
        if error.args[0].code() in NO_TOPIC_ID:
            return None
        raise
    except TimeoutError:
        raise KafkaException(KafkaError(TIMED_OUT)) from None
    return told if told and told != _NONE else None
