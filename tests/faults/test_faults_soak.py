"""A soak: steady load with a random fault every few seconds, then all promises at once.

`make soak` runs it for half an hour (SOAK_SECONDS=1800, a fault every 20 s); `make test` for half a minute. The faults
are drawn from a seed (SOAK_SEED), which the end of the run prints with how often each fired.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.factories.traffic import traffic
from tests.faults.fault_assertions import fired

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.conftest import FaultServers
    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

SECONDS = float(os.environ.get("SOAK_SECONDS", "30"))
EVERY = float(os.environ.get("SOAK_FAULT_EVERY", "20" if SECONDS > 120 else "6"))
PER_SECOND = float(os.environ.get("SOAK_RATE", "200"))
SEED = int(os.environ.get("SOAK_SEED", "1"))

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.fault, pytest.mark.slow]
if SECONDS > 120:  # what half an hour has found must not be hidden by another half
    pytestmark.append(pytest.mark.once)

STAGES = ("stitcher", "attributor", "auditor", "sweeper")


class _Load(threading.Thread):
    """Publishes simulated traffic at a pace until it is stopped; waits while the broker is away."""

    def __init__(self, publisher: Publisher) -> None:
        super().__init__(name="load", daemon=True)
        self._publisher = publisher
        self._stopped = threading.Event()
        self.sent = 0

    def run(self) -> None:
        seed = 10_000 * SEED
        while not self._stopped.is_set():
            seed += 1
            for event in traffic(1_000, 100, seed=seed):
                if self._stopped.is_set():
                    break
                self._publisher.send(event.topic, event.record)
                self.sent += 1
                self._stopped.wait(1 / PER_SECOND)

    def stop(self) -> None:
        self._stopped.set()
        self.join(120)
        self._publisher.flush(120.0)


class _Faults:
    """What may happen; every method returns only when the fault has fired."""

    def __init__(self, servers: FaultServers, broken: PipelineUnderTest, draw: random.Random) -> None:
        self._ground, self._broken, self._draw = servers, broken, draw

    def kill_a_stage(self) -> None:
        name = self._draw.choice(STAGES)
        assert self._broken.kill(name) == -9
        self._broken.start(name)

    def freeze_a_stage_past_its_session(self) -> None:
        name = self._draw.choice(("stitcher", "attributor", "auditor"))
        child = self._broken.stages[name]
        child.suspend()
        time.sleep(4.5)  # the session times out after three seconds
        child.resume()

    def crash_the_broker(self) -> None:
        node = self._ground.kafka.nodes[0]
        before = node.child.pid
        node.kill()
        time.sleep(1.0)
        self._ground.kafka.restart(node)
        assert node.child.pid != before

    def crash_postgres(self) -> None:
        before = self._ground.postgres.child.pid
        self._ground.postgres.kill()
        time.sleep(1.0)
        self._ground.postgres.restart()
        assert self._ground.postgres.child.pid != before

    def cut_connections_to_postgres(self) -> None:
        with psycopg.connect(self._ground.postgres.dsn, autocommit=True) as connection:

            def cut() -> int:
                row = connection.execute(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                    "WHERE application_name LIKE 'attributary-%'"
                ).fetchone()
                return row[0] if row else 0

            self._broken.wait_for(cut, "no stage is connected")

    def cut_the_network(self) -> None:
        proxy = self._draw.choice((self._ground.kafka_proxy, self._ground.postgres_proxy))
        before = proxy.cut_connections
        proxy.cut()
        time.sleep(2.0)
        proxy.heal()
        assert proxy.cut_connections > before

    def lose_what_goes_one_way(self) -> None:
        proxy = self._draw.choice((self._ground.kafka_proxy, self._ground.postgres_proxy))
        before = proxy.held_chunks + proxy.held_answers
        self._draw.choice((proxy.hold, proxy.hold_answers))()
        time.sleep(4.0)  # the session times out after three seconds
        proxy.heal()
        assert proxy.held_chunks + proxy.held_answers > before

    def scale_out_and_in(self) -> None:
        extra = ("stitcher-extra", "attributor-extra")
        for name in ("stitcher", "attributor"):
            self._broken.start(name, instance="extra")
        self._broken.wait_for(
            lambda: all(self._broken.logged(name, '"assigned"') for name in extra), "nobody joins the group"
        )
        for name in extra:
            self._broken.stages.pop(name).stop(30.0)

    def all(self) -> dict[str, Callable[[], None]]:
        return {
            "stage killed": self.kill_a_stage,
            "stage frozen": self.freeze_a_stage_past_its_session,
            "broker crashed": self.crash_the_broker,
            "Postgres crashed": self.crash_postgres,
            "connections cut": self.cut_connections_to_postgres,
            "network cut": self.cut_the_network,
            "one-way loss": self.lose_what_goes_one_way,
            "scaled out and in": self.scale_out_and_in,
        }


@pytest.mark.once
@pytest.mark.timeout(int(SECONDS) + 900)
def test_soak(
    servers: FaultServers, broken: PipelineUnderTest, published: Publisher, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(SEED)
    faults = _Faults(servers, broken, draw).all()
    times: Counter[str] = Counter()
    broken.environment["SWEEP_REPAIR_AFTER_SECONDS"] = "10"
    broken.environment |= {**servers.proxied_kafka, **servers.proxied_postgres(broken.dsn)}
    broken.start(*STAGES)
    broken.wait_for_assignments()
    load = _Load(published)
    load.start()
    end = time.monotonic() + SECONDS
    order: list[str] = []
    while time.monotonic() < end:
        time.sleep(min(EVERY, max(0.0, end - time.monotonic())))
        order = order or draw.sample(sorted(faults), len(faults))  # each once a round
        name = order.pop()
        faults[name]()
        times[name] += 1
        fired(f"soak: {name}")
    load.stop()
    # A torn transaction makes the sweeper ask again: the same version with the same content may be seen twice.
    findings = broken.check(published.acknowledged, repeats_allowed=True, settle_seconds=300.0)
    with capsys.disabled():
        told = ", ".join(f"{name} {count}x" for name, count in sorted(times.items()))
        print(f"\nsoak: {SECONDS:.0f} s, {load.sent:,} records, seed {SEED}; {told}; {findings}")
    assert times.total() > 0
