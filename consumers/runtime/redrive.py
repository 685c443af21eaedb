"""Dead letters, read back and sent again as they were.

Invariant: a letter is sent to the topic that it came from, with its original key, bytes and headers, plus how often it
has failed and which letter it is. One that was sent again and failed again stands in the dead-letter topic anew, with a
higher count; the old one is then superseded and never sent a second time. A letter that somebody closed is superseded
by a record that holds the reason alone. Nothing is removed: retention does that, of a letter before what supersedes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from .dead_letters import ATTEMPTS_HEADER, CLOSED_HEADER, CUT_HEADER, MAX_LETTER_BYTES, REDRIVEN_HEADER
from .errors import EXIT_DEPENDENCY_DOWN, Fatal
from .records import Headers, Record
from .settings import KafkaSettings
from .topic_reader import read_topic

_CONNECT = "__connect.errors."
_OURS = frozenset({ATTEMPTS_HEADER, REDRIVEN_HEADER, "attribution-field", "attribution-timestamp-ms"})
_FLUSH_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter: where it stands, where its record came from, and why it was given up."""

    place: str
    topic: str
    partition: int
    offset: int
    group: str
    stage: str
    field: str
    reason: str
    attempts: int
    failed_at_ms: int
    supersedes: str
    closed: str
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def origin(self) -> str:
        """Where the record stood: ``topic[partition]@offset``."""
        return f"{self.topic}[{self.partition}]@{self.offset}"


def letter_of(record: Record) -> Letter:
    """Read a record of a dead-letter topic."""
    facts = {name: value.decode("utf-8", "replace") for name, value in record.headers}
    return Letter(
        place=record.place,
        topic=facts.get(f"{_CONNECT}topic", ""),
        partition=_number(facts.get(f"{_CONNECT}partition")),
        offset=_number(facts.get(f"{_CONNECT}offset")),
        group=facts.get(f"{_CONNECT}connector.name", ""),
        stage=facts.get(f"{_CONNECT}stage", ""),
        field=facts.get("attribution-field", ""),
        reason=facts.get(f"{_CONNECT}exception.message", ""),
        attempts=_number(facts.get(ATTEMPTS_HEADER)) or 1,
        failed_at_ms=record.timestamp_ms,
        supersedes=facts.get(REDRIVEN_HEADER, ""),
        closed=facts.get(CLOSED_HEADER, ""),
        key=record.key,
        value=record.value,
        headers=[(name, value) for name, value in record.headers if name not in _OURS and _CONNECT not in name],
    )


def read_letters(kafka: KafkaSettings, topics: Iterable[str], since_ms: int | None = 0) -> list[Letter]:
    """Return the letters of some dead-letter topics that no later letter supersedes, the oldest first.

    Args:
        kafka: how to reach the brokers.
        topics: dead-letter topics.
        since_ms: letters written since, milliseconds since 1970-01-01 UTC.

    Raises:
        Fatal: a topic is not there, or Kafka does not answer.
    """
    found = [
        letter_of(record) for topic in topics for record in read_topic(kafka, topic, since_ms=since_ms, until_end=True)
    ]
    superseded = {letter.supersedes for letter in found}
    return sorted(
        (letter for letter in found if letter.place not in superseded and not letter.closed),
        key=lambda letter: letter.failed_at_ms,
    )


