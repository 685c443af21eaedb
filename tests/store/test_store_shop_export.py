"""B1 from end to end: a shop's export of 20 orders in 40 rows is 1,090.00 EUR in Postgres, and 20 conversions."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from attributary.cli.main import app
from attributary.consumers.runtime.records import Record
from attributary.consumers.store.connection import connect
from attributary.producers import MemoryTransport
from attributary.producers.transport import Message
from tests.pipeline_harness import InProcess

pytestmark = pytest.mark.postgres

HEADER = "Name,Email,Financial Status,Paid at,Currency,Total,Created at,Lineitem quantity,Lineitem name\n"


def rows(number: int, status: str = "paid") -> str:
    at = "2026-11-28 10:01:00 +0100"
    return (
        f"#S{number},c{number}@example.com,{status},2026-11-28 10:01:30 +0100,EUR,54.50,{at},1,Socks\n"
        f"#S{number},c{number}@example.com,,,,,{at},2,Hat\n"
    )


def test_b1_the_revenue_of_an_export_is_kept(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = tmp_path / "shop.csv"
    shop.write_text(HEADER + "".join(map(rows, range(1, 21))) + rows(21, "pending"))
    messages: list[Message] = []
    monkeypatch.setattr("attributary.cli.event_producer.require_topics", lambda *_: None)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9")
    for _ in range(2):  # the same file twice stores nothing twice
        transport = MemoryTransport()
        monkeypatch.setattr("attributary.producers.client.KafkaTransport", lambda *_, there=transport: there)
        result = CliRunner().invoke(app, ["produce", str(shop), "--preset", "shopify", "--tenant", "shopa"])
        assert result.exit_code == 0, result.output
        assert "42 rows, 21 orders: 20 published, 0 rejected\n1 left out" in result.stdout
        messages += transport.messages
    now = time.time_ns() // 1_000_000
    with InProcess(database) as pipeline:
        pipeline.read(
            [
                Record(message.topic, 0, offset, message.key, message.value, now)
                for offset, message in enumerate(messages)
            ]
        )
        pipeline.answer()
    with connect(database, application_name="tests") as connection:
        found = connection.execute(
            "SELECT count(*), sum(net_value_micros) FROM attribution_conversions WHERE tenant_id = 'shopa'"
        ).fetchone()
    assert found == (20, 1_090_000_000)
