"""Conversion published -> result readable: one publisher at a steady rate, one read_committed subscriber.

A latency runs from the moment before `publish_mapping` is called with the conversion to the moment at which the
subscriber's `consume` has returned its first result. Both clocks are this process's own. The publishing client's linger
(20 ms) is part of it.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import numpy as np
from confluent_kafka import Consumer, TopicPartition

from attributary.producers.client import AttributaryProducer
from attributary.producers.config import ProducerConfig
from attributary.producers.simulator import pace
from attributary.schemas.codec import Codec
from attributary.schemas.topics import CONVERSIONS, RESULTS
from benchmarks.workload import NAMES, draw

_SETTLE_SECONDS = 10.0
# The simulator makes so many events of one touchpoint: conversions, corrections, links and duplicates come on top.
_EVENTS_PER_TOUCHPOINT = 1.2
_WORKLOAD_TOUCHPOINTS = 200_000


class Subscriber(threading.Thread):
    """Notes when the first result of each conversion could be read."""

    def __init__(self, bootstrap: str) -> None:
        super().__init__(daemon=True)
        self.read_at: dict[tuple[str, str], float] = {}
        self.done = threading.Event()
        self._codec = Codec()
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "bench.latency",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 50,
            }
        )
        partitions = self._consumer.list_topics(RESULTS, timeout=10).topics[RESULTS].partitions
        ends = []
        for partition in partitions:
            _, end = self._consumer.get_watermark_offsets(TopicPartition(RESULTS, partition), timeout=10)
            ends.append(TopicPartition(RESULTS, partition, end))
        self._consumer.assign(ends)

    def run(self) -> None:
        while not self.done.is_set():
            messages = self._consumer.consume(500, 0.005)
            now = time.perf_counter()
            for message in messages:
                if message.error() is None:
                    result = self._codec.decode("result", message.value())
                    self.read_at.setdefault((result["tenant_id"], result["conversion_id"]), now)
        self._consumer.close()


def publish(bootstrap: str, rate: float, seconds: float) -> tuple[dict[tuple[str, str], float], float]:
    """Publish live traffic; returns when each conversion was published, and the rate that was reached."""
    touchpoints = rate * seconds / _EVENTS_PER_TOUCHPOINT
    traffic = draw(touchpoints / _WORKLOAD_TOUCHPOINTS, seed=23)
    published_at: dict[tuple[str, str], float] = {}
    with AttributaryProducer(ProducerConfig(bootstrap=bootstrap, source="bench")) as producer:
        began = time.perf_counter()
        for event in pace(traffic, rate):
            record = event.record
            if event.topic == CONVERSIONS and record["kind"] == "conversion":
                published_at.setdefault((record["tenant_id"], record["event_id"]), time.perf_counter())
            producer.publish_mapping(NAMES[event.topic], record)
        elapsed = time.perf_counter() - began
    return published_at, len(traffic) / elapsed


def main() -> None:
    arguments: dict[str, Any] = json.loads(sys.argv[1])
    subscriber = Subscriber(arguments["bootstrap"])
    subscriber.start()
    published_at, rate = publish(arguments["bootstrap"], arguments["rate"], arguments["seconds"])
    deadline = time.monotonic() + _SETTLE_SECONDS
    while published_at.keys() - subscriber.read_at.keys() and time.monotonic() < deadline:
        time.sleep(0.1)
    subscriber.done.set()
    subscriber.join()
    waits = [1_000 * (subscriber.read_at[key] - at) for key, at in published_at.items() if key in subscriber.read_at]
    percentiles = np.percentile(waits, [50, 95, 99, 100]).tolist() if waits else []
    answer = {
        "conversions": len(published_at),
        "answered": len(waits),
        "events_per_second": rate,
        **dict(zip(("p50_ms", "p95_ms", "p99_ms", "max_ms"), percentiles, strict=False)),
    }
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
