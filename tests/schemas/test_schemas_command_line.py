from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from attributary.cli import schemas as command
from attributary.cli.main import app
from attributary.schemas import compatibility
from attributary.schemas.codec import Codec
from attributary.schemas.schema_catalog import NAMES, current_schemas

JOB = {"tenant_id": "acme", "job_id": "j", "kind": "train", "parameters": {"model": "markov"}, "submitted_at": 1}
runner = CliRunner()


def test_every_schema_is_listed_with_its_fingerprint() -> None:
    listed = runner.invoke(app, ["schemas", "list"]).output
    assert len(listed.splitlines()) == len(NAMES)
    assert current_schemas()["touchpoint"].crc64.hex() in listed


def test_a_schema_is_shown_as_it_is_written() -> None:
    assert json.loads(runner.invoke(app, ["schemas", "show", "job"]).output) == current_schemas()["job"].source


def test_an_unknown_schema_is_a_usage_error_that_names_the_known() -> None:
    shown = runner.invoke(app, ["schemas", "show", "weather"])
    assert shown.exit_code == 2
    assert "touchpoint" in shown.output


def test_the_check_says_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    assert runner.invoke(app, ["schemas", "check"]).exit_code == 0
    monkeypatch.setattr(compatibility, "problems", lambda: ["job, field kind: broken"])
    checked = runner.invoke(app, ["schemas", "check"])
    assert checked.exit_code == 1
    assert checked.stderr == "attributary: job, field kind: broken\n"


def test_a_record_is_decoded_from_a_file_and_from_standard_input(tmp_path: Path) -> None:
    value = Codec().encode("job", JOB)
    file = tmp_path / "record"
    file.write_bytes(value)
    assert json.loads(runner.invoke(app, ["schemas", "decode", str(file)]).output) == JOB | {"submitted_by": None}
    assert json.loads(runner.invoke(app, ["schemas", "decode", "-"], input=value).output)["job_id"] == "j"


def test_a_record_with_a_schema_id_is_decoded_by_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    class Shelf:
        def schema(self, _schema_id: int) -> str:
            return json.dumps(current_schemas()["job"].source)

        def schema_id(self, _name: str, _schema: str) -> int:
            return 1

    from attributary.schemas import registry

    monkeypatch.setattr(registry, "connect", lambda _settings: Shelf())
    value = Codec(Shelf()).encode("job", JOB)
    arguments = ["schemas", "decode", "-", "--registry", "http://127.0.0.1:1"]
    unnamed = runner.invoke(app, arguments, input=value)
    assert unnamed.exit_code == 2
    assert "--name" in unnamed.output
    decoded = runner.invoke(app, [*arguments, "--name", "job"], input=value)
    assert json.loads(decoded.output)["kind"] == "train"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"", "neither Avro"),
        (b"\xc3\x01abcdefgh", "unknown schema fingerprint"),
        (Codec().encode("job", JOB)[:-3], "the job record ends too early"),
    ],
)
def test_broken_bytes_exit_with_1_and_the_reason(value: bytes, why: str) -> None:
    decoded = runner.invoke(app, ["schemas", "decode", "-"], input=value)
    assert decoded.exit_code == 1
    assert why in decoded.output


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    assert runner.invoke(app, ["schemas", "decode", str(tmp_path / "none")]).exit_code == 2


def test_every_command_teaches_with_an_example() -> None:
    for entry in command.schemas_app.registered_commands:
        assert entry.callback
        assert "Example:" in str(entry.callback.__doc__)
