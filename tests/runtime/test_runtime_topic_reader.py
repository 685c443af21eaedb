"""Reading a topic for people: every partition, from a place in time, without a trace; on librdkafka's mock broker."""

from __future__ import annotations

import time
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer

from attributary.consumers.runtime.errors import ConfigError, Fatal
from attributary.consumers.runtime.settings import KafkaSettings
from attributary.consumers.runtime.topic_reader import _what_is_there, read_topic
from attributary.local.mock_broker import mock_broker
from tests.runtime.collector import collector_loop

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@pytest.fixture(scope="module")
def kafka() -> Iterator[KafkaSettings]:
    with mock_broker() as bootstrap:
        yield KafkaSettings(KAFKA_BOOTSTRAP_SERVERS=bootstrap)


def publish(kafka: KafkaSettings, topic: str, values: Iterable[bytes]) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0})
    for number, value in enumerate(values):
        producer.produce(topic, value, f"k{number}".encode(), headers=[("n", str(number).encode())])
    assert producer.flush(120) == 0


def test_everything_from_the_beginning_to_the_end(kafka: KafkaSettings) -> None:
    values = [str(number).encode() for number in range(50)]
    publish(kafka, "whole", values)
    found = list(read_topic(kafka, "whole", until_end=True))
    assert Counter(record.value for record in found) == Counter(values)
    assert len({record.partition for record in found}) > 1
    for partition in {record.partition for record in found}:
        offsets = [record.offset for record in found if record.partition == partition]
        assert offsets == list(range(len(offsets)))
    record = next(record for record in found if record.value == b"7")
    assert (record.key, list(record.headers)) == (b"k7", [("n", b"7")])
    assert abs(record.timestamp_ms - time.time() * 1000) < 60_000
    assert list(read_topic(kafka, "whole", until_end=True)) != []  # nothing was committed by the first reading


def test_from_the_end_there_is_nothing_yet(kafka: KafkaSettings) -> None:
    publish(kafka, "late", [b"old"])
    assert list(read_topic(kafka, "late", since_ms=None, until_end=True)) == []


def test_a_reader_waits_for_more_until_it_is_stopped(kafka: KafkaSettings) -> None:
    publish(kafka, "more", [b"1", b"2"])
    reading = read_topic(kafka, "more")
    assert {record.value for record in islice(reading, 2)} == {b"1", b"2"}
    publish(kafka, "more", [b"3"])
    assert next(reading).value == b"3"
    reading.close()  # type: ignore[attr-defined]  # a generator
    asked = iter([False, True])
    assert len(list(read_topic(kafka, "late", stopped=lambda: next(asked)))) <= 1


class SlowToFill:
    """A consumer that waits its whole timeout when fewer messages are there than asked for, as librdkafka's does."""

    def __init__(self, there: int) -> None:
        self.there, self.waited = there, 0.0

    def consume(self, most: int, timeout: float) -> list[str]:
        taken = min(most, self.there)
        self.there -= taken
        self.waited += timeout if taken < most else 0.0
        return ["message"] * taken


@pytest.mark.parametrize(("there", "read", "waited"), [(0, 0, 0.2), (1, 1, 0.0), (3, 3, 0.0), (700, 500, 0.0)])
def test_what_is_there_is_returned_without_waiting_for_more(there: int, read: int, waited: float) -> None:
    consumer = SlowToFill(there)
    assert len(_what_is_there(consumer)) == read  # type: ignore[arg-type]  # as much of a consumer as is called
    assert consumer.waited == waited


def test_a_broker_that_does_not_answer_is_a_dependency_that_is_down(
    free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("attributary.consumers.runtime.topic_reader._TIMEOUT", 0.3)
    away = KafkaSettings.model_validate(
        {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port}", "KAFKA_EXTRA": {"log_level": 0}}
    )
    with pytest.raises(Fatal, match="Kafka does not answer: _TRANSPORT") as caught:
        list(read_topic(away, "whole"))
    assert caught.value.exit_code == 69


@pytest.mark.kafka
def test_a_missing_topic_says_what_to_run(kafka_bootstrap: str) -> None:
    with pytest.raises(Fatal, match="attributary topics apply"):
        list(read_topic(KafkaSettings(KAFKA_BOOTSTRAP_SERVERS=kafka_bootstrap), "attributary-never-made"))


def test_the_loop_runs_on_the_mock_broker_in_development(kafka: KafkaSettings) -> None:
    publish(kafka, "stage-in", [str(number).encode() for number in range(20)])
    for topic in ("stage-out", "stage-in.stage.dlq"):
        publish(kafka, topic, [])
        Producer({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 0}).list_topics(topic, timeout=120)
    stage, loop = collector_loop(kafka)
    loop.run()
    assert Counter(stage.values) == Counter(str(number).encode() for number in range(20))


def test_the_loop_refuses_the_mock_broker_in_production(kafka: KafkaSettings) -> None:
    _, loop = collector_loop(kafka, ATTRIBUTION_ENVIRONMENT="production")
    with pytest.raises(ConfigError, match="KAFKA_BOOTSTRAP_SERVERS"):
        loop.run()
