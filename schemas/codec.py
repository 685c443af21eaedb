"""Records to bytes and back: Avro in two framings, told apart by the first bytes.

- Single-object encoding: ``C3 01``, the CRC-64 fingerprint of the writer's schema (8 bytes, little-endian), the body.
  No registry is needed. The default.
- Confluent wire format: ``00``, the registry's schema id (4 bytes, big-endian), the body. Needs a `SchemaResolver`.

Invariants: ``decode(name, encode(name, record))`` is the record with defaults filled in. Whatever the bytes are,
`decode` returns a record of the bundled schema or raises `DecodeError`; its text holds no value of the record; a
registry that is away is `RegistryUnavailableError`, never a fault of the record. Timestamps are integers, microseconds
UTC.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any, NamedTuple, NoReturn, Protocol

from fastavro import schemaless_reader, schemaless_writer
from fastavro.read import SchemaResolutionError
from fastavro.schema import SchemaParseException, UnknownType

from .compiled_reader import IRREGULAR, Reader
from .compiled_writer import NOT_PLAIN
from .refused_ids import RefusedIds
from .result_layout import compact_result, is_compact
from .schema_catalog import (
    BundledSchema,
    UnsafeSchemaError,
    bundle,
    compiled_reader,
    compiled_writer,
    current_schemas,
    known_schemas,
    last_long_result,
    registered_text,
)

MAX_BYTES = 1 << 20  # 1 MiB, also Kafka's own default limit of a record

SINGLE_OBJECT = b"\xc3\x01"
CONFLUENT = b"\x00"
_SINGLE_OBJECT_BYTES = 10
_CONFLUENT_BYTES = 5

# What fastavro raises on bytes that are not of the schema. MemoryError: a length that no memory can hold.
_BROKEN = (
    EOFError, LookupError, ValueError, TypeError, AttributeError, OverflowError, MemoryError, struct.error,
    SchemaResolutionError,
)  # fmt: skip
_NOT_A_SCHEMA = (
    UnsafeSchemaError, SchemaParseException, UnknownType, ValueError, LookupError, TypeError, AttributeError,
    RecursionError,
)  # fmt: skip


class DecodeError(ValueError):
    """The bytes are not a record of the expected kind.

    Args:
        rule: which rule they break, for a person to read; never a value.
    """

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule


class EncodeError(ValueError):
    """The record does not fit its schema.

    Args:
        rule: which rule it breaks; never a value.
    """

    def __init__(self, rule: str) -> None:
        super().__init__(rule)
        self.rule = rule


class RegistryUnavailableError(ConnectionError):
    """The schema registry did not answer: an infrastructure error, to be tried again."""


class SchemaResolver(Protocol):
    """Knows the schema ids of a registry."""

    def schema(self, schema_id: int) -> str:
        """Return the JSON text of a schema.

        Raises:
            LookupError: when the registry has no such id.
            RegistryUnavailableError: when it does not answer.
        """

    def schema_id(self, name: str, schema: str) -> int:
        """Return the id under which the schema of a record ("touchpoint", ...) is registered.

        Raises:
            LookupError: when it is not registered.
            RegistryUnavailableError: when the registry does not answer.
        """


class Codec:
    """Encodes and decodes the records of the topics. Thread-safe after construction, as far as its resolver is.

    Args:
        resolver: when given, `encode` writes the Confluent wire format and `decode` understands it.
        max_bytes: longer values are refused before they are looked at.
        refused: the ids that the registry did not have, or that have a schema of no use.
    """

    def __init__(
        self,
        resolver: SchemaResolver | None = None,
        *,
        max_bytes: int = MAX_BYTES,
        refused: RefusedIds | None = None,
    ) -> None:
        self._resolver = resolver
        self._refused = refused or RefusedIds()
        self._max_bytes = max_bytes
        self._current = current_schemas()
        self._plans: dict[str, dict[bytes, _Plan]] = {name: {} for name in self._current}
        for crc64, written in known_schemas().items():
            self._plans[written.name][SINGLE_OBJECT + crc64] = _plan_of(written, _SINGLE_OBJECT_BYTES)
        self._writers = {name: compiled_writer(name) for name in self._current}
        self._framings: dict[str, bytes] = {}
        if resolver is None:
            self._framings.update((name, SINGLE_OBJECT + schema.crc64) for name, schema in self._current.items())

    @property
    def max_bytes(self) -> int:
        """Longer values are refused."""
        return self._max_bytes

    def encode(self, name: str, record: Mapping[str, Any]) -> bytes:
        """Return a record as bytes; fields with a default may be missing, unknown fields are refused.

        Args:
            name: touchpoint, conversion, identity_link, command, result, job, job_status or dead_letter.
            record: the fields by name.

        Raises:
            EncodeError: when the record does not fit, is too long, or its schema is not registered.
            RegistryUnavailableError: when the registry does not answer.
        """
        framing = self.framing(name)
        write = self._writers[name]
        try:
            value = write(record, framing) if write else self._general(name, record, framing)
        except NOT_PLAIN:  # unusual or wrong: fastavro says which
            value = self._general(name, record, framing)
        return self.checked(name, value)

    def checked(self, name: str, value: bytes) -> bytes:
        """Return the value of a record if it is not too long.

        Raises:
            EncodeError: it is.
        """
        if len(value) > self._max_bytes:
            raise EncodeError(f"the {name} record takes more than {self._max_bytes} bytes")
        return value

    def framing(self, name: str) -> bytes:
        """Return what stands before the body of a record, for writers that are made for one schema.

        Raises:
            EncodeError: its schema is not registered.
            RegistryUnavailableError: when the registry does not answer.
        """
        return self._framings.get(name) or self._registered_framing(name)

    def decode(self, name: str, value: bytes | None) -> dict[str, Any]:
        """Return the record of a value, projected on the bundled schema.

        A result of version 1 or 2 of its schema, which repeated the touchpoints with each model, is returned as one of
        the bundled version.

        Args:
            name: the kind of record that is expected, as for `encode`.
            value: the bytes, in either framing; None (a tombstone) is refused.

        Raises:
            DecodeError: whatever is wrong with the bytes.
            RegistryUnavailableError: when the registry does not answer.
        """
        if value is None or len(value) > self._max_bytes:
            self._refuse(value)
        plans = self._plans[name]
        begin, compiled, writer, reader, lift = plans.get(value[:10]) or plans.get(value[:5]) or self._plan(name, value)
        if compiled is not None:
            try:
                return compiled(value, begin)
            except IRREGULAR:  # unusual or broken: fastavro says which
                pass
        body = BytesIO(value)
        body.seek(begin)
        try:
            record: dict[str, Any] = schemaless_reader(body, writer, reader)
        except _BROKEN as error:
            raise DecodeError(_breakage(name, error)) from None
        if body.tell() != len(value):
            raise DecodeError(f"bytes are left over after the {name} record")
        if lift is None:
            return record
        try:
            return lift(record)
        except ValueError as error:
            raise DecodeError(f"{name}: {error}") from None

    def body_of(self, name: str, value: bytes) -> int | None:
        """Return where the body begins of a value that was written with the bundled schema; None for any other.

        For readers that are made for one schema; what they cannot read, and what this refuses, `decode` judges.
        """
        plans = self._plans[name]
        plan = plans.get(value[:10]) or plans.get(value[:5])
        return None if plan is None or plan.reader is not None or len(value) > self._max_bytes else plan.begin

    def _general(self, name: str, record: Mapping[str, Any], framing: bytes) -> bytes:
        out = BytesIO()
        out.write(framing)
        try:
            schemaless_writer(out, self._current[name].runtime, record, strict_allow_default=True)
        except _BROKEN:
            raise EncodeError(": ".join(misfit(name, record))) from None
        return out.getvalue()

    def _refuse(self, value: bytes | None) -> NoReturn:
        if value is None:
            raise DecodeError("the record has no value")
        raise DecodeError(f"the value is longer than {self._max_bytes} bytes")

    def _plan(self, name: str, value: bytes) -> _Plan:
        """Find out how to read a value with first bytes that are new to this codec."""
        if value[:2] == SINGLE_OBJECT and len(value) >= _SINGLE_OBJECT_BYTES:
            other = known_schemas().get(value[2:10])
            if other is not None:
                raise DecodeError(f"the value is a {other.name} record, expected {name}")
            raise DecodeError(f"unknown schema fingerprint {value[2:10].hex()} (CRC-64, little-endian)")
        if value[:1] == CONFLUENT and len(value) >= _CONFLUENT_BYTES:
            schema_id = int.from_bytes(value[1:5], "big")
            if reason := self._refused.reason(name, schema_id):
                raise DecodeError(reason)
            try:
                plan = self._registered_plan(name, schema_id)
            except DecodeError as error:
                self._refused.add(name, schema_id, error.rule)
                raise
            self._plans[name][value[:5]] = plan
            return plan
        raise DecodeError("neither Avro single-object encoding (C3 01) nor Confluent wire format (00)")

    def _registered_plan(self, name: str, schema_id: int) -> _Plan:
        if self._resolver is None:
            raise DecodeError(f"schema id {schema_id}: no schema registry is set up")
        try:
            text = self._resolver.schema(schema_id)
        except LookupError:
            raise DecodeError(f"unknown schema id {schema_id}") from None
        try:
            writer = bundle(name, json.loads(text))
        except _NOT_A_SCHEMA:
            raise DecodeError(f"schema id {schema_id} cannot be used: it is not a safe Avro schema") from None
        reader = self._current[name]
        if not isinstance(writer.runtime, dict) or writer.runtime.get("name") != reader.runtime["name"]:
            raise DecodeError(f"schema id {schema_id} does not describe a {name} record")
        return _plan_of(writer, _CONFLUENT_BYTES)

    def _registered_framing(self, name: str) -> bytes:
        if self._resolver is None:
            raise KeyError(name)
        try:
            schema_id = self._resolver.schema_id(name, registered_text(name))
        except LookupError:
            raise EncodeError(f"the {name} schema is not registered") from None
        self._framings[name] = CONFLUENT + schema_id.to_bytes(4, "big")
        return self._framings[name]


class _Plan(NamedTuple):
    """How to read a value with known first bytes."""

    begin: int  # where its body begins
    compiled: Reader | None
    writer: Any  # fastavro's form of the schema that it was written with
    reader: Any  # that of the bundled schema; None when both are the same
    lift: Callable[[dict[str, Any]], dict[str, Any]] | None = None  # from the layout of the reader to the bundled one


def _plan_of(written: BundledSchema, begin: int) -> _Plan:
    current = current_schemas()[written.name]
    if written.crc64 == current.crc64:
        return _Plan(begin, compiled_reader(written.name), current.runtime, None)
    if written.name == "result" and not is_compact(written.runtime):
        return _Plan(begin, None, written.runtime, last_long_result().runtime, compact_result)
    return _Plan(begin, None, written.runtime, current.runtime)


def _breakage(name: str, error: Exception) -> str:
    """Say what is broken without fastavro's text, which quotes the bytes."""
    if isinstance(error, UnicodeDecodeError):
        return f"a text of the {name} record is not UTF-8"
    if isinstance(error, EOFError):
        return f"the {name} record ends too early"
    if isinstance(error, SchemaResolutionError):
        return f"the writer's schema cannot be read as the {name} record of this version"
    return f"the bytes are not a {name} record"


def misfit(name: str, record: Any) -> tuple[str, str]:
    """Name the first field that keeps a record from being written, and the rule; slow, for the error text only."""
    if not isinstance(record, Mapping):
        return name, "must be a mapping of fields"
    fields = {field["name"]: field for field in current_schemas()[name].runtime["fields"]}
    for field_name, field in fields.items():
        if field_name not in record and "default" not in field:
            return field_name, "must be set"
    if unknown := sorted(str(key) for key in record if key not in fields):
        return unknown[0], f"the {name} record has no such field"
    for field_name, field in fields.items():
        if field_name in record and not _fits(field["type"], record[field_name]):
            return field_name, f"is not of the type that the {name} schema says, or not UTF-8 text"
    return name, "does not fit its schema"


def _fits(schema: Any, value: Any) -> bool:
    try:
        schemaless_writer(BytesIO(), schema, value)
    except _BROKEN:
        return False
    return True
