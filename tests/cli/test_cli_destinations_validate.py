"""`attributary destinations validate`: rows, exit codes, and what its texts may hold."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from attributary.cli.main import app
from attributary.consumers.destinations.catalog import NAMES
from attributary.local.fakes import MetaFake, PinterestFake
from attributary.local.fakes.received import StandIn
from attributary.local.fakes.server import Call, FakeServer, Reply, json_reply
from attributary.local.ports import free_port

SECRET = "hunter2"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("FORWARD_", *(f"{each.upper()}_" for each in NAMES))):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "240")


def validate(*options: str) -> Result:
    return CliRunner().invoke(app, ["destinations", "validate", *options])


def rows(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def pinterest(monkeypatch: pytest.MonkeyPatch, url: str, token: str = SECRET) -> None:
    for name, value in {"AD_ACCOUNT_ID": "5490", "ACCESS_TOKEN": token, "BASE_URL": url}.items():
        monkeypatch.setenv(f"PINTEREST_{name}", value)


def test_without_accounts_it_says_where_to_look() -> None:
    result = validate()
    assert (result.exit_code, result.stdout) == (0, "")
    assert "attributary destinations list shows what to set" in result.stderr


def test_a_named_destination_that_is_off_says_what_to_set() -> None:
    result = validate("--json", "--destination", "snap", "--destination", "snap")
    assert result.exit_code == 0
    assert rows(result) == [
        {
            "destination": "snap", "account": None, "tenant": None, "state": "not checked", "said": "off",
            "next_step": "set SNAP_PIXEL_ID (or SNAP_APP_ID) and SNAP_ACCESS_TOKEN",
        }
    ]  # fmt: skip


def test_good_and_unasked_accounts_end_with_0(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = PinterestFake(tokens=[SECRET])
    monkeypatch.setenv("MICROSOFT_TAG_ID", "187000")
    monkeypatch.setenv("MICROSOFT_ACCESS_TOKEN", SECRET)
    with FakeServer(fake) as server:
        pinterest(monkeypatch, server.url)
        result, table = validate("--json"), validate()
    assert (result.exit_code, table.exit_code) == (0, 0)
    assert [(each["destination"], each["account"], each["tenant"], each["state"]) for each in rows(result)] == [
        ("pinterest", "5490", "*", "ok"), ("microsoft", "187000", "*", "not checked"),
    ]  # fmt: skip
    assert "Microsoft Advertising has no request that changes nothing" in table.stdout
    assert (fake.events()["test_events"], fake.events()["events"]) == (2, 0)
    assert SECRET not in result.output + table.output


def test_a_refused_account_and_one_out_of_reach_end_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeServer(PinterestFake(tokens=["another"])) as server:
        pinterest(monkeypatch, server.url)
        monkeypatch.setenv("SNAP_PIXEL_ID", "0f3a")
        monkeypatch.setenv("SNAP_ACCESS_TOKEN", SECRET)
        monkeypatch.setenv("SNAP_BASE_URL", f"http://127.0.0.1:{free_port()}")
        result = validate("--json")
    found = {each["destination"]: each for each in rows(result)}
    assert result.exit_code == 1
    assert (found["pinterest"]["state"], found["snap"]["state"]) == ("refused", "cannot be reached")
    assert found["pinterest"]["said"] == '401: the access token is not valid; "Authentication failed."'
    correct = "correct PINTEREST_AD_ACCOUNT_ID and PINTEREST_ACCESS_TOKEN, or its rights"
    assert found["pinterest"]["next_step"] == correct
    assert "attributary: 2 accounts of 2 refused or not reached" in result.stderr
    assert SECRET not in result.output


class Hostile(StandIn):
    """A platform that sends escape codes, and the token back."""

    def check_call(self, call: Call) -> Reply | None:
        return json_reply(400, {"message": f"\x1b[31mred\x9b {call.headers['authorization']} a@b.example {'x ' * 900}"})

    def take(self, call: Call, fault: object) -> Reply:
        raise AssertionError((call, fault))


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_nothing_of_a_platform_reaches_the_terminal_unescaped(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    with FakeServer(Hostile()) as server:
        pinterest(monkeypatch, server.url)
        result = validate(*options)
    assert result.exit_code == 1
    for text in ("\x1b", "\x9b", SECRET, "b.example", "x " * 200):
        assert text not in result.output
    assert "[31mred" in result.output


def test_wrong_settings_end_with_78_and_a_wrong_name_with_2(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("META_PIXEL_ID", "1")
    result = validate()
    assert (result.exit_code, result.stdout) == (78, "")
    assert "META_ACCESS_TOKEN" in result.stderr
    monkeypatch.delenv("META_PIXEL_ID")
    monkeypatch.setenv("FORWARD_CREDENTIALS_FILE", str(tmp_path / "none.yaml"))
    result = validate("--destination", "snap")
    assert result.exit_code == 78
    assert "FORWARD_CREDENTIALS_FILE" in result.stderr
    wrong = validate("--destination", "mys\x1bpace")
    assert wrong.exit_code == 2
    assert "is no destination; known: meta, ga4" in wrong.stderr
    assert "\x1b" not in wrong.output


def test_accounts_of_the_file_are_named_by_tenant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    account = {"pixel_id": "1", "access_token": SECRET}
    tenants = {"acme": {"meta": [account, account | {"pixel_id": "2", "test_event_code": "T1"}]}, "globex": {}}
    path.write_text(json.dumps({"tenants": tenants}))
    monkeypatch.setenv("FORWARD_CREDENTIALS_FILE", str(path))
    fake = MetaFake(pixels=["1"])
    with FakeServer(fake) as server:
        monkeypatch.setenv("META_BASE_URL", server.url)
        result = validate("--json")
    assert result.exit_code == 1
    assert [(each["tenant"], each["account"], each["state"]) for each in rows(result)] == [
        ("acme", "1", "not checked"), ("acme", "2", "refused"),
    ]  # fmt: skip
    assert rows(result)[1]["next_step"] == "correct the account in FORWARD_CREDENTIALS_FILE, or its rights"
