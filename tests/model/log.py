"""Kafka in memory, as far as the promises depend on it: partitions, transactions, group offsets, generations.

A transaction's records appear all at once when it ends. What really happens in between is in the faults: an answer
that is lost, a transaction that ends late, one that a broker tears in two.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from attributary.consumers.runtime.records import Headers, Outbound, Record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TopicPartition = tuple[str, int]
PARTITIONS = 2


@dataclass
class Log:
    """All topics and what the groups have committed."""

    records: dict[TopicPartition, list[Record]] = field(default_factory=lambda: defaultdict(list))
    offsets: dict[str, dict[TopicPartition, int]] = field(default_factory=lambda: defaultdict(dict))
    clock_ms: int = 0

    def append(
        self, topic: str, key: bytes | None, value: bytes | None, partition: int | None = None, headers: Headers = ()
    ) -> Record:
        number = crc32(key or b"") % PARTITIONS if partition is None else partition
        there = self.records[topic, number]
        record = Record(topic, number, len(there), key, value, self.clock_ms, lambda: headers)
        there.append(record)
        return record

    def end_transaction(self, group: str, messages: Sequence[Outbound], offsets: Mapping[TopicPartition, int]) -> None:
        for message in messages:
            self.append(message.topic, message.key, message.value, headers=message.headers)
        self.offsets[group] |= offsets

    def lag(self, group: str, topics: Sequence[str]) -> int:
        committed = self.offsets[group]
        return sum(
            len(records) - committed.get(place, 0) for place, records in self.records.items() if place[0] in topics
        )


class Pending(NamedTuple):
    """A transaction that a worker is about to commit."""

    messages: list[Outbound]
    offsets: dict[TopicPartition, int]
    generation: int


@dataclass
class Group:
    """Who reads what; every change of hands is a new generation."""

    places: list[TopicPartition]
    owners: dict[TopicPartition, int] = field(default_factory=dict)
    generation: int = 0

    def share(self, among: Sequence[int]) -> None:
        """Deal the partitions out anew."""
        self.generation += 1
        for number, place in enumerate(self.places):
            self.owners[place] = among[number % len(among)]

    def of(self, member: int) -> list[TopicPartition]:
        return [place for place, owner in self.owners.items() if owner == member]
