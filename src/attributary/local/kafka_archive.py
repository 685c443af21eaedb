"""An archive of the classes that a Kafka node loads, which the JVM maps instead of reading 70 jars: half of its start.

Contract: ``archive_file`` names the file for a Java and a folder of jars, whether it is there or not; `Runtime` uses it
when it is. ``make_archive`` makes it once, by a node that starts, does a bit of everything and stops: some five seconds
of a core, and 50 MB beside the jars. Tests make it, because they start dozens of nodes. One that does not fit (another
Java in the same place) is ignored by the JVM.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from attributary.local.kafka_jars import KafkaCluster, free_node_ports
from attributary.local.kafka_maven import fetch_jars, java
from attributary.local.kafka_node import KafkaNode, Runtime, archive_file
from attributary.local.process import ProcessFailedError

_TOPIC = "archive"
_SECONDS = 120.0


def make_archive() -> Path:
    """Return the archive for this machine's Java and Kafka's jars; the first call makes it.

    Raises:
        ProcessFailedError: there is no Java or Maven, or the node did not write it.
    """
    program, jars = java(), fetch_jars()
    archive = archive_file(program, jars)
    if archive.is_file():
        return archive
    with tempfile.TemporaryDirectory(prefix="archive-", dir=archive.parent) as scratch:
        written = Path(scratch) / "classes.jsa"
        runtime = Runtime(program, jars, heap_megabytes=384, options=(f"-XX:ArchiveClassesAtExit={written}",))
        node = KafkaNode(1, free_node_ports(1)[0], Path(scratch) / "node", runtime)
        cluster = KafkaCluster([node], Path(scratch), short_sessions=True)
        cluster.start()
        try:
            _use(cluster.bootstrap)
            node.stop(_SECONDS)
        finally:
            cluster.kill()
        if not written.is_file():
            raise ProcessFailedError(f"Java wrote no archive of classes. It said:\n{node.child.log_tail()}")
        written.rename(archive)
    return archive


def _use(bootstrap: str) -> None:
    """Let a node do what stages ask of it, so that it loads their classes: a topic, a transaction, a group."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    admin.create_topics([NewTopic(_TOPIC, 1)])[_TOPIC].result(_SECONDS)
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": _TOPIC, "log_level": 0})
    producer.init_transactions(_SECONDS)
    producer.begin_transaction()
    producer.produce(_TOPIC, b"")
    producer.commit_transaction(_SECONDS)
    reader = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": _TOPIC,
            "group.protocol": "consumer",
            "auto.offset.reset": "earliest",
            "log_level": 0,
        }
    )
    try:
        reader.subscribe([_TOPIC])
        if reader.poll(_SECONDS) is not None:
            reader.commit(asynchronous=False)
    finally:
        reader.close()
    admin.delete_topics([_TOPIC])[_TOPIC].result(_SECONDS)
