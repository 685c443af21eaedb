"""Limits of training and analysis: channels, sets, people, memory. Each is stated, counted, and stops no other job."""

from __future__ import annotations

import random
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attributary.attribution_core.domain.journeys import DIRECT, JourneyBatch, Outcomes
from attributary.attribution_core.domain.lookback import DEFAULT_POLICY
from attributary.attribution_core.models.model_set import model_set
from attributary.attribution_core.statistics.state import JourneyState
from attributary.consumers.runtime.errors import ConfigError
from attributary.consumers.store.connection import connect
from attributary.consumers.store.models.timelines import Selection, TimelineRow, stream_timelines
from attributary.consumers.store.session import StoreSession
from attributary.consumers.trainer import memory
from attributary.consumers.trainer.idle_tasks import StateUpdater
from attributary.consumers.training import cohort, incremental_state, journeys, name_limits, read_exposures
from attributary.consumers.training.batch_analysis import JourneyFilter, analyze_batch
from attributary.consumers.training.channel_report import channel_report, shapley_shares
from attributary.consumers.training.incremental_state import catch_up, current_statistics, rebuild, verify
from attributary.consumers.training.journeys import FinishRules, finished_journeys, parts_of_people, pooled
from attributary.consumers.training.name_limits import NameLimit, TooLargeError
from attributary.consumers.training.read_journeys import Closing, Window, read_statistics
from attributary.consumers.training.train import TrainingPlan, train_from_store
from attributary.schemas.topics import CONVERSIONS, TOUCHPOINTS
from tests.factories.bulk_journeys import copy_replay
from tests.factories.training_events import DAY, NOW, POLICY, feed, order, touchpoint
from tests.trainer.training_harness import running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INACTIVITY = POLICY.inactivity_micros
ALL = Window("acme", closing=Closing.ALL)
RULES = FinishRules({POLICY.version: POLICY}, INACTIVITY)


def test_a_bounded_state_has_the_same_population() -> None:
    generator = np.random.default_rng(5)
    paths = [generator.choice(list("abcdefg"), generator.integers(0, 6)).tolist() for _ in range(800)]
    converted = generator.random(800) < 0.4
    whole = JourneyState.fit(JourneyBatch.of_paths(paths), Outcomes.of(converted, converted * 7_000_000))
    for limit in (1, 10):
        bounded = JourneyState.from_document(whole.bounded(limit).to_document())
        assert bounded.overflow.sets == len(whole.sets) - limit
        for one, two in zip(shapley_shares(bounded), shapley_shares(whole), strict=True):
            assert one == pytest.approx(two, rel=1e-12)
        said, wanted = channel_report(bounded, draws=20), channel_report(whole, draws=20)
        assert {key: said[key] for key in said if key != "channels"} == {
            key: wanted[key] for key in wanted if key != "channels"
        }


@pytest.mark.parametrize(("limit", "value"), [("MAX_PATHS", 2), ("_MAX_PATH_TOUCHES", 3)])
def test_a_cohort_of_too_many_paths_keeps_nothing_by_journey(
    monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(cohort, limit, value)
    counted = cohort.Cohort()
    for path in (["a"], ["b"], ["a", "b"], ["b", "a"]):
        counted.add(JourneyBatch.of_paths([path]), Outcomes.of([True], [5]))
    assert counted.table() is None
    assert counted._lags == []
    said = counted.report()
    assert (said["distinct_paths"], said["insights"]) == (None, None)
    assert said["population"]["conversions"] == 4


def test_channels_beyond_the_limit_are_one_and_direct_stays() -> None:
    batch = JourneyBatch.of_paths([["a", "b", DIRECT], ["c", "a"]])
    assert pooled(batch, NameLimit()) is batch
    found = pooled(batch, NameLimit(frozenset({"a", DIRECT}), 2))
    assert [found.index.names[code] for code in found.channels] == ["a", "(other)", DIRECT, "(other)", "a"]
    assert found.direct.tolist() == batch.direct.tolist() == [False, False, True, False, False]


def test_statistics_that_are_too_large_say_what_to_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    state = JourneyState.fit(JourneyBatch.of_paths([["a"], ["b"], ["a", "b"]]), Outcomes.of([True] * 3, [1] * 3))
    assert name_limits.check_sets(state) is state
    monkeypatch.setattr(name_limits, "_MAX_SETS", 2)
    with pytest.raises(TooLargeError, match=r"more than 2 distinct sets of channels; choose a shorter window"):
        name_limits.check_sets(state)
    name_limits.check_cells([500] * 100)
    with pytest.raises(TooLargeError, match="choose a shorter window"):
        name_limits.check_cells([500] * 365)


def timeline(person: str, touches: int, conversions: int) -> list[TimelineRow]:
    rows = [
        TimelineRow(person, 0, True, False, NOW + n, NOW + n, f"t{n}", "search", "click", "google", "", 0)
        for n in range(touches)
    ]
    return rows + [
        TimelineRow(person, 0, True, True, NOW + n, NOW, f"c{n}", "purchase", POLICY.version, "EUR", "", 1)
        for n in range(touches, touches + conversions)
    ]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12), st.integers(1, 40))
