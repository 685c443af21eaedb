"""Migrations 0110 and 0111 rewrite the touchpoints of before: the same rows, read by the statements of today."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING, Any

import pytest

from attributary.consumers.store.connection import connect
from attributary.consumers.store.events.bulk_reads import PersonAndTime, touchpoints_of_people
from attributary.consumers.store.migrate import Migration
from tests.factories.samples import link, sale, touch
from tests.pipeline_harness import InProcess

if TYPE_CHECKING:
    import psycopg

pytestmark = pytest.mark.postgres

_COLUMNS = """tenant_id, event_id, identity_key, anonymous_id, occurred_at_us, received_at_us, platform, channel,
    interaction, campaign, is_bot, details::jsonb, content_hash, source_topic, source_partition, source_offset,
    created_at, updated_at"""
# What 0110 and 0111 found.
_BEFORE = """
CREATE INDEX attribution_touchpoints_journey ON attribution_touchpoints (tenant_id, identity_key, occurred_at_us);
DROP INDEX attribution_touchpoints_identity;
ALTER TABLE attribution_touchpoints DROP COLUMN identity_hash;
"""
_VIEW = """CREATE OR REPLACE VIEW reporting.touchpoints AS
SELECT tenant_id, event_id, identity_key, to_timestamp(occurred_at_us / 1e6) AS occurred_at, platform, channel,
       interaction, campaign, is_bot, {columns} FROM attribution_touchpoints"""
_TEXTS = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content", "landing_url", "referrer", "country",
          "device")  # fmt: skip
_NOTHING = ", ".join([*(f"NULL::text AS {name}" for name in _TEXTS), "NULL::jsonb AS details"])
_JSONB = ", ".join([*(f"details ->> '{name}' AS {name}" for name in _TEXTS), "details"])


def migrated(connection: psycopg.Connection, number: int, name: str) -> None:
    text = resources.files("attributary.consumers.store.migrations").joinpath(name).read_text("utf-8")
    file = Migration(number, name, text)
    for statement in [file.sql] if file.is_transactional else file.statements:
        connection.execute(statement.encode())


def test_the_rows_of_before_become_those_of_today(database: str) -> None:
    details: dict[str, Any] = {
        "campaign_name": "Frühling \U0001f600",
        "utm_source": 'a "b" \\u0000',
        "properties": {"z": "1", "a": ""},
    }
    with InProcess(database) as stages:
        stages.stitch(touch("t1", 1, who="u:jane", anonymous_id="d1", **details), touch("t2", 2, who="a:d2"))
        stages.stitch(*(touch(f"m{n}", 3, who=f"a:x{n % 40}") for n in range(300)), link("l1", "d2", "jane", 4))
    with connect(database, application_name="tests", autocommit=True) as connection:
        # As it was: the type that Postgres writes anew, the index by the key's text.
        for statement in (
            _VIEW.format(columns=_NOTHING), _BEFORE,
            "ALTER TABLE attribution_touchpoints ALTER COLUMN details TYPE jsonb USING details::jsonb",
            _VIEW.format(columns=_JSONB),
        ):  # fmt: skip
            connection.execute(statement.encode())
        rows = connection.execute(f"SELECT {_COLUMNS} FROM attribution_touchpoints ORDER BY 1, 2".encode()).fetchall()
        view = connection.execute("SELECT * FROM reporting.touchpoints ORDER BY 1, 2").fetchall()
        assert len(rows) == len(view) == 302
        migrated(connection, 110, "0110_lean_touchpoints.sql")
        migrated(connection, 111, "0111_touchpoints_by_hash.sql")
        migrated(connection, 111, "0111_touchpoints_by_hash.sql")  # it may be repeated
        assert (
            connection.execute(f"SELECT {_COLUMNS} FROM attribution_touchpoints ORDER BY 1, 2".encode()).fetchall()
            == rows
        )
        assert connection.execute("SELECT * FROM reporting.touchpoints ORDER BY 1, 2").fetchall() == view
        indexes = connection.execute(
            "SELECT indexname FROM pg_indexes WHERE tablename = 'attribution_touchpoints' ORDER BY 1"
        ).fetchall()
        names = [name.removeprefix("attribution_touchpoints_") for (name,) in indexes]
        assert names == ["identity", "linking", "pkey", "time", "written"]
        found = touchpoints_of_people(connection, [PersonAndTime("acme", "u:jane")])
        assert [(each.event_id, each.details.get("utm_source")) for each in found[0]] == [
            ("t1", 'a "b" \\u0000'),
            ("t2", None),
        ]
    with InProcess(database) as stages:  # the stages find the rows and go on
        (result,) = stages.publish(sale("c1", 5, who="u:jane"))
        assert result["touchpoint_count"] == 2


def test_a_text_that_only_looks_like_an_escaped_nul_is_kept(database: str) -> None:
    with InProcess(database) as stages:
        stages.stitch(touch("t1", 1, utm_term="\\u0000", utm_source="b", campaign_id="7"))
    with connect(database, application_name="tests") as connection:
        question = "SELECT details::text, details ->> 'utm_term' FROM attribution_touchpoints"
        ((text, term),) = connection.execute(question).fetchall()
    assert term == "\\u0000"
    assert '"utm_term":' in text
