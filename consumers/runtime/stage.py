"""The contract between the loop and a stage.

A stage makes one deciding write a batch, in Postgres or in Kafka, never in both (architecture, "Why two stages").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from .records import Outcome, Record

TopicPartition = tuple[str, int]


class Stage(Protocol):
    """One step of the pipeline, called by one thread."""

    @property
    def name(self) -> str:
        """Short name, for metrics and logs."""

    @property
    def group(self) -> str:
        """Consumer group."""

    @property
    def topics(self) -> Sequence[str]:
        """Topics it reads."""

    @property
    def output_topics(self) -> Sequence[str]:
        """Topics it writes, apart from dead letters."""

    @property
    def max_records(self) -> int:
        """No batch is larger, whatever ATTRIBUTION_BATCH_SIZE says."""

    def handle(self, batch: Sequence[Record]) -> Outcome:
        """Process a batch and decide. May block on Postgres or HTTP; called again with the same records after a fault.

        A stage that finds a batch too costly processes its first records alone and says so by ``Outcome.taken``.

        Raises:
            Retry: something outside is away; nothing was decided, the loop tries the same records again.
            Fatal: going on could lose something; the process stops.
        """
        ...

    def stored_positions(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return the next offset that the stage's own store holds per partition; empty for a stage without one."""
        ...

    def is_ready(self) -> bool:
        """Tell whether what the stage depends on can be reached; cheap, called by the readiness probe's thread."""
        ...

    def close(self) -> None:
        """Give back connections. Called once, after the last batch."""
        ...


@runtime_checkable
class StoresOffsets(Protocol):
    """What a stage with a store of its own offers besides: its store knows every partition from the start."""

    def begin_at(self, starts: Mapping[TopicPartition, int]) -> None:
        """Store where partitions begin that the store knows nothing about.

        Otherwise a store that lost the first commit of a partition would look like one that never met it.
        """
        ...


class TopicIdStore(Protocol):
    """Ids of topics beside stored offsets."""

    def stored_ids(self, places: Iterable[TopicPartition]) -> Mapping[TopicPartition, str]:
        """Return the ids of the topics that stored offsets belong to, where they are known."""
        ...

    def keep_ids(self, ids: Mapping[TopicPartition, str]) -> None:
        """Store ids beside the offsets that are there."""

    def restart_at(self, starts: Mapping[TopicPartition, int]) -> None:
        """Store where partitions begin again, also further back: their topic was made anew."""


@runtime_checkable
class StoresTopicIds(Protocol):
    """What a stage with a store of its own offers besides: to know a topic again."""

    @property
    def topic_ids(self) -> TopicIdStore:
        """The ids beside its offsets."""
        ...


@runtime_checkable
class WaitsForMore(Protocol):
    """What a stage offers besides that does less in full batches, and at times knows that nobody waits for it."""

    def linger_seconds(self) -> float:
        """Return how long the next batch's first record may wait for others, seconds; 0: as the settings say."""
        ...

    def is_awaited(self, records: Sequence[Record]) -> bool:
        """Tell whether somebody waits for what becomes of one of these records: then the batch waits no longer."""
        ...


@runtime_checkable
class ReadsInBulk(Protocol):
    """What a stage says besides of which nobody notices half a second: it is sent records by so many bytes at once."""

    fetch_min_bytes: int


@runtime_checkable
class LeavesBehind(Protocol):
    """What a stage offers besides that leaves work behind in its own store, so that its batches need not wait."""

    def read_from(self, starts: Mapping[TopicPartition, int]) -> None:
        """Note where partitions are read from: told at every assignment and after every rewind."""

    def catch_up(self, partitions: Sequence[TopicPartition], *, is_idle: bool) -> Outcome:
        """Do some of what was left behind of these partitions, which are all that are ours.

        Called after every batch, and when nothing was read; quick when there is nothing to do.

        Raises:
            Retry: something outside is away.
        """
        ...
