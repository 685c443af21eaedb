"""How a stage starts and stops: settings, signals, first start, probes."""

from __future__ import annotations

import signal
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import psycopg
import pytest

from attributary.local.ports import free_port
from tests.factories.traffic import publish, traffic
from tests.fixtures.pipeline import WAITS_FOR_A_LOCK, wait_until

if TYPE_CHECKING:
    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]


@pytest.mark.parametrize(
    ("stage", "variable", "value"),
    [
        ("stitcher", "DATABASE_URL", ""),
        ("attributor", "KAFKA_BOOTSTRAP_SERVERS", ""),
        ("stitcher", "ATTRIBUTION_BATCH_SIZE", "many"),
        ("auditor", "KAFKA_TRANSACTION_TIMEOUT_MS", "60000"),
        ("stitcher", "ATTRIBUTION_POLICY_FILE", "/nowhere/policy.yaml"),
        ("sweeper", "SWEEP_INTERVAL_SECONDS", "-1"),
        ("attributor", "KAFKA_EXTRA", "{"),
        ("auditor", "ATTRIBUTION_INSTANCE", "a b"),
    ],
)
def test_a_missing_or_bad_setting_stops_the_start_and_is_named(
    pipeline: PipelineUnderTest, stage: str, variable: str, value: str
) -> None:
    pipeline.start(stage, **{variable: value})
    code, log = pipeline.ended(stage)
    assert code == 78, log
    assert variable in log.splitlines()[-1]


def test_the_first_start_must_be_told_where_to_begin(pipeline: PipelineUnderTest, publisher: Publisher) -> None:
    old = traffic(60, 6, seed=7)
    publish(publisher, old)
    pipeline.start("stitcher", ATTRIBUTION_FIRST_START="")
    code, log = pipeline.ended("stitcher")
    assert code == 78
    assert "ATTRIBUTION_FIRST_START" in log
    assert pipeline.events() == 0
    # From the end: what was published before is skipped on purpose, and a second start needs no telling.
    pipeline.start("stitcher", ATTRIBUTION_FIRST_START="latest")
    pipeline.wait_for(lambda: "assigned" in pipeline.stages["stitcher"].log_tail(), "nothing assigned")
    assert pipeline.stop() == {"stitcher": 0}
    new = traffic(40, 4, seed=8)
    publish(publisher, new)
    pipeline.start("stitcher", ATTRIBUTION_FIRST_START="")
    distinct = {(event.topic, event.record["event_id"]) for event in new}
    pipeline.wait_for(lambda: pipeline.events() == len(distinct), "the new events are not stored")


def test_sigterm_finishes_the_batch_and_a_second_signal_ends_at_once(
    pipeline: PipelineUnderTest, publisher: Publisher
) -> None:
    publish(publisher, traffic(2_000, 100, seed=9))
    pipeline.environment["ATTRIBUTION_BATCH_SIZE"] = "50"
    pipeline.start("stitcher")
    pipeline.wait_for(lambda: pipeline.events() > 0, "nothing is stored")
    assert pipeline.stop() == {"stitcher": 0}
    # The batch in hand waits for a lock that this test holds: only a second signal ends the process then.
    with psycopg.connect(pipeline.dsn) as holder:
        holder.execute("LOCK TABLE attribution_positions IN ACCESS EXCLUSIVE MODE")
        child = pipeline.start("stitcher")
        pipeline.wait_for(lambda: pipeline.query(WAITS_FOR_A_LOCK, "stitcher"), "nobody waits for the lock")
        child.terminate()
        time.sleep(0.5)
        assert child.running
        child.terminate()
        assert pipeline.ended("stitcher")[0] == 75
    pipeline.start("stitcher", "attributor", "auditor")
    pipeline.check(publisher.acknowledged)


def test_sigint_stops_as_sigterm_does(pipeline: PipelineUnderTest) -> None:
    child = pipeline.start("auditor")
    pipeline.wait_for(lambda: "assigned" in child.log_tail(), "nothing assigned")
    child.send(signal.SIGINT)
    assert pipeline.ended("auditor")[0] == 0


def test_the_probes_tell_a_live_process_from_one_that_can_work(pipeline: PipelineUnderTest) -> None:
    port = free_port()
    pipeline.start("stitcher", METRICS_PORT=str(port))

    def answer(path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=120) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    wait_until(lambda: answer("/readyz") == 200, "never ready")
    assert answer("/livez") == 200
    assert answer("/metrics") == 200
    assert answer("/else") == 404
