"""Plans that small batches keep: on grown tables alone, and for seconds; there they use the right indexes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from attributary.consumers.runtime.records import Record
from attributary.consumers.store import session as sessions
from attributary.consumers.store.connection import connect
from attributary.consumers.store.events import attribution_inputs, staging, stitch_sql
from attributary.consumers.store.results import results
from attributary.consumers.store.session import StoreSession
from attributary.producers.simulator import SimulatorConfig, Volume, simulate
from attributary.schemas.codec import Codec
from attributary.schemas.topics import CONVERSIONS, IDENTITIES, TOUCHPOINTS
from tests.pipeline_harness import InProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.postgres

NAMES = {TOUCHPOINTS: "touchpoint", CONVERSIONS: "conversion", IDENTITIES: "identity_link"}
BY_DATE = {"attribution_conversions_date", "attribution_results_date"}  # all of a tenant, one by one
NOW = 1_764_000_000_000_000
STATEMENTS = {
    **{name: text for name, text in vars(stitch_sql).items() if name.isupper() and not name.startswith("_")
       and isinstance(text, str)},
    **{name: getattr(results, name) for name in ("_BEFORE", "_LOCK", "_INSERT", "_OBSERVE", "_REPAIR")},
    **{name: getattr(attribution_inputs, name) for name in ("_CONVERSIONS", "_TOUCHPOINTS")},
}  # fmt: skip


def lookups(plan: Any) -> Iterator[tuple[str, str]]:
    """Each table that a plan reads, with how."""
    if isinstance(plan, list):
        for part in plan:
            yield from lookups(part)
    elif isinstance(plan, dict):
        table = str(plan.get("Relation Name", ""))
        if table.startswith("attribution_") and plan.get("Node Type") != "ModifyTable":
            yield table, str(plan.get("Index Name", plan["Node Type"]))
        elif str(plan.get("Index Name", "")).startswith("attribution_"):
            yield "", str(plan["Index Name"])
        for part in plan.values():
            yield from lookups(part)


def plans(connection: psycopg.Connection) -> dict[str, list[tuple[str, str]]]:
    found = {}
    for name, text in STATEMENTS.items():
        numbers: dict[str, int] = {}
        numbered = re.sub(
            r"%\((\w+)\)s|%s", lambda match: f"${numbers.setdefault(match[1] or str(match.start()), len(numbers) + 1)}",  # noqa: B023
            text,
        )  # fmt: skip
        row = connection.execute(f"EXPLAIN (GENERIC_PLAN, FORMAT JSON) {numbered}", prepare=False).fetchone()
        assert row is not None
        found[name] = sorted(lookups(row[0]))
    return found


def test_plans_made_anew_on_a_grown_store_look_up_by_key_and_person_whatever_they_were_before(database: str) -> None:
    with connect(database, application_name="tests", autocommit=True) as connection:
        if connection.info.server_version < 160_000:
            pytest.skip("EXPLAIN (GENERIC_PLAN) is of Postgres 16")
        staging.create_staging(connection)
        results.create_result_staging(connection)
        attribution_inputs.prepare_reading(connection)
        empty = plans(connection)
        traffic = simulate(SimulatorConfig(now_micros=NOW, seed=3, volume=Volume(touchpoints=3_000, conversions=300)))
        codec = Codec()
        batch = [
            Record(event.topic, 0, number, None, codec.encode(NAMES[event.topic], event.record), NOW // 1_000 + number)
            for number, event in enumerate(traffic)
        ]
        with InProcess(database) as stages:
            stages.read(batch)
            stages.answer()
        grown = plans(connection)
        connection.execute("ANALYZE")
        analysed = plans(connection)
    assert len(empty) > 25
    assert any(how in BY_DATE for statement in empty.values() for _, how in statement), "then plans could be kept"
    for full in (grown, analysed):
        assert {name: found for name, found in full.items() if any(how in BY_DATE for _, how in found)} == {}


def test_plans_are_kept_for_a_small_transaction_alone_and_dropped_again_soon(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = StoreSession(database, "tests", staging.create_staging)

    def mode() -> Any:
        row = session.connection().execute("SHOW plan_cache_mode").fetchone()
        assert row is not None
        return row[0]

    def kept() -> int:
        row = session.connection().execute(
            "SELECT coalesce(sum(generic_plans), 0)::int4 FROM pg_prepared_statements WHERE statement LIKE %s",
            ["%attribution_positions%"], prepare=False,
        ).fetchone()  # fmt: skip
        assert row is not None
        return int(row[0])

    def ask() -> None:
        session.connection().execute("SELECT count(*) FROM attribution_positions WHERE topic = %s", ["t"])

    try:
        with session.transaction():
            session.keep_plans()
            assert mode() == "force_custom_plan", "the tables are small"
        monkeypatch.setattr(sessions, "_GROWN_BYTES", 0)
        session._plans_since = None
        with session.transaction():
            session.keep_plans()
            assert mode() == "force_generic_plan"
            for _ in range(3):
                ask()
        assert kept() > 0
        with session.transaction():
            assert mode() == "force_custom_plan"
        monkeypatch.setattr(sessions, "_PLANS_KEPT_SECONDS", -1.0)
        monkeypatch.setattr(sessions, "_GROWN_BYTES", 1 << 40)
        with session.transaction():
            session.keep_plans()  # looks again at once
            assert mode() == "force_custom_plan"
    finally:
        session.close()
