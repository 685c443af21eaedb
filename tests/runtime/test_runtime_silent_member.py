"""How long a rebalance waits for a member that is gone but whose session the broker does not watch."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer

from attributary.consumers.runtime.settings import KafkaSettings
from tests.runtime.collector import collector_loop, collector_topics
from tests.runtime.silent_member import SilentMember

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SESSION_MS, POLL_MS = 6_000, 7_000
SILENT_MS = 240_000


@pytest.fixture
def prefix(kafka_bootstrap: str) -> Iterator[str]:
    """Of a stage's topics, which exist."""
    with collector_topics(kafka_bootstrap, "silent") as name:
        yield name


def publish(bootstrap: str, topic: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
    producer.produce(topic, value)
    assert producer.flush(120) == 0


def test_a_member_that_is_gone_holds_the_others_up_no_longer_than_the_poll_interval(
    kafka_bootstrap: str, prefix: str
) -> None:
    kafka = KafkaSettings.model_validate(
        {
            "KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap,
            "KAFKA_SESSION_TIMEOUT_MS": SESSION_MS,
            "KAFKA_TRANSACTION_TIMEOUT_MS": 5_000,
            "KAFKA_MAX_POLL_INTERVAL_MS": POLL_MS,
        }
    )
    publish(kafka_bootstrap, f"{prefix}-in", b"first")
    _, loop = collector_loop(kafka, prefix, enough=1)
    loop.run()  # the group has a coordinator, and no members now
    publish(kafka_bootstrap, f"{prefix}-in", b"second")
    with SilentMember(kafka_bootstrap, prefix, f"{prefix}-in", SILENT_MS, 1_000) as silent:
        assert silent.generation >= 1
        stage, loop = collector_loop(kafka, prefix, enough=2)
        started = time.monotonic()
        late = threading.Timer(SILENT_MS / 2_000, loop.stop)
        late.start()
        loop.run()
        late.cancel()
    # It was waited for: without that the test would show nothing.
    assert time.monotonic() - started > POLL_MS / 1_000 - 1.0
    assert b"second" in stage.values
