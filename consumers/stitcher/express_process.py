"""The express lane as a process."""

from __future__ import annotations

from confluent_kafka import Consumer, Producer
from pydantic import Field

from attributary.consumers.adapters.database import stage_dsn
from attributary.consumers.runtime.health import Heartbeat
from attributary.consumers.runtime.run import run_process, serve_health
from attributary.consumers.runtime.settings import KafkaSettings, ProcessSettings, Settings, load
from attributary.consumers.runtime.signals import stop_on_signals

from .express import ExpressLane, ExpressStage, Rules
from .process import stitcher_parts


class ExpressSettings(Settings):
    """What the express lane takes out of turn."""

    rate: float = Field(
        default=20.0,
        gt=0,
        alias="EXPRESS_RATE",
        description="Records a second, by log time, that the express lane takes of a tenant in each partition of a "
        "topic; with a burst of 30 seconds. What a tenant publishes above this waits in turn behind a flood.",
    )
    after_seconds: float = Field(
        default=5.0,
        ge=0,
        alias="EXPRESS_AFTER_SECONDS",
        description="The express lane takes a record that has waited for the stitcher so long; seconds.",
    )


def main(version: str) -> int:
    """Run the express lane until it is asked to stop; returns the exit code."""

    def body(process: ProcessSettings) -> None:
        kafka = KafkaSettings.load()
        settings = load(ExpressSettings)
        stage = stitcher_parts(ExpressStage, stage_dsn(), 1.0)
        consumer = Consumer(
            kafka.client_config()
            | {
                "group.id": "attributary.express",  # needed by the client, never used: nothing is committed
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 500,
                "queued.max.messages.kbytes": 65_536,
                "max.partition.fetch.bytes": 1_048_576,
            }
        )
        producer = Producer(
            kafka.client_config()
            | {"acks": "all", "enable.idempotence": True, "partitioner": "murmur2_random", "linger.ms": 5}
        )
        lane = ExpressLane(stage, Rules(settings.rate, settings.after_seconds), consumer, producer)
        heartbeat = Heartbeat(stage.is_ready)
        serve_health(stage.name, process, heartbeat)
        stop_on_signals(lane.stop, process.grace_seconds)
        lane.run(heartbeat)

    return run_process("express", version, body)
