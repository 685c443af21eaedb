"""How long a batch waits for more records, and what it may hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from attributary.consumers.runtime.batch_reader import BatchReader
from attributary.consumers.runtime.records import Record

TOPIC = "in"


class Message:
    """As much of a message as a record is made of."""

    def __init__(self, offset: int, partition: int = 0) -> None:
        self._offset, self._partition = offset, partition

    def topic(self) -> str:
        return TOPIC

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def key(self) -> None:
        return None

    value = error = headers = key

    def timestamp(self) -> tuple[int, int]:
        return 1, 0


class ScriptedConsumer:
    """Each read returns the next entry; a function is called, as a rebalance would be."""

    def __init__(self, *script: Message | Callable[[], None]) -> None:
        self.script = list(script)
        self.waits: list[float] = []

    def consume(self, _most: int, timeout: float) -> list[Message]:
        self.waits.append(timeout)
        step = self.script.pop(0) if self.script else None
        if isinstance(step, Message):
            return [step]
        if step is not None:
            step()
        return []


class HurriedStage:
    """A stage that never waits for more."""


class PatientStage:
    """Waits for two seconds, but for records at some offsets."""

    def __init__(self, *awaited: int) -> None:
        self._awaited = awaited

    def linger_seconds(self) -> float:
        return 2.0

    def is_awaited(self, records: Sequence[Record]) -> bool:
        return any(record.offset in self._awaited for record in records)


def reader(consumer: ScriptedConsumer, stage: object, *, is_stopping: bool = False) -> BatchReader:
    return BatchReader(consumer, stage, 0.01, lambda: is_stopping)  # type: ignore[arg-type]  # stand-ins


def offsets(found: Sequence[object]) -> list[int]:
    return [message.offset() for message in found if isinstance(message, Message)]


def test_a_batch_waits_as_long_as_the_settings_say() -> None:
    consumer = ScriptedConsumer(Message(1), Message(2), Message(3))
    assert offsets(reader(consumer, HurriedStage()).read(100)) == [1, 2]
    assert consumer.waits[1:] == [0.01]


def test_a_stage_may_wait_longer_for_full_batches() -> None:
    consumer = ScriptedConsumer(Message(1), Message(2))
    assert offsets(reader(consumer, PatientStage()).read(100)) == [1, 2]
    assert sum(consumer.waits[1:]) == pytest.approx(2.0)


def test_a_full_batch_waits_no_longer() -> None:
    consumer = ScriptedConsumer(*(Message(offset) for offset in range(1, 9)))
    assert offsets(reader(consumer, PatientStage()).read(3)) == [1, 2, 3]


def test_a_stop_ends_the_wait() -> None:
    consumer = ScriptedConsumer(Message(1), Message(2), Message(3))
    assert offsets(reader(consumer, PatientStage(), is_stopping=True).read(100)) == [1, 2]


@pytest.mark.parametrize("awaited", [1, 2, 3])
def test_a_batch_goes_once_it_holds_a_record_that_somebody_waits_for(awaited: int) -> None:
    consumer = ScriptedConsumer(Message(1), Message(2), Message(3), Message(4))
    found = offsets(reader(consumer, PatientStage(awaited)).read(100))
    assert found == list(range(1, max(awaited, 2) + 1))
    assert sum(consumer.waits[1:]) < 0.1


def test_a_partition_that_is_given_away_during_a_long_wait_is_left_out() -> None:
    consumer = ScriptedConsumer(Message(1), Message(7, 1), lambda: batches.forget([(TOPIC, 0)]), Message(8, 1))
    batches = reader(consumer, PatientStage())
    assert offsets(batches.read(100)) == [7, 8]
    consumer.script = [Message(9)]  # it came back
    assert offsets(batches.read(100)) == [9]
