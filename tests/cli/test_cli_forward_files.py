"""`attributary forward --dry-run` takes files with the options of `attributary produce` (finding 26, B18)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from attributary.cli.main import app

EXPORTS = Path(__file__).resolve().parents[1] / "fixtures" / "exports"
AT = "1795900000000000"


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("META_PIXEL_ID", "123")
    monkeypatch.setenv("META_ACCESS_TOKEN", "t")
    monkeypatch.setenv("META_UNKNOWN_CONSENT", "send")


def dry_run(path: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["forward", "--dry-run", "meta", "--at", AT, "--input", str(path), *options])


def test_a_preset_makes_requests_of_an_export() -> None:
    result = dry_run(EXPORTS / "shopify-orders.csv", "--preset", "shopify", "--constant", "tenant_id=acme",
                     "--constant", "consent.ad_user_data=true", "--constant", "consent.ad_storage=true")  # fmt: skip
    events = [event for line in result.stdout.splitlines() for event in json.loads(line)["data"]]
    assert [(event["custom_data"]["order_id"], event["custom_data"]["value"]) for event in events] == [
        ("#1001", 59.4), ("#1002", 26.95), ("#1003", 1249)
    ]  # fmt: skip
    assert [content["id"] for content in events[0]["custom_data"]["contents"]] == ["SO-1", "HA-2"]


def test_a_mapping_file_counts_and_what_is_refused_names_file_line_and_column(tmp_path: Path) -> None:
    orders = tmp_path / "orders.csv"
    orders.write_text("number;when;who;sum;lines\n1;28.11.2026;u1;19,99;\n2;28.11.2026;u2;x;\n"
                      '3;28.11.2026;u3;5;"[{""item_name"": ""Hat""}]"\n')  # fmt: skip
    mapping = tmp_path / "m.yaml"
    mapping.write_text(
        "delimiter: ';'\ntime_format: '%d.%m.%Y'\ntimezone: Europe/Berlin\ndecimal_comma: true\n"
        "map: {event_id: number, occurred_at: when, user_id: who, value: sum, items: lines}\n"
        "constant: {tenant_id: acme, conversion_type: purchase, currency: EUR, consent.ad_user_data: true, "
        "consent.ad_storage: true}\n"
    )
    result = dry_run(orders, "--mapping", str(mapping))
    assert result.exit_code == 3
    assert [event["event_id"] for line in result.stdout.splitlines() for event in json.loads(line)["data"]] == ["1"]
    assert "orders.csv line 3: column sum: value: must be a number" in result.stderr
    assert "orders.csv line 4: column lines: items: item_id must be set" in result.stderr


def test_a_file_that_cannot_be_used_is_an_error_of_usage() -> None:
    result = dry_run(EXPORTS / "magento-grid.csv", "--preset", "shopify")
    assert result.exit_code == 2
    assert "magento-grid.csv: preset shopify: the file has no column Name" in result.stderr
