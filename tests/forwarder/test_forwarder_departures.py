"""A conversion of a tenant that moved is forwarded by the other installation, and by nobody here."""

from __future__ import annotations

import pytest

from attributary.consumers.adapters.departures import DeparturesCache
from attributary.consumers.destinations.credentials import Credentials
from attributary.consumers.destinations.meta.destination import MetaDestination, MetaOptions
from attributary.consumers.forwarder.tasks import Route, Tasks
from attributary.consumers.runtime.records import Outcome
from attributary.consumers.store.cells.moves import Move, store_move
from attributary.consumers.store.connection import connect
from attributary.consumers.store.session import StoreSession
from tests.forwarder.forwarder_factories import META_ACCOUNT, conversion, records

NOW = 1_795_000_000_000_000


@pytest.mark.postgres
@pytest.mark.parametrize("state", ["fenced", "held", "relaying", "moved"])
def test_a_tenant_that_moved_is_left_to_the_other_forwarder(database: str, state: str) -> None:
    with connect(database, application_name="tests") as connection:
        store_move(connection, Move("shop", "m1", state, "north."))  # type: ignore[arg-type]  # one of its states
    session = StoreSession(database, "tests")
    credentials = Credentials("meta", META_ACCOUNT)
    tasks = Tasks(Route(MetaDestination(MetaOptions()), credentials, departed=DeparturesCache(session)))
    events = [conversion(NOW, event_id="stays"), conversion(NOW, event_id="left", tenant_id="shop")]
    outcome = Outcome()
    found = tasks.read(records(events, now_micros=NOW), outcome, NOW)
    assert {key.event_id for key in found} == {"stays"}
    assert outcome.dead_letters == []  # the stitcher says of it what there is to say
    session.close()
