"""Settling a group's offsets commits nothing, and clears what an earlier epoch of the same producer left pending."""

from __future__ import annotations

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from attributary.consumers.runtime.settings import KafkaSettings
from attributary.consumers.runtime.transaction import TransactionSession
from attributary.schemas.topics import COMMANDS

pytestmark = pytest.mark.kafka

GROUP = "tests.settle"


def test_a_settled_group_keeps_its_offsets_and_reads_them_as_stable(fresh_topics: str) -> None:
    kafka = KafkaSettings(KAFKA_BOOTSTRAP_SERVERS=fresh_topics)
    consumer = Consumer(
        {
            "bootstrap.servers": fresh_topics,
            "group.id": GROUP,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
        }
    )
    place = TopicPartition(COMMANDS, 0)
    try:
        consumer.commit(offsets=[TopicPartition(COMMANDS, 0, 7)], asynchronous=False)
        metadata = consumer.consumer_group_metadata()
        # An earlier epoch leaves an offset pending in an open transaction: the stable offset cannot be read.
        earlier = Producer({"bootstrap.servers": fresh_topics, "transactional.id": f"{GROUP}-0"})
        earlier.init_transactions(120)
        earlier.begin_transaction()
        earlier.send_offsets_to_transaction([TopicPartition(COMMANDS, 0, 99)], metadata, 120)
        with pytest.raises(KafkaException):
            consumer.committed([place], timeout=1.5)
        session = TransactionSession(kafka, f"{GROUP}-0", "tests")
        session.settle(TopicPartition(COMMANDS, 0, 0), metadata)
        assert consumer.committed([place], timeout=120)[0].offset == 7
        session.close()
        del earlier
    finally:
        consumer.close()
