"""The catalogue of metrics, and those that every process has. A stage registers its own in its ``metrics.py``.

Invariant: labels have few values (a topic, a stage, a reason of a fixed set); never an id, a URL or personal data.
Dashboards, alerts and ``docs/reference/metrics.md`` are generated from or checked against ``CATALOGUE``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
LATENCY_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0)


@dataclass(frozen=True, slots=True)
class MetricDefinition:
    """One metric as documentation and dashboards see it."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...]


CATALOGUE: list[MetricDefinition] = []


def counter(name: str, help_: str, *labels: str) -> Counter:
    """Register a counter; ``_total`` is added to its name.

    Args:
        name: in Prometheus.
        help_: one line of meaning.
        labels: names of its labels.
    """
    CATALOGUE.append(MetricDefinition(f"{name}_total", "counter", help_, labels))
    return Counter(name, help_, labels)


def gauge(name: str, help_: str, *labels: str) -> Gauge:
    """Register a gauge.

    Args:
        name: in Prometheus.
        help_: one line of meaning.
        labels: names of its labels.
    """
    CATALOGUE.append(MetricDefinition(name, "gauge", help_, labels))
    return Gauge(name, help_, labels)


def histogram(name: str, help_: str, *labels: str, buckets: Sequence[float] = _SECONDS) -> Histogram:
    """Register a histogram.

    Args:
        name: in Prometheus.
        help_: one line of meaning.
        labels: names of its labels.
        buckets: upper bounds, seconds.
    """
    CATALOGUE.append(MetricDefinition(name, "histogram", help_, labels))
    return Histogram(name, help_, labels, buckets=buckets)


@contextmanager
def timed(stage: str, step: str) -> Iterator[None]:
    """Measure one step of a batch into ``attribution_stage_seconds``; a step that raises is not measured."""
    started = time.perf_counter()
    yield
    stage_seconds.labels(stage, step).observe(time.perf_counter() - started)


# Process life
build_info = gauge("attribution_build_info", "Always 1; the labels say what runs.", "service", "version")
certificate_left_seconds = gauge(
    "attribution_certificate_left_seconds",
    "Time until a certificate ends that a setting names; below 0: it has ended. Of authorities the last one to end.",
    "used_for",
    "holds",
)
records_consumed = counter("attribution_records_consumed", "Records read, by topic.", "stage", "topic")
batches = counter(
    "attribution_batches",
    "Batches, by outcome: committed, rewound, retried; cut: too costly at once, committed in parts.",
    "stage",
    "outcome",
)
batch_seconds = histogram("attribution_processing_seconds", "Time from a batch's reading to its commit.", "stage")
stage_seconds = histogram("attribution_stage_seconds", "Time of one step of a batch.", "stage", "step")
dead_letters = counter("attribution_dlq_records", "Records sent to a dead-letter topic.", "stage", "topic", "step")
consumer_lag = gauge(
    "attribution_consumer_lag_records", "Records between the position and the end of the partition.", "stage", "topic"
)
retention_seconds = gauge(
    "attribution_retention_seconds", "How long the topic keeps records, by its settings.", "stage", "topic"
)
retention_left = gauge(
    "attribution_retention_left_seconds", "Time until the oldest record that the stage has not read is removed.",
    "stage", "topic",
)  # fmt: skip
letters_near_end = gauge(
    "attribution_dlq_near_end_records", "Dead letters that the topic removes within 3 days.", "stage", "topic"
)
rebalances = counter("attribution_rebalances", "Partition assignments and revocations.", "stage", "event")
paused = gauge("attribution_paused", "1 while the stage waits for something outside that is away.", "stage")
producer_epochs = counter("attribution_producer_epochs", "Transactional producers started anew on doubt.", "stage")
kafka_refusals = counter(
    "attribution_kafka_refusals",
    "Refusals between the brokers and this process: authorization (a right is missing), authentication (user, password "
    "or token), tls (a certificate).",
    "stage",
    "kind",
)
deadlocks = counter("attribution_deadlocks", "Transactions that Postgres ended as a deadlock; each is tried again.")
unreadable_batches = counter(
    "attribution_unreadable_batches", "Batches of the log that cannot be unpacked; their partition is held.",
    "stage", "topic",
)  # fmt: skip
quarantined = counter(
    "attribution_quarantined_records", "Records at which the process ended again and again, set aside.",
    "stage", "topic",
)  # fmt: skip
quarantine_held = gauge(
    "attribution_quarantine_held", "Records at which the stage ends, held until it handles another one.", "stage"
)
partitions_held = gauge(
    "attribution_held_partitions", "Partitions that are held, because a batch cannot be unpacked.", "stage"
)
stalled_seconds = gauge(
    "attribution_stalled_seconds", "Time since the loop last turned, told by another thread than the loop's.", "stage"
)