def close(kafka: KafkaSettings, letters: Iterable[Letter], reason: str) -> int:
    """Close letters: they are listed and sent again no more; returns how many were acknowledged.

    Args:
        kafka: how to reach the brokers.
        letters: which.
        reason: why, for people who look at the topic later; no personal data.

    Raises:
        Fatal: a record was refused or not acknowledged; those before it are closed.
    """
    failures: list[str] = []
    done: list[Letter] = []

    def closed(letter: Letter) -> Callable[[KafkaError | None, Any], None]:
        def on_delivery(error: KafkaError | None, _message: Any) -> None:
            if error is None:
                done.append(letter)
            else:
                failures.append(f"{letter.place}: {error.name()}")

        return on_delivery

    producer = Producer(kafka.client_config() | {"acks": "all", "enable.idempotence": True})
    try:
        for letter in letters:
            topic, _, rest = letter.place.rpartition("[")
            headers: list[tuple[str, str | bytes | None]] = [
                (REDRIVEN_HEADER, letter.place.encode()),
                (CLOSED_HEADER, reason.encode()),
            ]
            producer.produce(
                topic, None, None, partition=_number(rest.partition("]")[0]), headers=headers,
                on_delivery=closed(letter),
            )  # fmt: skip
            producer.poll(0)
        left = producer.flush(_FLUSH_SECONDS)
    except KafkaException as error:
        raise Fatal(f"Kafka does not take it: {error}", EXIT_DEPENDENCY_DOWN) from None
    if left or failures:
        raise Fatal(f"{left + len(failures)} were not closed; {''.join(failures[:1])}", EXIT_DEPENDENCY_DOWN)
    return len(done)


def redrive(kafka: KafkaSettings, letters: Iterable[Letter], sent: Callable[[Letter], None]) -> int:
    """Send letters to the topics that they came from; returns how many were acknowledged.

    Args:
        kafka: how to reach the brokers.
        letters: which; each must name its topic.
        sent: called for each that was acknowledged.

    Raises:
        Fatal: a record was refused or not acknowledged; those before it may have been sent.
    """
    failures: list[str] = []
    done: list[Letter] = []

    def delivered(letter: Letter) -> Callable[[KafkaError | None, Any], None]:
        def on_delivery(error: KafkaError | None, _message: Any) -> None:
            if error is None:
                done.append(letter)
                sent(letter)
            else:
                failures.append(f"{letter.place}: {error.name()}")

        return on_delivery

    config = {"acks": "all", "enable.idempotence": True, "partitioner": "murmur2_random"}
    producer = Producer({"message.max.bytes": MAX_LETTER_BYTES} | kafka.client_config() | config)
    try:
        for letter in letters:
            if any(name == CUT_HEADER for name, _ in letter.headers):
                failures.append(f"{letter.place}: holds the beginning of its record only; publish the record anew")
                continue
            _produce(producer, letter, delivered(letter))
            producer.poll(0)
        left = producer.flush(_FLUSH_SECONDS)
    except KafkaException as error:
        raise Fatal(f"Kafka does not take the letters: {error}", EXIT_DEPENDENCY_DOWN) from None
    if left or failures:
        raise Fatal(
            f"{left + len(failures)} letters were not acknowledged; {''.join(failures[:1])}", EXIT_DEPENDENCY_DOWN
        )
    return len(done)


def _produce(producer: Producer, letter: Letter, on_delivery: Callable[[KafkaError | None, Any], None]) -> None:
    while True:
        try:
            producer.produce(letter.topic, letter.value, letter.key, headers=_headers(letter), on_delivery=on_delivery)
        except BufferError:  # the local queue is full: let it drain; what Kafka never takes fails by its timeout
            producer.poll(0.1)
        else:
            return


def _headers(letter: Letter) -> list[tuple[str, str | bytes | None]]:
    ours = [(ATTEMPTS_HEADER, str(letter.attempts).encode()), (REDRIVEN_HEADER, letter.place.encode())]
    return [*letter.headers, *ours]


def matching(
    letters: Iterable[Letter], *, stage: str | None = None, text: str | None = None, most_attempts: int | None = None
) -> Iterator[Letter]:
    """Keep letters by the stage that gave up, a text in reason, field or origin, and the number of attempts."""
    for letter in letters:
        wanted = text is None or text in f"{letter.reason} {letter.field} {letter.origin}"
        tried = most_attempts is not None and letter.attempts >= most_attempts
        if wanted and not tried and stage in (None, letter.stage):
            yield letter


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdigit() else 0
