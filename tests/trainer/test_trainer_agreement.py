"""Training and attribution read the same journeys: what the results credit is what the trained state sums up."""

from __future__ import annotations

from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING

import pytest

from attributary.attribution_core.domain.lookback import LookbackPolicy
from attributary.attribution_core.models.model_set import model_set
from attributary.attribution_core.models.shapley import simplified
from attributary.consumers.attributor.stage import AttributorStage
from attributary.consumers.runtime.records import Record
from attributary.consumers.store.connection import connect
from attributary.consumers.store.models.model_states import activate, save_states
from attributary.consumers.store.session import StoreSession
from attributary.consumers.training.batch_analysis import JourneyFilter, analyze_batch
from attributary.consumers.training.read_journeys import Closing, Window, read_statistics
from attributary.consumers.training.train import TrainingPlan, train
from attributary.producers.simulator import Disorder, SimulatorConfig, Volume, simulate
from attributary.schemas.codec import Codec
from attributary.schemas.result_layout import roll_up_result
from attributary.schemas.topics import COMMANDS
from tests.factories.training_events import NOW, feed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from attributary.consumers.runtime.records import Outbound
    from attributary.producers.simulator import Traffic

pytestmark = pytest.mark.postgres

STRICT = LookbackPolicy.parse(
    {
        "name": "strict",
        "lateness_days": 1,
        "inactivity_days": 20,
        "windows": [{"days": 25}, {"interaction": "view", "days": 2}, {"channel": "email", "days": 9}],
    }
)
WIDE = LookbackPolicy.parse({"name": "wide", "lateness_days": 3, "inactivity_days": 20, "windows": [{"days": 29}]})


def traffic() -> Traffic:
    return simulate(
        SimulatorConfig(
            now_micros=NOW,
            seed=4,
            volume=Volume(touchpoints=4_000, conversions=400, people=500),
            disorder=Disorder(duplicates=0.1, late=0.3, shuffle_seconds=7_200),
        )
    )


def results(dsn: str, commands: Sequence[Outbound]) -> list[dict[str, Any]]:
    codec, offsets = Codec(), count()
    with closing(AttributorStage(dsn, codec, 1.0)) as stage:
        records = [Record(COMMANDS, 0, next(offsets), each.key, each.value, NOW // 1_000) for each in commands]
        return [codec.decode("result", message.value) for message in stage.handle(records).messages]


def by_channel(found: Sequence[dict[str, Any]], model: str) -> dict[str, float]:
    sums: dict[str, float] = {}
    for result in found:
        for row in roll_up_result(result, ["channel"]):
            if row["model"] == model:
                sums[row["name"]] = sums.get(row["name"], 0.0) + row["credit"]
    return sums


def test_results_and_training_speak_of_the_same_journeys(database: str) -> None:
    drawn = traffic()
    (tenant,) = {event.record["tenant_id"] for event in drawn}
    arrivals = [
        (event.topic, event.record, int(at)) for event, at in zip(drawn, drawn.arrivals.arrived_at, strict=True)
    ]
    # the policy changes in the middle: conversions pin one or the other
    commands = feed(database, arrivals[:2_000], policy=STRICT, batch_size=300)
    commands += feed(database, arrivals[2_000:], policy=WIDE, batch_size=300)
    found = results(database, commands)
    assert len({result["conversion_id"] for result in found}) == len(found) == drawn.truth.conversions

    with closing(StoreSession(database, "tests")) as session, session.snapshot() as connection:
        window = Window(tenant, closing=Closing.ALL)
        statistics = read_statistics(connection, window, STRICT.inactivity_micros)
        report = analyze_batch(connection, window, JourneyFilter(), model_set(), STRICT.inactivity_micros)
        state = train(connection, TrainingPlan("markov", window, STRICT.inactivity_micros))
    assert statistics.policies == tuple(sorted((STRICT.version, WIDE.version)))
    assert statistics.state.conversions == len(found)
    assert statistics.counts.passed_over > 0
    credited = by_channel(found, "shapley")
    shapley = dict(
        zip(statistics.state.index.names, simplified(statistics.state.sets, statistics.state.index)[0], strict=True)
    )
    assert {name: shapley[name] for name in credited} == pytest.approx(credited, abs=1e-9)
    assert sum(shapley.values()) == pytest.approx(sum(credited.values()), abs=1e-9)
    for entry in report["models"]:
        sums = {row["name"]: row["credit"] for row in entry["channels"]}
        assert sums == pytest.approx(by_channel(found, entry["model"]), abs=1e-9)
    net = sum(result["net_value_micros"] for result in found if result["currency"] == statistics.currency)
    assert statistics.state.value_micros == net

    # what was trained is what the attributor uses, once a conversion has a new version
    with connect(database, application_name="tests") as connection:
        (version,) = save_states(connection, [state])
        activate(connection, tenant, {"markov": version})
        connection.execute("UPDATE attribution_conversions SET model_set = 1")
    again = results(database, commands)
    versions = {entry["model_version"] for result in again for entry in result["models"] if entry["model"] == "markov"}
    assert versions == {"1"}
