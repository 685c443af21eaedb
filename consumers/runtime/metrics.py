"""The one catalogue of metrics: every metric of every process, with its type, labels and a line of meaning.

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
_LATENCY = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0)


@dataclass(frozen=True, slots=True)
class MetricDefinition:
    """One metric as documentation and dashboards see it."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...]


CATALOGUE: list[MetricDefinition] = []


def _counter(name: str, help_: str, *labels: str) -> Counter:
    CATALOGUE.append(MetricDefinition(f"{name}_total", "counter", help_, labels))
    return Counter(name, help_, labels)


def _gauge(name: str, help_: str, *labels: str) -> Gauge:
    CATALOGUE.append(MetricDefinition(name, "gauge", help_, labels))
    return Gauge(name, help_, labels)


def _histogram(name: str, help_: str, *labels: str, buckets: Sequence[float] = _SECONDS) -> Histogram:
    CATALOGUE.append(MetricDefinition(name, "histogram", help_, labels))
    return Histogram(name, help_, labels, buckets=buckets)


@contextmanager
def timed(stage: str, step: str) -> Iterator[None]:
    """Measure one step of a batch into ``attribution_stage_seconds``; a step that raises is not measured."""
    started = time.perf_counter()
    yield
    stage_seconds.labels(stage, step).observe(time.perf_counter() - started)


# Process life
build_info = _gauge("attribution_build_info", "Always 1; the labels say what runs.", "service", "version")
records_consumed = _counter("attribution_records_consumed", "Records read, by topic.", "stage", "topic")
batches = _counter("attribution_batches", "Batches, by outcome: committed, rewound, retried.", "stage", "outcome")
batch_seconds = _histogram("attribution_processing_seconds", "Time from a batch's reading to its commit.", "stage")
stage_seconds = _histogram("attribution_stage_seconds", "Time of one step of a batch.", "stage", "step")
dead_letters = _counter("attribution_dlq_records", "Records sent to a dead-letter topic.", "stage", "topic", "step")
consumer_lag = _gauge(
    "attribution_consumer_lag_records", "Records between the position and the end of the partition.", "stage", "topic"
)
rebalances = _counter("attribution_rebalances", "Partition assignments and revocations.", "stage", "event")
paused = _gauge("attribution_paused", "1 while the stage waits for something outside that is away.", "stage")
producer_epochs = _counter("attribution_producer_epochs", "Transactional producers started anew on doubt.", "stage")
deadlocks = _counter("attribution_deadlocks", "Transactions that Postgres ended as a deadlock; each is tried again.")

# Stitcher
events = _counter(
    "attribution_events",
    "Events by kind and outcome: new, duplicate, replayed, conflict_kept, conflict_replaced.",
    "kind",
    "outcome",
)
versions_raised = _counter("attribution_versions_raised", "Conversion versions raised, by reason.", "reason")
identity_moves = _counter("attribution_identity_moves", "Anonymous ids that got another owner.")
late_touchpoints = _counter("attribution_touchpoints_too_late", "Touchpoints stored but too late for some conversion.")

# Attributor
results_emitted = _counter("attribution_results_emitted", "Results produced, by reason of their version.", "reason")
commands_skipped = _counter(
    "attribution_commands_skipped", "Commands not answered: repeated, stale, observed, published, unknown.", "why"
)
journeys_cut = _counter(
    "attribution_journeys_cut", "Results of the newest touchpoints only, because all would not fit into a record."
)
model_fallbacks = _counter("attribution_model_fallbacks", "Journeys answered by a fallback model.", "model", "fallback")
model_versions_unusable = _counter(
    "attribution_model_versions_unusable",
    "Trained versions in a model set that could not be built: all their journeys are answered by the fallback, and the "
    "log names tenant, version and reason. Counted when the set is loaded.",
    "model",
)
model_drift_channels = _gauge(
    "attribution_model_drift_channels",
    "Most channels that one tenant has drift in: their share in its newest version, which is not in force, differs by "
    "more than noise (10 % false findings) from the one in the version in force when a job trained it.",
    "model",
)
model_drift_tenants = _gauge(
    "attribution_model_drift_tenants",
    "Tenants with drift in at least one channel; the results of their newest training jobs name the channels.",
    "model",
)
end_to_end_seconds = _histogram(
    "attribution_end_to_end_latency_seconds",
    "From the log-append time of the event that raised a version to its result's production.",
    "reason",
    buckets=_LATENCY,
)

