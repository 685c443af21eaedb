"""One Kafka transaction a batch: messages, dead letters and source offsets, or none of them.

Invariant: after ``commit`` returns, the broker holds all of it. After ``Fenced`` nothing is known, and the caller must
rewind to the committed offsets; the producer has been started anew (a new epoch shuts out whatever was in flight).

librdkafka retries EndTxn by itself on a new connection (KIP-890 part 2 is not spoken yet), so a commit that took long
or saw a transport error is followed by a new producer, too: an old EndTxn can then no longer hit the next transaction.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from . import metrics
from .access_errors import Access
from .crash_points import crash_at, register_points
from .dead_letters import MAX_LETTER_BYTES
from .error_codes import AWAY, FENCED, LOST_ASSIGNMENT, TOPIC_REFUSED
from .errors import AccessRefused, Fatal, Fenced, Retry
from .records import Outbound
from .settings import KafkaSettings
from .topic_checks import check_visible

register_points("loop_before_send_offsets", "loop_before_kafka_commit")

_log = structlog.get_logger()

_DOUBTFUL_SECONDS = 5.0


class TransactionSession:
    """The transactional producer of one stage.

    Args:
        kafka: how to reach the brokers.
        transactional_id: group + a stable ordinal, so that a restart aborts what its predecessor left open.
        stage: name for metrics.
        access: names a right that the brokers refuse; made from the others when None.
    """

    def __init__(self, kafka: KafkaSettings, transactional_id: str, stage: str, access: Access | None = None) -> None:
        self._kafka = kafka
        self._access = access or Access(kafka, stage, transactional_id=transactional_id)
        self._denied: AccessRefused | None = None
        self._transactional_id = transactional_id
        self._stage = stage
        self._transport_trouble = False
        self._refused: str | None = None
        self._topics: list[str] = []  # of the transaction in hand
        self._fenced_at: list[float] = []
        self._producer: Producer | None = None

    def _start(self) -> Producer:
        config: dict[str, Any] = {
            "acks": "all",
            "enable.idempotence": True,
            "transactional.id": self._transactional_id,
            "transaction.timeout.ms": self._kafka.transaction_timeout_ms,
            "partitioner": "murmur2_random",  # the Java clients' partitioner: keys meet on one partition
            "linger.ms": 1,
            "compression.type": "lz4",
            # The broker answers CONCURRENT_TRANSACTIONS while the last marker is written; the default 100 ms would
            # be waited out in each transaction (facts: 101 ms against 7.8 ms).
            "retry.backoff.ms": 5,
            "error_cb": self._on_error,
            "on_delivery": self._on_delivery,
        }
        producer = Producer({"message.max.bytes": MAX_LETTER_BYTES} | self._kafka.client_config() | config)
        try:
            with self._access.guarded("WRITE"):
                producer.init_transactions(30.0)
        except KafkaException as error:
            raise Retry(f"Kafka transactions cannot be started: {error.args[0].name()}", 2.0) from error
        metrics.producer_epochs.labels(self._stage).inc()
        self._transport_trouble = False
        return producer

    def _on_error(self, error: KafkaError) -> None:
        self._access.heard(error)
        if error.code() in AWAY:
            self._transport_trouble = True

    def _on_delivery(self, error: KafkaError | None, message: Any) -> None:
        if error is not None and self._denied is None:
            self._denied = self._access.refused(error, "WRITE", message.topic())
        if error is not None and error.code() in TOPIC_REFUSED:
            self._refused = f"{message.topic()}: {error.name()}"

    def open(self) -> None:
        """Start the producer if there is none: aborts whatever a predecessor left open.

        Raises:
            Retry: the brokers do not answer.
        """
        if self._producer is None:
            self._producer = self._start()

    def commit(self, messages: Sequence[Outbound], offsets: list[TopicPartition], group_metadata: Any) -> None:
        """Produce the messages and commit the offsets in one transaction.

        Args:
            messages: results, commands, dead letters.
            offsets: next offsets to read.
            group_metadata: the consumer's, so that a zombie's offsets are refused.

        Raises:
            Fenced: the outcome is not ours or not known; rewind and replay.
            Fatal: a topic refuses our records; nothing was dropped.
        AccessRefused: a right is missing; nothing was dropped.
            Retry: the brokers do not answer.
        """
        self.open()
        producer = self._producer
        if producer is None:  # pragma: no cover  # open() sets it or raises
            raise Fatal("the transactional producer did not start")
        self._refused = self._denied = None
        self._topics = sorted({message.topic for message in messages})
        started = time.monotonic()
        try:
            producer.begin_transaction()
            for message in messages:
                self._produce(producer, message)
            crash_at("loop_before_send_offsets")
            self._send_offsets(producer, offsets, group_metadata)
            crash_at("loop_before_kafka_commit")
            self._commit(producer)
        except KafkaException as error:
            self._recover(producer, error.args[0])
        if self._transport_trouble or time.monotonic() - started > _DOUBTFUL_SECONDS:
            _log.info("new producer epoch after a doubtful commit", stage=self._stage)
            self._producer = None

    def settle(self, place: TopicPartition, group_metadata: Any) -> None:
        """Open a transaction on the group's offsets and abort it.

        A request of an earlier epoch that reached a restarting broker late can leave offsets pending for which no
        marker ever comes, and a read of stable offsets then waits for good. The marker of this abort, by the same
        producer id, clears them. The offset itself is never committed.

        Args:
            place: any partition of the group, with any offset.
            group_metadata: the consumer's.

        Raises:
            Fenced: the coordinator did not answer.
            Retry: the brokers do not answer.
        """
        self.open()
        producer = self._producer
        if producer is None:  # pragma: no cover  # open() sets it or raises
            return
        try:
            producer.begin_transaction()
            self._send_offsets(producer, [place], group_metadata)
            producer.abort_transaction(30.0)
        except KafkaException as error:
            self._producer = None
            raise Fenced(f"offsets could not be settled: {error.args[0].name()}") from error

    def _produce(self, producer: Producer, message: Outbound) -> None:
        while True:
            try:
                producer.produce(message.topic, message.value, message.key, headers=list(message.headers) or None)
            except BufferError:  # the local queue is full: let it drain
                producer.poll(0.1)
            else:
                return

    def _send_offsets(self, producer: Producer, offsets: list[TopicPartition], group_metadata: Any) -> None:
        """Add the source offsets to the transaction, and never wait for longer than the broker keeps it open.

        librdkafka ignores its own timeout here while the group's coordinator is away (issue 5456, 2.16), and then may
        never return. So the call is made by a thread that can be left behind together with its producer; whatever it
        still does is refused, because the next producer has a newer epoch.

        Raises:
            Fenced: it took too long.
            KafkaException: as librdkafka says.
        """
        seconds = self._kafka.transaction_timeout_ms / 1_000
        ended: queue.SimpleQueue[KafkaException | None] = queue.SimpleQueue()

        def call() -> None:
            try:
                producer.send_offsets_to_transaction(offsets, group_metadata, seconds)
            except KafkaException as error:
                ended.put(error)
            else:
                ended.put(None)

        threading.Thread(target=call, name="offsets", daemon=True).start()
        try:
            error = ended.get(timeout=seconds + 1.0)
        except queue.Empty:
            self._producer = None
            raise Fenced(f"the group's coordinator did not answer in {seconds:.0f} s") from None
        if error is not None:
            raise error

    def _commit(self, producer: Producer) -> None:
        deadline = time.monotonic() + 60.0
        while True:
            try:
                producer.commit_transaction(30.0)
            except KafkaException as error:
                if error.args[0].retriable() and not error.args[0].txn_requires_abort() and time.monotonic() < deadline:
                    continue
                raise
            else:
                return

    def _recover(self, producer: Producer, error: KafkaError) -> None:
        """Turn a failed transaction into one of our error classes; always leaves no transaction open."""
        refused, denied = self._refused, self._denied or self._access.refused(error, "WRITE", " or ".join(self._topics))
        code = error.code()
        aborted = False
        if error.txn_requires_abort():
            try:
                producer.abort_transaction(30.0)
                aborted = True
            except KafkaException:
                aborted = False
        if not aborted:
            self._producer = None  # the next open() bumps the epoch, which aborts what is left
        if denied is not None:
            # librdkafka does not tell which of the topics it was; the list of topics lacks the one without a right.
            check_visible(producer, self._topics, self._access, "WRITE")
            raise denied
        if refused or code in TOPIC_REFUSED:
            raise Fatal(
                f"Kafka refuses our records ({refused or error.name()}); run `attributary topics apply`"
            ) from None
        if error.code() in FENCED:
            self._count_fencing()
        if code in AWAY:
            raise Retry(f"Kafka does not answer: {error.name()}", 1.0) from None
        kind = "lost assignment" if code in LOST_ASSIGNMENT else error.name()
        raise Fenced(f"transaction given up: {kind}") from None

    def _count_fencing(self) -> None:
        now = time.monotonic()
        self._fenced_at = [*(at for at in self._fenced_at if now - at < 60.0), now]
        if len(self._fenced_at) >= 4:
            raise Fatal(
                f"another process uses the transactional id {self._transactional_id}: give each process of a group its "
                "own ATTRIBUTION_INSTANCE"
            )

    def close(self) -> None:
        """Let go of the producer; an open transaction is aborted by the broker or by the next start."""
        self._producer = None
