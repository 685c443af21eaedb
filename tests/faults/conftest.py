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
from _pytest.runner import runtestprotocol

from attributary.local.kafka_jars import free_node_ports, kafka_cluster
from attributary.local.ports import LOOPBACK, free_ports
from attributary.local.postgres import embedded_postgres, for_database
from tests.faults.fault_assertions import FIRED
from tests.faults.own_servers import SHORT_TIMEOUTS, no_kafka_skips
from tests.faults.proxy import Proxy
from tests.faults.small_disk import SKIPPED
from tests.fixtures.database import _migrate
from tests.fixtures.pipeline import PipelineUnderTest, Publisher
from tests.fixtures.topics import recreate_topics

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from attributary.local.kafka_jars import KafkaCluster
    from attributary.local.postgres_cluster import Cluster

# What a test says when something took too long or did not start: on a machine that is busy, or for the pause after a
# broker's restart (docs/reference/reliability.md, Limits). A broken promise says otherwise, and is never tried again.
_TOO_SLOW = ("records not stitched, or results not observed", "ended meanwhile", "a stage got no partitions")
_TRIED_AGAIN: list[str] = []  # each with what the first try said


_MOST_TOLD = 4_000


def _was_slow(reports: Sequence[pytest.TestReport]) -> bool:
    failed = [report for report in reports if report.failed]
    return bool(failed) and all(
        report.when == "setup" or any(words in _said(report) for words in _TOO_SLOW) for report in failed
    )


def _said(report: pytest.TestReport) -> str:
    """Return the error's own text: the sources shown around it name every error that there could be."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return crash.message if crash else report.longreprtext


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """Give a fault test that was only too slow a second try, and say so at the end."""
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    if _was_slow(reports) and isinstance(item, pytest.Function) and item.get_closest_marker("once") is None:
        said = [report.longreprtext for report in reports if report.failed]
        _TRIED_AGAIN.append(f"{item.nodeid}\n" + "\n".join(said)[-_MOST_TOLD:])
        item._initrequest()
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two tries need more time than the run's default."""
    for item in items:
        if Path(__file__).parent in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(720))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIRED:
        broken = sum("tests/faults/" in report.nodeid for report in terminalreporter.stats.get("failed", []))
        terminalreporter.section(f"{FIRED.total()} faults fired on real servers, {broken} violations")
        for fault, times in sorted(FIRED.items()):
            terminalreporter.write_line(f"  {times:>7}  {fault}")
    if SKIPPED:
        terminalreporter.section("THE TESTS OF FULL DISKS DID NOT RUN", sep="!", red=True, bold=True)
        terminalreporter.write_line(SKIPPED[0])
    for story in _TRIED_AGAIN:
        terminalreporter.write_line(f"too slow at first, tried again: {story}", yellow=True)


@dataclass
class Ground:
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
def ground() -> Iterator[Ground]:
    front, database_front = free_ports(2)
    ports = free_node_ports(1, proxy_ports=[front])
    with no_kafka_skips(), kafka_cluster(ports=ports) as kafka, embedded_postgres(durable=False) as server:
        if server.cluster is None or ports[0].proxied is None:
            pytest.fail("the fault tests need servers of their own")
        with (
            Proxy((LOOPBACK, ports[0].proxied), front) as kafka_proxy,
            Proxy((LOOPBACK, server.cluster.port), database_front) as postgres_proxy,
        ):
            yield Ground(kafka, server.cluster, kafka_proxy, postgres_proxy)


@pytest.fixture
def broken(ground: Ground, tmp_path: Path) -> Iterator[PipelineUnderTest]:
    """A pipeline on servers that the test may break."""
    ground.kafka_proxy.heal()
    ground.postgres_proxy.heal()
    bootstrap = recreate_topics(ground.kafka.bootstrap)
    name = f"faults_{secrets.token_hex(4)}"
    with psycopg.connect(ground.postgres.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    dsn = for_database(ground.postgres.dsn, name)
    _migrate(dsn)
    found = PipelineUnderTest(bootstrap, dsn, tmp_path, dict(SHORT_TIMEOUTS))
    try:
        yield found
    finally:
        ground.kafka_proxy.heal()
        ground.postgres_proxy.heal()
        found.stop()


@pytest.fixture
def published(broken: PipelineUnderTest) -> Publisher:
    return Publisher(broken.bootstrap)
