"""`attributary destinations list`."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from attributary.cli.main import app
from attributary.consumers.store.deliveries.delivery import (
    DeliveryKey,
    DeliveryOutcome,
    DeliveryState,
    NewDelivery,
    Source,
    StoppedName,
)
from attributary.consumers.store.deliveries.ledger import PostgresLedger
from attributary.consumers.store.session import StoreSession

SECRET = "never-shown"
VARIABLES = ("META_PIXEL_ID", "META_ACCESS_TOKEN", "GA4_MEASUREMENT_ID", "GA4_API_SECRET", "DATABASE_URL")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "FORWARD_CREDENTIALS_FILE", "META_API_VERSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "400")


def listed(*options: str) -> Result:
    return CliRunner().invoke(app, ["destinations", "list", *options])


def entries() -> list[dict[str, Any]]:
    result = listed("--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_without_credentials_each_is_off_and_says_what_to_set() -> None:
    assert [(each["destination"], each["off"]) for each in entries()] == [
        ("meta", "set META_PIXEL_ID and META_ACCESS_TOKEN"),
        ("ga4", "set GA4_MEASUREMENT_ID (or GA4_FIREBASE_APP_ID) and GA4_API_SECRET"),
        ("tiktok", "set TIKTOK_PIXEL_CODE (or TIKTOK_APP_ID, TIKTOK_OFFLINE_EVENT_SET_ID) and TIKTOK_ACCESS_TOKEN"),
        (
            "linkedin",
            (
                "set LINKEDIN_AD_ACCOUNT_ID, and LINKEDIN_ACCESS_TOKEN or LINKEDIN_REFRESH_TOKEN with "
                "LINKEDIN_CLIENT_ID and LINKEDIN_CLIENT_SECRET"
            ),
        ),
        (
            "x",
            (
                "set X_PIXEL_ID, and X_PIXEL_TOKEN or the four keys X_CONSUMER_KEY, X_CONSUMER_SECRET, X_ACCESS_TOKEN, "
                "X_ACCESS_TOKEN_SECRET"
            ),
        ),
        ("reddit", "set REDDIT_PIXEL_ID and REDDIT_ACCESS_TOKEN"),
        ("pinterest", "set PINTEREST_AD_ACCOUNT_ID and PINTEREST_ACCESS_TOKEN"),
        ("snap", "set SNAP_PIXEL_ID (or SNAP_APP_ID) and SNAP_ACCESS_TOKEN"),
        (
            "google",
            (
                "set GOOGLE_CUSTOMER_ID (or GOOGLE_ANALYTICS_PROPERTY_ID and GOOGLE_MEASUREMENT_ID), and "
                "GOOGLE_SERVICE_ACCOUNT_KEY or GOOGLE_REFRESH_TOKEN with GOOGLE_CLIENT_ID, GOOGLE_CLIENT_SECRET and "
                "GOOGLE_PROJECT_ID"
            ),
        ),
        ("microsoft", "set MICROSOFT_TAG_ID and MICROSOFT_ACCESS_TOKEN"),
        (
            "bingads",
            (
                "set BINGADS_ACCOUNT_ID, BINGADS_CUSTOMER_ID, BINGADS_DEVELOPER_TOKEN, and BINGADS_REFRESH_TOKEN with "
                "BINGADS_CLIENT_ID (and BINGADS_CLIENT_SECRET, if the application has one)"
            ),
        ),
    ]
    result = listed()
    assert result.exit_code == 0
    assert "off: set META_PIXEL_ID" in result.stdout


def test_version_end_and_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    meta, ga4, tiktok, linkedin, x, *_ = entries()
    assert (meta["api"], meta["promised_until"], meta["max_events_per_request"]) == (
        "Conversions API v26.0", "2028-07-29", 1_000,
    )  # fmt: skip
    assert (ga4["api"], ga4["promised_until"], ga4["max_age"]) == ("Measurement Protocol", None, "72 hours")
    assert (tiktok["max_age"], x["max_events_per_request"]) == ("7 days, 28 offline", 500)
    assert (linkedin["api"], linkedin["promised_until"]) == ("Conversions API 202608", "2027-08-16")
    monkeypatch.setenv("META_API_VERSION", "v19.0")
    assert entries()[0]["promised_until"] is None
    monkeypatch.setenv("META_API_VERSION", "19")
    assert listed().exit_code == 78


@pytest.mark.postgres
def test_accounts_and_what_waits_for_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database: str) -> None:
    path = tmp_path / "credentials.json"
    tenants = {
        "acme": {"meta": [{"pixel_id": "1", "access_token": SECRET}, {"pixel_id": "2", "access_token": SECRET}]},
        "*": {"meta": {"pixel_id": "9", "access_token": SECRET}},
    }
    path.write_text(json.dumps({"tenants": tenants}))
    monkeypatch.setenv("FORWARD_CREDENTIALS_FILE", str(path))
    monkeypatch.setenv("DATABASE_URL", database)
    queues = [("acme", "meta", 1), ("acme", "meta:2", 2), ("globex", "meta", 3), ("hooli", "meta", 4)]
    deliveries = [
        NewDelivery(DeliveryKey(tenant, name, f"e{n}"), DeliveryState.PENDING, "rate limit", 10**15, Source("t", 0, n))
        for tenant, name, number in queues
        for n in range(number)
    ]
    with closing(PostgresLedger(StoreSession(database, "tests"))) as ledger:
        ledger.claim(deliveries)
    found = {(each["tenant"], each["account"]): each["waits"] for each in entries() if each["destination"] == "meta"}
    pending = {place: waits["pending"] for place, waits in found.items()}
    assert pending == {("acme", "1"): 1, ("acme", "2"): 2, ("*", "9"): 7}
    assert {waits["reason"] for waits in found.values()} == {"rate limit"}
    shown = listed()
    assert shown.exit_code == 0
    assert "7, oldest" in shown.stdout
    assert SECRET not in shown.output


@pytest.mark.postgres
def test_stopped_event_names_are_listed_told_and_resumed(monkeypatch: pytest.MonkeyPatch, database: str) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    for name, value in {"AD_ACCOUNT_ID": "5001", "ACCESS_TOKEN": SECRET}.items():
        monkeypatch.setenv(f"LINKEDIN_{name}", value)
    monkeypatch.setenv("FORWARD_LINKEDIN_RULES", "lead=104013,purchase=104012")
    keys = [DeliveryKey("acme", "linkedin", f"e{number}") for number in range(3)]
    stops = [
        StoppedName("acme", "linkedin", "104013", "the rule does not exist", "422", 10**15, 10**15),
        StoppedName("acme", "x", "o87ne", "the tag is wrong", "400", 10**15, 10**15),
    ]
    with closing(PostgresLedger(StoreSession(database, "tests"))) as ledger:
        ledger.claim([NewDelivery(key, DeliveryState.PENDING, None, 10**15, Source("t", 0, 1)) for key in keys])
        held = [
            DeliveryOutcome(key, DeliveryState.HELD, "the rule does not exist", event_name="104013") for key in keys
        ]
        ledger.settle(held, (), stops)
    (linkedin,) = [each for each in entries() if each["destination"] == "linkedin"]
    (stopped,) = linkedin["stopped"]
    assert (stopped["event_name"], stopped["types"], stopped["held"]) == ("104013", ["lead"], 3)
    assert stopped["since"].startswith("2001-09-09")
    assert "lead (104013): 3 held: the rule does not exist" in listed().stdout
    runner = CliRunner()
    status = runner.invoke(app, ["forward", "status"]).stdout
    assert "held" in status
    assert "event name 104013 of acme" in status
    explained = runner.invoke(app, ["forward", "explain", "e1"]).stdout
    assert "event name   104013" in explained
    assert "attributary destinations resume" in explained
    assert runner.invoke(app, ["destinations", "resume", "--destination", "nosuch"]).exit_code == 2
    none = runner.invoke(app, ["destinations", "resume", "--event-name", "1"])
    assert (none.exit_code, none.stdout) == (1, "")
    assert "no event name is stopped" in none.stderr
    resumed = runner.invoke(app, ["destinations", "resume", "--destination", "linkedin", "--tenant", "acme"])
    assert (resumed.exit_code, resumed.stdout) == (0, "linkedin: event name 104013 of acme goes again\n")
    with closing(PostgresLedger(StoreSession(database, "tests"))) as ledger:
        assert [each.destination for each in ledger.stopped_names()] == ["x"]


def test_accounts_that_share_a_rate_limit_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    client = {"client_id": "c", "client_secret": SECRET, "refresh_token": SECRET}
    google = [{"customer_id": f"123456789{n}", "project_id": "shop-1", **client} for n in range(2)]
    path = tmp_path / "credentials.json"
    path.write_text(
        json.dumps(
            {"tenants": {"acme": {"google": google, "pinterest": {"ad_account_id": "1", "access_token": SECRET}}}}
        )
    )
    monkeypatch.setenv("FORWARD_CREDENTIALS_FILE", str(path))
    monkeypatch.setenv("FORWARD_RATE_PERCENT", "45")
    found = {each["account"]: each["rate"] for each in entries() if each["account"]}
    rate = found["1234567891"]
    assert (rate["counted_by"], rate["accounts"], rate["percent"]) == ("the Cloud project shop-1", 2, 45)
    assert rate["limits"] == [{"requests": 300, "seconds": 60}, {"requests": 100_000, "seconds": 86_400}]
    assert found["1"] is None
    shown = listed()
    assert "45% of 300 a minute and 100,000 a day, 2 share it" in shown.stdout
    assert SECRET not in shown.output
