"""Postgres fails over to a replica that lagged: commits that were confirmed are gone, and everything is repaired."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from attributary.local.ports import LOOPBACK, free_ports
from attributary.local.postgres import for_database
from attributary.local.postgres_cluster import Cluster
from tests.factories.traffic import publish, traffic
from tests.faults.fault_assertions import fired
from tests.faults.proxy import Proxy
from tests.fixtures.database import _migrate
from tests.fixtures.pipeline import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.fault, pytest.mark.slow]

STAGES = ("stitcher", "attributor", "auditor")
LAST_COMMITS = 300  # so many events at least are confirmed by the primary and unknown to the replica


@pytest.fixture
def pair() -> Iterator[tuple[Cluster, Cluster]]:
    """A primary with a migrated database `pipeline`, and a replica that follows it asynchronously."""
    home = Path(tempfile.mkdtemp(prefix="attributary-pg-"))
    home.chmod(0o711)
    ports = free_ports(2)
    primary = Cluster(home / "primary", port=ports[0], durable=False)
    replica = None
    try:
        primary.start()
        with psycopg.connect(primary.dsn, autocommit=True) as connection:
            connection.execute("CREATE DATABASE pipeline")
        _migrate(for_database(primary.dsn, "pipeline"))
        replica = primary.replica(home / "replica", port=ports[1])
        replica.start()
        yield primary, replica
    finally:
        for server in (primary, replica):
            if server is not None:
                server.stop()
        shutil.rmtree(home, ignore_errors=True)


def stop_following(replica: Cluster) -> None:
    """Let the replica receive nothing any more; what it received it keeps."""
    with psycopg.connect(replica.dsn, autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET primary_conninfo = ''")
        connection.execute("SELECT pg_reload_conf()")
        question = "SELECT count(*) FROM pg_stat_wal_receiver"
        wait_until(lambda: connection.execute(question).fetchone() == (0,), "the replica still follows")


def test_the_replica_that_takes_over_had_lagged(
    broken: PipelineUnderTest, published: Publisher, pair: tuple[Cluster, Cluster], free_port: int
) -> None:
    primary, replica = pair
    on_primary, on_replica = (for_database(server.dsn, "pipeline") for server in pair)
    through = primary.tcp_dsn.replace(f":{primary.port}/", f":{free_port}/")
    with Proxy((LOOPBACK, primary.port), free_port) as proxy:
        broken.dsn = on_primary
        broken.environment |= {"DATABASE_URL": for_database(through, "pipeline"), "ATTRIBUTION_BATCH_SIZE": "20"}
        publish(published, traffic(1_500, 150, seed=61))
        broken.environment["SWEEP_REPAIR_AFTER_SECONDS"] = "2"  # the sweeper asks for what the auditor has repaired
        broken.start(*STAGES, "sweeper")
        broken.wait_for_assignments()
        broken.wait_for(lambda: broken.events() > 200, "the load does not begin")
        stop_following(replica)
        followed = broken.events()
        had = broken.query("SELECT count(*) FROM attribution_results")

        def went_on() -> bool:
            more = broken.query("SELECT count(*) FROM attribution_results") > had
            return more and broken.events() > followed + LAST_COMMITS

        broken.wait_for(went_on, "the primary does not go on")
        confirmed, results = broken.events(), broken.query("SELECT count(*) FROM attribution_results")
        primary.kill()
        broken.dsn = on_replica
        lost = confirmed - broken.events()
        assert lost >= LAST_COMMITS
        assert broken.query("SELECT count(*) FROM attribution_results") < results
        proxy.redirect((LOOPBACK, replica.port))
        # It answers before it is promoted, and takes nothing.
        broken.wait_for(lambda: broken.logged("stitcher", "ReadOnlySqlTransaction"), "nobody met the replica")
        with psycopg.connect(replica.dsn, autocommit=True) as connection:
            assert connection.execute("SELECT pg_promote()").fetchone() == (True,)
        fired("a Postgres replica without the last commits took over", lost)
        fired("a stage met a Postgres that only reads")
        publish(published, traffic(200, 20, seed=62))
        broken.check(published.acknowledged, repeats_allowed=True)
        assert all(child.running for child in broken.stages.values())
