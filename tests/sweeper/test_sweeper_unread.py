"""What is unread, asked of a real broker: also while nobody reads, and behind marks of transactions."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from attributary.attribution_core.domain.lookback import DEFAULT_POLICY, LookbackPolicy
from attributary.consumers.runtime.errors import Retry
from attributary.consumers.runtime.records import Record
from attributary.consumers.runtime.settings import KafkaSettings
from attributary.consumers.runtime.topic_reader import read_topic
from attributary.consumers.store.session import StoreSession
from attributary.consumers.sweeper import input_age, metrics
from attributary.consumers.sweeper.input_age import ATTRIBUTOR, AUDITOR, READERS, STITCHER, UnreadAgeReader
from attributary.consumers.sweeper.process import Sweeper, SweeperSettings
from attributary.schemas.topics import COMMANDS, CONVERSIONS, IDENTITIES, RESULTS, TOUCHPOINTS
from tests.factories.samples import codec, sale, touch
from tests.fixtures.pipeline import Publisher, wait_until
from tests.fixtures.topics import PARTITIONS
from tests.pipeline_harness import InProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.kafka

NOTHING: dict[str, int | None] = dict.fromkeys(READERS)


@pytest.fixture
def log(fresh_topics: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[UnreadAgeReader]:
    monkeypatch.setattr(input_age, "_TIMEOUT", 90.0)  # a busy machine's answers are late
    opened = UnreadAgeReader(KafkaSettings.model_validate({"KAFKA_BOOTSTRAP_SERVERS": fresh_topics}))
    yield opened
    opened.close()


def append(bootstrap: str, topic: str, partition: int = 0, count: int = 1) -> list[int]:
    """Append records; returns their log-append times, microseconds UTC."""
    times: list[int] = []
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})
    for _ in range(count):
        producer.produce(topic, b"x", b"k", partition, on_delivery=lambda _, m: times.append(m.timestamp()[1] * 1_000))
        assert producer.flush(120) == 0
        time.sleep(0.005)
    return times


def commit(bootstrap: str, group: str, topic: str, offset: int, partition: int = 0) -> None:
    member = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False})
    member.commit(offsets=[TopicPartition(topic, partition, offset)], asynchronous=False)
    member.close()


def test_the_oldest_record_of_any_partition_counts_while_nobody_reads(fresh_topics: str, log: UnreadAgeReader) -> None:
    assert log.oldest({}) == NOTHING
    first = append(fresh_topics, TOUCHPOINTS, partition=1, count=3)
    append(fresh_topics, IDENTITIES, partition=2)
    assert log.oldest({}) == NOTHING | {STITCHER: first[0]}
    assert log.oldest({(STITCHER, TOUCHPOINTS, 1): 2}) == NOTHING | {STITCHER: first[2]}
    everything = {(STITCHER, TOUCHPOINTS, 1): 3, (STITCHER, IDENTITIES, 2): 1}
    assert log.oldest(everything) == NOTHING
    # Postgres may be ahead of Kafka, and the other way round: the smaller counts.
    commit(fresh_topics, STITCHER, TOUCHPOINTS, 1, partition=1)
    assert log.oldest(everything) == NOTHING | {STITCHER: first[1]}
    with pytest.raises(Retry, match="has read up to 2, the log ends at 1"):
        log.oldest({(STITCHER, IDENTITIES, 2): 2})


def test_commands_and_results_are_told_apart(fresh_topics: str, log: UnreadAgeReader) -> None:
    (asked,), (answered,) = append(fresh_topics, COMMANDS), append(fresh_topics, RESULTS)
    assert log.oldest({}) == NOTHING | {ATTRIBUTOR: asked, AUDITOR: answered}
    commit(fresh_topics, ATTRIBUTOR, COMMANDS, 1)
    assert log.oldest({(AUDITOR, RESULTS, 0): 1}) == NOTHING


def test_every_partition_is_asked_while_all_are_behind(fresh_topics: str, log: UnreadAgeReader) -> None:
    producer = Producer({"bootstrap.servers": fresh_topics, "linger.ms": 0})
    places = [(topic, number) for topics in READERS.values() for topic in topics for number in range(PARTITIONS)]
    for _ in range(4):
        for topic, number in places:
            producer.produce(topic, secrets.token_bytes(400_000), b"k", number)  # more than a fetch brings
        assert producer.flush(120) == 0
    for _ in range(3):
        began = time.monotonic()
        assert None not in log.oldest({}).values()
        assert time.monotonic() - began < 60  # not the timeout: no partition keeps the others waiting


def test_marks_of_transactions_and_what_was_aborted_are_nothing_to_read(
    fresh_topics: str, log: UnreadAgeReader
) -> None:
    producer = Producer({"bootstrap.servers": fresh_topics, "transactional.id": "tests"})
    producer.init_transactions(120)
    for ends in (producer.commit_transaction, producer.abort_transaction):
        producer.begin_transaction()
        producer.produce(RESULTS, b"x", b"k", 0)
        producer.flush(120)
        ends(120)
    assert log.oldest({})[AUDITOR] is not None
    assert log.oldest({(AUDITOR, RESULTS, 0): 1})[AUDITOR] is None


def test_a_transaction_that_has_not_ended_is_no_end_and_no_position(fresh_topics: str, log: UnreadAgeReader) -> None:
    (first,) = append(fresh_topics, TOUCHPOINTS)
    commit(fresh_topics, STITCHER, TOUCHPOINTS, 0)
    stored = {(STITCHER, TOUCHPOINTS, 0): 1}
    producer = Producer({"bootstrap.servers": fresh_topics, "transactional.id": "tests"})
    producer.init_transactions(120)
    producer.begin_transaction()
    producer.produce(TOUCHPOINTS, b"x", b"k", 0)
    assert producer.flush(120) == 0
    member = Consumer({"bootstrap.servers": fresh_topics, "group.id": STITCHER})
    producer.send_offsets_to_transaction([TopicPartition(TOUCHPOINTS, 0, 1)], member.consumer_group_metadata(), 120)
    began = time.monotonic()
    assert log.oldest(stored) == NOTHING | {STITCHER: first}  # its offset does not count yet, nor does its record
    assert time.monotonic() - began < 60
    producer.commit_transaction(120)
    member.close()
    # The coordinator answers before the transaction's marker stands in the partition.
    wait_until(lambda: log.oldest(stored)[STITCHER] not in {None, first}, "the record of the transaction counts")


@pytest.mark.postgres
def test_a_stitcher_that_is_down_for_a_day_makes_nothing_final_that_a_waiting_touch_may_change(
    fresh_topics: str, log: UnreadAgeReader, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = LookbackPolicy.parse({**DEFAULT_POLICY, "lateness_days": 0.25})
    kafka = KafkaSettings.model_validate({"KAFKA_BOOTSTRAP_SERVERS": fresh_topics})
    publisher = Publisher(fresh_topics)
    kafka_stub: Any = (log, _NoProducer())
    session = StoreSession(database, "tests")
    sweeper = Sweeper(SweeperSettings(), policy, codec(), session, kafka_stub)
    now_us = time.time_ns() // 1_000
    clock = {"ahead_ns": 86_400 * 10**9}
    real = time.time_ns

    def stitch(topic: str) -> None:
        records = list(read_topic(kafka, topic, until_end=True))
        stages.commands += [stages._read(each, "commands") for each in stages.stitcher.handle(records).messages]

    with InProcess(database, policy) as stages:
        publisher.send(CONVERSIONS, {**sale("c1").to_record(), "occurred_at": now_us}, 0)
        publisher.flush()
        stitch(CONVERSIONS)
        # The stitcher goes down, a touch arrives in time, and a day passes: far longer than lateness and grace.
        publisher.send(TOUCHPOINTS, {**touch("t1").to_record(), "occurred_at": now_us - 60 * 10**6}, 0)
        publisher.flush()
        monkeypatch.setattr("time.time_ns", lambda: real() + clock["ahead_ns"])
        assert sweeper.sweep_once().finalised == []
        assert metrics.finalising_held._value.get() == 1
        assert metrics.oldest_unread_input_seconds._value.get() > 86_000
        # It comes back, reads the touch, and only then the conversion becomes final, with the touch in it.
        stitch(TOUCHPOINTS)
        assert [(version.version, version.reason) for version in sweeper.sweep_once().finalised] == [(3, "final")]
        assert metrics.finalising_held._value.get() == 0
        stages.commands = [_command("c1", 3)]
        (result,) = stages.answer()
        assert (result["is_final"], result["touchpoint_count"]) == (True, 1)
    session.close()


class _NoProducer:
    """Takes commands and sends nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_args, **_named: 0


def _command(conversion_id: str, version: int) -> Record:
    fields = {"tenant_id": "acme", "conversion_id": conversion_id, "version": version, "reason": "final"}
    value = codec().encode("command", fields | {"issued_by": "sweeper", "event_published_at": 0})
    return Record(COMMANDS, 0, 0, None, value, 0)


def test_brokers_that_are_away_say_nothing(free_port: int) -> None:
    log = UnreadAgeReader(KafkaSettings.model_validate({"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port}"}))
    with pytest.raises(Retry, match="Kafka does not say what is unread"):
        log.oldest({})
    log.close()
