"""Two installations on one Kafka: each has a prefix, its own database and stages, and sees nothing of the other."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import AdminClient

from attributary.local.stages import command_line
from attributary.schemas.topics import CONVERSIONS, catalogue, dead_letter_topics
from tests.factories.traffic import publish, traffic
from tests.fixtures.pipeline import UNOBSERVED, wait_until
from tests.fixtures.second_installation import NORTH, NorthPublisher, run
from tests.fixtures.topics import PARTITIONS

if TYPE_CHECKING:
    from pathlib import Path

    from attributary.producers.simulator import Event
    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

STAGES = ("stitcher", "attributor", "auditor")
_TENANTS = "SELECT array_agg(DISTINCT tenant_id) FROM {}"
_TABLES = ("attribution_touchpoints", "attribution_conversion_events", "attribution_results")


def tenants(pipeline: PipelineUnderTest) -> set[str]:
    return {tenant for table in _TABLES for tenant in pipeline.query(_TENANTS.format(table)) or ()}


def of_tenant(tenant: str, seed: int) -> list[Event]:
    """Traffic of one tenant with a name."""
    events = traffic(300, 30, seed=seed, tenants=1)
    return [event._replace(record={**event.record, "tenant_id": tenant}) for event in events]


def wait_until_attributed(pipeline: PipelineUnderTest, events: list[Event]) -> None:
    number = len({(event.topic, event.record["event_id"]) for event in events})
    pipeline.wait_for(lambda: pipeline.events() == number, "events are not stored")
    pipeline.wait_for(lambda: pipeline.query(UNOBSERVED) == 0, "results are missing")


def test_two_installations_share_a_broker_and_nothing_else(
    pipeline: PipelineUnderTest, north: PipelineUnderTest, publisher: Publisher
) -> None:
    admin = AdminClient({"bootstrap.servers": pipeline.bootstrap, "log_level": 0})
    names = {topic.name for topic in (*catalogue(), *dead_letter_topics())}
    names |= {f"{NORTH}{topic.name}" for topic in catalogue()}
    wait_until(lambda: names <= admin.list_topics(timeout=120).topics.keys(), "the brokers do not know all topics")

    for installation in (pipeline, north):
        installation.start(*STAGES)
    southern, northern = of_tenant("south", 41), of_tenant("north", 42)
    publish(publisher, southern)
    others = NorthPublisher(pipeline.bootstrap)
    publish(others, northern)
    others.send_bytes(CONVERSIONS, b"\x00no record", b"north|bad")
    others.flush()
    wait_until_attributed(pipeline, southern)
    wait_until_attributed(north, northern)

    assert tenants(pipeline) == {"south"}
    assert tenants(north) == {"north"}
    for installation, tenant in ((pipeline, "south"), (north, "north")):
        read = [json.loads(line) for line in run(
            installation, "tail", "results", "--from", "beginning", "--until-end", "--json"
        ).splitlines()]  # fmt: skip
        assert {each["tenant_id"] for each in read} == {tenant}
        assert len({each["conversion_id"] for each in read}) == installation.query(
            "SELECT count(DISTINCT conversion_id) FROM attribution_results"
        )
        groups = installation.query("SELECT array_agg(DISTINCT consumer_group) FROM attribution_positions")
        topics = installation.query("SELECT array_agg(DISTINCT topic) FROM attribution_positions")
        assert all(name.startswith(NORTH) == (installation is north) for name in (*groups, *topics))

    wait_until(lambda: json.loads(run(north, "dlq", "list", "--json")), "the dead letter is not there")
    letter = json.loads(run(north, "dlq", "list", "--json", "--topic", CONVERSIONS))[0]
    assert letter["place"].startswith(f"{NORTH}{CONVERSIONS}.{NORTH}attribution.stitcher.dlq[")
    assert json.loads(run(pipeline, "dlq", "list", "--json")) == []
    planned = json.loads(run(north, "topics", "plan", "--partitions-override", str(PARTITIONS), "--json"))
    assert {(each["verb"], each["topic"].startswith(NORTH)) for each in planned} == {("ok", True)}


def test_a_bad_prefix_stops_every_process_with_78(tmp_path: Path) -> None:
    for arguments in (("stitcher",), ("topics", "apply"), ("collect",), ("tail",), ("settings", "check")):
        done = subprocess.run(
            command_line(*arguments),
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "ATTRIBUTION_PREFIX": "South"},
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 78, (arguments, done.stderr)
        assert done.stderr.startswith("attributary: ATTRIBUTION_PREFIX: must be lower-case")
        assert "South" not in done.stderr
        assert len(done.stderr.splitlines()) == 1
