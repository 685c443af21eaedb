"""Consumer groups seen from outside: their members and committed offsets, read without joining them."""

from __future__ import annotations

from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from .errors import EXIT_DEPENDENCY_DOWN, Fatal
from .settings import KafkaSettings

_TIMEOUT = 15.0
Partition = tuple[str, int]


def members(kafka: KafkaSettings, groups: Sequence[str]) -> dict[str, int]:
    """Return how many members each group has; 0 for one that the brokers do not know.

    Raises:
        Fatal: Kafka does not answer.
    """
    admin = AdminClient({**kafka.client_config(), "log_level": 0})
    try:
        described = admin.describe_consumer_groups(list(groups), request_timeout=_TIMEOUT)
        return {group: len(answer.result(_TIMEOUT).members) for group, answer in described.items()}
    except TimeoutError:
        raise Fatal(f"Kafka does not answer within {_TIMEOUT:.0f} s", EXIT_DEPENDENCY_DOWN) from None
    except KafkaException as error:
        raise Fatal(f"Kafka does not answer: {error.args[0].name()}", EXIT_DEPENDENCY_DOWN) from None


def committed_offsets(kafka: KafkaSettings, group: str, places: Sequence[Partition]) -> dict[Partition, int]:
    """Return the next offsets of a group as Kafka has them, without joining it; 0 where it has none.

    Args:
        kafka: how to reach the brokers.
        group: the consumer group.
        places: partitions.

    Raises:
        Fatal: Kafka does not answer.
    """
    config = {"group.id": group, "enable.auto.commit": False, "isolation.level": "read_committed"}
    consumer = Consumer(kafka.client_config() | config)
    try:
        found = consumer.committed([TopicPartition(*place) for place in places], timeout=_TIMEOUT)
    except KafkaException as error:
        raise Fatal(f"Kafka does not answer: {error.args[0].name()}", EXIT_DEPENDENCY_DOWN) from None
    finally:
        consumer.close()
    return {(place.topic, place.partition): max(0, place.offset) for place in found}
