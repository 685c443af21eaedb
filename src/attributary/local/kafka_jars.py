"""Apache Kafka as local processes: one or three KRaft nodes from the jars that Maven fetches.

Contract: `kafka_cluster()` yields a running cluster; each node answers metadata requests; it is
stopped on the way out. Nodes can be killed, suspended and restarted one by one; they keep ports and data.

Invariant: nothing of a cluster with a temporary folder is left on the machine after the `with` block.
"""

from __future__ import annotations

import base64
import shutil
import socket
import tempfile
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from attributary.local.kafka_maven import fetch_jars, java
from attributary.local.kafka_node import KafkaNode, Ports, Runtime
from attributary.local.ports import LOOPBACK, free_ports
from attributary.local.process import wait_until_ready

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

KAFKA_VERSION = "4.4.0"
_START_SECONDS = 180.0

# Lighter and quicker than a production broker: internal topics of few partitions, groups that start at once,
# topics that exist only when somebody asked for them, and sessions short enough for fault tests.
_SETTINGS = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.min.heartbeat.interval.ms": "200",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "4",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "log.cleaner.threads": "1",
    "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
    "log.segment.delete.delay.ms": "1000",
    "message.max.bytes": str(2 * 1024 * 1024),
    "replica.fetch.max.bytes": str(4 * 1024 * 1024),
}
_SHORT_SESSIONS = {
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # How often a broker looks for transactions that nobody ends: 10 s by default, and readers wait for each of them.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
    # Of KIP-848, where the broker decides: 45 s by default.
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.heartbeat.interval.ms": "1000",
}


