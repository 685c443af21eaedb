"""Is a document well-formed AsyncAPI 3.0? The part of the specification that ``docs/reference/asyncapi.yaml`` uses.

Invariant: what passes here also passes the official parser (tried with @asyncapi/parser, which needs Node). Objects
that the document has no use for (security schemes, parameters, traits, replies) are refused, not let through.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

_ADDRESS = re.compile(r"[A-Za-z0-9._-]{1,249}")
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_VERSION = re.compile(r"3\.\d+\.\d+")


class Shape(NamedTuple):
    """The keys of one kind of object."""

    required: frozenset[str]
    optional: frozenset[str]


def _shape(required: str, optional: str = "") -> Shape:
    return Shape(frozenset(required.split()), frozenset(optional.split()))


_DOCUMENT = _shape("asyncapi info channels operations", "defaultContentType servers components")
_INFO = _shape("title version", "description license tags externalDocs contact termsOfService")
_SERVER = _shape("host protocol", "description title summary protocolVersion pathname bindings tags")
_CHANNEL = _shape("address messages", "title summary description tags bindings servers externalDocs")
_OPERATION = _shape("action channel messages", "title summary description tags bindings externalDocs")
_MESSAGE = _shape("name contentType headers payload bindings", "title summary description tags examples externalDocs")
_COMPONENTS = _shape("messages schemas")
_MULTI_FORMAT = _shape("schemaFormat schema")
_KAFKA = {
    "channel": _shape("bindingVersion topic partitions topicConfiguration", "replicas"),
    "operation": _shape("bindingVersion groupId", "clientId"),
    "message": _shape("bindingVersion key", "schemaIdLocation schemaIdPayloadEncoding schemaLookupStrategy"),
}


def resolve(document: Mapping[str, Any], node: Any) -> Any:
    """Return what a reference inside the document points to; other nodes as they are; None when nothing is there."""
    seen = 0
    while isinstance(node, Mapping) and isinstance(node.get("$ref"), str) and node["$ref"].startswith("#/"):
        target: Any = document
        for part in node["$ref"][2:].split("/"):
            target = target.get(part) if isinstance(target, Mapping) else None
        node, seen = target, seen + 1
        if seen > 10:  # a circle
            return None
    return node


def structure_problems(document: Any) -> list[str]:
    """Return what is not AsyncAPI 3.0 in a parsed document, each with its place."""
    found = list(_keys("document", document, _DOCUMENT))
    if found:
        return found
    if not _VERSION.fullmatch(str(document["asyncapi"])):
        found.append("asyncapi: must be a version 3.x.y")
    found += _keys("info", document["info"], _INFO)
    for name, server in document.get("servers", {}).items():
        found += _keys(f"servers.{name}", server, _SERVER)
    for name, channel in document["channels"].items():
        found += _channel(document, f"channels.{name}", channel)
    for name, operation in document["operations"].items():
        found += _operation(document, f"operations.{name}", operation)
    components = document.get("components", {})
    found += _keys("components", components, _COMPONENTS)
    for name, message in components.get("messages", {}).items():
        found += _message(document, f"components.messages.{name}", message)
    found += _repeated(components.get("messages", {}))
    return found + list(_references(document, document, "document"))


def _keys(place: str, node: Any, shape: Shape) -> Iterator[str]:
    if not isinstance(node, Mapping):
        yield f"{place}: must be an object"
        return
    keys = {key for key in node if not str(key).startswith("x-")}
    for key in sorted(shape.required - keys):
        yield f"{place}: {key} is missing"
    for key in sorted(keys - shape.required - shape.optional):
        yield f"{place}: {key} is not known there"


def _channel(document: Any, place: str, channel: Any) -> Iterator[str]:
    yield from (broken := list(_keys(place, channel, _CHANNEL)))
    if broken:
        return
    if not _ADDRESS.fullmatch(str(channel["address"])):
        yield f"{place}: address is not the name of a topic"
    for name, message in channel["messages"].items():
        if not isinstance(resolve(document, message), Mapping):
            yield f"{place}.messages.{name}: points to nothing"
    yield from _kafka(place, channel, "channel")


def _operation(document: Any, place: str, operation: Any) -> Iterator[str]:
    yield from (broken := list(_keys(place, operation, _OPERATION)))
    if broken:
        return
    if operation["action"] not in {"send", "receive"}:
        yield f"{place}: action must be send or receive"
    channel = operation["channel"].get("$ref", "") if isinstance(operation["channel"], Mapping) else ""
    if not channel.startswith("#/channels/") or resolve(document, operation["channel"]) is None:
        yield f"{place}: channel must point to a channel of the document"
    for message in operation["messages"]:
        reference = message.get("$ref", "") if isinstance(message, Mapping) else ""
        if not reference.startswith(f"{channel}/messages/"):
            yield f"{place}: messages must point into its channel"
    if "bindings" in operation:
        yield from _kafka(place, operation, "operation")


def _message(document: Any, place: str, message: Any) -> Iterator[str]:
    yield from (broken := list(_keys(place, message, _MESSAGE)))
    if broken:
        return
    headers = resolve(document, message["headers"])
    if not isinstance(headers, Mapping) or headers.get("type") != "object":
        yield f"{place}: headers must be a schema of type object"
    if isinstance(message["payload"], Mapping) and "schemaFormat" in message["payload"]:
        yield from _keys(f"{place}.payload", message["payload"], _MULTI_FORMAT)
    elif not isinstance(message["payload"], Mapping):
        yield f"{place}: payload must be a schema"
    yield from _kafka(place, message, "message")


def _kafka(place: str, node: Any, kind: str) -> Iterator[str]:
    bindings = node.get("bindings", {})
    if not isinstance(bindings, Mapping) or set(bindings) != {"kafka"}:
        yield f"{place}: bindings must have kafka and nothing else"
        return
    yield from _keys(f"{place}.bindings.kafka", bindings["kafka"], _KAFKA[kind])


def _repeated(messages: Mapping[str, Any]) -> Iterator[str]:
    names = [message.get("name") for message in messages.values() if isinstance(message, Mapping)]
    for name in sorted({str(name) for name in names if names.count(name) > 1}):
        yield f"components.messages: the name {name} is given twice"


def _references(document: Any, node: Any, place: str) -> Iterator[str]:
    if isinstance(node, list):
        for index, part in enumerate(node):
            yield from _references(document, part, f"{place}[{index}]")
    elif isinstance(node, Mapping):
        reference = node.get("$ref")
        if isinstance(reference, str) and reference.startswith("#") and resolve(document, node) is None:
            yield f"{place}: {reference} points to nothing"
        for key, part in node.items():
            if place in {"document.channels", "document.operations"} and not _NAME.fullmatch(str(key)):
                yield f"{place}: {key} is not a name"
            yield from _references(document, part, f"{place}.{key}")
