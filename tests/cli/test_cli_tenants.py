"""`attributary tenants`: what is set is shown, the rest stays, and what would break a promise is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from attributary.cli.main import app

pytestmark = pytest.mark.postgres


@pytest.fixture(autouse=True)
def _environment(module_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", module_database)
    monkeypatch.setenv("COLUMNS", "200")


def run(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["tenants", *words])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


def test_what_is_set_is_kept_and_the_rest_stays() -> None:
    run("set", "acme", "--time-zone", "Europe/Berlin", "--currency", "EUR", "--consent", "ad_storage=yes")
    run("set", "acme", "--conversions-days", "400", "--generic-id", "kiosk-1", "--generic-id", "till")
    found: dict[str, Any] = json.loads(run("show", "acme", "--json"))
    assert (found["time_zone"], found["reporting_currency"], found["conversions_kept_days"]) == (
        "Europe/Berlin", "EUR", 400,
    )  # fmt: skip
    assert (found["generic_ids"], found["consent_defaults"]) == (["kiosk-1", "till"], {"ad_storage": True})
    run("set", "acme", "--conversions-days", "400")  # as it is: nothing to note
    text = run("set", "acme", "--clear", "conversions-days", "--clear", "generic-id")
    listed = CliRunner().invoke(app, ["audit", "list", "--tenant", "acme", "--action", "tenant", "--json"]).stdout
    noted = [row["details"] for row in json.loads(listed)]
    assert noted == [
        {"conversions_kept_days": None, "generic_ids": 0}, {"conversions_kept_days": 400, "generic_ids": 2},
        {"time_zone": "Europe/Berlin", "reporting_currency": "EUR", "consent_defaults": {"ad_storage": True}},
    ]  # fmt: skip
    assert "kiosk-1" not in listed
    assert "conversions kept              for good" in text
    assert json.loads(run("show", "acme", "--json"))["generic_ids"] == []


def test_a_tenant_without_options_is_added_and_listed() -> None:
    run("set", "plain")
    assert "plain" in run("list")
    listed = {tenant["tenant_id"]: tenant for tenant in json.loads(run("list", "--json"))["tenants"]}
    assert (listed["plain"]["time_zone"], listed["plain"]["erasure_mode"]) == ("UTC", "anonymise")
    assert "tenant nobody is unknown" in run("show", "nobody", code=1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--time-zone", "Berlin"], "--time-zone must be a name of the IANA database"),
        (["--currency", "XXX"], "--currency must be a code of ISO 4217"),
        (["--consent", "ad_storage"], "--consent must be PURPOSE=yes or PURPOSE=no"),
        (["--generic-id", ""], "--generic-id: each must have 1 to 200 printable characters"),
        (["--conversions-days", "200"], "--conversions-days must be 217 or more"),
        (["--touchpoints-days", "36"], "--touchpoints-days must be 37 or more"),
        (["--consent", "ad_storage=no", "--clear", "consent"], "--consent is set and cleared at once"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], said: str) -> None:
    assert said in run("set", "strict", *words, code=2)


def test_a_shorter_refund_horizon_allows_to_keep_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTRIBUTION_REFUND_HORIZON_DAYS", "30")
    assert json.loads(run("set", "brisk", "--conversions-days", "67", "--json"))["conversions_kept_days"] == 67
    assert "must be 67 or more" in run("set", "brisk", "--conversions-days", "66", code=2)
