"""The whole local stack: broker, database, migrations, topics, every stage as a process.

Contract: `Stack.start()` returns when everything is started, `Stack.wait_ready()` when every stage says that it is
ready; `Stack.watch()` restarts a stage that ends by itself
and gives up on one that cannot be configured; `Stack.stop()` ends the stages before the broker and the
broker before the database, so that each finds what it needs to finish its last batch.

Invariant: all state is below one folder; a stop (or a crash) and a start on the same folder lose nothing.
"""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import psycopg

from attributary.local.broker import BOOTSTRAP_VARIABLE, find_broker
from attributary.local.fake_services import start_fake_services
from attributary.local.kafka_jars import kafka_cluster
from attributary.local.kafka_node import Ports
from attributary.local.monitoring import PROMETHEUS_PORT, start_prometheus, write_monitoring
from attributary.local.ports import LOOPBACK, free_port, is_free
from attributary.local.postgres import Postgres, embedded_postgres, given_dsn
from attributary.local.process import ManagedProcess, ProcessFailedError, run, spawn
from attributary.local.stages import FIRST_METRICS_PORT, STAGES, StageProcess, command_line
from attributary.local.steps import step
from attributary.producers.collector.keys import edit_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from attributary.local.folder import StackFolder

DATABASE = "attributary"
_STEP_SECONDS = 180.0
_GRACE_SECONDS = 30.0
_RESTART_SECONDS = 2.0
_READY_SECONDS = 240.0
_STARTS_OF_DATABASE = 3  # another program may take a port between our look at it and our use
# Nothing to do (0), wrong usage (2), a setting that is missing or wrong (78): another start would end the same way.
_LAST_EXITS = frozenset({0, 2, 78})

_KAFKA_PORTS = (9092, 9093)
_POSTGRES_PORT = 54320
_COLLECT_PORT = 8080
_SERVE_PORT = 8090


@dataclass
class RunningStage:
    """A stage with its process."""

    stage: StageProcess
    metrics_port: int
    child: ManagedProcess
    restarts: int = 0
    restart_at: float | None = None
    given_up: bool = False


