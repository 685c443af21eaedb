"""Disks that are full: Postgres without room for data, Postgres without room for its WAL, a broker without room."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from attributary.local.kafka_jars import kafka_cluster
from attributary.local.ports import free_port
from attributary.local.postgres import for_database
from attributary.local.postgres_cluster import Cluster
from attributary.local.postgres_install import account_for
from tests.factories.traffic import publish, traffic
from tests.faults.fault_assertions import fired
from tests.faults.own_servers import SHORT_TIMEOUTS, no_kafka_skips
from tests.faults.small_disk import SmallDisk, small_disk
from tests.fixtures.database import _migrate
from tests.fixtures.pipeline import PipelineUnderTest, Publisher
from tests.fixtures.topics import recreate_topics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from attributary.local.kafka_jars import KafkaCluster
    from tests.faults.conftest import FaultServers

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.fault, pytest.mark.slow]

STAGES = ("stitcher", "attributor", "auditor")
NO_SPACE = "No space left on device"


@pytest.fixture
def data_disk(servers: FaultServers, broken: PipelineUnderTest) -> Iterator[SmallDisk]:
    """A small disk that the pipeline's database, its tables and indexes lie on."""
    account = account_for(servers.postgres.data)
    name = f"small_{secrets.token_hex(4)}"
    with small_disk(80, (account.uid, account.gid) if account else None) as disk:
        with psycopg.connect(servers.postgres.dsn, autocommit=True) as connection:
            connection.execute(f"CREATE TABLESPACE {name} LOCATION '{disk.path}'")
            connection.execute(f"CREATE DATABASE {name} TABLESPACE {name}")
        broken.dsn = for_database(servers.postgres.dsn, name)
        _migrate(broken.dsn)
        try:
            yield disk
        finally:
            disk.free()
            broken.stop()
            with psycopg.connect(servers.postgres.dsn, autocommit=True) as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
                connection.execute(f"DROP TABLESPACE {name}")


def test_postgres_has_no_room_for_data(
    servers: FaultServers, broken: PipelineUnderTest, published: Publisher, data_disk: SmallDisk
) -> None:
    publish(published, traffic(1_000, 120, seed=51))
    broken.environment["ATTRIBUTION_BATCH_SIZE"] = "20"
    broken.start(*STAGES)
    broken.wait_for_assignments()
    broken.wait_for(lambda: broken.events() > 100, "the load does not begin")
    before = len(servers.postgres.child.log.read_bytes())
    data_disk.fill()
    # The stitcher has most of the load before it; whether the auditor needs a new page of its own is chance.
    broken.wait_for(lambda: broken.logged("stitcher", "DiskFull 53100"), "no ENOSPC")
    assigned = broken.logged("stitcher", '"assigned"')
    time.sleep(4.0)  # longer than the session: who does not poll is out of the group
    data_disk.free()
    said = servers.postgres.child.log.read_bytes()[before:].decode(errors="replace")
    fired("Postgres had no room for data", said.count(NO_SPACE))
    publish(published, traffic(200, 20, seed=52))
    broken.check(published.acknowledged)
    assert broken.logged("stitcher", '"assigned"') == assigned  # it kept its partitions
    assert all(child.running for child in broken.stages.values())


@pytest.fixture
def wal_disk(broken: PipelineUnderTest) -> Iterator[tuple[SmallDisk, Cluster]]:
    """A small disk that holds the WAL of a server of the test's own, and nothing else."""
    home = Path(tempfile.mkdtemp(prefix="attributary-pg-"))
    home.chmod(0o711)
    account = account_for(home / "data")
    with small_disk(48, (account.uid, account.gid) if account else None) as disk:
        # Segments of a megabyte, so that a new one is needed soon.
        init = (f"--waldir={disk.path}/wal", "--wal-segsize=1")
        server = Cluster(home / "data", port=free_port(), durable=False, init=init)
        server.start()
        try:
            with psycopg.connect(server.dsn, autocommit=True) as connection:
                connection.execute("CREATE DATABASE pipeline")
            broken.dsn = for_database(server.dsn, "pipeline")
            _migrate(broken.dsn)
            yield disk, server
        finally:
            broken.stop()
            server.stop()
            shutil.rmtree(home, ignore_errors=True)


def test_postgres_has_no_room_for_its_wal(
    broken: PipelineUnderTest, published: Publisher, wal_disk: tuple[SmallDisk, Cluster]
) -> None:
    disk, server = wal_disk
    publish(published, traffic(1_000, 120, seed=53))
    broken.environment["ATTRIBUTION_BATCH_SIZE"] = "20"
    broken.start(*STAGES)
    broken.wait_for_assignments()
    broken.wait_for(lambda: broken.events() > 100, "the load does not begin")
    before = len(server.child.log.read_bytes())
    disk.fill()

    def panics() -> int:
        said = server.child.log.read_bytes()[before:].decode(errors="replace").splitlines()
        return sum("PANIC" in line and NO_SPACE in line for line in said)

    broken.wait_for(panics, "Postgres still has room")
    time.sleep(2.0)
    disk.free()
    if not server.child.running:  # it gives up when it finds no room to recover either
        server.restart()
    fired("Postgres had no room for its WAL and gave up", panics())
    publish(published, traffic(200, 20, seed=54))
    broken.check(published.acknowledged)
    assert all(child.running for child in broken.stages.values())


@pytest.fixture
def log_disk(tmp_path: Path) -> Iterator[tuple[SmallDisk, KafkaCluster]]:
    """A small disk that holds the logs of a broker of the test's own."""
    with small_disk(96) as disk:
        node = tmp_path / "kafka" / "node-1"
        node.mkdir(parents=True)
        (disk.path / "data").mkdir()
        (node / "data").symlink_to(disk.path / "data")
        with no_kafka_skips(), kafka_cluster(folder=tmp_path / "kafka") as kafka:
            try:
                yield disk, kafka
            finally:
                kafka.kill()


def test_a_broker_has_no_room_for_its_logs(
    log_disk: tuple[SmallDisk, KafkaCluster], database: str, tmp_path: Path
) -> None:
    disk, kafka = log_disk
    node = kafka.nodes[0]
    pipeline = PipelineUnderTest(recreate_topics(kafka.bootstrap), database, tmp_path, SHORT_TIMEOUTS)
    publisher = Publisher(kafka.bootstrap)
    try:
        publish(publisher, traffic(1_000, 120, seed=55))
        pipeline.start(*STAGES)
        pipeline.wait_for_assignments()
        pipeline.wait_for(lambda: pipeline.events() > 100, "the load does not begin")
        disk.fill()
        pipeline.wait_for(lambda: not node.running, "the broker still has room")
        said = node.child.log.read_text(errors="replace")
        time.sleep(2.0)
        disk.free()
        kafka.restart(node)
        fired("a broker had no room for its logs and halted", int(NO_SPACE in said))
        publish(publisher, traffic(200, 20, seed=56))
        pipeline.check(publisher.acknowledged, settle_seconds=300.0)
        assert all(child.running for child in pipeline.stages.values())
    finally:
        pipeline.stop()
