"""Who leaves the group while another leaves it is not held up by the partitions that fall to it meanwhile."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from attributary.consumers.runtime import metrics
from attributary.consumers.runtime.settings import KafkaSettings
from tests.fixtures.pipeline import PATIENCE_SECONDS, wait_until
from tests.runtime.collector import Collector, collector_loop, collector_topics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from attributary.consumers.runtime.loop import ConsumerLoop

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

ENDLESS = 10**9


@pytest.fixture
def prefix(kafka_bootstrap: str) -> Iterator[str]:
    """Of a stage's topics, which exist."""
    with collector_topics(kafka_bootstrap, "leaving", partitions=2) as name:
        yield name


def shares(admin: AdminClient, group: str) -> list[int]:
    """How many partitions the broker has given to each member; [-1] while it does not know."""
    try:
        description: Any = admin.describe_consumer_groups([group])[group].result(120)
    except KafkaException:  # the coordinator is still loading
        return [-1]
    return sorted(len(member.assignment.topic_partitions) for member in description.members)


def assignments(stage: str) -> float:
    return float(metrics.rebalances.labels(stage, "assigned")._value.get())


@dataclass
class Member:
    """A member of the group in a thread; `close` of its stage waits for `go_on` once it has set `closing`."""

    stage: Collector
    loop: ConsumerLoop
    go_on: threading.Event = field(default_factory=threading.Event)
    closing: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self.loop.run, daemon=True)

    def close_stage(self) -> None:
        self.closing.set()
        assert self.go_on.wait(2 * PATIENCE_SECONDS)


@pytest.fixture(params=["classic", "consumer"])
def members(
    kafka_bootstrap: str, prefix: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Member, Member]]:
    """Two that run and have a partition each."""
    kafka = KafkaSettings.model_validate(
        {"KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap, "KAFKA_GROUP_PROTOCOL": request.param}
    )
    found = []
    for instance in range(2):
        stage, loop = collector_loop(kafka, prefix, enough=ENDLESS, ATTRIBUTION_INSTANCE=str(instance))
        stage.name = f"{request.param} collector {instance}"  # with a metric of its own
        member = Member(stage, loop)
        monkeypatch.setattr(stage, "close", member.close_stage)
        found.append(member)
    try:
        for member in found:
            member.thread.start()
        yield found[0], found[1]
    finally:
        for member in found:
            member.loop.stop()
            member.go_on.set()
            member.thread.join(120)


def test_partitions_that_fall_to_a_leaving_member_do_not_hold_it_up(
    kafka_bootstrap: str, prefix: str, members: tuple[Member, Member]
) -> None:
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap, "log_level": 0})
    slow, quick = members
    # The broker knows before they do.
    wait_until(
        lambda: shares(admin, prefix) == [1, 1] and all(assignments(member.stage.name) for member in members),
        "not each member has a partition",
    )
    slow.loop.stop()
    assert slow.closing.wait(120)
    before = assignments(slow.stage.name)
    quick.go_on.set()
    quick.loop.stop()
    quick.thread.join(120)
    wait_until(lambda: shares(admin, prefix) == [2], "the partition did not fall to the member that is closing")
    slow.go_on.set()
    asked = time.monotonic()
    slow.thread.join(120)
    took = time.monotonic() - asked
    assert assignments(slow.stage.name) == before + 1  # the fault was there: it was given one while it left
    assert took < 40.0, f"leaving took {took:.1f} s"  # a session lasts 45 s
    wait_until(lambda: shares(admin, prefix) == [], "the group still has a member")
