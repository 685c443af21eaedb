"""`attributary verify` finds nothing after a healthy run, and every kind of damage after that."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from psycopg.conninfo import make_conninfo

from attributary.consumers.store.access.plan import apply
from attributary.consumers.store.tenants import Tenant, store_tenant
from attributary.local.process import run
from attributary.local.stages import command_line
from attributary.schemas.topics import IDENTITIES, TOUCHPOINTS
from tests.factories.traffic import publish, traffic
from tests.observed_state import INPUTS

if TYPE_CHECKING:
    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

# What somebody did to the database, what verify says of it, and which of its four kinds of evidence see it.
DAMAGE = {
    "DELETE FROM attribution_touchpoints WHERE event_id = "
    "(SELECT min(event_id) FROM attribution_touchpoints)": ("touchpoint ", {"replay"}),
    "UPDATE attribution_touchpoints SET campaign = campaign || '!' WHERE event_id = "
    "(SELECT max(event_id) FROM attribution_touchpoints)": ("touchpoint ", {"replay"}),
    "UPDATE attribution_identities SET user_id = 'somebody else' WHERE anonymous_id = "
    "(SELECT min(anonymous_id) FROM attribution_identities)": ("anonymous id ", {"replay", "events"}),
    "UPDATE attribution_conversions SET net_value_micros = net_value_micros + 10000 WHERE conversion_id = "
    "(SELECT min(conversion_id) FROM attribution_conversions WHERE version > 0)": ("conversion ", {"replay", "events"}),
    "DELETE FROM attribution_conversions WHERE conversion_id = "
    "(SELECT max(conversion_id) FROM attribution_conversions)": ("conversion ", {"replay", "events"}),
    "DELETE FROM attribution_journeys WHERE journey_key = (SELECT min(identity_key) FROM attribution_touchpoints)":
    ("journey ", {"events"}),
    "UPDATE attribution_results SET net_value_micros = net_value_micros + 10000 WHERE conversion_id = "
    "(SELECT min(conversion_id) FROM attribution_results)": ("result of ", {"results"}),
}  # fmt: skip


def verify(pipeline: PipelineUnderTest, *arguments: str, **variables: str) -> str:
    env = pipeline.variables(**variables)
    return run(command_line("verify", *arguments), name="verify", timeout_seconds=240, env=env)


def test_verify_is_silent_after_a_healthy_run_and_names_every_damage(
    pipeline: PipelineUnderTest, publisher: Publisher
) -> None:
    events = traffic(800, 80, seed=61)
    publish(publisher, events)
    publisher.send_bytes(TOUCHPOINTS, b"rubbish", b"k")
    bad = next(event for event in events if event.topic == TOUCHPOINTS)  # Postgres holds no NUL: it becomes a letter
    publisher.send(TOUCHPOINTS, bad.record | {"event_id": "nul\0", "campaign_name": "nul\0"})
    publisher.send(TOUCHPOINTS, bad.record | {"event_id": "also", "campaign_name": "nul\0"})
    publisher.flush()
    pipeline.start("stitcher", "attributor", "auditor")
    pipeline.check(publisher.acknowledged)
    said = verify(pipeline)
    assert (
        f"{len(events) + 3} records of the log and 80 conversions read, 0 results on their way, 0 differences" in said
    )
    assert "0 records of the log" in verify(pipeline, "--since", "end")
    for damage, (said_of, by) in DAMAGE.items():
        with psycopg.connect(pipeline.dsn) as connection:
            assert connection.execute(damage).rowcount > 0
        found = document(pipeline)
        seen = [each for each in found["shown"] if each["what"].startswith(said_of) and by <= each["evidence"].keys()]
        assert seen, (damage, found["shown"])


def document(pipeline: PipelineUnderTest) -> dict[str, Any]:
    """What verify finds; it must find something."""
    argv = command_line("verify", "--limit", "1000", "--json")
    done = subprocess.run(argv, env=pipeline.variables(), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_verify_stands_beside_traffic_and_a_log_that_retention_has_cut(
    pipeline: PipelineUnderTest, publisher: Publisher
) -> None:
    events = traffic(1_500, 150, seed=62)
    publish(publisher, events[:1_000])
    pipeline.start("stitcher", "attributor", "auditor")
    pipeline.settle()
    # Half of each partition goes, as retention would have it: those events are in Postgres alone now.
    admin = AdminClient({"bootstrap.servers": pipeline.bootstrap})
    ends: dict[tuple[str, int], int] = {}
    for topic, partition, offset in publisher.acknowledged:
        ends[topic, partition] = max(offset + 1, ends.get((topic, partition), 0))
    cut = [TopicPartition(topic, partition, end // 2) for (topic, partition), end in ends.items()]
    for done in admin.delete_records(cut).values():
        done.result(120)
    # Records go on being stored while it looks; it must look at no more of the log than its snapshot holds.
    for round_ in range(2):
        for event in events[1_000 + 200 * round_ : 1_200 + 200 * round_]:
            publisher.send(event.topic, event.record)
        said = verify(pipeline)
        assert " 0 differences" in said, said
    publisher.flush()
    pipeline.settle()
    said = verify(pipeline, "--since", "1h", "--keep", "looked_at")
    assert " 0 differences" in said
    assert " after 0 stored events" not in said
    stored = pipeline.query("SELECT count(*) FROM attribution_touchpoints")
    assert pipeline.query("SELECT count(*) FROM looked_at.attribution_touchpoints") == stored > 0
    # A record that was stored and is in no log any more cannot be checked by it; one that was never stored can.
    with psycopg.connect(pipeline.dsn) as connection:
        connection.execute("UPDATE attribution_positions SET next_offset = next_offset + 1000000 WHERE topic = %s",
                           (IDENTITIES,))  # fmt: skip
    assert {each["what"].split("[")[0] for each in document(pipeline)["shown"]} == {f"log of {IDENTITIES}"}
    assert set(INPUTS) > {IDENTITIES}


def test_verify_needs_to_read_and_a_temporary_schema_and_no_more(
    pipeline: PipelineUnderTest, publisher: Publisher
) -> None:
    publish(publisher, traffic(100, 10, seed=63))
    pipeline.start("stitcher", "attributor", "auditor")
    pipeline.settle()
    with psycopg.connect(pipeline.dsn, autocommit=True) as connection:
        apply(connection)
        connection.execute("CREATE USER somebody_who_verifies PASSWORD 'secret' IN ROLE attributary_verifier")
        try:
            mine = make_conninfo(pipeline.dsn, user="somebody_who_verifies", password="secret")
            with psycopg.connect(mine) as other, pytest.raises(psycopg.errors.InsufficientPrivilege):
                other.execute("DELETE FROM attribution_results")
            assert " 0 differences" in verify(pipeline, DATABASE_URL=mine)
        finally:
            connection.execute("DROP USER somebody_who_verifies")


def test_what_retention_removed_is_not_missing_and_a_rebuild_brings_nothing_back(
    pipeline: PipelineUnderTest, publisher: Publisher
) -> None:
    """The log still has everything: old by event time, new by arrival."""
    long_ago = int((time.time() - 400 * 86_400) * 1e6)
    for place, event in enumerate(traffic(300, 40, seed=64)):
        field = "linked_at" if "linked_at" in event.record else "occurred_at"
        publisher.send(event.topic, event.record | {field: long_ago + place * 1_000_000})
    publisher.flush()
    pipeline.start("stitcher", "attributor", "auditor")
    pipeline.settle()
    tenants = [row[0] for row in rows(pipeline, "SELECT DISTINCT tenant_id FROM attribution_touchpoints")]
    net = rows(pipeline, "SELECT sum(net_value_micros) FROM attribution_conversions")
    with psycopg.connect(pipeline.dsn) as connection:
        connection.execute("UPDATE attribution_conversions SET is_final = true")
        for tenant in tenants:
            store_tenant(connection, Tenant(tenant, conversions_kept_days=217, touchpoints_kept_days=217))
    pipeline.start("sweeper")
    left = "SELECT count(*) FROM attribution_retention WHERE step = 'done'"
    pipeline.wait_for(lambda: pipeline.query(left) == len(tenants), "retention does not end")
    assert rows(pipeline, "SELECT count(*) FROM attribution_conversions WHERE version > 0") == [(0,)]
    assert rows(pipeline, "SELECT count(*) FROM attribution_touchpoints") == [(0,)]
    assert rows(pipeline, "SELECT sum(net_micros) FROM attribution_removed_totals") == net
    assert " 0 differences" in verify(pipeline), verify(pipeline)
    assert set(pipeline.stop().values()) == {0}
    env = pipeline.variables()
    for how in ((), ("--from-log",)):
        run(command_line("rebuild", *how), name="rebuild", timeout_seconds=240, env=env)
        assert rows(pipeline, "SELECT count(*) FROM attribution_conversions WHERE version > 0") == [(0,)]
        assert rows(pipeline, "SELECT count(*) FROM attribution_results") == [(0,)]


def rows(pipeline: PipelineUnderTest, question: str) -> list[Any]:
    with psycopg.connect(pipeline.dsn) as connection:
        return connection.execute(question.encode()).fetchall()
