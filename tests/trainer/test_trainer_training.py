"""Training from a real Postgres: the statistics are those of the journeys that went in, and nobody else's."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from attributary.attribution_core.domain.journeys import JourneyBatch, Outcomes
from attributary.attribution_core.models.model_set import TrainedState, model_set
from attributary.attribution_core.statistics.state import JourneyState
from attributary.consumers.store.connection import connect
from attributary.consumers.store.events.policies import store_policy
from attributary.consumers.store.events.sweep import close_journeys
from attributary.consumers.store.models.model_states import save_states, show_state
from attributary.consumers.store.models.timelines import Selection, stream_timelines
from attributary.consumers.store.session import StoreSession
from attributary.consumers.training.journeys import FinishRules, finished_journeys
from attributary.consumers.training.read_journeys import Closing, Window, WindowStatistics, read_statistics
from attributary.consumers.training.train import TrainingError, TrainingPlan, train
from attributary.producers.pathdata import (
    PathDataMissingError,
    Replay,
    ReplayConfig,
    choose_paths,
    find_pathdata,
    read_paths,
)
from tests.factories.bulk_journeys import MARKOV, SHAPLEY, copy_replay
from tests.factories.training_events import DAY, NOW, POLICY, feed, link, order, touchpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attributary.consumers.store.models.model_states import NewState
    from attributary.producers.pathdata import PathRow

pytestmark = pytest.mark.postgres

INACTIVITY = POLICY.inactivity_micros


def paths() -> list[PathRow]:
    try:
        return read_paths(find_pathdata())
    except PathDataMissingError as missing:
        pytest.skip(str(missing))


def counted(rows: Sequence[PathRow], value_micros: int) -> JourneyState:
    """The statistics straight from the file; all value on the first path that converts: its place is not compared."""
    batch = JourneyBatch.of_paths([row.channels for row in rows])
    numbers = [[row.conversions for row in rows], [row.nulls for row in rows], [0] * len(rows)]
    numbers[2][next(place for place, row in enumerate(rows) if row.conversions)] = value_micros
    outcomes = Outcomes(*(np.array(column, dtype=np.int64) for column in numbers))
    return JourneyState.fit(batch, outcomes)


def statistics(dsn: str, window: Window, **options: Any) -> WindowStatistics:
    with closing(StoreSession(dsn, "tests")) as session, session.snapshot() as connection:
        return read_statistics(connection, window, INACTIVITY, **options)


def trained(dsn: str, plan: TrainingPlan) -> NewState:
    with closing(StoreSession(dsn, "tests")) as session, session.snapshot() as connection:
        return train(connection, plan)


@pytest.mark.slow
def test_the_reference_data_set_gives_its_exact_population_numbers(database: str) -> None:
    replay = Replay(paths(), ReplayConfig(NOW, seed=1))
    with connect(database, application_name="tests") as connection:
        store_policy(connection, POLICY)
        copy_replay(connection, replay, POLICY)
        close_journeys(connection, silent_since_us=NOW, limit=10**9)
        connection.execute("ANALYZE")
    state = trained(database, TrainingPlan("markov", Window("pathdata"), INACTIVITY))
    report = state.metadata["diagnostics"]
    assert (report["conversions"], report["nulls"], report["value_micros"]) == (19_785, 68_602, replay.value_micros)
    assert report["status"] == "ok"
    channels = {row["channel"]: row for row in report["channels"]}
    assert {name: round(row["markov"]["conversions"], 1) for name, row in channels.items()} == MARKOV
    assert {name: round(channels[name]["shapley"]["conversions"], 1) for name in SHAPLEY} == SHAPLEY
    assert channels["mi"]["status"] == "insufficient data"
    assert state.metadata["n"] == 88_387
    assert report["confidence"] == pytest.approx(0.997, abs=0.001)


def test_journeys_through_the_stitcher_come_out_as_they_went_in(database: str) -> None:
    rows = choose_paths(paths(), limit=6_000, seed=3)
    replay = Replay(rows, ReplayConfig(NOW, seed=1))
    feed(database, ((topic, record) for topic, _, record in replay))
    with connect(database, application_name="tests") as connection:
        assert close_journeys(connection, silent_since_us=NOW, limit=10**9) == replay.journeys
    found, steps = statistics(database, Window("pathdata")), list[tuple[int, int | None]]()
    expected = counted(rows, replay.value_micros)
    assert found.currency == "EUR"
    assert (found.counts.people, found.counts.open_touches, found.counts.passed_over) == (replay.journeys, 0, 0)
    assert found.state.value_micros == replay.value_micros
    without_value = {names: entry[:2] for names, entry in found.state.sets.items()}
    assert without_value == {names: entry[:2] for names, entry in expected.sets.items()}
    for part in ("steps", "opens", "conversions", "nulls"):
        assert (getattr(found.state.chain, part) == getattr(expected.chain, part)).all()
    assert found.policies == (POLICY.version,)
    again = statistics(database, Window("pathdata"), progress=lambda done, total: steps.append((done, total)))
    assert again.state == found.state
    assert (steps[0], steps[-1]) == ((0, replay.journeys), (replay.journeys, replay.journeys))


def test_only_closed_people_are_counted_as_not_converting(database: str) -> None:
    feed(
        database,
        [
            touchpoint("old", 0, "mail"),
            touchpoint("new", 40, "search"),
            touchpoint("buyer", 39, "search"),
            order("buyer", 40, 5),
        ],
    )
    sets = statistics(database, Window("acme")).state.sets
    assert sets == {("search",): (1, 0, 5_000_000)}
    silent = statistics(database, Window("acme", closing=Closing.SILENT))
    assert silent.state.sets == {("search",): (1, 0, 5_000_000), ("mail",): (0, 1, 0)}
    assert silent.counts.open_touches == 1
    everybody = statistics(database, Window("acme", closing=Closing.ALL))
    assert everybody.state.sets[("search",)] == (1, 1, 5_000_000)
    with connect(database, application_name="tests") as connection:
        close_journeys(connection, silent_since_us=NOW + 99 * DAY, limit=100)
    assert statistics(database, Window("acme")).state.sets == {
        ("search",): (1, 1, 5_000_000),
        ("mail",): (0, 1, 0),
    }
    assert statistics(database, Window("acme", since=NOW + 39 * DAY)).state.sets == {("search",): (1, 1, 5_000_000)}
    assert statistics(database, Window("acme", until=NOW + 39 * DAY)).state.sets == {("mail",): (0, 1, 0)}
    assert statistics(database, Window("acme", journey_key="a:old")).state.sets == {("mail",): (0, 1, 0)}
    assert statistics(database, Window("nobody")).state.sets == {}


def test_a_person_with_several_devices_is_one_person(database: str) -> None:
    feed(
        database,
        [
            touchpoint("phone", 1, "social"),
            touchpoint("laptop", 2, "mail"),
            link("phone", "anna", 3),
            link("laptop", "anna", 3),
            touchpoint("tablet", 3, "search"),
            order("laptop", 4, 7),
        ],
    )
    found = statistics(database, Window("acme"))
    assert found.state.sets == {("mail", "social"): (1, 0, 7_000_000)}
    assert found.counts.people == 2  # anna, and the tablet that nobody owns
    for key in ("a:phone", "a:laptop", "u:anna"):
        assert statistics(database, Window("acme", journey_key=key)).state.sets == found.state.sets
    with connect(database, application_name="tests") as connection:
        close_journeys(connection, silent_since_us=NOW + 99 * DAY, limit=100)
    assert ("search",) in statistics(database, Window("acme")).state.sets


def test_amounts_of_two_currencies_are_never_added(database: str) -> None:
    feed(
        database,
        [
            *(event for n in range(2) for event in (touchpoint(f"p{n}", 1, "mail"), order(f"p{n}", 2, 3))),
            touchpoint("q", 1, "mail"),
            order("q", 2, 100, currency="JPY"),
        ],
    )
    found = statistics(database, Window("acme"))
    assert (found.currency, found.state.value_micros, found.state.conversions) == ("EUR", 6_000_000, 3)
    assert found.counts.foreign_currency == 1
    other = statistics(database, Window("acme"), currency="JPY")
    assert (other.state.value_micros, other.counts.foreign_currency) == (100_000_000, 2)


def test_a_trained_state_is_one_that_the_attributor_can_use(database: str) -> None:
    feed(database, [touchpoint("p", 1, "mail"), touchpoint("p", 2, "search"), order("p", 3, 9)])
    plan = TrainingPlan("markov", Window("acme"), INACTIVITY, settings={"minimum_conversions": 1})
    state = trained(database, plan)
    with connect(database, application_name="tests") as connection:
        (version,) = save_states(connection, [state])
        summary, stored = show_state(connection, "acme", "markov", version)
    model = model_set(["markov"], {"markov": stored}).models[0]
    assert not model.fallback(JourneyBatch.of_paths([["mail", "search"]])).any()  # type: ignore[union-attr]
    assert summary.metadata["n_eff"] == 1.0
    assert summary.metadata["diagnostics"]["status"].startswith("conversions only")
    assert summary.metadata["code_version"].startswith("0.")
    assert isinstance(stored, TrainedState)


def test_what_cannot_be_trained_says_why(database: str) -> None:
    with pytest.raises(TrainingError, match="no finished journey"):
        trained(database, TrainingPlan("markov", Window("acme"), INACTIVITY))
    with pytest.raises(TrainingError, match="not a trained model"):
        trained(database, TrainingPlan("linear", Window("acme"), INACTIVITY))
    feed(database, [order("p", 3, 9)])
    with pytest.raises(TrainingError, match="no_such"):
        trained(database, TrainingPlan("markov", Window("acme"), INACTIVITY, settings={"no_such": 1}))


@pytest.mark.parametrize("chunk_rows", [1, 3, 100])
def test_the_size_of_chunks_changes_nothing(database: str, chunk_rows: int) -> None:
    feed(
        database,
        [
            *(touchpoint(f"p{n}", day, "mail" if day % 2 else "search") for n in range(4) for day in range(1, n + 3)),
            *(order(f"p{n}", 9, n) for n in range(0, 4, 2)),
        ],
    )
    rules = FinishRules({POLICY.version: POLICY}, INACTIVITY)
    with closing(StoreSession(database, "tests")) as session, session.snapshot() as connection:
        chunks = list(stream_timelines(connection, Selection("acme"), chunk_rows=chunk_rows))
    assert sum(len(chunk) for chunk in chunks) == 16
    people = [row.journey_key for chunk in chunks for row in chunk]
    assert people == sorted(people)
    assert all(len({row.journey_key for row in chunk}) == 1 for chunk in chunks) or chunk_rows > 1
    converted = [row.id for chunk in chunks for row in finished_journeys(chunk, rules).conversions]
    assert converted == ["order-p0", "order-p2"]