@settings(deadline=None)
def test_parts_are_whole_people_of_bounded_work(sizes: list[tuple[int, int]], max_pairs: int) -> None:
    people = [timeline(f"p{place:02d}", *size) for place, size in enumerate(sizes)]
    rows = [row for person in people for row in person]
    parts = list(parts_of_people(rows, max_pairs))
    assert [row for part in parts for row in part] == rows
    for part in parts:
        keys = {row.journey_key for row in part}
        pairs = sum(sizes[int(key[1:])][0] * sizes[int(key[1:])][1] for key in keys)
        assert pairs <= max_pairs or sum(map(bool, map(sizes.__getitem__, (int(key[1:]) for key in keys)))) == 1
    assert len({row.journey_key for row in rows}) == sum(len({row.journey_key for row in part}) for part in parts)


def test_a_person_with_too_many_pairs_is_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = timeline("a", 2, 2) + timeline("kiosk", 3, 3) + timeline("z", 1, 1)
    assert finished_journeys(rows, RULES).left_out == 0
    monkeypatch.setattr(journeys, "MAX_PERSON_PAIRS", 8)
    found = finished_journeys(rows, RULES)
    assert (found.people, found.left_out) == (3, 1)
    assert [row.journey_key for row in found.conversions] == ["a", "a", "z"]
    alone = finished_journeys(timeline("kiosk", 3, 3), RULES)
    assert (alone.people, alone.left_out, len(alone.conversions)) == (1, 1, 0)


def test_many_kinds_of_conversions_and_touches_are_resolved_where_they_meet() -> None:
    rows: list[TimelineRow] = []
    for person in range(400):
        for row in timeline(f"p{person:03d}", 3, 3):
            kind = f"{'type' if row.is_conversion else 'channel'}-{person}-{row.id}"
            rows.append(row._replace(kind=kind))
    calls: list[object] = []

    class Counted(type(POLICY)):  # type: ignore[misc]
        def window_micros(self, *arguments: str) -> int:
            calls.append(arguments)
            return int(super().window_micros(*arguments))

    policy = Counted(**{name: getattr(POLICY, name) for name in POLICY.__dataclass_fields__})
    found = finished_journeys(rows, FinishRules({POLICY.version: policy}, INACTIVITY))
    assert len(found.touches) == 400 * 9
    assert len(calls) == 400 * 9  # not every kind of conversion by every kind of touch, 1,440,000


