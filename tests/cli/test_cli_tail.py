"""`attributary tail`, as a subscriber without code: on librdkafka's mock broker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner, Result

from attributary.cli.main import app
from attributary.local.mock_broker import mock_broker
from attributary.schemas.samples import sample
from attributary.schemas.schema_catalog import current_schemas
from attributary.schemas.topics import CONVERSIONS, JOBS, RESULTS
from tests.factories.samples import codec, sale
from tests.schemas.test_schemas_result_layout import OLD, old_view, written

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def bootstrap() -> Iterator[str]:
    with mock_broker() as found:
        producer = Producer({"bootstrap.servers": found, "log_level": 0})
        for number, tenant in enumerate(["acme", "else", "acme"]):
            event = sale(f"c{number}", tenant_id=tenant, value=-1_230_000 if number == 2 else 5_000_000)
            producer.produce(CONVERSIONS, codec().encode("conversion", event.to_record()), b"k")
        producer.produce(CONVERSIONS, b"\xc3\x01 cut off", b"k")
        producer.produce(RESULTS, codec().encode("result", result()), b"k")
        producer.produce(RESULTS, written(OLD[-1], old_view(result())), b"k")  # of the layout before
        job = {"tenant_id": "acme", "job_id": "a\x1b[2J\nb", "kind": "train", "parameters": {}, "submitted_at": 1}
        producer.produce(JOBS, codec().encode("job", {**job, "submitted_by": None}), b"k")
        assert producer.flush(120) == 0
        yield found


def result() -> dict[str, Any]:
    record: dict[str, Any] = sample(current_schemas()["result"].source, 0)
    record |= {"tenant_id": "acme", "net_value_micros": -1_234_567, "currency": "EUR", "is_final": True, "version": 3}
    touch = record["touchpoints"][0]
    record["touchpoints"] = [
        {**touch, "event_id": "t1", "channel": "email"},
        {**touch, "event_id": "t2", "channel": "direct"},
        {**touch, "event_id": "t3", "channel": "email"},
    ]
    model = {**record["models"][0], "model": "markov", "credits": [0.5, 0.0, 0.25], "micros": [1, 0, 2]}
    record["models"] = [
        {**model, "fallback": "linear"},
        {**model, "model": "linear", "credits": [0.0, 0.0, 0.0], "micros": [0, 0, 0], "fallback": None},
    ]
    return record


@pytest.fixture
def tail(bootstrap: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", bootstrap)

    def run(*arguments: str) -> Result:
        done = CliRunner().invoke(app, ["tail", *arguments, "--from", "beginning", "--until-end"])
        assert done.exit_code == 0, done.output
        return done

    return run


def test_one_json_object_a_line(tail: Any) -> None:
    done = tail("conversions", "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["event_id"] for row in rows] == ["c0", "c1", "c2"]
    assert rows[0]["value_micros"] == 5_000_000
    assert "attribution.conversions.v1[" in done.stderr  # the one that cannot be read is told, and passed over


def test_one_tenant_and_a_limit(tail: Any) -> None:
    rows = tail("conversions", "--json", "--tenant", "acme").stdout.splitlines()
    assert [json.loads(row)["event_id"] for row in rows] == ["c0", "c2"]
    assert len(tail("conversions", "--json", "--limit", "1").stdout.splitlines()) == 1


def test_results_for_people(tail: Any) -> None:
    lines = tail("results").stdout.splitlines()
    assert lines[:3] == lines[3:]  # the record of today, and the one of the older layout
    assert "v3 " in lines[0]
    assert " final " in lines[0]
    assert "-1.234567 EUR  7 touchpoints" in lines[0]
    assert " ".join(lines[1].split()) == "markov email 75% (by linear: too little data on a channel of the journey)"
    assert lines[2].split() == ["linear", "unattributed"]


def test_results_as_json_have_each_models_touchpoints_and_sums(tail: Any) -> None:
    new, old = (json.loads(line) for line in tail("results", "--json").stdout.splitlines())
    assert new == old == old_view(result())
    markov = new["models"][0]
    assert [(touch["event_id"], touch["credit"]) for touch in markov["touchpoints"]] == [
        ("t1", 0.5), ("t2", 0.0), ("t3", 0.25)
    ]  # fmt: skip
    channels = [row for row in markov["rollups"] if row["dimension"] == "channel"]
    assert [(row["name"], row["value_micros"]) for row in channels] == [("direct", 0), ("email", 3)]


def test_events_for_people_show_what_is_set(tail: Any) -> None:
    line = tail("conversions", "--limit", "1").stdout
    assert "event_id=c0" in line
    assert "order_id" not in line


def test_the_ten_lines_of_the_page_read_results(
    bootstrap: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", bootstrap)
    page = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "subscribe.md").read_text(encoding="utf-8")
    block = page.partition("## Python, ten lines")[2].partition("```python\n")[2].partition("```")[0]
    block = block.replace("poll(10.0)", "poll(12.0)")
    exec(compile(block, "docs/how-to/subscribe.md", "exec"), {})  # noqa: S102  # our own page
    assert capsys.readouterr().out == f"{result()['conversion_id']} 3 -1234567\n" * 2


def test_what_others_wrote_reaches_the_terminal_without_control_characters(tail: Any) -> None:
    (line,) = tail("jobs").stdout.splitlines()
    assert "job_id=a\\x1b[2J\\nb" in line


def test_a_fallback_has_the_cause_that_explain_and_results_name() -> None:
    from attributary.consumers.reports.fallback_notes import fallback_cause, fallback_cure

    causes = [fallback_cause("markov", version, "linear") for version in ("untrained", "3-unusable", "3")]
    assert causes == [
        "by linear: markov is not trained",
        "by linear: version 3 of markov cannot be used",
        "by linear: too little data on a channel of the journey",
    ]
    assert "models train --model markov --tenant acme" in fallback_cure("markov", "untrained", "acme")
    assert "models rollback markov" in fallback_cure("markov", "3-unusable", "acme")
