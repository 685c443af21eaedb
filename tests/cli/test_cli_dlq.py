"""Dead letters are closed with a reason: they leave list, redrive and status, and stay in their topic."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from attributary.cli.main import app
from attributary.consumers.maintenance.status import Level
from attributary.consumers.maintenance.status.kafka_checks import check_dead_letters
from attributary.consumers.runtime.settings import KafkaSettings
from attributary.consumers.runtime.topic_reader import read_topic
from attributary.schemas.topics import CONVERSIONS, dead_letter_topic

if TYPE_CHECKING:
    from typer.testing import Result

TOPIC = dead_letter_topic(CONVERSIONS, "attribution.stitcher")
PERSON = "somebody@example.com"


@pytest.fixture
def letters(kafka_topics: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three letters: of two tenants, and of one that its key does not name."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka_topics)
    producer = Producer({"bootstrap.servers": kafka_topics, "log_level": 0})
    for number, key in enumerate((f"acme|{PERSON}", f"shop|{PERSON}", PERSON)):
        headers = {
            "__connect.errors.topic": CONVERSIONS,
            "__connect.errors.partition": "0",
            "__connect.errors.offset": str(number),
            "__connect.errors.connector.name": "attribution.stitcher",
            "__connect.errors.stage": "quarantine" if number == 2 else "validate",
            "__connect.errors.exception.message": f"conversion: value_micros: fault {number}",
        }
        producer.produce(TOPIC, b"x", key.encode(), partition=0, headers={k: v.encode() for k, v in headers.items()})
    assert producer.flush(120) == 0


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["dlq", *words])


def listed(*words: str) -> list[dict[str, Any]]:
    done = run("list", "--json", *words)
    assert done.exit_code == 0, done.stderr
    assert PERSON not in done.output
    return list(json.loads(done.stdout))


@pytest.mark.kafka
@pytest.mark.usefixtures("letters")
def test_newcomer_33_letters_are_closed_one_by_one_and_by_what_they_share() -> None:
    found = listed()
    assert [letter["tenant"] for letter in found] == ["acme", "shop", None]
    assert "acme" in run("list").stdout
    assert [letter["tenant"] for letter in listed("--stage", "quarantine")] == [None]

    planned = run("close", found[0]["place"], "--reason", "sent by a test", "--dry-run")
    assert planned.stdout.endswith("1 dead letter to close\n")
    assert len(listed()) == 3
    assert run("close", found[0]["place"], "--reason", "sent by a test").stdout == "1 dead letter closed\n"
    assert [letter["place"] for letter in listed()] == [each["place"] for each in found[1:]]
    again = run("close", found[0]["place"], "--reason", "sent by a test")
    assert (again.exit_code, again.stderr) == (1, "attributary: no such letter is open; see: attributary dlq list\n")
    assert run("close", "--reason", " ").exit_code == 2
    assert run("close", "17", "--reason", "x").exit_code == 2

    kafka = KafkaSettings.load()
    assert check_dead_letters(kafka)[0].facts["topics"] == {TOPIC: 2}
    assert run("close", "--match", "value_micros", "--reason", "load test").stdout == "2 dead letters closed\n"
    assert listed() == []
    assert "0 to send" in run("redrive", "--dry-run").stdout
    assert check_dead_letters(kafka)[0].level is Level.GOOD
    kept = list(read_topic(kafka, TOPIC, until_end=True))
    assert [record.value for record in kept[:3]] == [b"x"] * 3  # nothing is removed
    assert {dict(record.headers)["attribution-closed"] for record in kept[3:]} == {b"sent by a test", b"load test"}
