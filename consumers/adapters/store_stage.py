"""What the stages share that decide in Postgres alone: one transaction a batch, data and positions together.

Invariants: a record that cannot be read is a dead letter, and so is one that Postgres refuses beside the others; the
rest of the batch is stored with the positions, or nothing is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Generic, TypeVar

import psycopg

from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.adapters.quarantine import TrialDoneError, bisect_rejected
from attributary.consumers.adapters.stored_offsets import OffsetStore
from attributary.consumers.runtime.crash_points import crash_at
from attributary.consumers.runtime.dead_letters import check_poison_share
from attributary.consumers.runtime.metrics import timed
from attributary.consumers.runtime.records import DeadLetter, Outcome, Record, within_bytes
from attributary.consumers.store.events.rejected_values import UNSTORABLE
from attributary.consumers.store.offsets import record_positions
from attributary.consumers.store.session import StoreSession
from attributary.schemas.codec import Codec

Row = TypeVar("Row")
Aside = TypeVar("Aside")
Written = TypeVar("Written")
_MAX_BYTES = 8 << 20  # of the records of a batch: a credit and micros take twelve bytes here, and a hundred as a row


class StoreStage(ABC, Generic[Row, Aside, Written]):
    """A stage that stores something of every record.

    Args:
        dsn: where Postgres is.
        codec: reads the records.
        max_poison_share: stop when more of a batch than this share is poison.
    """

    name: ClassVar[str]
    group: ClassVar[str]
    topics: ClassVar[Sequence[str]]
    output_topics = ()
    max_records: ClassVar[int]

    def __init__(self, dsn: str, codec: Codec, max_poison_share: float) -> None:
        self._codec = codec
        self._max_poison_share = max_poison_share
        self._session = StoreSession(dsn, f"attributary-{self.name}", self.create_staging)
        self._positions = OffsetStore(self.group, self._session)
        with map_errors():
            self._session.connection()

    # What is the stage's own.

    nothing: Aside
    """What `read` returns beside rows where there is none of it."""

    @staticmethod
    def create_staging(connection: psycopg.Connection) -> None:
        """Create the staging tables of a new session; none, unless the stage says so."""

    @abstractmethod
    def read(self, batch: Sequence[Record]) -> tuple[list[tuple[Record, Row]], list[DeadLetter], Aside]:
        """Return what is stored of each record, the records that cannot be read, and what the batch says beside it."""

    @abstractmethod
    def write(self, connection: psycopg.Connection, rows: Sequence[Row], aside: Aside) -> Written:
        """Store rows, in the transaction in hand."""

    @abstractmethod
    def count(self, written: Written, rows: Sequence[Row], aside: Aside) -> None:
        """Count what has been committed."""

    # The contract with the loop.

    def handle(self, batch: Sequence[Record]) -> Outcome:
        """Store a batch of records, or the first of one of very many bytes."""
        taken = within_bytes(batch, _MAX_BYTES)
        outcome = self._handle(batch[:taken])
        outcome.taken = taken if taken < len(batch) else None
        return outcome

    def _handle(self, batch: Sequence[Record]) -> Outcome:
        with map_errors(), timed(self.name, "decode"):
            rows, dead_letters, aside = self.read(batch)
        check_poison_share(dead_letters, len(batch), self._max_poison_share)
        positions = {(record.topic, record.partition): record.offset + 1 for record in batch}
        try:
            written = self._store([row for _, row in rows], aside, positions)
        except UNSTORABLE:
            rows, rejected = self._without_rejected(rows)
            dead_letters += rejected
            check_poison_share(dead_letters, len(batch), self._max_poison_share)
            written = self._store([row for _, row in rows], aside, positions)
        self.count(written, [row for _, row in rows], aside)
        return Outcome(dead_letters=dead_letters)

    def _without_rejected(
        self, rows: Sequence[tuple[Record, Row]]
    ) -> tuple[list[tuple[Record, Row]], list[DeadLetter]]:
        """Return the rows that Postgres takes together, and the records of the others."""
        row_of = {record.place: row for record, row in rows}
        rejected = bisect_rejected(
            [record for record, _ in rows], lambda part: self._trial([row_of[record.place] for record in part])
        )
        refused = {letter.record.place for letter in rejected}
        return [each for each in rows if each[0].place not in refused], rejected

    def _store(self, rows: Sequence[Row], aside: Aside, positions: Mapping[tuple[str, int], int]) -> Written:
        with map_errors(), timed(self.name, "store"), self._session.transaction() as connection:
            written = self.write(connection, rows, aside)
            self._positions.check(record_positions(connection, self.group, positions))
            crash_at(f"{self.name}_before_pg_commit")
        self._positions.committed(positions)
        crash_at(f"{self.name}_after_pg_commit")
        return written

    def _trial(self, rows: Sequence[Row]) -> Exception | None:
        try:
            with map_errors(), self._session.transaction() as connection:
                self.write(connection, rows, self.nothing)
                raise TrialDoneError  # noqa: TRY301  # the way to roll back a transaction block
        except UNSTORABLE as error:
            return error
        except TrialDoneError:
            return None

    def stored_positions(self, partitions: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], int]:
        """Return the next offsets that Postgres holds."""
        return self._positions.stored(partitions)

    def begin_at(self, starts: Mapping[tuple[str, int], int]) -> None:
        """Store where partitions begin that Postgres knows nothing about."""
        self._positions.begin_at(starts)

    @property
    def topic_ids(self) -> OffsetStore:
        """The ids of topics beside the offsets."""
        return self._positions

    def is_ready(self) -> bool:
        """Tell whether Postgres answered last time."""
        return self._session.is_reachable()

    def close(self) -> None:
        """Close the connection."""
        self._session.close()
