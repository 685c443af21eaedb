"""The express lane: what waits behind another tenant's flood is stitched out of turn, and again in its turn.

Partitions are read in order and tenants share them, so a flood delays all others until the stitcher has been through
it. This process reads ahead of the stitcher. It looks at the keys alone, takes of each tenant what its rate allows, and
gives a record that still waits after a few seconds to the same code as the stitcher: the same transaction, but for the
positions.

Invariants: it decides nothing about positions and dead letters, and keeps no state. What it stores the stitcher finds
stored when it comes there: the same event id at the same place is a replay. So it may stop, fail, or run twice at any
time; without it everything is as before, only later.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import structlog
from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.runtime.errors import Retry
from attributary.consumers.runtime.fetched import record_of
from attributary.consumers.runtime.records import Outbound, Record
from attributary.consumers.store.events.rejected_values import UNSTORABLE
from attributary.consumers.store.offsets import all_positions

from . import metrics
from .stage import GROUP, StitcherStage
from .tenant_rate import TenantRate

if TYPE_CHECKING:
    from attributary.consumers.runtime.health import Heartbeat
    from attributary.consumers.store.events.rows import Positions

    from .transaction import Transaction

_log = structlog.get_logger()

Place = tuple[str, int]

_READ_AT_ONCE = 10_000
_READ_SECONDS = 0.2
_LOOK_SECONDS = 1.0  # how often it is asked how far the stitcher is
_MAX_HELD = 50_000
_MAX_BATCH = 2_000
_FLUSH_SECONDS = 30.0
_PAUSE_SECONDS = 1.0


class ExpressStage(StitcherStage):
    """The stitcher but for its positions: they are the stitcher's own."""

    name = "express"

    def _store_positions(self, transaction: Transaction, positions: Positions) -> None:
        del transaction, positions

    def stitcher_positions(self) -> dict[Place, int]:
        """Return the next offset of the stitcher in each partition."""
        with map_errors(), self._session.transaction() as connection:
            return {(topic, number): at for group, topic, number, at in all_positions(connection) if group == GROUP}


class Rules(NamedTuple):
    """What the express lane takes."""

    rate: float  # records a second, of a tenant in a partition
    after_seconds: float  # it leaves the stitcher so much time


class ExpressLane:
    """Reads ahead of the stitcher until it is asked to stop.

    Args:
        stage: stitches.
        rules: what is taken.
        consumer: without a group; read ahead by it.
        producer: takes commands.
    """

    def __init__(self, stage: ExpressStage, rules: Rules, consumer: Consumer, producer: Producer) -> None:
        self._stage = stage
        self._rules = rules
        self._consumer = consumer
        self._producer = producer
        self._rate = TenantRate(rules.rate)
        self._stop = threading.Event()
        self._held: list[Record] = []
        self._next: dict[Place, int] = {}  # of each partition that is read
        self._looked_at = -_LOOK_SECONDS

    def stop(self) -> None:
        """Ask to stop after the batch in hand."""
        self._stop.set()

    def run(self, heartbeat: Heartbeat) -> None:
        """Read ahead until asked to stop; an outage is waited out.

        Raises:
            Fatal: Kafka refuses the commands.
        """
        heartbeat.started = True
        while not self._stop.is_set():
            heartbeat.beat()
            try:
                self.turn()
            except Retry as error:
                _log.warning("the express lane waits", why=str(error))
                self._stop.wait(_PAUSE_SECONDS)
        self._consumer.close()
        self._stage.close()

    def turn(self) -> int:
        """Read, and stitch what has waited long enough; returns how many records were stitched.

        Raises:
            Retry: Postgres or Kafka is away.
        """
        if self._next and len(self._held) < _MAX_HELD:
            self._read()
        if time.monotonic() - self._looked_at < _LOOK_SECONDS:
            if not self._next:
                self._stop.wait(_READ_SECONDS)
            return 0
        positions = self._stage.stitcher_positions()
        self._follow(positions)
        self._looked_at = time.monotonic()
        due = self._due(positions)
        for first in range(0, len(due), _MAX_BATCH):
            self._stitch(due[first : first + _MAX_BATCH])
        return len(due)

    def _follow(self, positions: Mapping[Place, int]) -> None:
        """Read new partitions, too, and where the stitcher is ahead begin there."""
        try:
            new = [TopicPartition(*place, offset) for place, offset in positions.items() if place not in self._next]
            if new:
                self._consumer.incremental_assign(new)
            for place, offset in positions.items():
                if offset > self._next.get(place, offset):
                    self._consumer.seek(TopicPartition(*place, offset))
                self._next[place] = max(offset, self._next.get(place, 0))
        except KafkaException as error:
            raise Retry(f"Kafka does not answer: {error.args[0].name()}") from None

    def _read(self) -> None:
        newest_ms = passed = read = 0
        for message in self._consumer.consume(_READ_AT_ONCE, _READ_SECONDS):
            if message.error() is not None:  # the stitcher tells of it; where it goes on, this goes on
                continue
            place = (message.topic() or "", message.partition() or 0)
            self._next[place] = (message.offset() or 0) + 1
            timestamp_ms = message.timestamp()[1]
            newest_ms = max(newest_ms, timestamp_ms)
            read += 1
            if self._passes(message, place, timestamp_ms):
                self._held.append(record_of(message))
                passed += 1
        metrics.express_records.labels("over_rate").inc(read - passed)
        age = time.time() - newest_ms / 1_000 if newest_ms else 0.0
        metrics.express_delay_seconds.set(max(0.0, age))

    def _passes(self, message: Message, place: Place, timestamp_ms: int) -> bool:
        key = message.key()
        return isinstance(key, bytes) and self._rate.take((*place, key.partition(b"|")[0]), timestamp_ms)

    def _due(self, positions: Mapping[Place, int]) -> list[Record]:
        """Take out the records that have waited long enough and that the stitcher has not reached."""
        before_ms = (time.time() - self._rules.after_seconds) * 1_000
        ripe = [record for record in self._held if record.timestamp_ms <= before_ms]
        self._held = [record for record in self._held if record.timestamp_ms > before_ms]
        due = [record for record in ripe if record.offset >= positions.get((record.topic, record.partition), 0)]
        metrics.express_records.labels("in_turn").inc(len(ripe) - len(due))
        return due

    def _stitch(self, batch: Sequence[Record]) -> None:
        left = list(batch)
        try:
            while left:
                outcome = self._stage.handle(left)
                taken = len(left) if outcome.taken is None else outcome.taken
                self._send(outcome.messages)
                metrics.express_records.labels("stitched").inc(taken)
                left = left[taken:]
        except UNSTORABLE:  # the stitcher finds the record, and sets it aside
            metrics.express_records.labels("left").inc(len(left))

    def _send(self, messages: Sequence[Outbound]) -> None:
        for message in messages:
            self._producer.produce(message.topic, message.value, message.key)
            self._producer.poll(0)
        if messages and self._producer.flush(_FLUSH_SECONDS):
            self._producer.purge(in_flight=False)  # the sweeper finds the versions overdue, or the stitcher asks again
            raise Retry("Kafka does not take the commands")
