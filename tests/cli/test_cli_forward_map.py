"""`attributary forward map`: every destination side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from attributary.cli.main import app
from attributary.consumers.destinations.catalog import NAMES

AT = "1795900000000000"
CONSENT = {"ad_storage": True, "ad_user_data": True, "analytics_storage": True}
EVENT: dict[str, Any] = {
    "event_id": "order-1", "conversion_type": "purchase", "occurred_at": "2026-11-28T20:00:00+00:00", "value": "19.99",
    "currency": "EUR", "user_id": "u1", "user_data": {"email": "jane@example.com"}, "consent": CONSENT,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("META_PIXEL_ID", "META_ACCESS_TOKEN", "GA4_MEASUREMENT_ID", "GA4_API_SECRET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "240")


def map_(tmp_path: Path, *events: dict[str, Any], options: tuple[str, ...] = ()) -> Result:
    path = tmp_path / "conversions.jsonl"
    path.write_text("".join(json.dumps(EVENT | event) + "\n" for event in events))
    return CliRunner().invoke(app, ["forward", "map", str(path), "--at", AT, *options])


def test_what_goes_where_and_what_is_left_out(tmp_path: Path) -> None:
    result = map_(tmp_path, {"properties": {"note": "x@example.com", "tax": "1.5"}, "click_ids": {"fbc": "fb.1.1.x y"}})
    assert result.exit_code == 0, result.output
    for text in (
        "goes as Purchase", "goes as purchase", 'params.transaction_id = "order-1"', "params.tax = 1.5",
        "custom_data.value = 19.99", "but: fbc left out: malformed", "but: property note left out: personal data",
        "not used: click_ids",
    ):  # fmt: skip
        assert text in result.stdout
    assert "jane@example.com" not in result.stdout


def test_json_has_each_destination_with_its_state(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = [
        {},
        {"kind": "refund", "conversion_id": "c"},
        {"consent": {"ad_storage": False}},
        {"conversion_type": "Bad"},
    ]
    result = map_(tmp_path, *events, options=("--json",))
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(each["meta"]["state"], each["ga4"]["state"]) for each in found] == [
        ("goes", "goes"), ("skipped", "goes"), ("skipped", "skipped"), ("rejected", "rejected"),
    ]  # fmt: skip
    assert found[1]["meta"]["reason"] == "Meta has no event for a refund"
    assert found[1]["ga4"]["event"]["name"] == "refund"
    assert found[0]["ga4"]["around"]["user_id"] == "u1"
    assert result.exit_code == 3


def test_a_tenants_own_names_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "credentials.json"
    account = {"pixel_id": "1", "access_token": "t", "event_names": {"trial_started": "TrialStarted"}}
    path.write_text(json.dumps({"tenants": {"acme": {"meta": account}}}))
    monkeypatch.setenv("FORWARD_CREDENTIALS_FILE", str(path))
    trial = {"conversion_type": "trial_started", "value": None, "currency": None}
    result = map_(tmp_path, trial | {"tenant_id": "acme"}, trial | {"tenant_id": "globex"}, options=("--json",))
    names = [json.loads(line)["meta"]["name"] for line in result.stdout.splitlines()]
    assert names == ["TrialStarted", "trial_started"]


def test_nothing_of_the_file_reaches_the_terminal_unescaped(tmp_path: Path) -> None:
    result = map_(tmp_path, {"event_id": "e\x9b31m", "properties": {"a": "\x9b31mred"}})
    assert "\x9b" not in result.output
    assert "\x1b" not in result.output


def test_a_row_that_is_none_is_named(tmp_path: Path) -> None:
    result = map_(tmp_path, {"value": "x"}, {})
    assert result.exit_code == 3
    assert "conversions.jsonl line 1: value: must be a number" in result.stderr
    assert "order-1" in result.stdout


@pytest.mark.parametrize("columns", ["80", "160"])
def test_in_a_narrow_terminal_destinations_stand_below_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    lines = map_(tmp_path, {}).stdout.splitlines()
    assert "meta: goes as Purchase" in lines
    assert "  custom_data.value = 19.99" in lines
    assert "tiktok: goes as Purchase" in lines
    assert any(line.startswith("linkedin: skipped: no conversion rule is set") for line in lines)


def test_only_some_destinations_can_be_shown(tmp_path: Path) -> None:
    result = map_(tmp_path, {}, options=("--json", "--destination", "tiktok"))
    assert list(json.loads(result.stdout)) == ["event_id", "tiktok"]
    wrong = map_(tmp_path, {}, options=("--destination", "myspace"))
    assert wrong.exit_code == 2
    assert f"myspace is no destination; known: {', '.join(NAMES)}" in wrong.stderr
