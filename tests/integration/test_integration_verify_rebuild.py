"""`attributary rebuild`: damage is put right, an interrupted run goes on, a lost database comes back from the log."""

from __future__ import annotations

import signal
import subprocess
import time
from operator import itemgetter
from typing import TYPE_CHECKING

import psycopg
import pytest

from attributary.local.stages import command_line
from attributary.schemas.topics import topic_of
from tests.factories.samples import START, link, sale, touch
from tests.factories.traffic import publish, traffic
from tests.observed_state import read_results

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fixtures.pipeline import PipelineUnderTest, Publisher

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

STAGES = ("stitcher", "attributor", "auditor")
# One statement a kind of damage to what was derived, each on other rows.
DERIVED = (
    (
        "UPDATE attribution_identities SET user_id = 'somebody else' WHERE anonymous_id IN "
        "(SELECT anonymous_id FROM attribution_identities ORDER BY anonymous_id LIMIT 5)"
    ),
    (
        "DELETE FROM attribution_identities WHERE anonymous_id IN "
        "(SELECT anonymous_id FROM attribution_identities ORDER BY anonymous_id DESC LIMIT 5)"
    ),
    (
        "DELETE FROM attribution_journeys WHERE journey_key IN "
        "(SELECT identity_key FROM attribution_touchpoints ORDER BY event_id LIMIT 20)"
    ),
    (
        "UPDATE attribution_journeys SET last_event_us = first_event_us, last_received_us = 0 WHERE journey_key IN "
        "(SELECT identity_key FROM attribution_touchpoints ORDER BY event_id DESC LIMIT 20)"
    ),
    (
        "UPDATE attribution_conversions SET net_value_micros = net_value_micros + 10000, journey_key = 'u:nobody' "
        "WHERE conversion_id IN (SELECT conversion_id FROM attribution_conversions WHERE version > 0 "
        "ORDER BY conversion_id LIMIT 10)"
    ),
    (
        "DELETE FROM attribution_conversions WHERE conversion_id IN "
        "(SELECT conversion_id FROM attribution_conversions WHERE version > 0 ORDER BY conversion_id DESC LIMIT 10)"
    ),
)
OWED = "SELECT count(*) FROM attribution_conversions WHERE observed_version < version"


