from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from attributary.schemas import asyncapi_check
from attributary.schemas.asyncapi_check import DOCUMENT, problems
from attributary.schemas.asyncapi_structure import resolve
from attributary.schemas.schema_catalog import FOLDER

Change = Callable[[dict[str, Any]], object]


def kafka(document: dict[str, Any], channel: str) -> dict[str, Any]:
    binding: dict[str, Any] = document["channels"][channel]["bindings"]["kafka"]
    return binding


def message(document: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = document["components"]["messages"][name]
    return found


@cache
def as_it_is() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(DOCUMENT.read_text("utf-8"))
    return document


def written(tmp_path: Path, change: Change) -> Path:
    document = deepcopy(as_it_is())
    change(document)
    (tmp_path / "schemas").symlink_to(FOLDER.resolve())
    path = tmp_path / "docs" / "reference" / "asyncapi.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(document), "utf-8")  # JSON is YAML
    return path


def test_the_document_agrees_with_topics_and_schemas() -> None:
    assert problems() == []


CASES: dict[str, tuple[Change, str]] = {
    "no info": (lambda d: d.pop("info"), "document: info is missing"),
    "unknown part": (lambda d: d.update(topics={}), "document: topics is not known there"),
    "old version": (lambda d: d.update(asyncapi="2.6.0"), "asyncapi: must be a version 3.x.y"),
    "server without protocol": (lambda d: d["servers"]["local"].pop("protocol"), "servers.local: protocol is missing"),
    "bad action": (lambda d: d["operations"]["publishTouchpoints"].update(action="publish"), "send or receive"),
    "operation to nowhere": (
        lambda d: d["operations"]["publishTouchpoints"].update(channel={"$ref": "#/channels/none"}),
        "operations.publishTouchpoints: channel must point to a channel",
    ),
    "message of another channel": (
        lambda d: d["operations"]["publishTouchpoints"].update(messages=[{"$ref": "#/channels/jobs/messages/job"}]),
        "operations.publishTouchpoints: messages must point into its channel",
    ),
    "dangling reference": (
        lambda d: message(d, "job").update(headers={"$ref": "#/components/schemas/none"}),
        "#/components/schemas/none points to nothing",
    ),
    "message name twice": (lambda d: message(d, "job").update(name="Command"), "the name Command is given twice"),
    "no binding": (lambda d: d["channels"]["jobs"].update(bindings={}), "channels.jobs: bindings must have kafka"),
    "bad address": (lambda d: d["channels"]["jobs"].update(address="a topic"), "address is not the name of a topic"),
    "bad payload": (lambda d: message(d, "job").update(payload="job.avsc"), "payload must be a schema"),
    "missing topic": (lambda d: d["channels"]["jobStatus"].update(address="x.y"), "job-status.v1 is missing"),
    "unknown topic": (lambda d: d["channels"]["jobStatus"].update(address="x.y"), "x.y is no topic of topics.yaml"),
    "missing dead letters": (
        lambda d: d["channels"]["jobsOfTrainerDeadLetters"].update(address="x.y"),
        "the topic attribution.jobs.v1.attribution.trainer.dlq is missing",
    ),
    "partitions": (lambda d: kafka(d, "jobs").update(partitions=9), "says 9 partitions, topics.yaml says 3"),
    "retention": (lambda d: kafka(d, "jobs")["topicConfiguration"].pop("retention.ms"), "retention.ms differs"),
    "policy": (
        lambda d: kafka(d, "results")["topicConfiguration"].update({"cleanup.policy": ["delete"]}),
        "channels.results: cleanup.policy differs from topics.yaml (compact)",
    ),
    "binding of another topic": (lambda d: kafka(d, "jobs").update(topic="x"), "its binding names another topic"),
    "two messages": (
        lambda d: d["channels"]["jobs"]["messages"].update(command={"$ref": "#/components/messages/command"}),
        "channels.jobs: must have exactly one message",
    ),
    "key": (
        lambda d: message(d, "job")["bindings"]["kafka"]["key"].pop("description"),
        "the key must be described as in topics.yaml: tenant_id|job_id",
    ),
    "format": (
        lambda d: message(d, "job")["payload"].update(schemaFormat="application/schema+json"),
        "schemaFormat must be application/vnd.apache.avro;version=1.9.0",
    ),
    "other schema": (
        lambda d: message(d, "job")["payload"].update(schema={"$ref": "../../schemas/command.avsc"}),
        "its schema is command.avsc, topics.yaml says job",
    ),
    "message named otherwise": (lambda d: message(d, "job").update(name="Task"), "Task has the schema of"),
    "no schema": (
        lambda d: message(d, "job")["payload"].update(schema={"$ref": "../../schemas/none.avsc"}),
        "its schema does not point to a file",
    ),
    "schema that is none": (
        lambda d: message(d, "job")["payload"].update(schema={"$ref": "../../schemas/topics.yaml"}),
        "topics.yaml is no Avro schema",
    ),
    "schema of dead letters": (
        lambda d: message(d, "deadLetter").update(payload={"schemaFormat": "x", "schema": {}}),
        "dead letters keep their bytes",
    ),
    "group": (
        lambda d: d["operations"].pop("trainerReceivesJobs"),
        "channels.jobs: the group attribution.trainer is not in the operations",
    ),
    "nobody sends": (
        lambda d: [d["operations"].pop(name) for name in ("submitJobs",)],
        "channels.jobs: no operation sends to it",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_document_that_says_something_else_is_refused(case: str, tmp_path: Path) -> None:
    change, text = CASES[case]
    found = problems(written(tmp_path, change))
    assert any(text in problem for problem in found), found


def test_a_reference_in_a_circle_points_to_nothing() -> None:
    document = {"a": {"$ref": "#/b"}, "b": {"$ref": "#/a"}}
    assert resolve(document, document["a"]) is None


@pytest.mark.parametrize("text", ["{", "[1, 2]", ""])
def test_a_file_that_is_no_document_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "asyncapi.yaml"
    path.write_text(text, "utf-8")
    assert problems(path)


def test_the_command_exits_1_with_the_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = written(tmp_path, lambda document: kafka(document, "jobs").update(partitions=1))
    monkeypatch.setattr(asyncapi_check, "problems", lambda: problems(path))
    assert asyncapi_check.main() == 1
    assert "asyncapi: channels.jobs: says 1 partitions" in capsys.readouterr().err
