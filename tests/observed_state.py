"""What a run left behind, read from the outside: topics by a read_committed consumer, tables by SQL."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, cast

import psycopg
from confluent_kafka import Consumer, TopicPartition

from attributary.schemas.topics import (
    CONVERSIONS,
    ERASURE_REQUESTS,
    IDENTITIES,
    RESULTS,
    TOUCHPOINTS,
    dead_letter_topics,
)
from tests.expected_results import InputRecord, codec
from tests.invariants import Findings, ResultSeen, StoreSeen, check_invariants

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from confluent_kafka import Message

    from attributary.attribution_core.domain.lookback import LookbackPolicy
    from attributary.attribution_core.models.model_set import ModelSet
    from tests.invariants import Place

INPUTS = (TOUCHPOINTS, CONVERSIONS, IDENTITIES, ERASURE_REQUESTS)
_PATIENCE_SECONDS = 180.0
_EVENTS = {
    "touchpoint": "attribution_touchpoints",
    "conversion": "attribution_conversion_events",
    "identity_link": "attribution_identity_links",
}
_WITHOUT_ROW = """
SELECT tenant_id, 'a:' || anonymous_id FROM attribution_identities
UNION SELECT tenant_id, 'u:' || user_id FROM attribution_identities
UNION SELECT tenant_id, journey_key FROM attribution_conversions WHERE journey_key <> ''
EXCEPT SELECT tenant_id, journey_key FROM attribution_journeys
"""


class DeadLetterSeen(NamedTuple):
    """A dead letter with the coordinates of its original record."""

    place: Place
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]

    @property
    def reason(self) -> str:
        return self.headers["__connect.errors.exception.message"].decode()


def read_topics(bootstrap: str, topics: Iterable[str]) -> Iterator[Message]:
    """All committed records of some topics up to their ends, partition by partition in order."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "tests.reader",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    try:
        listed = consumer.list_topics(timeout=120).topics
        places = [TopicPartition(topic, number, 0) for topic in topics for number in listed[topic].partitions]
        # The ends are known before the first record is read: what comes later is not waited for.
        left = {}
        for place in places:
            low, high = consumer.get_watermark_offsets(place, timeout=120)
            place.offset = low
            if high > low:
                left[place.topic, place.partition] = high
        consumer.assign(places)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while left:
            assert time.monotonic() < deadline, f"not read to the end: {left}"
            for message in consumer.consume(1_000, 0.2):
                place_of = (message.topic() or "", message.partition() or 0)
                error = message.error()
                if error is None:
                    yield message
                elif error.name() == "_PARTITION_EOF":  # also past control records, where no message comes
                    left.pop(place_of, None)
                else:
                    raise AssertionError(str(error))
    finally:
        consumer.close()


def read_inputs(bootstrap: str) -> list[InputRecord]:
    """Every record of the input topics."""
    return [
        InputRecord(
            message.topic() or "", message.partition() or 0, message.offset() or 0, message.timestamp()[1],
            message.value(),
        )
        for message in read_topics(bootstrap, INPUTS)
    ]  # fmt: skip


def read_dead_letters(bootstrap: str) -> list[DeadLetterSeen]:
    """Every dead letter of the stitcher's input topics."""
    found = []
    topics = [topic.name for topic in dead_letter_topics() if ".attribution.stitcher." in topic.name]
    for message in read_topics(bootstrap, topics):
        pairs = cast("list[tuple[str, bytes]]", message.headers() or [])
        headers = dict(pairs)
        place = (
            headers["__connect.errors.topic"].decode(),
            int(headers["__connect.errors.partition"]),
            int(headers["__connect.errors.offset"]),
        )
        found.append(DeadLetterSeen(place, message.key(), message.value(), headers))
    return found


def read_results(bootstrap: str) -> list[ResultSeen]:
    """The results topic as a read_committed subscriber sees it."""
    return [
        ResultSeen(
            message.partition() or 0, message.offset() or 0, message.key() or b"",
            {} if message.value() is None else codec().decode("result", message.value()),
        )
        for message in read_topics(bootstrap, [RESULTS])
    ]  # fmt: skip


def read_store(dsn: str) -> StoreSeen:
    """What stands in Postgres."""
    seen = StoreSeen()
    with psycopg.connect(dsn) as connection:
        for name, table in _EVENTS.items():
            rows = connection.execute(
                f"SELECT tenant_id, event_id, source_topic, source_partition, source_offset FROM {table}"
            )
            seen.events[name] = {(row[0], row[1]): (row[2], row[3], row[4]) for row in rows}
            seen.conflicts |= {
                (name, (row[0], row[1]), row[2])
                for row in connection.execute(
                    "SELECT c.tenant_id, c.event_id, c.content_hash FROM attribution_event_conflicts c "
                    f"LEFT JOIN {table} t USING (tenant_id, event_id) "
                    "WHERE c.record_name = %s AND c.content_hash IS DISTINCT FROM t.content_hash",
                    (name,),
                )
            }
        for row in connection.execute(
            "SELECT tenant_id, conversion_id, version, observed_version, journey_key, net_value_micros "
            "FROM attribution_conversions"
        ):
            seen.versions[row[0], row[1]] = (row[2], row[3], row[4], row[5])
        for row in connection.execute(
            "SELECT tenant_id, conversion_id, version, content_hash FROM attribution_results"
        ):
            seen.results[row[0], row[1], row[2]] = row[3]
        for row in connection.execute(
            "SELECT tenant_id, currency, sum(net_micros)::int8 FROM attribution_removed_totals "
            "WHERE bucket = '(erased)' GROUP BY 1, 2 HAVING sum(net_micros) <> 0"
        ):
            seen.erased_micros[row[0], row[1]] = row[2]
        for row in connection.execute("SELECT tenant_id, request_id, state FROM attribution_erasure_requests"):
            seen.requests[row[0], row[1]] = row[2]
        seen.without_row = {(row[0], row[1]) for row in connection.execute(_WITHOUT_ROW)}
    return seen


def check_run(
    bootstrap: str,
    dsn: str,
    *,
    acknowledged: Iterable[Place] = (),
    policy: LookbackPolicy | None = None,
    models: ModelSet | None = None,
    repeats_allowed: bool = False,
) -> Findings:
    """Read everything and check all promises; see `check_invariants`."""
    return check_invariants(
        read_inputs(bootstrap),
        read_store(dsn),
        [letter.place for letter in read_dead_letters(bootstrap)],
        read_results(bootstrap),
        acknowledged=acknowledged,
        policy=policy,
        models=models,
        repeats_allowed=repeats_allowed,
    )
