"""A crash loop that one record causes ends by itself: the record is found, set aside as a dead letter, and passed.

How: each start at an offset is counted in the metadata of that offset, each commit behind it begins the count anew, and
a process that ends in order takes its start back. After ``max_starts`` starts without progress the stage is careful: it
handles small parts, then single records, and writes down before each what it is about to handle. So a process that is
killed leaves behind at which record it was; an exception tells it by itself.

A stage that goes on and asks the same again for ever is found out likewise: after ``_SLOW_TRIES`` batches in a row that
the store ended at a time limit it is careful, and a record that is ended so alone, as often, is held.

Invariants: a record is set aside only if the stage ended at it alone (twice, if the process was killed), and only
together with another record that the stage handled meanwhile: a stage that can handle nothing sets nothing aside. The
letter, the offset behind the record, and what the other record brought are one transaction. What our own errors stop
(`AttributaryError`: a setting, an outage, a safety valve) is never counted and never a record's fault.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from . import metrics
from .errors import AttributaryError, Fatal, Retry, TooSlow
from .offset_marks import MAX_SUSPECTS, OffsetMark
from .records import DeadLetter, Record
from .stage import Stage

_log = structlog.get_logger()

Place = tuple[str, int]

_PART = 64  # records of a part
_SURE = 2  # a process that was killed once may have been killed for another reason
_SLOW_TRIES = 3
_MAX_SET_ASIDE = 20  # records that one process sets aside: more are no fault of single records


class CrashLoop:
    """What one process knows of earlier ones that ended without progress.

    Args:
        stage: its name, for metrics and logs.
        topics: that it reads.
        max_starts: so many starts at one offset are usual; 0: never careful.
        careful_records: so many records are handled carefully, then the stage goes on as ever.
    """

    def __init__(self, stage: str, topics: Iterable[str], max_starts: int, careful_records: int) -> None:
        self._stage = stage
        self._max_starts = max_starts
        self._careful_records = careful_records
        self._marks: dict[Place, OffsetMark] = {}  # of partitions without progress so far
        self._left = 0
        self._held: list[tuple[Record, str, bool]] = []  # with the reason, and whether the store has it
        self._set_aside = 0
        self._tried: set[str] = set()  # records that this process handled alone: it was not ended by them
        self._slow_batches = 0  # in a row
        self._slow: Counter[str] = Counter()  # tries of a record alone
        for topic in topics:  # an alert sees a counter rise only from a value that it has seen before
            metrics.quarantined.labels(stage, topic)

    @property
    def is_careful(self) -> bool:
        """Whether records are to be handled in parts."""
        return self._left > 0 or bool(self._held)

    def started(self, marks: Mapping[Place, OffsetMark]) -> dict[Place, OffsetMark]:
        """Take over what stands beside the offsets of partitions that were assigned; return what is to stand there."""
        if self._max_starts == 0:
            return {}
        for place, mark in marks.items():
            counted = replace(mark, starts=mark.starts + 1)
            if counted.starts > self._max_starts or mark.careful:
                counted = replace(counted, careful=mark.careful or self._careful_records)
                if not self.is_careful:
                    _log.error("the last starts made no progress: records are handled in small parts until the one is "
                               "found that ends the process", stage=self._stage, starts=mark.starts)  # fmt: skip
                self._left = max(self._left, counted.careful)
            self._marks[place] = counted
        return {place: self._marks[place] for place in marks}

    def rewound(self, marks: Mapping[Place, OffsetMark]) -> None:
        """Take over what stands beside the offsets after a rewind: records that are held come again."""
        self._held.clear()
        metrics.quarantine_held.labels(self._stage).set(0)
        if self.is_careful:
            self._marks |= {place: mark for place, mark in marks.items() if mark.careful}

    def forget(self, places: Iterable[Place]) -> None:
        """Drop what is known of partitions that were given away."""
        gone = set(places)
        for place in gone:
            self._marks.pop(place, None)
        self._held = [each for each in self._held if (each[0].topic, each[0].partition) not in gone]

    def part(self, records: Sequence[Record]) -> list[Record]:
        """Return the first part of records: one alone where a process ended before, otherwise a few."""
        part: list[Record] = []
        for record in records[:_PART]:
            if record.offset < self._mark(record).alone_below:
                return part or [record]
            part.append(record)
        return part

    def trial(self, part: Sequence[Record]) -> dict[Place, tuple[int, OffsetMark]]:
        """Return what must stand beside which offset before a part is handled."""
        marks: dict[Place, tuple[int, OffsetMark]] = {}
        for record in part:
            place = (record.topic, record.partition)
            mark = self._mark(record)
            first = marks[place][0] if place in marks else record.offset
            if len(part) == 1:
                attempts = mark.attempts if mark.tried == record.offset else 0
                is_new = record.place not in self._tried  # an outage meanwhile is not the record's fault
                self._tried.add(record.place)
                mark = replace(mark, tried=record.offset, attempts=attempts + is_new)
            else:
                mark = replace(mark, alone_below=max(mark.alone_below, record.offset + 1))
            self._marks[place] = replace(mark, careful=max(1, self._left))
            marks[place] = (first, self._marks[place])
        return {place: (min([first, *self._held_at(place)]), mark) for place, (first, mark) in marks.items()}

    def retried(self, error: Retry, records: Sequence[Record]) -> None:
        """Note that records were given up for now; it counts when the store ended at a time limit what they asked."""
        if self._max_starts == 0 or not isinstance(error, TooSlow):
            return
        if self.is_careful:
            if len(records) == 1:
                self._slow[records[0].place] += 1
            return
        self._slow_batches += 1
        if self._slow_batches >= _SLOW_TRIES:
            self._left = self._careful_records
            _log.error("the store ends the same batch again and again: records are handled in small parts until the "
                       "one is found that takes too long", stage=self._stage, tries=self._slow_batches)  # fmt: skip

    def is_slow(self, record: Record) -> bool:
        """Tell whether the store ended often enough what a record alone asked for."""
        return self._slow[record.place] >= _SLOW_TRIES

    def is_suspect(self, record: Record) -> bool:
        """Tell whether earlier processes ended at a record alone."""
        mark = self._mark(record)
        tried_enough = mark.tried == record.offset and mark.attempts >= _SURE
        return tried_enough or record.offset in mark.suspects or record.offset in mark.stored

    def hold(self, record: Record, reason: str, *, is_stored: bool) -> None:
        """Keep a record at which the stage ends, until another one shows that the stage works.

        Raises:
            Fatal: there are too many of them.
        """
        mark = self._mark(record)
        is_stored = record.offset in mark.stored or (is_stored and record.offset not in mark.suspects)
        known = mark.stored if is_stored else mark.suspects
        changed = tuple(sorted({*known, record.offset}))
        mark = replace(mark, tried=-1, attempts=0)
        mark = replace(mark, stored=changed) if is_stored else replace(mark, suspects=changed)
        self._marks[record.topic, record.partition] = mark
        self._held.append((record, reason, is_stored))
        metrics.quarantine_held.labels(self._stage).set(len(self._held))
        _log.error("the stage ends at this record; it is held until another one is handled", stage=self._stage,
                   place=record.place, why=reason, held=len(self._held))  # fmt: skip
        if len(self._held) > MAX_SUSPECTS or self._set_aside + len(self._held) > _MAX_SET_ASIDE:
            held = len(self._held)
            self._marks = {place: OffsetMark(each.topic_id, each.starts) for place, each in self._marks.items()}
            self._held.clear()
            raise Fatal(
                f"the stage ends at {held} records alone, one after the other, up to {record.place}: {reason}. That "
                f"many are not set aside ({self._set_aside} were); the fault is more likely the stage's. See the log."
            )

    def letters(self) -> list[DeadLetter]:
        """Return the dead letters of the records that are held; those that the store has need none."""
        return [DeadLetter(record, "quarantine", None, why) for record, why, is_stored in self._held if not is_stored]

    def held_offsets(self) -> dict[Place, int]:
        """Return the offsets behind the records that are held."""
        behind: dict[Place, int] = {}
        for record, _, _ in self._held:
            place = (record.topic, record.partition)
            behind[place] = max(behind.get(place, 0), record.offset + 1)
        return behind

    def committed(self, nexts: Mapping[Place, int]) -> None:
        """Note progress: a commit, with what was held in it."""
        self._slow_batches = 0
        if self._held:
            for record, reason, is_stored in self._held:
                metrics.quarantined.labels(self._stage, record.topic).inc()
                _log.error("record set aside, the stage goes on", stage=self._stage, place=record.place, why=reason,
                           dead_letter=not is_stored)  # fmt: skip
            self._set_aside += len(self._held)
            self._held.clear()
            metrics.quarantine_held.labels(self._stage).set(0)
        for place in nexts:
            mark = self._marks.pop(place, None)
            if mark and mark.alone_below > nexts[place]:
                self._marks[place] = OffsetMark(mark.topic_id, alone_below=mark.alone_below)

    def handled(self, records: int) -> None:
        """Note that so many records were handled carefully."""
        self._left = max(0, self._left - records)
        if not self.is_careful:
            self._marks.clear()
            self._tried.clear()
            self._slow.clear()
            _log.warning("records are handled as ever again", stage=self._stage)

    def marks_behind(self, nexts: Mapping[Place, int], id_of: Callable[[str], str | None]) -> dict[Place, str]:
        """Return the metadata of offsets that are committed with their records."""
        return {place: self.mark_behind(place, offset, id_of(place[0])).text() for place, offset in nexts.items()}

    def mark_behind(self, place: Place, offset: int, topic_id: str | None) -> OffsetMark:
        """Return what is to stand beside an offset that is committed with its records."""
        if not self.is_careful:
            return OffsetMark(topic_id)
        below = self._marks[place].alone_below if place in self._marks else 0
        return OffsetMark(topic_id, careful=max(1, self._left), alone_below=below if below > offset else 0)

    def taken_back(self) -> dict[Place, OffsetMark]:
        """Return what is to stand beside the offsets of partitions without progress when a process ends in order."""
        return {
            place: replace(mark, starts=0, tried=-1, attempts=0, alone_below=0)
            for place, mark in self._marks.items()
            if mark.starts or mark.attempts or mark.alone_below
        }

    def _mark(self, record: Record) -> OffsetMark:
        return self._marks.get((record.topic, record.partition), OffsetMark())

    def _held_at(self, place: Place) -> list[int]:
        return [each.offset for each, _, _ in self._held if (each.topic, each.partition) == place]


class CarefulBatches:
    """Handles batches in parts while a crash loop is looked into; the loop handles all others.

    Args:
        crash_loop: what is known.
        stage: asked what its store holds.
        consumer: writes down what is about to be handled.
        process: handles and commits a part, with what is held; returns how many records, 0: it was given up.
        pause: told when Kafka does not take what is to be written down.
    """

    def __init__(
        self,
        crash_loop: CrashLoop,
        stage: Stage,
        consumer: Consumer,
        process: Callable[[Sequence[Record]], int],
        pause: Callable[[Retry], None],
    ) -> None:
        self._crash_loop, self._stage, self._consumer = crash_loop, stage, consumer
        self._process, self._pause = process, pause

    def started(self, starts: Sequence[TopicPartition], marks: Mapping[Place, OffsetMark]) -> None:
        """Count a start beside the offsets of partitions that were assigned.

        Args:
            starts: where they begin.
            marks: what stands beside their offsets in Kafka, of those that begin there.
        """
        counted = self._crash_loop.started(marks)
        offsets = {(start.topic, start.partition): start.offset for start in starts}
        try:
            self._write({place: (offsets[place], mark) for place, mark in counted.items()})
        except KafkaException as error:  # one start that is not counted; the others are
            _log.warning("a start is not counted", stage=self._stage.name, why=error.args[0].name())

    def process(self, records: Sequence[Record]) -> int:
        """Handle the first part of a batch; return how many records, 0: it was given up."""
        done = self._process_part(self._crash_loop.part(records))
        if done:
            self._crash_loop.handled(done)
        return done

    def end_in_order(self) -> None:
        """Take the starts back that are counted and saw no progress: this process was not ended by a record."""
        marks = self._crash_loop.taken_back()
        if not marks:
            return
        try:
            committed = self._consumer.committed([TopicPartition(*place) for place in marks], timeout=5.0)
            self._write({
                (each.topic, each.partition): (each.offset, marks[each.topic, each.partition])
                for each in committed
                if each.error is None and each.offset >= 0
            })  # fmt: skip
        except KafkaException as error:
            _log.warning("the start stays counted", stage=self._stage.name, why=error.args[0].name())

    def _process_part(self, part: list[Record]) -> int:
        first = part[0]
        if len(part) == 1 and self._crash_loop.is_suspect(first):
            self._hold(first, "the process was ended each time that it handled this record alone")
            return 1
        if len(part) == 1 and self._crash_loop.is_slow(first):
            self._hold(first, "the store ended each time, at a time limit, what this record alone asked for")
            return 1
        try:
            self._write(self._crash_loop.trial(part))
        except KafkaException as error:
            self._pause(Retry(f"cannot write down what is to be handled: {error.args[0].name()}"))
            return 0
        try:
            return self._process(part)
        except AttributaryError:
            raise
        except Exception as error:  # noqa: BLE001  # which part it is in is what has to be found out
            _log.exception("the stage ends in a part", stage=self._stage.name, first=first.place, records=len(part))
            if len(part) > 1:
                return len(part) if all(self._process_part([record]) for record in part) else 0
            self._hold(first, f"the stage ends at this record alone ({type(error).__name__})")
            return 1

    def _hold(self, record: Record, reason: str) -> None:
        place = (record.topic, record.partition)
        is_stored = self._stage.stored_positions([place]).get(place, 0) > record.offset
        self._crash_loop.hold(record, reason, is_stored=is_stored)

    def _write(self, marks: Mapping[Place, tuple[int, OffsetMark]]) -> None:
        """Commit offsets that are committed already, with marks.

        Raises:
            KafkaException: the brokers did not take it.
        """
        if not marks:
            return
        offsets = [TopicPartition(*place, offset, mark.text()) for place, (offset, mark) in marks.items()]
        for done in self._consumer.commit(offsets=offsets, asynchronous=False) or ():
            if done.error is not None:
                raise KafkaException(done.error)
