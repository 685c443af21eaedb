"""A topic that was made anew under its name is never read from an offset of the old one (S18)."""

from __future__ import annotations

import secrets
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from attributary.consumers.runtime import log_watch
from attributary.consumers.runtime import topic_ids as topic_ids_module
from attributary.consumers.runtime.errors import EXIT_CONFIG, Fatal
from attributary.consumers.runtime.health import Heartbeat
from attributary.consumers.runtime.loop import ConsumerLoop
from attributary.consumers.runtime.offset_marks import OffsetMark, read_mark
from attributary.consumers.runtime.settings import KafkaSettings, ProcessSettings
from attributary.consumers.runtime.start_places import StartPlaces
from attributary.consumers.runtime.topic_ids import TopicIds
from tests.runtime.collector import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

Place = tuple[str, int]


class Store:
    """Offsets and ids of topics in memory, as Postgres keeps them."""

    def __init__(self) -> None:
        self.offsets: dict[Place, int] = {}
        self.ids: dict[Place, str] = {}

    def stored_ids(self, places: Iterable[Place]) -> Mapping[Place, str]:
        return {place: self.ids[place] for place in places if place in self.ids}

    def keep_ids(self, ids: Mapping[Place, str]) -> None:
        self.ids |= ids

    def restart_at(self, starts: Mapping[Place, int]) -> None:
        self.offsets |= starts


class Storing(Collector):
    """A collector with a store."""

    def __init__(self, enough: int, prefix: str, store: Store) -> None:
        super().__init__(enough, prefix)
        self.store = store

    @property
    def topic_ids(self) -> Store:
        return self.store

    def handle(self, batch: Any) -> Any:
        self.store.offsets |= {(record.topic, record.partition): record.offset + 1 for record in batch}
        return super().handle(batch)

    def stored_positions(self, partitions: Iterable[Place]) -> Mapping[Place, int]:
        return {place: self.store.offsets[place] for place in partitions if place in self.store.offsets}

    def begin_at(self, starts: Mapping[Place, int]) -> None:
        self.store.offsets |= starts


class KafkaOnly(Collector):
    """A collector without a store: Kafka alone knows where it is."""

    def stored_positions(self, partitions: Iterable[Place]) -> Mapping[Place, int]:  # noqa: ARG002
        return {}


