"""What a stage asks of Kafka's group: who gets which partitions."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from attributary.consumers.runtime.consumer_config import consumer_config, is_eager
from attributary.consumers.runtime.settings import KafkaSettings, ProcessSettings


@dataclass
class Reads:
    """As much of a stage as the configuration looks at."""

    topics: tuple[str, ...]
    group: str = "group"


@pytest.mark.parametrize(
    ("protocol", "topics", "strategy", "remote"),
    [
        ("classic", ("one",), "cooperative-sticky", None),
        ("classic", ("one", "two"), "range", None),
        ("consumer", ("one",), None, None),
        ("consumer", ("one", "two"), None, "range"),
    ],
)
def test_topics_that_are_read_together_keep_their_partition_numbers_together(
    protocol: str, topics: tuple[str, ...], strategy: str | None, remote: str | None
) -> None:
    kafka = KafkaSettings.model_validate({"KAFKA_BOOTSTRAP_SERVERS": "x:1", "KAFKA_GROUP_PROTOCOL": protocol})
    config = consumer_config(kafka, Reads(topics), ProcessSettings())  # type: ignore[arg-type]  # topics and group only
    assert config.get("partition.assignment.strategy") == strategy
    assert config.get("group.remote.assignor") == remote
    assert is_eager(kafka, Reads(topics)) == (strategy == "range")  # type: ignore[arg-type]
