"""How a command opens the publishing client: everything that would fail at the last record is asked before the first.

Contract: what is missing is said in one sentence on standard error; the command ends with the exit code of its kind.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from attributary.cli import exits

if TYPE_CHECKING:
    from attributary.producers.client import AttributaryProducer
    from attributary.producers.config import ProducerConfig

PATIENCE_SECONDS = 10.0


def open_producer(config: ProducerConfig) -> AttributaryProducer:
    """Open the client on the cluster that KAFKA_BOOTSTRAP_SERVERS and the other settings name.

    Args:
        config: without address and Kafka settings, which are taken from the environment.

    Raises:
        typer.Exit: 78 for a bad setting; 69 when no broker answers, or a topic is missing.
    """
    from attributary.consumers.runtime.errors import ConfigError
    from attributary.consumers.runtime.settings import KafkaSettings, load
    from attributary.producers.client import AttributaryProducer

    try:
        shared = load(KafkaSettings).client_config()
    except ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(exits.CONFIG) from None
    require_topics(shared)
    bootstrap = shared.pop("bootstrap.servers")
    return AttributaryProducer(replace(config, bootstrap=bootstrap, kafka=shared))


def require_topics(client_config: dict[str, Any]) -> None:
    """See that the input topics exist.

    Args:
        client_config: librdkafka settings.

    Raises:
        typer.Exit: 69 when no broker answers, or a topic is missing.
    """
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    from attributary.schemas.topics import CONVERSIONS, IDENTITIES, TOUCHPOINTS

    try:
        quiet = {"log_level": 0}  # the one line below says it all
        there = set(AdminClient(client_config | quiet).list_topics(timeout=PATIENCE_SECONDS).topics)
    except KafkaException as error:
        typer.echo(f"KAFKA_BOOTSTRAP_SERVERS: no broker answers ({error.args[0]})", err=True)
        raise typer.Exit(exits.DEPENDENCY_DOWN) from None
    if missing := {TOUCHPOINTS, CONVERSIONS, IDENTITIES} - there:
        typer.echo(f"topic {min(missing)} does not exist; create the topics by: attributary topics apply", err=True)
        raise typer.Exit(exits.DEPENDENCY_DOWN)
