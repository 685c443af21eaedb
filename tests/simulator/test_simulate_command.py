"""`attributary simulate`: the file, the truth, the exit codes, and Kafka."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from attributary.cli.main import app

SMALL = ["simulate", "--touchpoints", "300", "--conversions", "20", "--duplicates", "0.1", "--seed", "7"]


def test_dry_run_writes_the_events_and_the_truth(tmp_path: Path) -> None:
    events, truth = tmp_path / "events.jsonl", tmp_path / "truth.json"
    arguments = [*SMALL, "--now", "1790000000", "--dry-run", str(events), "--truth", str(truth)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    counts = json.loads(truth.read_text())["counts"]
    assert counts["touchpoints"] == 300
    assert len(lines) == sum(counts["events"].values()) + counts["duplicates"]
    assert {"topic", "key", "record"} == set(lines[0])
    assert "300 touchpoints, 20 conversions" in result.output
    again = tmp_path / "again.jsonl"
    CliRunner().invoke(app, [*SMALL, "--now", "1790000000", "--dry-run", str(again)])
    assert again.read_bytes() == events.read_bytes()


def test_a_bad_wish_is_a_usage_error() -> None:
    result = CliRunner().invoke(app, ["simulate", "--late", "3"])
    assert result.exit_code == 2
    assert "late" in result.output


def test_without_a_broker_it_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    result = CliRunner().invoke(app, SMALL)
    assert result.exit_code == 78
    assert "KAFKA_BOOTSTRAP_SERVERS" in result.output


def test_it_publishes_everything_to_kafka(fresh_topics: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from confluent_kafka import Consumer, TopicPartition

    from attributary.schemas.topics import CONVERSIONS, IDENTITIES, TOUCHPOINTS

    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", fresh_topics)
    truth = tmp_path / "truth.json"
    result = CliRunner().invoke(app, [*SMALL, "--rate", "5000", "--truth", str(truth)])
    assert result.exit_code == 0, result.output
    counts = json.loads(truth.read_text())["counts"]
    consumer = Consumer({"bootstrap.servers": fresh_topics, "group.id": "none"})
    try:
        there = 0
        for topic in (TOUCHPOINTS, CONVERSIONS, IDENTITIES):
            for partition in consumer.list_topics(topic, timeout=120).topics[topic].partitions:
                low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=120)
                there += high - low
    finally:
        consumer.close()
    assert there == sum(counts["events"].values()) + counts["duplicates"]
