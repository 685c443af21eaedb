"""After an erasure: no redriven letter brings a person back, and forced compaction leaves no id that would stay."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # the library re-exports without __all__
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from attributary.schemas.topics import (
    ERASURES,
    RESULTS,
    TOUCHPOINTS,
    catalogue,
    dead_letter_topics,
)
from tests.factories.traffic import publish, traffic
from tests.fixtures.pipeline import wait_until
from tests.integration.test_integration_dead_letters import record
from tests.integration.test_integration_erasure import REVENUE, STAGES, command, completed, people, request
from tests.observed_state import read_dead_letters, read_topics

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]

# What bounds a record of a compacted topic in production, in milliseconds instead of days.
QUICK = {
    "segment.ms": "100", "min.compaction.lag.ms": "0", "max.compaction.lag.ms": "100", "delete.retention.ms": "0",
    "min.cleanable.dirty.ratio": "0.01",
}  # fmt: skip
LETTER_USER = "user-of-a-letter"
STORED = "SELECT count(*) FROM attribution_touchpoints WHERE identity_key = %s"


def compact_quickly(bootstrap: str, topics: Iterable[str]) -> dict[str, int]:
    """Let topics be compacted at once; return how many partitions each has."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    partitions = {}
    for topic in topics:
        partitions[topic] = len(admin.list_topics(topic, timeout=20).topics[topic].partitions)
        entries = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in QUICK.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(60)
    return partitions


def topics_with(bootstrap: str, topics: Iterable[str], names: list[bytes]) -> set[str]:
    """Which topics hold one of the names, in a key, a value or a header."""
    found = set()
    for message in read_topics(bootstrap, topics):
        headers: Any = message.headers() or ()
        parts = [message.key() or b"", message.value() or b"", *(value or b"" for _, value in headers)]
        if any(name in part for part in parts for name in names):
            found.add(message.topic() or "")
    return found


def test_no_topic_keeps_an_erased_person_for_good_and_no_letter_brings_one_back(
    pipeline: PipelineUnderTest, publisher: Publisher
) -> None:
    events = traffic(120, 25, seed=5)
    pipeline.environment["SWEEP_REPAIR_AFTER_SECONDS"] = "2"
    # 1. Somebody of the letters: refused, because the tenant calls the id generic.
    assert command(pipeline, "tenants", "set", "acme", "--generic-id", LETTER_USER)[0] == 0
    publisher.send(TOUCHPOINTS, record(TOUCHPOINTS, event_id="letter-1", user_id=LETTER_USER, anonymous_id=None))
    publish(publisher, events)
    pipeline.start(*STAGES)
    pipeline.settle()
    assert len(read_dead_letters(pipeline.bootstrap)) == 1
    before = pipeline.query(REVENUE)

    # 2. All of them are erased; then the id is no generic one any more, and the letter is sent again.
    users = {(event.record["tenant_id"], event.record.get("user_id")) for event in events}
    alone = [each for each in people(events, 50) if sum(user == each[1] for _, user in users) == 1]
    wanted = [*alone[:4], ("acme", LETTER_USER)]  # names that another tenant has not, too
    assert len(wanted) == 5
    request(publisher, wanted)
    completed(pipeline, len(wanted))
    assert command(pipeline, "tenants", "set", "acme", "--clear", "generic-id")[0] == 0
    pipeline.stop()  # stages that start now know the ids of now
    code, said = command(pipeline, "dlq", "redrive")
    assert code == 0, said
    assert "1 sent" in said
    pipeline.start(*STAGES)
    pipeline.settle()
    assert len(read_dead_letters(pipeline.bootstrap)) == 1, "the letter was read again and is no letter any more"
    assert pipeline.query(STORED, f"u:{LETTER_USER}") == 0
    assert pipeline.query("SELECT count(*) FROM attribution_journeys WHERE journey_key = %s", f"u:{LETTER_USER}") == 0
    assert pipeline.query(REVENUE) == before
    pipeline.stop()

    # 3. Every topic that keeps its newest records for good is compacted; then none of them holds a name.
    names = [user.encode() for _, user in wanted]
    topics = [*catalogue(), *dead_letter_topics()]
    compacted = [topic.name for topic in topics if topic.config["cleanup.policy"] == "compact"]
    assert {RESULTS, ERASURES} <= set(compacted)
    assert topics_with(pipeline.bootstrap, [RESULTS], names) == {RESULTS}, "results are there until they are compacted"
    partitions = compact_quickly(pipeline.bootstrap, compacted)

    def is_gone() -> bool:
        # A segment rolls when something is appended, as the repeated tombstone does.
        for topic in compacted:
            for partition in range(partitions[topic]):
                publisher.send_bytes(topic, None, b"nobody|nothing", partition)
        publisher.flush()
        time.sleep(0.2)  # longer than segment.ms: the next append rolls
        return not topics_with(pipeline.bootstrap, compacted, names)

    wait_until(is_gone, "a compacted topic still holds an erased person", 240.0)

    # 4. What is left has an end, and tables, logs and files hold nothing.
    texts = [each for _, user in wanted for each in ("--text", user)]
    code, found = command(pipeline, "erase", "verify", "--json", "--path", str(pipeline.folder), *texts)
    assert code == 0, found
    assert found["is_clean"], found
    own_end = {"attribution_training_changes", "attribution_tombstones"}  # no trainer runs here; 15 days
    for trace in found["traces"]:
        assert trace["place"] not in compacted, found
        assert trace["place"] in own_end or "days after it was written" in trace["bound"], found
