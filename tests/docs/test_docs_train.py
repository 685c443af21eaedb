"""The steps of docs/how-to/train.md, typed as they stand after an import: each succeeds and leads to the next."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from attributary.cli.main import app
from attributary.consumers.runtime.records import Record
from attributary.consumers.store.connection import connect
from attributary.schemas.topics import COMMANDS
from tests.factories.samples import START_US, SampleEvent, codec, sale, touch
from tests.pipeline_harness import InProcess

pytestmark = pytest.mark.postgres
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "train.md").read_text("utf-8")
SWEPT = {"reason": "model_refit", "issued_by": "sweeper", "event_published_at": START_US}
STEPS = re.findall(r"^(attributary .*)$", PAGE.partition("## What a journey is")[0], re.MULTILINE)


def typed(line: str) -> str:
    """Type a line of the page; its events lie further back than 30 days."""
    arguments = re.sub(r"\s+#.*", "", line).replace("--from 30d", "--from 2026-10-01").split()[1:]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "160"})
    assert result.exit_code == 0, f"{line}\n{result.output}"
    return result.stdout


def test_the_page_leads_from_an_import_to_results_by_the_trained_model(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    assert [line.split()[1:3] for line in STEPS] == [
        ["models", "train"], ["models", "list"], ["models", "show"], ["models", "activate"], ["refit", "--tenant"],
    ]  # fmt: skip
    with InProcess(database) as stages:
        events: list[SampleEvent] = []
        for number in range(240):
            who = f"a:d{number}"
            events.append(touch(f"t{number}", number / 10, who=who, channel=("search", "mail")[number % 2]))
            events.append(touch(f"u{number}", number / 10 + 1, who=who, channel=("mail", "display")[number % 3 == 0]))
            if number % 3:
                events.append(sale(f"o{number}", number / 10 + 2, who=who))
        stages.publish(*events)
        before = typed("attributary results --tenant acme --models markov,linear --format csv")
        credited: dict[str, list[str]] = {"markov": [], "linear": []}
        for row in csv.DictReader(before.splitlines()):
            credited[row["model"]].append(row["conversions"])
        assert credited["markov"] == credited["linear"] != []

        train, listed, shown, activate, refit = STEPS
        text = typed(train)
        assert text.startswith("markov 1: 160 conversions and 80 journeys without")
        assert text.endswith("next: attributary models activate markov 1 --tenant acme\n")
        assert " ok " in typed(listed)
        assert "status: ok" in typed(shown)
        text = typed(activate)
        assert text.startswith("in force: markov 1 (model set 1)\n")
        assert "Results that exist stay as they are. To recompute them: attributary refit --tenant acme" in text
        text = typed(refit)
        assert "160 conversions of acme get a new version: the sweeper asks for the results" in text
        assert typed(refit).startswith("Nothing to do: ")

        with connect(database, application_name="tests") as connection:
            keys = connection.execute(
                "SELECT tenant_id, conversion_id, version FROM attribution_conversions WHERE version > observed_version"
            ).fetchall()
        for tenant, conversion, version in keys:
            command = {"tenant_id": tenant, "conversion_id": conversion, "version": version} | SWEPT
            stages.commands.append(
                Record(COMMANDS, 0, len(stages.commands), b"", codec().encode("command", command), START_US // 1_000)
            )
        stages.answer()
        after = typed("attributary results --tenant acme --models markov --format json")
        assert '"version": "1"' in after
        assert '"fallback": null' in after


def test_the_same_without_closing_says_cause_and_cure(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    with InProcess(database) as stages:
        stages.publish(touch("t1", 0), sale("o1", 1), touch("t2", 0, who="a:d2"))
    text = typed("attributary models train --tenant acme")
    (status,) = [line for line in text.splitlines() if line.startswith("status: ")]
    assert status.startswith("status: conversions only: ")
    assert "--closing all" in status
    for command in ("refit", "models train", "models list"):
        unknown = CliRunner().invoke(app, [*command.split(), "--tenant", "nobody"])
        assert unknown.exit_code == 2
        assert "tenant nobody is unknown" in unknown.stderr
        assert "tenants with results: acme" in unknown.stderr
    refused = CliRunner().invoke(app, ["models", "activate", "markov", "1", "--tenant", "acme"])
    assert refused.exit_code == 2
    assert "--closing all" in refused.stderr
