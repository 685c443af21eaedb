"""`attributary topics` against a real broker."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner, Result

from attributary.cli.main import app
from attributary.schemas.topics import RESULTS, TOUCHPOINTS, catalogue, dead_letter_topics
from tests.fixtures.pipeline import wait_until
from tests.fixtures.topics import PARTITIONS

pytestmark = pytest.mark.kafka

Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, fresh_topics: str) -> Run:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", fresh_topics)
    return lambda *arguments: CliRunner().invoke(app, ["topics", *arguments])


def shown(run: Run, wanted: Callable[[str], bool]) -> bool:
    """Whether a plan shows what is wanted, at once or a moment after the brokers have learnt of a change."""
    deadline = time.monotonic() + 180.0
    while not (there := wanted(run("plan").output)) and time.monotonic() < deadline:
        time.sleep(0.25)
    return there


def test_a_cluster_is_brought_to_the_catalogue(run: Run, fresh_topics: str) -> None:
    admin = AdminClient({"bootstrap.servers": fresh_topics})
    names = [topic.name for topic in (*catalogue(), *dead_letter_topics())]
    for deletion in admin.delete_topics([RESULTS, names[-1]], operation_timeout=60).values():
        deletion.result(timeout=120)
    wait_until(  # brokers forget a topic a moment after its deletion was confirmed
        lambda: not {RESULTS, names[-1]} & admin.list_topics(timeout=120).topics.keys(), "a topic is still there"
    )

    planned = run("plan", "--check", "--partitions-override", "3")
    assert planned.exit_code == 1, planned.output
    assert "create" in planned.output
    assert "cannot change" in planned.output  # the fixture made four partitions

    applied = run("apply", "--partitions-override", "5")
    assert applied.exit_code == 0, applied.output
    assert "2 changes made" in applied.output
    assert "left as it is:" in applied.output
    grown = run("apply", "--partitions-override", "5", "--add-partitions")
    assert grown.exit_code == 0, grown.output

    # Brokers learn of new partitions a moment after their creation was confirmed.
    deadline = time.monotonic() + 180.0
    settled = run("plan", "--check", "--partitions-override", "5")
    while settled.exit_code and time.monotonic() < deadline:
        time.sleep(0.25)
        settled = run("plan", "--check", "--partitions-override", "5")
    assert settled.exit_code == 0, settled.output
    assert set(settled.output.split()) >= set(names)
    assert len(admin.list_topics(timeout=120).topics[RESULTS].partitions) == 5


def test_a_setting_that_somebody_changed_is_set_back(run: Run, fresh_topics: str) -> None:
    from confluent_kafka.admin import (  # type: ignore[attr-defined]
        AlterConfigOpType,
        ConfigEntry,
        ConfigResource,
        ResourceType,
    )

    entry = ConfigEntry("cleanup.policy", "delete", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, RESULTS, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": fresh_topics})
    for change in admin.incremental_alter_configs([resource]).values():
        change.result(timeout=120)
    assert shown(run, lambda output: "cleanup.policy delete -> compact" in output)
    assert run("apply").exit_code == 0
    assert shown(run, lambda output: "cleanup.policy" not in output)


def test_more_replicas_than_brokers_are_refused(run: Run) -> None:
    refused = run("apply", "--replication-factor", "99")
    assert refused.exit_code == 2
    assert "brokers" in refused.output


def test_a_broker_that_is_away_is_a_dependency_that_is_down(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from attributary.consumers.runtime import topics_admin

    monkeypatch.setattr(topics_admin, "_SECONDS", 2.0)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9")
    assert run("plan").exit_code == 69
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS")
    missing = run("plan")
    assert missing.exit_code == 78
    assert "KAFKA_BOOTSTRAP_SERVERS" in missing.output


def test_s22_production_refuses_topics_on_one_disk(
    run: Run, fresh_topics: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("apply").exit_code == 0  # in development one replica is enough
    before = set(AdminClient({"bootstrap.servers": fresh_topics}).list_topics(timeout=120).topics)
    monkeypatch.setenv("ATTRIBUTION_ENVIRONMENT", "production")
    planned = run("plan", "--check")
    assert planned.exit_code == 1
    assert "too few replicas" in planned.output
    assert "1 replicas, production needs 3" in planned.output
    refused = run("apply")
    assert refused.exit_code == 78
    assert "nothing was changed" in refused.output
    assert set(AdminClient({"bootstrap.servers": fresh_topics}).list_topics(timeout=120).topics) == before
    assert run("apply", "--no-production").exit_code == 0
    monkeypatch.delenv("ATTRIBUTION_ENVIRONMENT")
    assert run("apply", "--production").exit_code == 78


def test_topics_that_a_stage_would_refuse_are_not_made(run: Run, fresh_topics: str) -> None:
    admin = AdminClient({"bootstrap.servers": fresh_topics, "log_level": 0})
    for deletion in admin.delete_topics([TOUCHPOINTS], operation_timeout=60).values():
        deletion.result(timeout=120)
    wait_until(lambda: TOUCHPOINTS not in admin.list_topics(timeout=120).topics, "the topic is still there")
    refused = run("apply")  # the catalogue says 12, the other inputs have four
    assert refused.exit_code == 78, refused.output
    assert "nothing was changed" in refused.output
    assert "--partitions-override 12 --add-partitions" in refused.output
    assert TOUCHPOINTS not in admin.list_topics(timeout=120).topics
    made = run("apply", "--partitions-override", str(PARTITIONS))
    assert made.exit_code == 0, made.output
