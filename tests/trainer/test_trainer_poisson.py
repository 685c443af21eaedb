"""The time-aware model from training to a published result, on a real Postgres."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
import pytest
from typer.testing import CliRunner

from attributary.attribution_core.models.model_set import TrainedState, model_set
from attributary.attribution_core.models.poisson_credit import PoissonSettings, Rates
from attributary.attribution_core.statistics.histories import AGE_BOUNDS
from attributary.attribution_core.tables.experiments import Experiment
from attributary.cli.main import app
from attributary.consumers.adapters.result_checks import disagreement, imbalance
from attributary.consumers.attributor.stage import AttributorStage
from attributary.consumers.runtime.records import Record
from attributary.consumers.store.connection import connect
from attributary.consumers.store.models.model_states import activate, deactivate, save_states, show_state
from attributary.consumers.store.session import StoreSession
from attributary.consumers.training import read_exposures as watching
from attributary.consumers.training.batch_analysis import JourneyFilter, analyze_batch
from attributary.consumers.training.calibrate import calibrated
from attributary.consumers.training.journey_analysis import analyze_journey
from attributary.consumers.training.rates import fit_rates
from attributary.consumers.training.read_exposures import ObservedExposures, read_exposures
from attributary.consumers.training.read_journeys import Window
from attributary.consumers.training.train import TrainingError, TrainingPlan, train
from attributary.schemas.codec import Codec
from attributary.schemas.topics import COMMANDS
from tests.factories.training_events import DAY, NOW, POLICY, feed, order, touchpoint

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from typer.testing import Result

    from attributary.consumers.runtime.records import Outbound
    from attributary.consumers.store.models.model_states import NewState

pytestmark = pytest.mark.postgres

Event = tuple[str, dict[str, Any]]
BASE, SEARCH = 0.01, 8.0  # conversions a day, and how many times that on the day of a search; mail changes nothing


def world(people: int, seed: int) -> list[Event]:
    """People with one to three touches in ten days; whoever has not converted on day 20 is still open then."""
    generator = np.random.default_rng(seed)
    events: list[Event] = []
    for number in range(people):
        touches = sorted(generator.uniform(0, 10, int(generator.integers(1, 4))).tolist())
        names = ["search" if generator.random() < 0.5 else "mail" for _ in touches]
        events += [touchpoint(f"p{number}", day, name) for day, name in zip(touches, names, strict=True)]
        cuts = sorted({20.0, *touches, *(day + 1 for day in touches)})
        for low, high in pairwise(cuts):
            fresh = sum(name == "search" and day <= low < day + 1 for day, name in zip(touches, names, strict=True))
            wait = generator.exponential(1 / (BASE * SEARCH**fresh))
            if low + wait < min(high, 20.0):
                events.append(order(f"p{number}", low + wait, 10))
                break
    return sorted(events, key=lambda event: event[1]["occurred_at"])


def trained(dsn: str, window: Window | None = None, **settings: Any) -> NewState:
    with closing(StoreSession(dsn, "tests")) as session, session.snapshot() as connection:
        return train(connection, TrainingPlan("poisson", window or Window("acme"), DAY, settings=settings))


def observed(dsn: str, window: Window) -> ObservedExposures:
    with closing(StoreSession(dsn, "tests")) as session, session.snapshot() as connection:
        return read_exposures(connection, window)


def credited(dsn: str, commands: Sequence[Outbound]) -> list[dict[str, Any]]:
    codec = Codec()
    records = [Record(COMMANDS, 0, place, command.key, command.value, 0) for place, command in enumerate(commands)]
    with closing(AttributorStage(dsn, codec, 1.0)) as stage:
        return [codec.decode("result", message.value) for message in stage.handle(records).messages]


def test_known_rates_come_out_of_the_store(database: str) -> None:
    feed(database, world(4_000, seed=5))
    state = trained(database)
    report = state.metadata["diagnostics"]
    channels = {row["channel"]: row for row in report["channels"]}
    fresh = channels["search"]["rate_ratios"][0]
    assert (fresh["from_days"], fresh["to_days"]) == (0, 1)
    assert fresh["interval"][0] < SEARCH < fresh["interval"][1]
    assert channels["mail"]["rate_ratios"][0]["interval"][0] < 1 < channels["mail"]["rate_ratios"][0]["interval"][1]
    assert report["base_rate_per_day"] == pytest.approx(BASE, rel=0.2)
    shares = [row["poisson"]["share"] for row in report["channels"]] + [report["baseline"]["share"]]
    assert sum(shares) == pytest.approx(1)
    assert channels["search"]["poisson"]["share"] > 3 * channels["mail"]["poisson"]["share"]
    spread_over_models = [
        row["spread_over_models"] for row in report["channels"]
    ]  # of what channels receive: what one has less
    assert len(spread_over_models) == 2
    assert spread_over_models[0] == pytest.approx(
        spread_over_models[1]
    )  # the other has more, for the baseline takes no part
    json.dumps(dict(state.metadata), allow_nan=False)


def test_conversions_whose_path_was_one_too_many_are_told(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    feed(database, world(400, seed=5))
    whole = trained(database).metadata["diagnostics"]
    assert whole["conversions_left_out_of_shares"] == 0
    monkeypatch.setattr(watching, "_MAX_PATHS", 3)
    cut = trained(database).metadata["diagnostics"]
    assert cut["conversions_left_out_of_shares"] > 0
    reported = cut["conversions_in_shares"] + cut["conversions_left_out_of_shares"]
    assert reported == whole["conversions_in_shares"]


def in_force(dsn: str) -> TrainedState:
    feed(dsn, world(4_000, seed=5))
    state = trained(dsn)
    with connect(dsn, application_name="tests") as connection:
        (version,) = save_states(connection, [state])
        there = show_state(connection, "acme", "poisson", version)[1]
        assert activate(connection, "acme", {"poisson": version}).versions == {"poisson": version}
    assert there.document == state.document
    assert (Rates.from_document(there.document).beta == Rates.from_document(state.document).beta).all()
    return there


def test_the_attributor_credits_with_the_version_in_force(database: str) -> None:
    there = in_force(database)
    later = [
        touchpoint("late", 21, "mail"), touchpoint("late", 22, "search"), order("late", 22.1, 7),
        touchpoint("odd", 21, "never seen"), order("odd", 22.2, 7), order("bare", 22.3, 7),
    ]  # fmt: skip
    results = {result["conversion_id"]: result for result in credited(database, feed(database, later))}
    assert len(results) == 3
    for result in results.values():
        assert imbalance(result) is None
        assert disagreement(result) is None
    said = {name: result["models"][-1] for name, result in results.items()}
    by_person = {result["journey_key"]: said[name] for name, result in results.items()}
    assert {model["model"] for model in said.values()} == {"poisson"}
    mail, search = by_person["a:late"]["credits"]
    assert search > 0.6
    assert 0 <= mail < 0.2
    assert 0 < by_person["a:late"]["unattributed_micros"] < 2_000_000
    assert by_person["a:late"]["confidence"] > 0.8
    assert (by_person["a:late"]["model_version"], by_person["a:late"]["fallback"]) == (there.version, None)
    assert by_person["a:odd"]["fallback"] == "time_decay"
    assert by_person["a:odd"]["unattributed_micros"] == 0
    assert by_person["a:bare"]["unattributed_micros"] == 7_000_000
    late = next(result for result in results.values() if result["journey_key"] == "a:late")
    assert "journey.baseline" in {insight["rule_id"] for insight in late["insights"]}

    # without a version in force the model is not in the results of later versions at all
    with connect(database, application_name="tests") as connection:
        deactivate(connection, "acme", ["poisson"])
    (after,) = credited(database, feed(database, [touchpoint("new", 23, "mail"), order("new", 23.5, 7)]))
    assert "poisson" not in {model["model"] for model in after["models"]}


def test_jobs_credit_with_it_and_leave_the_baseline_out(database: str) -> None:
    models = model_set(states={"poisson": in_force(database)})
    feed(database, [touchpoint("late", 22, "search"), order("late", 22.1, 7), touchpoint("odd", 22, "never seen")])
    feed(database, [order("odd", 22.2, 7)])
    with closing(StoreSession(database, "tests")) as session, session.snapshot() as connection:
        window, inactivity = Window("acme", since=NOW + 20 * DAY), POLICY.inactivity_micros
        batch = analyze_batch(connection, window, JourneyFilter(), models, inactivity)
    with closing(StoreSession(database, "tests")) as session, session.snapshot() as connection:
        found = connection.execute("SELECT conversion_id FROM attribution_conversions WHERE journey_key = 'a:late'")
        (conversion_id,) = found.fetchone() or ("",)
        journey = analyze_journey(connection, "acme", conversion_id, models, inactivity)
    row = batch["models"][-1]
    values = sum(channel["value_micros"]["EUR"] for channel in row["channels"])
    assert values + row["baseline"]["value_micros"]["EUR"] == 14_000_000
    assert batch["models"][0]["baseline"] is None
    spreads = {name["name"]: name["spread_over_models"] for name in row["channels"]}
    for name, spread in spreads.items():
        dividing = [model for model in batch["models"] if model["baseline"] is None]
        shares = [each["share"] for model in dividing for each in model["channels"] if each["name"] == name]
        assert spread == pytest.approx(max(shares) - min(shares))
    assert 0 < journey["models"][-1]["baseline"] < 1
    assert sum(journey["models"][-1]["value_micros"]) + journey["models"][-1]["unattributed_micros"] == 7_000_000


def test_who_is_watched_depends_on_touches_alone(database: str) -> None:
    feed(
        database,
        [
            touchpoint("long ago", 0, "mail"),
            order("long ago", 50, 5),  # in the window, but the touch is not
            touchpoint("before", 35, "mail"),
            touchpoint("inside", 45, "search"),
            order("inside", 46, 5),
            touchpoint("inside", 47, "search"),
            order("without", 48, 5),
            touchpoint("end", 60, "mail"),
        ],
    )
    seen = observed(database, Window("acme", since=NOW + 40 * DAY, until=NOW + 55 * DAY))
    assert seen.until == NOW + 55 * DAY
    assert (seen.people, seen.unwatched) == (2, 2)
    assert seen.counts.days.sum() == 15 + 10  # the open ones too, to the end of the window
    assert seen.counts.conversions.sum() == 1
    assert seen.counts.conversions_with().tolist() == [0, 1]
    assert dict(seen.paths) == {(("search", 1),): 1}
    everything = observed(database, Window("acme"))
    assert everything.until == NOW + 60 * DAY + 1
    assert everything.counts.days.sum() == 60 + 25 + 15
    assert dict(everything.paths) == {(): 1, (("search", 1),): 1}
    assert observed(database, Window("nobody")).until is None
    other = observed(database, Window("acme", conversion_types=frozenset({"lead"})))
    assert other.counts.conversions.sum() == 0
    assert len(AGE_BOUNDS) == 3


def test_half_of_the_people_are_watched_where_their_exposures_are_too_many(database: str) -> None:
    people = range(400)
    feed(database, [touchpoint(f"p{number}", 0, f"c{number}") for number in people])
    feed(database, [order(f"p{number}", 2, 5) for number in people] + [touchpoint("end", 40, "c0")])
    with closing(StoreSession(database, "tests")) as session, session.snapshot() as connection:
        reported: list[tuple[int, int | None]] = []
        everybody = read_exposures(connection, Window("acme"), lambda *done: reported.append(done), max_size=13_210)
        half = read_exposures(connection, Window("acme"), lambda *done: reported.append(done), max_size=13_209)
        quarter = read_exposures(connection, Window("acme"), max_size=half.counts.size - 1)
    assert len(everybody.counts.exposures) == 3 * 400 + 1  # three ages of each channel, and none
    assert [seen.halvings for seen in (everybody, half, quarter)] == [0, 1, 2]
    assert reported.count((0, 401)) == 3  # everybody, everybody again, half of them
    assert reported[-1] == (401, 401)
    keys = [f"a:p{number}".encode() for number in people] + [b"a:end"]
    kept = [sum(crc32(key) % 2**halvings == 0 for key in keys) for halvings in range(3)]
    assert [seen.people for seen in (everybody, half, quarter)] == kept
    assert 0 < kept[2] < kept[1] < 400
    assert half.counts.conversions.sum() < everybody.counts.subtract(quarter.counts).conversions.sum() < 400
    assert sum(half.paths.values()) == half.counts.conversions.sum()
    assert fit_rates(half, PoissonSettings())[1]["sampled_share"] == 0.5


def test_what_cannot_be_trained(database: str) -> None:
    with pytest.raises(TrainingError, match="no conversions, or no time watched in the window of tenant acme"):
        trained(database)
    with pytest.raises(TrainingError, match="unknown setting"):
        trained(database, order=2)
    with pytest.raises(TrainingError, match="fallback_rule"):
        trained(database, fallback_rule="none")


def test_the_command_line_trains_shows_compares_and_watches_it_drift(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    feed(database, world(1_500, seed=6))
    acme = ("--tenant", "acme")
    trained_text = command("models", "train", *acme, "--model", "poisson", "--to", day(15), "--activate").stdout
    assert "people, 2 channels" in trained_text
    shown = command("models", "show", "poisson", *acme).stdout
    assert "(baseline)" in shown
    assert "rate x, day 0 to 1" in shown
    assert "spread: of the shares over poisson" in shown
    assert "name another" in command("models", "drift", "poisson", *acme, code=2).stderr
    command("models", "train", *acme, "--model", "poisson", "--from", day(0))
    calm = json.loads(command("models", "drift", "poisson", *acme, "--json").stdout)
    assert (calm["before"], calm["after"], calm["changed"]) == (1, 2, [])
    assert {row["channel"] for row in calm["shares"]["poisson"]["channels"]} == {"mail", "search", "(baseline)"}
    assert "by the time-aware model" in command("models", "diff", "poisson", "1", "2", *acme).stdout
    feed(database, [touchpoint(f"m{n}", 30, "social") for n in range(300)])
    feed(database, [order(f"m{n}", 30.5, 10) for n in range(200)])
    command("models", "train", *acme, "--model", "poisson", "--from", day(25))
    moved = command("models", "drift", "poisson", *acme, code=1).stdout
    assert "changed by more than noise: (baseline), search, social" in moved


def test_totals_are_scaled_by_experiments_and_journeys_are_not(
    database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    feed(database, world(1_500, seed=7))
    acme, lift = ("--tenant", "acme"), tmp_path / "lift.csv"
    begin, end = ((NOW + days * DAY) // 1_000_000 for days in (5, 15))  # a number in a table is seconds
    window = ("--from", day(0), "--to", day(20))
    for model in ("markov", "poisson"):
        command("models", "train", *acme, "--model", model, *window, "--closing", "all")
        lift.write_text(
            f"channel,conversions,standard_error,from,to\nsearch,100,20,{begin},{end}\nmail,5,10,{begin},{end}\n",
            encoding="utf-8",
        )
        calibrate = ("models", "calibrate", model, "1", *acme, "--experiments", str(lift))
        assert f"{model} 2: totals of version 1 scaled by 2 experiments" in command(*calibrate).stdout
        shown = command("models", "show", model, "2", *acme).stdout
        assert "calibrated by 2 experiments, from version 1: totals of channels, not credits of single" in shown
        assert "associated with no channel: " in shown
        one, two = (json.loads(command("models", "show", model, n, *acme, "--json").stdout) for n in "12")
        assert two["state"] == one["state"]
        assert "calibration" not in one["metadata"]["diagnostics"]
        rows = {row["channel"]: row for row in two["metadata"]["diagnostics"]["calibration"]["channels"]}
        assert rows["search"]["calibrated"] == pytest.approx(200)  # ten of twenty days
        assert rows["search"]["interval"] == pytest.approx([200 - 1.645 * 40, 200 + 1.645 * 40], rel=1e-3)
        lift.write_text("channel,share,standard_error\nsearch,0.1,0.01\n", encoding="utf-8")
        shared = json.loads(command(*calibrate, "--json").stdout)["calibration"]
        diagnostics = one["metadata"]["diagnostics"]
        whole = diagnostics["conversions"] + diagnostics.get("conversions_unwatched", 0)  # of people without a touch
        assert {row["channel"]: row["calibrated"] for row in shared["channels"]}["search"] == pytest.approx(0.1 * whole)
        assert shared["remainder_interval"][0] < shared["remainder"] < shared["remainder_interval"][1]
        lift.write_text("channel,value,standard_error\nsearch,9,1\n", encoding="utf-8")
        assert "no spread of values" in command(*calibrate, code=2).stderr
        lift.write_text("channel,value,share,standard_error\nsearch,9,,1\nmail,,0.2,1\n", encoding="utf-8")
        assert "cannot be mixed" in command(*calibrate, code=2).stderr
        lift.write_text("channel,share,standard_error\nradio,0.1,1\n", encoding="utf-8")
        assert "no channel 'radio'" in command(*calibrate, code=2).stderr
    command("models", "train", *acme, "--model", "markov", *window, "--closing", "all", "--half-life", "5")
    lift.write_text("channel,conversions,standard_error\nsearch,100,20\n", encoding="utf-8")
    weighted = ("models", "calibrate", "markov", "4", *acme, "--experiments", str(lift))
    assert "give the experiments as shares" in command(*weighted, code=2).stderr
    said = command("models", "insights", "markov", "1", *acme).stdout
    assert "findings that pass their test" in said
    assert "population.lag_p90" in said
    found = json.loads(command("models", "insights", "poisson", *acme, "--before", "1", "--json").stdout)["insights"]
    assert all(each["text"] and each["n"] for each in found)


def test_totals_of_half_of_the_people_stand_for_all_where_an_experiment_was_one_of_all(database: str) -> None:
    feed(database, world(300, seed=8))
    with closing(connect(database, application_name="tests")) as connection, connection.transaction():
        whole = train(connection, TrainingPlan("poisson", Window("acme", NOW, NOW + 20 * DAY), DAY))
        diagnostics = {**whole.metadata["diagnostics"], "sampled_share": 0.5}
        save_states(connection, [whole, replace(whole, metadata={**whole.metadata, "diagnostics": diagnostics})])
        lift = [Experiment("search", "share", 0.1, 0.02)]
        one, two = (calibrated(connection, "acme", "poisson", version, lift) for version in (1, 2))
    first, second = (each.metadata["diagnostics"]["calibration"]["channels"] for each in (one, two))
    for all_of_them, half in zip(first, second, strict=True):
        for field in ("attributed", "calibrated", "standard_error"):
            assert half[field] == pytest.approx(2 * all_of_them[field])
        assert half["share"] == pytest.approx(all_of_them["share"])


def day(number: int) -> str:
    return str(NOW + number * DAY)


def command(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result
