"""The broker and Postgres die, or drop connections, in the middle of the load."""

from __future__ import annotations

import time
from itertools import count
from typing import TYPE_CHECKING

import psycopg
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from attributary.consumers.runtime.errors import EXIT_BUG, EXIT_CONFIG
from attributary.schemas.topics import TOUCHPOINTS, dead_letter_topic, dead_letter_topics
from tests.factories.traffic import publish, traffic
from tests.faults.fault_assertions import fired
from tests.fixtures.pipeline import UNOBSERVED
from tests.observed_state import read_dead_letters

if TYPE_CHECKING:
    from tests.faults.conftest import FaultServers
    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.fault, pytest.mark.slow]

STAGES = ("stitcher", "attributor", "auditor")
JOINING = ("stitcher", "attributor")


def under_load(pipeline: PipelineUnderTest, publisher: Publisher, seed: int) -> None:
    """Start the stages on a backlog and wait until they are in the middle of it."""
    pipeline.environment["ATTRIBUTION_BATCH_SIZE"] = "20"
    publish(publisher, traffic(1_500, 150, seed=seed))
    pipeline.start(*STAGES)
    pipeline.wait_for_assignments()
    pipeline.wait_for(lambda: pipeline.events() > 100, "the load does not begin")


def logged(pipeline: PipelineUnderTest, *texts: str) -> bool:
    logs = [path.read_text(errors="replace") for path in pipeline.folder.glob("*.log")]
    return any(text in log for text in texts for log in logs)


@pytest.mark.parametrize("how", ["hard", "clean"])
def test_the_broker_goes_away_and_comes_back(
    servers: FaultServers, broken: PipelineUnderTest, published: Publisher, how: str
) -> None:
    under_load(broken, published, 21)
    node = servers.kafka.nodes[0]
    before = node.child.pid
    node.kill() if how == "hard" else node.stop()
    assert not node.running
    time.sleep(2.0)
    servers.kafka.restart(node)
    assert node.child.pid != before
    fired(f"broker restarted ({how})")
    publish(published, traffic(200, 20, seed=22))
    # Now and then the broker takes a minute or two to end what it had open, and shows no stable offsets until then.
    broken.check(published.acknowledged, settle_seconds=300.0)
    assert all(child.running for child in broken.stages.values())  # an outage is waited out, not died of


@pytest.mark.parametrize("how", ["crash", "fast shutdown"])
def test_postgres_goes_away_and_comes_back(
    servers: FaultServers, broken: PipelineUnderTest, published: Publisher, how: str
) -> None:
    under_load(broken, published, 23)
    before = servers.postgres.child.pid
    publish(published, traffic(400, 40, seed=48))  # a quick machine may be through with what was there
    if how == "crash":
        servers.postgres.kill()
        time.sleep(1.5)
    servers.postgres.restart()
    assert servers.postgres.child.pid != before
    fired(f"Postgres restarted ({how})")
    publish(published, traffic(200, 20, seed=24))
    broken.check(published.acknowledged)
    assert logged(broken, '"paused"')
    assert all(child.running for child in broken.stages.values())


def test_connections_are_killed_in_the_middle_of_everything(
    servers: FaultServers, broken: PipelineUnderTest, published: Publisher
) -> None:
    under_load(broken, published, 25)
    killed, seeds = 0, count(60)
    with psycopg.connect(servers.postgres.dsn, autocommit=True) as connection:
        deadline = time.monotonic() + 180
        last = time.monotonic()
        while killed < 12 and time.monotonic() < deadline:
            row = connection.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE application_name LIKE 'attributary-%' AND state = 'active' AND xact_start IS NOT NULL"
            ).fetchone()
            if row and row[0]:
                killed += row[0]
                last = time.monotonic()
            elif time.monotonic() - last > 2.0:  # what there was may be stored, and then nobody is in the middle of it
                publish(published, traffic(200, 20, seed=next(seeds)))
                last = time.monotonic()
            time.sleep(0.01 if not killed else 0.2)
    publish(published, traffic(200, 20, seed=26))
    broken.check(published.acknowledged)
    fired("Postgres connections killed in the middle of everything", killed)
    assert logged(broken, '"paused"')


