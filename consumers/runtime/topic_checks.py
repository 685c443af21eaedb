"""What the topics of a stage must be before it starts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaException

from .access_errors import Access
from .dead_letters import dead_letter_topic
from .errors import EXIT_CONFIG, EXIT_DEPENDENCY_DOWN, ConfigError, Fatal
from .kafka_errors import check_reachable
from .settings import KafkaSettings, ProcessSettings
from .stage import Stage

_log = structlog.get_logger()

_FIRST_SECONDS, _SECONDS = 3.0, 15.0
_TOPICS_SECONDS = 30.0  # a slow broker shows a topic so long after its creation
_MOCK_CLUSTER = "mockCluster"  # how the cluster id of librdkafka's test.mock.num.brokers begins


def check_topics(
    consumer: Consumer, stage: Stage, process: ProcessSettings, access: Access, stop: threading.Event
) -> bool:
    """Refuse to start on a test broker in production, or without a topic that is read or written.

    Args:
        consumer: of the stage, to ask the brokers.
        stage: which.
        process: says whether this is production.
        access: how to reach them, and names a right that they refuse.
        stop: set when the process is asked to end while topics are waited for.

    Returns:
        Whether this is librdkafka's mock broker.

    Raises:
        ConfigError: production would run on the mock broker, or the brokers refuse our credentials.
        Fatal: a topic is missing, topics do not fit together, or no broker answers.
        AccessRefused: the brokers do not let us see a topic.
    """
    is_mock = (described(consumer, access.kafka).cluster_id or "").startswith(_MOCK_CLUSTER)
    if is_mock:
        if process.environment == "production":
            raise ConfigError(
                "KAFKA_BOOTSTRAP_SERVERS",
                "names librdkafka's mock broker, which keeps no promise; production needs an Apache Kafka",
            )
        _log.warning("librdkafka's mock broker: good for a look around, not for guarantees")
    _wait_for_topics(consumer, stage, access, stop)
    return is_mock


def described(consumer: Consumer, kafka: KafkaSettings) -> Any:
    """Return the metadata of a cluster.

    Raises:
        Fatal: no broker answers.
        ConfigError: the brokers answer and refuse our credentials, or we theirs.
    """
    try:
        return consumer.list_topics(timeout=_FIRST_SECONDS)
    except KafkaException:
        check_reachable(kafka, _SECONDS)  # it tells at once when the brokers refuse us
    try:
        return consumer.list_topics(timeout=_SECONDS)
    except KafkaException as error:
        raise Fatal(f"Kafka does not answer: {error.args[0].name()}", EXIT_DEPENDENCY_DOWN) from None


def _wait_for_topics(consumer: Consumer, stage: Stage, access: Access, stop: threading.Event) -> None:
    # Brokers learn of a topic a moment after its creation was confirmed.
    deadline = time.monotonic() + _TOPICS_SECONDS
    while missing := missing_topics(stage, cluster := described(consumer, access.kafka)):
        for operation, topics in (("READ", stage.topics), ("WRITE", missing)):
            check_visible(consumer, [topic for topic in missing if topic in topics], access, operation)
        if time.monotonic() >= deadline or stop.wait(0.25):
            raise Fatal(f"topics are missing: {', '.join(missing)}; run `attributary topics apply`", EXIT_CONFIG)
    check_partitions(stage, cluster)


def check_visible(client: Any, topics: Iterable[str], access: Access, operation: str) -> None:
    """Refuse topics that the list of all topics lacks because we have no right on them.

    Args:
        client: a consumer or an admin client.
        topics: that the list lacks.
        access: names what is refused.
        operation: what we are about to do with them.

    Raises:
        AccessRefused: for the first.
    """
    for topic in topics:
        try:
            told = client.list_topics(topic, timeout=_SECONDS).topics.get(topic)
        except KafkaException:
            continue  # away: it is missing as far as we know
        if told is not None and told.error is not None and (refused := access.refused(told.error, operation, topic)):
            raise refused


def missing_topics(stage: Stage, cluster: Any) -> list[str]:
    """Return the topics that a stage reads or writes and that a cluster does not have."""
    wanted = [*stage.topics, *stage.output_topics]
    wanted += [dead_letter_topic(topic, stage.group) for topic in stage.topics]
    return sorted(topic for topic in wanted if topic not in cluster.topics)


def check_partitions(stage: Stage, cluster: Any) -> None:
    """Refuse topics of one stage that differ in their number of partitions.

    Raises:
        Fatal: names them.
    """
    counts = {topic: len(cluster.topics[topic].partitions) for topic in stage.topics} if len(stage.topics) > 1 else {}
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{topic} {count}" for topic, count in counts.items())
        raise Fatal(
            f"the topics that {stage.name} reads differ in their number of partitions ({said}). One person's events "
            "must have the same partition number in all of them; make the numbers equal with `attributary topics apply "
            "--add-partitions`",
            EXIT_CONFIG,
        )
