"""Check ``docs/reference/asyncapi.yaml``: ``python -m attributary.schemas.asyncapi_check`` (in ``make check``).

Invariant: what a reader of the document believes about topics, partitions, retention, groups, keys, schemas and dead
letters is what ``topics.yaml`` and the Avro files say.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fastavro
import yaml
from fastavro.schema import SchemaParseException, UnknownType

from .asyncapi_structure import resolve, structure_problems
from .schema_catalog import FOLDER
from .topics import Topic, catalogue, dead_letter_topics

AVRO_FORMAT = "application/vnd.apache.avro;version=1.9.0"
# Where PyYAML was built with libyaml, ten times as fast.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DOCUMENT = FOLDER.resolve().parent / "docs" / "reference" / "asyncapi.yaml"


def problems(path: Path = DOCUMENT) -> list[str]:
    """Return what is wrong with a document, each as one sentence with its place."""
    try:
        document = yaml.load(path.read_text("utf-8"), Loader=_LOADER)  # noqa: S506  # both are safe
    except (OSError, yaml.YAMLError) as error:
        return [f"{path.name} cannot be read: {error}"]
    found = structure_problems(document)
    return found or list(_facts(document, path.parent))


def _facts(document: Mapping[str, Any], folder: Path) -> Iterator[str]:
    channels = {channel["address"]: (name, channel) for name, channel in document["channels"].items()}
    topics = {topic.name: topic for topic in (*catalogue(), *dead_letter_topics())}
    for address in sorted(channels.keys() - topics.keys()):
        yield f"channels.{channels[address][0]}: {address} is no topic of topics.yaml"
    for topic in topics.values():
        if topic.name not in channels:
            yield f"channels: the topic {topic.name} is missing"
            continue
        name, channel = channels[topic.name]
        yield from (f"channels.{name}: {problem}" for problem in _settings(channel["bindings"]["kafka"], topic))
        yield from (f"channels.{name}: {problem}" for problem in _messages(document, channel, topic, folder))
        if topic.record is not None:
            yield from _groups(document, name, topic)


def _settings(binding: Mapping[str, Any], topic: Topic) -> Iterator[str]:
    said = binding["topicConfiguration"]
    if binding["topic"] != topic.name:
        yield f"its binding names another topic than {topic.name}"
    if binding["partitions"] != topic.partitions:
        yield f"says {binding['partitions']} partitions, topics.yaml says {topic.partitions}"
    if ",".join(said.get("cleanup.policy", [])) != topic.config["cleanup.policy"]:
        yield f"cleanup.policy differs from topics.yaml ({topic.config['cleanup.policy']})"
    if str(said.get("retention.ms")) != str(topic.config.get("retention.ms")):
        yield f"retention.ms differs from topics.yaml ({topic.config.get('retention.ms')})"


def _messages(document: Mapping[str, Any], channel: Mapping[str, Any], topic: Topic, folder: Path) -> Iterator[str]:
    if len(channel["messages"]) != 1:
        yield "must have exactly one message"
        return
    message = resolve(document, next(iter(channel["messages"].values())))
    key = message["bindings"]["kafka"]["key"]
    if key.get("description") != topic.key:
        yield f"the key must be described as in topics.yaml: {topic.key}"
    if topic.record is None:
        if "schemaFormat" in message["payload"]:
            yield "dead letters keep their bytes, they have no schema of their own"
        return
    payload = message["payload"]
    if payload.get("schemaFormat") != AVRO_FORMAT:
        yield f"schemaFormat must be {AVRO_FORMAT}"
        return
    yield from _schema(payload["schema"], topic.record, message["name"], folder)


def _schema(reference: Any, record: str, message_name: str, folder: Path) -> Iterator[str]:
    path = folder / str(reference.get("$ref", "") if isinstance(reference, Mapping) else "")
    if not path.is_file():
        yield "its schema does not point to a file"
        return
    if path.resolve() != (FOLDER / f"{record}.avsc").resolve():
        yield f"its schema is {path.name}, topics.yaml says {record}"
    try:
        parsed = fastavro.parse_schema(json.loads(path.read_text("utf-8")))
    except (SchemaParseException, UnknownType, ValueError) as error:
        yield f"{path.name} is no Avro schema: {error}"
        return
    if parsed["name"].rpartition(".")[2] != message_name:
        yield f"the message {message_name} has the schema of {parsed['name']}"


def _groups(document: Mapping[str, Any], channel: str, topic: Topic) -> Iterator[str]:
    said = [
        group
        for operation in document["operations"].values()
        if operation["action"] == "receive" and operation["channel"]["$ref"] == f"#/channels/{channel}"
        for group in operation.get("bindings", {}).get("kafka", {}).get("groupId", {}).get("enum", [])
    ]
    for group in sorted(set(topic.groups) ^ set(said)):
        where = "topics.yaml" if group in said else "the operations"
        yield f"channels.{channel}: the group {group} is not in {where}"
    sends = [
        operation
        for operation in document["operations"].values()
        if operation["action"] == "send" and operation["channel"]["$ref"] == f"#/channels/{channel}"
    ]
    if not sends:
        yield f"channels.{channel}: no operation sends to it"


def main() -> int:
    """Print what is wrong and return the exit code."""
    found = problems()
    for problem in found:
        sys.stderr.write(f"asyncapi: {problem}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
