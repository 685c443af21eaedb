"""The trainer as a process."""

from __future__ import annotations

import os
import signal

from pydantic import Field

from attributary.consumers.adapters.database import stage_dsn
from attributary.consumers.adapters.policy_settings import PolicySettings
from attributary.consumers.adapters.registry_settings import RegistrySettings, make_codec
from attributary.consumers.runtime.run import run_stage
from attributary.consumers.runtime.settings import KafkaSettings, ProcessSettings, Settings, load
from attributary.consumers.store.session import StoreSession
from attributary.producers.kafka import KafkaTransport
from attributary.producers.transport import Transport
from attributary.schemas.codec import Codec

from .idle_tasks import StateUpdater
from .job_handlers import JobHandlers
from .job_statuses import StatusPublisher
from .memory import limit_memory
from .stage import TrainerStage
from .worker import HEARTBEAT_SECONDS, Worker, WorkerLimits, WorkerSessions

_BEATS_A_LEASE = 5  # one slow answer of Postgres must not cost the claim


class TrainerSettings(Settings):
    """Settings of the trainer: leases, attempts, polling, incremental state."""

    lease_seconds: float = Field(
        default=300.0,
        gt=0,
        alias="TRAINER_LEASE_SECONDS",
        description="A worker without a heartbeat for so long is considered dead, and its job starts again; seconds.",
    )
    max_attempts: int = Field(
        default=3, ge=1, alias="TRAINER_MOST_ATTEMPTS", description="A job fails after this many of its workers died."
    )
    poll_seconds: float = Field(
        default=2.0,
        gt=0,
        alias="TRAINER_POLL_SECONDS",
        description="How often an idle trainer looks for jobs of other processes; seconds.",
    )
    state_seconds: float = Field(
        default=30.0,
        ge=0,
        alias="TRAINER_UPKEEP_SECONDS",
        description="How often an idle trainer updates the incremental state, a hundredth of its time at most; "
        "seconds; 0: never.",
    )

    memory_bytes: int | None = Field(
        default=None,
        ge=0,
        alias="TRAINER_MEMORY_BYTES",
        description="A job that needs more memory fails; bytes; 0: no limit. Default: nine tenths of the limit of the "
        "container (cgroup v2).",
    )


def make_stage(process: ProcessSettings) -> TrainerStage:
    """Build the stage from the environment."""
    kafka = KafkaSettings.load().client_config()
    dsn = stage_dsn(has_long_statements=True)
    settings, inactivity_micros = load(TrainerSettings), load(PolicySettings).policy().inactivity_micros
    limit_memory(settings.memory_bytes)
    codec = make_codec(load(RegistrySettings))
    transport = KafkaTransport(kafka.pop("bootstrap.servers"), kafka)
    # Two codecs: the loop's thread and the worker's thread each use their own.
    worker = make_worker(dsn, inactivity_micros, settings, make_codec(load(RegistrySettings)), transport)
    session = StoreSession(dsn, "attributary-trainer")
    return TrainerStage(session, codec, worker, process.max_poison_share, process.grace_seconds)


def make_worker(
    dsn: str, inactivity_micros: int, settings: TrainerSettings, codec: Codec, transport: Transport
) -> Worker:
    """Build the worker with its connections: claims and effects, heartbeats, reading, incremental state."""
    sessions = WorkerSessions(
        StoreSession(dsn, "attributary-trainer-worker"), StoreSession(dsn, "attributary-trainer-heartbeat")
    )
    publisher = StatusPublisher(sessions.heartbeats, codec, transport)

    def on_death() -> None:
        os.kill(os.getpid(), signal.SIGTERM)  # ends the loop; `TrainerStage.close` then says why

    handlers = JobHandlers(StoreSession(dsn, "attributary-trainer-reader"), inactivity_micros)
    limits = WorkerLimits(
        settings.lease_seconds,
        settings.max_attempts,
        settings.poll_seconds,
        min(HEARTBEAT_SECONDS, settings.lease_seconds / _BEATS_A_LEASE),
    )
    idle_task = StateUpdater(StoreSession(dsn, "attributary-trainer-state"), inactivity_micros, settings.state_seconds)
    return Worker(sessions, handlers, publisher, limits, on_death, idle_task)


def main(version: str) -> int:
    """Run the trainer until it is asked to stop; returns the exit code."""
    return run_stage("trainer", version, make_stage)
