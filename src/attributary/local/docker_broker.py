"""Apache Kafka in a container, where a Docker engine answers.

Contract: one KRaft broker of the official image, reached on a loopback port that is chosen before it
starts, because the broker must advertise it. testcontainers removes the container, also after a crash.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from attributary.local.kafka_jars import KAFKA_VERSION, cluster_refusal
from attributary.local.ports import LOOPBACK, free_port
from attributary.local.process import ProcessFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGE = f"apache/kafka:{KAFKA_VERSION}"
_DEFAULT_ENGINE = "unix:///var/run/docker.sock"
_ENGINE_SECONDS = 2.0
_START_SECONDS = 120.0

_SETTINGS = {
    "KAFKA_NODE_ID": "1",
    "KAFKA_PROCESS_ROLES": "broker,controller",
    "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
    "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
    "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
    "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    "KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS": "1000",
    "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "4",
    "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS": "4",
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
    "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
    "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR": "1",
}


def docker_obstacle() -> str | None:
    """Why no container can be started here, or None; asks the engine for at most two seconds."""
    if find_spec("testcontainers") is None:
        return "testcontainers is not installed"
    engine = urlsplit(os.environ.get("DOCKER_HOST") or _DEFAULT_ENGINE)
    unix = engine.scheme == "unix"
    try:
        with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as connection:
            connection.settimeout(_ENGINE_SECONDS)
            connection.connect(engine.path if unix else (engine.hostname or LOOPBACK, engine.port or 2375))
            if os.environ.get("DOCKER_TLS_VERIFY"):
                return None
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            answer = connection.recv(64)
    except OSError:
        return "no Docker engine answers"
    return None if b" 200 " in answer else "the Docker engine answers, but does not serve"


@contextmanager
def docker_broker() -> Iterator[str]:
    """Bootstrap address of a broker in a container that lives as long as the `with` block."""
    from testcontainers.core.container import DockerContainer  # noqa: PLC0415 (a development dependency)

    port = free_port()
    container = DockerContainer(IMAGE).with_bind_ports(9092, port)
    settings = {**_SETTINGS, "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{LOOPBACK}:{port}"}
    for name, value in settings.items():
        container.with_env(name, value)
    with container:
        address = f"{LOOPBACK}:{port}"
        _wait(address)
        yield address


def _wait(address: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while (reason := cluster_refusal(address, 1)) is not None:
        if time.monotonic() > deadline:
            raise ProcessFailedError(f"Kafka in Docker is not ready after {_START_SECONDS:.0f} s: {reason}")
        time.sleep(0.2)
