"""Records of an Avro object container file, within fixed bounds (Avro 1.11, "Object Container Files").

Invariant: memory is bounded by the limits below, whatever the file is: a block is unpacked up to a limit, a record
takes at least one byte and at most ``MAX_RECORD_BYTES``, and a schema with which a few bytes mean many values is
refused before the first record. fastavro's own reader has none of these bounds.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import IO, Any, cast

import fastavro
from fastavro.read import LOGICAL_READERS
from fastavro.schema import SchemaParseException, UnknownType

from attributary.schemas.schema_catalog import UnsafeSchemaError, refuse_unsafe, takes_bytes

MAX_HEADER_BYTES = 1 << 20
MAX_BLOCK_BYTES = 16 << 20
"""Of a block, packed or unpacked. Writers' defaults are 16 KB to 1 MiB."""

MAX_RECORD_BYTES = 1 << 20
"""As for a line of JSON, and for a record in Kafka."""

_CODECS = ("null", "deflate")
_SYNC_BYTES = 16
_HEADER = fastavro.parse_schema(
    {
        "type": "record",
        "name": "attributary_import_header",
        "fields": [
            {"name": "magic", "type": {"type": "fixed", "name": "attributary_import_magic", "size": 4}},
            {"name": "meta", "type": {"type": "map", "values": "bytes"}},
            {"name": "sync", "type": {"type": "fixed", "name": "attributary_import_sync", "size": _SYNC_BYTES}},
        ],
    }
)

# A decimal of a megabyte takes minutes to become a number. Values that mean something have 38 digits, 16 bytes.
_DECIMAL = "attributary-decimal"
_MAX_DECIMAL_BYTES = 64
_MAX_SCALE = 38

_BROKEN = (
    ValueError, TypeError, LookupError, EOFError, ArithmeticError, MemoryError, struct.error, zlib.error, OSError,
)  # fmt: skip
_NOT_A_SCHEMA = (
    UnsafeSchemaError, SchemaParseException, UnknownType, ValueError, LookupError, TypeError, AttributeError,
    RecursionError,
)  # fmt: skip


class AvroError(ValueError):
    """The file is no Avro container that can be read; the text says why."""


class _TooLargeError(ValueError):
    pass


