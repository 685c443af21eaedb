"""How a command opens the publishing client: everything that would fail at the last record is asked before the first.

Contract: what is missing is said in one sentence on standard error; the command ends with the exit code of its kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from attributary.cli import exits
from attributary.cli.outcome import say

if TYPE_CHECKING:
    from attributary.consumers.runtime.settings import KafkaSettings
    from attributary.producers.client import AttributaryProducer
    from attributary.producers.config import ProducerConfig

PATIENCE_SECONDS = 10.0
EVENTS = ("touchpoint", "conversion", "identity_link")


def open_producer(config: ProducerConfig, records: Sequence[str] = EVENTS) -> AttributaryProducer:
    """Open the client on the cluster that KAFKA_BOOTSTRAP_SERVERS and the other settings name.

    Args:
        config: without address and Kafka settings, which are taken from the environment.
        records: kinds that will be published: spend, ...; those of events where none are named.

    Raises:
        typer.Exit: 78 for a bad setting; 69 when no broker answers, or a topic is missing.
    """
    from attributary.cli.outcome import exit_codes
    from attributary.consumers.runtime.settings import KafkaSettings
    from attributary.producers.client import AttributaryProducer

    with exit_codes():
        kafka = KafkaSettings.load()
        require_topics(kafka, records)
    shared = kafka.client_config()
    bootstrap = shared.pop("bootstrap.servers")
    shared.setdefault("log_level", 0)  # what goes wrong is told once, by the error that ends the command
    return AttributaryProducer(replace(config, bootstrap=bootstrap, kafka=shared))


def require_topics(kafka: KafkaSettings, records: Sequence[str] = EVENTS) -> None:
    """See that the topics exist.

    Args:
        kafka: how to reach the brokers.
        records: kinds that will be published.

    Raises:
        Fatal: no broker answers.
        ConfigError: the brokers refuse us.
        AccessRefused: they do not let us write to a topic.
        typer.Exit: 69 when a topic is missing.
    """
    from confluent_kafka.admin import AdminClient

    from attributary.consumers.runtime.access_errors import Access
    from attributary.consumers.runtime.kafka_errors import check_reachable
    from attributary.consumers.runtime.topic_checks import check_visible
    from attributary.schemas.topics import topic_of

    check_reachable(kafka)
    quiet = {"log_level": 0}  # one line says it all
    admin = AdminClient(kafka.client_config() | quiet)
    there = set(admin.list_topics(timeout=PATIENCE_SECONDS).topics)
    if missing := {topic_of(name) for name in records} - there:
        check_visible(admin, sorted(missing), Access(kafka, "publisher"), "WRITE")
        say(f"topic {min(missing)} does not exist; create the topics by: attributary topics apply")
        raise typer.Exit(exits.DEPENDENCY_DOWN)
