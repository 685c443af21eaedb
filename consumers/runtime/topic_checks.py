"""What the topics of a stage must be before it starts."""

from __future__ import annotations

from typing import Any

from confluent_kafka import Consumer, KafkaException

from .dead_letters import dead_letter_topic
from .errors import EXIT_CONFIG, EXIT_DEPENDENCY_DOWN, Fatal
from .stage import Stage


def described(consumer: Consumer) -> Any:
    """Return the metadata of a cluster.

    Raises:
        Fatal: no broker answers.
    """
    try:
        return consumer.list_topics(timeout=15.0)
    except KafkaException as error:
        raise Fatal(f"Kafka does not answer: {error.args[0].name()}", EXIT_DEPENDENCY_DOWN) from None


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
