"""Retention may remove all records of a partition that is read to its end: the markers behind them are no records."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from attributary.consumers.runtime import loop as loop_module
from attributary.consumers.runtime.consumer_config import consumer_config
from attributary.consumers.runtime.errors import Fatal
from attributary.consumers.runtime.log_ends import LogEnds
from attributary.consumers.runtime.settings import KafkaSettings, ProcessSettings
from tests.fixtures.collector import wait_until
from tests.runtime.collector import Collector, collector_loop, collector_topics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

pytestmark = pytest.mark.kafka


class KafkaOnly(Collector):
    """A collector that starts where Kafka says."""

    def stored_positions(self, partitions: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], int]:  # noqa: ARG002
        return {}


@pytest.fixture
def written(kafka_bootstrap: str) -> Iterator[tuple[KafkaSettings, str]]:
    """Three transactions of one record each in a partition: records at 0, 2, 4 and markers at 1, 3, 5."""
    with collector_topics(kafka_bootstrap, "ends") as prefix:
        write(kafka_bootstrap, prefix, commits=[True, True, True])
        yield KafkaSettings(KAFKA_BOOTSTRAP_SERVERS=kafka_bootstrap), prefix


def write(bootstrap: str, prefix: str, commits: list[bool]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": prefix, "log_level": 0})
    producer.init_transactions(120)
    for number, is_committed in enumerate(commits):
        producer.begin_transaction()
        producer.produce(f"{prefix}-in", b"%d" % number, b"k", partition=0)
        assert producer.flush(120) == 0
        producer.commit_transaction(120) if is_committed else producer.abort_transaction(120)


def committed(kafka: KafkaSettings, prefix: str) -> int:
    """Return what the group has committed; -1 while a new group's coordinator does not answer."""
    consumer = Consumer(kafka.client_config() | {"group.id": prefix})
    try:
        return int(consumer.committed([TopicPartition(f"{prefix}-in", 0)], timeout=120)[0].offset)
    except KafkaException:
        return -1
    finally:
        consumer.close()


def remove_all(kafka: KafkaSettings, prefix: str) -> int:
    """Remove every record, as retention does; return where the log begins now."""
    place = TopicPartition(f"{prefix}-in", 0, -1)
    admin = AdminClient(kafka.client_config())
    [future] = admin.delete_records([place]).values()
    return int(future.result(120).low_watermark)


def run_until(kafka: KafkaSettings, prefix: str, offset: int) -> list[bytes | None]:
    """Run a stage until its group has committed an offset; return what it was given."""
    stage, loop = collector_loop(kafka, prefix, enough=10**6)
    stage.__class__ = KafkaOnly
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        wait_until(lambda: committed(kafka, prefix) == offset, f"offset {offset} is committed", 180)
    finally:
        loop.stop()
        thread.join(120)
    return stage.values


def test_a_log_that_retention_emptied_after_it_was_read_does_not_stop_the_start(
    written: tuple[KafkaSettings, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka, prefix = written
    assert run_until(kafka, prefix, 5) == [b"0", b"1", b"2"]  # behind the last record, in front of its marker
    monkeypatch.setattr(loop_module, "_LOOK_BACK_EVERY_SECONDS", 0.2)
    assert run_until(kafka, prefix, 6) == []
    assert remove_all(kafka, prefix) == 6
    write(kafka.bootstrap_servers, prefix, commits=[True])
    assert run_until(kafka, prefix, 8) == [b"0"]


def test_a_log_that_retention_emptied_before_it_was_read_stops_the_start(
    written: tuple[KafkaSettings, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka, prefix = written
    monkeypatch.setattr(loop_module, "_LOOK_BACK_EVERY_SECONDS", 0.2)
    run_until(kafka, prefix, 6)
    write(kafka.bootstrap_servers, prefix, commits=[True])
    assert remove_all(kafka, prefix) == 8
    stage, loop = collector_loop(kafka, prefix)
    stage.__class__ = KafkaOnly
    with pytest.raises(Fatal, match="the next record to read is 6, but the log begins at 8"):
        loop.run()


@pytest.mark.parametrize(
    ("commits", "offset", "expected"),
    [
        ([True, True], 5, None),  # more was written since: the next records are the stage's
        ([False, False], 5, 10),  # records of transactions that were given up are nobody's
        ([False, True], 5, None),
        ([], 4, None),
        ([], 6, None),  # stands at the end already
        ([], -1001, None),  # nothing is committed
    ],
)
def test_only_markers_are_gone_behind(
    written: tuple[KafkaSettings, str], commits: list[bool], offset: int, expected: int | None
) -> None:
    kafka, prefix = written
    write(kafka.bootstrap_servers, prefix, commits)
    stage, loop = collector_loop(kafka, prefix)
    ends = LogEnds(consumer_config(kafka, stage, ProcessSettings.model_validate({})))
    found = ends.behind([TopicPartition(f"{prefix}-in", 0, offset)])
    assert found == ({} if expected is None else {(f"{prefix}-in", 0): expected})
    loop.stop()
    loop.run()
