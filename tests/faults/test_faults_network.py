"""Cuts, one-way loss, delays, and bytes that arrive long after their sender is gone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.traffic import publish, traffic

if TYPE_CHECKING:
    from tests.faults.conftest import Ground
    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.fault, pytest.mark.slow]

STAGES = ("stitcher", "attributor", "auditor")


@pytest.fixture
def behind_proxies(ground: Ground, broken: PipelineUnderTest, published: Publisher) -> PipelineUnderTest:
    """Stages in the middle of a load, with a proxy before each server."""
    broken.environment |= {**ground.proxied_kafka, **ground.proxied_postgres(broken.dsn)}
    broken.environment["ATTRIBUTION_BATCH_SIZE"] = "20"
    publish(published, traffic(1_000, 120, seed=31))
    broken.start(*STAGES)
    broken.wait_for_assignments()
    broken.wait_for(lambda: broken.events() > 100, "the load does not begin")
    return broken


@pytest.mark.parametrize("server", ["kafka", "postgres"])
def test_the_network_is_cut(
    ground: Ground, behind_proxies: PipelineUnderTest, published: Publisher, server: str
) -> None:
    proxy = ground.kafka_proxy if server == "kafka" else ground.postgres_proxy
    before = proxy.cut_connections
    proxy.cut()
    time.sleep(3.0)
    proxy.heal()
    publish(published, traffic(200, 20, seed=32))
    behind_proxies.check(published.acknowledged)
    assert proxy.cut_connections > before
    assert all(child.running for child in behind_proxies.stages.values())


@pytest.mark.parametrize("server", ["kafka", "postgres"])
def test_what_the_stages_send_does_not_arrive_for_a_while(
    ground: Ground, behind_proxies: PipelineUnderTest, published: Publisher, server: str
) -> None:
    proxy = ground.kafka_proxy if server == "kafka" else ground.postgres_proxy
    before = proxy.held_chunks
    proxy.hold()
    time.sleep(5.0)  # longer than the session: the group gives the partitions away
    proxy.heal()
    publish(published, traffic(200, 20, seed=33))
    behind_proxies.check(published.acknowledged)
    assert proxy.held_chunks > before


def test_everything_takes_seconds(ground: Ground, behind_proxies: PipelineUnderTest, published: Publisher) -> None:
    before = ground.kafka_proxy.delayed_chunks
    ground.kafka_proxy.delay(1.5)
    time.sleep(6.0)
    ground.kafka_proxy.delay(0.0)
    behind_proxies.check(published.acknowledged)
    assert ground.kafka_proxy.delayed_chunks > before


@pytest.mark.parametrize("stage", ["stitcher", "attributor"])
def test_the_end_of_a_transaction_arrives_after_its_sender_was_replaced(
    ground: Ground, behind_proxies: PipelineUnderTest, published: Publisher, stage: str
) -> None:
    proxy = ground.kafka_proxy
    before = proxy.held_chunks
    proxy.hold()
    behind_proxies.wait_for(lambda: proxy.held_chunks > before, "nothing is held")
    behind_proxies.kill(stage)
    # The successor comes another way, with the same transactional id, and works; then the old bytes arrive.
    behind_proxies.start(stage, KAFKA_BOOTSTRAP_SERVERS=behind_proxies.bootstrap)
    publish(published, traffic(200, 20, seed=34))
    time.sleep(4.0)
    proxy.heal()
    behind_proxies.check(published.acknowledged)
