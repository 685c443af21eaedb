"""The turns of the loop: batches, outages, rewinds, and what is said to the group."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import OFFSET_END, KafkaError, KafkaException, TopicPartition

from attributary.consumers.runtime import loop as loop_module
from attributary.consumers.runtime import metrics, topic_checks
from attributary.consumers.runtime.errors import ConfigError, Fatal, Fenced, Retry
from attributary.consumers.runtime.health import Heartbeat
from attributary.consumers.runtime.loop import ConsumerLoop
from attributary.consumers.runtime.records import DeadLetter, Outbound, Outcome, Record
from attributary.consumers.runtime.settings import KafkaSettings, ProcessSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

TOPIC = "in"


@dataclass
class Message:
    """What a consumer returns."""

    at: int
    part: int = 0
    trouble: KafkaError | None = None

    def topic(self) -> str:
        return TOPIC

    def partition(self) -> int:
        return self.part

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes:
        return b"k"

    def value(self) -> bytes:
        return b"v"

    def timestamp(self) -> tuple[int, int]:
        return 2, 1_000

    def headers(self) -> None:
        return None

    def error(self) -> KafkaError | None:
        return self.trouble


@dataclass
class Metadata:
    topics: Mapping[str, object]
    cluster_id: str = "5L6g3nShT-eMCtK--X86sw"


class StubConsumer:
    """A consumer whose reads are scripted; a function in the script is called, as a rebalance would be."""

    def __init__(self) -> None:
        self.config: dict[str, Any] = {}
        self.script: list[list[Message] | Callable[[], None]] = []
        self.calls: list[str] = []
        self.assigned: dict[int, int] = {0: 0}
        self.paused: set[int] = set()
        self.committed_offsets: dict[int, int] = {0: 0, 1: 0}
        self.member = "member-1"
        self.metadata = Metadata(dict.fromkeys([TOPIC, "out", f"{TOPIC}.group.dlq"]))
        self.answers = True
        self.waits: list[float] = []  # seconds that each read might have waited

    def __call__(self, config: dict[str, Any]) -> StubConsumer:
        self.config = config
        return self

    def consume(self, most: int, timeout: float) -> list[Message]:
        self.waits.append(timeout)
        while self.script:
            step = self.script.pop(0)
            if not isinstance(step, list):
                step()
                return []
            now, later = step[:most], step[most:]
            if later:
                self.script.insert(0, later)
            return now
        return []

    def list_topics(self, topic: str | None = None, *, timeout: float) -> Metadata:
        assert timeout > 0
        if topic is not None:
            return Metadata({})  # no right on it would be told here
        if not self.answers:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))
        return self.metadata

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition(TOPIC, partition, offset) for partition, offset in self.assigned.items()]

    def committed(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        assert timeout > 0
        if not self.answers:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return [TopicPartition(TOPIC, place.partition, self.committed_offsets[place.partition]) for place in places]

    def get_watermark_offsets(self, _place: TopicPartition, **_options: object) -> tuple[int, int]:
        return 0, 1_000

    def position(self, places: list[TopicPartition]) -> list[TopicPartition]:
        return places

    def seek(self, place: TopicPartition) -> None:
        self.calls.append(f"seek {place.partition}@{place.offset}")

    def pause(self, places: list[TopicPartition]) -> None:
        self.paused |= {place.partition for place in places}

    def resume(self, places: list[TopicPartition]) -> None:
        self.paused -= {place.partition for place in places}

    def incremental_assign(self, places: list[TopicPartition]) -> None:
        self.assigned |= {place.partition: place.offset for place in places}

    def incremental_unassign(self, places: list[TopicPartition]) -> None:
        for place in places:
            del self.assigned[place.partition]

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
        assert not asynchronous
        assert [place.offset for place in offsets] == [self.committed_offsets[place.partition] for place in offsets]

    def memberid(self) -> str:
        return self.member

    def consumer_group_metadata(self) -> str:
        return "metadata"

    def subscribe(self, topics: list[str], **callbacks: object) -> None:
        assert topics == [TOPIC]
        assert set(callbacks) == {"on_assign", "on_revoke"}

    def close(self) -> None:
        self.calls.append("close")


@dataclass
class StubStage:
    """Remembers its batches; `raises` is raised once per entry."""

    name: str = "stub"
    group: str = "group"
    topics: Sequence[str] = (TOPIC,)
    output_topics: Sequence[str] = ("out",)
    max_records: int = 100
    batches: list[list[int]] = field(default_factory=list)
    raises: list[Exception] = field(default_factory=list)
    stored: dict[tuple[str, int], int] = field(default_factory=dict)
    outcome: Outcome = field(default_factory=Outcome)
    closed: int = 0

    def handle(self, batch: Sequence[Record]) -> Outcome:
        self.batches.append([record.offset for record in batch])
        if self.raises:
            raise self.raises.pop(0)
        return self.outcome

    def stored_positions(self, partitions: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], int]:
        if self.raises:
            raise self.raises.pop(0)
        return {place: self.stored[place] for place in partitions if place in self.stored}

    def is_ready(self) -> bool:
        return True

    def close(self) -> None:
        self.closed += 1


class StubSession:
    """Remembers what was committed; `raises` is raised once per entry."""

    def __init__(self) -> None:
        self.commits: list[tuple[list[Outbound], dict[int, int]]] = []
        self.raises: list[Exception] = []
        self.opened = 0
        self.settled: list[tuple[str, int]] = []
        self.closed = 0

    def __call__(self, *_: object) -> StubSession:
        return self

    def open(self) -> None:
        self.opened += 1

    def settle(self, place: TopicPartition, metadata: object) -> None:
        assert metadata == "metadata"
        self.settled.append((place.topic, place.partition))

    def commit(self, messages: Sequence[Outbound], offsets: list[TopicPartition], metadata: object) -> None:
        assert metadata == "metadata"
        if self.raises:
            raise self.raises.pop(0)
        self.commits.append((list(messages), {place.partition: place.offset for place in offsets}))

    def close(self) -> None:
        self.closed += 1


class StubLogEnds:
    """No markers stand behind what was read."""

    def __init__(self, _config: Mapping[str, object]) -> None:
        pass

    def behind(self, _starts: Iterable[TopicPartition]) -> dict[tuple[str, int], int]:
        return {}


class StubTopicIds:
    """Ids that never change."""

    def __init__(self, _kafka: KafkaSettings) -> None:
        self.is_off = False

    def of(self, topics: Iterable[str]) -> dict[str, str]:
        return {topic: f"id-of-{topic}" for topic in topics}

    def id_of(self, topic: str) -> str:
        return f"id-of-{topic}"

    def check(self) -> None:
        pass


@dataclass
class Bench:
    """A loop on stubs, and a clock that only moves when told."""

    consumer: StubConsumer
    stage: StubStage
    session: StubSession
    loop: ConsumerLoop
    now: float = 100.0

    def turn(self, *reads: list[Message] | Callable[[], None]) -> None:
        self.consumer.script += reads
        self.loop._turn()

    @property
    def waits(self) -> float | None:
        """Seconds until the pause is over."""
        until = self.loop._paused_until
        return None if until is None else until - self.now

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return make_bench(monkeypatch)


def make_bench(monkeypatch: pytest.MonkeyPatch, **process: object) -> Bench:
    consumer, stage, session = StubConsumer(), StubStage(), StubSession()
    monkeypatch.setattr(loop_module, "Consumer", consumer)
    monkeypatch.setattr(loop_module, "TransactionSession", session)
    monkeypatch.setattr(topic_checks, "_TOPICS_SECONDS", 0.0)
    monkeypatch.setattr(loop_module, "TopicIds", StubTopicIds)
    monkeypatch.setattr(loop_module, "LogEnds", StubLogEnds)
    kafka = KafkaSettings(KAFKA_BOOTSTRAP_SERVERS="x:1")
    settings = ProcessSettings.model_validate({"ATTRIBUTION_BATCH_SIZE": 5, **process})
    loop = ConsumerLoop(stage, kafka, settings, Heartbeat(stage.is_ready))
    found = Bench(consumer, stage, session, loop)
    monkeypatch.setattr(time, "monotonic", found.monotonic)
    return found


def messages(*offsets: int, part: int = 0) -> list[Message]:
    return [Message(at, part) for at in offsets]


def error(code: int) -> list[Message]:
    return [Message(0, 0, KafkaError(code))]


def test_a_batch_goes_through_the_stage_into_one_transaction(bench: Bench) -> None:
    letter = DeadLetter(Record(TOPIC, 0, 4, b"k", b"bad", 1), "decode", None, "truncated")
    bench.stage.outcome = Outcome([Outbound("out", b"k", b"v")], [letter])
    bench.turn(messages(3, 4) + messages(8, part=1))
    assert bench.stage.batches == [[3, 4, 8]]
    ((sent, offsets),) = bench.session.commits
    assert [message.topic for message in sent] == ["out", "in.group.dlq"]
    assert offsets == {0: 5, 1: 9}


def test_no_batch_is_larger_than_asked_for(bench: Bench) -> None:
    bench.turn(messages(*range(8)))
    bench.turn()
    assert bench.stage.batches == [[0, 1, 2, 3, 4], [5, 6, 7]]
    bench.stage.max_records = 1
    bench.turn(messages(8, 9))
    assert bench.stage.batches[2] == [8]


def test_a_batch_that_a_stage_takes_in_parts_is_committed_in_parts(bench: Bench) -> None:
    def take_two(batch: Sequence[Record]) -> Outcome:
        bench.stage.batches.append([record.offset for record in batch])
        return Outcome(taken=2 if len(batch) > 2 else None)

    bench.stage.handle = take_two  # type: ignore[method-assign]
    bench.turn(messages(3, 4) + messages(8, 9, part=1) + messages(5))
    assert bench.stage.batches == [[3, 4, 8, 9, 5], [8, 9, 5], [5]]
    assert [offsets for _, offsets in bench.session.commits] == [{0: 5}, {1: 10}, {0: 6}]
    assert bench.consumer.calls == []


def test_costly_batches_let_the_group_hear_of_the_consumer(bench: Bench) -> None:
    """Parts are committed until a quarter of max.poll.interval.ms is over; the others are read again."""

    def slow(batch: Sequence[Record]) -> Outcome:
        bench.now += 20.0
        return Outcome(taken=1 if len(batch) > 1 else None)

    bench.stage.handle = slow  # type: ignore[method-assign]
    bench.consumer.committed_offsets = {0: 5}
    bench.turn(messages(3, 4, 5, 6))
    assert [offsets for _, offsets in bench.session.commits] == [{0: 4}, {0: 5}]
    assert bench.consumer.calls == ["seek 0@5"]


def test_an_idle_turn_commits_nothing(bench: Bench) -> None:
    bench.turn()
    assert (bench.stage.batches, bench.session.commits) == ([], [])


def test_an_outage_pauses_keeps_polling_and_replays(bench: Bench) -> None:
    bench.stage.raises = [Retry("Postgres does not answer", 2.0)]
    bench.turn(messages(3, 4))
    assert bench.session.commits == []
    assert (bench.waits, bench.consumer.paused) == (2.0, {0})
    bench.turn(messages(5))  # while paused: polled, not processed
    assert bench.stage.batches == [[3, 4]]
    bench.consumer.committed_offsets = {0: 3}
    bench.now += 2.0
    bench.turn()
    assert bench.consumer.calls == ["seek 0@3"]
    assert (bench.waits, bench.consumer.paused) == (None, set())
    bench.turn(messages(3, 4, 5))
    assert bench.session.commits[0][1] == {0: 6}


def test_waits_grow_with_the_tries_up_to_a_bound_and_start_again(bench: Bench) -> None:
    waits = []
    for _ in range(8):
        bench.stage.raises = [Retry("away", 1.0)]
        bench.turn(messages(3))
        waits.append(bench.waits)
        bench.now += 60.0
        bench.turn()
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 16.0, 16.0, 16.0]
    bench.turn(messages(3))
    bench.stage.raises = [Retry("away", 100.0)]
    bench.turn(messages(4))
    assert bench.waits == 30.0


def test_doubt_rewinds_to_the_smaller_of_both_stores_after_a_new_epoch(bench: Bench) -> None:
    bench.session.raises = [Fenced("transaction given up")]
    bench.consumer.committed_offsets = {0: 7}
    bench.stage.stored = {(TOPIC, 0): 5}
    bench.turn(messages(7, 8))
    assert bench.session.opened == 1
    assert bench.consumer.calls == ["seek 0@5"]
    assert bench.waits is None


def test_a_rewind_that_cannot_be_done_now_is_done_later(bench: Bench) -> None:
    bench.session.raises = [Fenced("transaction given up")]
    bench.consumer.answers = False
    bench.turn(messages(7, 8))
    assert (bench.consumer.paused, bench.consumer.calls) == ({0}, [])
    assert bench.session.settled == []
    bench.now += 60.0
    bench.turn()
    assert bench.session.settled == [(TOPIC, 0)]  # offsets that stay unstable are settled by an aborted transaction
    assert bench.waits is not None
    assert bench.consumer.paused == {0}
    bench.consumer.answers = True
    bench.now += 60.0
    bench.turn()
    assert bench.consumer.calls == ["seek 0@0"]
    assert bench.consumer.paused == set()


def test_a_member_that_the_group_let_go_commits_nothing(bench: Bench) -> None:
    bench.consumer.member = ""
    bench.turn(messages(3))
    assert bench.session.commits == []
    assert bench.consumer.calls == ["seek 0@0"]


@pytest.mark.parametrize("trouble", [Fatal("no"), ConfigError("X", "bad"), ZeroDivisionError()])
def test_what_is_not_an_outage_leaves_the_loop(bench: Bench, trouble: Exception) -> None:
    bench.stage.raises = [trouble]
    with pytest.raises(type(trouble)):
        bench.turn(messages(3))
    assert bench.session.commits == []


def assign(bench: Bench, *partitions: int) -> None:
    bench.loop._on_assign(bench.consumer, [TopicPartition(TOPIC, partition) for partition in partitions])  # type: ignore[arg-type]


def test_an_assignment_starts_where_both_stores_agree(bench: Bench) -> None:
    bench.consumer.committed_offsets[1] = 9
    bench.stage.stored = {(TOPIC, 1): 6}
    assign(bench, 1)
    assert bench.consumer.assigned[1] == 6


def test_an_assignment_during_an_outage_reads_nothing_until_it_is_known_where_to_start(bench: Bench) -> None:
    bench.stage.raises = [Retry("Postgres does not answer", 1.0)]
    bench.turn(lambda: assign(bench, 1))
    assert bench.consumer.assigned[1] == OFFSET_END
    assert bench.consumer.paused == {0, 1}
    bench.consumer.committed_offsets[1] = 9
    bench.now += 1.0
    bench.turn()
    assert bench.consumer.calls == ["seek 0@0", "seek 1@9"]
    assert bench.consumer.paused == set()


def test_a_partition_assigned_while_paused_is_paused_when_it_speaks(bench: Bench) -> None:
    bench.stage.raises = [Retry("away", 5.0)]
    bench.turn(messages(3))
    bench.turn(lambda: assign(bench, 1))
    bench.turn(messages(0, part=1))
    assert bench.consumer.paused == {0, 1}
    assert bench.stage.batches == [[3]]


def test_a_start_that_is_refused_inside_a_callback_is_raised_after_the_read(bench: Bench) -> None:
    bench.stage.stored = {(TOPIC, 1): 2_000}  # ahead of the log
    with pytest.raises(Fatal, match="Postgres has read up to 2000"):
        bench.turn(lambda: assign(bench, 1))
    assert 1 not in bench.consumer.assigned


def test_a_partition_given_away_between_two_reads_is_not_committed(bench: Bench) -> None:
    bench.consumer.assigned[1] = 0

    def revoke() -> None:
        bench.loop._on_revoke(bench.consumer, [TopicPartition(TOPIC, 0)])  # type: ignore[arg-type]

    bench.consumer.script = [messages(3), revoke]
    bench.loop._turn()
    assert bench.stage.batches == []
    assert bench.consumer.assigned == {1: 0}


@pytest.mark.parametrize("code", [KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE])
def test_records_that_were_removed_unread_stop_the_process(bench: Bench, code: int) -> None:
    with pytest.raises(Fatal, match="removed before they were read"):
        bench.turn(error(code))


@pytest.mark.parametrize("code", [KafkaError._BAD_COMPRESSION, KafkaError._BAD_MSG])
def test_s5_a_batch_that_cannot_be_unpacked_is_counted_and_holds_its_partition(bench: Bench, code: int) -> None:
    counted = metrics.unreadable_batches.labels(bench.stage.name, TOPIC)._value
    before = counted.get()
    bench.turn(error(code), messages(4, part=1))
    assert counted.get() == before + 1
    assert metrics.partitions_held.labels(bench.stage.name)._value.get() == 1
    assert bench.consumer.paused == {0}
    bench.turn(messages(5, part=1))
    assert bench.stage.batches[-1] == [5]


def test_a_topic_that_is_gone_stops_the_process(bench: Bench) -> None:
    with pytest.raises(Fatal, match="in: the topic is gone") as caught:
        bench.turn(error(KafkaError.UNKNOWN_TOPIC_OR_PART))
    assert caught.value.exit_code == 78


@pytest.mark.parametrize("code", [KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError.ILLEGAL_GENERATION])
def test_passing_trouble_is_passed_over(bench: Bench, code: int) -> None:
    bench.turn(error(code))
    bench.turn(messages(3))
    assert bench.stage.batches == [[3]]


def test_run_stops_after_the_batch_in_hand_and_gives_everything_back(bench: Bench) -> None:
    bench.consumer.script = [messages(3), bench.loop.stop]
    bench.loop.run()
    assert bench.stage.batches == [[3]]
    assert (bench.stage.closed, bench.session.closed, bench.consumer.calls) == (1, 1, ["close"])


def test_run_gives_everything_back_after_a_bug(bench: Bench) -> None:
    bench.consumer.script = [messages(3)]
    bench.stage.raises = [KeyError("bug")]
    with pytest.raises(KeyError):
        bench.loop.run()
    assert (bench.stage.closed, bench.session.closed) == (1, 1)


def test_run_leaves_the_group_when_the_stage_fails_to_close(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def close() -> None:
        raise Fatal("the worker had ended by a bug")

    monkeypatch.setattr(bench.stage, "close", close)
    bench.consumer.script = [bench.loop.stop]
    with pytest.raises(Fatal, match="by a bug"):
        bench.loop.run()
    assert (bench.session.closed, bench.consumer.calls) == (1, ["close"])


def test_partitions_that_come_while_leaving_are_taken_without_asking_anybody(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def close() -> None:
        bench.loop._on_assign(bench.consumer, [TopicPartition(TOPIC, 1)])  # type: ignore[arg-type]

    monkeypatch.setattr(bench.consumer, "close", close)
    bench.consumer.answers = False
    bench.consumer.script = [bench.loop.stop]
    monkeypatch.setattr(bench.loop, "_check_topics", lambda: None)
    bench.loop.run()
    assert bench.consumer.assigned == {0: 0, 1: OFFSET_END}
    assert bench.waits is None


@pytest.mark.parametrize("missing", [TOPIC, "out", "in.group.dlq"])
def test_a_missing_topic_stops_the_start(bench: Bench, missing: str) -> None:
    bench.consumer.metadata.topics = {name: None for name in bench.consumer.metadata.topics if name != missing}
    with pytest.raises(Fatal, match=f"topics are missing: {missing}; run `attributary topics apply`") as caught:
        bench.loop.run()
    assert caught.value.exit_code == 78


def test_brokers_that_do_not_answer_stop_the_start(bench: Bench) -> None:
    bench.consumer.answers = False
    with pytest.raises(Fatal, match="no Kafka broker answers at x:1") as caught:
        bench.loop.run()
    assert caught.value.exit_code == 69


def test_a_topic_that_appears_a_moment_later_is_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_checks, "_TOPICS_SECONDS", 5.0)
    whole = bench.consumer.metadata
    bench.consumer.metadata = Metadata({})

    def list_topics(timeout: float) -> Metadata:
        assert timeout > 0
        found, bench.consumer.metadata = bench.consumer.metadata, whole
        return found

    monkeypatch.setattr(bench.consumer, "list_topics", list_topics)
    bench.loop._check_topics()


def test_production_refuses_the_mock_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = make_bench(monkeypatch, ATTRIBUTION_ENVIRONMENT="production")
    bench.loop._check_topics()
    bench.consumer.metadata.cluster_id = "mockCluster15594c9d5204"
    with pytest.raises(ConfigError, match="KAFKA_BOOTSTRAP_SERVERS: names librdkafka's mock broker"):
        bench.loop.run()


def test_development_takes_the_mock_broker(bench: Bench) -> None:
    bench.consumer.metadata.cluster_id = "mockCluster15594c9d5204"
    bench.loop._check_topics()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_no_setting_of_the_operator_weakens_the_consumer(monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
    consumer, stage = StubConsumer(), StubStage()
    monkeypatch.setattr(loop_module, "Consumer", consumer)
    weak = {"enable.auto.commit": True, "isolation.level": "read_uncommitted", "auto.offset.reset": "latest"}
    kafka = {"KAFKA_BOOTSTRAP_SERVERS": "x:1", "KAFKA_EXTRA": weak, "KAFKA_GROUP_PROTOCOL": protocol}
    ConsumerLoop(stage, KafkaSettings.model_validate(kafka), ProcessSettings(), Heartbeat(stage.is_ready))
    config = consumer.config
    assert config["enable.auto.commit"] is False
    assert (config["isolation.level"], config["auto.offset.reset"]) == ("read_committed", "error")
    assert config.get("partition.assignment.strategy") == ("cooperative-sticky" if protocol == "classic" else None)
