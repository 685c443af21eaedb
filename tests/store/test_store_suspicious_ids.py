"""Ids that collect more than a person does are found, counted and named with the cure (issue 16, point 2)."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
import yaml
from typer.testing import CliRunner

from attributary.attribution_core.domain.identity_rules import IdentityRules
from attributary.cli.main import app
from attributary.consumers.store.connection import connect
from attributary.consumers.store.events.suspicious_ids import SuspiciousId, suspicious_ids
from attributary.consumers.store.session import StoreSession
from attributary.consumers.sweeper import metrics
from attributary.consumers.sweeper.identity_monitor import IdentityLimits, IdentityMonitor
from tests.factories.samples import DAY_US, START, START_US, link, sale, touch
from tests.pipeline_harness import InProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from tests.factories.samples import SampleEvent

pytestmark = pytest.mark.postgres

LIMITS = {"touchpoints": 5, "anonymous_ids": 3}
WHOLE = (START_US, START_US + 10 * DAY_US)


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    with connect(database, application_name="tests", autocommit=True) as opened:
        yield opened


def store(database: str, events: list[SampleEvent]) -> None:
    with InProcess(database) as pipeline:
        pipeline.stitch(*events)


def kiosk(day: int = 0, devices: int = 4) -> list[SampleEvent]:
    """Devices that all name one user, by a link, by touches and by a purchase."""
    at = 24 * day + 1
    return [
        link(f"l{day}", f"d{day}-0", "kiosk", at),
        *(touch(f"t{day}-{n}", at + n / 10, who="u:kiosk", anonymous_id=f"d{day}-{n}") for n in range(1, devices - 1)),
        sale(f"s{day}", at + 2, who="u:kiosk", anonymous_id=f"d{day}-{devices - 1}"),
    ]


def test_a_user_with_more_devices_a_day_than_the_limit_is_found(database: str, connection: psycopg.Connection) -> None:
    store(database, [*kiosk(0, devices=3), *kiosk(2, devices=5), *kiosk(3, devices=4)])
    assert suspicious_ids(connection, LIMITS, WHOLE) == [
        SuspiciousId("acme", "user_id", "kiosk", "anonymous_ids", 5, "2026-11-03", 2)
    ]
    assert suspicious_ids(connection, {"anonymous_ids": 0}, WHOLE) == []
    assert suspicious_ids(connection, LIMITS, (START_US, START_US + 2 * DAY_US)) == []
    assert suspicious_ids(connection, LIMITS, WHOLE, tenant_id="other") == []


def test_an_id_with_more_touchpoints_a_day_than_the_limit_is_found_and_robots_do_not_count(
    database: str, connection: psycopg.Connection
) -> None:
    many = [touch(f"m{n}", n / 10, who="a:shared") for n in range(6)]
    robot = [touch(f"r{n}", n / 10, who="a:robot", is_bot=True) for n in range(9)]
    spread = [touch(f"s{n}", 24 * n, who="a:loyal") for n in range(8)]
    others = [touch(f"o{n}", n / 10, who="a:other", tenant_id="beta") for n in range(7)]
    store(database, [*many, *robot, *spread, *others])
    found = [
        (each.tenant_id, each.kind, each.id, each.most_a_day) for each in suspicious_ids(connection, LIMITS, WHOLE)
    ]
    assert found == [("beta", "anonymous_id", "other", 7), ("acme", "anonymous_id", "shared", 6)]
    assert len(suspicious_ids(connection, LIMITS, WHOLE, limit=1)) == 1


def test_the_command_names_the_ids_and_what_to_write_into_the_file(database: str) -> None:
    days = time.time_ns() // 1_000 // DAY_US - START_US // DAY_US + 1
    strange = [touch(f"x{n}", n / 10, who="u:a'b\": [c]") for n in range(6)]
    store(database, [*kiosk(), *strange])
    arguments = ["identities", "suspicious", "--days", str(max(days, 2)), "--touchpoints", "5", "--anonymous-ids", "3"]
    result = CliRunner().invoke(app, arguments, env={"DATABASE_URL": database})
    assert result.exit_code == 0, result.output
    refused = yaml.safe_load(result.stdout.split("\n\n")[-1])
    rules = IdentityRules.parse(refused)
    assert [rules.broken("acme", each) is not None for each in ("kiosk", "a'b\": [c]", "somebody")] == [
        True,
        True,
        False,
    ]
    result = CliRunner().invoke(app, [*arguments, "--json"], env={"DATABASE_URL": database})
    assert {each["id"] for each in json.loads(result.stdout)["suspicious"]} == {"kiosk", "a'b\": [c]"}
    quiet = CliRunner().invoke(
        app, [*arguments, "--touchpoints=100", "--anonymous-ids=0"], env={"DATABASE_URL": database}
    )
    assert "no id is above 100 touchpoints a day" in quiet.stdout


def test_the_sweeper_counts_them_without_a_name(database: str, capsys: pytest.CaptureFixture[str]) -> None:
    hours = (time.time() - START.timestamp()) / 3600
    now = [link(f"l{n}", f"device-{n}", "kiosk", hours) for n in range(4)]
    store(database, [*now])
    limits = IdentityLimits(ATTRIBUTION_SUSPICIOUS_TOUCHPOINTS=5, ATTRIBUTION_SUSPICIOUS_ANONYMOUS_IDS=3)
    session = StoreSession(database, "tests")
    monitor = IdentityMonitor(limits, session, least_seconds=3_600)
    monitor.turn()
    assert metrics.suspicious_identities.labels("anonymous_ids")._value.get() == 1
    assert metrics.suspicious_identities.labels("touchpoints")._value.get() == 0
    said = capsys.readouterr().out
    assert "kiosk" not in said
    store(database, [link(f"m{n}", f"other-{n}", "till", hours) for n in range(4)])
    monitor.turn()  # not yet again
    session.close()
    assert metrics.suspicious_identities.labels("anonymous_ids")._value.get() == 1