class AvroContainer:
    """The records of a container file.

    Args:
        file: at its beginning.

    Raises:
        AvroError: it is no container of records, of a codec that is not read, or its schema is not safe.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        header = self._header()
        meta: Mapping[str, bytes] = header["meta"]
        codec = meta.get("avro.codec", b"null").decode("ascii", "replace")
        if codec not in _CODECS:
            raise AvroError(f"codec {codec[:20]!r} is not supported; write the file with {' or '.join(_CODECS)}")
        self._is_deflated = codec == "deflate"
        self._sync = header["sync"]
        self._schema, self.columns = _read_schema(meta.get("avro.schema", b""))

    def records(self) -> Iterator[Mapping[str, Any]]:
        """Return the records.

        Raises:
            AvroError: the file is damaged, or goes past a limit, from the record on that would be next.
        """
        number = 0
        while True:
            try:
                block = self._block()
                if block is None:
                    return
                count, unpacked = block
                body = io.BytesIO(unpacked) if len(unpacked) <= MAX_RECORD_BYTES else _LimitedReads(unpacked)
            except _TooLargeError as error:
                raise AvroError(f"record {number + 1}: {error}") from None
            except _BROKEN:
                raise _damaged(number + 1) from None
            for _ in range(count):
                number += 1
                yield self._record(body, number)
            if body.read(1):
                raise _damaged(number + 1)

    def _record(self, body: io.BytesIO | _LimitedReads, number: int) -> Mapping[str, Any]:
        try:
            if isinstance(body, _LimitedReads):
                body.begin()
            return cast("Mapping[str, Any]", fastavro.schemaless_reader(cast("IO[bytes]", body), self._schema, None))
        except _TooLargeError as error:
            raise AvroError(f"record {number}: {error}") from None
        except _BROKEN:
            raise _damaged(number) from None

    def _header(self) -> Any:
        limited = _LimitedReads(self._file, MAX_HEADER_BYTES)
        try:
            header = fastavro.schemaless_reader(cast("IO[bytes]", limited), _HEADER, None)
        except _TooLargeError:
            raise AvroError(f"the header takes more than {MAX_HEADER_BYTES} bytes") from None
        except _BROKEN:
            header = {"magic": b""}
        if not isinstance(header, dict) or header["magic"] != b"Obj\x01":
            raise AvroError("the file is not an Avro container file")
        return header

    def _block(self) -> tuple[int, bytes] | None:
        """Return the number of records of the next block and their bytes; None at the end of the file."""
        first = self._file.read(1)
        if not first:
            return None
        count, size = _long(self._file, first), _long(self._file)
        if count < 0 or size < 0:
            raise EOFError
        if size > MAX_BLOCK_BYTES:
            raise _TooLargeError(f"the block takes more than {MAX_BLOCK_BYTES} bytes")
        packed = self._file.read(size)
        if len(packed) < size or self._file.read(_SYNC_BYTES) != self._sync:
            raise EOFError
        unpacked = _inflated(packed) if self._is_deflated else packed
        if count > len(unpacked):  # a record takes a byte at least
            raise EOFError
        return count, unpacked


class _LimitedReads:
    """A file of which each part, begun anew, may take so many bytes."""

    def __init__(self, source: bytes | IO[bytes], limit: int = MAX_RECORD_BYTES) -> None:
        self._file = io.BytesIO(source) if isinstance(source, bytes) else source
        self._limit = limit
        self._left = limit

    def begin(self) -> None:
        self._left = self._limit

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self._left:
            raise _TooLargeError(f"it takes more than {self._limit} bytes")
        self._left -= size
        return self._file.read(size)


def _read_schema(text: bytes) -> tuple[Any, tuple[str, ...]]:
    try:
        source = json.loads(text)
    except (ValueError, RecursionError):
        source = None
    if not isinstance(source, dict) or source.get("type") != "record":
        raise AvroError("the records of the Avro file are not records with fields")
    try:
        refuse_unsafe(source)
        is_safe = takes_bytes(source)
        schema = fastavro.parse_schema(_with_our_decimals(source))
    except UnsafeSchemaError as error:
        raise AvroError(f"the schema of the Avro file is not safe to read: {error}") from None
    except _NOT_A_SCHEMA:
        raise AvroError("the schema of the Avro file cannot be read") from None
    if not is_safe:
        raise AvroError("the schema of the Avro file is not safe to read: its records take no bytes")
    return schema, tuple(field["name"] for field in source["fields"])


def _with_our_decimals(node: Any) -> Any:
    if isinstance(node, list):
        return [_with_our_decimals(item) for item in node]
    if not isinstance(node, dict):
        return node
    inner = {key: value if key == "default" else _with_our_decimals(value) for key, value in node.items()}
    if inner.get("logicalType") == "decimal" and isinstance(inner.get("type"), str):
        inner["logicalType"] = _DECIMAL
    return inner


def _decimal(data: bytes, writer: Any = None, _reader: Any = None) -> Decimal:
    scale = (writer or {}).get("scale", 0)
    if len(data) > _MAX_DECIMAL_BYTES or not isinstance(scale, int) or not 0 <= scale <= _MAX_SCALE:
        raise ValueError("a decimal is too long")
    unscaled = int.from_bytes(data, "big", signed=True)
    return Decimal((int(unscaled < 0), tuple(map(int, str(abs(unscaled)))), -scale))


LOGICAL_READERS[f"bytes-{_DECIMAL}"] = LOGICAL_READERS[f"fixed-{_DECIMAL}"] = _decimal


def _inflated(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj(-15)
    unpacked = unpacker.decompress(packed, MAX_BLOCK_BYTES)
    if unpacker.unconsumed_tail or (not unpacker.eof and len(unpacked) == MAX_BLOCK_BYTES):
        raise _TooLargeError(f"the block takes more than {MAX_BLOCK_BYTES} bytes when it is unpacked")
    if not unpacker.eof:
        raise EOFError
    return unpacked


def _long(file: IO[bytes], first: bytes = b"") -> int:
    """Return a number in Avro's variable-length zig-zag coding.

    Raises:
        EOFError: the file ends in it, or it is longer than 64 bits.
    """
    value = 0
    for shift in range(0, 70, 7):
        byte = first or file.read(1)
        first = b""
        if not byte:
            raise EOFError
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return (value >> 1) ^ -(value & 1)
    raise EOFError


def _damaged(number: int) -> AvroError:
    return AvroError(f"record {number}: the Avro file is damaged from here on")
