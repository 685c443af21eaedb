"""The commands of docs/how-to/import.md import the files that stand above them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from attributary.cli.main import app
from attributary.producers import MemoryTransport

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "import.md"
BLOCKS = re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
COMMANDS = [text for language, _, text in BLOCKS if language == "console"]


@pytest.fixture
def transport(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryTransport:
    for _, name, text in BLOCKS:
        if name:
            (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:9")
    monkeypatch.setattr("attributary.cli.event_producer.require_topics", lambda *_: None)
    transport = MemoryTransport()
    monkeypatch.setattr("attributary.producers.client.KafkaTransport", lambda *_: transport)
    return transport


@pytest.mark.parametrize("number", range(len(COMMANDS)))
def test_the_commands_of_the_page_publish_its_orders(number: int, transport: MemoryTransport) -> None:
    program, *arguments = shlex.split(COMMANDS[number].replace("\\\n", " "))
    assert program == "attributary"
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "published all the same" not in result.output
    records = transport.records("conversion")
    assert [record["value_micros"] for record in records] == [59_400_000, 26_950_000]
    assert {record["currency"] for record in records} == {"EUR"}
    assert [[item["item_id"] for item in record["items"]] for record in records] == [["SO-1", "HA-2"], ["SO-1"]]
    assert [record["occurred_at"] for record in records] == [1_795_856_460_000_000, 1_795_861_198_000_000]


EXPORTS = Path(__file__).resolve().parents[1] / "fixtures" / "exports"
SAMPLES = {
    "orders_export.csv": "shopify-orders.csv",
    "orders.csv": "woocommerce-orders.csv",
    "events.jsonl": "ga4-events.jsonl",
    "leads.csv": "meta-leads.csv",
}
LINES = [
    line
    for language, _, text in BLOCKS
    if language == "sh"
    for line in text.replace("\\\n", " ").splitlines()
    if line.startswith("attributary")
]


@pytest.mark.parametrize("line", LINES)
def test_the_other_commands_take_the_samples_of_the_exports(line: str, transport: MemoryTransport) -> None:
    for name, sample in SAMPLES.items():
        Path(name).write_bytes((EXPORTS / sample).read_bytes())
    result = CliRunner().invoke(app, shlex.split(line)[1:])
    assert result.exit_code == 0, result.output
    assert transport.messages


def test_the_page_has_a_command_for_each_shop() -> None:
    assert len(COMMANDS) == 3
    assert len(LINES) >= 6
