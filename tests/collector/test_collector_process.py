"""The collector's process with a real broker: crashes at named points, outages, signals. Acknowledged means kept."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from attributary.local.broker import Broker
from attributary.producers.collector.crash_points import POINTS
from attributary.producers.collector.intake import TOO_LARGE
from attributary.schemas.topics import TOUCHPOINTS
from tests.faults.fault_assertions import fired
from tests.fixtures.collector import touch, wait_until
from tests.fixtures.collector_process import (
    AWAY,
    CollectorProcess,
    check_kept,
    collector_process,
    in_log,
    in_spool,
    segments,
)
from tests.fixtures.topics import recreate_topics

pytestmark = [pytest.mark.kafka, pytest.mark.fault, pytest.mark.slow]

NOON_MICROS = 1_790_000_000_000_000
WITH_THE_LOG = ("collector_sent", "collector_acknowledged")
IN_THE_SPOOL = ("collector_spool_written", "collector_spool_synced")
IN_THE_DRAIN = ("collector_drain_acknowledged", "collector_adopt_moved")


def test_every_point_has_its_turn() -> None:
    assert {*WITH_THE_LOG, *IN_THE_SPOOL, *IN_THE_DRAIN} == set(POINTS)


def died_at(collector: CollectorProcess, point: str) -> None:
    assert collector.child.wait(180) == -signal.SIGKILL, collector.child.log_tail()
    assert collector.child.log_tail().splitlines()[-1] == f"crash_at: {point}"
    fired(f"kill -9 of the collector at {point}")


def spooled(collector: CollectorProcess, prefix: str, batches: int = 6) -> None:
    """Let a collector without a log acknowledge some records: all of them by the spool."""
    for number in range(batches):
        assert collector.post([f"{prefix}-{number}-{each}" for each in range(5)]) == 202


def wait_until_drained(folder: Path) -> None:
    wait_until(lambda: not segments(folder), "the spool is drained")


@pytest.mark.parametrize("point", WITH_THE_LOG)
def test_dying_between_log_and_answer_loses_nothing(kafka_topics: str, tmp_path: Path, point: str) -> None:
    acknowledged: set[str] = set()
    with collector_process(
        tmp_path, kafka_topics, acknowledged=acknowledged, ATTRIBUTION_CRASH_AT=f"{point}:12"
    ) as collector:
        for thread in collector.load(point, batches=10):
            thread.join(120)
        died_at(collector, point)
    assert acknowledged
    check_kept(acknowledged, kafka_topics, tmp_path, point)
    with collector_process(tmp_path, kafka_topics, acknowledged=acknowledged) as again:
        ids = [f"{point}-{thread}-0-{each}" for thread in range(3) for each in range(5)]
        again.post_to_log(*ids)  # a client that got no answer sends the same again
    assert len(check_kept(acknowledged, kafka_topics, tmp_path, point)) >= len(acknowledged)


@pytest.mark.parametrize("point", IN_THE_SPOOL)
def test_dying_between_spool_and_answer_loses_nothing(kafka_topics: str, tmp_path: Path, point: str) -> None:
    acknowledged: set[str] = set()
    with collector_process(tmp_path, AWAY, acknowledged=acknowledged, ATTRIBUTION_CRASH_AT=f"{point}:5") as collector:
        for thread in collector.load(point, batches=30):
            thread.join(120)
        died_at(collector, point)
    assert acknowledged
    assert acknowledged <= in_spool(tmp_path).keys()
    with collector_process(tmp_path, kafka_topics):
        wait_until_drained(tmp_path)
    log = check_kept(acknowledged, kafka_topics, tmp_path, point)
    assert acknowledged <= log.keys()


def test_dying_after_a_drain_sends_the_same_bytes_again(kafka_topics: str, tmp_path: Path) -> None:
    acknowledged: set[str] = set()
    with collector_process(tmp_path, AWAY, acknowledged=acknowledged) as collector:
        spooled(collector, "drained")
        assert collector.child.kill() == -signal.SIGKILL
    with collector_process(tmp_path, kafka_topics, ATTRIBUTION_CRASH_AT="collector_drain_acknowledged") as dying:
        died_at(dying, "collector_drain_acknowledged")
    # The first collector may have closed a segment between two batches: the drain that died sent the oldest one.
    sent = in_log(kafka_topics, "drained").keys()
    assert sent
    assert sent <= in_spool(tmp_path).keys() == acknowledged
    with collector_process(tmp_path, kafka_topics):
        wait_until_drained(tmp_path)
    assert acknowledged == check_kept(acknowledged, kafka_topics, tmp_path, "drained").keys()


def test_dying_while_adopting_leaves_the_rest_to_the_next(kafka_topics: str, tmp_path: Path) -> None:
    acknowledged: set[str] = set()
    for number in range(2):  # two dead processes, so that one is moved and one is not
        with collector_process(tmp_path, AWAY, acknowledged=acknowledged) as collector:
            spooled(collector, f"adopted-{number}", batches=2)
            collector.child.kill()
        with collector_process(tmp_path, AWAY, ATTRIBUTION_CRASH_AT="collector_adopt_moved:1") as dying:
            died_at(dying, "collector_adopt_moved")
        assert acknowledged == in_spool(tmp_path).keys()
    with collector_process(tmp_path, kafka_topics):
        wait_until_drained(tmp_path)
    assert acknowledged == check_kept(acknowledged, kafka_topics, tmp_path, "adopted").keys()


def test_of_two_processes_one_dies_and_the_other_takes_over(kafka_topics: str, tmp_path: Path) -> None:
    acknowledged: set[str] = set()
    with collector_process(tmp_path, AWAY, acknowledged=acknowledged) as dying:
        spooled(dying, "sibling")
        with collector_process(tmp_path, kafka_topics, acknowledged=acknowledged) as living:
            living.post_to_log("sibling-live")
            assert len(segments(tmp_path)) >= 1  # those of a living process are not touched
            dying.child.kill()
            wait_until_drained(tmp_path)
            fired("kill -9 of one of two collectors", len(acknowledged))
    assert acknowledged == check_kept(acknowledged, kafka_topics, tmp_path, "sibling").keys()


def test_sigterm_under_load_loses_nothing_and_ends_clean(kafka_topics: str, tmp_path: Path) -> None:
    acknowledged: set[str] = set()
    with collector_process(tmp_path, kafka_topics, acknowledged=acknowledged) as collector:
        threads = collector.load("stop", batches=10_000, threads=4)
        wait_until(lambda: len(acknowledged) > 200, "there is load")
        collector.child.terminate()
        wait_until(lambda: collector.ready() in {0, 503}, "readiness says no")
        assert collector.child.wait(180) == 0, collector.child.log_tail()
        for thread in threads:
            thread.join(120)
        fired("SIGTERM under load", collector.statuses.count(0) + collector.statuses.count(503))
    check_kept(acknowledged, kafka_topics, tmp_path, "stop")
    assert acknowledged


def test_an_outage_in_the_middle_is_spooled_in_flat_memory_and_drained(
    kafka_topics: str, broker: Broker, tmp_path: Path
) -> None:
    if broker.cluster is None:
        pytest.skip("a broker that is not ours cannot be suspended")
    node = broker.cluster.nodes[0]
    acknowledged: set[str] = set()
    with collector_process(
        tmp_path, kafka_topics, acknowledged=acknowledged, COLLECT_ACK_SECONDS="2"
    ) as collector:  # fmt: skip
        collector.post_to_log("outage-before")
        before_outage = len(collector.statuses)
        node.suspend()
        try:
            assert collector.post(["outage-first"]) == 202  # its time was up
            waits = collector.metric("attribution_collector_ack_seconds_count")
            assert collector.post(["outage-second"]) == 202
            assert collector.metric("attribution_collector_ack_seconds_count") == waits  # nobody waits any more
            assert collector.ready() == 200
            for thread in collector.load("outage-warm", batches=100, size=50):
                thread.join(120)
            grown = 1 << 30
            for number in range(3):  # flat once it is warm: what the allocator takes at first is no leak
                before = collector.resident_bytes()
                for thread in collector.load(f"outage-more-{number}", batches=100, size=50):
                    thread.join(120)
                grown = min(grown, collector.resident_bytes() - before)
                if grown < 4 << 20:
                    break
            fired("an outage of the log", collector.statuses.count(202))
            assert set(collector.statuses[before_outage:]) == {202}
            assert grown < 4 << 20
            assert collector.metric("attribution_collector_log_paused") == 1
            wait_until(lambda: collector.metric("attribution_collector_spool_bytes") > 1_000_000, "the spool is shown")
            assert collector.metric("attribution_collector_spool_oldest_seconds") > 0
        finally:
            node.resume()
        wait_until_drained(tmp_path)
        wait_until(lambda: collector.post([f"outage-after-{time.time_ns()}"]) == 200, "the log is used again")
    assert acknowledged <= check_kept(acknowledged, kafka_topics, tmp_path, "outage").keys()


def test_without_a_spool_an_outage_is_503_and_over_when_the_log_is_back(
    kafka_topics: str, broker: Broker, tmp_path: Path
) -> None:
    if broker.cluster is None:
        pytest.skip("a broker that is not ours cannot be suspended")
    node = broker.cluster.nodes[0]
    acknowledged: set[str] = set()
    with collector_process(
        tmp_path, kafka_topics, acknowledged=acknowledged, COLLECT_SPOOL="off", COLLECT_ACK_SECONDS="2"
    ) as collector:  # fmt: skip
        collector.post_to_log("off-before")
        node.suspend()
        try:
            assert collector.post(["off-during"]) == 503
            wait_until(lambda: collector.ready() == 503, "nothing can be kept")
        finally:
            node.resume()
        wait_until(lambda: collector.post(["off-during"]) == 200, "the log is back")
        wait_until(lambda: collector.ready() == 200, "it is ready")
    assert acknowledged == check_kept(acknowledged, kafka_topics, tmp_path, "off").keys()


def test_a_full_spool_is_503_and_a_restart_with_it_drains(kafka_topics: str, tmp_path: Path) -> None:
    acknowledged: set[str] = set()
    with collector_process(tmp_path, AWAY, acknowledged=acknowledged, COLLECT_SPOOL_BYTES=str(1 << 20)) as collector:
        statuses = []
        for number in range(100):
            statuses.append(collector.post([f"full-{number}-{each}" for each in range(100)]))
            if statuses[-1] == 503:
                break
        assert statuses[-1] == 503
        assert statuses.count(202) > 3
        fired("a full spool", len(acknowledged))
        collector.child.kill()
    with collector_process(tmp_path, kafka_topics, COLLECT_SPOOL_BYTES=str(1 << 20)) as again:
        wait_until_drained(tmp_path)
        again.post_to_log("full-after")
    assert acknowledged <= check_kept(acknowledged, kafka_topics, tmp_path, "full").keys()


def test_a_second_signal_ends_at_once_and_what_was_acknowledged_is_kept(kafka_topics: str, tmp_path: Path) -> None:
    acknowledged: set[str] = set()
    with collector_process(tmp_path, AWAY, acknowledged=acknowledged, COLLECT_LEAVE_SECONDS="300") as collector:
        spooled(collector, "twice", batches=3)
        collector.child.terminate()
        wait_until(lambda: collector.ready() == 503, "it has heard the first signal")
        collector.child.terminate()
        assert collector.child.wait(180) == 75
    assert acknowledged == in_spool(tmp_path).keys()
    with collector_process(tmp_path, kafka_topics):
        wait_until_drained(tmp_path)
    assert acknowledged == check_kept(acknowledged, kafka_topics, tmp_path, "twice").keys()


def test_a_record_larger_than_the_log_takes_is_named_and_a_missing_topic_is_an_outage(
    kafka_topics: str, tmp_path: Path
) -> None:
    acknowledged: set[str] = set()
    small = json.dumps({"message.max.bytes": 2_000, "delivery.timeout.ms": 4000, "log_level": 0})
    with collector_process(tmp_path, kafka_topics, acknowledged=acknowledged, KAFKA_EXTRA=small) as collector:
        large = touch(event_id="large-1", occurred_at=NOON_MICROS, properties={"text": "x" * 3_000})
        answer = collector.answer([touch(event_id="large-2", occurred_at=NOON_MICROS), large])
        assert answer["event_ids"] == ["large-2"]
        assert answer["rejected"] == [{"index": 1, "event_id": "large-1", "field": "record", "rule": TOO_LARGE}]
        assert not segments(tmp_path)  # it is not tried again and again

    admin = AdminClient({"bootstrap.servers": kafka_topics, "log_level": 0})
    for deletion in admin.delete_topics([TOUCHPOINTS], operation_timeout=60).values():
        deletion.result(timeout=120)
    try:
        with collector_process(tmp_path, kafka_topics, acknowledged=acknowledged) as collector:
            assert collector.post(["missing-1"]) == 202
            assert in_spool(tmp_path).keys() == {"missing-1"}
            fired("a topic is missing")
            recreate_topics(kafka_topics)
            wait_until_drained(tmp_path)
    finally:
        recreate_topics(kafka_topics)


def test_a_log_slower_than_the_deadline_gets_the_same_bytes_twice_at_most(
    kafka_topics: str, broker: Broker, tmp_path: Path
) -> None:
    if broker.cluster is None:
        pytest.skip("a broker that is not ours cannot be suspended")
    node = broker.cluster.nodes[0]
    acknowledged: set[str] = set()
    patient = json.dumps({"delivery.timeout.ms": 60_000, "log_level": 0})
    with collector_process(
        tmp_path, kafka_topics, acknowledged=acknowledged, COLLECT_ACK_SECONDS="0.5", KAFKA_EXTRA=patient
    ) as collector:
        collector.post_to_log("slow-before")
        node.suspend()
        try:
            assert collector.post(["slow-1", "slow-2"]) == 202  # in flight, and in the spool
            fired("a log that is slower than the deadline")
        finally:
            node.resume()
        wait_until_drained(tmp_path)
    log = check_kept(acknowledged, kafka_topics, tmp_path, "slow")
    assert log.keys() == acknowledged
