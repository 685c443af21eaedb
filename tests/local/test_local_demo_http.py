"""What the demo sends over HTTP is acknowledged, in the log, and worth what it says."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from attributary.attribution_core.domain.conversion import ConversionEvent, fold
from attributary.local.demo import report
from attributary.local.demo.http_traffic import TENANT, HttpTraffic, prepare_senders
from attributary.local.demo.publish import Published
from attributary.schemas.topics import CONVERSIONS, TOUCHPOINTS
from tests.fixtures.collector import running_collector


@pytest.mark.slow
def test_what_comes_over_http_is_acknowledged_and_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    senders, published = prepare_senders(tmp_path / "collector"), Published()
    for name in ("DEMO_SHOPIFY_SECRET", "DEMO_STRIPE_SECRET"):
        monkeypatch.setenv(name, senders.environment[name])
    keys, sources = (Path(senders.environment[f"COLLECT_{name}_FILE"]) for name in ("KEYS", "WEBHOOKS"))
    with running_collector(tmp_path, keys_file=keys, webhooks_file=sources) as running:
        rows = HttpTraffic(replace(senders, port=running.port), published).send()
        log = running.log
    assert [(row.name, row.requests, row.records, row.refused) for row in rows] == [
        ("page script", 150, 150, 0),
        ("server, in batches", 2, 50, 0),
        ("webhook, Shopify-like", 66, 65, 1),
        ("webhook, Stripe-like", 60, 60, 0),
    ]
    assert published.sent == len(log.messages) == 325
    touches, conversions = log.records("touchpoint"), log.records("conversion")
    assert published.distinct[TOUCHPOINTS] == {(TENANT, each["event_id"]) for each in touches}
    assert published.distinct[CONVERSIONS] == {(TENANT, each["event_id"]) for each in conversions}
    assert not any(each["is_bot"] for each in touches), "a robot's landing gets no credit"
    landed = {each["anonymous_id"] for each in touches}
    assert {each["anonymous_id"] for each in conversions if each["kind"] == "conversion"} <= landed
    by_conversion: dict[str, dict[str, ConversionEvent]] = {}
    for each in conversions:
        event = ConversionEvent(
            each["occurred_at"], each["event_id"], each["kind"], each["value_micros"], each["currency"]
        )
        by_conversion.setdefault(each["conversion_id"] or each["event_id"], {})[each["event_id"]] = event
    assert len(by_conversion) == 150
    assert sum(fold(events.values()).net_value_micros for events in by_conversion.values()) == 5_800_100_000
    console = Console(width=80, file=io.StringIO(), color_system=None)
    console.print(report.http_table(rows))
    assert isinstance(console.file, io.StringIO)
    assert "webhook, Stripe-like" in console.file.getvalue()
