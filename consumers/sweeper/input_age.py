"""How far each stage has come in the log, by the log itself: the age of the oldest record that it has not dealt with.

Invariant: an answer never runs ahead of a stage. What a stage has stored is asked for before the ends of the topics, a
partition counts as dealt with only when no record stands between the two, and what is not known is a ``Retry``, not
"nothing". It holds while a stage is down altogether: its positions stay where they are, and the log grows.

Everything is asked by consumers that never join a group. librdkafka's admin client has the same questions, but one of
its answers that a lost connection cuts off ends the process by an assertion (its issue 4605, open in 2.16).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from attributary.consumers.runtime.access_errors import Access
from attributary.consumers.runtime.error_codes import PARTITION_END
from attributary.consumers.runtime.errors import Retry
from attributary.consumers.runtime.settings import KafkaSettings
from attributary.consumers.runtime.topic_checks import check_visible
from attributary.schemas.topics import (
    COMMANDS,
    CONVERSIONS,
    ERASURE_REQUESTS,
    IDENTITIES,
    RESULTS,
    TOUCHPOINTS,
    group_name,
)

Place = tuple[str, int]

STITCHER, ATTRIBUTOR, AUDITOR = map(group_name, ("stitcher", "attributor", "auditor"))
# Which group deals with which topics; the stages' own modules must not be imported here, a test compares them.
READERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {STITCHER: (TOUCHPOINTS, CONVERSIONS, IDENTITIES, ERASURE_REQUESTS), ATTRIBUTOR: (COMMANDS,), AUDITOR: (RESULTS,)}
)
_TIMEOUT = 10.0


class UnreadAgeReader:
    """Asks the brokers; keeps its connections, reads one record a partition that is behind.

    Args:
        kafka: how to reach the brokers.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self.access = Access(kafka, "sweeper", group_operation="DESCRIBE")
        """Names a right that the brokers refuse."""
        shared = kafka.client_config() | {"enable.auto.commit": False, "log_level": 0}
        self._consumer = Consumer(
            shared
            | {
                "group.id": "attributary.sweeper",  # needed by the client, never used: nothing is committed
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",  # retention removed the position: the oldest that is left
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,
                # For one partition of a request only, a broker goes beyond this; with too little all others wait.
                "max.partition.fetch.bytes": 262_144,
                "queued.min.messages": 1,
                "fetch.queue.backoff.ms": 10,
            }
        )
        # One a group, which it asks about and never joins; "uncommitted", so as not to wait for offsets of a
        # transaction that has not ended.
        self._groups = {
            group: Consumer(shared | {"group.id": group, "isolation.level": "read_uncommitted"}) for group in READERS
        }

    def oldest(self, stored: Mapping[tuple[str, str, int], int]) -> dict[str, int | None]:
        """Return, by group, the log-append time of the oldest record not dealt with, microseconds UTC; None: no such.

        Args:
            stored: next offsets by (group, topic, partition), of the groups that keep them in Postgres, too. The
                smaller of Postgres's and Kafka's counts, as for the stages; without either, all of it is unread.

        Raises:
            Retry: the brokers do not answer, or Postgres is ahead of the log: nothing is known.
            AccessRefused: a right is missing.
        """
        places = self._places()
        committed = {group: self._committed(group, places[group]) for group in READERS}
        everywhere = [place for group in READERS for place in places[group]]
        ends = self._ends(everywhere)
        behind: dict[Place, int] = {}
        for group in READERS:
            for place in places[group]:
                both = (stored.get((group, *place)), committed[group].get(place))
                position = min((offset for offset in both if offset is not None), default=OFFSET_BEGINNING)
                end = ends[place]
                if position > end:
                    raise Retry(f"{place[0]}[{place[1]}]: {group} has read up to {position}, the log ends at {end}")
                if position < end:
                    behind[place] = position
        times = self._first_times(behind)
        return {
            group: min((times[place] for place in places[group] if place in times), default=None) for group in READERS
        }

    def close(self) -> None:
        """Give back the connections."""
        for consumer in (self._consumer, *self._groups.values()):
            consumer.close()

    def _places(self) -> dict[str, list[Place]]:
        topics = self._asked(lambda: self._consumer.list_topics(timeout=_TIMEOUT)).topics
        missing = sorted(topic for group in READERS for topic in READERS[group] if topic not in topics)
        if missing:
            check_visible(self._consumer, missing, self.access, "READ")
            raise Retry(f"topics are missing: {', '.join(missing)}")
        return {
            group: [(topic, number) for topic in READERS[group] for number in topics[topic].partitions]
            for group in READERS
        }

    def _committed(self, group: str, places: Iterable[Place]) -> dict[Place, int]:
        """Return Kafka's offsets of a group; not those of a transaction that has not ended."""
        wanted = [TopicPartition(*place) for place in places]
        found = self._asked(
            lambda: self._groups[group].committed(wanted, timeout=_TIMEOUT), replace(self.access, group=group)
        )
        return {(each.topic, each.partition): each.offset for each in found if each.error is None and each.offset >= 0}

    def _ends(self, places: Iterable[Place]) -> dict[Place, int]:
        """Return where the committed records of each partition end."""
        ends: dict[Place, int] = {}
        for place in places:
            found = self._asked(partial(self._consumer.get_watermark_offsets, TopicPartition(*place), _TIMEOUT))
            if found is None:
                raise Retry(f"Kafka did not say within {_TIMEOUT:.0f} s where {place[0]}[{place[1]}] ends")
            ends[place] = found[1]
        return ends

    def _first_times(self, behind: Mapping[Place, int]) -> dict[Place, int]:
        """Return the log-append time of the first record at or after each offset; without those that have none.

        There may be none below the end: marks of transactions, and records of aborted ones, take offsets as well.
        """
        times: dict[Place, int] = {}
        if not behind:
            return times
        missing = set(behind)
        deadline = time.monotonic() + _TIMEOUT
        self._asked(lambda: self._consumer.assign([TopicPartition(*place, offset) for place, offset in behind.items()]))
        try:
            while missing:
                if time.monotonic() > deadline:
                    raise Retry(f"no answer about {len(missing)} partitions within {_TIMEOUT:.0f} s")
                before = set(missing)
                for message in self._asked(lambda: self._consumer.consume(len(behind), 0.1)):
                    self._note(message, missing, times)
                if answered := [TopicPartition(*place) for place in before - missing]:
                    self._consumer.incremental_unassign(answered)  # the others get their turn
        finally:
            self._consumer.unassign()
        return times

    def _note(self, message: Any, missing: set[Place], times: dict[Place, int]) -> None:
        place, error = (message.topic(), message.partition()), message.error()
        if place not in missing:
            return
        if error is None:
            times[place] = message.timestamp()[1] * 1_000
        elif refused := self.access.refused(error, "READ", message.topic()):
            raise refused
        elif error.code() != PARTITION_END:
            return  # the client tries again; the deadline ends it
        missing.discard(place)

    def _asked(self, ask: Any, access: Access | None = None) -> Any:
        """Ask the brokers; whatever they do not answer is not known."""
        try:
            with (access or self.access).guarded():
                return ask()
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            raise Retry(f"Kafka does not say what is unread ({reason.name()})") from None
