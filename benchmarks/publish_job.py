"""Records a second of the publishing client, beside the bare library twice.

- ``bare``: the library alone with bytes that were made before, without headers and reports. It is the yardstick, and no
  client that makes the bytes can reach it.
- ``by hand``: what a service writes without the client: Avro by fastavro, the same headers, a report of each delivery;
  nothing is checked, no user data hashed.

The three take turns, so that other work on the machine meets all of them; CPU time is this process's own.
"""

from __future__ import annotations

import json
import sys
import time
from io import BytesIO
from typing import TYPE_CHECKING, Any

from confluent_kafka import Producer
from fastavro import schemaless_writer

from attributary.producers.client import AttributaryProducer
from attributary.producers.config import ProducerConfig
from attributary.producers.times import to_rfc3339
from attributary.schemas.schema_catalog import current_schemas
from benchmarks.workload import BARE_PRODUCER, NAMES, Message, draw, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_ROUNDS = 3


def main() -> None:
    arguments = json.loads(sys.argv[1])
    bootstrap: str = arguments["bootstrap"]
    traffic = draw(arguments["scale"], seed=11)
    messages = encode(traffic)
    events = [(NAMES[event.topic], event.record) for event in traffic]
    by_hand = [(topic, key, name, record) for (topic, key, _), (name, record) in zip(messages, events, strict=True)]
    jobs: dict[str, Callable[[], tuple[float, float]]] = {
        "bare": lambda: _bare(bootstrap, messages),
        "hand": lambda: _by_hand(bootstrap, by_hand),
        "client": lambda: _client(bootstrap, events),
    }
    spent = dict.fromkeys((f"{name}_{unit}" for name in jobs for unit in ("seconds", "cpu_seconds")), 0.0)
    for _ in range(_ROUNDS):
        for name, job in jobs.items():
            wall, cpu = job()
            spent[f"{name}_seconds"] += wall
            spent[f"{name}_cpu_seconds"] += cpu
    sys.stdout.write(json.dumps({"records": _ROUNDS * len(events), **spent}) + "\n")


def _bare(bootstrap: str, messages: Sequence[Message]) -> tuple[float, float]:
    producer = _connected(bootstrap)
    began, cpu = time.perf_counter(), time.process_time()
    for number, (topic, key, value) in enumerate(messages):
        producer.produce(topic, value, key)
        if number % 1_000 == 0:
            producer.poll(0)
    producer.flush(120)
    spent = time.perf_counter() - began, time.process_time() - cpu
    producer.close()
    return spent


def _by_hand(bootstrap: str, records: Sequence[tuple[str, bytes, str, dict[str, Any]]]) -> tuple[float, float]:
    producer = _connected(bootstrap)
    schemas = {name: schema.runtime for name, schema in current_schemas().items()}
    failed = []

    def on_delivery(error: object | None, message: object) -> None:
        if error is not None:
            failed.append(message)

    began, cpu = time.perf_counter(), time.process_time()
    for topic, key, name, record in records:
        body = BytesIO()
        schemaless_writer(body, schemas[name], record)
        headers = [
            ("content-type", b"application/avro"),
            ("ce_specversion", b"1.0"),
            ("ce_type", f"attributary.{name}.v1".encode()),
            ("ce_source", b"bench"),
            ("ce_id", record["event_id"].encode()),
            ("ce_time", to_rfc3339(record.get("occurred_at") or record["linked_at"]).encode()),
        ]
        producer.produce(topic, body.getvalue(), key, headers=headers, on_delivery=on_delivery)
        producer.poll(0)
    producer.flush(120)
    spent = time.perf_counter() - began, time.process_time() - cpu
    producer.close()
    return spent


def _client(bootstrap: str, events: Sequence[tuple[str, dict[str, Any]]]) -> tuple[float, float]:
    # The queue of the client is the library's own default of 100,000 records: publish waits when it is full.
    with AttributaryProducer(ProducerConfig(bootstrap=bootstrap, source="bench")) as client:
        began, cpu = time.perf_counter(), time.process_time()
        for name, record in events:
            client.publish_mapping(name, record)
        client.flush(120)
        return time.perf_counter() - began, time.process_time() - cpu


def _connected(bootstrap: str) -> Producer:
    producer = Producer({"bootstrap.servers": bootstrap, **BARE_PRODUCER})
    producer.list_topics(timeout=10)  # the connection is not what is measured
    return producer


if __name__ == "__main__":
    main()
