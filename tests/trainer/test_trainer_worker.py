"""The stage and its worker on a real Postgres, without a broker: every kind of job, and every way to end."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from attributary.cli.job_tables import print_job
from attributary.consumers.runtime.errors import Retry
from attributary.consumers.runtime.records import Outcome
from attributary.consumers.store.connection import connect
from attributary.consumers.store.jobs.job_views import JobRow
from attributary.consumers.store.jobs.jobs import claim_next
from attributary.consumers.store.models.model_states import in_force, list_states
from attributary.consumers.store.session import StoreSession
from attributary.consumers.trainer import job_statuses as statuses
from attributary.consumers.trainer import metrics
from attributary.consumers.trainer.job_statuses import status_record
from attributary.consumers.trainer.worker import WorkerLimits
from attributary.schemas.codec import Codec
from attributary.schemas.topics import job_key
from tests.factories.training_events import NOW, feed, order, touchpoint
from tests.trainer.training_harness import PATIENCE_SECONDS, HeldHandlers, Trainer, job, record, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from attributary.consumers.store.jobs.jobs import ClaimedJob
    from attributary.consumers.trainer.job_handlers import Decision
    from attributary.consumers.training.read_journeys import Progress

pytestmark = pytest.mark.postgres
SILENT_FOR_AN_HOUR = "UPDATE attribution_batch_jobs SET heartbeat_at = heartbeat_at - interval '1 hour'"


@pytest.fixture
def shop(database: str) -> str:
    """A tenant with six conversions of ten people, two weeks apart."""
    events = []
    for number in range(10):
        events += [touchpoint(f"p{number}", number, "search"), touchpoint(f"p{number}", number + 1, "mail")]
        if number % 2 == 0 or number == 9:
            events.append(order(f"p{number}", number + 2, 10 + number))
    feed(database, events)
    return database


@pytest.fixture
def trainer(shop: str) -> Iterator[Trainer]:
    with running(shop) as found:
        yield found


def test_a_model_is_trained_activated_and_rolled_back(trainer: Trainer) -> None:
    first = trainer.run("train", closing="all", settings='{"minimum_conversions": 1}')
    assert (first.state, first.error) == ("succeeded", None)
    assert first.result is not None
    assert (first.result["model"], first.result["version"]) == ("markov", 1)
    assert first.result["metadata"]["diagnostics"]["conversions"] == 6
    assert first.result["drift"] is None
    second = trainer.run("train", model="markov", activate="true", force="true")
    assert second.result is not None
    assert second.result["drift"] is None  # nothing was in force
    assert second.result["activation"]["versions"] == {"markov": 2}
    assert trainer.run("activate", model="markov", version="1").state == "succeeded"
    activated = trainer.run("activate", model="markov", force="true")
    assert activated.result == {"model_set": 3, "versions": {"markov": 2}, "changed": True}
    assert trainer.run("rollback", model="markov", version="2").result == {
        "model_set": 4,
        "versions": {"markov": 1},
        "changed": True,
    }
    assert trainer.run("rollback", model="markov").error == (
        "markov 1 is the oldest version that was in force; deactivate it instead"
    )
    with connect(trainer.dsn, application_name="tests") as connection:
        assert in_force(connection, "acme").versions == {"markov": 1}
    assert trainer.deaths == []


def test_a_training_says_what_moved_since_the_version_in_force(trainer: Trainer) -> None:
    few = '{"minimum_conversions": 1}'
    assert trainer.run("train", model="poisson", activate="true", settings=few).state == "succeeded"
    again = trainer.run("train", model="poisson")
    assert again.result is not None
    assert again.result["drift"] == {"from_version": 1, "changed": [], "total_variation": {"poisson": 0.0}}
    for name, value in (("half_life_days", "7"), ("currency", "EUR")):
        refused = trainer.run("train", model="poisson", **{name: value})
        why = "because its rates describe the whole window and use no values"
        assert refused.error == f"{name}: is not for poisson, {why}"


def test_a_version_of_no_use_is_not_brought_into_force_unless_forced(trainer: Trainer) -> None:
    """The default training on fresh data knows of no journey without conversion; with "all" no channel has 30."""
    only = trainer.run("train", activate="true")
    assert (only.state, only.result) == ("failed", None)
    assert "its status is: conversions only: " in (only.error or "")
    assert "force=true" in (only.error or "")
    rare = trainer.run("train", closing="all", activate="true")
    assert "its status is: insufficient data: no channel is in enough" in (rare.error or "")
    with connect(trainer.dsn, application_name="tests") as connection:
        assert list_states(connection) == []
        assert in_force(connection, "acme").model_set == 0
    assert trainer.run("train").state == "succeeded"  # to look at
    refused = trainer.run("activate", model="markov")
    assert (refused.error or "").startswith("markov 1 is not activated, because its status is: conversions only")
    assert trainer.run("activate", model="markov", force="true").state == "succeeded"
    good = trainer.run("train", closing="all", settings='{"minimum_conversions": 1}', activate="true")
    assert good.state == "succeeded"
    with connect(trainer.dsn, application_name="tests") as connection:
        assert in_force(connection, "acme").versions == {"markov": 2}
    assert trainer.run("rollback", model="markov").state == "succeeded"  # it was in force before
    rates = trainer.run("train", model="poisson", activate="true")
    assert "no channel is in enough" in (rates.error or "")


def test_a_currency_that_does_not_occur_fails_the_training(trainer: Trainer) -> None:
    for options in ({}, {"half_life_days": "30"}, {"closing": "all"}):
        found = trainer.run("train", currency="JPY", **options)
        assert found.error == "currency: no conversion in the window is in JPY"
        assert trainer.run("train", currency="EUR", **options).state == "succeeded"


def test_analyses_and_back_tests_end_with_their_reports(trainer: Trainer) -> None:
    batch = trainer.run("analyze_batch", platform="google")
    assert batch.result is not None
    assert batch.result["conversions"] == 6
    assert (batch.done, batch.total) == (10, 10)
    journey = trainer.run("analyze_journey", conversion_id="order-p2")
    assert journey.result is not None
    assert [touch["channel"] for touch in journey.result["touchpoints"]] == ["search", "mail"]
    split = str(NOW + 6 * 86_400_000_000)
    assert trainer.run("backtest", split=split).state == "succeeded"
    rates = trainer.run("backtest", split=split, model="poisson")
    assert rates.result is not None
    assert rates.result["prediction"].keys() >= {"log_loss", "log_loss_one_rate", "by_rate"}


def test_every_result_has_a_short_form(trainer: Trainer, capsys: pytest.CaptureFixture[str]) -> None:
    wanted: list[tuple[str, dict[str, str], tuple[str, ...]]] = [
        (
            "train",
            {"closing": "all"},
            ("10 of 10 done", "metadata.training_seconds: ", "models show markov 1 --tenant acme"),
        ),
        ("train", {"model": "poisson", "closing": "all"}, ("model: poisson",)),
        ("activate", {"model": "markov", "force": "true"}, ("versions.markov: 1", "changed: yes")),
        ("analyze_batch", {}, ("conversions: 6", "mail", "search")),
        ("analyze_journey", {"conversion_id": "order-p2"}, ("conversion_id: order-p2", "mail", "click")),
        ("backtest", {"split": str(NOW + 6 * 86_400_000_000)}, ("log_loss: ",)),
    ]
    for kind, parameters, expected in wanted:
        row = trainer.run(kind, **parameters)
        assert row.state == "succeeded"
        print_job(row)
        shown = capsys.readouterr().out
        assert [text for text in expected if text not in shown] == []
        assert len(shown.splitlines()) < 60


SENSELESS = [
    ("train", {"model": "linear"}, "model: linear is not a trained model"),
    ("train", {"from": "tomorrow"}, "from: 'tomorrow' is no time; it must be a date"),
    ("train", {"no_such": "1"}, "no_such: train does not take it"),
    ("activate", {"model": "markov"}, "markov has no version for tenant acme"),
    ("activate", {"model": "markov", "version": "3"}, "markov has no version 3"),
    ("backtest", {}, "split: must be given"),
    ("backtest", {"split": "2026-11-01", "model": "linear"}, "model: linear is not a trained model"),
    ("backtest", {"split": "2026-11-01", "to": "2026-10-01"}, "split: must be between from and to"),
    ("train", {"from": "9" * 26}, "from: '99999999999999999999999999' must lie between 1970 and 2200"),
    ("train", {"settings": '{"minimum_conversions": NaN}'}, "settings: must be a JSON object"),
    ("train", {"settings": '{"minimum_conversions": 1e400}'}, "settings: minimum_conversions: must be a whole number"),
    ("train", {"settings": '{"draws": 100000000}'}, "settings: draws: must be a whole number from 1 to 1,000"),
    ("train", {"settings": '{"journeys_per_count": 1e300}'}, "settings: journeys_per_count: is set by the training"),
    ("activate", {"model": "markov", "version": "9" * 26}, "version: must be a whole number"),
    ("analyze_journey", {"conversion_id": "nothing"}, "there is no conversion nothing"),
]


def test_a_job_that_makes_no_sense_fails_and_says_why(trainer: Trainer) -> None:
    for kind, parameters, error in SENSELESS:
        found = trainer.run(kind, **parameters)
        assert found.state == "failed"
        assert (found.error or "").startswith(error)


def test_a_job_is_done_once_and_its_statuses_arrive(trainer: Trainer) -> None:
    assert trainer.submit(job("once", "train"), job("once", "train")) == Outcome()
    trainer.ended("once")
    trainer.submit(job("once", "train"))
    trainer.status_arrives("once", "succeeded")
    trainer.run("activate", model="markov", force="true")
    with connect(trainer.dsn, application_name="tests") as connection:
        assert len(list_states(connection)) == 1
    states = trainer.statuses("once")
    assert states[-1] == "succeeded"
    assert states.count("succeeded") == 1
    message = trainer.transport.messages[0]
    assert message.key == job_key("acme", "once")
    assert dict(message.headers)["ce_type"] == b"attributary.v1.JobStatus"


def test_what_is_no_job_is_a_dead_letter(trainer: Trainer) -> None:
    codec = Codec()
    broken = [
        record(b"no avro"),
        record(codec.encode("job", job("x", "dance"))),
        record(codec.encode("job", job("x", "cancel"))),
        record(codec.encode("job", job("x\0", "train"))),
    ]
    outcome = trainer.stage.handle([*broken, record(codec.encode("job", job("good", "train")))])
    assert [(letter.stage, letter.field) for letter in outcome.dead_letters] == [
        ("decode", None),
        ("validate", "kind"),
        ("validate", "parameters"),
        ("validate", "job_id"),
    ]
    assert trainer.ended("good").state == "succeeded"


@contextmanager
def waiting_worker(dsn: str, limits: WorkerLimits | None = None) -> Iterator[tuple[Trainer, HeldHandlers]]:
    bench = HeldHandlers(StoreSession(dsn, "tests-reader"))
    with running(dsn, limits, bench) as trainer:
        yield trainer, bench


@pytest.fixture
def held(database: str) -> Iterator[tuple[Trainer, HeldHandlers]]:
    with waiting_worker(database) as found:
        yield found


def test_a_running_job_is_cancelled_at_its_next_step(held: tuple[Trainer, HeldHandlers]) -> None:
    trainer, bench = held
    trainer.submit(job("long", "train"))
    assert bench.entered.wait(PATIENCE_SECONDS)
    trainer.status_arrives("long", "running")
    trainer.submit(job("stop", "cancel", target_job_id="long"))
    assert trainer.ended("long").state == "cancelled"
    trainer.status_arrives("long", "cancelled")
    assert trainer.row("stop").state == "succeeded"


def test_a_bug_in_one_job_fails_that_job_only(held: tuple[Trainer, HeldHandlers]) -> None:
    trainer, bench = held
    bench.go_on.set()
    trainer.submit(job("buggy", "train", bug="1"), job("next", "train"))
    found = trainer.ended("buggy")
    assert (found.state, found.error) == ("failed", "a bug: ZeroDivisionError, see the stack in the log")
    assert trainer.ended("next").state == "succeeded"
    assert trainer.stage.is_ready()


def test_a_stop_gives_the_job_back_and_another_process_does_it(database: str) -> None:
    with waiting_worker(database) as (trainer, bench):
        trainer.submit(job("long", "train"))
        assert bench.entered.wait(PATIENCE_SECONDS)
    assert not trainer.worker.is_alive
    assert (trainer.row("long").state, trainer.row("long").attempts) == ("submitted", 0)
    with waiting_worker(database) as (trainer, bench):
        bench.go_on.set()
        assert trainer.ended("long").result == {"done": True}


def test_the_job_of_a_dead_worker_starts_again(database: str) -> None:
    limits = WorkerLimits(poll_seconds=0.05, heartbeat_seconds=0.02)
    with waiting_worker(database, limits) as (trainer, bench):
        trainer.worker.stop(PATIENCE_SECONDS)  # nobody works: the claim below is a dead process's
        trainer.submit(job("long", "train"))
        with connect(database, application_name="tests") as connection:
            assert claim_next(connection, lease_seconds=60, max_attempts=3) is not None
            connection.execute(SILENT_FOR_AN_HOUR)
            connection.commit()
        bench.go_on.set()
    with waiting_worker(database, limits) as (trainer, bench):
        bench.go_on.set()
        assert trainer.ended("long").attempts == 2


def test_a_worker_that_was_thought_dead_writes_nothing(database: str) -> None:
    with waiting_worker(database, WorkerLimits(poll_seconds=0.05, heartbeat_seconds=99)) as (
        trainer,
        bench,
    ):
        trainer.submit(job("long", "train"))
        assert bench.entered.wait(PATIENCE_SECONDS)
        with connect(database, application_name="tests") as connection:
            assert claim_next(connection, lease_seconds=0, max_attempts=3) is not None
            connection.commit()
        bench.go_on.set()
        trainer.status_arrives("long", "running")
    assert (trainer.row("long").state, trainer.row("long").result) == ("running", None)


def test_statuses_wait_for_kafka(held: tuple[Trainer, HeldHandlers], monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, bench = held
    monkeypatch.setattr(statuses, "_WAIT_SECONDS", 0.1)
    bench.go_on.set()
    trainer.transport.fail_next("no leader", times=2)
    trainer.submit(job("a", "train"))
    assert trainer.ended("a").state == "succeeded"
    trainer.status_arrives("a", "succeeded")


def test_a_worker_that_dies_takes_the_process_with_it(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(database)
    monkeypatch.setattr(trainer.worker, "turn", lambda: 1 / 0)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while trainer.worker.is_alive:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert trainer.deaths == ["worker"]
    assert not trainer.stage.is_ready()
    with pytest.raises(Exception, match="a bug: ZeroDivisionError"):
        trainer.stage.handle([])
    with pytest.raises(Exception, match="a bug: ZeroDivisionError"):
        trainer.stage.close()


def test_a_result_too_large_for_a_message_stays_in_postgres(trainer: Trainer) -> None:
    found = trainer.run("train")
    assert json.loads(status_record(found)["result"])["version"] == 1
    large = status_record(
        JobRow(**{**{name: getattr(found, name) for name in found.__slots__}, "result": {"x": "y" * 600_000}})
    )
    assert json.loads(large["result"]) == {"too_large": True, "read": f"attributary jobs status {found.job_id}"}


def counted(kind: str, outcome: str) -> float:
    return float(metrics.jobs.labels(kind, outcome)._value.get())


def test_every_end_of_a_job_is_counted_and_logged_with_its_reason(database: str) -> None:
    limits = WorkerLimits(max_attempts=1, poll_seconds=0.02, heartbeat_seconds=0.02)
    with running(database, limits) as trainer:
        series = {tuple(sample.labels.values()) for one in metrics.jobs.collect() for sample in one.samples}
        assert {(kind, end) for kind in ("train", "rollback") for end in ("failed", "cancelled")} <= series
        before = counted("train", "failed"), counted("backtest", "failed"), counted("train", "cancelled")
        trainer.worker.stop(PATIENCE_SECONDS)
        trainer.submit(job("hopeless", "train"))
        with connect(database, application_name="tests") as connection:
            assert claim_next(connection, lease_seconds=60, max_attempts=3) is not None  # and its worker dies
            connection.execute(SILENT_FOR_AN_HOUR)
            connection.commit()
        with capture_logs() as logs:
            trainer.submit(job("waits", "train"), job("c", "cancel", target_job_id="waits"))
        assert {"job": "waits", "outcome": "cancelled"}.items() <= logs[-1].items()
    with capture_logs() as logs, running(database, limits) as trainer:
        assert trainer.ended("hopeless").state == "failed"
        trainer.submit(job("senseless", "backtest"))
        assert trainer.ended("senseless").state == "failed"
    after = counted("train", "failed"), counted("backtest", "failed"), counted("train", "cancelled")
    assert [new - old for new, old in zip(after, before, strict=True)] == [1, 1, 1]
    reported = {each["job"]: (each["log_level"], each["why"]) for each in logs if each.get("outcome") == "failed"}
    assert reported == {
        "hopeless": ("warning", "given up: 1 workers ended while they worked on it"),
        "senseless": ("warning", "split: must be given"),
    }


class _Away(HeldHandlers):
    """Job handlers that find Postgres away after the job was cancelled."""

    def __init__(self, session: StoreSession) -> None:
        super().__init__(session)
        self.cancel: Callable[[], object] = lambda: None

    def handle(self, job: ClaimedJob, progress: Progress) -> Decision:
        del job, progress
        self.cancel()
        self.entered.set()
        raise Retry("Postgres is away")


def test_a_job_that_was_in_hand_when_postgres_went_away_is_counted_when_it_is_given_back(database: str) -> None:
    limits = WorkerLimits(poll_seconds=0.02, heartbeat_seconds=60.0)  # the lease sends no heartbeat meanwhile
    handlers = _Away(StoreSession(database, "tests-reader"))
    before = counted("train", "cancelled")
    with capture_logs() as logs, running(database, limits, handlers) as trainer:
        handlers.cancel = lambda: trainer.submit(job("cancel-it", "cancel", target_job_id="in-hand"))
        trainer.submit(job("in-hand", "train"))
        assert handlers.entered.wait(PATIENCE_SECONDS)
        assert trainer.ended("in-hand").state == "cancelled"
        trainer.status_arrives("in-hand", "cancelled")
    assert counted("train", "cancelled") == before + 1
    ends = [each for each in logs if each["event"] == "job ended" and each["job"] == "in-hand"]
    assert [each["outcome"] for each in ends] == ["cancelled"]


def test_an_id_that_another_job_has_is_counted_and_logged(trainer: Trainer) -> None:
    before = metrics.job_conflicts._value.get()
    with capture_logs() as logs:
        trainer.submit(job("mine", "train"), job("mine", "train"))
        trainer.submit(job("mine", "train", model="poisson"))
    assert metrics.job_conflicts._value.get() == before + 1
    conflicts = [each for each in logs if "another job has its id" in each["event"]]
    assert [(each["tenant"], each["job"], each["kind"]) for each in conflicts] == [("acme", "mine", "train")]
