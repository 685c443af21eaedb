"""`attributary models` and the reading half of `attributary jobs`, on a real Postgres."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
from typer.testing import CliRunner

from attributary.cli import jobs
from attributary.cli.main import app
from attributary.consumers.store.connection import connect
from attributary.consumers.store.jobs.jobs import ClaimedJob, NewJob, claim_next, finish, heartbeat, submit
from attributary.consumers.trainer.job_requests import PARAMETERS
from tests.factories.training_events import NOW, feed, order, touchpoint

if TYPE_CHECKING:
    from typer.testing import Result

DOCS = Path(__file__).resolve().parents[2] / "docs" / "how-to"


@pytest.fixture
def shop(database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    events = []
    for number in range(6):
        events += [touchpoint(f"p{number}", number, "search"), touchpoint(f"p{number}", number + 1, "mail")]
        if number % 2 == 0:
            events.append(order(f"p{number}", number + 2, 10))
    feed(database, events)
    monkeypatch.setenv("DATABASE_URL", database)
    return database


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def read(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json").stdout)


@pytest.mark.postgres
def test_versions_are_trained_compared_and_brought_into_force(shop: str) -> None:
    del shop
    acme = ("--tenant", "acme")
    trained = run("models", "train", *acme, "--closing", "all", "--setting", "minimum_conversions=1")
    assert trained.stdout.startswith("markov 1: 3 conversions and 3 journeys without, 2 channels")
    assert "status:" not in trained.stdout
    assert trained.stdout.endswith("next: attributary models activate markov 1 --tenant acme\n")
    plain = ("--from", "1970-01-02", "--conversion-type", "purchase")
    refused = run("models", "train", *acme, *plain, "--activate", code=2).stderr
    assert "was trained, not activated and not kept" in refused
    assert "conversions only" in refused
    second = read("models", "train", *acme, *plain, "--activate", "--force")
    assert (second["version"], second["metadata"]["n"]) == (2, 3)

    listed = read("models", "list", *acme)
    assert [(row["version"], row["is_active"]) for row in listed] == [(2, True), (1, False)]
    table = run("models", "list").stdout
    assert "active" in table
    assert "confidence" in table
    assert "conversions only" in table

    shown = run("models", "show", "markov", *acme).stdout
    assert shown.startswith("markov 2 of acme, active, trained ")
    assert "status: conversions only" in shown
    assert "insufficient data" in shown
    state = read("models", "show", "markov", "1", *acme)
    assert state["settings"] == {"minimum_conversions": 1}
    assert state["state"]["channels"] == ["mail", "search"]

    changes = read("models", "diff", "markov", "1", "2", *acme)
    assert changes["shares"]["markov"]["total_variation"] == 0
    assert "0.00% of all credit moved" in run("models", "diff", "markov", "1", "2", *acme).stdout

    in_force = run("models", "activate", "markov", "1", *acme).stdout
    assert in_force.startswith("in force: markov 1 (model set 2)\n")
    assert "To recompute them: attributary refit --tenant acme --from 30d" in in_force
    assert run("models", "activate", "markov", "1", *acme).stdout == "in force already: markov 1 (model set 2)\n"
    assert "--force" in run("models", "activate", "markov", "2", *acme, code=2).stderr
    assert read("models", "activate", "markov", "2", *acme, "--force")["model_set"] == 3
    assert read("models", "rollback", "markov", *acme, "--from-version", "2")["versions"] == {"markov": 1}
    assert not read("models", "rollback", "markov", *acme, "--from-version", "2")["changed"]
    assert run("models", "deactivate", "markov", *acme).stdout.startswith("in force: no trained model (model set 5)\n")


@pytest.mark.postgres
def test_what_cannot_be_done_is_a_usage_error(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    del shop
    acme = ("--tenant", "acme")
    assert "markov has no version" in run("models", "show", "markov", *acme, code=2).stderr
    assert "no version 7" in run("models", "activate", "markov", "7", *acme, code=2).stderr
    assert "not active" in run("models", "rollback", "markov", *acme, code=2).stderr
    assert "not a trained model" in run("models", "train", *acme, "--model", "first", code=2).stderr
    assert "no finished journey" in run("models", "train", *acme, "--to", "2000-01-01", code=2).stderr
    assert "unknown setting" in run("models", "train", *acme, "--setting", "x=1", code=2).stderr
    assert "no version 9999" in run("models", "activate", "markov", "9" * 26, *acme, code=2).stderr
    assert "set by the training" in run("models", "train", *acme, "--setting", "journeys_per_count=1", code=2).stderr
    assert "in ZZZ" in run("models", "train", *acme, "--currency", "ZZZ", code=2).stderr
    assert "1,000" in run("models", "train", *acme, "--setting", "draws=100000000", code=2).stderr
    few = ("--closing", "all")
    assert "\nstatus: insufficient data: no channel" in run("models", "train", *acme, *few).stdout
    for options in (
        ("--setting", "x"), ("--setting", "minimum_conversions=NaN"), ("--setting", "minimum_conversions=1e400"),
        ("--from", "soon"), ("--from", "9" * 26), ("--half-life", "1e-9"), ("--half-life", "nan"),
    ):  # fmt: skip
        run("models", "train", *acme, *options, code=2)
    monkeypatch.delenv("DATABASE_URL")
    assert "DATABASE_URL" in run("models", "list", code=78).stderr


@pytest.mark.postgres
def test_jobs_are_listed_and_shown(shop: str) -> None:
    with connect(shop, application_name="tests") as connection:
        submit(connection, [NewJob("acme", f"j{n}", "train", {"model": "markov"}, NOW + n, "me") for n in range(3)])
        for state, error in (("succeeded", None), ("failed", "no data")):
            claimed = claim_next(connection, lease_seconds=60, max_attempts=3)
            assert claimed is not None
            finish(connection, claimed, state, result={"version": 4} if error is None else None, error=error)
    assert [row["job_id"] for row in read("jobs", "list")] == ["j2", "j1", "j0"]
    assert "no data" in run("jobs", "list", "--tenant", "acme", "--state", "failed").stdout
    good = run("jobs", "status", "j0", "--tenant", "acme", "--wait").stdout
    assert good.startswith("j0 (train of acme): succeeded, 0 done")
    assert "version: 4\n" in good
    assert "error: no data" in run("jobs", "status", "j1", "--tenant", "acme", "--wait", code=1).stdout
    assert read("jobs", "status", "j2", "--tenant", "acme")["state"] == "submitted"
    assert (
        "tenant acme has no job j9. A trainer stores a new job when it reads it"
        in run("jobs", "status", "j9", "--tenant", "acme", code=1).stderr
    )
    assert "--state" in run("jobs", "list", "--state", "bogus", code=2).stderr


def test_a_submission_is_checked_before_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    acme = ("--tenant", "acme")
    assert "KIND" in run("jobs", "submit", "dance", *acme, code=2).stderr
    assert "KIND" in run("jobs", "submit", "cancel", *acme, code=2).stderr
    run("jobs", "submit", "train", *acme, "-s", "from", code=2)
    assert "does not take it" in run("jobs", "submit", "train", *acme, "-s", "colour=red", code=2).stderr
    for kind, text in (
        ("train", "activate=yes"), ("train", "from=" + "9" * 26), ("train", 'settings={"draws": NaN}'),
        ("train", "model=linear"), ("train", "half_life_days=0"), ("activate", "version=1"),
        ("backtest", "model=markov"),
    ):  # fmt: skip
        assert "--set" in run("jobs", "submit", kind, *acme, "-s", text, code=2).stderr
    run("jobs", "submit", "analyze_journey", *acme, code=2)
    assert "--tenant" in run("jobs", "submit", "train", "--tenant", "Not A Tenant", code=2).stderr


def stored(dsn: str, *jobs: NewJob) -> ClaimedJob:
    """Store jobs and claim the first of them."""
    with connect(dsn, application_name="tests") as connection:
        submit(connection, jobs)
        claimed = claim_next(connection, lease_seconds=60, max_attempts=3)
        assert claimed is not None
        assert claimed.submitted_at == jobs[0].submitted_at  # what 30d in a parameter counts from
        heartbeat(connection, claimed, 3, 10)
    return claimed


def new(name: str, kind: str = "train", **parameters: str) -> NewJob:
    return NewJob("acme", name, kind, parameters, NOW, "me")


@pytest.mark.postgres
def test_a_status_shows_heartbeat_attempts_and_cancellation(shop: str) -> None:
    stored(shop, new("long"))
    text = run("jobs", "status", "long", "--tenant", "acme").stdout
    assert "attempts: 1; last heartbeat 20" in text
    with connect(shop, application_name="tests") as connection:
        submit(connection, [new("stop", "cancel", target_job_id="long")])
    assert (
        "long (train of acme): running, to be cancelled, 3 of 10 done"
        in run("jobs", "status", "long", "--tenant", "acme").stdout
    )
    document = read("jobs", "status", "long", "--tenant", "acme")
    assert document["cancel_requested_at"] >= document["started_at"]
    assert document["heartbeat_at"] >= document["started_at"]


@pytest.mark.postgres
def test_an_id_that_another_job_has_is_refused_before_anything_is_sent(
    shop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(shop, new("mine", model="markov"))
    sent: list[tuple[str, ...]] = []
    monkeypatch.setattr(jobs, "_publish", lambda *arguments: sent.append(arguments))
    submission = ("jobs", "submit", "train", "--tenant", "acme", "--id", "mine", "-s")
    reported = run(*submission, "model=poisson", code=2).stderr
    assert "taken by another job: train model=markov (running); your job is not done; choose another id" in reported
    assert sent == []
    assert run(*submission, "model=markov").stdout == "mine\n"
    assert len(sent) == 1


@pytest.mark.postgres
def test_the_result_of_another_job_is_not_shown_as_ones_own(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_comes_first(*_: object) -> None:
        claimed = stored(shop, new("mine", model="markov"))
        with connect(shop, application_name="tests") as connection:
            finish(connection, claimed, "succeeded", result={"version": 4})

    monkeypatch.setattr(jobs, "_publish", other_comes_first)
    found = run("jobs", "submit", "train", "--tenant", "acme", "--id", "mine", "-s", "model=poisson", "--wait", code=2)
    assert "taken by another job" in found.stderr
    assert "version" not in found.stdout


@pytest.mark.postgres
def test_a_cancellation_says_what_is_known_of_its_job(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, ...]] = []
    monkeypatch.setattr(jobs, "_publish", lambda *arguments: sent.append(arguments))
    claimed = stored(shop, new("long"))
    cancel = ("jobs", "cancel", "--tenant", "acme")
    assert "Cancellation requested. See: attributary jobs status long" in run(*cancel, "long").stdout
    assert "No job later of acme is stored; it will be cancelled if it arrives." in run(*cancel, "later").stdout
    with connect(shop, application_name="tests") as connection:
        finish(connection, claimed, "failed", error="no data")
    assert len(sent) == 2
    assert "has ended already: failed" in run(*cancel, "long", code=1).stderr
    assert len(sent) == 2
    monkeypatch.delenv("DATABASE_URL")
    assert "Set DATABASE_URL to check the state of the job" in run(*cancel, "long").stdout


@pytest.mark.postgres
def test_results_are_shown_in_short_and_without_control_characters(shop: str) -> None:
    evil = "mail\x1b[2J\n"
    rows = [{"name": name, "share": 0.5, "interval": [0.4, 0.6]} for name in (evil, *(f"c{n}" for n in range(500)))]
    result = {
        "conversions": 7,
        "net_value_micros": {"EUR": 19_990_000, "JPY": 7_029_000_000, "XXX": 0},
        "insights": [{"text": "x"}] * 40,
        "models": [{"model": name, "channels": rows} for name in ("first", "last")],
    }
    claimed = stored(shop, new(f"id{evil}", "analyze_batch"))
    with connect(shop, application_name="tests") as connection:
        finish(connection, claimed, "succeeded", result=result)
    text = run("jobs", "status", f"id{evil}", "--tenant", "acme").stdout
    assert text.startswith("idmail\\x1b[2J\\n (analyze_batch of acme): succeeded, 10 of 10 done\n")
    assert "\x1b" not in text
    assert "\x1b" not in run("jobs", "list").stdout
    assert "conversions: 7\n" in text
    assert "net value: 19.99 EUR, 7,029 JPY\n" in text
    assert "insights:\n- x\n- x\n" in text
    assert "and 30 insights more\n" in text
    assert "and 481 channels more" in text
    assert text.endswith("all fields: --json\n")
    assert len(text.splitlines()) < 60
    assert re.search(r"mail\\x1b\[2J\\n +50.00% +50.00%", text)
    assert read("jobs", "status", f"id{evil}", "--tenant", "acme")["result"] == result


def test_an_id_must_be_printable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_publish", lambda *_: None)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    submission = ("jobs", "submit", "train", "--tenant", "acme", "--id")
    for wrong in ("a b", "a\n", "\x1b[2J", "ä", "", "x" * 129):
        assert "--id" in run(*submission, wrong, code=2).stderr
    assert run(*submission, "A.b_c:d-9").stdout == "A.b_c:d-9\n"


def test_a_broker_that_is_away_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setattr(jobs, "_SEND_SECONDS", 2.0)
    found = run("jobs", "submit", "train", "--tenant", "acme", code=69)
    (line,) = found.stderr.splitlines()
    assert line.startswith("attributary: no Kafka broker answers at 127.0.0.1:1: nothing listens there.")
    assert "KAFKA_BOOTSTRAP_SERVERS" in line
    assert caplog.records == []


def documented(page: str) -> list[str]:
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith(("attributary models", "attributary jobs"))]


@pytest.mark.parametrize("line", documented("train.md") + documented("jobs.md"))
def test_the_commands_of_the_docs_exist(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context("attributary", words)  # fails for an option or an argument that is not there


def test_the_docs_name_every_parameter_of_every_kind() -> None:
    rows = [line for line in (DOCS / "jobs.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    table = {line.split("`")[1]: set(re.findall(r"`(\w+)`", line.rsplit("|", 2)[1])) for line in rows}
    assert table == {kind: set(names) for kind, names in PARAMETERS.items()}
