"""`attributary settings`: names are whole, and `settings check` finds what is wrong, missing or misspelt."""

from __future__ import annotations

import json
import os

import pytest
from typer.testing import CliRunner

from attributary.cli.main import app

SECRET = "hunter2"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(
            (
                "ATTRIBUTION_",
                "KAFKA_",
                "DATABASE_",
                "SCHEMA_",
                "META_",
                "GA4_",
                "TIKTOK_",
                "LINKEDIN_",
                "X_",
                "SNAP_",
                "GOOGLE_",
                "MICROSOFT_",
                "PINTEREST_",
                "REDDIT_",
                "FORWARD_",
            )
        ):
            monkeypatch.delenv(name)


def check(**variables: str) -> tuple[int, dict[str, tuple[str, str]]]:
    done = CliRunner().invoke(app, ["settings", "check", "--json"], env=variables)
    assert SECRET not in done.output
    rows = json.loads(done.stdout)
    return done.exit_code, {row["variable"]: (row["state"], row["text"]) for row in rows}


def test_what_is_right_is_set_and_what_is_needed_is_missing() -> None:
    code, found = check(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1", ATTRIBUTION_BATCH_SIZE="10")
    assert code == 0
    assert found["KAFKA_BOOTSTRAP_SERVERS"] == found["ATTRIBUTION_BATCH_SIZE"] == ("set", "")
    assert found["DATABASE_URL"] == ("missing", "needed for: How to reach Postgres")


@pytest.mark.parametrize(
    ("variable", "value", "rule"),
    [
        ("DATABASE_URL", f"mysql://a:{SECRET}@db/x", "must be postgresql://"),
        ("KAFKA_BOOTSTRAP_SERVERS", "http://x", "must be host:port"),
        ("KAFKA_EXTRA", f'{{"{SECRET}": 1}}', "librdkafka refuses"),
        ("KAFKA_SECURITY_PROTOCOL", "SASL_SSL", ""),
        ("ATTRIBUTION_BATCH_SIZE", "0", "greater than or equal to 1"),
        ("SCHEMA_REGISTRY_URL", f"http://a:{SECRET}@r", "must be http://host:port"),
        ("DATABASE_URL_FILE", "/nowhere/at/all", "the file cannot be read"),
    ],
)
def test_what_is_wrong_is_told_with_its_rule(variable: str, value: str, rule: str) -> None:
    good = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    code, found = check(**good | {variable: value})
    assert code == 78
    wrong = {name: text for name, (state, text) in found.items() if state == "wrong"}
    assert len(wrong) == 1, wrong
    assert rule in next(iter(wrong.values()))


def test_several_faults_of_one_group_are_all_told() -> None:
    _, found = check(ATTRIBUTION_BATCH_SIZE="x", ATTRIBUTION_LINGER_MS="y", METRICS_PORT="z")
    assert [name for name, (state, _) in found.items() if state == "wrong"] == [
        "ATTRIBUTION_BATCH_SIZE", "ATTRIBUTION_LINGER_MS", "METRICS_PORT",
    ]  # fmt: skip


def test_a_misspelt_name_is_told_with_the_one_that_was_meant() -> None:
    code, found = check(
        ATTRIBUTION_BATCH_SZIE="1", ATTRIBUTION_COLOUR="red", KAFKA_BOOTSTRAP_SERVER="x", KAFKA_OPTS="-x"
    )
    assert code == 78
    assert found["ATTRIBUTION_BATCH_SZIE"] == ("unknown", "no setting has this name; ATTRIBUTION_BATCH_SIZE?")
    assert found["ATTRIBUTION_COLOUR"] == ("unknown", "no setting has this name")
    assert found["KAFKA_BOOTSTRAP_SERVER"][1].endswith("KAFKA_BOOTSTRAP_SERVERS?")
    assert "KAFKA_OPTS" not in found  # of Kafka's own scripts


def test_names_are_whole_at_80_columns_and_for_machines() -> None:
    done = CliRunner().invoke(app, ["settings"], env={"COLUMNS": "80"})
    assert "FORWARD_EVENTS_PER_REQUEST" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    rows = json.loads(CliRunner().invoke(app, ["settings", "--json"]).stdout)
    assert {"variable", "default", "meaning", "group"} == rows[0].keys()
    assert "DATABASE_URL" in {row["variable"] for row in rows}
