"""Records a second of the publishing client, beside the bare library with bytes that were made before."""

from __future__ import annotations

import json
import sys
import time

from confluent_kafka import Producer

from attributary.producers.client import AttributaryProducer
from attributary.producers.config import ProducerConfig
from benchmarks.workload import BARE_PRODUCER, NAMES, draw, encode


def main() -> None:
    arguments = json.loads(sys.argv[1])
    bootstrap: str = arguments["bootstrap"]
    traffic = draw(arguments["scale"], seed=11)
    messages = encode(traffic)
    events = [(NAMES[event.topic], event.record) for event in traffic]

    producer = Producer({"bootstrap.servers": bootstrap, **BARE_PRODUCER})
    producer.list_topics(timeout=10)  # the connection is not what is measured
    began = time.perf_counter()
    for number, (topic, key, value) in enumerate(messages):
        producer.produce(topic, value, key)
        if number % 1_000 == 0:
            producer.poll(0)
    producer.flush(120)
    bare = time.perf_counter() - began
    producer.close()

    # The queue of the client is the library's own default of 100,000 records: publish waits when it is full.
    with AttributaryProducer(ProducerConfig(bootstrap=bootstrap, source="bench")) as client:
        began = time.perf_counter()
        for name, record in events:
            client.publish_mapping(name, record)
        client.flush(120)
        ours = time.perf_counter() - began
    sys.stdout.write(json.dumps({"records": len(events), "bare_seconds": bare, "client_seconds": ours}) + "\n")


if __name__ == "__main__":
    main()
