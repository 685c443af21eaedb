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


@dataclass
class ReadsInBulk(Reads):
    """One that nobody waits for."""

    fetch_min_bytes: int = 1_000


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
    assert is_eager(kafka, Reads(topics)) == (strategy == "range")  # type: ignore[arg-type]  # no whole stage


def test_a_stage_that_reads_in_bulk_is_sent_many_bytes_at_once_and_others_each_record_as_it_comes() -> None:
    kafka = KafkaSettings.model_validate({"KAFKA_BOOTSTRAP_SERVERS": "x:1"})
    config = consumer_config(kafka, ReadsInBulk(("one",)), ProcessSettings())  # type: ignore[arg-type]  # no whole stage
    assert (config["fetch.min.bytes"], config["fetch.wait.max.ms"]) == (1_000, 500)
    assert "fetch.min.bytes" not in consumer_config(kafka, Reads(("one",)), ProcessSettings())  # type: ignore[arg-type]  # no whole stage


def test_the_client_holds_few_records_of_a_partition_and_asks_again_soon() -> None:
    """With librdkafka's 100,000 it asks the broker for every few records; with its pause of a second batches starve."""
    kafka = KafkaSettings.model_validate({"KAFKA_BOOTSTRAP_SERVERS": "x:1"})
    config = consumer_config(kafka, Reads(("one",)), ProcessSettings())  # type: ignore[arg-type]  # no whole stage
    assert config["queued.min.messages"] <= ProcessSettings().batch_size
    assert config["fetch.queue.backoff.ms"] <= 2 * ProcessSettings().linger_ms
