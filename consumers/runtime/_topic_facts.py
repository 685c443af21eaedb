"""What a cluster tells about topics, asked by a process of its own: ``python -m`` this module.

librdkafka's admin client ends its process by an assertion when a connection breaks at the wrong moment (its issue 4605,
open in 2.16). Stages must live through that, so they start this module, which asks once and ends.

Contract: a JSON object with ``config`` (librdkafka's settings, which may hold secrets, so they come by standard input),
``topics``, ``dead_letter_topics`` and ``only_ids`` comes in. An object with ``ids``, ``retention_seconds`` and
``near_end`` by topic goes out, or one with ``error``. A topic of which something is not told is missing there.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the library re-exports without __all__
    AdminClient,
    ConfigResource,
    OffsetSpec,
    ResourceType,
)

NEAR_END_SECONDS = 3 * 86_400
"""Dead letters that are removed within this time are counted."""

_SECONDS = 10.0
_ZERO_ID = "AAAAAAAAAAAAAAAAAAAAAA"  # the broker gives its topics no ids
_NO_ID = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError._UNSUPPORTED_FEATURE})  # noqa: SLF001


def topic_ids(admin: AdminClient, topics: Sequence[str]) -> dict[str, str]:
    """Return Kafka's ids of topics.

    Raises:
        KafkaException: the brokers do not answer, or do not know a topic (yet).
    """
    found: dict[str, str] = {}
    for name, answer in admin.describe_topics(TopicCollection(list(topics)), request_timeout=_SECONDS).items():
        try:
            told = str(answer.result(_SECONDS + 1).topic_id)
        except KafkaException as error:
            if error.args[0].code() in _NO_ID:
                continue
            raise
        if told and told != _ZERO_ID:
            found[name] = told
    return found


def retention_seconds(admin: AdminClient, topics: Sequence[str]) -> dict[str, float]:
    """Return how long topics keep records; those that keep them for good are left out."""
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in topics]
    found: dict[str, float] = {}
    for resource, answer in admin.describe_configs(resources, request_timeout=_SECONDS).items():
        settings = answer.result(_SECONDS + 1)
        milliseconds = int(settings["retention.ms"].value)
        if "delete" in settings["cleanup.policy"].value and milliseconds >= 0:
            found[resource.name] = milliseconds / 1_000
    return found


def near_end(admin: AdminClient, topic: str, retention: float) -> int:
    """Return how many records of a topic are removed within ``NEAR_END_SECONDS``."""
    partitions = admin.list_topics(topic, timeout=_SECONDS).topics[topic].partitions
    young = int(1_000 * (time.time() - max(0.0, retention - NEAR_END_SECONDS)))
    first = _offsets(admin, topic, partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
    last = _offsets(admin, topic, partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]
    behind = _offsets(admin, topic, partitions, OffsetSpec.for_timestamp(young))  # -1: none is younger
    return sum((behind[each] if behind[each] >= 0 else last[each]) - first[each] for each in partitions)


def _offsets(admin: AdminClient, topic: str, partitions: Iterable[int], spec: Any) -> dict[int, int]:
    places = {TopicPartition(topic, number): spec for number in partitions}
    asked = admin.list_offsets(places, request_timeout=_SECONDS)
    return {place.partition: answer.result(_SECONDS + 1).offset for place, answer in asked.items()}


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """Return what a cluster tells."""
    admin = AdminClient({**question["config"], "log_level": 0})
    topics, letters = question["topics"], question["dead_letter_topics"]
    try:
        ids = topic_ids(admin, topics)
    except (KafkaException, TimeoutError) as error:
        return {"error": error.args[0].name() if isinstance(error, KafkaException) else "_TIMED_OUT"}
    told: dict[str, Any] = {"ids": ids, "retention_seconds": {}, "near_end": {}}
    if not question["only_ids"]:
        try:
            told["retention_seconds"] = retention_seconds(admin, [*topics, *letters])
            for topic in letters:
                if (kept := told["retention_seconds"].get(topic)) is not None:
                    told["near_end"][topic] = near_end(admin, topic, kept)
        except (KafkaException, TimeoutError):
            pass  # not allowed to ask, or away: what is not told is not shown
    return told


if __name__ == "__main__":
    json.dump(answer(json.load(sys.stdin)), sys.stdout)
