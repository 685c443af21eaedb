"""The one loop that every stage runs in.

A turn: read a batch -> ``stage.handle`` (its one deciding write) -> one Kafka transaction (messages, dead letters,
source offsets) -> read again. Invariants: nothing is in flight across a read, so a rebalance, which happens only
inside a read, never meets an open transaction; after any doubt or outage the partitions stand at the smaller of the
broker's committed offsets and the store's again, asked for only after a new producer epoch has ended what was in
flight; an outage pauses the partitions and keeps polling, it never gives a record up.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import structlog
from confluent_kafka import OFFSET_END, Consumer, KafkaException, TopicPartition

from . import metrics
from .access_errors import Access
from .batch_reader import BatchReader
from .consumer_config import consumer_config, is_eager
from .crash_loop import CarefulBatches, CrashLoop
from .crash_points import crash_at, register_points
from .dead_letters import dead_letter_message, dead_letter_topic
from .errors import AttributaryError, Fenced, Retry
from .fetched import is_error, record_of
from .health import Heartbeat
from .log_ends import LogEnds
from .log_watch import LagReport, TopicsWatch
from .records import DeadLetter, Outcome, Record
from .reorder_buffer import OrderedReader
from .settings import KafkaSettings, ProcessSettings
from .stage import LeavesBehind, Stage, StoresOffsets
from .start_places import StartPlaces, by_place
from .topic_checks import check_topics
from .topic_ids import TopicIds
from .transaction import TransactionSession
from .unreadable import UnreadableBatches, named_batches

register_points("loop_after_consume", "loop_before_transaction", "loop_after_kafka_commit")
_log = structlog.get_logger()

_LOOK_BACK_EVERY_SECONDS = 30.0
_LONGEST_PAUSE_SECONDS = 30.0


class ConsumerLoop:
    """Runs one stage until it is asked to stop or must.

    Args:
        stage: what to do with a batch.
        kafka: how to reach the brokers.
        process: batch size, linger, first start, grace.
        heartbeat: told at every turn.
    """

    def __init__(self, stage: Stage, kafka: KafkaSettings, process: ProcessSettings, heartbeat: Heartbeat) -> None:
        self._stage = stage
        self._process = process
        self._heartbeat = heartbeat
        self._stop = threading.Event()
        self._trouble: AttributaryError | None = None  # raised inside a callback, acted on after the read
        self._paused_until: float | None = None
        self._retries = 0
        self._last_look_back = time.monotonic()
        self._turn_seconds_max = kafka.max_poll_interval_ms / 4_000
        self._is_leaving = False
        # With `range` all partitions are given back and dealt out anew at each rebalance; the others move only some.
        self._is_eager = is_eager(kafka, stage)
        self._access = Access(kafka, stage.name, stage.group, f"{stage.group}-{process.instance}")
        config = consumer_config(kafka, stage, process) | self._access.config()
        self._consumer = Consumer(config)
        self._batches = BatchReader(self._consumer, stage, process.linger_ms / 1_000, self._stop.is_set)
        self._unreadable = UnreadableBatches(stage.name, named_batches(process.skip_batches), config, self._consumer)
        self._log_ends = LogEnds(config)
        self._reader = OrderedReader(self._consumer, 10 * process.batch_size, is_ordered=len(stage.topics) > 1)
        self._topic_ids = TopicIds(kafka)
        self._start_places = StartPlaces(stage, self._topic_ids, process.first_start, process.recreated_topic)
        self._crash_loop = CrashLoop(stage.name, stage.topics, process.quarantine_starts, 2 * self._max_records)
        self._careful = CarefulBatches(self._crash_loop, stage, self._consumer, self._process_batch, self._pause)
        self._lag = LagReport(stage.name, stage.topics, self._consumer)
        letters = [dead_letter_topic(topic, stage.group) for topic in stage.topics]
        self._topics_watch = TopicsWatch(self._topic_ids, stage.name, stage.topics, letters, self._lag.unread_seconds)
        self._session = TransactionSession(kafka, self._access.transactional_id, stage.name, self._access)

    def stop(self) -> None:
        """Ask the loop to stop after the batch in hand. May be called by any thread or signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Run until asked to stop.

        Raises:
            Fatal: going on could lose something.
            Retry: Kafka does not answer at the start.
        """
        try:
            self._check_topics()
            self._consumer.subscribe(list(self._stage.topics), on_assign=self._on_assign, on_revoke=self._on_revoke)
            self._session.open()
            self._heartbeat.started = True
            if not self._topic_ids.is_off:
                self._topics_watch.start()
            _log.info("stage started", stage=self._stage.name, group=self._stage.group)
            while not self._stop.is_set():
                self._heartbeat.beat()
                self._turn()
            self._careful.end_in_order()
        except AttributaryError:
            self._careful.end_in_order()
            raise
        finally:
            self._is_leaving = True
            self._topics_watch.stop()
            with contextlib.ExitStack() as last:  # a stage that fails to close must not keep us in the group
                last.callback(self._consumer.close)
                last.callback(self._session.close)
                self._stage.close()
        _log.info("stage stopped", stage=self._stage.name)

    def _check_topics(self) -> None:
        self._topic_ids.is_off = check_topics(self._consumer, self._stage, self._process, self._access, self._stop)

    @property
    def _max_records(self) -> int:
        return min(self._process.batch_size, self._stage.max_records)

    def _turn(self) -> None:
        if self._paused_until is not None:
            self._wait()
            return
        started = time.monotonic()
        messages = self._batches.read(self._max_records)
        if self._trouble is not None:
            trouble, self._trouble = self._trouble, None
            raise trouble
        records = [record_of(message) for message in messages if not is_error(message, self._access, self._unreadable)]
        records = self._reader.through(records, is_full=len(messages) >= self._max_records)
        self._skip_unreadable()
        self._lag.turn()
        self._topic_ids.check()
        if not records:
            self._look_back()
            self._catch_up(is_idle=True)
            return
        metrics.stage_seconds.labels(self._stage.name, "consume").observe(time.monotonic() - started)
        for topic, count in Counter(record.topic for record in records).items():
            metrics.records_consumed.labels(self._stage.name, topic).inc(count)
        while records:
            process = self._careful.process if self._crash_loop.is_careful else self._process_batch
            done = process(records[: self._max_records])
            if not done:
                return  # rewound or paused: the rest is read again
            records = records[done:]
            self._heartbeat.beat()
            if records and time.monotonic() - started > self._turn_seconds_max:
                self._rewind()  # costly batches: the group must hear from us before max.poll.interval.ms
                return
        self._catch_up(is_idle=False)

    def _catch_up(self, *, is_idle: bool) -> None:
        """Let a stage do some of what it has left behind; its dead letters go in a transaction of their own."""
        if not isinstance(self._stage, LeavesBehind) or self._is_paused():
            return
        try:
            places = [(place.topic, place.partition) for place in self._consumer.assignment()]
            self._commit(self._stage.catch_up(places, is_idle=is_idle), [])
        except Retry as error:
            self._pause(error)
        except Fenced as error:
            _log.warning("catching up given up", stage=self._stage.name, why=str(error))
            self._rewind()

    def _skip_unreadable(self) -> None:
        """Go on behind batches that cannot be unpacked and that an operator gave up, with a note each."""
        if self._is_paused():
            return
        try:
            skips = self._unreadable.to_skip()
            if not skips:
                return
            self._commit_ends({each: end for each, (_, end) in skips.items()}, [note for note, _ in skips.values()])
        except Retry as error:
            self._pause(error)
        except Fenced as error:
            _log.warning("a skip was given up", stage=self._stage.name, why=str(error))
            self._rewind()
        else:
            self._unreadable.skipped(skips)
            self._rewind()

    def _commit_ends(self, ends: Mapping[tuple[str, int], int], letters: list[DeadLetter]) -> None:
        """Commit offsets behind what no stage will be given, with a note of what was left out."""
        if isinstance(self._stage, StoresOffsets):
            self._stage.begin_at(ends)
        marks = self._crash_loop.marks_behind(ends, self._topic_ids.id_of)
        places = [TopicPartition(*place, ends[place], mark) for place, mark in marks.items()]
        self._commit(Outcome(dead_letters=letters), places)

    def _commit(self, outcome: Outcome, offsets: list[TopicPartition]) -> None:
        """Commit what a stage decided, and the offsets, in one transaction; then let it note what hung on it."""
        name = self._stage.name
        messages = [dead_letter_message(letter, name, self._stage.group) for letter in outcome.dead_letters]
        crash_at("loop_before_transaction")
        if outcome.messages or messages or offsets:
            with metrics.timed(name, "commit"):
                self._session.commit(outcome.messages + messages, offsets, self._membership())
        crash_at("loop_after_kafka_commit")
        if outcome.on_committed is not None:
            outcome.on_committed()

    def _process_batch(self, records: Sequence[Record]) -> int:
        """Process and commit one batch, or as much of it as the stage takes; returns how many records, 0: given up."""
        name = self._stage.name
        started = time.monotonic()
        try:
            crash_at("loop_after_consume")
            outcome = self._stage.handle(records)
            if outcome.taken is not None:
                records = records[: outcome.taken]
                metrics.batches.labels(name, "cut").inc()
            held = self._crash_loop.held_offsets()
            nexts = held | {(record.topic, record.partition): record.offset + 1 for record in records}
            outcome.dead_letters += self._crash_loop.letters()
            if held and isinstance(self._stage, StoresOffsets):
                self._stage.begin_at(held)
            marks = self._crash_loop.marks_behind(nexts, self._topic_ids.id_of)
            self._commit(outcome, [TopicPartition(*place, nexts[place], mark) for place, mark in marks.items()])
        except Retry as error:
            metrics.batches.labels(name, "retried").inc()
            self._crash_loop.retried(error, records)
            self._pause(error)
        except Fenced as error:
            metrics.batches.labels(name, "rewound").inc()
            _log.warning("batch given up, rewinding to the committed offsets", stage=name, why=str(error))
            self._rewind()
        else:
            self._retries = 0
            self._crash_loop.committed(nexts)
            self._lag.committed(records)
            metrics.batches.labels(name, "committed").inc()
            metrics.batch_seconds.labels(name).observe(time.monotonic() - started)
            return len(records)
        return 0

    def _membership(self) -> Any:
        """Return what the broker checks the offsets against.

        Raises:
            Fenced: the group has let us go. Without a member id the broker would take a zombie's offsets unchecked, as
                it does for clients that are older than the check.
        """
        metadata = self._consumer.consumer_group_metadata()
        if not self._consumer.memberid():
            raise Fenced("the group has let this member go")
        return metadata

    def _rewind(self) -> list[TopicPartition]:
        """Stand where a fresh start would begin, and return it; when that cannot be learnt now, pause and try again."""
        places = self._consumer.assignment()
        starts: list[TopicPartition] = []
        self._reader.clear()
        try:
            self._session.open()  # first: committed offsets are final only when nothing of ours is in flight any more
            starts = self._starts(self._consumer, places)
            for start in starts:
                self._consumer.seek(start)
            self._crash_loop.rewound(self._start_places.marks)
        except KafkaException as error:
            if self._retries:  # not the first try: perhaps it waits for offsets that nobody will ever settle
                self._settle(places)
            self._pause(Retry(f"cannot rewind: {error.args[0].name()}"))
        except Retry as error:
            self._pause(error)
        return starts

    def _settle(self, places: list[TopicPartition]) -> None:
        try:
            if places:
                self._session.settle(TopicPartition(places[0].topic, places[0].partition, 0), self._membership())
                _log.info("settled the group's offsets", stage=self._stage.name)
        except (Fenced, Retry) as error:
            _log.warning("the group's offsets cannot be settled now", stage=self._stage.name, why=str(error))

    def _starts(self, consumer: Consumer, places: list[TopicPartition]) -> list[TopicPartition]:
        starts = self._unreadable.start_behind(self._access.asked(self._start_places.find, consumer, places))
        self._reader.start_at(by_place(starts))
        if isinstance(self._stage, LeavesBehind):
            self._stage.read_from(by_place(starts))
        return starts

    def _look_back(self) -> None:
        """When idle, go to where a start would begin: normally here, further back when the store lost commits."""
        if time.monotonic() - self._last_look_back >= _LOOK_BACK_EVERY_SECONDS:
            self._last_look_back = time.monotonic()
            self._go_behind_markers(self._rewind())

    def _go_behind_markers(self, starts: Iterable[TopicPartition]) -> None:
        """Commit the ends of partitions that are read to their end, so that retention may remove all of them."""
        if self._is_paused() or self._crash_loop.is_careful:
            return
        try:
            if ends := self._log_ends.behind(starts):
                self._commit_ends(ends, [])
        except Retry as error:
            self._pause(error)
        except Fenced as error:
            _log.warning("a log's end was not committed", stage=self._stage.name, why=str(error))
            self._rewind()

    def _pause(self, error: Retry) -> None:
        self._retries += 1
        seconds = min(_LONGEST_PAUSE_SECONDS, error.pause_seconds(self._retries))
        _log.warning("paused", stage=self._stage.name, why=str(error), seconds=round(seconds, 2), tries=self._retries)
        self._consumer.pause(self._consumer.assignment())
        self._paused_until = time.monotonic() + seconds
        metrics.paused.labels(self._stage.name).set(1)

    def _wait(self) -> None:
        """Keep polling while paused, so that the group keeps us; then rewind and go on."""
        for message in self._consumer.consume(1, 0.1):
            # A partition assigned while paused: rewinding brings the record back.
            if not is_error(message, self._access, self._unreadable):
                self._consumer.pause([TopicPartition(message.topic() or "", message.partition() or 0)])
        if self._trouble is not None:
            trouble, self._trouble = self._trouble, None
            raise trouble
        if self._paused_until is not None and time.monotonic() >= self._paused_until:
            self._paused_until = None
            self._rewind()
            if self._is_paused():
                return
            metrics.paused.labels(self._stage.name).set(0)
            self._consumer.resume(self._consumer.assignment())

    def _is_paused(self) -> bool:
        return self._paused_until is not None

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        metrics.rebalances.labels(self._stage.name, "assigned").inc()
        if self._is_leaving:
            # Another member left while the stage was closing. The consumer gives these back at once; to ask where they
            # start would wait the whole timeout for a coordinator that it no longer speaks to, and the store is closed.
            self._assign_unread(consumer, partitions)
            return
        places = [(place.topic, place.partition) for place in partitions]
        try:
            starts = self._starts(consumer, partitions)
        except KafkaException as error:
            self._assign_later(consumer, partitions, Retry(f"cannot learn where to start: {error.args[0].name()}"))
        except Retry as error:
            self._assign_later(consumer, partitions, error)
        except AttributaryError as error:
            self._trouble = error
        else:
            self._careful.started(starts, self._start_places.marks)
            self._assign(consumer, starts)
            # librdkafka remembers across a rebalance that a partition was paused, also when another had it meanwhile.
            if partitions:
                (consumer.pause if self._is_paused() else consumer.resume)(partitions)
            _log.info("assigned", stage=self._stage.name, partitions=[f"{t}[{p}]" for t, p in places])

    def _assign_later(self, consumer: Consumer, partitions: list[TopicPartition], error: Retry) -> None:
        """Take the partitions, read nothing, and find out where they start when the pause is over."""
        self._assign_unread(consumer, partitions)
        self._pause(error)

    def _assign_unread(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._assign(consumer, [TopicPartition(place.topic, place.partition, OFFSET_END) for place in partitions])

    def _assign(self, consumer: Consumer, starts: list[TopicPartition]) -> None:
        (consumer.assign if self._is_eager else consumer.incremental_assign)(starts)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        metrics.rebalances.labels(self._stage.name, "revoked").inc()
        given_away = [(place.topic, place.partition) for place in partitions]
        self._batches.forget(given_away)
        self._reader.forget(given_away)
        self._crash_loop.forget(given_away)
        self._lag.forget(given_away)
        self._unreadable.forget(set(given_away))
        if self._is_eager:
            consumer.unassign()
        else:
            consumer.incremental_unassign(partitions)
