"""What becomes of a Kafka transaction that fails: which error class, and never one left open."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from attributary.consumers.runtime import transaction as session_module
from attributary.consumers.runtime.errors import AccessRefused, Fatal, Fenced, Retry
from attributary.consumers.runtime.records import Outbound
from attributary.consumers.runtime.settings import KafkaSettings
from attributary.consumers.runtime.transaction import TransactionSession

OFFSETS = [TopicPartition("in", 0, 7)]
MESSAGES = [Outbound("out", b"k", b"v", [("h", b"1")]), Outbound("out", b"k2", None)]


def failure(code: int, *, abort: bool = False, retriable: bool = False, fatal: bool = False) -> KafkaException:
    return KafkaException(KafkaError(code, None, fatal, retriable, abort))


class StubProducer:
    """Notes every call; `fails` maps the name of a call to what it raises, once per entry."""

    made: list[StubProducer]
    fails: dict[str, list[Exception]]

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.calls: list[str] = []
        self.sent: list[tuple[Any, ...]] = []
        StubProducer.made.append(self)

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if StubProducer.fails.get(name):
            raise StubProducer.fails[name].pop(0)

    def init_transactions(self, _timeout: float) -> None:
        self._call("init")

    def begin_transaction(self) -> None:
        self._call("begin")

    def produce(self, topic: str, value: bytes | None, key: bytes | None, headers: Any) -> None:
        self._call("produce")
        self.sent.append((topic, key, value, headers))

    def poll(self, _timeout: float) -> None:
        self._call("poll")

    def send_offsets_to_transaction(self, offsets: Any, metadata: Any, _timeout: float) -> None:
        assert (offsets, metadata) == (OFFSETS, "metadata")
        self._call("offsets")

    def commit_transaction(self, _timeout: float) -> None:
        self._call("commit")

    def list_topics(self, _topic: str, timeout: float) -> None:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT), timeout)

    def abort_transaction(self, _timeout: float) -> None:
        self._call("abort")


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> TransactionSession:
    StubProducer.made, StubProducer.fails = [], {}
    monkeypatch.setattr(session_module, "Producer", StubProducer)
    return TransactionSession(KafkaSettings(KAFKA_BOOTSTRAP_SERVERS="x:1"), "attribution.stitcher-0", "test")


def commit(session: TransactionSession) -> None:
    session.commit(MESSAGES, OFFSETS, "metadata")


def test_messages_and_offsets_go_into_one_transaction(session: TransactionSession) -> None:
    commit(session)
    commit(session)
    (producer,) = StubProducer.made
    once = ["begin", "produce", "produce", "offsets", "commit"]
    assert producer.calls == ["init", *once, *once]
    assert producer.sent[:2] == [("out", b"k", b"v", [("h", b"1")]), ("out", b"k2", None, None)]
    assert producer.config["transactional.id"] == "attribution.stitcher-0"
    assert producer.config["acks"] == "all"
    assert producer.config["partitioner"] == "murmur2_random"
    assert producer.config["transaction.timeout.ms"] == 30_000


def test_no_setting_of_the_operator_weakens_the_producer(monkeypatch: pytest.MonkeyPatch) -> None:
    StubProducer.made, StubProducer.fails = [], {}
    monkeypatch.setattr(session_module, "Producer", StubProducer)
    weak = {"acks": 1, "enable.idempotence": False}
    kafka = KafkaSettings.model_validate({"KAFKA_BOOTSTRAP_SERVERS": "x:1", "KAFKA_EXTRA": weak})
    TransactionSession(kafka, "id", "test").open()
    assert StubProducer.made[0].config["acks"] == "all"
    assert StubProducer.made[0].config["enable.idempotence"] is True


def test_a_full_queue_is_drained_and_nothing_is_dropped(session: TransactionSession) -> None:
    StubProducer.fails = {"produce": [BufferError(), BufferError()]}
    commit(session)
    assert len(StubProducer.made[0].sent) == 2
    assert StubProducer.made[0].calls.count("poll") == 2


@pytest.mark.parametrize("step", ["begin", "offsets", "commit"])
@pytest.mark.parametrize(
    ("error", "becomes", "aborted"),
    [
        (failure(KafkaError.ILLEGAL_GENERATION, abort=True), Fenced, True),
        (failure(KafkaError.UNKNOWN_MEMBER_ID, abort=True), Fenced, True),
        (failure(KafkaError._FENCED, fatal=True), Fenced, False),
        (failure(KafkaError.INVALID_PRODUCER_EPOCH, abort=True), Fenced, True),
        (failure(KafkaError._TIMED_OUT), Retry, False),
        (failure(KafkaError._TRANSPORT, abort=True), Retry, True),
        (failure(KafkaError.UNKNOWN_TOPIC_OR_PART, abort=True), Fatal, True),
        (failure(KafkaError.TOPIC_AUTHORIZATION_FAILED, fatal=True), AccessRefused, False),
        (failure(KafkaError._STATE), Fenced, False),  # unclassified: doubt, so a new epoch and a replay
    ],
)
def test_a_failed_step_becomes_one_of_our_classes_and_leaves_nothing_open(
    session: TransactionSession, step: str, error: KafkaException, becomes: type[Exception], *, aborted: bool
) -> None:
    StubProducer.fails = {step: [error]}
    with pytest.raises(becomes) as caught:
        commit(session)
    assert type(caught.value) is becomes
    assert ("abort" in StubProducer.made[0].calls) is aborted
    commit(session)
    assert len(StubProducer.made) == (1 if aborted else 2)  # no abort: the next epoch ends what is in flight


def test_an_abort_that_fails_is_followed_by_a_new_epoch(session: TransactionSession) -> None:
    StubProducer.fails = {
        "offsets": [failure(KafkaError.ILLEGAL_GENERATION, abort=True)],
        "abort": [failure(KafkaError._TIMED_OUT)],
    }
    with pytest.raises(Fenced, match="lost assignment"):
        commit(session)
    commit(session)
    assert len(StubProducer.made) == 2


def test_a_commit_that_may_be_retried_is_retried(session: TransactionSession) -> None:
    StubProducer.fails = {"commit": [failure(KafkaError._TIMED_OUT, retriable=True)] * 2}
    commit(session)
    assert StubProducer.made[0].calls.count("commit") == 3


def test_a_refused_record_is_never_dropped(session: TransactionSession) -> None:
    session.open()
    producer = StubProducer.made[0]
    refused = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)

    class Message:
        @staticmethod
        def topic() -> str:
            return "out"

    original = StubProducer.commit_transaction

    def commit_transaction(self: StubProducer, timeout: float) -> None:
        self.config["on_delivery"](refused, Message)
        original(self, timeout)

    producer.commit_transaction = commit_transaction.__get__(producer)  # type: ignore[method-assign]
    StubProducer.fails = {"commit": [failure(KafkaError._STATE, abort=True)]}
    with pytest.raises(Fatal, match=r"refuses our records \(out: MSG_SIZE_TOO_LARGE\); run `attributary topics apply`"):
        commit(session)
    assert "abort" in producer.calls


def test_a_refusal_of_an_earlier_transaction_is_forgotten(session: TransactionSession) -> None:
    commit(session)
    session._refused = "out: MSG_SIZE_TOO_LARGE"
    StubProducer.fails = {"offsets": [failure(KafkaError.ILLEGAL_GENERATION, abort=True)]}
    with pytest.raises(Fenced):
        commit(session)


@pytest.mark.parametrize("doubt", ["slow", "transport"])
def test_a_doubtful_commit_is_followed_by_a_new_epoch(
    session: TransactionSession, monkeypatch: pytest.MonkeyPatch, doubt: str
) -> None:
    session.open()
    if doubt == "slow":
        monkeypatch.setattr(session_module, "_DOUBTFUL_SECONDS", -1.0)
    else:
        StubProducer.made[0].config["error_cb"](KafkaError(KafkaError._TRANSPORT))
    commit(session)
    monkeypatch.setattr(session_module, "_DOUBTFUL_SECONDS", 5.0)
    commit(session)
    commit(session)
    assert [producer.calls.count("commit") for producer in StubProducer.made] == [1, 2]


def test_two_processes_with_one_transactional_id_are_told_apart(session: TransactionSession) -> None:
    StubProducer.fails = {"begin": [failure(KafkaError._FENCED, fatal=True) for _ in range(4)]}
    for _ in range(3):
        with pytest.raises(Fenced):
            commit(session)
    with pytest.raises(Fatal, match="ATTRIBUTION_INSTANCE"):
        commit(session)


def test_brokers_that_do_not_answer_at_the_start_are_waited_for(session: TransactionSession) -> None:
    StubProducer.fails = {"init": [failure(KafkaError._TIMED_OUT)]}
    with pytest.raises(Retry, match="Kafka transactions cannot be started: _TIMED_OUT"):
        session.open()
    session.open()
    session.close()
    session.open()
    assert len(StubProducer.made) == 3
