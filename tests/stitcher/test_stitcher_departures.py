"""Records of a tenant that moves: left to the relay, or refused, by where they stand in the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from attributary.attribution_core.domain.identity_rules import BUILT_IN
from attributary.attribution_core.domain.lookback import DEFAULT_POLICY, LookbackPolicy
from attributary.consumers.adapters import departures, tenant_rules
from attributary.consumers.adapters.departures import DeparturesCache, Fate
from attributary.consumers.adapters.tenant_rules import read_tenant_rules
from attributary.consumers.stitcher.stage import StitcherStage
from attributary.consumers.store.cells.moves import Move, store_move
from attributary.consumers.store.connection import connect
from attributary.consumers.store.session import StoreSession
from attributary.schemas.topics import TOUCHPOINTS
from tests.factories.samples import SampleEvent, codec, records, sale, touch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from attributary.consumers.store.cells.moves import MoveState

pytestmark = pytest.mark.postgres

EVENTS: list[SampleEvent] = [touch("t1"), touch("t2"), sale("c1", 1), touch("t3", tenant_id="globex")]


def store(dsn: str, state: MoveState, relayed_to: int = 0) -> None:
    places = {(TOUCHPOINTS, 0): relayed_to} if relayed_to else {}
    with connect(dsn, application_name="tests") as connection:
        store_move(connection, Move("acme", "m1", state, "north.", {}, places))


def stored(dsn: str) -> list[tuple[str, str]]:
    with connect(dsn, application_name="tests") as connection:
        return connection.execute(
            "SELECT tenant_id, event_id FROM attribution_touchpoints UNION ALL "
            "SELECT tenant_id, event_id FROM attribution_conversion_events ORDER BY 1, 2"
        ).fetchall()


@pytest.fixture
def stage(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[StitcherStage]:
    monkeypatch.setattr(tenant_rules.TenantRulesCache.rules, "__defaults__", (0.0,))
    found = StitcherStage(database, codec(), LookbackPolicy.parse(DEFAULT_POLICY), 0.5)
    yield found
    found.close()


@pytest.mark.parametrize("state", ["fenced", "held", "relaying"])
def test_while_a_tenant_moves_its_records_are_left_to_the_relay(
    stage: StitcherStage, database: str, state: MoveState
) -> None:
    store(database, state)
    outcome = stage.handle(records(EVENTS))
    assert (outcome.messages, outcome.dead_letters) == ([], [])
    assert stored(database) == [("globex", "t3")]


def test_once_it_has_moved_what_was_not_relayed_is_a_dead_letter(stage: StitcherStage, database: str) -> None:
    store(database, "moved", relayed_to=1)
    outcome = stage.handle(records(EVENTS))
    assert [letter.record.offset for letter in outcome.dead_letters] == [1, 2]
    assert {letter.field for letter in outcome.dead_letters} == {"tenant_id"}
    assert outcome.dead_letters[0].reason == (
        "touchpoint: tenant_id: must be published to the installation with the prefix north.: this tenant has moved; "
        "point its publishers there"
    )
    assert stored(database) == [("globex", "t3")]


def test_a_publisher_that_still_writes_here_does_not_stop_the_stitcher(stage: StitcherStage, database: str) -> None:
    store(database, "moved")
    others = [touch(f"o{number}", tenant_id=("acme", "b", "c")[number % 3]) for number in range(300)]
    with connect(database, application_name="tests") as connection:
        for tenant in ("b", "c"):
            store_move(connection, Move(tenant, "m", "moved", ""))
    letters = stage.handle(records(others)).dead_letters
    assert len(letters) == 300
    assert "installation without a prefix" in letters[1].reason


def test_a_tenant_that_came_back_is_stored_again_from_there_on(stage: StitcherStage, database: str) -> None:
    store(database, "arrived", relayed_to=1)
    outcome = stage.handle(records([touch("t1"), touch("t2"), touch("t3")]))
    assert outcome.dead_letters == []
    assert stored(database) == [("acme", "t2"), ("acme", "t3")]


def test_a_tenant_that_came_from_elsewhere_is_like_any_other(database: str) -> None:
    store(database, "arrived")
    with connect(database, application_name="tests") as connection:
        assert read_tenant_rules(connection, BUILT_IN).departed == {}


def test_stages_that_read_no_rules_ask_now_and_then(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    session = StoreSession(database, "tests")
    cache = DeparturesCache(session)
    [record] = records([touch("t1")])
    assert cache.fate("acme", record) == (Fate.STORED, None)
    store(database, "fenced")
    assert cache.fate("acme", record)[0] is Fate.STORED  # for some seconds
    monkeypatch.setattr(departures, "KEPT_SECONDS", 0.0)
    assert cache.fate("acme", record)[0] is Fate.RELAYED
    assert cache.fate("globex", record) == (Fate.STORED, None)
    session.close()
