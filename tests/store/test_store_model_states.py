"""Versions of trained models and what is in force together, on a real Postgres."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from attributary.attribution_core.domain.journeys import JourneyBatch, Outcomes
from attributary.attribution_core.models.model_set import model_set
from attributary.attribution_core.statistics.state import JourneyState
from attributary.consumers.store.connection import connect
from attributary.consumers.store.models.model_states import (
    ModelStateError,
    NewState,
    activate,
    active_states,
    deactivate,
    fetch_model_sets,
    in_force,
    list_states,
    roll_back,
    save_states,
    show_state,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

pytestmark = pytest.mark.postgres

PATHS = [["search", "mail"], ["mail"], ["social", "search"]]
STATE = JourneyState.fit(JourneyBatch.of_paths(PATHS), Outcomes.of([True, False, True], [5_000_000, 0, 7_000_000]))


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    with connect(database, application_name="tests") as opened:
        yield opened


def new(model: str = "markov", tenant: str = "acme", **metadata: object) -> NewState:
    return NewState(tenant, model, STATE.to_document(), {"minimum_conversions": 1}, metadata)


def test_versions_count_per_tenant_and_model(connection: psycopg.Connection) -> None:
    assert save_states(connection, [new(), new(), new("poisson"), new(tenant="other")]) == [1, 2, 1, 1]
    assert save_states(connection, [new(n=3)]) == [3]
    assert save_states(connection, []) == []
    found = list_states(connection, "acme", "markov")
    assert [(row.version, row.is_active, row.activated_at) for row in found] == [
        (3, False, None),
        (2, False, None),
        (1, False, None),
    ]
    assert found[0].metadata == {"n": 3}
    assert len(list_states(connection)) == 5


def test_a_state_comes_back_as_it_was_stored(connection: psycopg.Connection) -> None:
    save_states(connection, [new(n_eff=2.5)])
    summary, state = show_state(connection, "acme", "markov", 1)
    assert summary.metadata == {"n_eff": 2.5}
    assert (state.version, state.settings) == ("1", {"minimum_conversions": 1})
    assert JourneyState.from_document(state.document) == STATE
    with pytest.raises(ModelStateError, match="no version 2"):
        show_state(connection, "acme", "markov", 2)
    with pytest.raises(ModelStateError):
        show_state(connection, "other", "markov", 1)


def test_a_pinned_set_never_changes(connection: psycopg.Connection) -> None:
    save_states(connection, [new(), new(), new("poisson"), new(tenant="other")])
    assert in_force(connection, "acme").model_set == 0
    assert activate(connection, "acme", {"markov": 1}).model_set == 1
    assert activate(connection, "acme", {"markov": 2, "poisson": 1}).model_set == 2
    assert activate(connection, "other", {"markov": 1}).model_set == 1
    assert deactivate(connection, "acme", ["markov", "unknown"]).versions == {"poisson": 1}
    assert deactivate(connection, "acme", ["poisson"]).model_set == 4
    pins = [("acme", number) for number in range(5)] + [("other", 1), ("acme", 2), ("nobody", 0)]
    found = fetch_model_sets(connection, pins)
    versions = {pin: {model: state.version for model, state in states.items()} for pin, states in found.items()}
    assert versions == {
        ("acme", 0): {},
        ("acme", 1): {"markov": "1"},
        ("acme", 2): {"markov": "2", "poisson": "1"},
        ("acme", 3): {"poisson": "1"},
        ("acme", 4): {},
        ("other", 1): {"markov": "1"},
        ("nobody", 0): {},
    }
    assert active_states(connection, "acme") == {}
    markov = model_set(["markov"], found["acme", 1]).models[0]
    assert markov.version == "1"
    with pytest.raises(ModelStateError, match="model set 9"):
        fetch_model_sets(connection, [("acme", 9)])


def test_a_set_with_a_lost_state_is_refused_instead_of_credited_otherwise(connection: psycopg.Connection) -> None:
    save_states(connection, [new()])
    activate(connection, "acme", {"markov": 1})
    connection.execute("DELETE FROM attribution_model_states")
    with pytest.raises(ModelStateError, match="names markov 1"):
        fetch_model_sets(connection, [("acme", 1)])


def test_activation_is_idempotent_and_flags_one_version(connection: psycopg.Connection) -> None:
    save_states(connection, [new(), new()])
    first = activate(connection, "acme", {"markov": 2})
    again = activate(connection, "acme", {"markov": 2})
    assert (first.changed, again.changed, again.model_set) == (True, False, 1)
    activate(connection, "acme", {"markov": 1})
    assert {row.version: row.is_active for row in list_states(connection, "acme")} == {1: True, 2: False}
    with pytest.raises(ModelStateError):
        activate(connection, "acme", {"markov": 7})
    with pytest.raises(ModelStateError, match="no version 99999"):
        activate(connection, "acme", {"markov": 10**26 - 1})
    assert in_force(connection, "acme").versions == {"markov": 1}
    assert deactivate(connection, "acme", ["markov"]).changed
    assert not deactivate(connection, "acme", ["markov"]).changed
    assert not any(row.is_active for row in list_states(connection, "acme"))


def test_rolling_back_walks_through_what_was_in_force(connection: psycopg.Connection) -> None:
    save_states(connection, [new(), new(), new(), new()])
    with pytest.raises(ModelStateError, match="not active"):
        roll_back(connection, "acme", "markov")
    for version in (1, 3, 4):
        activate(connection, "acme", {"markov": version})
    assert roll_back(connection, "acme", "markov", from_version=4).versions == {"markov": 3}
    repeated = roll_back(connection, "acme", "markov", from_version=4)
    assert (repeated.versions, repeated.changed) == ({"markov": 3}, False)
    assert roll_back(connection, "acme", "markov").versions == {"markov": 1}  # 2 was never in force
    with pytest.raises(ModelStateError, match="oldest"):
        roll_back(connection, "acme", "markov")


def test_writers_of_one_tenant_take_turns(database: str) -> None:
    def save() -> None:
        with connect(database, application_name="tests") as own:
            for _ in range(10):
                with own.transaction():
                    (version,) = save_states(own, [new()])
                    activate(own, "acme", {"markov": version})

    threads = [threading.Thread(target=save) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with connect(database, application_name="tests") as connection:
        assert [row.version for row in list_states(connection)] == list(range(30, 0, -1))
        assert in_force(connection, "acme").model_set == 30
        assert [row.version for row in list_states(connection) if row.is_active] == [
            in_force(connection, "acme").versions["markov"]
        ]


def test_a_version_that_says_it_is_of_no_use_is_refused_unless_forced(connection: psycopg.Connection) -> None:
    good, poor = {"status": "ok"}, {"status": "conversions only: no"}
    save_states(connection, [new(diagnostics=good), new(diagnostics=poor), new("poisson", diagnostics=good)])
    with pytest.raises(
        ModelStateError, match=r"because its status is: conversions only: no. To activate it all the same: --force"
    ):
        activate(connection, "acme", {"poisson": 1, "markov": 2})
    assert in_force(connection, "acme").model_set == 0  # neither of them
    assert activate(connection, "acme", {"markov": 1}).versions == {"markov": 1}
    assert activate(connection, "acme", {"markov": 2}, force=True).versions == {"markov": 2}
    assert roll_back(connection, "acme", "markov").versions == {"markov": 1}
    assert [row.status for row in list_states(connection, "acme", "markov")] == ["conversions only: no", "ok"]