# Auditor
results_stored = _counter("attribution_results_stored", "Results stored, by outcome: new, repeated.", "outcome")
credit_imbalance = _counter("attribution_credit_imbalance", "Results whose credits do not sum to the net value.")
result_conflicts = _counter("attribution_result_conflicts", "Two results with one version and different content.")
versions_out_of_order = _counter("attribution_versions_out_of_order", "Results not above the version before.")

# Sweeper
unobserved_conversions = _gauge("attribution_unobserved_conversions", "Conversions whose newest version has no result.")
oldest_unobserved_seconds = _gauge("attribution_oldest_unobserved_seconds", "Age of the oldest of them.")
commands_repaired = _counter("attribution_commands_repaired", "Commands issued again by the sweeper.")
oldest_unread_input_seconds = _gauge(
    "attribution_oldest_unread_input_seconds",
    "Age of the oldest touchpoint, conversion or link that the stitcher has not stored; 0: none.",
)
finalising_held = _gauge(
    "attribution_finalising_held",
    "1 while nothing becomes final in time: input older than SWEEP_GRACE_SECONDS is unread, or Kafka does not say.",
)
conversions_finalised = _counter("attribution_conversions_finalised", "Conversions that became final.")
journeys_closed = _counter("attribution_journeys_closed", "Journeys closed by inactivity.")
versions_expired = _counter(
    "attribution_versions_expired", "Versions of results deleted after ATTRIBUTION_VERSIONS_KEPT_DAYS."
)

# Forwarder
forward_events = _counter(
    "attribution_forward_events",
    "Events by what became of them: sent, skipped, expired, rejected, uncertain, pending, duplicate, off.",
    "destination",
    "state",
)
forward_attempts = _counter(
    "attribution_forward_attempts",
    "Requests to a destination by answer: delivered, retry, ambiguous, throttled, channel_dead, rejected.",
    "destination",
    "outcome",
)
forward_request_seconds = _histogram(
    "attribution_forward_request_seconds", "Time of one request to a destination.", "destination"
)
forward_oldest_pending_seconds = _gauge(
    "attribution_forward_oldest_pending_seconds", "Age of the oldest event that waits for a destination.", "destination"
)
forward_channels_stopped = _gauge(
    "attribution_forward_channels_stopped",
    "Channels stopped by dead credentials; their events are kept.",
    "destination",
)
forward_usage_percent = _gauge(
    "attribution_forward_usage_percent",
    "Share of the destination's rate limit in use, by its own headers.",
    "destination",
)
forward_probe_findings = _counter(
    "attribution_forward_probe_findings", "Faults found by the destination's validation endpoint.", "destination"
)

# Trainer
jobs = _counter(
    "attribution_jobs",
    "Jobs by what became of them: succeeded, failed, cancelled, given_back, lost.",
    "kind",
    "outcome",
)
job_conflicts = _counter(
    "attribution_job_conflicts", "Jobs not stored, because another one of other kind or parameters has their id."
)
job_seconds = _histogram(
    "attribution_job_seconds", "Time that a job took.", "kind", buckets=(0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0)
)
training_changes_found = _counter(
    "attribution_training_changes_found", "People of new events noted for the training state that is kept up to date."
)
training_people = _counter(
    "attribution_training_people",
    "People looked at for that state, by what came of it: replaced (retracted and added), unchanged.",
    "outcome",
)

# Of all trainers, told by the sweeper from what Postgres holds: a trainer that is busy or off cannot tell.
waiting_jobs = _gauge("attribution_waiting_jobs", "Jobs stored and in nobody's hands.")
oldest_waiting_job_seconds = _gauge(
    "attribution_oldest_waiting_job_seconds", "Time since the oldest of them was stored; 0 without any."
)
running_jobs = _gauge("attribution_running_jobs", "Jobs in the hands of a worker.")
oldest_running_job_seconds = _gauge(
    "attribution_oldest_running_job_seconds", "Time since the first start of the oldest of them; 0 without any."
)
jobs_expired = _counter("attribution_jobs_expired", "Ended jobs deleted after ATTRIBUTION_JOBS_KEPT_DAYS.")
training_changes_pending = _gauge("attribution_training_changes_pending", "Noted people who are not yet looked at.")
training_lag_seconds = _gauge(
    "attribution_training_lag_seconds",
    "How old the training state that is kept up to date may be: age of the oldest of them, or of the last look for new "
    "events if that is longer; 0 while no such state was begun.",
)
