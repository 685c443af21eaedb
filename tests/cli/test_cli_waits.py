"""Waits of the command line end, or say what they wait for."""

from __future__ import annotations

import threading

import pytest
from typer.testing import CliRunner

from attributary.cli import jobs
from attributary.cli.main import app
from attributary.consumers.store.connection import connect
from attributary.consumers.store.jobs.job_views import show_job


@pytest.fixture
def notice_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_NOTICE_SECONDS", 0.2)
    monkeypatch.setattr(jobs, "_POLL_SECONDS", 0.05)


@pytest.mark.usefixtures("notice_at_once")
def test_waiting_for_a_job_that_nobody_knows_ends(database: str) -> None:
    line = ["jobs", "status", "no-such", "--tenant", "acme", "--wait"]
    done = CliRunner().invoke(app, line, env={"DATABASE_URL": database})
    assert done.exit_code == 1
    assert done.stderr.startswith("attributary: tenant acme has no job no-such.")
    assert done.stdout == ""


@pytest.mark.usefixtures("notice_at_once")
def test_a_submitted_job_that_no_trainer_takes_is_told_once(
    database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = threading.Event()
    monkeypatch.setenv("DATABASE_URL", database)

    def say(text: str) -> None:
        print(text)
        told.set()

    monkeypatch.setattr(jobs, "say", say)
    insert = (
        "INSERT INTO attribution_batch_jobs (tenant_id, job_id, kind, parameters, state, submitted_at) "
        "VALUES ('acme', 'j', 'train', '{}', 'failed', now())"
    )

    def trainer() -> None:
        assert told.wait(120)
        with connect(database, application_name="test") as connection:
            connection.execute(insert)

    late = threading.Thread(target=trainer)
    late.start()
    row = jobs._wait("acme", "j", is_submitted=True)
    late.join()
    assert row is not None
    with connect(database, application_name="test") as connection:
        assert show_job(connection, "acme", "j") == row
    said = capsys.readouterr().out
    assert said.count("no trainer has taken job j") == 1
    assert "attributary status" in said
