"""How a stage's consumer is set up; no setting of the operator weakens it.

Topics that are read together keep their partition numbers together: a person's events have one number in all of them,
because the topics have the same number of partitions and the same key. The assignor ``range`` deals them out so. The
others look only at how many partitions a member has: two members then share touchpoints and conversions by topic, so
one does most of the work, and conversions run ahead of their touchpoints and are attributed again and again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .stage import ReadsInBulk

if TYPE_CHECKING:
    from .settings import KafkaSettings, ProcessSettings
    from .stage import Stage


def is_eager(kafka: KafkaSettings, stage: Stage) -> bool:
    """Whether each rebalance takes all partitions back and deals them out anew, as the classic `range` does."""
    return kafka.group_protocol == "classic" and len(stage.topics) > 1


def consumer_config(kafka: KafkaSettings, stage: Stage, process: ProcessSettings) -> dict[str, Any]:
    """Return librdkafka's configuration for a stage."""
    config: dict[str, Any] = {
        "group.id": stage.group,
        "client.id": f"{stage.group}-{process.instance}",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",  # never skip or repeat silently: offsets.py decides where to start
        "isolation.level": "read_committed",
        "group.protocol": kafka.group_protocol,
        # Also how long a rebalance waits for a member that is gone, when nobody watches its session: a coordinator
        # that was elected twice while it loaded forgets to (docs/reference/reliability.md, Limits).
        "max.poll.interval.ms": kafka.max_poll_interval_ms,
        # A record that comes ends the wait at once. Long, because each wait that ends without one costs the broker CPU:
        # an idle stack used 0.10 cores at 50 ms and 0.04 at 500. The price is half a second after a seek, at most.
        "fetch.wait.max.ms": 500,
        "fetch.error.backoff.ms": 50,
        "queued.max.messages.kbytes": 65_536,
        # Small portions of many partitions, so that a backlog comes roughly in the order of log time.
        "max.partition.fetch.bytes": 262_144,
        # Enough for a batch; more is fetched as it is used up, in full portions. With the default of 100,000 the client
        # asks again for every few records that are appended, and each answer costs the broker and both ends CPU.
        "queued.min.messages": 1_000,
        "fetch.queue.backoff.ms": 20,
    }
    if isinstance(stage, ReadsInBulk):
        config["fetch.min.bytes"] = stage.fetch_min_bytes
    if kafka.group_protocol == "classic":
        config |= {
            "partition.assignment.strategy": "range" if is_eager(kafka, stage) else "cooperative-sticky",
            "session.timeout.ms": kafka.session_timeout_ms,
            "heartbeat.interval.ms": max(300, kafka.session_timeout_ms // 10),
        }
    elif len(stage.topics) > 1:
        config["group.remote.assignor"] = "range"
    return kafka.client_config() | config
