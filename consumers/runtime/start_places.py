"""Where the partitions of a stage start, and whether the offsets that are stored for them still mean the same log.

Invariant: a stored offset is used only for the topic that it was stored for. Offsets of earlier versions have no id
beside them; they are taken to belong to the topic of today, and get its id at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import structlog
from confluent_kafka import OFFSET_INVALID, Consumer, TopicPartition

from .errors import EXIT_CONFIG, Fatal
from .offset_marks import OffsetMark, read_mark
from .offsets import starting_offsets
from .stage import Stage, StoresOffsets, StoresTopicIds
from .topic_ids import ADVICE, TopicIds

_log = structlog.get_logger()

Place = tuple[str, int]


class StartPlaces:
    """Finds the starts of one stage's partitions.

    Args:
        stage: may keep offsets, and ids of topics beside them.
        ids: asks the brokers for ids.
        first_start: where a partition without any stored offset begins.
        recreated: what to do with a topic that was made anew.
    """

    def __init__(
        self,
        stage: Stage,
        ids: TopicIds,
        first_start: str | None,
        recreated: Literal["stop", "earliest"],
    ) -> None:
        self._stage, self._ids, self._first_start, self._recreated = stage, ids, first_start, recreated
        self.marks: dict[Place, OffsetMark] = {}
        """What stands in Kafka beside the offsets of the partitions found last, of those that begin there."""

    def find(self, consumer: Consumer, places: list[TopicPartition]) -> list[TopicPartition]:
        """Return partitions with the offsets to start from; what the stage's store lacks is stored now.

        Args:
            consumer: a subscribed consumer.
            places: newly assigned, or to be started again.

        Raises:
            Fatal: as ``starting_offsets``, or a topic was made anew.
            Retry: the stage's store does not answer.
            KafkaException: the brokers do not answer.
        """
        wanted = [(place.topic, place.partition) for place in places]
        now = self._ids.of(topic for topic, _ in wanted)
        stored = self._stage.stored_positions(wanted)
        store = self._stage.topic_ids if isinstance(self._stage, StoresTopicIds) else None
        kept = store.stored_ids(wanted) if store else {}
        anew: set[Place] = set()
        marks: dict[Place, tuple[int, OffsetMark]] = {}

        def is_anew(committed: TopicPartition) -> bool:
            place, mark = (committed.topic, committed.partition), read_mark(committed.metadata)
            if self._is_anew(place, now.get(place[0]), (kept.get(place), mark.topic_id)):
                anew.add(place)
            else:
                marks[place] = (committed.offset, mark)
            return place in anew

        starts = starting_offsets(consumer, places, stored, self._first_start, is_anew, now)
        found = dict(by_place(starts))
        # A mark of another offset than the start says nothing about it.
        self.marks = {
            place: replace(mark, topic_id=now.get(place[0]))
            for place, (offset, mark) in marks.items()
            if offset in {found[place], OFFSET_INVALID}
        }
        if store and anew:
            store.restart_at({place: found[place] for place in anew})
        new = {place: offset for place, offset in found.items() if place not in stored}
        if new and isinstance(self._stage, StoresOffsets):
            self._stage.begin_at(new)
        unknown = {place: now[place[0]] for place in found if place[0] in now and kept.get(place) != now[place[0]]}
        if store and unknown:
            store.keep_ids(unknown)
        return starts

    def _is_anew(self, place: Place, now: str | None, kept: tuple[str | None, ...]) -> bool:
        others = sorted({each for each in kept if each is not None and now is not None and each != now})
        if not others:
            return False
        topic, partition = place
        if self._recreated == "stop":
            raise Fatal(
                f"{topic}[{partition}]: the topic was made anew, or this is another Kafka cluster: the stored offset "
                f"belongs to the topic with id {others[0]}, the id is {now} now. {ADVICE}",
                EXIT_CONFIG,
            )
        _log.warning("a topic was made anew, read from its beginning", stage=self._stage.name,
                     place=f"{topic}[{partition}]", old_id=others[0], new_id=now)  # fmt: skip
        return True


def by_place(starts: list[TopicPartition]) -> Mapping[Place, int]:
    """Return offsets by (topic, partition)."""
    return {(start.topic, start.partition): start.offset for start in starts}
