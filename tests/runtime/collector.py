"""A stage that keeps what it reads, for tests of the loop on a broker."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from attributary.consumers.runtime.health import Heartbeat
from attributary.consumers.runtime.loop import ConsumerLoop
from attributary.consumers.runtime.records import Outcome, Record
from attributary.consumers.runtime.settings import KafkaSettings, ProcessSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


class Collector:
    """Keeps values, and stops its loop when it has enough.

    Args:
        enough: how many values.
        prefix: of its group and its topics: PREFIX-in, PREFIX-out, and the dead letters of the first.
    """

    name = "collector"
    max_records = 1_000

    def __init__(self, enough: int, prefix: str) -> None:
        self.enough = enough
        self.group = prefix
        self.topics = (f"{prefix}-in",)
        self.output_topics = (f"{prefix}-out",)
        self.values: list[bytes | None] = []
        self.loop: ConsumerLoop | None = None

    def handle(self, batch: Sequence[Record]) -> Outcome:
        self.values += [record.value for record in batch]
        if len(self.values) >= self.enough and self.loop is not None:
            self.loop.stop()
        return Outcome()

    def stored_positions(self, partitions: Iterable[tuple[str, int]]) -> Mapping[tuple[str, int], int]:
        return dict.fromkeys(partitions, 0)

    def is_ready(self) -> bool:
        return True

    def close(self) -> None:
        pass


@contextmanager
def collector_topics(bootstrap: str, label: str, partitions: int = 1) -> Iterator[str]:
    """Yield a new prefix whose topics exist until the context ends; the input has so many partitions."""
    prefix = f"{label}-{secrets.token_hex(4)}"
    topics = {f"{prefix}-in": partitions, f"{prefix}-out": 1, f"{prefix}-in.{prefix}.dlq": 1}
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    for future in admin.create_topics([NewTopic(topic, count, 1) for topic, count in topics.items()]).values():
        future.result(120)
    yield prefix
    for future in admin.delete_topics(list(topics)).values():
        future.result(120)


def collector_loop(
    kafka: KafkaSettings, prefix: str = "stage", *, enough: int = 20, **process: str
) -> tuple[Collector, ConsumerLoop]:
    """Return a collector and its loop, not running yet."""
    stage = Collector(enough, prefix)
    settings = ProcessSettings.model_validate({"ATTRIBUTION_FIRST_START": "earliest", **process})
    stage.loop = ConsumerLoop(stage, kafka, settings, Heartbeat(stage.is_ready))
    return stage, stage.loop
