"""The blocks of docs/how-to/publish.md do what the page says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest
import typer
from typer.testing import CliRunner

from attributary.cli import produce
from attributary.producers import MemoryTransport
from attributary.schemas.topics import topic_of

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "publish.md"


class Block(NamedTuple):
    """A fenced block of the page."""

    language: str
    name: str
    text: str


BLOCKS = [
    Block(*found)
    for found in re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
]


def blocks(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_blocks_run(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = MemoryTransport()
    monkeypatch.setattr("attributary.producers.client.KafkaTransport", lambda *_: transport)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")
    text = blocks("python")[number].text
    names = {"__name__": "docs"}
    exec(compile(text, f"{PAGE.name}, python block {number + 1}", "exec"), names)  # noqa: S102 - our own page
    if number == 0:
        assert [message.topic for message in transport.messages] == [topic_of("touchpoint"), topic_of("identity_link")]


@pytest.mark.parametrize("number", range(len(blocks("console"))))
def test_commands_import_the_sample(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in BLOCKS:
        if block.name:
            (tmp_path / block.name).write_text(block.text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    program, command, *arguments = shlex.split(blocks("console")[number].text.replace("\\\n", " "))
    assert (program, command) == ("attributary", "produce")
    app = typer.Typer()
    produce.register(app)
    result = CliRunner().invoke(app, [*arguments, "--dry-run"])
    assert result.exit_code == 0, result.output
    assert "2 rows: 2 could be published, 0 rejected" in result.stdout


def test_the_page_has_its_blocks() -> None:
    assert len(blocks("python")) >= 6
    assert len(blocks("console")) >= 2
    assert all(block.text.strip() for block in BLOCKS)
