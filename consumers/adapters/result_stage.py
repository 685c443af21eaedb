"""What the stages that read the results topic share, beside what every stage with its decision in Postgres does.

Invariant: what a null value takes back is not stored before it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

from attributary.consumers.adapters.store_stage import StoreStage
from attributary.consumers.adapters.tombstones import conversion_of, last_tombstones, without_forgotten
from attributary.consumers.runtime.records import DeadLetter, Record
from attributary.schemas.topics import RESULTS

Row = TypeVar("Row")
Written = TypeVar("Written")


class Tombstones(NamedTuple):
    """The null values of a batch."""

    number: int
    conversions: frozenset[tuple[str, str]]  # tenant and conversion id, where the key is one of ours


class ResultStage(StoreStage[Row, Tombstones, Written], Generic[Row, Written]):
    """A stage that stores something of every result."""

    topics = (RESULTS,)
    max_records = 2_000  # a result is a kilobyte or two; where it is more, a batch is cut
    nothing = Tombstones(0, frozenset())

    @abstractmethod
    def decode(self, batch: Sequence[Record]) -> tuple[list[tuple[Record, Row]], list[DeadLetter]]:
        """Return what is stored of each result, and the records that cannot be read; none of them has a null value."""

    def read(self, batch: Sequence[Record]) -> tuple[list[tuple[Record, Row]], list[DeadLetter], Tombstones]:
        """Return what is stored of each result, the records that cannot be read, and the null values."""
        forgotten = last_tombstones(batch)
        rows, dead_letters = self.decode(without_forgotten(batch, forgotten))
        keys = frozenset(key for _, text in forgotten if (key := conversion_of(text)) is not None)
        return rows, dead_letters, Tombstones(len(forgotten), keys)
