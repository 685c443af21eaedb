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

from attributary.cli.main import app
from attributary.consumers.store.connection import connect
from attributary.consumers.store.jobs import NewJob, claim_next, finish, submit
from attributary.consumers.trainer.requests import PARAMETERS
from tests.trainer.feed import NOW, feed, order, touchpoint

if TYPE_CHECKING:
    from typer.testing import Result

DOCS = Path(__file__).resolve().parents[2] / "docs"


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
    plain = ("--from", "1970-01-02", "--conversion-type", "purchase")
    refused = run("models", "train", *acme, *plain, "--activate", code=2).stderr
    assert "was trained and not kept" in refused
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

    assert run("models", "activate", "markov", "1", *acme).stdout == "in force: markov 1 (model set 2)\n"
    assert run("models", "activate", "markov", "1", *acme).stdout == "in force already: markov 1 (model set 2)\n"
    assert "--force" in run("models", "activate", "markov", "2", *acme, code=2).stderr
    assert read("models", "activate", "markov", "2", *acme, "--force")["model_set"] == 3
    assert read("models", "rollback", "markov", *acme, "--from-version", "2")["versions"] == {"markov": 1}
    assert not read("models", "rollback", "markov", *acme, "--from-version", "2")["changed"]
    assert run("models", "deactivate", "markov", *acme).stdout == "in force: no trained model (model set 5)\n"


@pytest.mark.postgres
def test_what_cannot_be_done_is_a_usage_error(shop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    del shop
    acme = ("--tenant", "acme")
    assert "markov has no version" in run("models", "show", "markov", *acme, code=2).stderr
    assert "no version 7" in run("models", "activate", "markov", "7", *acme, code=2).stderr
    assert "not active" in run("models", "rollback", "markov", *acme, code=2).stderr
    assert "not a trained model" in run("models", "train", *acme, "--model", "first", code=2).stderr
    assert "no finished journey" in run("models", "train", "--tenant", "nobody", code=2).stderr
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
        jobs = [NewJob("acme", f"j{n}", "train", {"model": "markov"}, NOW + n, "me") for n in range(3)]
        submit(connection, jobs)
        for state, error in (("succeeded", None), ("failed", "no data")):
            claimed = claim_next(connection, lease_seconds=60, most_attempts=3)
            assert claimed is not None
            finish(connection, claimed, state, result={"version": 4} if error is None else None, error=error)
    assert [row["job_id"] for row in read("jobs", "list")] == ["j2", "j1", "j0"]
    assert "no data" in run("jobs", "list", "--tenant", "acme", "--state", "failed").stdout
    good = run("jobs", "status", "j0", "--tenant", "acme", "--wait").stdout
    assert good.startswith("j0 (train of acme): succeeded, 0 done")
    assert '"version": 4' in good
    assert "error: no data" in run("jobs", "status", "j1", "--tenant", "acme", "--wait", code=1).stdout
    assert read("jobs", "status", "j2", "--tenant", "acme")["state"] == "submitted"
    assert "has no job j9" in run("jobs", "status", "j9", "--tenant", "acme", code=2).stderr


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
    assert "tenant_id" in run("jobs", "submit", "train", "--tenant", "Not A Tenant", code=2).stderr


def documented(page: str) -> list[str]:
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.startswith(("    attributary models", "    attributary jobs"))]


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
