"""One broker and one Postgres that may be broken, shared by all fault tests, each behind a proxy as well.

They are not the run's own (tests/fixtures): a test that fails must not take the others with it. Every test has empty
topics and a database of its own; a test that ends leaves both servers running.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from attributary.local.kafka_jars import free_node_ports, kafka_cluster
from attributary.local.ports import LOOPBACK, free_ports
from attributary.local.postgres import embedded_postgres, for_database
from tests.faults.own_servers import SHORT_TIMEOUTS, no_kafka_skips
from tests.faults.proxy import Proxy
from tests.fixtures.database import _migrate
from tests.fixtures.pipeline import PipelineUnderTest, Publisher
from tests.fixtures.topics import recreate_topics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from attributary.local.kafka_jars import KafkaCluster
    from attributary.local.postgres_cluster import Cluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two tries need more time than the run's default."""
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(1_500))


@dataclass
class FaultServers:
    """What a fault test may break."""

    kafka: KafkaCluster
    postgres: Cluster
    kafka_proxy: Proxy
    postgres_proxy: Proxy

    @property
    def proxied_kafka(self) -> dict[str, str]:
        """Variables that lead a stage to Kafka through the proxy."""
        return {"KAFKA_BOOTSTRAP_SERVERS": f"{LOOPBACK}:{self.kafka_proxy.port}"}

    def proxied_postgres(self, dsn: str) -> dict[str, str]:
        """Variables that lead a stage to the test's database through the proxy."""
        name = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
        through = self.postgres.tcp_dsn.replace(f":{self.postgres.port}/", f":{self.postgres_proxy.port}/")
        return {"DATABASE_URL": for_database(through, str(name))}


@pytest.fixture(scope="session")
def servers() -> Iterator[FaultServers]:
    front, database_front = free_ports(2)
    ports = free_node_ports(1, proxy_ports=[front])
    with no_kafka_skips(), kafka_cluster(ports=ports) as kafka, embedded_postgres(durable=False) as server:
        if server.cluster is None or ports[0].proxied is None:
            pytest.fail("the fault tests need servers of their own")
        with (
            Proxy((LOOPBACK, ports[0].proxied), front) as kafka_proxy,
            Proxy((LOOPBACK, server.cluster.port), database_front) as postgres_proxy,
        ):
            yield FaultServers(kafka, server.cluster, kafka_proxy, postgres_proxy)


@pytest.fixture
def broken(servers: FaultServers, tmp_path: Path) -> Iterator[PipelineUnderTest]:
    """A pipeline on servers that the test may break."""
    servers.kafka_proxy.heal()
    servers.postgres_proxy.heal()
    bootstrap = recreate_topics(servers.kafka.bootstrap)
    name = f"faults_{secrets.token_hex(4)}"
    with psycopg.connect(servers.postgres.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    dsn = for_database(servers.postgres.dsn, name)
    _migrate(dsn)
    found = PipelineUnderTest(bootstrap, dsn, tmp_path, dict(SHORT_TIMEOUTS))
    try:
        yield found
    finally:
        servers.kafka_proxy.heal()
        servers.postgres_proxy.heal()
        found.stop()


@pytest.fixture
def published(broken: PipelineUnderTest) -> Publisher:
    return Publisher(broken.bootstrap)