@pytest.mark.parametrize("stage", ["stitcher", "auditor"])
def test_a_connection_is_killed_in_the_middle_of_commit(
    servers: FaultServers, broken: PipelineUnderTest, published: Publisher, stage: str
) -> None:
    under_load(broken, published, 28)
    # Alone: another stage that waits in its COMMIT first would hold rows that this one has to wait for.
    others = ["attributor", "auditor"] if stage == "stitcher" else ["stitcher"]
    if stage == "auditor":
        broken.stages["attributor"].suspend()  # it holds no rows, and has much to say when it wakes up
        broken.wait_for(lambda: broken.query(UNOBSERVED) > 10, "nothing is owed")
    for other in others:
        broken.stages.pop(other).stop(120.0)
    with psycopg.connect(servers.postgres.dsn, autocommit=True) as connection:
        # A COMMIT that waits for a replica that does not exist is in its middle for as long as we like: it is in the
        # WAL, and nobody has been told.
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        try:
            connection.execute("SELECT pg_reload_conf()")
            if stage == "auditor":
                broken.stages["attributor"].resume()
            publish(published, traffic(200, 20, seed=29))
            broken.wait_for(lambda: in_commit(connection, stage), "nobody commits")
            row = connection.execute(f"SELECT count(pg_terminate_backend(pid)) {_IN_COMMIT}", [stage]).fetchone()
            fired(f"Postgres connection of the {stage} killed in the middle of COMMIT", row[0] if row else 0)
        finally:
            connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            connection.execute("SELECT pg_reload_conf()")
    broken.start(*others)
    broken.check(published.acknowledged)
    assert all(child.running for child in broken.stages.values())


_IN_COMMIT = (
    "FROM pg_stat_activity WHERE application_name = 'attributary-' || %s "
    "AND query = 'COMMIT' AND wait_event = 'SyncRep'"
)


def in_commit(connection: psycopg.Connection, stage: str) -> bool:
    return connection.execute(f"SELECT {_IN_COMMIT}", [stage]).fetchone() is not None


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_rebalance_storm(broken: PipelineUnderTest, published: Publisher, protocol: str) -> None:
    broken.environment["KAFKA_GROUP_PROTOCOL"] = protocol
    publish(published, traffic(1_000, 100, seed=27))
    broken.start(*STAGES)
    broken.wait_for_assignments()
    for number in range(4):
        for stage in JOINING:
            broken.start(stage, instance="storm")
        broken.wait_for(
            lambda: all(broken.logged(f"{stage}-storm", '"assigned"') for stage in JOINING), "nobody joins the group"
        )
        joined = [broken.stages.pop(f"{stage}-storm") for stage in JOINING]
        for child in joined:
            child.kill() if number == 1 else child.terminate()
        for child in joined:
            child.wait(120.0)
        publish(published, traffic(100, 10, seed=30 + number))
    broken.check(published.acknowledged)
    for stage in JOINING:
        # The first assignment is no storm; each member that joined took some, each that left gave them back.
        fired(f"rebalance storm, {protocol}, {stage}", broken.logged(stage, '"assigned"') - 3)


def test_the_dead_letter_topic_is_gone(broken: PipelineUnderTest, published: Publisher) -> None:
    # A producer waits so long for a topic that may be new; half a minute by default.
    broken.environment["KAFKA_EXTRA"] = '{"topic.metadata.propagation.max.ms": 1000}'
    publish(published, traffic(300, 30, seed=37))
    broken.start(*STAGES)
    broken.settle()
    missing = dead_letter_topic(TOUCHPOINTS, "attribution.stitcher")
    admin = AdminClient({"bootstrap.servers": broken.bootstrap, "log_level": 0})
    admin.delete_topics([missing])[missing].result(120)
    published.send_bytes(TOUCHPOINTS, b"neither Avro nor anything", b"key", 0)
    publish(published, traffic(100, 10, seed=38))
    code, log = broken.ended("stitcher")
    assert code == EXIT_BUG, log
    assert "Kafka refuses our records" in log
    assert broken.events() > 0
    broken.start("stitcher")  # nor does it start without the topic
    code, log = broken.ended("stitcher")
    assert code == EXIT_CONFIG, log
    assert f"topics are missing: {missing}" in log
    fired("a dead-letter topic was gone")
    topic = next(topic for topic in dead_letter_topics() if topic.name == missing)
    admin.create_topics([NewTopic(missing, 4, 1, config=dict(topic.config))])[missing].result(120)
    broken.start("stitcher")
    broken.check(published.acknowledged)
    assert [letter.value for letter in read_dead_letters(broken.bootstrap)] == [b"neither Avro nor anything"]
