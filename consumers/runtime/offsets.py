"""Where a partition starts: the smaller of what the stage's store and what Kafka holds.

Invariants: reading never starts past an offset that either side has not confirmed; a group without any stored offset
starts only where the operator said (``ATTRIBUTION_FIRST_START``), and that place is committed to Kafka before the
first record is read, so that a crash in the first batch finds it again. A store that is ahead of the end of the log
means that the log lost records or another cluster answers: stop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from confluent_kafka import Consumer, KafkaException, TopicPartition

from .errors import ConfigError, Fatal
from .offset_marks import OffsetMark

_TIMEOUT = 20.0


def starting_offsets(
    consumer: Consumer,
    partitions: Iterable[TopicPartition],
    stored: Mapping[tuple[str, int], int],
    first_start: str | None,
    is_anew: Callable[[TopicPartition], bool] = lambda _committed: False,
    topic_ids: Mapping[str, str] | None = None,
) -> list[TopicPartition]:
    """Return the partitions with the offsets to start from.

    Args:
        consumer: a subscribed consumer, to ask the brokers.
        partitions: newly assigned.
        stored: next offsets by (topic, partition) that the stage's store holds.
        first_start: earliest or latest, for partitions without any stored offset.
        is_anew: tells, by the committed offset of a partition, whether it starts at its beginning because its topic
            was made anew; raises where that must be decided by a person.
        topic_ids: Kafka's ids by topic, written beside the offsets that are committed here.

    Raises:
        ConfigError: no offset is stored and ``ATTRIBUTION_FIRST_START`` is not set.
        Fatal: the store is ahead of the end of the log, or records were removed from the log before they were read.
        KafkaException: the brokers do not answer, or not for every partition.
    """
    partitions = list(partitions)
    if not partitions:
        return []
    starts: list[TopicPartition] = []
    fresh: list[TopicPartition] = []
    for committed in consumer.committed(partitions, timeout=_TIMEOUT):
        if committed.error is not None:  # not known is not the same as not stored
            raise KafkaException(committed.error)
        where = (committed.topic, committed.partition)
        low, high = consumer.get_watermark_offsets(TopicPartition(*where), timeout=_TIMEOUT)
        if is_anew(committed):
            starts.append(TopicPartition(*where, low))
            fresh.append(starts[-1])
            continue
        ours = stored.get(where)
        if ours is not None and ours > high:
            raise Fatal(
                f"{where[0]}[{where[1]}]: Postgres has read up to {ours}, but the log ends at {high}. Either this is "
                "another Kafka cluster, or the log lost records. Point KAFKA_BOOTSTRAP_SERVERS to the right cluster, "
                "or, after you have settled what was lost, run `attributary positions forget` and start again."
            )
        known = [offset for offset in (ours, committed.offset) if offset is not None and offset >= 0]
        if known:
            start = min(known)
            if start < low:
                raise Fatal(
                    f"{where[0]}[{where[1]}]: the next record to read is {start}, but the log begins at {low}: records "
                    "were removed before they were read. Raise the topic's retention. To go on without them, stop the "
                    "group, run `attributary positions forget` and reset its offsets in Kafka (kafka-consumer-groups "
                    "--reset-offsets)."
                )
            starts.append(TopicPartition(*where, start))
        elif first_start is None:
            raise ConfigError(
                "ATTRIBUTION_FIRST_START",
                f"must be set to earliest or latest: the group has no stored offset for {where[0]}[{where[1]}]",
            )
        else:
            place = TopicPartition(*where, low if first_start == "earliest" else high)
            starts.append(place)
            fresh.append(place)
    if fresh:
        marks = {topic: OffsetMark(topic_id).text() for topic, topic_id in (topic_ids or {}).items()}
        marked = [TopicPartition(each.topic, each.partition, each.offset, marks.get(each.topic, "")) for each in fresh]
        consumer.commit(offsets=marked, asynchronous=False)
    return starts