@pytest.fixture
def few_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four channels at most: "(other)", direct and two more."""
    monkeypatch.setattr(name_limits, "MAX_CHANNELS", 4)
    monkeypatch.setattr(incremental_state, "MAX_CHANNELS", 4)


EVENTS = [
    event
    for n in range(9)
    for event in (
        touchpoint(f"p{n}", 1, "search"),
        touchpoint(f"p{n}", 2, "mail" if n < 6 else "social"),
        touchpoint(f"p{n}", 3, f"rare{n}", campaign_name=f"c{n}"),
        *([order(f"p{n}", 4, 10)] if n % 2 else []),
    )
]


@pytest.mark.postgres
@pytest.mark.usefixtures("few_channels")
@pytest.mark.parametrize("half_life", [None, 3 * DAY])
def test_a_training_pools_rare_channels(database: str, half_life: int | None) -> None:
    feed(database, EVENTS)
    with connect(database, application_name="tests") as connection:
        plan = TrainingPlan("markov", ALL, INACTIVITY, half_life_micros=half_life)
        state = train_from_store(connection, plan)
    report = state.metadata["diagnostics"]
    assert [row["channel"] for row in report["channels"]] == ["(other)", "mail", "search"]
    assert (report["conversions"], state.metadata["n"]) == (4, 9)
    assert state.metadata["read"]["pooled_channels"] == 10  # social, rare0 to rare8
    with_channel = {row["channel"]: row["conversions_with"] for row in report["channels"]}
    assert with_channel == {"(other)": 4, "mail": 3, "search": 4}


@pytest.mark.postgres
@pytest.mark.usefixtures("few_channels")
def test_the_time_aware_model_pools_rare_channels(database: str) -> None:
    feed(database, EVENTS)
    with connect(database, application_name="tests") as connection:
        report = train_from_store(connection, TrainingPlan("poisson", ALL, INACTIVITY)).metadata["diagnostics"]
    assert [row["channel"] for row in report["channels"]] == ["(other)", "mail", "search"]
    assert (report["pooled_channels"], report["people_left_out"], report["conversions"]) == (10, 0, 4)


@pytest.mark.postgres
def test_an_analysis_pools_names_and_loses_no_revenue(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    feed(database, EVENTS)
    with closing(StoreSession(database, "tests")) as session, session.snapshot() as snapshot:

        def analyzed() -> dict[str, Any]:
            return analyze_batch(snapshot, ALL, JourneyFilter(), model_set(), INACTIVITY)

        whole = analyzed()
        monkeypatch.setattr(name_limits, "MAX_CHANNELS", 4)
        monkeypatch.setattr(name_limits, "MAX_GROUPS", 3)
        found = analyzed()
    assert whole["pooled_names"] == {"channels": 0, "platforms": 0, "campaigns": 0}
    assert found["pooled_names"] == {"channels": 10, "platforms": 0, "campaigns": 8}
    for before, after in zip(whole["models"], found["models"], strict=True):
        credits_ = [{row["name"]: row["credit"] for row in model["channels"]} for model in (before, after)]
        assert list(credits_[1])[-1] == "(other)"
        assert {name: credits_[0][name] for name in ("mail", "search")} == pytest.approx(
            {name: credits_[1][name] for name in ("mail", "search")}
        )  # journeys are credited with their own channels
        for dimension in ("channels", "platforms", "campaigns"):
            assert sum(row["value_micros"].get("EUR", 0) for row in after[dimension]) == 40_000_000
    assert len(found["population"]["channels"]) == 3


@pytest.mark.postgres
@pytest.mark.parametrize("chunk_rows", [1, 2, 3, 5, 1_000])
def test_a_person_with_too_many_events_is_left_out_in_any_chunks(database: str, chunk_rows: int) -> None:
    sizes = {"a": 2, "b": 5, "c": 6, "d": 1, "e": 4, "f": 3}
    feed(database, [touchpoint(person, n, "mail") for person, size in sizes.items() for n in range(size)])
    left_out: list[str] = []
    with closing(StoreSession(database, "tests")) as session, session.snapshot() as snapshot:
        chunks = stream_timelines(
            snapshot, Selection("acme"), chunk_rows=chunk_rows, max_person_rows=3, on_left_out=left_out.append
        )
        people = [row.journey_key for rows in chunks for row in rows]
    assert sorted(left_out) == ["a:b", "a:c", "a:e"]
    assert {key: people.count(key) for key in people} == {"a:a": 2, "a:d": 1, "a:f": 3}


@pytest.mark.postgres
def test_people_with_too_many_events_are_counted_in_every_reading(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kiosk = [touchpoint("kiosk", n / 100, "mail") for n in range(5)]
    buys = [order("kiosk", 1 + n, 5, event_id=f"o{n}") for n in range(5)]
    feed(database, [*EVENTS, *kiosk, *buys])
    for module in (journeys, read_exposures):
        monkeypatch.setattr(module, "MAX_PERSON_PAIRS", 20)
    with closing(StoreSession(database, "tests")) as session, session.snapshot() as snapshot:
        counts = read_statistics(snapshot, ALL, INACTIVITY).counts
        assert (counts.people, counts.people_left_out) == (10, 1)
        report = analyze_batch(snapshot, ALL, JourneyFilter(), model_set(), INACTIVITY)
        assert (report["people_left_out"], report["conversions"]) == (1, 4)
        assert read_exposures.read_exposures(snapshot, ALL).left_out == 1


@pytest.mark.postgres
def test_a_tenant_with_too_many_channels_has_no_state_and_stops_no_other(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(database, [*EVENTS, touchpoint("ben", 1, "mail", tenant_id="beta"), order("ben", 2, 5, tenant_id="beta")])
    with monkeypatch.context() as limited:
        limited.setattr(name_limits, "MAX_CHANNELS", 4)
        limited.setattr(incremental_state, "MAX_CHANNELS", 4)
        with closing(StateUpdater(StoreSession(database, "tests"), INACTIVITY, 3_600)) as idle_task:
            while idle_task():
                pass
        with connect(database, application_name="tests") as connection:
            assert current_statistics(connection, "acme", INACTIVITY) is None
            assert current_statistics(connection, "beta", INACTIVITY) is not None
            with pytest.raises(TooLargeError, match="a day has more than"):
                verify(connection, "acme", INACTIVITY)
            connection.rollback()
            trained = train_from_store(connection, TrainingPlan("markov", Window("acme"), INACTIVITY))
            assert trained.metadata["source"] == "read"
            feed(database, [touchpoint("p1", 5, "mail")])
            catch_up(connection, "acme", INACTIVITY)  # drops the changes, and ends
            assert connection.execute("SELECT count(*) FROM attribution_training_people").fetchall() == [(1,)]
            connection.commit()
    with connect(database, application_name="tests") as connection:
        assert current_statistics(connection, "acme", INACTIVITY) is None
        rebuild(connection, "acme", INACTIVITY)
        kept = current_statistics(connection, "acme", INACTIVITY)
        assert kept is not None
        assert verify(connection, "acme", INACTIVITY).is_none


@pytest.mark.postgres
def test_a_state_of_too_many_days_is_read_from_the_store(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    feed(database, EVENTS)
    plan = TrainingPlan("markov", Window("acme"), INACTIVITY)
    with connect(database, application_name="tests") as connection:
        rebuild(connection, "acme", INACTIVITY)
        assert train_from_store(connection, plan).metadata["source"] == "incremental"
        monkeypatch.setattr(name_limits, "_MAX_CELLS", 10)
        assert train_from_store(connection, plan).metadata["source"] == "read"


@pytest.mark.postgres
def test_a_job_beyond_a_limit_fails_with_the_reason(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    feed(database, EVENTS)
    monkeypatch.setattr(name_limits, "_MAX_SETS", 2)
    monkeypatch.setattr(name_limits, "_MAX_CELLS", 10)
    with running(database) as trainer:
        for kind, more in (("train", {}), ("analyze_batch", {}), ("train", {"half_life_days": "3"})):
            failed = trainer.run(kind, closing="all", **more)
            assert failed.state == "failed"
            assert failed.error is not None
            assert "choose a shorter window (from, to)" in failed.error
        assert trainer.run("activate", model="markov").error == "markov has no version for tenant acme; train it first"


_GREEDY = """
import resource, sys, threading
from attributary.consumers.store.session import StoreSession
from attributary.consumers.trainer.memory import limit_memory
from attributary.consumers.trainer.worker import WorkerLimits
from tests.trainer.training_harness import HeldHandlers, Trainer, job
import numpy as np

