"""What the table of tenants decides about records: who may publish, and which ids name nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest

from attributary.attribution_core.domain.identity_rules import BUILT_IN, IdentityRules
from attributary.attribution_core.domain.lookback import DEFAULT_POLICY, LookbackPolicy
from attributary.consumers.adapters import tenant_rules
from attributary.consumers.adapters.tenant_rules import TenantAdmission
from attributary.consumers.stitcher.stage import StitcherStage
from attributary.consumers.store.connection import connect
from attributary.consumers.store.tenants import Tenant, store_tenant, tenant_ids
from tests.factories.samples import codec, records, sale, touch

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

pytestmark = pytest.mark.postgres


def store(dsn: str, *tenants: Tenant) -> None:
    with connect(dsn, application_name="tests") as connection:
        for tenant in tenants:
            store_tenant(connection, tenant)


def stage_of(
    dsn: str, unknown_tenants: Literal["open", "closed"], identities: IdentityRules = BUILT_IN
) -> StitcherStage:
    admission = TenantAdmission(ATTRIBUTION_UNKNOWN_TENANTS=unknown_tenants)
    policy = LookbackPolicy.parse(DEFAULT_POLICY)
    return StitcherStage(dsn, codec(), policy, 0.5, admission=(admission, identities))


@pytest.fixture
def closed(database: str) -> Iterator[StitcherStage]:
    stage = stage_of(database, "closed")
    yield stage
    stage.close()


def test_where_tenants_are_closed_records_of_an_unknown_one_are_dead_letters(
    closed: StitcherStage, database: str
) -> None:
    store(database, Tenant("acme"))
    outcome = closed.handle(records([touch("t1"), touch("t2", tenant_id="typo"), sale("c1", 1, tenant_id="typo")]))
    assert [(letter.record.offset, letter.field) for letter in outcome.dead_letters] == [
        (1, "tenant_id"),
        (2, "tenant_id"),
    ]
    reason = "must be a known tenant: `attributary tenants set` adds one"
    assert outcome.dead_letters[0].reason == f"touchpoint: tenant_id: {reason}"
    with connect(database, application_name="tests") as connection:
        assert connection.execute("SELECT tenant_id FROM attribution_touchpoints").fetchall() == [("acme",)]


def test_a_tenant_that_is_added_may_publish_at_once(closed: StitcherStage, database: str) -> None:
    assert len(closed.handle(records([touch("t1")])).dead_letters) == 1
    store(database, Tenant("acme"))
    assert closed.handle(records([touch("t2")], first=1)).dead_letters == []


def test_where_tenants_are_open_anybody_may_publish(database: str) -> None:
    stage = stage_of(database, "open")
    store(database, Tenant("acme"))
    assert stage.handle(records([touch("t1"), touch("t2", tenant_id="new")])).dead_letters == []
    stage.close()


def test_ids_of_a_tenant_add_to_those_of_the_file(database: str) -> None:
    store(database, Tenant("acme", generic_ids=["Kiosk-7"], real_ids=["guest"]))
    stage = stage_of(database, "open", IdentityRules({"acme": ["call-centre"], "shop": ["till"]}))
    refused = [("acme", "kiosk-7"), ("acme", "call-centre"), ("shop", "till"), ("shop", "guest")]
    welcome = [("shop", "kiosk-7"), ("acme", "guest"), ("acme", "till")]
    events = [touch(f"t{n}", tenant_id=tenant, anonymous_id=key) for n, (tenant, key) in enumerate(refused + welcome)]
    letters = stage.handle(records(events)).dead_letters
    assert [letter.record.offset for letter in letters] == [0, 1, 2, 3]
    stage.close()


def test_however_many_records_are_refused_a_batch_asks_once_and_goes_on(
    closed: StitcherStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def counted(connection: psycopg.Connection) -> dict[str, tuple[list[str], list[str]]]:
        asked.append(1)
        return tenant_ids(connection)

    monkeypatch.setattr(tenant_rules, "tenant_ids", counted)
    outcome = closed.handle(records([touch(f"t{n}", tenant_id=f"shop-{n}") for n in range(150)]))
    assert len(outcome.dead_letters) == 150  # more than the share of poison that stops a stage: they are none
    assert len(asked) <= 2  # when the ten seconds are over, and once for the unknown one