def attributary(pipeline: PipelineUnderTest, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command_line(*arguments), env=pipeline.variables(**variables), capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip


def rebuild(pipeline: PipelineUnderTest, *arguments: str) -> str:
    done = attributary(pipeline, "rebuild", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def nothing_differs(pipeline: PipelineUnderTest) -> None:
    done = attributary(pipeline, "verify", "--limit", "50")
    assert done.returncode == 0, done.stdout + done.stderr


def damage(pipeline: PipelineUnderTest, *statements: str) -> None:
    with psycopg.connect(pipeline.dsn) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount > 0, statement


def test_derived_rows_are_put_right_beside_running_stages_and_a_killed_rebuild_goes_on(
    pipeline: PipelineUnderTest, publisher: Publisher
) -> None:
    events = traffic(1_200, 1_100, seed=71)
    publish(publisher, events[:2_000])
    pipeline.start(*STAGES)
    pipeline.settle()
    published = len(read_results(pipeline.bootstrap))
    assert "nothing to change" in rebuild(pipeline)
    assert pipeline.query(OWED) == 0  # nothing was raised

    damage(pipeline, *DERIVED)
    assert attributary(pipeline, "verify").returncode == 1
    would = rebuild(pipeline, "--dry-run")
    assert "would change: 10 anonymous ids" in would
    assert "would change: 20 conversions put right" in would
    assert attributary(pipeline, "verify").returncode == 1  # it was only tried

    killed = attributary(pipeline, "rebuild", ATTRIBUTION_CRASH_AT="rebuild_after_page")
    assert killed.returncode == -signal.SIGKILL
    assert "crash_at: rebuild_after_page" in killed.stderr
    came_to = "SELECT step || looked_at FROM attribution_rebuilds WHERE finished_at IS NULL"
    assert pipeline.query(came_to) == "conversions500"
    said = rebuild(pipeline)
    assert "took up rebuild 2, which had been cut short" in said
    # What was published was right all the time: nothing had to be said again.
    assert "owe a new result" not in said
    assert pipeline.query(OWED) == 0
    nothing_differs(pipeline)
    assert len(read_results(pipeline.bootstrap)) == published

    publish(publisher, events[2_000:])  # and stitching goes on above what was rebuilt
    pipeline.check(publisher.acknowledged)
    nothing_differs(pipeline)


def test_derived_rows_are_put_right_in_the_middle_of_traffic(pipeline: PipelineUnderTest, publisher: Publisher) -> None:
    events = traffic(3_000, 300, seed=75)
    pipeline.environment["ATTRIBUTION_BATCH_SIZE"] = "100"
    publish(publisher, events[:1_500])
    pipeline.start(*STAGES)
    pipeline.start("stitcher", instance="1")
    pipeline.settle()
    damage(pipeline, *DERIVED)
    publish(publisher, events[1_500:])
    pipeline.start("sweeper", SWEEP_REPAIR_AFTER_SECONDS="1")
    rebuild(pipeline)
    pipeline.settle()
    # What the stitchers derived meanwhile from rows that were still damaged, the second one finds.
    rebuild(pipeline)
    pipeline.check(publisher.acknowledged, repeats_allowed=True)
    nothing_differs(pipeline)


def test_a_result_that_is_not_what_it_must_be_is_published_again_under_a_higher_version(
    pipeline: PipelineUnderTest, publisher: Publisher
) -> None:
    publish(publisher, traffic(600, 60, seed=72, tenants=2))
    pipeline.start(*STAGES)
    pipeline.settle()
    damage(
        pipeline,
        "UPDATE attribution_results SET net_value_micros = net_value_micros + 10000 WHERE (tenant_id, conversion_id) = "
        "(SELECT tenant_id, min(conversion_id) FROM attribution_results GROUP BY tenant_id ORDER BY tenant_id LIMIT 1)",
        "DELETE FROM attribution_results r WHERE (tenant_id, conversion_id) = "
        "(SELECT tenant_id, max(conversion_id) FROM attribution_results GROUP BY tenant_id ORDER BY tenant_id DESC "
        "LIMIT 1)",
    )
    for tenant in ("min", "max"):
        whose = pipeline.query(f"SELECT {tenant}(tenant_id) FROM attribution_conversions")
        assert "changed: 1 conversions that owe a new result" in rebuild(pipeline, "--tenant", whose)
    pipeline.start("sweeper", SWEEP_REPAIR_AFTER_SECONDS="1")
    pipeline.check(publisher.acknowledged)
    repaired = [seen.result for seen in read_results(pipeline.bootstrap) if seen.result["version_reason"] == "repair"]
    assert len(repaired) == 2
    assert all(result["delta_micros"] == 0 for result in repaired)
    assert " 0 differences" in attributary(pipeline, "verify").stdout


def test_a_lost_database_comes_back_from_the_log_and_versions_never_fall(
    pipeline: PipelineUnderTest, publisher: Publisher
) -> None:
    events = traffic(1_000, 100, seed=73)
    publish(publisher, events[:700])
    pipeline.start(*STAGES)
    pipeline.settle()
    publish(publisher, events[700:900])  # late events: some conversions have several versions now
    pipeline.settle()
    refused = attributary(pipeline, "rebuild", "--from-log")
    assert refused.returncode == 1
    assert "stop these first" in refused.stderr
    pipeline.stop()
    publish(publisher, events[900:])  # nobody has read these yet
    newest = pipeline.query("SELECT max(version) FROM attribution_results")
    assert newest > 1
    tables = ("touchpoints", "conversion_events", "identity_links", "identities", "journeys", "conversions", "results",
              "positions", "policies")  # fmt: skip
    with psycopg.connect(pipeline.dsn) as connection:
        connection.execute("TRUNCATE " + ", ".join(f"attribution_{name}" for name in tables))
    pipeline.environment["KAFKA_SESSION_TIMEOUT_MS"] = "6000"
    for crash in ("rebuild_after_batch", "rebuild_after_page"):
        killed = attributary(pipeline, "rebuild", "--from-log", ATTRIBUTION_CRASH_AT=crash)
        assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    said = rebuild(pipeline, "--from-log")
    assert "took up rebuild 1" in said
    assert pipeline.events() > 1_000
    pipeline.start(*STAGES)
    pipeline.start("sweeper", SWEEP_REPAIR_AFTER_SECONDS="1")
    pipeline.check(publisher.acknowledged)
    nothing_differs(pipeline)
    # Only what the new events changed was published anew.
    again = [seen.result for seen in read_results(pipeline.bootstrap) if seen.result["version_reason"] == "repair"]
    assert len(again) < 100


def test_events_that_were_altered_or_lost_come_back_from_the_log(
    pipeline: PipelineUnderTest, publisher: Publisher
) -> None:
    publish(publisher, traffic(600, 60, seed=74))
    pipeline.start(*STAGES)
    pipeline.settle()
    pipeline.stop()
    damage(
        pipeline,
        "DELETE FROM attribution_touchpoints WHERE event_id IN "
        "(SELECT event_id FROM attribution_touchpoints ORDER BY event_id LIMIT 50)",
        "UPDATE attribution_touchpoints SET channel = 'other', occurred_at_us = occurred_at_us + 1 WHERE event_id IN "
        "(SELECT event_id FROM attribution_touchpoints ORDER BY event_id DESC LIMIT 50)",
        "UPDATE attribution_conversion_events SET value_micros = value_micros + 10000 WHERE event_id IN "
        "(SELECT event_id FROM attribution_conversion_events ORDER BY event_id LIMIT 10)",
        "DELETE FROM attribution_identity_links WHERE event_id IN "
        "(SELECT event_id FROM attribution_identity_links ORDER BY event_id LIMIT 3)",
    )
    said = rebuild(pipeline, "--from-log")
    assert "changed: 60 events altered since they were stored" in said
    pipeline.start(*STAGES)
    pipeline.start("sweeper", SWEEP_REPAIR_AFTER_SECONDS="1")
    pipeline.check(publisher.acknowledged)
    nothing_differs(pipeline)


def test_an_id_that_came_onto_the_list_is_withdrawn_and_its_conversions_are_restated(
    pipeline: PipelineUnderTest, publisher: Publisher, tmp_path: Path
) -> None:
    """A kiosk's shared login makes one person of two strangers, until its id is refused."""
    at = (time.time() - START.timestamp()) / 3_600 - 10  # hours: what is older than the lateness would be final at once
    for event in (
        touch("t-ann", at + 1, who="a:ann", channel="paid_search"),
        link("l-ann", "ann", "kiosk-1", at + 2),
        touch("t-bob", at + 3, who="a:bob", channel="email"),
        link("l-bob", "bob", "kiosk-1", at + 4),
        sale("s-bob", at + 5, who="a:bob"),
        sale("s-kiosk", at + 6, who="u:kiosk-1"),
    ):
        publisher.send(topic_of(event.NAME), event.to_record())
    publisher.flush()
    pipeline.start(*STAGES)
    pipeline.settle()

    def newest() -> dict[str, tuple[int, list[str]]]:
        """Return the net value of each conversion, in cents, and the touches that its newest result credits."""
        found = sorted((seen.result for seen in read_results(pipeline.bootstrap)), key=itemgetter("version"))
        return {
            result["conversion_id"]: (
                result["net_value_micros"] // 10_000,
                sorted(each["event_id"] for each in result["touchpoints"]),
            )
            for result in found
        }

    assert newest() == {"s-bob": (1_000, ["t-ann", "t-bob"]), "s-kiosk": (1_000, ["t-ann", "t-bob"])}
    pipeline.stop()
    listed = tmp_path / "identities.yaml"
    listed.write_text("refuse: {acme: [kiosk-1]}\n")
    pipeline.environment["ATTRIBUTION_IDENTITIES_FILE"] = str(listed)
    killed = attributary(pipeline, "rebuild", "--from-log", ATTRIBUTION_CRASH_AT="rebuild_after_batch")
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    rebuild(pipeline, "--from-log")
    assert pipeline.query("SELECT count(*) FROM attribution_identity_links") == 0
    assert pipeline.query("SELECT count(*) FROM attribution_conversion_events") == 1
    pipeline.start(*STAGES)
    pipeline.start("sweeper", SWEEP_REPAIR_AFTER_SECONDS="1")
    pipeline.settle()
    assert newest() == {"s-bob": (1_000, ["t-bob"]), "s-kiosk": (0, [])}
    letters = attributary(pipeline, "dlq", "list", "--json")
    assert letters.stdout.count("must not be on the tenant's list") == 3
    nothing_differs(pipeline)
