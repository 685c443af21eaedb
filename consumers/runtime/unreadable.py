"""Batches of the log that can be fetched and not be unpacked: a decompression bomb, a damaged block.

Contract: such a batch comes again for ever, whatever is restarted. Its partition is held, all others go on; it is
counted, logged, and told by an alert. Nothing is skipped unless an operator names the batch in
``ATTRIBUTION_SKIP_BATCHES``; then a dead letter without a value says which offsets were skipped, in one transaction
with the offset behind them. A batch that is named with its last offset is skipped before it is fetched: to unpack one
of gigabytes ends the process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaException, TopicPartition

from . import metrics
from .error_codes import UNREADABLE
from .errors import ConfigError, Retry
from .records import DeadLetter, Record

_log = structlog.get_logger()

Place = tuple[str, int]

_SPEC = re.compile(r"([A-Za-z0-9._-]{1,249})\[(\d{1,9})\]@(\d{1,18})(?:-(\d{1,18}))?")
_PROBE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class NamedBatch:
    """A batch that an operator gave up; ``last`` is None when only its first offset is named."""

    topic: str
    partition: int
    first: int
    last: int | None


def named_batches(text: str) -> tuple[NamedBatch, ...]:
    """Return the batches of ATTRIBUTION_SKIP_BATCHES.

    Raises:
        ConfigError: the text names none.
    """
    found = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        spec = _SPEC.fullmatch(part)
        if spec is None or (spec[4] is not None and int(spec[4]) < int(spec[3])):
            raise ConfigError(
                "ATTRIBUTION_SKIP_BATCHES", "must be like TOPIC[PARTITION]@OFFSET or TOPIC[PARTITION]@FIRST-LAST, ..."
            )
        found.append(NamedBatch(spec[1], int(spec[2]), int(spec[3]), int(spec[4]) if spec[4] else None))
    return tuple(found)


class UnreadableBatches:
    """Holds or skips batches that cannot be unpacked.

    Args:
        stage: its name, for metrics and logs.
        named: batches that may be skipped.
        probe_config: of a consumer that finds out where a batch ends; it joins no group.
        consumer: the loop's; told to hold partitions.
    """

    def __init__(
        self, stage: str, named: tuple[NamedBatch, ...], probe_config: Mapping[str, Any], consumer: Consumer
    ) -> None:
        self._stage, self._named, self._consumer = stage, named, consumer
        self._probe_config = {**probe_config, "enable.partition.eof": True, "auto.offset.reset": "error"}
        self._held: set[Place] = set()
        self._met: dict[Place, int] = {}
        self._skipped: dict[Place, tuple[int, int]] = {}  # first offset, and the one behind the last

    def start_behind(self, starts: list[TopicPartition]) -> list[TopicPartition]:
        """Return where partitions start, behind batches that are named with both ends."""
        out = []
        for start in starts:
            place = (start.topic, start.partition)
            self._skipped.pop(place, None)
            named = next(
                (each for each in self._named_at(place) if each.first <= start.offset <= (each.last or -1)), None
            )
            if named is not None and named.last is not None:
                self._skipped[place] = (start.offset, named.last + 1)
                start = TopicPartition(*place, named.last + 1)  # noqa: PLW2901
            out.append(start)
        return out

    def met(self, topic: str, partition: int, offset: int, reason: str) -> None:
        """Hold a partition of which a batch cannot be unpacked."""
        place = (topic, partition)
        self._consumer.pause([TopicPartition(topic, partition)])
        metrics.unreadable_batches.labels(self._stage, topic).inc()
        if self._met.get(place) != offset:
            _log.error(
                "a batch cannot be unpacked, its partition is held: kafka-dump-log shows it; to go on without it, set "
                "ATTRIBUTION_SKIP_BATCHES",
                stage=self._stage, batch=f"{topic}[{partition}]@{offset}", reason=reason,
            )  # fmt: skip
        self._met[place] = offset
        self._held.add(place)
        metrics.partitions_held.labels(self._stage).set(len(self._held))

    def held(self) -> set[Place]:
        """Return the partitions that are held."""
        return set(self._held)

    def forget(self, places: set[Place]) -> None:
        """Drop partitions that were given away, or that start again."""
        self._held -= places
        for place in places:
            self._skipped.pop(place, None)
        metrics.partitions_held.labels(self._stage).set(len(self._held))

    def to_skip(self) -> dict[Place, tuple[DeadLetter, int]]:
        """Return the note and the offset to go on at, for batches that were met, or jumped over, and are named.

        Raises:
            Retry: the brokers do not tell where a batch ends.
        """
        for place in sorted(self._held):
            if any(each.first == self._met[place] for each in self._named_at(place)):
                self._skipped[place] = (self._met[place], self._end(place, self._met[place]))
        return {place: (self._note(place, *offsets), offsets[1]) for place, offsets in self._skipped.items()}

    def skipped(self, places: Mapping[Place, Any]) -> None:
        """Note that the skips are committed."""
        for place in places:
            _log.error("a batch was skipped, as ATTRIBUTION_SKIP_BATCHES says", stage=self._stage,
                       place=f"{place[0]}[{place[1]}]", offsets=self._skipped.pop(place, None))  # fmt: skip
        self._consumer.resume([TopicPartition(*place) for place in self._held & set(places)])
        self._held -= set(places)
        metrics.partitions_held.labels(self._stage).set(len(self._held))

    def _named_at(self, place: Place) -> list[NamedBatch]:
        return [each for each in self._named if (each.topic, each.partition) == place]

    @staticmethod
    def _note(place: Place, first: int, end: int) -> DeadLetter:
        reason = f"offsets {first} to {end - 1} cannot be unpacked and were skipped by ATTRIBUTION_SKIP_BATCHES"
        return DeadLetter(Record(*place, first, None, None, 0), "read", None, reason)

    def _end(self, place: Place, first: int) -> int:
        """Return the offset behind a batch: the broker answers with the whole batch for each offset in it."""
        probe = Consumer(self._probe_config)
        try:
            _, high = probe.get_watermark_offsets(TopicPartition(*place), timeout=_PROBE_SECONDS)
            inside, step = first, 1
            while inside + step < high and self._is_inside(probe, place, inside + step, first):
                inside, step = inside + step, 2 * step
            outside = min(inside + step, high)
            while outside - inside > 1:
                middle = (inside + outside) // 2
                if self._is_inside(probe, place, middle, first):
                    inside = middle
                else:
                    outside = middle
        except KafkaException as error:
            raise Retry(f"cannot learn where a batch ends: {error.args[0].name()}") from None
        finally:
            probe.close()
        return outside

    @staticmethod
    def _is_inside(probe: Consumer, place: Place, offset: int, first: int) -> bool:
        probe.assign([TopicPartition(*place, offset)])
        read = probe.consume(1, _PROBE_SECONDS)
        if not read:
            raise Retry("cannot learn where a batch ends: no answer")
        error = read[0].error()
        return error is not None and error.code() in UNREADABLE and (read[0].offset() or 0) <= max(first, 0)