@dataclass
class Stack:
    """A local stack in a folder; use as a context manager.

    Attributes:
        folder: Where everything is kept.
        say: Prints a line of progress.
        fake_services: Forward to stand-ins for Meta and GA4 instead of to real accounts.
        environment: Variables for the stages on top of this process's own; set before `start`.
    """

    folder: StackFolder
    say: Callable[[str], None]
    fake_services: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    bootstrap: str = field(default="", init=False)
    dsn: str = field(default="", init=False)
    stages: list[RunningStage] = field(default_factory=list, init=False)
    skipped: list[StageProcess] = field(default_factory=list, init=False)
    # Process ids of the servers that this stack started itself, and of the stand-ins.
    servers: dict[str, int] = field(default_factory=dict, init=False)
    # Accounts at the stand-ins, with which commands beside the stack see and try what its forwarders do.
    stand_ins: dict[str, str] = field(default_factory=dict, init=False)
    _resources: ExitStack = field(default_factory=ExitStack, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Bring everything up, in order."""
        # Entered first, left last: the stages still need the database while the broker goes away.
        self.dsn = self._start_database()
        self.bootstrap = self._start_broker()
        self.environment = {
            "ATTRIBUTION_FIRST_START": "earliest",
            "METRICS_HOST": "127.0.0.1",
            **self._http(),
            **self.environment,
            BOOTSTRAP_VARIABLE: self.bootstrap,
            "DATABASE_URL": self.dsn,
        }
        if self.fake_services:
            child, variables = start_fake_services(self.folder)
            self._resources.callback(child.stop)
            self.servers["stand-ins"] = child.pid
            self.environment |= variables
            self.stand_ins = variables
            self.say("stand-ins for Meta and GA4: started")
        for arguments in (("db", "migrate"), ("topics", "apply")):
            command = f"attributary {' '.join(arguments)}"
            with step(self.say, command):
                run(
                    command_line(*arguments),
                    name=command,
                    timeout_seconds=_STEP_SECONDS,
                    env=self._child_environment({}),
                )
        for number, stage in enumerate(STAGES):
            self._start_stage(stage, FIRST_METRICS_PORT + number)

    def wait_ready(self, seconds: float = _READY_SECONDS) -> None:
        """Wait until every stage says on /readyz that it is ready, and look after those that end meanwhile.

        Raises:
            ProcessFailedError: one is not ready in time, or has ended and is not started again; with its last lines.
        """
        deadline = time.monotonic() + seconds
        with step(self.say, "stages: waiting until they are ready"):
            while waiting := [running for running in self.stages if _refusal(running) is not None]:
                self.watch()
                for running in waiting:
                    if running.given_up or time.monotonic() > deadline:
                        raise ProcessFailedError(
                            f"{running.stage.name} is not ready: {_refusal(running) or 'it was a moment later'}. "
                            f"Its log {running.child.log} ends:\n{running.child.log_tail()}"
                        )
                time.sleep(0.1)

    def watch(self) -> None:
        """Look after the stages once; call it again and again."""
        now = time.monotonic()
        for running in self.stages:
            if running.given_up or running.child.running:
                continue
            if running.child.returncode in _LAST_EXITS:
                running.given_up = True
                self.say(f"{running.stage.name} is off: {_last_line(running.child)}")
            elif running.restart_at is None:
                running.restart_at = now + _RESTART_SECONDS
                self.say(f"{running.stage.name} ended with {running.child.returncode}; see {running.child.log}")
            elif now >= running.restart_at:
                running.restart_at = None
                running.restarts += 1
                running.child = self._spawn(running.stage, running.metrics_port)
                self.say(f"{running.stage.name} was started again")

    def start_monitoring(self, *, with_prometheus: bool) -> int:
        """Write the configuration of Prometheus and Grafana for this stack; returns Prometheus's port.

        Args:
            with_prometheus: Start the machine's Prometheus on it, too.

        Raises:
            ProcessFailedError: it is not installed, or does not become ready.
        """
        port = self._port("prometheus", PROMETHEUS_PORT)
        ports = {running.stage.name: running.metrics_port for running in self.stages}
        home = write_monitoring(self.folder, ports, self.dsn, port)
        if with_prometheus:
            with step(self.say, "prometheus: starting"):
                self._resources.callback(start_prometheus(self.folder, home, port).stop)
        return port

    def stop(self) -> None:
        """End the stages together, then the broker, then the database."""
        for running in self.stages:
            running.child.terminate()
        for running in self.stages:
            # Not `stop`, which asks again: a stage that is asked twice ends at once, in the middle of its batch.
            if running.child.wait(_GRACE_SECONDS) is None:
                running.child.kill()
        self.stages.clear()
        self._resources.close()

    def _start_database(self) -> str:
        if given := given_dsn():
            self.say("database: the one that DATABASE_URL names")
            return given
        self._link_log("postgres", self.folder.path / "postgres.log")
        with step(self.say, "database: starting the embedded Postgres"):
            postgres = self._start_postgres()
            _create_database(postgres)
        if postgres.cluster is not None:
            self.servers["Postgres"] = postgres.cluster.child.pid
        return postgres.database(DATABASE)

    def _start_postgres(self) -> Postgres:
        for attempt in range(_STARTS_OF_DATABASE):
            port = self._port("postgres", _POSTGRES_PORT)
            try:
                return self._resources.enter_context(embedded_postgres(self.folder.path / "postgres", port=port))
            except ProcessFailedError as error:
                if "in use" not in str(error) or attempt == _STARTS_OF_DATABASE - 1:
                    raise
                self.folder.forget_port("postgres")
        raise AssertionError("unreachable")  # pragma: no cover

    def _port(self, name: str, wish: int) -> int:
        """Return the port that a part takes, and say so when it is not the usual one: examples name that."""
        was_free = is_free(wish)
        before = self.folder.ports().get(name)
        port = self.folder.port(name, free_port(wish))
        if port not in {wish, before}:
            self.say(f"{name}: port {wish} is taken by another program, using {port}")
        elif port != wish:
            self.say(
                f"{name}: using port {port}, as before, although {wish} is free now"
                if was_free
                else f"{name}: port {wish} is taken by another program, using {port}, as before"
            )
        return port

    def _link_log(self, name: str, log: Path) -> None:
        """Let the log of a server be found beside the stages' logs."""
        link = self.folder.log(name)
        with suppress(FileNotFoundError):
            link.unlink()
        link.symlink_to(os.path.relpath(log, link.parent))

    def _start_broker(self) -> str:
        if os.environ.get(BOOTSTRAP_VARIABLE, "").strip():
            broker = self._resources.enter_context(find_broker(("given",)))
            self.say(f"broker: {broker.describe()}")
            return broker.bootstrap
        home = self.folder.path / "kafka"
        self._link_log("kafka", home / "node-1" / "node.log")
        with step(self.say, "broker: starting Apache Kafka as a local process (its jars are fetched once)"):
            ports = Ports(*(self._port(f"kafka-{wish}", wish) for wish in _KAFKA_PORTS))
            cluster = self._resources.enter_context(kafka_cluster(folder=home, ports=[ports], short_sessions=False))
        self.servers["Kafka"] = cluster.nodes[0].child.pid
        return cluster.bootstrap

    def _http(self) -> dict[str, str]:
        """Return the settings of collector and read API: a file of keys, empty at first, a spool, and their ports."""
        home = self.folder.path / "collector"
        keys = home / "keys.json"
        with edit_keys(keys):
            pass  # makes the file
        settings = {
            "COLLECT_KEYS_FILE": str(keys),
            "COLLECT_SPOOL": str(home / "spool"),
            "COLLECT_HOST": LOOPBACK,
            "COLLECT_PORT": str(self._port("collect", _COLLECT_PORT)),
            "SERVE_KEYS_FILE": str(keys),
            "SERVE_HOST": LOOPBACK,
            "SERVE_PORT": str(self._port("serve", _SERVE_PORT)),
        }
        return {name: text for name, text in settings.items() if not os.environ.get(name)}

    def _start_stage(self, stage: StageProcess, wished_port: int) -> None:
        if not stage.is_enabled({**os.environ, **self.environment}):
            self.skipped.append(stage)
            return
        port = self._port(stage.name, wished_port)
        self.stages.append(RunningStage(stage, port, self._spawn(stage, port)))
        self.say(f"{stage.name}: started")

    def _spawn(self, stage: StageProcess, metrics_port: int) -> ManagedProcess:
        return spawn(
            command_line(*stage.arguments),
            name=stage.name,
            log=self.folder.log(stage.name),
            env=self._child_environment({"METRICS_PORT": str(metrics_port)}),
        )

    def _child_environment(self, more: Mapping[str, str]) -> dict[str, str]:
        return {**os.environ, **self.environment, **more}


def _refusal(running: RunningStage) -> str | None:
    """Why a stage is not ready, or None."""
    if not running.child.running:
        return f"it ended with {running.child.returncode}"
    return refusal_of(running.metrics_port)


def refusal_of(metrics_port: int) -> str | None:
    """Why the process behind a port of /readyz is not ready, or None."""
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{metrics_port}/readyz", timeout=2):
            return None
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode("utf-8", "replace").strip() or f"/readyz answers {error.code}"
    except OSError as error:
        return f"/readyz does not answer ({getattr(error, 'reason', error)})"


def _last_line(child: ManagedProcess) -> str:
    return child.log_tail().rpartition("\n")[2] or f"it ended with {child.returncode}"


def _create_database(postgres: Postgres) -> None:
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
        if known is None:
            connection.execute(f"CREATE DATABASE {DATABASE}")
