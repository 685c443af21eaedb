"""`attributary produce`: exit codes, the rejects file, and the way into a real broker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from confluent_kafka import Consumer, TopicPartition
from typer.testing import CliRunner

from attributary.cli import event_producer, produce
from attributary.producers import MemoryTransport
from attributary.producers.importer.orders import Order
from attributary.producers.importer.row_mapper import Mapped, RowMapper
from attributary.schemas.codec import Codec
from attributary.schemas.topics import CONVERSIONS, TOUCHPOINTS

ORDERS = """number,date,customer,total,mail,note
1001,2024-06-01 12:00,u1,"19,99",jo@example.org,x
1002,2024-06-01 12:05,u2,5,,
1003,yesterday,u2,5,,
"""
ORDER_OPTIONS = (
    "--kind", "conversion", "--tenant", "acme", "--map", "value=total", "--map", "order_id=number", "--map",
    "occurred_at=date", "--map", "user_id=customer", "--map", "user_data.email=mail", "--timezone", "Europe/Berlin",
    "--constant", "currency=EUR", "--constant", "conversion_type=purchase", "--decimal-comma",
)  # fmt: skip


def run(*arguments: str) -> Any:
    app = typer.Typer()
    produce.register(app)
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    path = tmp_path / "orders.csv"
    path.write_text(ORDERS, encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _no_broker_by_accident(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)


def test_a_dry_run_needs_no_kafka_and_says_what_is_wrong(orders: Path) -> None:
    result = run(str(orders), *ORDER_OPTIONS, "--dry-run")
    assert result.exit_code == 3
    assert "3 rows: 2 could be published, 1 rejected" in result.stdout
    assert "columns that are not used: note" in result.stderr
    (line,) = (orders.parent / "orders.csv.rejects.jsonl").read_text(encoding="utf-8").splitlines()
    reject = json.loads(line)
    assert (reject["line"], reject["field"], reject["row"]["number"]) == (4, "occurred_at", "1003")


def test_a_clean_file_ends_with_zero_and_leaves_no_rejects(orders: Path) -> None:
    result = run(str(orders), *ORDER_OPTIONS, "--dry-run", "--limit", "2")
    assert result.exit_code == 0, result.output
    assert not (orders.parent / "orders.csv.rejects.jsonl").exists()


def test_a_mapping_file_does_the_same(orders: Path) -> None:
    mapping = orders.with_name("orders.yaml")
    mapping.write_text(
        "kind: conversion\ntenant: acme\ntimezone: Europe/Berlin\ndecimal_comma: true\n"
        "map: {value: total, order_id: number, occurred_at: date, user_id: customer}\n"
        "constant: {currency: EUR, conversion_type: purchase}\n",
        encoding="utf-8",
    )
    result = run(str(orders), "--mapping", str(mapping), "--dry-run", "--limit", "2")
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--map", "colour=date"), "colour: a touchpoint has no such field"),
        (("--map", "user_id=nobody"), "column nobody: the file has no such column"),
        (("--mapping", "nowhere.yaml"), "nowhere.yaml: No such file"),
        (("--format", "avro"), "not an Avro container"),
        (("--timezone", "Mars/Base"), "timezone Mars/Base"),
    ],
)
def test_usage_errors(orders: Path, options: tuple[str, ...], reason: str) -> None:
    result = run(str(orders), "--dry-run", *options)
    assert result.exit_code == 2
    assert reason in result.stderr


def test_without_a_setting_it_is_78_and_without_a_broker_69(orders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(str(orders), *ORDER_OPTIONS)
    assert result.exit_code == 78
    assert "KAFKA_BOOTSTRAP_SERVERS" in result.stderr
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9")
    result = run(str(orders), *ORDER_OPTIONS)
    assert result.exit_code == 69
    assert "no Kafka broker answers at 127.0.0.1:9" in result.stderr


def test_a_broker_that_goes_away_is_69_and_says_where_to_go_on(orders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = MemoryTransport()
    transport.fail_next("timed out")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9")
    monkeypatch.setattr(event_producer, "require_topics", lambda *_: None)
    monkeypatch.setattr("attributary.producers.client.KafkaTransport", lambda *_: transport)
    result = run(str(orders), *ORDER_OPTIONS)
    assert result.exit_code == 69
    assert "1 not delivered (timed out)" in result.stderr
    assert "go on with --skip 0" in result.stderr


def test_an_interrupt_is_130_and_delivers_what_was_queued(orders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = MemoryTransport()
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9")
    monkeypatch.setattr(event_producer, "require_topics", lambda *_: None)
    monkeypatch.setattr("attributary.producers.client.KafkaTransport", lambda *_: transport)
    mapped = RowMapper.mapped

    def interrupted(self: RowMapper, order: Order) -> Mapped:
        if order.rows[0].line > 2:
            raise KeyboardInterrupt
        return mapped(self, order)

    monkeypatch.setattr(RowMapper, "mapped", interrupted)
    result = run(str(orders), *ORDER_OPTIONS)
    assert result.exit_code == 130
    assert "stopped; go on with --skip 0" in result.stderr
    assert len(transport.messages) == 1


def test_a_terminal_gets_a_progress_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    path = tmp_path / "links.csv"
    path.write_text("anonymous_id,user_id,linked_at\n" + "a1,u1,2024-06-01T12:00:00Z\n" * 1000, encoding="utf-8")
    result = run(str(path), "--kind", "identity_link", "--tenant", "acme", "--dry-run")
    assert result.exit_code == 0
    assert "1,000 rows, 0 rejected" in result.stderr


def read_values(bootstrap: str, topic: str) -> list[bytes]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "t", "enable.auto.commit": False})
    try:
        found: list[bytes] = []
        wanted = 0
        places = []
        for partition in consumer.list_topics(topic, timeout=120).topics[topic].partitions:
            _, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=120)
            wanted += high
            places.append(TopicPartition(topic, partition, 0))
        consumer.assign(places)
        while len(found) < wanted:
            message = consumer.poll(120)
            assert message is not None, "the broker gave fewer records than its watermarks say"
            assert message.error() is None
            value = message.value()
            assert isinstance(value, bytes)
            found.append(value)
        return found
    finally:
        consumer.close()


def test_a_file_imported_twice_has_the_same_event_ids(
    orders: Path, fresh_topics: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", fresh_topics)
    for _ in range(2):
        result = run(str(orders), *ORDER_OPTIONS)
        assert result.exit_code == 3, result.output
        assert "3 rows: 2 published, 1 rejected" in result.stdout
    records = [Codec().decode("conversion", value) for value in read_values(fresh_topics, CONVERSIONS)]
    assert len(records) == 4
    assert len({record["event_id"] for record in records}) == 2
    first = next(record for record in records if record["order_id"] == "1001")
    assert (first["value_micros"], first["tenant_id"]) == (19_990_000, "acme")
    assert first["user_data"]["email"] is None
    assert first["user_data"]["meta_hashes"]["em"]
    assert read_values(fresh_topics, TOUCHPOINTS) == []
