"""The bundled Avro schemas: the files of this folder and every version that was ever published.

Invariant: the runtime form of a schema has the fingerprint of its file. It only lacks ``logicalType`` and ``doc``, so
that a timestamp is a plain integer of microseconds UTC on both sides; CRC-64 fingerprints ignore both.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

from .compiled_reader import Reader, compile_reader
from .compiled_writer import Writer, compile_writer
from .result_layout import FIRST_COMPACT_VERSION

FOLDER = Path(__file__).parent
PUBLISHED = FOLDER / "published"
NAMES = (
    "touchpoint", "conversion", "identity_link", "spend", "erasure_request", "erasure", "command", "result", "job",
    "job_status", "dead_letter",
)  # fmt: skip

MAX_PARTS = 10_000
"""Of one value of a schema, records within records counted each time that they are named."""

_LEFT_OUT = frozenset({"logicalType", "doc"})


class UnsafeSchemaError(ValueError):
    """A writer schema with which a few bytes could take all memory or overflow the stack."""


class BundledSchema(NamedTuple):
    """One version of one record."""

    name: str  # the short name, such as "touchpoint"
    source: Any  # the parsed JSON of the file
    runtime: Any  # what fastavro reads and writes with
    crc64: bytes  # Rabin fingerprint, little-endian, as single-object encoding carries it


def crc64(schema: Any) -> bytes:
    """Return the 8 bytes of the CRC-64-AVRO fingerprint, little-endian (Avro 1.9 specification)."""
    return bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))


def runtime_form(schema: Any) -> Any:
    """Return a schema parsed for use, with plain integers in place of logical types.

    Raises:
        UnsafeSchemaError: when it is recursive or has arrays of items that take no bytes.
    """
    plain = _without(schema)
    refuse_unsafe(plain)
    return fastavro.parse_schema(plain)


def _without(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _without(value) for key, value in node.items() if key not in _LEFT_OUT}
    if isinstance(node, list):
        return [_without(item) for item in node]
    return node


def refuse_unsafe(schema: Any) -> None:
    """Refuse a schema with which a few bytes take all memory or overflow the stack.

    Raises:
        UnsafeSchemaError: it is recursive, has arrays of items that take no bytes, or names records within records so
            often that one value has more than ``MAX_PARTS`` parts.
    """
    _refuse_unsafe(schema, ())
    _count_parts(schema, {})


def _count_parts(node: Any, named: dict[str, int]) -> int:
    """Return how many parts a value has, arrays and maps with one item each; a name counts as what it stands for.

    Ten records, each of which names the next one ten times, mean ten thousand million parts.
    """
    if isinstance(node, str):
        return named.get(node.rpartition(".")[2], 1)
    inner = [_count_parts(part, named) for part in _parts(node)]
    parts = 1 + (max(inner, default=0) if isinstance(node, list) else sum(inner))
    if parts > MAX_PARTS:
        raise UnsafeSchemaError(f"a value of the schema has more than {MAX_PARTS} parts")
    if isinstance(node, dict) and "name" in node:
        named[str(node["name"]).rpartition(".")[2]] = parts
    return parts


def _refuse_unsafe(node: Any, inside: tuple[str, ...]) -> None:
    """Refuse recursion (fastavro's C stack has no guard) and arrays of nothing (a count of 2**60 in ten bytes)."""
    if isinstance(node, str):
        if node.rpartition(".")[2] in inside:
            raise UnsafeSchemaError(f"the schema is recursive in {node}")
        return
    if isinstance(node, dict) and node.get("type") == "array" and not takes_bytes(node["items"]):
        raise UnsafeSchemaError("the schema has an array of items without bytes")
    within = inside
    if isinstance(node, dict) and "fields" in node:
        within = (*inside, str(node["name"]).rpartition(".")[2])
    for part in _parts(node):
        _refuse_unsafe(part, within)


def _parts(node: Any) -> list[Any]:
    """Return the schemas inside a schema: branches, fields, items, values, or the type spelled as an object."""
    if isinstance(node, list):
        return node
    if "fields" in node:
        return [field["type"] for field in node["fields"]]
    inner = [node[key] for key in ("items", "values") if key in node]
    return inner + ([node["type"]] if isinstance(node.get("type"), dict | list) else [])


def takes_bytes(node: Any) -> bool:
    """Tell whether every value of a schema takes at least one byte; named references count as not."""
    if isinstance(node, list):
        return True  # the branch's index
    if isinstance(node, str):
        return node in {"boolean", "int", "long", "float", "double", "bytes", "string"}
    kind = node.get("type")
    if kind == "record":
        return any(takes_bytes(field["type"]) for field in node["fields"])
    if kind == "fixed":
        return bool(node["size"] > 0)
    return kind in {"array", "map", "enum"} or takes_bytes(kind)


def bundle(name: str, source: Any) -> BundledSchema:
    """Return a schema with everything that the codec needs of it."""
    runtime = runtime_form(source)
    return BundledSchema(name, source, runtime, crc64(runtime))


def path_of(name: str) -> Path:
    """Return the working file of a record."""
    return FOLDER / f"{name}.avsc"


def published_paths(name: str, folder: Path = PUBLISHED) -> list[Path]:
    """Return the files of the published versions of a record, oldest first."""
    return sorted((folder / name).glob("*.avsc"), key=lambda path: int(path.stem))


@functools.cache
def current_schemas() -> MappingProxyType[str, BundledSchema]:
    """Return the schema that this version of the software writes and reads, by short name."""
    return MappingProxyType({name: bundle(name, json.loads(path_of(name).read_text("utf-8"))) for name in NAMES})


@functools.cache
def known_schemas() -> MappingProxyType[bytes, BundledSchema]:
    """Return every schema that a record may have been written with, by fingerprint."""
    known = {}
    for name in NAMES:
        for path in published_paths(name):
            old = bundle(name, json.loads(path.read_text("utf-8")))
            known[old.crc64] = old
    known.update((schema.crc64, schema) for schema in current_schemas().values())
    return MappingProxyType(known)


@functools.cache
def last_long_result() -> BundledSchema:
    """Return the last schema of results in which every model repeats the touchpoints."""
    path = PUBLISHED / "result" / f"{FIRST_COMPACT_VERSION - 1}.avsc"
    return bundle("result", json.loads(path.read_text("utf-8")))


@functools.cache
def compiled_reader(name: str) -> Reader | None:
    """Return the reader that is made for the current schema of a record."""
    return compile_reader(current_schemas()[name].source)


@functools.cache
def compiled_writer(name: str) -> Writer | None:
    """Return the writer that is made for the current schema of a record."""
    return compile_writer(current_schemas()[name].source)


@functools.cache
def defaults(name: str) -> MappingProxyType[str, Any]:
    """Return the fields of a record that may be missing, with what they are then."""
    fields = current_schemas()[name].source["fields"]
    return MappingProxyType({field["name"]: field["default"] for field in fields if "default" in field})


def registered_text(name: str) -> str:
    """Return the text to register: the frozen one, as registries compare docs too."""
    current = current_schemas()[name]
    for path in reversed(published_paths(name)):
        published = json.loads(path.read_text("utf-8"))
        if crc64(published) == current.crc64:
            return json.dumps(published)
    return json.dumps(current.source)
