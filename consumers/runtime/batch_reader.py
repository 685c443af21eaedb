"""How a batch is read: a first record, then others for a short while, and for longer where the stage says so.

Invariant: of partitions that were given away while the batch was read, nothing is returned that was read before: it is
their new owner's, and its offset must not be committed by us.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from confluent_kafka import Consumer, Message

from .fetched import record_of
from .stage import Stage, WaitsForMore

_IDLE_SECONDS = 0.5  # how long an idle read waits: bounds the answer to SIGTERM
_SLICE_SECONDS = 0.05  # of a longer wait: so late is noticed that somebody waits for what has just come


class BatchReader:
    """Reads batches of one stage.

    Args:
        consumer: the loop's.
        stage: asked whether a batch may wait for more.
        linger_seconds: how long a batch waits after its first record at least.
        is_stopping: whether the process is to end.
    """

    def __init__(
        self, consumer: Consumer, stage: Stage, linger_seconds: float, is_stopping: Callable[[], bool]
    ) -> None:
        self._consumer = consumer
        self._stage = stage
        self._linger_seconds = linger_seconds
        self._is_stopping = is_stopping
        self._given_away: set[tuple[str, int]] = set()  # since the last read

    def forget(self, places: Iterable[tuple[str, int]]) -> None:
        """Note partitions that were given away."""
        self._given_away.update(places)

    def read(self, most: int) -> list[Message]:
        """Wait for a first record, then a short while for company: quick when idle, large batches under load.

        Args:
            most: records of a batch.
        """
        messages = self._consumer.consume(1, _IDLE_SECONDS)
        if not messages or most == 1:
            return messages
        stage = self._stage if isinstance(self._stage, WaitsForMore) else None
        longest = 0.0 if stage is None else stage.linger_seconds()
        wait, left, fresh = self._linger_seconds, longest - self._linger_seconds, messages
        while True:
            self._given_away.clear()
            more = self._consumer.consume(most - len(messages), wait)
            messages = self._still_ours(messages) + more
            fresh = fresh + more
            if stage is None or left <= 0 or len(messages) == most or self._is_stopping():
                return messages
            if stage.is_awaited([record_of(message) for message in fresh if message.error() is None]):
                return messages
            wait, fresh = min(left, _SLICE_SECONDS), []
            left -= wait

    def _still_ours(self, messages: Sequence[Message]) -> list[Message]:
        return [message for message in messages if (message.topic(), message.partition()) not in self._given_away]
