"""The topics fixture leaves nothing of the test before."""

from __future__ import annotations

from confluent_kafka import Consumer, Producer, TopicPartition

from attributary.schemas.topics import TOUCHPOINTS
from tests.fixtures.topics import PARTITIONS, recreate_topics


def test_topics_are_empty_again_and_groups_forgotten(fresh_topics: str) -> None:
    producer = Producer({"bootstrap.servers": fresh_topics, "log_level": 0})
    producer.produce(TOUCHPOINTS, b"old", partition=0)
    assert producer.flush(120) == 0
    settings = {"bootstrap.servers": fresh_topics, "group.id": "attribution.test", "log_level": 0}
    consumer = Consumer(settings)
    consumer.commit(offsets=[TopicPartition(TOUCHPOINTS, 0, 1)], asynchronous=False)
    consumer.close()

    recreate_topics(fresh_topics)

    consumer = Consumer(settings)
    try:
        spots = [TopicPartition(TOUCHPOINTS, number) for number in range(PARTITIONS)]
        assert [spot.offset for spot in consumer.committed(spots, timeout=120)] == [-1001] * PARTITIONS
        assert [consumer.get_watermark_offsets(spot, timeout=120) for spot in spots] == [(0, 0)] * PARTITIONS
    finally:
        consumer.close()
