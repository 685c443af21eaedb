"""A crash loop that one record causes ends by itself; what the stage's own errors stop is never a record's fault."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer

from attributary.consumers.runtime.crash_loop import CrashLoop
from attributary.consumers.runtime.errors import Fatal, Retry, TooSlow
from attributary.consumers.runtime.offset_marks import MAX_SUSPECTS, OffsetMark, read_mark
from attributary.consumers.runtime.records import Record
from attributary.consumers.runtime.settings import KafkaSettings
from attributary.consumers.runtime.topic_reader import read_topic
from tests.runtime.collector import collector_topics

if TYPE_CHECKING:
    from collections.abc import Iterator

KILLED = -signal.SIGKILL


@dataclass
class Crashing:
    """A stage that is started again as often as it ends, as a supervisor does."""

    bootstrap: str
    prefix: str
    codes: list[int] = field(default_factory=list)
    said: str = ""

    def fill(self, values: list[bytes]) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap, "log_level": 0})
        for number, value in enumerate(values):
            producer.produce(f"{self.prefix}-in", value, b"k%d" % number, headers=[("own", b"1")])
        assert producer.flush(120) == 0

    def run(self, at_most: int) -> None:
        for _ in range(at_most):
            done = subprocess.run(
                [sys.executable, "-m", "tests.runtime.crashing_stage", self.bootstrap, self.prefix],
                capture_output=True, text=True, timeout=240, check=False,
            )  # fmt: skip
            self.codes.append(done.returncode)
            self.said = done.stdout + done.stderr
            if done.returncode == 0:
                return

    def read(self, topic: str) -> list[Record]:
        kafka = KafkaSettings(KAFKA_BOOTSTRAP_SERVERS=self.bootstrap)
        return list(read_topic(kafka, f"{self.prefix}-{topic}", until_end=True))

    @property
    def letters(self) -> list[Record]:
        return self.read(f"in.{self.prefix}.dlq")

    @property
    def copied(self) -> list[bytes | None]:
        return [record.value for record in self.read("out")]


@pytest.fixture
def crashing(kafka_bootstrap: str) -> Iterator[Crashing]:
    with collector_topics(kafka_bootstrap, "crash") as prefix:
        yield Crashing(kafka_bootstrap, prefix)


def good(first: int, count: int) -> list[bytes]:
    return [b"good:%d" % number for number in range(first, first + count)]


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("bad", "deaths"),
    [
        (b"raise:1", [70, 70, 70]),
        pytest.param(b"memory:1", [70, 70, 70], marks=pytest.mark.slow),
        pytest.param(b"depth:1", [70, 70, 70], marks=pytest.mark.slow),
        (b"kill:1", [KILLED] * 6),  # three whole batches, a part, twice alone
    ],
)
def test_one_record_that_ends_the_stage_is_set_aside(crashing: Crashing, bad: bytes, deaths: list[int]) -> None:
    crashing.fill([*good(0, 100), bad, *good(100, 100), b"end"])
    crashing.run(len(deaths) + 1)
    assert crashing.codes == [*deaths, 0], crashing.said[-2_000:]
    (letter,) = crashing.letters
    headers = dict(letter.headers)
    assert (letter.key, letter.value, headers["own"]) == (b"k100", bad, b"1")
    assert headers["__connect.errors.stage"] == b"quarantine"
    assert b"alone" in headers["__connect.errors.exception.message"]
    assert b"example" not in headers["__connect.errors.exception.message"]
    assert crashing.copied == [*good(0, 200), b"end"]
    crashing.fill([*good(200, 5), b"end"])
    crashing.run(1)
    assert crashing.codes[-1] == 0
    assert len(crashing.copied) == 207


@pytest.mark.kafka
def test_records_at_the_beginning_beside_each_other_and_at_the_end_are_set_aside(crashing: Crashing) -> None:
    bad = [b"raise:1", b"raise:2", b"memory:3", b"raise:4"]
    crashing.fill([*bad[:2], *good(0, 5), *bad[2:], *good(5, 90), b"end"])
    crashing.run(4)
    assert crashing.codes == [70, 70, 70, 0], crashing.said[-2_000:]
    assert [letter.value for letter in crashing.letters] == bad
    assert crashing.copied == [*good(0, 95), b"end"]


@pytest.mark.kafka
def test_a_stage_that_can_handle_nothing_sets_nothing_aside(crashing: Crashing) -> None:
    crashing.fill([b"raise:%d" % number for number in range(60)])
    crashing.run(5)
    assert crashing.codes == [70] * 5
    assert (crashing.letters, crashing.copied) == ([], [])


@pytest.mark.kafka
def test_a_record_that_takes_too_long_each_time_is_set_aside_and_an_outage_sets_none_aside(crashing: Crashing) -> None:
    """The stage asked Postgres the same for ever once, and nobody behind the record was served."""
    crashing.fill([*good(0, 5), b"slow:1", *good(5, 5), b"away:1", *good(10, 2), b"end"])
    crashing.run(1)
    assert crashing.codes == [0], crashing.said[-2_000:]
    (letter,) = crashing.letters
    assert letter.value == b"slow:1"
    assert b"time limit" in dict(letter.headers)["__connect.errors.exception.message"]
    assert crashing.copied == [*good(0, 10), b"away:1", *good(10, 2), b"end"]


@pytest.mark.kafka
def test_an_error_of_ours_is_no_fault_of_a_record(crashing: Crashing) -> None:
    crashing.fill([*good(0, 3), b"fatal:1", *good(3, 3), b"end"])
    crashing.run(6)
    assert crashing.codes == [70] * 6
    assert "a safety valve" in crashing.said
    assert (crashing.letters, crashing.copied) == ([], [])


def record(offset: int, topic: str = "t") -> Record:
    return Record(topic, 0, offset, b"k", b"v", 1)


def loop_with(mark: OffsetMark) -> CrashLoop:
    loop = CrashLoop("s", ["t"], 3, 100)
    loop.started({("t", 0): mark})
    return loop


def test_batches_that_take_too_long_in_a_row_and_then_a_record_alone_are_counted() -> None:
    loop = CrashLoop("s", ["t"], 3, 100)
    batch = [record(offset) for offset in range(5)]
    for _ in range(2):
        loop.retried(TooSlow("57014"), batch)
    loop.committed({("t", 0): 5})  # it was slow, and went on
    for _ in range(2):
        loop.retried(TooSlow("57014"), batch)
    for _ in range(9):
        loop.retried(Retry("away"), batch)
    before = loop.is_careful
    loop.retried(TooSlow("57014"), batch)
    assert (before, loop.is_careful) == (False, True)
    for _ in range(3):
        loop.retried(TooSlow("57014"), batch)  # of a part nobody knows which record it is
        loop.retried(TooSlow("57014"), [batch[3]])
    assert [loop.is_slow(each) for each in batch] == [False, False, False, True, False]
    never = CrashLoop("s", ["t"], 0, 100)
    for _ in range(9):
        never.retried(TooSlow("57014"), batch)
    assert not never.is_careful


def test_an_outage_while_a_record_is_handled_alone_is_not_its_fault() -> None:
    loop = loop_with(OffsetMark("id", starts=3))
    for _ in range(9):
        loop.trial([record(0)])
    assert not loop.is_suspect(record(0))
    next_process = loop_with(loop.trial([record(0)])["t", 0][1])
    next_process.trial([record(0)])
    assert next_process.is_suspect(record(0))


def test_starts_are_counted_until_the_stage_is_careful() -> None:
    mark = OffsetMark("id")
    for start in range(1, 4):
        loop = CrashLoop("s", ["t"], 3, 100)
        mark = read_mark(loop.started({("t", 0): mark})["t", 0].text())
        assert (mark.starts, loop.is_careful) == (start, False)
    assert loop_with(mark).is_careful
    never = CrashLoop("s", ["t"], 0, 100)
    assert never.started({("t", 0): mark}) == {}
    assert not never.is_careful


def test_a_process_that_ends_in_order_takes_its_start_back() -> None:
    loop = loop_with(OffsetMark("id", starts=2))
    assert loop.taken_back() == {("t", 0): OffsetMark("id")}
    loop.committed({("t", 0): 5})
    assert loop.taken_back() == {}


def test_what_a_killed_process_leaves_behind_leads_to_the_record() -> None:
    batch = [record(at) for at in range(10, 110)]
    loop = loop_with(OffsetMark(starts=3))
    part = loop.part(batch)
    assert len(part) == 64
    offset, mark = loop.trial(part)["t", 0]
    assert (offset, mark.alone_below) == (10, 74)

    loop = loop_with(read_mark(mark.text()))  # killed in the part
    assert loop.part(batch) == batch[:1]
    for attempt in (1, 2):
        assert not loop.is_suspect(batch[0])
        offset, mark = loop.trial(batch[:1])["t", 0]
        assert (mark.tried, mark.attempts) == (10, attempt)
        loop = loop_with(read_mark(mark.text()))  # killed alone
    assert loop.is_suspect(batch[0])
    loop.hold(batch[0], "killed", is_stored=False)
    offset, mark = loop.trial(batch[1:2])["t", 0]
    assert (offset, mark.suspects, mark.tried) == (10, (10,), 11)
    assert ([letter.stage for letter in loop.letters()], loop.held_offsets()) == (["quarantine"], {("t", 0): 11})
    loop.committed({("t", 0): 12})
    assert (loop.letters(), loop.held_offsets()) == ([], {})
    assert loop.mark_behind(("t", 0), 12, "id").alone_below == 74


def test_a_record_that_the_store_has_becomes_no_letter() -> None:
    loop = loop_with(OffsetMark(starts=3))
    loop.trial([record(4)])
    loop.hold(record(4), "ends behind its commit", is_stored=True)
    assert (loop.letters(), loop.held_offsets()) == ([], {("t", 0): 5})
    _, mark = loop.trial([record(5)])["t", 0]
    again = loop_with(read_mark(mark.text()))
    assert again.is_suspect(record(4))
    again.hold(record(4), "", is_stored=False)
    assert again.letters() == []


def test_many_records_are_not_set_aside() -> None:
    loop = loop_with(OffsetMark(starts=3))
    for at in range(MAX_SUSPECTS):
        loop.trial([record(at)])
        loop.hold(record(at), "ValueError", is_stored=False)
    with pytest.raises(Fatal, match="one after the other"):
        loop.hold(record(MAX_SUSPECTS), "ValueError", is_stored=False)
    assert loop.letters() == []


def test_carefulness_ends_after_its_records() -> None:
    loop = loop_with(OffsetMark(starts=3))
    careful = []
    for records in (99, 1):
        loop.handled(records)
        careful.append(loop.is_careful)
    assert careful == [True, False]
    assert loop.mark_behind(("t", 0), 100, "id") == OffsetMark("id")


def test_marks_fit_into_the_metadata_of_an_offset() -> None:
    most = tuple(range(2**62, 2**62 + MAX_SUSPECTS))
    mark = OffsetMark("x" * 22, 9, 10**6, 2**62, 2**62, 9, most, most)
    assert len(mark.text()) < 4_096
    assert read_mark(mark.text()) == mark