class Topic:
    """A topic that can be deleted and made anew."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap, self.prefix = bootstrap, f"ids-{secrets.token_hex(4)}"
        self.name = f"{self.prefix}-in"
        self.admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        self.create(self.name, f"{self.prefix}-out", f"{self.name}.{self.prefix}.dlq")

    def create(self, *names: str) -> None:
        for future in self.admin.create_topics([NewTopic(name, 1, 1) for name in names]).values():
            future.result(120)

    def id(self) -> str:
        deadline = time.monotonic() + 180
        while True:  # a broker learns of a topic a moment after its creation was confirmed
            try:
                return str(self.admin.describe_topics(TopicCollection([self.name]))[self.name].result(120).topic_id)
            except KafkaException:
                assert time.monotonic() < deadline

    def make_anew(self) -> None:
        old = self.id()
        self.admin.delete_topics([self.name])[self.name].result(120)
        deadline = time.monotonic() + 180
        while self.name in self.admin.list_topics(timeout=120).topics:
            assert time.monotonic() < deadline
        self.create(self.name)
        assert self.id() != old

    def fill(self, *values: str) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap, "log_level": 0})
        for value in values:
            producer.produce(self.name, value.encode(), b"k")
        assert producer.flush(120) == 0


@pytest.fixture
def topic(kafka_bootstrap: str) -> Iterator[Topic]:
    made = Topic(kafka_bootstrap)
    yield made
    # Waited for: a client that is collected in its own thread, by its own answer, ends the process.
    for future in made.admin.delete_topics(
        [made.name, f"{made.prefix}-out", f"{made.name}.{made.prefix}.dlq"]
    ).values():
        with suppress(KafkaException):
            future.result(120)


def run(stage: Collector, bootstrap: str, **process: str) -> list[bytes | None]:
    settings = ProcessSettings.model_validate({"ATTRIBUTION_FIRST_START": "earliest", **process})
    kafka = KafkaSettings(KAFKA_BOOTSTRAP_SERVERS=bootstrap)
    stage.loop = ConsumerLoop(stage, kafka, settings, Heartbeat(stage.is_ready))
    stage.loop.run()
    return stage.values


@pytest.mark.kafka
def test_a_topic_made_anew_is_refused_and_read_from_its_beginning_by_choice(topic: Topic) -> None:
    store = Store()
    topic.fill(*(f"old{i}" for i in range(5)))
    assert len(run(Storing(5, topic.prefix, store), topic.bootstrap)) == 5
    place = (topic.name, 0)
    assert (store.offsets[place], store.ids[place]) == (5, topic.id())

    topic.make_anew()
    topic.fill(*(f"new{i}" for i in range(8)))  # the stored offset lies inside of the new log
    with pytest.raises(Fatal, match=r"made anew.*ATTRIBUTION_RECREATED_TOPIC=earliest") as caught:
        run(Storing(3, topic.prefix, store), topic.bootstrap)
    assert caught.value.exit_code == EXIT_CONFIG
    assert store.offsets[place] == 5

    values = run(Storing(8, topic.prefix, store), topic.bootstrap, ATTRIBUTION_RECREATED_TOPIC="earliest")
    assert values == [f"new{i}".encode() for i in range(8)]
    assert (store.offsets[place], store.ids[place]) == (8, topic.id())
    topic.fill("later")
    assert run(Storing(1, topic.prefix, store), topic.bootstrap) == [b"later"]


@pytest.mark.kafka
def test_an_offset_of_an_earlier_version_gets_the_id_of_today(topic: Topic) -> None:
    store = Store()
    store.offsets[topic.name, 0] = 2
    topic.fill("a", "b", "c")
    assert run(Storing(1, topic.prefix, store), topic.bootstrap) == [b"c"]
    assert store.ids == {(topic.name, 0): topic.id()}


@pytest.mark.kafka
def test_a_stage_without_a_store_has_the_id_in_the_metadata_of_its_offsets(topic: Topic) -> None:
    topic.fill("a", "b")
    assert run(KafkaOnly(2, topic.prefix), topic.bootstrap) == [b"a", b"b"]
    old = topic.id()
    topic.make_anew()
    topic.fill("c", "d", "e")
    # A process that still ran when the topic went commits its offset into the new log.
    zombie = Consumer({"bootstrap.servers": topic.bootstrap, "group.id": topic.prefix, "log_level": 0})
    zombie.commit(offsets=[TopicPartition(topic.name, 0, 2, OffsetMark(old).text())], asynchronous=False)
    zombie.close()
    with pytest.raises(Fatal, match="the stored offset belongs to the topic with id"):
        run(KafkaOnly(1, topic.prefix), topic.bootstrap)
    values = run(KafkaOnly(3, topic.prefix), topic.bootstrap, ATTRIBUTION_RECREATED_TOPIC="earliest")
    assert values == [b"c", b"d", b"e"]


@pytest.mark.kafka
def test_a_topic_exchanged_while_it_is_read_stops_the_stage(topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_watch, "_ASK_SECONDS", 0.2)
    topic.fill("a", "b")
    stage = Storing(100, topic.prefix, Store())
    plain = stage.handle

    def handle(batch: Any) -> Any:
        outcome = plain(batch)
        if len(stage.values) == 2:
            topic.make_anew()
        return outcome

    monkeypatch.setattr(stage, "handle", handle)
    with pytest.raises(Fatal, match=r"made anew|the topic is gone|not in the log any more"):
        run(stage, topic.bootstrap)


def test_brokers_that_do_not_answer_and_a_process_that_ends_are_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = KafkaSettings(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1", KAFKA_EXTRA={"socket.timeout.ms": 1_000})
    monkeypatch.setattr(topic_ids_module, "_PROCESS_SECONDS", 30.0)
    with pytest.raises(KafkaException):
        TopicIds(nobody).of(["t"])
    monkeypatch.setattr(sys, "executable", "/bin/false")  # as librdkafka ends a process by an assertion
    with pytest.raises(KafkaException, match="TIMED_OUT"):
        TopicIds(nobody).of(["t"])


class Ids:
    def __init__(self, ids: dict[str, str]) -> None:
        self.ids = ids

    def of(self, topics: Iterable[str]) -> dict[str, str]:
        return {topic: self.ids[topic] for topic in topics if topic in self.ids}


class Broker:
    """A consumer whose group has offset 5 of ten records, with metadata."""

    def __init__(self, metadata: str) -> None:
        self.metadata = metadata
        self.commits: list[tuple[int, str | None]] = []

    def committed(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        assert timeout
        return [TopicPartition(place.topic, place.partition, 5, self.metadata) for place in places]

    def get_watermark_offsets(self, _place: TopicPartition, timeout: float) -> tuple[int, int]:
        assert timeout
        return 0, 10

    def commit(self, offsets: list[TopicPartition], *, asynchronous: bool) -> None:
        assert not asynchronous
        self.commits += [(each.offset, each.metadata) for each in offsets]


@pytest.mark.parametrize(
    ("now", "metadata", "kept", "begins"),
    [
        ("new", OffsetMark("new").text(), None, 5),
        ("new", "", None, 5),
        ("new", "written by MirrorMaker", "new", 5),
        (None, OffsetMark("old").text(), "old", 5),  # the brokers do not tell
        ("new", OffsetMark("old").text(), None, 0),
        ("new", "", "old", 0),
        ("new", OffsetMark("new").text(), "old", 0),
    ],
)
def test_ids_decide_where_to_start(now: str | None, metadata: str, kept: str | None, begins: int) -> None:
    store, broker = Store(), Broker(metadata)
    stage: Any = Storing(1, "p", store)
    store.offsets["t", 0] = 5
    if kept:
        store.ids["t", 0] = kept
    ids: Any = Ids({"t": now} if now else {})
    consumer: Any = broker
    places = [TopicPartition("t", 0)]
    if begins == 0:
        with pytest.raises(Fatal, match="made anew"):
            StartPlaces(stage, ids, None, "stop").find(consumer, places)
        assert (store.offsets["t", 0], broker.commits) == (5, [])
    (start,) = StartPlaces(stage, ids, None, "earliest").find(consumer, places)
    assert start.offset == store.offsets["t", 0] == begins
    assert broker.commits == ([(0, OffsetMark("new").text())] if begins == 0 else [])
    assert store.ids.get(("t", 0)) == (now or kept)


@pytest.mark.parametrize("text", [None, "", "x", "[]", "1", '{"topic_id": 7}', "[" * 5_000, '{"topic_id": ""}'])
def test_metadata_of_others_is_an_empty_mark(text: str | None) -> None:
    assert read_mark(text) == OffsetMark()


def test_a_mark_comes_back() -> None:
    assert read_mark(OffsetMark("kX1-_").text()) == OffsetMark("kX1-_")
