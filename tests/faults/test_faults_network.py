"""Cuts, one-way loss, delays, and bytes that arrive long after their sender is gone."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

import pytest

from tests.factories.traffic import publish, traffic
from tests.faults.fault_assertions import fired
from tests.fixtures.pipeline import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.conftest import FaultServers
    from tests.faults.proxy import Proxy
    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.fault, pytest.mark.slow]

STAGES = ("stitcher", "attributor", "auditor")
END_TXN = 26


@pytest.fixture
def behind_proxies(servers: FaultServers, broken: PipelineUnderTest, published: Publisher) -> PipelineUnderTest:
    """Stages in the middle of a load, with a proxy before each server."""
    broken.environment |= {**servers.proxied_kafka, **servers.proxied_postgres(broken.dsn)}
    broken.environment["ATTRIBUTION_BATCH_SIZE"] = "20"
    publish(published, traffic(1_000, 120, seed=31))
    broken.start(*STAGES)
    broken.wait_for_assignments()
    broken.wait_for(lambda: broken.events() > 100, "the load does not begin")
    return broken


def proxy_of(servers: FaultServers, server: str) -> Proxy:
    return {"Kafka": servers.kafka_proxy, "Postgres": servers.postgres_proxy}[server]


def ends_a_transaction(data: bytes) -> bool:
    """Whether a chunk of Kafka's protocol holds an EndTxn request: frames of a length, an API key and the rest."""
    at = 0
    while at + 6 <= len(data):
        length, api_key = struct.unpack_from(">ih", data, at)
        if api_key == END_TXN and 0 < length < 1_000:
            return True
        at += 4 + max(0, length)
    return False


def commits(data: bytes) -> bool:
    """Whether a chunk of Postgres' protocol ends with the query COMMIT."""
    return data.endswith(b"COMMIT\0")


SERVERS = pytest.mark.parametrize("server", ["Kafka", "Postgres"])


@SERVERS
def test_the_network_is_cut(
    servers: FaultServers, behind_proxies: PipelineUnderTest, published: Publisher, server: str
) -> None:
    proxy = proxy_of(servers, server)
    before = proxy.cut_connections
    proxy.cut()
    time.sleep(3.0)
    proxy.heal()
    fired(f"network to {server} cut", proxy.cut_connections - before)
    publish(published, traffic(200, 20, seed=32))
    behind_proxies.check(published.acknowledged)
    assert all(child.running for child in behind_proxies.stages.values())


def held_since(proxy: Proxy, before: tuple[int, int], way: str) -> int:
    return proxy.held_chunks - before[0] if way == "to" else proxy.held_answers - before[1]


@SERVERS
@pytest.mark.parametrize("way", ["to", "from"])
def test_the_network_loses_what_goes_one_way(
    servers: FaultServers, behind_proxies: PipelineUnderTest, published: Publisher, server: str, way: str
) -> None:
    proxy = proxy_of(servers, server)
    before = proxy.held_chunks, proxy.held_answers
    proxy.hold() if way == "to" else proxy.hold_answers()
    publish(published, traffic(200, 20, seed=39))  # a quick machine may be through with what was there
    time.sleep(5.0)  # longer than the session: the group gives the partitions away
    wait_until(lambda: held_since(proxy, before, way), "nothing is held")
    proxy.heal()
    fired(f"one-way loss {way} {server}", held_since(proxy, before, way))
    publish(published, traffic(200, 20, seed=33))
    behind_proxies.check(published.acknowledged)
    assert all(child.running for child in behind_proxies.stages.values())


@SERVERS
def test_everything_takes_ten_seconds(
    servers: FaultServers, behind_proxies: PipelineUnderTest, published: Publisher, server: str
) -> None:
    proxy = proxy_of(servers, server)
    before = proxy.delayed_chunks, proxy.delayed_answers
    proxy.delay(10.0)
    publish(published, traffic(200, 20, seed=40))  # a quick machine may be through with what was there
    time.sleep(12.0)
    proxy.heal()
    fired(f"10 s of delay to {server}", proxy.delayed_chunks - before[0])
    fired(f"10 s of delay from {server}", proxy.delayed_answers - before[1])
    behind_proxies.check(published.acknowledged)
    assert all(child.running for child in behind_proxies.stages.values())


@pytest.mark.parametrize("stage", ["stitcher", "attributor"])
def test_the_end_of_a_transaction_arrives_after_its_sender_was_replaced(
    servers: FaultServers, behind_proxies: PipelineUnderTest, published: Publisher, stage: str
) -> None:
    proxy = servers.kafka_proxy
    others = [name for name in STAGES if name != stage]
    for name in others:  # whose transactions must not be the one that is kept
        behind_proxies.kill(name)
        behind_proxies.start(name, KAFKA_BOOTSTRAP_SERVERS=behind_proxies.bootstrap)
    before = proxy.stopped_chunks, proxy.late_answers
    publish(published, traffic(400, 50, seed=34))
    proxy.stop_next(ends_a_transaction)
    behind_proxies.wait_for(lambda: proxy.stopped_chunks > before[0], "no transaction ends")
    behind_proxies.kill(stage)
    # The successor comes another way, with the same transactional id, and works; then the old bytes arrive.
    behind_proxies.start(stage, KAFKA_BOOTSTRAP_SERVERS=behind_proxies.bootstrap)
    behind_proxies.wait_for(lambda: behind_proxies.logged(stage, '"assigned"'), "the successor gets no partitions")
    time.sleep(1.0)
    proxy.heal()
    wait_until(lambda: proxy.late_answers > before[1], "the broker did not see the late EndTxn")
    fired(f"EndTxn of the {stage} reached the broker after its sender was replaced")
    publish(published, traffic(200, 20, seed=35))
    behind_proxies.check(published.acknowledged)


@pytest.mark.parametrize(("server", "matches"), [("Kafka", ends_a_transaction), ("Postgres", commits)])
def test_the_end_of_a_transaction_arrives_after_its_connection_broke(
    servers: FaultServers,
    behind_proxies: PipelineUnderTest,
    published: Publisher,
    server: str,
    matches: Callable[[bytes], bool],
) -> None:
    proxy = proxy_of(servers, server)
    before = proxy.stopped_chunks, proxy.late_answers
    proxy.stop_next(matches)
    behind_proxies.wait_for(lambda: proxy.stopped_chunks > before[0], "no transaction ends")
    proxy.sever_stopped()
    # The sender lives, connects anew and goes on; then what it sent on the old connection arrives.
    time.sleep(3.0)
    proxy.heal()
    wait_until(lambda: proxy.late_answers > before[1], "the server did not see what was late")
    fired({"Kafka": "EndTxn", "Postgres": "COMMIT"}[server] + " arrived after its connection broke, sender alive")
    publish(published, traffic(200, 20, seed=36))
    behind_proxies.check(published.acknowledged)
    assert all(child.running for child in behind_proxies.stages.values())
