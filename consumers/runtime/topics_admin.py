"""Reads a cluster's topics and carries out a plan: thin calls to Kafka's admin API.

Invariant: carrying out a plan twice does no harm; a topic that somebody else created in between counts as created.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the library re-exports without __all__
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from .error_codes import AWAY
from .errors import Fatal, Retry
from .settings import KafkaSettings
from .topics_plan import Action, FoundTopic, Verb

_SECONDS = 20.0


@dataclass(frozen=True)
class Cluster:
    """What a plan needs to know of a cluster."""

    brokers: int
    default_replicas: int
    topics: Mapping[str, FoundTopic]


class TopicsAdmin:
    """Describes and changes the topics of one cluster.

    Args:
        kafka: how to reach the brokers.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._admin = AdminClient({**kafka.client_config(), "log_level": 0})

    def describe(self, names: Iterable[str]) -> Cluster:
        """Return the cluster with those of the named topics that exist.

        Raises:
            Retry: no broker is reached.
            Fatal: the brokers refuse to tell.
        """
        metadata = _asked("the list of topics", lambda: self._admin.list_topics(timeout=_SECONDS))
        present = [name for name in names if name in metadata.topics]
        configs = self._configs(ResourceType.TOPIC, present)
        broker = str(next(iter(metadata.brokers)))
        defaults = self._configs(ResourceType.BROKER, [broker])[broker]
        topics = {
            name: FoundTopic(
                partitions=len(metadata.topics[name].partitions),
                replicas=min((len(part.replicas) for part in metadata.topics[name].partitions.values()), default=0),
                config=configs[name],
            )
            for name in present
        }
        return Cluster(len(metadata.brokers), int(defaults.get("default.replication.factor", "1")), topics)

    def apply(self, actions: Iterable[Action], *, add_partitions: bool) -> list[Action]:
        """Carry out a plan.

        Args:
            actions: the plan.
            add_partitions: whether to add partitions; keys then move to other partitions.

        Returns:
            What was done.

        Raises:
            Retry: no broker is reached; what was done before stays done.
            Fatal: a broker refuses.
        """
        done: list[Action] = []
        for action in actions:
            if action.verb is Verb.CREATE:
                self._create(action)
            elif action.verb is Verb.CHANGE_CONFIG:
                self._change_config(action)
            elif action.verb is Verb.ADD_PARTITIONS and add_partitions:
                new = [NewPartitions(action.topic, action.partitions)]
                _wait(action.topic, partial(self._admin.create_partitions, new, request_timeout=_SECONDS))
            else:
                continue
            done.append(action)
        return done

    def _create(self, action: Action) -> None:
        new = NewTopic(action.topic, action.partitions, action.replicas, config=dict(action.config))
        _wait(
            action.topic,
            lambda: self._admin.create_topics([new], request_timeout=_SECONDS),
            fine=KafkaError.TOPIC_ALREADY_EXISTS,
        )

    def _change_config(self, action: Action) -> None:
        entries = [
            ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in action.config.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, action.topic, incremental_configs=entries)
        _wait(action.topic, lambda: self._admin.incremental_alter_configs([resource], request_timeout=_SECONDS))

    def _configs(self, kind: ResourceType, names: list[str]) -> dict[str, dict[str, str]]:
        if not names:
            return {}
        resources = [ConfigResource(kind, name) for name in names]
        answers = _asked("settings", lambda: self._admin.describe_configs(resources, request_timeout=_SECONDS))
        return {
            resource.name: {
                key: entry.value for key, entry in _asked(resource.name, partial(answer.result, _SECONDS)).items()
            }
            for resource, answer in answers.items()
        }


def _wait(topic: str, call: Callable[[], Mapping[Any, Future[Any]]], fine: int | None = None) -> None:
    """Send one change and wait for its outcome; ``fine`` is an error that means it is done already."""
    for outcome in _asked(topic, call).values():
        _asked(topic, partial(outcome.result, _SECONDS), fine)


def _asked(what: str, call: Callable[[], Any], fine: int | None = None) -> Any:
    """Ask the brokers, and say what kind of trouble it is when they do not answer well."""
    try:
        return call()
    except TimeoutError:
        raise Retry(f"{what}: Kafka did not answer within {_SECONDS:.0f} s") from None
    except KafkaException as error:
        reason = error.args[0]
        if reason.code() == fine:
            return None
        if reason.code() in AWAY:
            raise Retry(f"{what}: Kafka is not reached ({reason.name()})") from None
        raise Fatal(f"{what}: Kafka refuses: {reason.str()} ({reason.name()})") from None
