"""A user of many devices: a look-up a device, never a comparison of each device with all touchpoints of the tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from attributary.attribution_core.domain.lookback import DEFAULT_POLICY, LookbackPolicy
from attributary.consumers.adapters.error_mapping import map_errors
from attributary.consumers.attributor import metrics
from attributary.consumers.attributor.stage import AttributorStage
from attributary.consumers.maintenance.recompute import wrong_results
from attributary.consumers.store.connection import connect
from attributary.consumers.store.events import attribution_inputs
from attributary.consumers.store.events.attribution_inputs import (
    conversions_by_id,
    prepare_reading,
    touchpoints_in_reach,
)
from attributary.consumers.store.events.bulk_reads import PersonAndTime, touchpoints_of_people
from tests.factories.samples import codec, link, sale, touch
from tests.pipeline_harness import InProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

pytestmark = pytest.mark.postgres

DEVICES = 400
RULES = LookbackPolicy.parse(DEFAULT_POLICY)


class Explaining:
    """A connection that explains what it executes."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self.plans: list[dict[str, Any]] = []

    def execute(self, statement: str, parameters: Any = None) -> Any:
        if "attribution_touchpoints" in statement:
            row = self._connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).fetchone()
            assert row is not None
            self.plans.append(row[0][0]["Plan"])
        return self._connection.execute(statement, parameters)


def rows_looked_at(plan: dict[str, Any]) -> float:
    """How many rows the nodes of a plan produced or threw away, all loops together."""
    here = plan["Actual Rows"] + plan.get("Rows Removed by Join Filter", 0) + plan.get("Rows Removed by Filter", 0)
    return float(here * plan["Actual Loops"]) + sum(rows_looked_at(child) for child in plan.get("Plans", ()))


def test_reads_of_a_person_grow_with_the_devices_and_not_with_their_square(database: str) -> None:
    """Without statistics, as in the first hours of an installation, the planner is left to its guesses."""
    with InProcess(database) as stages:
        stages.stitch(*(link(f"l{n}", f"d{n}", "jane") for n in range(DEVICES)))
        stages.stitch(*(touch(f"t{n}", 1, who=f"a:d{n}") for n in range(DEVICES)))
        stages.stitch(*(sale(f"c{n}", 5, who="u:jane") for n in range(3)))
    reads: list[Callable[[Any], int]] = [
        lambda connection: len(
            touchpoints_in_reach(
                connection,
                found := conversions_by_id(connection, [("acme", f"c{n}") for n in range(3)]),
                {each.policy_version: RULES for each in found},
            )[0]
        ),
        lambda connection: sum(map(len, touchpoints_of_people(connection, [PersonAndTime("acme", "u:jane")] * 3))),
    ]
    for number, read in enumerate(reads):
        with connect(database, application_name="tests") as connection:
            if number == 0:
                prepare_reading(connection)
            explaining = Explaining(connection)
            assert read(explaining) == 3 * DEVICES
            (plan,) = explaining.plans
            assert rows_looked_at(plan) < 20 * 3 * DEVICES  # the square, three times over, is 480,000


def test_of_a_user_with_too_many_devices_those_linked_last_count_and_it_is_counted(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTRIBUTION_MAX_DEVICES", "2")
    with InProcess(database) as stages:
        stages.attributor.close()
        stages.attributor = AttributorStage(database, codec(), 1.0, 2)
        cut = metrics.people_cut._value.get()
        stages.stitch(*(link(f"l{n}", f"d{n}", "jane", n) for n in range(3)))
        stages.stitch(
            *(touch(f"t{n}", 10 + n, who=f"a:d{n}") for n in range(4)),
            touch("own", 20, who="u:jane"), sale("quiet", 30, who="a:d3"), sale("c1", 30, who="u:jane"),
        )  # fmt: skip
        found = {result["conversion_id"]: touched(result) for result in stages.answer()}
        assert found == {"c1": ["t1", "t2", "own"], "quiet": ["t3"]}
        assert metrics.people_cut._value.get() == cut + 1
        results = {result["conversion_id"]: touched(result) for result in stages.publish(link("l3", "d3", "jane", 9))}
        assert results == {"c1": ["t2", "t3", "own"], "quiet": ["t2", "t3", "own"]}
    with map_errors(), connect(database, application_name="tests") as connection:
        prepare_reading(connection)
        pending = conversions_by_id(connection, [("acme", "c1"), ("acme", "quiet")])
        assert list(wrong_results(connection, pending)) == []


def test_look_ups_are_made_for_so_many_conversions_as_their_devices_allow(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Devices without a touchpoint cost a look-up each, too, and no limit of rows ends them."""
    with InProcess(database) as stages:
        stages.stitch(*(link(f"l{n}", f"d{n}", "jane") for n in range(9)))
        stages.stitch(*(sale(f"c{n}", 5, who="u:jane") for n in range(5)), sale("quiet", 5, who="a:else"))
        with connect(database, application_name="tests") as connection:
            found = conversions_by_id(connection, [("acme", f"c{n}") for n in range(5)])
            monkeypatch.setattr(attribution_inputs, "MAX_LOOKUPS", 25)
            assert touchpoints_in_reach(connection, found, {RULES.version: RULES}) == ([], 2)
            monkeypatch.setattr(attribution_inputs, "MAX_LOOKUPS", 1)
            assert touchpoints_in_reach(connection, found, {RULES.version: RULES}) == ([], 1)
        assert len(stages.answer()) == 6


def touched(result: dict[str, Any]) -> list[str]:
    return [touch["event_id"] for touch in result["touchpoints"]]