class KafkaCluster:
    """One or three nodes that form a cluster."""

    def __init__(
        self,
        nodes: Sequence[KafkaNode],
        folder: Path,
        *,
        short_sessions: bool,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.nodes = list(nodes)
        self._extra = settings or {}
        self.folder = folder
        self._short_sessions = short_sessions

    def __repr__(self) -> str:
        return f"<KafkaCluster {self.bootstrap} in {self.folder}>"

    @property
    def bootstrap(self) -> str:
        """Addresses for `bootstrap.servers`."""
        return ",".join(node.address for node in self.nodes)

    def start(self) -> None:
        """Format what is new, start all nodes and wait until each of them knows all the others."""
        cluster_id = self._cluster_id()
        settings = self._settings()
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(lambda node: node.prepare(cluster_id, settings), self.nodes))
        with ExitStack() as undo:
            undo.callback(self.kill)
            for node in self.nodes:
                node.start()
            self.wait_ready()
            undo.pop_all()  # all are up: keep them

    def wait_ready(self, timeout_seconds: float = _START_SECONDS) -> None:
        """Wait until every running node answers and lists all running nodes."""
        running = [node for node in self.nodes if node.running]
        for node in running:
            probe = partial(_refusal, node, len(running))
            wait_until_ready(node.child, probe, timeout_seconds=timeout_seconds)

    def restart(self, node: KafkaNode) -> None:
        """Start a node again, after a controlled shutdown if it still runs, and wait for it."""
        node.stop()
        node.start()
        self.wait_ready()

    def stop(self) -> None:
        """Controlled shutdown of all nodes together; alone, a node would wait for its peers."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(lambda node: node.stop(), self.nodes))

    def kill(self) -> None:
        """`kill -9` of whatever still runs."""
        for node in self.nodes:
            if node.running:
                node.kill()

    def _cluster_id(self) -> str:
        """The id that the folder was formatted with, or a new one."""
        file = self.folder / "cluster.id"
        with suppress(FileNotFoundError):
            return file.read_text(encoding="ascii").strip()
        made = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=")
        # Kafka's tools read a leading dash as an option.
        made = made.replace("-", "a")
        file.write_text(made, encoding="ascii")
        return made

    def _settings(self) -> dict[str, str]:
        count = len(self.nodes)
        replicas, quorum = str(min(count, 3)), str(min(count, 2))
        voters = ",".join(f"{node.number}@{LOOPBACK}:{node.ports.controller}" for node in self.nodes)
        return {
            **_SETTINGS,
            **(_SHORT_SESSIONS if self._short_sessions else {}),
            "controller.quorum.voters": voters,
            "default.replication.factor": replicas,
            "min.insync.replicas": quorum,
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": quorum,
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.min.isr": quorum,
            **self._extra,
        }


def make_cluster(
    folder: Path,
    *,
    ports: Sequence[Ports],
    short_sessions: bool = True,
    guarded: bool = True,
    optimise: bool = False,
) -> KafkaCluster:
    """A cluster of `len(ports)` nodes below `folder`, not started yet; fetches the jars if need be.

    Args:
        folder: Where data, settings and logs go; a cluster that was there before goes on.
        ports: Ports of each node.
        short_sessions: A dead broker is noticed after 3 s instead of 9 s; for tests.
        guarded: False lets the nodes outlive this process.
        optimise: Compile for long runs at full load; see `Runtime`.
    """
    runtime = Runtime(java(), fetch_jars(), heap_megabytes=512 if len(ports) == 1 else 384, optimise=optimise)
    folder.mkdir(parents=True, exist_ok=True)
    nodes = [
        KafkaNode(number, own, folder / f"node-{number}", runtime, guarded) for number, own in enumerate(ports, start=1)
    ]
    return KafkaCluster(nodes, folder, short_sessions=short_sessions)


def free_node_ports(nodes: int, *, proxy_ports: Sequence[int] = ()) -> list[Ports]:
    """Free ports for a cluster; with `proxy_ports`, each node also has a listener for a fault proxy."""
    free = iter(free_ports(nodes * 3))
    fronts: list[int | None] = [*proxy_ports, *([None] * (nodes - len(proxy_ports)))]
    return [Ports(next(free), next(free), next(free) if front else None, front) for front in fronts]


@contextmanager
def kafka_cluster(
    nodes: int = 1,
    folder: Path | None = None,
    *,
    ports: Sequence[Ports] | None = None,
    short_sessions: bool = True,
    optimise: bool = False,
) -> Iterator[KafkaCluster]:
    """A running cluster for the length of a `with` block; a temporary folder is removed at its end.

    Args:
        nodes: How many; the number of `ports` decides if they are given.
        folder: Where data, settings and logs go.
        ports: Ports of each node; free ones when None.
        short_sessions: See `make_cluster`.
        optimise: See `make_cluster`.
    """
    # Resolved: the broker works in a folder of its own.
    home = folder.resolve() if folder else Path(tempfile.mkdtemp(prefix="attributary-kafka-"))
    try:
        where = ports or free_node_ports(nodes)
        cluster = make_cluster(home, ports=where, short_sessions=short_sessions, optimise=optimise)
        cluster.start()
        try:
            yield cluster
        finally:
            if folder is None:
                cluster.kill()
            else:
                cluster.stop()
    finally:
        if folder is None:
            shutil.rmtree(home, ignore_errors=True)


def _refusal(node: KafkaNode, expected: int) -> str | None:
    """Why the node cannot serve yet, or None."""
    try:
        socket.create_connection((LOOPBACK, node.ports.broker), timeout=1.0).close()
    except OSError as error:
        return f"no connection to {node.address}: {error}"
    return cluster_refusal(node.address, expected)


def cluster_refusal(bootstrap: str, expected_brokers: int) -> str | None:
    """Why a cluster does not answer metadata requests for so many brokers yet, or None when it does."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "socket.timeout.ms": 5000})
    try:
        seen = len(admin.list_topics(timeout=5.0).brokers)
    except KafkaException as error:
        return str(error.args[0])
    return None if seen >= expected_brokers else f"{seen} of {expected_brokers} brokers have joined"
