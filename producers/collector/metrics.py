"""What the collector counts. Labels have few values: an endpoint, a status, an outcome, a reason of a fixed set.

``METRICS`` lists every metric for the documentation; the ``metrics`` command shows them with those of the stages.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class CollectorMetric(NamedTuple):
    """One metric as the documentation sees it."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...]


METRICS: list[CollectorMetric] = []


def _counter(name: str, help_: str, *labels: str) -> Counter:
    METRICS.append(CollectorMetric(f"{name}_total", "counter", help_, labels))
    return Counter(name, help_, labels)


def _gauge(name: str, help_: str, *labels: str) -> Gauge:
    METRICS.append(CollectorMetric(name, "gauge", help_, labels))
    return Gauge(name, help_, labels)


def _histogram(name: str, help_: str, *labels: str) -> Histogram:
    METRICS.append(CollectorMetric(name, "histogram", help_, labels))
    return Histogram(name, help_, labels, buckets=_SECONDS)


requests = _counter(
    "attribution_collector_requests", "Requests answered, by endpoint and status.", "endpoint", "status"
)
request_seconds = _histogram(
    "attribution_collector_request_seconds", "Time from a request's headers to its answer.", "endpoint"
)
records = _counter(
    "attribution_collector_records",
    "Records by kind and outcome: accepted, spooled, rejected, retry, ignored (a page view inside a visit).",
    "kind",
    "outcome",
)
rejected = _counter(
    "attribution_collector_rejected",
    "Requests refused and records rejected, by reason: key, origin, rate, size, body, rule, busy, header, slow.",
    "reason",
)
robots = _counter("attribution_collector_robot_records", "Records marked as coming from a robot; kept, never credited.")
unseen = _counter(
    "attribution_collector_unseen",
    "Pixel and redirect calls that made no record, by reason: prefetch, key, rule, retry.",
    "reason",
)
ack_seconds = _histogram(
    "attribution_collector_ack_seconds", "Time from sending a request's records to the last acknowledgement."
)
inflight = _gauge("attribution_collector_requests_pending", "Requests that are being answered.")
connections = _gauge("attribution_collector_connections", "Open connections of the public listener.")
queue_messages = _gauge(
    "attribution_collector_producer_queue_messages", "Messages sent to the log, without an outcome yet."
)
log_away = _gauge("attribution_collector_log_paused", "1 while the log does not acknowledge and records are spooled.")
spool_bytes = _gauge("attribution_collector_spool_bytes", "Bytes in the spool.")
spool_limit_bytes = _gauge("attribution_collector_spool_limit_bytes", "Most bytes of the spool; 0: there is none.")
spool_oldest_seconds = _gauge(
    "attribution_collector_spool_oldest_seconds", "Age of the oldest record in the spool; 0: empty."
)
spool_records = _counter(
    "attribution_collector_spool_records",
    "Records of the spool by outcome: written, drained, refused (full or disk), corrupt, undeliverable.",
    "outcome",
)
keys_stale = _gauge(
    "attribution_collector_keys_stale", "1 while the file of keys cannot be used and older keys stay in force."
)
webhook_deliveries = _counter(
    "attribution_collector_webhook_deliveries",
    "Deliveries of webhooks by provider, source and outcome: accepted, spooled, retry, ignored (test data, other "
    "types), unmapped (signed, and no record could be made of it), refused (not signed), set_up.",
    "provider",
    "source",
    "outcome",
)
webhook_left_out = _counter(
    "attribution_collector_webhook_left_out",
    "Deliveries of webhooks, and parts of them, that are no record, by provider and reason.",
    "provider",
    "reason",
)