class Greedy(HeldHandlers):
    def handle(self, job, progress):
        if job.job_id == "greedy":
            np.ones(2_000_000_000)
        return lambda connection: {"done": True}

dsn = sys.argv[1]
assert limit_memory(1 << 30) == resource.getrlimit(resource.RLIMIT_DATA)[0] == 1 << 30
trainer = Trainer(dsn, WorkerLimits(poll_seconds=0.05), Greedy(StoreSession(dsn, "tests-reader")))
trainer.submit(job("greedy", "train"), job("modest", "train"))
print(trainer.ended("greedy").state, trainer.ended("greedy").error, trainer.ended("greedy").attempts, file=sys.stderr)
print(trainer.ended("modest").state, file=sys.stderr)
trainer.stage.close()
"""


@pytest.mark.postgres
def test_a_job_that_needs_too_much_memory_fails_and_the_next_one_is_done(database: str) -> None:
    done = subprocess.run([sys.executable, "-c", _GREEDY, database], capture_output=True, text=True, check=False)
    lines = [line for line in done.stderr.splitlines() if line.startswith(("failed", "succeeded"))]
    assert lines == [
        (
            "failed the job needs more memory than the 1,024 MiB of this trainer; "
            "choose a shorter window (from, to) or raise TRAINER_MEMORY_BYTES 1"
        ),
        "succeeded",
    ], done.stdout + done.stderr


def test_the_memory_limit_comes_from_the_setting_or_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[tuple[int, int]] = []
    monkeypatch.setattr("resource.setrlimit", lambda _kind, limits: wanted.append(limits))
    limit = tmp_path / "memory.max"
    assert memory._container_limit(limit) is None
    limit.write_text("max\n")
    assert memory._container_limit(limit) is None
    limit.write_text(f"{1 << 30}\n")
    assert memory._container_limit(limit) == int(0.9 * (1 << 30))
    assert memory.limit_memory(0) is None
    assert wanted == []
    assert memory.limit_memory(1 << 31) == 1 << 31
    assert wanted[-1][0] == 1 << 31
    with pytest.raises(ConfigError, match="TRAINER_MEMORY_BYTES: must be 0 or at least"):
        memory.limit_memory(1_000)


def wide_tenant(channels: int, people: int) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """People of a tenant with very many channels, few of them common."""
    dice = random.Random(1)
    for person in range(people):
        base = {"tenant_id": "acme", "anonymous_id": f"p{person}"}
        for touch in range(dice.randint(1, 6)):
            channel = f"c{int(channels * dice.random() ** 2):05d}"
            at = NOW + int(dice.random() * 20 * DAY)
            click = {"event_id": f"t{person}-{touch}", "platform": "x", "channel": channel, "interaction": "click"}
            yield TOUCHPOINTS, b"", base | click | {"occurred_at": at}
        if dice.random() < 0.3:
            sale = {"event_id": f"o{person}", "conversion_type": "purchase", "value_micros": 10**7, "currency": "EUR"}
            yield CONVERSIONS, b"", base | sale | {"occurred_at": NOW + 21 * DAY}


_WIDE = """
import sys
from attributary.attribution_core.models.model_set import model_set
from attributary.consumers.store.session import StoreSession
from attributary.consumers.trainer.memory import limit_memory
from attributary.consumers.training import channel_report, cohort
from attributary.consumers.training.batch_analysis import JourneyFilter, analyze_batch
from attributary.consumers.training.read_journeys import Closing, Window
from attributary.consumers.training.train import TrainingPlan, train_from_store
from tests.factories.training_events import DAY, POLICY

