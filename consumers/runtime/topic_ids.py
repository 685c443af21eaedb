"""Which topic a name stands for: Kafka's own id, which a topic made anew under the same name does not have.

Invariant: an offset is used only in the log that it was written for. The ids are asked for before a partition starts;
while a stage runs they are compared every two minutes, by another thread than the loop's, so at most that much is read
from a log that was exchanged, and the id beside the stored offsets still tells at the next start.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from .error_codes import TIMED_OUT
from .errors import EXIT_CONFIG, Fatal
from .settings import KafkaSettings

_FRESH_SECONDS = 180.0  # longer than between two comparisons: an idle stage that looks back asks nobody
_PROCESS_SECONDS = 60.0

ADVICE = (
    "Its records would be skipped up to the stored offset. If KAFKA_BOOTSTRAP_SERVERS names the wrong cluster, correct "
    "it. To read the new log from its beginning, start with ATTRIBUTION_RECREATED_TOPIC=earliest."
)


class TopicIds:
    """Asks the brokers about topics.

    Args:
        kafka: how to reach the brokers.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._config = kafka.client_config()
        self._known: dict[str, str] = {}
        self._known_at = 0.0
        self._exchanged: str | None = None
        self.is_off = False
        """True for librdkafka's test broker, which does not answer."""

    def of(self, topics: Iterable[str]) -> dict[str, str]:
        """Return the ids that topics have now; one is missing when the brokers do not tell it.

        Raises:
            KafkaException: the brokers do not answer, or do not know the topic (yet).
        """
        names = sorted(set(topics))
        if not self.is_off and names and (time.monotonic() - self._known_at > _FRESH_SECONDS or not self._has(names)):
            self._known |= self.ask(names, (), only_ids=True)["ids"]
            self._known_at = time.monotonic()
        return {name: self._known[name] for name in names if name in self._known}

    def id_of(self, topic: str) -> str | None:
        """Return the id that a topic had when its partitions started."""
        return self._known.get(topic)

    def compare(self, ids: dict[str, str]) -> None:
        """Compare ids of now with those that the partitions were started with. Called by any thread."""
        self._known_at = time.monotonic()
        for topic, topic_id in ids.items():
            if self._known.get(topic, topic_id) != topic_id:
                self._exchanged = topic

    def check(self) -> None:
        """Act on what ``compare`` found.

        Raises:
            Fatal: a topic was made anew while it was read.
        """
        if self._exchanged is not None:
            raise Fatal(f"{self._exchanged}: the topic was made anew while it was read. {ADVICE}", EXIT_CONFIG)

    def ask(self, topics: Sequence[str], dead_letter_topics: Sequence[str], *, only_ids: bool) -> dict[str, Any]:
        """Ask the brokers, by a process of its own (``_topic_facts`` says why, and what it answers).

        Raises:
            KafkaException: they do not answer.
        """
        question = {"config": self._config, "topics": topics, "dead_letter_topics": dead_letter_topics,
                    "only_ids": only_ids}  # fmt: skip
        try:
            done = subprocess.run(  # our own module
                [sys.executable, "-m", "attributary.consumers.runtime._topic_facts"],
                input=json.dumps(question), capture_output=True, text=True, timeout=_PROCESS_SECONDS, check=True,
            )  # fmt: skip
            told: dict[str, Any] = json.loads(done.stdout)
        except (subprocess.SubprocessError, ValueError):
            raise KafkaException(KafkaError(TIMED_OUT)) from None
        if "error" in told:
            raise KafkaException(KafkaError(getattr(KafkaError, told["error"], TIMED_OUT)))
        return told

    def _has(self, names: Sequence[str]) -> bool:
        return all(name in self._known for name in names)
