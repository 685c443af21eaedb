"""Who is at work: the members of consumer groups, by the brokers' word."""

from __future__ import annotations

from collections.abc import Sequence

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from .errors import EXIT_DEPENDENCY_DOWN, Fatal
from .settings import KafkaSettings

_TIMEOUT = 15.0


def members(kafka: KafkaSettings, groups: Sequence[str]) -> dict[str, int]:
    """Return how many members each group has; 0 for one that the brokers do not know.

    Raises:
        Fatal: Kafka does not answer.
    """
    admin = AdminClient({**kafka.client_config(), "log_level": 0})
    try:
        described = admin.describe_consumer_groups(list(groups), request_timeout=_TIMEOUT)
        return {group: len(answer.result(_TIMEOUT).members) for group, answer in described.items()}
    except KafkaException as error:
        raise Fatal(f"Kafka does not answer: {error.args[0].name()}", EXIT_DEPENDENCY_DOWN) from None