limit_memory(1 << 30)
exact = channel_report.dirichlet_removal  # draws are made one after the other: fewer of them take the same memory
channel_report.dirichlet_removal = lambda state, **options: exact(state, **(options | {"draws": 4}))
cohort._DRAWS = 4
session, window = StoreSession(sys.argv[1], "tests"), Window("acme", closing=Closing.ALL)
for model, half_life in (("markov", None), ("markov", 5 * DAY), ("poisson", None)):
    with session.plain() as connection:
        plan = TrainingPlan(model, window, POLICY.inactivity_micros, None, {"draws": 4}, half_life)
        state = train_from_store(connection, plan)
    assert len(state.metadata["diagnostics"]["channels"]) <= 500
with session.snapshot() as connection:
    report = analyze_batch(connection, window, JourneyFilter(), model_set(), POLICY.inactivity_micros)
# VmHWM, not ru_maxrss: the latter keeps the peak of the process that forked, a worker of pytest.
peak = next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(report["pooled_names"]["channels"], peak)
"""


@pytest.mark.postgres
def test_ten_thousand_channels_are_trained_and_analysed_within_a_gibibyte(database: str) -> None:
    with connect(database, application_name="tests") as connection:
        connection.execute(
            "INSERT INTO attribution_policies (tenant_id, policy_version, document) VALUES ('*', %s, %s)",
            (POLICY.version, _json(DEFAULT_POLICY)),
        )
        copy_replay(connection, wide_tenant(10_000, 8_000), POLICY)
    done = subprocess.run([sys.executable, "-c", _WIDE, database], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    channels, peak_mebibytes = map(int, done.stdout.split())
    assert channels > 5_000
    assert peak_mebibytes < 1_024


def _json(document: Any) -> Any:
    from psycopg.types.json import Jsonb

    return Jsonb(document)
