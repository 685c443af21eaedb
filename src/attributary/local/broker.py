"""Which broker this machine offers: a given one, Docker, Kafka's jars, or the mock, in that order.

Contract: `find_broker()` yields the first that can be had and says why the better ones could not. A
caller that needs the guarantees of a real broker leaves "mock" out of `kinds` and gets `BrokerUnavailableError` with
all the reasons; a broker that was named by KAFKA_BOOTSTRAP_SERVERS and does not answer is an error, never
silently replaced by another.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

from attributary.local.docker_broker import IMAGE, docker_broker, docker_obstacle
from attributary.local.kafka_jars import (
    KAFKA_VERSION,
    KafkaCluster,
    cluster_refusal,
    kafka_cluster,
)
from attributary.local.mock_broker import LIMITS, mock_broker
from attributary.local.process import ProcessFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

Kind = Literal["given", "docker", "jars", "mock"]
REAL: tuple[Kind, ...] = ("given", "docker", "jars")
ANY: tuple[Kind, ...] = (*REAL, "mock")

BOOTSTRAP_VARIABLE = "KAFKA_BOOTSTRAP_SERVERS"


class BrokerUnavailableError(RuntimeError):
    """No broker of the wanted kinds can be had here; the text lists why."""


@dataclass(frozen=True)
class Broker:
    """A broker that answers.

    Attributes:
        bootstrap: For `bootstrap.servers`.
        kind: How it was found.
        cluster: Its processes, when they are ours (kind "jars"): for faults.
        missed: Why each better kind could not be had.
        producer_overrides: librdkafka settings that producers need on this broker.
        consumer_overrides: librdkafka settings that consumers need on this broker.
    """

    bootstrap: str
    kind: Kind
    cluster: KafkaCluster | None = None
    missed: tuple[str, ...] = ()
    producer_overrides: Mapping[str, str | int | bool] = field(default_factory=dict)
    consumer_overrides: Mapping[str, str | int | bool] = field(default_factory=dict)

    @property
    def real(self) -> bool:
        """Whether it is an Apache Kafka, with transactions that mean something."""
        return self.kind != "mock"

    def describe(self) -> str:
        """One line for people."""
        match self.kind:
            case "given":
                return f"Kafka at {self.bootstrap} (named by {BOOTSTRAP_VARIABLE})"
            case "docker":
                return f"Kafka at {self.bootstrap} ({IMAGE} in Docker)"
            case "jars":
                return f"Kafka at {self.bootstrap} (Apache Kafka {KAFKA_VERSION}, a local process)"
            case "mock":
                return f"{LIMITS} (at {self.bootstrap})"


@contextmanager
def find_broker(
    kinds: Sequence[Kind] = ANY, *, folder: Path | None = None, nodes: int = 1, optimise: bool = False
) -> Iterator[Broker]:
    """The first broker that can be had, for the length of a `with` block.

    Args:
        kinds: What is acceptable, best first.
        folder: Where Kafka's jars keep their data; a temporary folder when None.
        nodes: How many nodes are wanted; more than one only Kafka's jars can give.
        optimise: Let Kafka's JVM compile for long runs at full load; a benchmark wants that.

    Raises:
        BrokerUnavailableError: when there is none, or a given one does not answer.
    """
    missed: list[str] = []
    with ExitStack() as stack:
        for kind in kinds:
            found = _try(kind, stack, missed, partial(kafka_cluster, nodes, folder, optimise=optimise), nodes)
            if found is not None:
                break
        else:
            raise BrokerUnavailableError("no Kafka broker can be had here: " + "; ".join(missed))
        yield found


def _try(
    kind: Kind,
    stack: ExitStack,
    missed: list[str],
    jars: Callable[[], AbstractContextManager[KafkaCluster]],
    nodes: int,
) -> Broker | None:
    """Start or find one kind; None, and the reason in `missed`, when it cannot be had."""
    match kind:
        case "given":
            return _given(missed)
        case "docker":
            obstacle = docker_obstacle() if nodes == 1 else "the container is a single broker"
            if obstacle is not None:
                missed.append(f"Docker: {obstacle}")
                return None
            return Broker(stack.enter_context(docker_broker()), "docker", missed=tuple(missed))
        case "jars":
            try:
                cluster = stack.enter_context(jars())
            except ProcessFailedError as error:
                missed.append(f"Kafka's jars: {error}")
                return None
            return Broker(cluster.bootstrap, "jars", cluster, tuple(missed))
        case "mock":
            return Broker(
                stack.enter_context(mock_broker(nodes)),
                "mock",
                missed=tuple(missed),
                consumer_overrides={"allow.auto.create.topics": True},
            )


def _given(missed: list[str]) -> Broker | None:
    bootstrap = os.environ.get(BOOTSTRAP_VARIABLE, "").strip()
    if not bootstrap:
        missed.append(f"{BOOTSTRAP_VARIABLE} is not set")
        return None
    if (reason := cluster_refusal(bootstrap, 1)) is not None:
        raise BrokerUnavailableError(f"{BOOTSTRAP_VARIABLE}={bootstrap} does not answer: {reason}")
    return Broker(bootstrap, "given")
