"""A result's bytes and its content hash, from one encoding.

The hash covers everything but ``computed_at`` and the hash itself, which are the last two fields of the schema (checked
below): the record is encoded with both empty, one zero byte each, hashed, and the two are then put in their place. A
result is some kilobytes, and encoding it is most of the attributor's work.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from attributary.schemas.codec import Codec
from attributary.schemas.schema_catalog import current_schemas

from .credits import CreditedResult
from .result_writer import write_result

_LAST_FIELDS = [("computed_at", "long"), ("content_hash", "string")]
_EMPTY = b"\x00\x00"
# What stands before the record (Avro specification, single-object encoding; Confluent wire format) is no content.
_SINGLE_OBJECT, _SINGLE_OBJECT_BYTES, _REGISTRY_BYTES = b"\xc3\x01", 10, 5


def _types(field: Mapping[str, Any]) -> tuple[str, Any]:
    kind = field["type"]
    return field["name"], kind["type"] if isinstance(kind, Mapping) else kind


if [_types(field) for field in current_schemas()["result"].source["fields"][-2:]] != _LAST_FIELDS:
    raise AssertionError("result.avsc must end with computed_at and content_hash: encoding.py relies on it")


def encode_result(codec: Codec, result: CreditedResult, computed_at: int) -> bytes:
    """Return the encoded result, sealed.

    Args:
        codec: knows what stands before the body, and how long a record may be.
        result: what was credited.
        computed_at: microseconds UTC.

    Raises:
        EncodeError: it is too long.
    """
    return codec.checked("result", sealed(write_result(result, codec.framing("result")), computed_at)[0])


def sealed(value: bytes, computed_at: int) -> tuple[bytes, str]:
    """Put time and content hash at the end of a result that was encoded with both empty; returns also the hash."""
    framing = _SINGLE_OBJECT_BYTES if value.startswith(_SINGLE_OBJECT) else _REGISTRY_BYTES
    content_hash = blake2b(value[framing:], digest_size=16).hexdigest()
    text = content_hash.encode()
    return value.removesuffix(_EMPTY) + _long(computed_at) + _long(len(text)) + text, content_hash


def _long(number: int) -> bytes:
    """Encode a long that is not negative: zig-zag, then seven bits a byte (Avro specification, binary encoding)."""
    number <<= 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
