"""The environment of the demo: a broker, a database, fake services for Meta and GA4, and every stage as a process."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg
from confluent_kafka import Producer

from attributary.consumers.store.connection import connect
from attributary.consumers.store.migrate import migrate
from attributary.local.broker import Broker, find_broker
from attributary.local.demo.http_traffic import HttpSenders, prepare_senders
from attributary.local.fakes import Ga4Fake, MetaFake
from attributary.local.fakes.server import FakeServer
from attributary.local.ports import free_port
from attributary.local.postgres import Postgres, find_postgres
from attributary.local.process import ManagedProcess, run, spawn
from attributary.local.stages import STAGES, StageProcess, command_line
from attributary.schemas.topics import catalogue, dead_letter_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

_NOT_INHERITED = (
    "META_",
    "GA4_",
    "TIKTOK_",
    "LINKEDIN_",
    "X_",
    "SNAP_",
    "GOOGLE_",
    "MICROSOFT_",
    "BINGADS_",
    "PINTEREST_",
    "REDDIT_",
    "FORWARD_",
    "COLLECT_",
)
_PARTITIONS = 4
_DATABASE = "attributary_demo"
_NOT_OURS = (
    "META_",
    "GA4_",
    "TIKTOK_",
    "LINKEDIN_",
    "X_",
    "SNAP_",
    "GOOGLE_",
    "MICROSOFT_",
    "BINGADS_",
    "PINTEREST_",
    "REDDIT_",
    "FORWARD_",
    "COLLECT_",
)
_PIXEL_ID, _TOKEN = "1234567890", "demo-access-token"
_MEASUREMENT_ID, _API_SECRET = "G-DEMO123456", "demo-api-secret"


@dataclass
class DemoEnvironment:
    """Everything that the demo runs on; ``demo_environment`` brings it up.

    Attributes:
        broker: what the topics live on.
        dsn: the demo's database.
        meta: fake of Meta's Conversions API.
        ga4: fake of GA4's Measurement Protocol.
        environment: variables of the stages.
        children: running stages by name.
        ports: metrics port of each stage.
        logs: folder of their logs.
        senders: who may send to the collector; None where there is no collector: on a broker that is not Kafka, or
            without the packages of the extra `collect`.
    """

    broker: Broker
    dsn: str
    meta: MetaFake
    ga4: Ga4Fake
    environment: dict[str, str]
    logs: Path
    senders: HttpSenders | None = None
    children: dict[str, ManagedProcess] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)

    def fail_if_ended(self) -> None:
        """Raise `ProcessFailedError`, with the end of its log, for a stage that ended by itself."""
        for child in self.children.values():
            child.fail_if_ended()

    def start(self, stage: StageProcess) -> None:
        """Start a stage as a process of its own."""
        port = free_port()
        self.ports[stage.name] = port
        self.children[stage.name] = spawn(
            command_line(*stage.arguments),
            name=stage.name,
            log=self.logs / f"{stage.name}.log",
            env={**self.environment, "METRICS_PORT": str(port)},
        )

    def stop(self) -> None:
        """Ask all stages to stop, and wait."""
        for child in self.children.values():
            child.terminate()
        for child in self.children.values():
            child.stop()


@contextmanager
def demo_environment(
    folder: Path, inherited: dict[str, str], say: Callable[[str], None], kinds: Sequence[str] | None = None
) -> Iterator[DemoEnvironment]:
    """Bring everything up for the length of a `with` block.

    Args:
        folder: for data and logs; emptied by the caller.
        inherited: environment of this process.
        say: prints a line.
        kinds: brokers that are acceptable, best first; all when None.
    """
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        say("starting a broker (Apache Kafka's jars are fetched once, if it comes to that)")
        options = {"folder": folder / "kafka"} | ({} if kinds is None else {"kinds": kinds})
        broker = stack.enter_context(find_broker(**options))  # type: ignore[arg-type]  # two shapes of one call
        say(f"broker: {broker.describe()}")
        for miss in broker.missed:
            say(f"  not used: {miss}")
        postgres = stack.enter_context(find_postgres(folder / "postgres"))
        say(f"database: {postgres.describe()}")
        dsn = _fresh_database(postgres)
        meta, ga4 = MetaFake(), Ga4Fake()
        meta_server = stack.enter_context(FakeServer(meta))
        ga4_server = stack.enter_context(FakeServer(ga4))
        environment = {
            **{name: value for name, value in inherited.items() if not name.startswith(_NOT_OURS)},
            "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap,
            "DATABASE_URL": dsn,
            "ATTRIBUTION_FIRST_START": "earliest",
            "METRICS_HOST": "127.0.0.1",
            "SWEEP_REPAIR_AFTER_SECONDS": "2",  # the sweeper asks for what a refit wants, and nobody waits 30 s here
            "META_BASE_URL": meta_server.url,
            "META_PIXEL_ID": _PIXEL_ID,
            "META_ACCESS_TOKEN": _TOKEN,
            "GA4_BASE_URL": ga4_server.url,
            "GA4_MEASUREMENT_ID": _MEASUREMENT_ID,
            "GA4_API_SECRET": _API_SECRET,
        }
        senders = _senders(folder / "collector", broker, say)
        environment |= {} if senders is None else senders.environment
        found = DemoEnvironment(broker, dsn, meta, ga4, environment, logs, senders)
        _make_topics(found)
        stack.callback(found.stop)
        for stage in STAGES:
            if stage.is_enabled(environment):
                found.start(stage)
        say(f"stages: {', '.join(found.children)}; logs in {logs}")
        yield found


def _senders(folder: Path, broker: Broker, say: Callable[[str], None]) -> HttpSenders | None:
    if not broker.real:
        return None
    if not all(stage.is_installed for stage in STAGES if stage.name == "collector"):
        say("no HTTP collector: its packages are not installed (pip install 'attributary[collect]')")
        return None
    return prepare_senders(folder)


def _fresh_database(postgres: Postgres) -> str:
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {_DATABASE} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {_DATABASE}")
    dsn = postgres.database(_DATABASE)
    with connect(dsn, application_name="attributary-demo") as connection:
        migrate(connection)
    return dsn


def _make_topics(found: DemoEnvironment) -> None:
    if found.broker.real:
        run(
            command_line("topics", "apply", "--partitions-override", str(_PARTITIONS)),
            name="attributary topics apply",
            timeout_seconds=120.0,
            env=found.environment,
        )
        return
    # The mock broker knows no CreateTopics; it makes a topic when somebody asks for it by name.
    producer = Producer({"bootstrap.servers": found.broker.bootstrap, "log_level": 0})
    for topic in catalogue():
        for name in (topic.name, *(dead_letter_topic(topic.name, group) for group in topic.groups)):
            producer.list_topics(name, timeout=10.0)
